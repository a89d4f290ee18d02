//! The parts of a set: each streams from its host into the repository and becomes a snapshot.

use super::relay::{Ended, ask, near, pull};
use super::sources::{Origin, origins};
use super::state_part;
use super::vault::{Vault, store, tags};
use crate::error::EngineError;
use crate::events::millis;
use crate::remote::{Agent, Mode};
use crate::run::{Run, Session};
use maxim_model::backup::wire::{BackupReply, BackupRequest};
use maxim_model::backup::{Part, PartKind, RepositoryAccess, SetKind};
use maxim_model::event::EventKind;
use std::time::{Duration, Instant};

/// Bytes that the repository grew by.
pub(super) fn added_bytes(ended: &Ended) -> u64 {
    let summary = ended.said.iter().find(|value| value["message_type"] == "summary");
    summary.and_then(|value| value["data_added_packed"].as_u64()).unwrap_or(0)
}

fn snapshot_of(step: &str, ended: &Ended) -> Result<String, EngineError> {
    ended
        .said
        .iter()
        .find_map(|value| value["snapshot_id"].as_str().map(str::to_owned))
        .ok_or_else(|| EngineError::failed(step, "restic did not say which snapshot it made"))
}

/// A part that is there, and the agent that reads it.
struct Ready {
    origin: Origin,
    agent: Agent,
    /// Bytes on its host.
    total: u64,
}

/// Stores all parts. What the console has and the cluster's state go beside the database: they are small, and opening
/// the repository takes longer than storing them.
pub(super) fn store_parts(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    vault: &mut Vault,
    set: &str,
    kind: SetKind,
) -> Result<Vec<(Part, Ended)>, EngineError> {
    let mut large = Vec::new();
    let mut small = Vec::new();
    for origin in origins(&run.context.topology)? {
        let Some(ready) = measure(run, sessions, origin, kind)? else { continue };
        if ready.origin.kind == PartKind::ConsoleSqlite { small.push(ready) } else { large.push(ready) }
    }
    let place = Place { host: vault.host(), access: vault.access().clone() };
    // A stream from another host goes in by an agent of its own.
    let through = large.iter().any(|ready| ready.origin.host != place.host);
    let mut another = if through { Some(vault.another(run)?) } else { None };
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let agent = vault.agent();
            let mut stored = vec![state_of_cluster(run, agent, &place, set)?];
            for ready in small {
                stored.push(part(run, ready, Some(&mut *agent), &place, set)?);
            }
            Ok::<_, EngineError>(stored)
        });
        let mut stored = Vec::new();
        for ready in large {
            stored.push(part(run, ready, another.as_mut(), &place, set));
            if stored.last().is_some_and(Result::is_err) {
                break;
            }
        }
        if let Some(another) = another {
            another.finish(Duration::from_secs(2));
        }
        let beside = beside.join().map_err(|_| EngineError::failed("backup", "a thread of it panicked"))?;
        let mut stored = stored.into_iter().collect::<Result<Vec<_>, _>>()?;
        stored.extend(beside?);
        Ok(stored)
    })
}

/// Asks for the size of a part; none when its host has nothing of the kind.
fn measure(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    origin: Origin,
    kind: SetKind,
) -> Result<Option<Ready>, EngineError> {
    let step = format!("backup/{}", origin.name);
    run.context.cancel.check("backup")?;
    let session = sessions
        .iter_mut()
        .find(|session| session.host.name == origin.host)
        .ok_or_else(|| EngineError::failed(&*step, "its host is not connected").on(&origin.host))?;
    let connected = session
        .connected
        .as_mut()
        .ok_or_else(|| EngineError::failed(&*step, "the host is not connected").on(&origin.host))?;
    let mut agent = connected.agent(Mode::Change)?;
    run.scope(&mut agent)?;
    let measure = BackupRequest::Measure { source: origin.source.clone() };
    let measured = ask(&mut agent, &step, measure, Duration::from_mins(2))?;
    let Some(BackupReply::Measured { present, bytes: total, needed, free, .. }) = measured else {
        return Err(EngineError::failed(&*step, "the agent did not measure").on(&origin.host));
    };
    if !present {
        // What is to be overwritten may well be gone: then there is nothing of it to keep.
        if origin.kind.is_database() && kind != SetKind::Safety {
            return Err(EngineError::failed(&*step, "there is no database to back up")
                .on(&origin.host)
                .hint("`maxim.ctl status` shows what runs"));
        }
        agent.finish(Duration::from_secs(2));
        return Ok(None);
    }
    if matches!(origin.kind, PartKind::Sqlite | PartKind::ConsoleSqlite) && free < needed {
        return Err(EngineError::failed(
            &*step,
            format!("the copy of the database needs {needed} bytes, and {free} are free"),
        )
        .on(&origin.host)
        .hint("free space on the disk of the deployment; nothing was written"));
    }
    Ok(Some(Ready { origin, agent, total }))
}

