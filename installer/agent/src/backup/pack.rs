//! Dumps of servers, compressed on their way: zstd frames (RFC 8878) one after the other, each whole in itself, so that
//! the file is one that any `zstd -d` reads.
//!
//! SQL compresses to a tenth or so, and everything behind (hashes, sockets, chunks, encryption, SSH) has that much less to do.
//! A frame ends after a row whose hash says so, not after so many bytes: rows that are the same in two dumps become the
//! same frames wherever they are, and the repository keeps those once. What is not a dump is left to restic's own
//! compression.

use crate::error::{Failure, Result};
use zstd::bulk::Compressor;
use zstd::stream::raw::{CParameter, Decoder, Operation as _};

/// zstd's level: on dumps, higher ones cost time and save next to nothing.
const LEVEL: i32 = 1;
/// A frame has this many bytes of dump at least, unless it is the last, …
const LEAST: usize = 64 << 10;
/// … and this many at most.
const MOST: usize = 4 << 20;
/// A frame of zstd begins with this (RFC 8878 §3.1.1); no SQL does.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What is unpacked at once.
const PIECE: usize = 128 << 10;

/// Makes frames of a dump.
pub struct Packer {
    compressor: Compressor<'static>,
    /// Of the dump: the frame that is not complete yet.
    waiting: Vec<u8>,
    /// Frames that were not taken yet.
    packed: Vec<u8>,
}

impl Packer {
    /// For one dump.
    pub fn new() -> Result<Self> {
        let mut compressor = Compressor::new(LEVEL).map_err(failed)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true)).map_err(failed)?;
        Ok(Self { compressor, waiting: Vec::with_capacity(MOST), packed: Vec::new() })
    }

    /// The next bytes, and where in them a frame may end, in order.
    pub fn feed(&mut self, bytes: &[u8], edges: &[usize]) -> Result<()> {
        let mut done = 0;
        for end in edges {
            self.put(&bytes[done..*end])?;
            done = *end;
            if self.waiting.len() >= LEAST {
                self.frame()?;
            }
        }
        self.put(&bytes[done..])
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(MOST - self.waiting.len()));
            self.waiting.extend_from_slice(now);
            bytes = later;
            if self.waiting.len() == MOST {
                self.frame()?;
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<()> {
        if !self.waiting.is_empty() {
            self.packed.extend(self.compressor.compress(&self.waiting).map_err(failed)?);
            self.waiting.clear();
        }
        Ok(())
    }

    /// The frames that are complete, to be taken away.
    pub const fn packed(&mut self) -> &mut Vec<u8> {
        &mut self.packed
    }

    /// Nothing more comes: the last frames.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.frame()?;
        Ok(self.packed)
    }
}

fn failed(error: std::io::Error) -> Failure {
    Failure::Invalid(format!("compressing the dump: {error}"))
}

/// Makes a dump of frames again. One that was never compressed goes through as it is.
pub struct Unpacker {
    /// Nothing before the first bytes came, and for what is not compressed.
    decoder: Option<Decoder<'static>>,
    begun: Vec<u8>,
    plain: bool,
    /// The last frame is whole.
    whole: bool,
    piece: Vec<u8>,
}

impl Unpacker {
    /// For one dump.
    pub const fn new() -> Self {
        Self { decoder: None, begun: Vec::new(), plain: false, whole: true, piece: Vec::new() }
    }

    /// The next bytes of the file; those of the dump go to `take`.
    pub fn feed(&mut self, bytes: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if self.plain {
            return take(bytes);
        }
        if self.decoder.is_none() {
            self.begun.extend_from_slice(bytes);
            if self.begun.len() < MAGIC.len() {
                return Ok(());
            }
            let begun = std::mem::take(&mut self.begun);
            if !begun.starts_with(&MAGIC) {
                self.plain = true;
                return take(&begun);
            }
            self.decoder = Some(Decoder::new().map_err(broken)?);
            self.piece = vec![0; PIECE];
            return self.unpack(&begun, take);
        }
        self.unpack(bytes, take)
    }

