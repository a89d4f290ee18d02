//! Streams that stay on their host: a source and a repository on the same one need no way through the engine, which
//! would encrypt every byte twice.
//!
//! Whoever sends or receives talks to a [`Channel`]; here that is restic on the same host in place of the engine, who
//! only hears how far it is.

use super::child::Running;
use super::restic::{self, Restic};
use super::storing::{Names, Starting, Storing};
use crate::error::{Failure, Result};
use crate::link::raw::{Channel, Frame};
use maxim_model::backup::RepositoryAccess;
use maxim_model::backup::wire::{BackupReply, FRAME};
use maxim_model::wire::Reply;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ring::digest::{Context, SHA256};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ChildStdout;
use std::time::{Duration, Instant};

/// A repository that gives nothing for so long has died; the engine waits as long for a stream that goes through it.
const SILENCE: Duration = Duration::from_mins(5);
/// How often it is asked meanwhile whether the engine is still there.
const LOOK: Duration = Duration::from_secs(1);
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

    /// `done`: what the engine is told, when it is time; nothing: the bytes themselves.
    fn note(&mut self, engine: &mut dyn Channel, bytes: &[u8], done: Option<u64>) -> Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        if self.told.elapsed() > TELL {
            self.told = Instant::now();
            engine.reply(&Reply::Backup(BackupReply::Passed { bytes: done.unwrap_or(self.bytes) }))?;
        }
        Ok(())
    }

    fn sha256(&self) -> String {
        hex::encode(self.digest.clone().finish())
    }
}

/// How far restic is. It opens the repository while the source begins.
enum Stage<'a> {
    Starting(Starting<'a>),
    Storing(Storing<'a>),
    /// It did not begin, and that was said.
    Failed,
}

impl<'a> Stage<'a> {
    fn storing(&mut self, engine: &dyn Channel) -> Result<&mut Storing<'a>> {
        *self = match std::mem::replace(self, Self::Failed) {
            Self::Starting(starting) => Self::Storing(starting.ready(engine)?),
            begun => begun,
        };
        match self {
            Self::Storing(storing) => Ok(storing),
            _ => Err(Failure::Invalid("restic did not begin".into())),
        }
    }
}

/// Takes what a source sends.
struct Outlet<'a> {
    engine: &'a mut dyn Channel,
    stage: Stage<'a>,
    passed: Passed,
    /// Bytes of the source so far.
    read: u64,
}

impl Channel for Outlet<'_> {
    fn reply(&mut self, reply: &Reply) -> Result<()> {
        match reply {
            // Restic takes chunks of any size.
            Reply::Backup(BackupReply::Chunk { read, .. }) => self.read = *read,
            // The source is busy before its first byte.
            Reply::Backup(BackupReply::Passed { .. }) => self.engine.reply(reply)?,
            _ => {}
        }
        Ok(())
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stage.storing(&*self.engine)?.put(bytes)?;
        self.passed.note(self.engine, bytes, Some(self.read))
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
    let stage = Stage::Starting(Starting::start(&restic, names)?);
    let mut outlet = Outlet { engine, stage, passed: Passed::new(), read: 0 };
    let sent = send(&mut outlet);
    let Outlet { engine, stage, passed, .. } = outlet;
    let (mut sent, storing) = match (sent, stage) {
        (Ok(sent), Stage::Storing(storing)) => (sent, storing),
        // Not even a byte.
        (Ok(sent), Stage::Starting(starting)) => (sent, starting.ready(engine)?),
        (Ok(_), Stage::Failed) => return Err(Failure::Invalid("restic did not begin".into())),
        (Err(failure), Stage::Storing(storing)) => return Err(storing.broken(engine, failure)),
        (Err(failure), Stage::Starting(starting)) => {
            starting.abandon();
            return Err(failure);
        }
        (Err(failure), Stage::Failed) => return Err(failure),
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
            comes(output.as_fd(), SILENCE, LOOK, &|| self.engine.is_gone())?;
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
        self.passed.note(self.engine, buffer, None)?;
        Ok(Frame::Bytes)
    }

    fn is_gone(&self) -> bool {
        self.engine.is_gone()
    }
}

/// Waits until something can be read, or the end of it; fails after `silence`, and when whoever asked is gone.
fn comes(
    output: BorrowedFd<'_>,
    silence: Duration,
    look: Duration,
    is_gone: &dyn Fn() -> bool,
) -> Result<()> {
    let until = Instant::now() + silence;
    loop {
        let left = until.saturating_duration_since(Instant::now()).min(look);
        let patience = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(output, PollFlags::POLLIN)], patience) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(Failure::Invalid(format!("waiting for restic: {error}"))),
        }
        if is_gone() {
            return Err(Failure::Wire("the engine has gone".into()));
        }
        if Instant::now() >= until {
            return Err(Failure::refused(
                format!("the repository gave nothing for {} s", silence.as_secs()),
                "see whether the place of the repository answers, then run the command again",
            ));
        }
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

#[cfg(test)]
mod tests {
    use super::comes;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    #[test]
    fn a_repository_that_gives_nothing_is_not_waited_for_without_end() {
        let (near, mut far) = std::io::pipe().unwrap();
        let short = Duration::from_millis(5);
        let silent = comes(near.as_fd(), short, short, &|| false).unwrap_err();
        assert!(silent.to_string().contains("gave nothing"), "{silent}");
        let gone = comes(near.as_fd(), Duration::from_hours(1), short, &|| true).unwrap_err();
        assert!(gone.to_string().contains("gone"), "{gone}");
        far.write_all(b"x").unwrap();
        comes(near.as_fd(), Duration::ZERO, short, &|| true).unwrap();
        // Its end can be read too.
        let (near, far) = std::io::pipe().unwrap();
        drop(far);
        comes(near.as_fd(), Duration::ZERO, short, &|| true).unwrap();
    }
}
