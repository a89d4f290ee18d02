//! What this host has dumped itself, so that an agent for backups may load that again and nothing else. (That what a dump
//! holds does no harm is seen to by the account that loads it; see `loading`.)
//!
//! A dump that went out whole, to another host, is noted as the hashes of its blocks, in a file of a folder that only root reads
//! ([`Noting`]). What comes in is held back block by block until a dump of this host is known that has gone the same way so
//! far; its last block must end one ([`Known`]). The newest few are kept: the drill by a schedule takes the newest set.

use super::private;
use crate::error::{Failure, Result};
use crate::files::{Ownership, write_atomic};
use crate::link::raw::{Channel, Frame};
use maxim_model::wire::Reply;
use ring::digest::{Context, SHA256, digest};
use std::path::Path;

/// Bytes of a dump, as it travels, that are hashed together; so many are held back.
const BLOCK: usize = 1 << 20;
/// Bytes of a hash.
const HASH: usize = 32;
/// Dumps that are remembered.
const KEPT: usize = 32;

/// Hands a dump on and hashes it.
pub struct Noting<'a> {
    channel: &'a mut dyn Channel,
    block: Context,
    filled: usize,
    hashes: Vec<u8>,
}

impl<'a> Noting<'a> {
    /// Before its first byte.
    pub fn new(channel: &'a mut dyn Channel) -> Self {
        Self { channel, block: Context::new(&SHA256), filled: 0, hashes: Vec::new() }
    }

    fn hash(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            self.block.update(piece);
            self.filled += piece.len();
            bytes = rest;
            if self.filled == BLOCK {
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        let block = std::mem::replace(&mut self.block, Context::new(&SHA256));
        self.hashes.extend_from_slice(block.finish().as_ref());
        self.filled = 0;
    }

    /// Notes what went out, whole, in a folder.
    pub fn keep(mut self, folder: &Path) -> Result<()> {
        if self.filled > 0 {
            self.end_block();
        }
        private(folder)?;
        let mut numbers = numbers(folder);
        let number = numbers.last().map_or(0, |last| last + 1);
        write_atomic(&folder.join(number.to_string()), &self.hashes, Ownership::mode(0o600))?;
        numbers.push(number);
        for old in numbers.iter().rev().skip(KEPT) {
            let path = folder.join(old.to_string());
            std::fs::remove_file(&path).map_err(Failure::file("remove", &path))?;
        }
        Ok(())
    }
}

impl Channel for Noting<'_> {
    fn reply(&mut self, reply: &Reply) -> Result<()> {
        self.channel.reply(reply)
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.channel.raw(bytes)?;
        self.hash(bytes);
        Ok(())
    }

    fn frame(&mut self, buffer: &mut Vec<u8>) -> Result<Frame> {
        self.channel.frame(buffer)
    }

    fn is_gone(&self) -> bool {
        self.channel.is_gone()
    }
}

/// Numbers of the dumps that are noted, the oldest first.
fn numbers(folder: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all: Vec<u64> =
        entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())).collect();
    all.sort_unstable();
    all
}

/// Dumps that what comes in may still be.
pub struct Known {
    /// Hashes of the blocks of each.
    dumps: Vec<Vec<u8>>,
    /// Blocks that were let through.
    passed: usize,
    held: Vec<u8>,
}

impl Known {
    /// Those that are noted in a folder; without one there is none.
    pub fn read(folder: &Path) -> Self {
        let read = |number: u64| std::fs::read(folder.join(number.to_string())).ok();
        let dumps = numbers(folder).into_iter().filter_map(read).collect();
        Self { dumps, passed: 0, held: Vec::with_capacity(BLOCK) }
    }

    /// A piece of what comes in; whole blocks that are known go to `take`.
    pub fn feed(&mut self, mut piece: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while !piece.is_empty() {
            let (part, rest) = piece.split_at(piece.len().min(BLOCK - self.held.len()));
            self.held.extend_from_slice(part);
            piece = rest;
            if self.held.len() == BLOCK {
                self.pass(take)?;
            }
        }
        Ok(())
    }

    /// The end of what came in.
    pub fn finish(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if !self.held.is_empty() {
            self.pass(take)?;
        }
        let end = self.passed * HASH;
        if end > 0 && self.dumps.iter().any(|dump| dump.len() == end) { Ok(()) } else { Err(foreign()) }
    }