    fn unpack(&mut self, mut bytes: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Some(decoder) = &mut self.decoder else { return Ok(()) };
        loop {
            let status = decoder.run_on_buffers(bytes, &mut self.piece).map_err(broken)?;
            bytes = &bytes[status.bytes_read..];
            take(&self.piece[..status.bytes_written])?;
            self.whole = status.remaining == 0;
            // A full piece: there may be more of what was read already.
            if bytes.is_empty() && status.bytes_written < self.piece.len() {
                return Ok(());
            }
        }
    }

    /// Nothing more comes: whether the file ends where a frame does.
    pub fn finish(self, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if !self.begun.is_empty() {
            return take(&self.begun);
        }
        if self.whole { Ok(()) } else { Err(broken(std::io::ErrorKind::UnexpectedEof.into())) }
    }
}

fn broken(error: std::io::Error) -> Failure {
    Failure::Content {
        what: format!("the dump cannot be unpacked: {error}"),
        hint: "verify the repository with `maxim.ctl backup verify` and restore an older set".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{LEAST, MOST, Packer, Unpacker};
    use crate::backup::sums::{Dialect, Scanner};
    use std::collections::BTreeSet;

    fn dump(rows: impl IntoIterator<Item = u32>) -> Vec<u8> {
        let mut text = "CREATE TABLE `m` (\nx\n);\nINSERT INTO `m` VALUES\n".to_owned();
        for row in rows {
            text.push_str(&format!("({row},'a message of somebody to somebody, number {row}'),\n"));
        }
        (text + "(0,'');\n-- Dump completed\n").into_bytes()
    }

    fn pack(bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (mut scanner, mut packer) = (Scanner::new(Dialect::Mariadb), Packer::new().unwrap());
        let mut frames = Vec::new();
        for bytes in bytes.chunks(piece) {
            scanner.feed(bytes);
            packer.feed(bytes, scanner.edges()).unwrap();
            frames.push(std::mem::take(packer.packed()));
        }
        frames.push(packer.finish().unwrap());
        (frames.concat(), frames)
    }

    fn unpack(bytes: &[u8], piece: usize) -> crate::error::Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut unpacker = Unpacker::new();
        let mut take = |bytes: &[u8]| {
            all.extend_from_slice(bytes);
            Ok(())
        };
        for bytes in bytes.chunks(piece) {
            unpacker.feed(bytes, &mut take)?;
        }
        unpacker.finish(&mut take)?;
        Ok(all)
    }

    #[test]
    fn what_was_packed_comes_out_whatever_the_pieces() {
        for text in
            [dump(0..20_000), b"x".repeat(2 * MOST + 5), b"-- a dump as it was\n".to_vec(), Vec::new()]
        {
            let (packed, _) = pack(&text, 500_000);
            for piece in [3, 4096, packed.len().max(1)] {
                assert!(unpack(&packed, piece).unwrap() == text, "packed, by {piece}");
                assert!(unpack(&text, piece).unwrap() == text, "never packed, by {piece}");
            }
            // Any program reads it; a dump is never empty.
            assert!(text.is_empty() || zstd::decode_all(packed.as_slice()).unwrap() == text);
        }
    }

    #[test]
    fn a_file_that_was_cut_off_or_changed_is_refused() {
        let (packed, _) = pack(&dump(0..20_000), 500_000);
        assert!(unpack(&packed[..packed.len() - 1], 4096).is_err());
        let mut flipped = packed.clone();
        flipped[packed.len() / 2] ^= 1;
        assert!(unpack(&flipped, 4096).is_err(), "every frame has a checksum");
    }

    /// A row that is new in the middle changes the frame that it is in, and hardly more.
    #[test]
    fn the_same_rows_become_the_same_frames() {
        let frames = |bytes: &[u8]| -> BTreeSet<Vec<u8>> {
            // By pieces of a row or so, each frame is taken alone.
            pack(bytes, 64).1.into_iter().filter(|frame| !frame.is_empty()).collect()
        };
        let before = frames(&dump((0..400_000).filter(|row| *row != 200_000)));
        let after = frames(&dump(0..400_000));
        let new = after.difference(&before).count();
        assert!(after.len() > 100 && (1..=4).contains(&new), "{new} of {} are new", after.len());
        let bytes = dump(0..400_000).len();
        assert!(bytes / after.len() > LEAST, "frames are not too small");
    }
}
