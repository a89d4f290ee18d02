//! Streams that stay on their host: a source and a repository on the same one need no way through the engine, which
//! would encrypt every byte twice.
//!
//! Whoever sends or receives talks to a [`Channel`]; here that is restic on the same host in place of the engine, who
//! only hears how far it is.

use super::child::Running;
use super::restic::{self, Restic};
use super::storing::{Names, Storing};
use crate::error::{Failure, Result};
use crate::link::raw::{Channel, Frame};
use maxim_model::backup::RepositoryAccess;
use maxim_model::backup::wire::{BackupReply, FRAME};
use maxim_model::wire::Reply;
use ring::digest::{Context, SHA256};
use std::io::Read;
use std::process::ChildStdout;
use std::time::{Duration, Instant};

/// How often the engine hears how far it is.
const TELL: Duration = Duration::from_millis(200);

/// Bytes that have passed, and their hash.
struct Passed {
    digest: Context,
    bytes: u64,
    told: Instant,
}

impl Passed {
    fn new() -> Self {
        Self { digest: Context::new(&SHA256), bytes: 0, told: Instant::now() }
    }

    fn note(&mut self, engine: &mut dyn Channel, bytes: &[u8]) -> Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        if self.told.elapsed() > TELL {
            self.told = Instant::now();
            engine.reply(&Reply::Backup(BackupReply::Passed { bytes: self.bytes }))?;
        }
        Ok(())
    }

    fn sha256(&self) -> String {
        hex::encode(self.digest.clone().finish())
    }
}

/// Takes what a source sends.
struct Outlet<'a> {
    engine: &'a mut dyn Channel,
    storing: Storing<'a>,
    passed: Passed,
}

impl Channel for Outlet<'_> {
    fn reply(&mut self, _: &Reply) -> Result<()> {
        // The sizes of chunks; restic takes any.
        Ok(())
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.storing.put(bytes)?;
        self.passed.note(self.engine, bytes)
    }

    fn frame(&mut self, _: &mut Vec<u8>) -> Result<Frame> {
        Err(Failure::Wire("a source asked for a stream".into()))
    }

    fn is_gone(&self) -> bool {
        self.engine.is_gone()
    }
}

/// Makes a snapshot of what `send` sends.
pub fn store(
    engine: &mut dyn Channel,
    access: &RepositoryAccess,
    names: &Names<'_>,
    send: impl FnOnce(&mut dyn Channel) -> Result<Reply>,
) -> Result<()> {
    let restic = Restic::open(access)?;
    let storing = Storing::begin(engine, &restic, names)?;
    let mut outlet = Outlet { engine, storing, passed: Passed::new() };
    let sent = send(&mut outlet);
    let Outlet { engine, storing, passed } = outlet;
    let mut sent = match sent {
        Ok(sent) => sent,
        Err(failure) => return Err(storing.broken(engine, failure)),
    };
    let said = storing.whole(engine)?;
    if let Reply::Backup(BackupReply::Sent { sha256, .. }) = &mut sent {
        *sha256 = passed.sha256();
    }
    engine.reply(&sent)?;
    engine.reply(&Reply::Backup(BackupReply::Restic { said }))
}

/// A file of a snapshot as it must be.
pub struct Wanted {
    /// Snapshot.
    pub snapshot: String,
    /// Its file.
    pub file: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256, hex.
    pub sha256: String,
}

/// Gives what restic reads.
struct Inlet<'a> {
    engine: &'a mut dyn Channel,
    restic: &'a Restic,
    /// Nothing when it has been read to its end, or is not wanted any more.
    reading: Option<(Running, ChildStdout)>,
    wanted: Wanted,
    passed: Passed,
    ready: bool,
}

impl Inlet<'_> {
    /// Nothing more comes: whether that is the whole file.
    fn end(&mut self, running: Running) -> Frame {
        if let Err(failure) = restic::read_whole(self.restic, running) {
            return Frame::Broken(failure.to_string());
        }
        if self.passed.bytes == self.wanted.bytes && self.passed.sha256() == self.wanted.sha256 {
            return Frame::End;
        }
        Frame::Broken(format!(
            "{} is not what was backed up: {} bytes came, {} were backed up",
            self.wanted.file, self.passed.bytes, self.wanted.bytes
        ))
    }
}

impl Channel for Inlet<'_> {
    fn reply(&mut self, reply: &Reply) -> Result<()> {
        // A second one says: no more, please (see `stream::receive`).
        if matches!(reply, Reply::Backup(BackupReply::Ready)) && std::mem::replace(&mut self.ready, true) {
            self.reading = None;
        }
        Ok(())
    }

    fn raw(&mut self, _: &[u8]) -> Result<()> {
        Err(Failure::Wire("a target sent a stream".into()))
    }

    fn frame(&mut self, buffer: &mut Vec<u8>) -> Result<Frame> {
        let Some((_, output)) = &mut self.reading else { return Ok(Frame::End) };
        buffer.resize(FRAME, 0);
        let mut filled = 0;
        while filled < FRAME {
            match output.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Invalid(format!("reading from restic: {error}"))),
            }
        }
        buffer.truncate(filled);
        if filled == 0 {
            let ended = self.reading.take().map(|(running, _)| self.end(running));
            return Ok(ended.unwrap_or(Frame::End));
        }
        self.passed.note(self.engine, buffer)?;
        Ok(Frame::Bytes)
    }

    fn is_gone(&self) -> bool {
        self.engine.is_gone()
    }
}

/// Has `receive` take a file of a snapshot.
pub fn load(
    engine: &mut dyn Channel,
    access: &RepositoryAccess,
    wanted: Wanted,
    receive: impl FnOnce(&mut dyn Channel) -> Result<Reply>,
) -> Result<Reply> {
    let restic = Restic::open(access)?;
    let reading = restic::reading(&restic, &wanted.snapshot, &wanted.file)?;
    let mut inlet = Inlet {
        engine,
        restic: &restic,
        reading: Some(reading),
        wanted,
        passed: Passed::new(),
        ready: false,
    };
    let mut reply = receive(&mut inlet)?;
    if let Reply::Backup(BackupReply::Sent { sha256, .. }) = &mut reply {
        *sha256 = inlet.passed.sha256();
    }
    Ok(reply)
}
