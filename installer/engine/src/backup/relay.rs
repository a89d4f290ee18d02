//! Streams through the engine: out of one agent, into another, hashed on the way, in memory of a few frames.
//!
//! Whoever takes says so frame by frame, so an agent that fails is heard at once and nothing piles up. A stream that
//! breaks at its source is broken off at its goal, which keeps nothing of it.

use crate::error::EngineError;
use crate::remote::Agent;
use maxim_model::backup::TableSum;
use maxim_model::backup::wire::{BackupReply, BackupRequest, FRAME, WINDOW};
use maxim_model::wire::{Reply, Request};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

/// A stream that gives nothing for so long has died. A database may sort for a while before its first row.
const SILENCE: Duration = Duration::from_mins(5);
/// The end of a stream: indexes are made, packs are written to a slow place.
const ENDING: Duration = Duration::from_hours(3);

/// What the far end said when a stream was over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ended {
    /// Bytes that went by here.
    pub bytes: u64,
    /// Bytes that they hold when they are unpacked.
    pub content: u64,
    /// SHA-256 of them, hex.
    pub sha256: String,
    /// Rows and hashes by table.
    pub tables: Vec<TableSum>,
    /// Version of the engine.
    pub version: String,
    /// Unix seconds of the consistent point.
    pub point_unix: i64,
    /// restic's words.
    pub said: Vec<Value>,
}

impl Ended {
    fn learn(&mut self, reply: BackupReply) {
        match reply {
            BackupReply::Sent { bytes, content, tables, version, point_unix, sha256 } => {
                self.content = content;
                self.tables = tables;
                self.version = version;
                self.point_unix = point_unix;
                if !sha256.is_empty() {
                    // It stayed on its host.
                    self.bytes = bytes;
                    self.sha256 = sha256;
                }
            }
            BackupReply::Restic { said } => self.said = said,
            _ => {}
        }
    }
}

/// Asks an agent for a stream and hands it on piece by piece, each with the bytes of the source so far. When `take` fails, the agent is in the middle of its
/// stream and of no more use: it must be one that was started for this.
pub(crate) fn pull(
    mut agent: Agent,
    step: &str,
    request: BackupRequest,
    mut take: impl FnMut(&[u8], u64) -> Result<(), EngineError>,
) -> Result<Ended, EngineError> {
    agent.send(step, &Request::Backup(request))?;
    let mut ended = Ended::default();
    let mut digest = Sha256::new();
    let mut piece = Vec::with_capacity(FRAME);
    while let Some(reply) = agent.next(step, Instant::now() + SILENCE)? {
        match reply {
            Reply::Backup(BackupReply::Chunk { size, read }) => {
                agent.read_raw(step, usize::try_from(size).unwrap_or(usize::MAX), &mut piece, SILENCE)?;
                digest.update(&piece);
                ended.bytes += size;
                take(&piece, read)?;
            }
            Reply::Backup(other) => ended.learn(other),
            _ => {}
        }
    }
    ended.sha256 = hex::encode(digest.finalize());
    agent.finish(Duration::from_secs(5));
    Ok(ended)
}

/// A stream that stays on its host; `passed` hears now and then how many bytes of it have passed. When that fails, the
/// agent is of no more use, and ends what it does.
pub(crate) fn near(
    mut agent: Agent,
    step: &str,
    request: BackupRequest,
    mut passed: impl FnMut(u64) -> Result<(), EngineError>,
) -> Result<Ended, EngineError> {
    agent.send(step, &Request::Backup(request))?;
    let mut ended = Ended::default();
    let mut patience = SILENCE;
    while let Some(reply) = agent.next(step, Instant::now() + patience)? {
        match reply {
            Reply::Backup(BackupReply::Passed { bytes }) => {
                // Its end is as quiet as that of any stream.
                patience = ENDING;
                passed(bytes)?;
            }
            Reply::Backup(other) => ended.learn(other),
            _ => {}
        }
    }
    agent.finish(Duration::from_secs(5));
    Ok(ended)
}

