//! From the program that dumps to whoever takes the dump: read and hashed, compressed, and handed on, each by a thread of
//! its own, so that the dump never waits for the others while there is something to do. What waits between them is
//! bounded.

use super::aside::Aside;
use super::child::Running;
use super::cut::Cutter;
use super::pack::Packer;
use super::stream;
use super::sums::{Dialect, Scanner};
use crate::error::{Failure, Result};
use crate::link::raw::Channel;
use maxim_model::backup::wire::FRAME;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;

/// Frames of the dump that wait to be compressed: half a megabyte each, or so, and [`super::cut::MOST`] at most.
const CUT: usize = 4;
/// Frames that wait to be handed on: while restic opens the repository, the dump goes on.
const PACKED: usize = 128;

/// What went by.
pub struct Pumped {
    /// Rows and hashes.
    pub scanner: Scanner,
    /// Bytes of the dump.
    pub content: u64,
    /// Bytes that were handed on.
    pub bytes: u64,
}

/// A frame, and the bytes of the dump up to its end.
type Frame = (Vec<u8>, u64);

/// Hands the whole dump on to `channel`.
pub fn pump(dump: &mut Running, dialect: Dialect, channel: &mut dyn Channel) -> Result<Pumped> {
    let mut output = dump.stdout()?;
    // The program that dumps mostly waits, for the database and for us.
    let _aside = Aside::step();
    std::thread::scope(|scope| {
        let (cut, to_pack) = sync_channel::<Frame>(CUT);
        let (packed, to_send) = sync_channel::<Frame>(PACKED);
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

fn read(output: &mut dyn std::io::Read, dialect: Dialect, cut: &SyncSender<Frame>) -> Result<(Scanner, u64)> {
    let mut cutter = Cutter::new(dialect);
    let mut total = 0;
    let content = stream::read(output, "the dump", |piece| {
        total += piece.len() as u64;
        cutter.feed(piece, &mut |frame| cut.send((frame, total)).map_err(|_| gone()))
    })?;
    let scanner = cutter.finish(&mut |frame| cut.send((frame, content)).map_err(|_| gone()))?;
    Ok((scanner, content))
}

fn pack(frames: &Receiver<Frame>, packed: &SyncSender<Frame>) -> Result<()> {
    let mut packer = Packer::new()?;
    for (frame, read) in frames {
        packed.send((packer.pack(&frame)?, read)).map_err(|_| gone())?;
    }
    Ok(())
}

fn send(packed: &Receiver<Frame>, channel: &mut dyn Channel) -> Result<u64> {
    let (mut waiting, mut bytes, mut known) = (Vec::with_capacity(2 * FRAME), 0, 0);
    for (frame, read) in packed {
        known = read;
        waiting.extend_from_slice(&frame);
        while waiting.len() >= FRAME {
            stream::chunk(channel, &waiting[..FRAME], known)?;
            waiting.drain(..FRAME);
            bytes += FRAME as u64;
        }
    }
    if !waiting.is_empty() {
        stream::chunk(channel, &waiting, known)?;
        bytes += waiting.len() as u64;
    }
    Ok(bytes)
}
