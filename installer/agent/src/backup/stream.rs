//! Streams between the engine and a child process or a file, in memory of one frame.

use crate::error::{Failure, Result};
use crate::link::raw::{Channel, Frame};
use maxim_model::backup::TableSum;
use maxim_model::backup::wire::{BackupReply, FRAME};
use maxim_model::wire::Reply;
use std::io::Read;
use std::time::{Duration, Instant};

/// How often whoever waits for a stream hears that it is being made; it gives up after five minutes.
const HEARD: Duration = Duration::from_secs(5);

/// What is done before the first byte of a stream can go, said now and then to whoever waits for it.
pub struct Audible<'a> {
    channel: &'a mut dyn Channel,
    told: Instant,
    every: Duration,
}

impl<'a> Audible<'a> {
    /// From now on.
    pub fn new(channel: &'a mut dyn Channel) -> Self {
        Self { channel, told: Instant::now(), every: HEARD }
    }

    /// It goes on; called often. Fails when nobody waits any more.
    pub fn goes_on(&mut self) -> Result<()> {
        if self.told.elapsed() < self.every {
            return Ok(());
        }
        self.told = Instant::now();
        if self.channel.is_gone() {
            return Err(Failure::Wire("the engine has gone".into()));
        }
        // Nothing of the stream has passed yet.
        self.channel.reply(&Reply::Backup(BackupReply::Passed { bytes: 0 }))
    }

    /// The same, at every call.
    #[cfg(test)]
    pub fn always(channel: &'a mut dyn Channel) -> Self {
        Self { every: Duration::ZERO, ..Self::new(channel) }
    }
}

/// One piece to the engine; `read`: bytes of the source so far.
pub fn chunk(channel: &mut dyn Channel, bytes: &[u8], read: u64) -> Result<()> {
    channel.reply(&Reply::Backup(BackupReply::Chunk { size: bytes.len() as u64, read }))?;
    channel.raw(bytes)
}

/// Everything that can be read, to the engine; the bytes of it.
pub fn send(channel: &mut dyn Channel, input: &mut dyn Read, what: &str) -> Result<u64> {
    let mut total = 0;
    read(input, what, |piece| {
        total += piece.len() as u64;
        chunk(channel, piece, total)
    })
}

/// Everything that can be read, in frames; the bytes of it.
pub fn read(input: &mut dyn Read, what: &str, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
    let mut buffer = vec![0; FRAME];
    let mut total = 0;
    loop {
        let mut filled = 0;
        // Whole frames: pipes give little at a time.
        while filled < FRAME {
            match input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Invalid(format!("reading {what}: {error}"))),
            }
        }
        if filled == 0 {
            return Ok(total);
        }
        take(&buffer[..filled])?;
        total += filled as u64;
    }
}

/// Takes a stream: `Ready`, then each frame to `take`. When `take` fails, the stream is read to its end first, so that
/// the next request is found where it begins.
pub fn receive(channel: &mut dyn Channel, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
    channel.reply(&Reply::Backup(BackupReply::Ready))?;
    let mut buffer = Vec::with_capacity(FRAME);
    let mut total = 0;
    loop {
        match channel.frame(&mut buffer)? {
            Frame::End => return Ok(total),
            Frame::Broken(why) => {
                return Err(Failure::refused(
                    format!("the stream was broken off: {why}"),
                    "nothing that came of it is kept; remove the cause and run the command again",
                ));
            }
            Frame::Bytes => {}
        }
        if let Err(failure) = take(&buffer) {
            // Told at once, so that the engine does not read a whole database for nothing.
            return Err(Refused::tell(channel, failure));
        }
        total += buffer.len() as u64;
        channel.reply(&Reply::Backup(BackupReply::Taken))?;
    }
}

/// A failure within a stream: the engine hears of it in place of `Taken`, breaks the stream off, and then hears the
/// same failure as the end of the request.
struct Refused;

impl Refused {
    fn tell(channel: &mut dyn Channel, failure: Failure) -> Failure {
        // `Ready` where `Taken` belongs says: no more, please.
        if let Err(wire) = channel.reply(&Reply::Backup(BackupReply::Ready)) {
            return wire;
        }
        let mut buffer = Vec::with_capacity(FRAME);
        loop {
            match channel.frame(&mut buffer) {
                Ok(Frame::Bytes) => {}
                Ok(Frame::End | Frame::Broken(_)) => return failure,
                Err(wire) => return wire,
            }
        }
    }
}

/// The reply that ends a stream of `bytes` that hold `content` bytes when they are unpacked.
pub fn sent(bytes: u64, content: u64, tables: Vec<TableSum>, version: String, point_unix: i64) -> Reply {
    Reply::Backup(BackupReply::Sent { bytes, content, tables, version, point_unix, sha256: String::new() })
}

/// Unix seconds now.
pub fn now_unix() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

/// Bytes that are free on the file system of a folder, for who runs this.
pub fn free(folder: &std::path::Path) -> u64 {
    let mut place = folder;
    loop {
        if let Ok(found) = nix::sys::statvfs::statvfs(place) {
            return found.blocks_available() * found.fragment_size();
        }
        match place.parent() {
            Some(parent) => place = parent,
            None => return 0,
        }
    }
}