/// A request without a stream.
pub(crate) fn ask(
    agent: &mut Agent,
    step: &str,
    request: BackupRequest,
    patience: Duration,
) -> Result<Option<BackupReply>, EngineError> {
    let mut found = None;
    agent.request(step, &Request::Backup(request), patience, |reply| {
        if let Reply::Backup(reply) = reply {
            found = Some(reply);
        }
    })?;
    Ok(found)
}

/// A stream into an agent.
pub(crate) struct Intake<'a> {
    agent: &'a mut Agent,
    step: String,
    /// Frames that were sent and not taken yet.
    under_way: usize,
    digest: Sha256,
    bytes: u64,
    over: bool,
}

impl<'a> Intake<'a> {
    /// Asks the agent to take a stream, and waits until it is ready.
    pub fn begin(
        agent: &'a mut Agent,
        step: &str,
        request: BackupRequest,
        patience: Duration,
    ) -> Result<Self, EngineError> {
        agent.send(step, &Request::Backup(request))?;
        let intake =
            Self { agent, step: step.into(), under_way: 0, digest: Sha256::new(), bytes: 0, over: false };
        match intake.agent.next(step, Instant::now() + patience)? {
            Some(Reply::Backup(BackupReply::Ready)) => Ok(intake),
            _ => Err(EngineError::failed(step, "the agent did not begin to take the stream")
                .on(intake.agent.host())),
        }
    }

    /// Hands on bytes.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        for frame in bytes.chunks(FRAME) {
            while self.under_way >= WINDOW {
                self.taken()?;
            }
            self.agent.write_frame(&self.step, frame, SILENCE)?;
            self.under_way += 1;
            self.digest.update(frame);
            self.bytes += frame.len() as u64;
        }
        Ok(())
    }

    fn taken(&mut self) -> Result<(), EngineError> {
        match self.agent.next(&self.step, Instant::now() + SILENCE) {
            Ok(Some(Reply::Backup(BackupReply::Taken))) => {
                self.under_way -= 1;
                Ok(())
            }
            // It wants no more: its own error comes as the end of the request.
            Ok(Some(Reply::Backup(BackupReply::Ready))) => {
                self.over = true;
                self.agent.end_frames(&self.step, Some("the agent asked for it"))?;
                loop {
                    if self.agent.next(&self.step, Instant::now() + SILENCE)?.is_none() {
                        return Err(EngineError::failed(self.step.clone(), "the agent took only a part")
                            .on(self.agent.host()));
                    }
                }
            }
            Ok(_) => {
                self.over = true;
                Err(EngineError::failed(self.step.clone(), "the agent ended the stream early")
                    .on(self.agent.host()))
            }
            Err(error) => {
                self.over = true;
                Err(error)
            }
        }
    }

    /// The stream is whole.
    pub fn finish(mut self) -> Result<Ended, EngineError> {
        while self.under_way > 0 {
            self.taken()?;
        }
        self.over = true;
        self.agent.end_frames(&self.step, None)?;
        let mut ended = Ended { bytes: self.bytes, ..Ended::default() };
        let until = Instant::now() + ENDING;
        while let Some(reply) = self.agent.next(&self.step, until)? {
            if let Reply::Backup(reply) = reply {
                ended.learn(reply);
            }
        }
        ended.sha256 = hex::encode(std::mem::take(&mut self.digest).finalize());
        Ok(ended)
    }

    /// The stream broke at its source: nothing of it shall be kept. The agent can be used again.
    pub fn break_off(mut self, why: &str) {
        if self.over {
            return;
        }
        self.over = true;
        if self.agent.end_frames(&self.step, Some(why)).is_err() {
            return;
        }
        let until = Instant::now() + SILENCE;
        while matches!(self.agent.next(&self.step, until), Ok(Some(_))) {}
    }
}
