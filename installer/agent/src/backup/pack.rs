//! Dumps of servers, compressed on their way: zstd frames (RFC 8878) one after the other, each whole in itself, so that
//! the file is one that any `zstd -d` reads.
//!
//! SQL compresses to a quarter or less, and everything behind (hashes, sockets, chunks, encryption, SSH) has that much
//! less to do. [`super::cut`] says where a frame ends. What is not a dump is left to restic's own compression.

use crate::error::{Failure, Result};
use zstd::bulk::Compressor;
use zstd::stream::raw::{CParameter, Decoder, Operation as _};

/// zstd's level: on dumps, higher ones cost time and save next to nothing.
const LEVEL: i32 = 1;
/// A frame of zstd begins with this (RFC 8878 §3.1.1); no SQL does.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What is unpacked at once.
const PIECE: usize = 128 << 10;

/// Compresses frames of a dump.
pub struct Packer(Compressor<'static>);

impl Packer {
    /// For one dump.
    pub fn new() -> Result<Self> {
        let mut compressor = Compressor::new(LEVEL).map_err(failed)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true)).map_err(failed)?;
        Ok(Self(compressor))
    }

    /// A frame, compressed.
    pub fn pack(&mut self, frame: &[u8]) -> Result<Vec<u8>> {
        let mut packed = self.0.compress(frame).map_err(failed)?;
        // It was made with room for a frame that does not compress, and may wait for long.
        packed.shrink_to_fit();
        Ok(packed)
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
    use super::{Packer, Unpacker};
    use crate::backup::cut::tests::{cut, dump};
    use crate::backup::sums::Dialect;

    fn pack(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut packer = Packer::new().unwrap();
        frames.iter().flat_map(|frame| packer.pack(frame).unwrap()).collect()
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
        for text in [dump(0..20_000, 1000), b"-- a dump as it was\n".to_vec(), Vec::new()] {
            let (frames, _) = cut(Dialect::Mariadb, &text, 500_000);
            let (packed, framed) = (pack(&frames), frames.concat());
            for piece in [3, 4096, packed.len().max(1)] {
                assert!(unpack(&packed, piece).unwrap() == framed, "packed, by {piece}");
                assert!(unpack(&text, piece).unwrap() == text, "never packed, by {piece}");
            }
            // Any program reads it; a dump is never empty.
            assert!(text.is_empty() || zstd::decode_all(packed.as_slice()).unwrap() == framed);
        }
    }

    #[test]
    fn a_file_that_was_cut_off_or_changed_is_refused() {
        let packed = pack(&cut(Dialect::Mariadb, &dump(0..20_000, 1000), 500_000).0);
        assert!(unpack(&packed[..packed.len() - 1], 4096).is_err());
        let mut flipped = packed.clone();
        flipped[packed.len() / 2] ^= 1;
        assert!(unpack(&flipped, 4096).is_err(), "every frame has a checksum");
    }
}