    fn pass(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let hash = digest(&SHA256, &self.held);
        let at = self.passed * HASH;
        self.dumps.retain(|dump| dump.get(at..at + HASH) == Some(hash.as_ref()));
        if self.dumps.is_empty() {
            return Err(foreign());
        }
        take(&self.held)?;
        self.passed += 1;
        self.held.clear();
        Ok(())
    }
}

fn foreign() -> Failure {
    Failure::refused(
        "this is no dump that this host has made lately, and the host of the repository may load nothing else",
        "the schedule can try the next set that is made; `maxim.ctl backup drill` at a control host tries any",
    )
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, KEPT, Known, Noting, numbers};
    use crate::error::Result;
    use crate::link::raw::{Channel, Frame};
    use maxim_model::wire::Reply;
    use std::path::Path;

    struct Nowhere;

    impl Channel for Nowhere {
        fn reply(&mut self, _: &Reply) -> Result<()> {
            Ok(())
        }

        fn raw(&mut self, _: &[u8]) -> Result<()> {
            Ok(())
        }

        fn frame(&mut self, _: &mut Vec<u8>) -> Result<Frame> {
            Ok(Frame::End)
        }

        fn is_gone(&self) -> bool {
            false
        }
    }

    /// Some blocks and a half of one, told apart by `seed`.
    fn dump(seed: u8, blocks: usize) -> Vec<u8> {
        (0..blocks * BLOCK + BLOCK / 2).map(|place| seed ^ (place / 1000) as u8).collect()
    }

    fn note(folder: &Path, dump: &[u8], piece: usize) {
        let mut nowhere = Nowhere;
        let mut noting = Noting::new(&mut nowhere);
        for piece in dump.chunks(piece) {
            noting.raw(piece).unwrap();
        }
        noting.keep(folder).unwrap();
    }

    /// What of a stream was let through, and whether it was taken for one of this host's.
    fn load(folder: &Path, stream: &[u8]) -> (Vec<u8>, bool) {
        let (mut known, mut passed) = (Known::read(folder), Vec::new());
        let mut take = |block: &[u8]| {
            passed.extend_from_slice(block);
            Ok(())
        };
        // In pieces that fit no block.
        let fed = stream.chunks(300_001).try_for_each(|piece| known.feed(piece, &mut take));
        let ended = fed.and_then(|()| known.finish(&mut take));
        if let Err(refused) = &ended {
            assert!(refused.to_string().contains("no dump that this host has made"), "{refused}");
        }
        (passed, ended.is_ok())
    }

    #[test]
    fn nothing_is_let_through_but_what_this_host_has_dumped() {
        let folder = tempfile::tempdir().unwrap();
        let notes = folder.path().join("dumps");
        let (one, two) = (dump(1, 2), dump(2, 3));
        assert_eq!(load(&notes, &one), (Vec::new(), false), "nothing is known");
        note(&notes, &one, 77_777);
        note(&notes, &two, 512 << 10);
        // One that begins as another and goes on longer.
        let mut longer = one[..2 * BLOCK].to_vec();
        longer.extend_from_slice(&dump(9, 1));
        note(&notes, &longer, BLOCK);
        for own in [&one, &two, &longer] {
            assert!(load(&notes, own) == (own.clone(), true));
        }
        for (what, foreign, let_through) in [
            ("nothing", Vec::new(), 0),
            ("another", dump(3, 2), 0),
            ("its beginning", one[..BLOCK].to_vec(), BLOCK),
            ("all but its last byte", one[..one.len() - 1].to_vec(), 2 * BLOCK),
            ("more than it", [&one[..], b"DROP DATABASE maxim;"].concat(), 2 * BLOCK),
            ("a block of another", [&one[..BLOCK], &two[BLOCK..]].concat(), BLOCK),
        ] {
            let (passed, is_own) = load(&notes, &foreign);
            assert!(!is_own && passed == foreign[..let_through], "{what}: {}", passed.len());
        }
        let mut changed = one.clone();
        changed[BLOCK + 5] ^= 1;
        assert_eq!(load(&notes, &changed).0.len(), BLOCK, "a changed byte in the second block");
    }

    #[test]
    fn the_newest_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let dumps: Vec<_> = (0..KEPT + 3).map(|seed| dump(seed as u8, 0)).collect();
        for dump in &dumps {
            note(folder.path(), dump, 4096);
        }
        assert_eq!(numbers(folder.path()).len(), KEPT);
        assert!(!load(folder.path(), &dumps[2]).1 && load(folder.path(), &dumps[3]).1);
        assert!(load(folder.path(), &dumps[KEPT + 2]).1);
    }
}
