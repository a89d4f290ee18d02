//! One part out of the repository into the place beside its target, compared with its manifest: through the engine, or
//! on its host when that keeps the repository. Nothing that serves is touched.

use super::relay::{Ended, Intake, near};
use super::sources::Origin;
use super::vault::Vault;
use crate::error::EngineError;
use crate::events::millis;
use crate::remote::{Agent, Mode};
use crate::run::{Run, Session};
use maxim_model::backup::Part;
use maxim_model::backup::manifest::difference;
use maxim_model::backup::wire::BackupRequest;
use maxim_model::event::EventKind;
use std::time::{Duration, Instant};

/// One part into the place beside its target, compared with the manifest.
pub(super) fn receive(
    run: &Run<'_>,
    vault: &mut Vault,
    session: &mut Session<'_>,
    part: &Part,
    origin: &Origin,
) -> Result<(), EngineError> {
    let step = format!("restore/{}", part.name);
    let begun = Instant::now();
    let host = session.host.name.clone();
    let connected = session
        .connected
        .as_mut()
        .ok_or_else(|| EngineError::failed(&*step, "the host is not connected").on(&host))?;
    let mut agent = connected.agent(Mode::Change)?;
    run.scope(&mut agent)?;
    run.emitter.emit(EventKind::TaskStarted {
        host: host.clone(),
        step: step.clone(),
        title: "restore".into(),
    });
    let ended = stream_out(run, agent, vault, &step, part, origin)?;
    if let Some(what) = difference(&part.tables, &ended.tables) {
        return Err(differs(&host, &step, part, &what));
    }
    run.emitter.emit(EventKind::TaskFinished {
        host,
        step,
        changed: true,
        detail: format!("{} bytes, {} tables compared", part.bytes, part.tables.len()),
        duration_ms: millis(begun),
    });
    Ok(())
}

fn differs(host: &str, step: &str, part: &Part, what: &str) -> EngineError {
    EngineError::failed(step, format!("part `{}` is not what was backed up: {what}", part.name))
        .on(host)
        .hint("nothing was overwritten; verify the repository with `maxim.ctl backup verify` and take another set")
}

/// The stream of a part to its target's host; what is there then.
fn stream_out(
    run: &Run<'_>,
    mut agent: Agent,
    vault: &mut Vault,
    step: &str,
    part: &Part,
    origin: &Origin,
) -> Result<Ended, EngineError> {
    let source = origin.source.clone();
    let progress = |done: u64| {
        let (host, step) = (origin.host.clone(), step.to_owned());
        run.emitter.emit(EventKind::Progress { host, step, done, total: part.bytes.max(done) });
    };
    if origin.host == vault.host() {
        let request = BackupRequest::Load {
            source,
            access: Box::new(vault.access().clone()),
            snapshot: part.snapshot.clone(),
            file: part.file.clone(),
            bytes: part.bytes,
            sha256: part.sha256.clone(),
        };
        return near(agent, step, request, |done| {
            run.context.cancel.check(step)?;
            progress(done);
            Ok(())
        });
    }
    // The host of the repository may load into others what those have dumped themselves.
    let receive = BackupRequest::Receive { source, only_own: agent.is_limited() };
    let mut intake = Intake::begin(&mut agent, step, receive, Duration::from_mins(5))?;
    let mut done = 0;
    let mut told = Instant::now();
    let fetched = vault.fetch(run, step, &part.snapshot, &part.file, |piece| {
        run.context.cancel.check(step)?;
        intake.put(piece)?;
        done += piece.len() as u64;
        if told.elapsed() > Duration::from_millis(200) {
            told = Instant::now();
            progress(done);
        }
        Ok(())
    });
    let broken = match fetched {
        Ok(fetched) if fetched.sha256 == part.sha256 && fetched.bytes == part.bytes => None,
        Ok(fetched) => {
            let what = format!("{} bytes came, {} were backed up", fetched.bytes, part.bytes);
            Some(differs(&origin.host, step, part, &what))
        }
        Err(error) => Some(error),
    };
    if let Some(error) = broken {
        intake.break_off(&error.cause);
        return Err(error);
    }
    let ended = intake.finish()?;
    agent.finish(Duration::from_secs(5));
    Ok(ended)
}