/// Where the repository is.
struct Place {
    host: String,
    access: RepositoryAccess,
}

/// Streams one part.
fn part(
    run: &Run<'_>,
    ready: Ready,
    keeper: Option<&mut Agent>,
    place: &Place,
    set: &str,
) -> Result<(Part, Ended), EngineError> {
    let Ready { origin, agent, total } = ready;
    let step = format!("backup/{}", origin.name);
    let begun = Instant::now();
    run.emitter.emit(EventKind::TaskStarted {
        host: origin.host.clone(),
        step: step.clone(),
        title: "back up".into(),
    });
    let stored = stream_in(run, agent, keeper, place, &step, tags(set, origin.name), &origin, total);
    let ended = stored.map_err(|error| failed(run, &origin.host, &step, begun, error))?;
    let snapshot = snapshot_of(&step, &ended)?;
    run.emitter.emit(EventKind::TaskFinished {
        host: origin.host.clone(),
        step,
        changed: true,
        detail: format!("{} bytes", ended.bytes),
        duration_ms: millis(begun),
    });
    let part = Part {
        name: origin.name.into(),
        kind: origin.kind,
        snapshot,
        file: origin.file.into(),
        host: origin.host,
        bytes: ended.bytes,
        content: ended.content,
        sha256: ended.sha256.clone(),
        engine_version: ended.version.clone(),
        tables: ended.tables.clone(),
    };
    Ok((part, ended))
}

/// The stream of a part into the repository: through here, or on its host when that keeps the repository.
#[expect(clippy::too_many_arguments, reason = "both ends of a stream, and what it is called")]
fn stream_in(
    run: &Run<'_>,
    agent: Agent,
    keeper: Option<&mut Agent>,
    place: &Place,
    step: &str,
    tags: Vec<String>,
    origin: &Origin,
    total: u64,
) -> Result<Ended, EngineError> {
    let cluster = run.context.topology.name.clone();
    let source = origin.source.clone();
    let progress = |done: u64| {
        run.emitter.emit(EventKind::Progress {
            host: origin.host.clone(),
            step: step.to_owned(),
            done,
            total: total.max(done),
        });
    };
    if origin.host == place.host {
        let access = Box::new(place.access.clone());
        let request = BackupRequest::Store { source, access, file: origin.file.into(), tags, host: cluster };
        return near(agent, step, request, |done| {
            run.context.cancel.check(step)?;
            progress(done);
            Ok(())
        });
    }
    let keeper = keeper.ok_or_else(|| EngineError::failed(step, "no agent takes it").on(&place.host))?;
    let mut intake = store(keeper, &place.access, step, origin.file, tags, &cluster)?;
    let mut told = Instant::now();
    let pulled = pull(agent, step, BackupRequest::Send { source }, |piece, done| {
        run.context.cancel.check(step)?;
        intake.put(piece)?;
        if told.elapsed() > Duration::from_millis(200) {
            told = Instant::now();
            progress(done);
        }
        Ok(())
    });
    match pulled {
        Ok(mut sent) => {
            sent.said = intake.finish()?.said;
            Ok(sent)
        }
        Err(error) => {
            intake.break_off(&error.cause);
            Err(error)
        }
    }
}

fn failed(run: &Run<'_>, host: &str, step: &str, begun: Instant, error: EngineError) -> EngineError {
    run.emitter.emit(EventKind::TaskFailed {
        host: host.into(),
        step: step.into(),
        cause: error.cause.clone(),
        hint: error.hint.clone(),
        duration_ms: millis(begun),
    });
    error
}

fn state_of_cluster(
    run: &Run<'_>,
    agent: &mut Agent,
    place: &Place,
    set: &str,
) -> Result<(Part, Ended), EngineError> {
    let content = state_part::pack(run.context)?;
    let cluster = &run.context.topology.name;
    let mut intake = store(agent, &place.access, "backup/state", "state.tar", tags(set, "state"), cluster)?;
    intake.put(&content)?;
    let ended = intake.finish()?;
    let part = Part {
        name: "state".into(),
        kind: PartKind::State,
        snapshot: snapshot_of("backup/state", &ended)?,
        file: "state.tar".into(),
        host: String::new(),
        bytes: ended.bytes,
        content: ended.bytes,
        sha256: ended.sha256.clone(),
        engine_version: String::new(),
        tables: Vec::new(),
    };
    Ok((part, ended))
}
