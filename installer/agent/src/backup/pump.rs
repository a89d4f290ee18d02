//! From the program that dumps to whoever takes the dump: read and hashed, compressed, and handed on, each by a thread of
//! its own, so that the dump never waits for the others while there is something to do. What waits between them is
//! bounded.

use super::aside::Aside;
use super::child::Running;
use super::cut::Cutter;
use super::pack::Packer;
use super::queue::{Frame, Giver, Taker, queue};
use super::stream;
use super::sums::{Dialect, Scanner};
use crate::error::{Failure, Result};
use crate::link::raw::Channel;
use maxim_model::backup::wire::FRAME;
use std::thread::ScopedJoinHandle;

/// Bytes of the dump that wait to be compressed: two of the largest frames, or one that is longer by its last row.
const CUT: usize = 2 * super::cut::MOST;
/// Bytes that wait to be handed on: while restic opens the repository, the dump goes on.
const PACKED: usize = 32 << 20;

/// What went by.
pub struct Pumped {
    /// Rows and hashes.
    pub scanner: Scanner,
    /// Bytes of the dump.
    pub content: u64,
    /// Bytes that were handed on.
    pub bytes: u64,
}

/// Hands the whole dump on to `channel`.
pub fn pump(dump: &mut Running, dialect: Dialect, channel: &mut dyn Channel) -> Result<Pumped> {
    let mut output = dump.stdout()?;
    // The program that dumps mostly waits, for the database and for us.
    let _aside = Aside::step();
    std::thread::scope(|scope| {
        let (cut, to_pack) = queue(CUT);
        let (packed, to_send) = queue(PACKED);
        let reader = scope.spawn(move || read(&mut output, dialect, &cut));
        let packer = scope.spawn(move || pack(&to_pack, &packed));
        let sent = send(&to_send, channel);
        drop(to_send);
        if sent.is_err() {
            // Its reader waits for it.
            dump.kill();
        }
        let (packed, read) = (joined(packer), joined(reader));
        // The first of them that failed is why the others did.
        let bytes = sent?;
        packed?;
        let (scanner, content) = read?;
        Ok(Pumped { scanner, content, bytes })
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(Failure::Invalid("reading the dump went wrong".into())))
}

/// Whoever takes it is gone, and says why itself.
fn gone() -> Failure {
    Failure::Invalid("nobody takes the dump any more".into())
}

fn given(to: &Giver, frame: Frame) -> Result<()> {
    if to.give(frame) { Ok(()) } else { Err(gone()) }
}

fn read(output: &mut dyn std::io::Read, dialect: Dialect, cut: &Giver) -> Result<(Scanner, u64)> {
    let mut cutter = Cutter::new(dialect);
    let mut total = 0;
    let content = stream::read(output, "the dump", |piece| {
        total += piece.len() as u64;
        cutter.feed(piece, &mut |frame| given(cut, (frame, total)))
    })?;
    let scanner = cutter.finish(&mut |frame| given(cut, (frame, content)))?;
    Ok((scanner, content))
}

fn pack(frames: &Taker, packed: &Giver) -> Result<()> {
    let mut packer = Packer::new()?;
    while let Some((frame, read)) = frames.take() {
        given(packed, (packer.pack(&frame)?, read))?;
    }
    Ok(())
}

fn send(packed: &Taker, channel: &mut dyn Channel) -> Result<u64> {
    let (mut waiting, mut bytes, mut known) = (Vec::with_capacity(2 * FRAME), 0, 0);
    while let Some((frame, read)) = packed.take() {
        known = read;
        waiting.extend_from_slice(&frame);
        let whole = waiting.len() - waiting.len() % FRAME;
        for piece in waiting[..whole].chunks(FRAME) {
            stream::chunk(channel, piece, known)?;
        }
        waiting.drain(..whole);
        bytes += whole as u64;
    }
    if !waiting.is_empty() {
        stream::chunk(channel, &waiting, known)?;
        bytes += waiting.len() as u64;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{FRAME, PACKED, pump};
    use crate::backup::child;
    use crate::backup::pack::Packer;
    use crate::backup::sums::Dialect;
    use crate::error::{Failure, Result};
    use crate::link::raw::{Channel, Frame};
    use maxim_model::wire::Reply;
    use std::time::Duration;

    /// Takes what comes, or fails after so many pieces.
    struct Goal {
        taken: Vec<u8>,
        pieces: usize,
        most: usize,
    }

    impl Channel for Goal {
        fn reply(&mut self, _: &Reply) -> Result<()> {
            Ok(())
        }

        fn raw(&mut self, bytes: &[u8]) -> Result<()> {
            assert!(bytes.len() <= FRAME);
            self.pieces += 1;
            if self.pieces > self.most {
                return Err(Failure::Invalid("the goal has gone".into()));
            }
            // Slower than who dumps, so that frames wait.
            std::thread::sleep(Duration::from_millis(1));
            self.taken.extend_from_slice(bytes);
            Ok(())
        }

        fn frame(&mut self, _: &mut Vec<u8>) -> Result<Frame> {
            Ok(Frame::End)
        }

        fn is_gone(&self) -> bool {
            false
        }
    }

    /// A dump of rows of random text, each of a megabyte, larger than all that may wait.
    fn dump(folder: &std::path::Path) -> (child::Running, Vec<u8>) {
        let mut state = 1_u64;
        // Letters from `(` to `[`, which need no escape. The same row again is further back than anybody looks.
        let random = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            b'(' + ((state >> 33) % 52) as u8
        });
        let row: Vec<u8> = random.take(1 << 20).collect();
        let mut text = b"CREATE TABLE `m` (\nx\n);\nINSERT INTO `m` VALUES\n".to_vec();
        for number in 0..PACKED / row.len() + 32 {
            text.extend_from_slice(if number == 0 { b"('" } else { b",\n('" });
            text.extend_from_slice(&row);
            text.extend_from_slice(b"')");
        }
        text.extend_from_slice(b";\n-- Dump completed\n");
        let path = folder.join("dump.sql");
        std::fs::write(&path, &text).unwrap();
        (child::start("dump", "cat", &[path.display().to_string()], &[]).unwrap(), text)
    }

    #[test]
    fn rows_that_do_not_compress_go_through_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (mut running, text) = dump(folder.path());
        let mut goal = Goal { taken: Vec::new(), pieces: 0, most: usize::MAX };
        let pumped = pump(&mut running, Dialect::Mariadb, &mut goal).unwrap();
        assert!(pumped.scanner.is_complete());
        assert_eq!((pumped.content, pumped.bytes), (text.len() as u64, goal.taken.len() as u64));
        assert!(goal.taken.len() > PACKED, "they do not compress");
        let joined =
            |text: Vec<u8>| String::from_utf8(text).unwrap().replace(";\nINSERT INTO `m` VALUES\n", ",\n");
        assert!(joined(zstd::decode_all(goal.taken.as_slice()).unwrap()) == joined(text));
    }

    #[test]
    fn a_goal_that_fails_ends_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let (mut running, _) = dump(folder.path());
        let mut goal = Goal { taken: Vec::new(), pieces: 0, most: 3 };
        let failed = pump(&mut running, Dialect::Mariadb, &mut goal).err().unwrap();
        assert!(failed.to_string().contains("the goal has gone"), "its own words: {failed}");
    }

    #[test]
    fn a_frame_takes_no_more_memory_than_it_has_bytes() {
        let mut packer = Packer::new().unwrap();
        let packed = packer.pack(&vec![b'a'; 4 << 20]).unwrap();
        assert!(packed.capacity() < 2 * packed.len() + 1024, "{} of {}", packed.len(), packed.capacity());
    }
}
