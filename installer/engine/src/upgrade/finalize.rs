//! The end of an upgrade: what only the version before needed is taken away, and there is no way back.
//!
//! Steps: every host is measured to run the installed version; the record says that the point of no return is passed;
//! the IM core fills and contracts the schema while it serves; messages prove it; images and programs of the version
//! before are removed from the hosts.

use super::kept::{self, Kept};
use super::{record, schema};
use crate::actions::status::require_installed;
use crate::context::Context;
use crate::error::EngineError;
use crate::events::Timing;
use crate::phases::plan::{self, Material};
use crate::phases::probe::{self, DiskProbe};
use crate::phases::{apply, connect, measure, verify};
use crate::run::{Run, Session};
use crate::state;
use maxim_model::names::{Role, Stage};
use maxim_model::status::{ComponentStatus, Health};
use maxim_model::task::{AbsentTask, Task, TaskKind};
use maxim_model::upgrade::Phase;

/// What finalizing did.
#[derive(Debug, Clone)]
pub struct FinalizeOutcome {
    /// Migrations that were or would be done.
    pub migrations: Vec<String>,
    /// False: a dry run.
    pub applied: bool,
    /// What runs now, as measured.
    pub components: Vec<ComponentStatus>,
    /// Phase by phase and host by host.
    pub timings: Vec<Timing>,
}

/// Finalizes the last upgrade.
pub fn finalize(context: &Context, dry_run: bool) -> Result<FinalizeOutcome, EngineError> {
    let installed = require_installed(context, "upgrade")?;
    crate::replace::refuse_in_the_middle(&context.state, "upgrade --finalize")?;
    let run = Run::begin(context, "upgrade --finalize", !dry_run)?;
    let _control =
        if dry_run { None } else { Some(context.state.lock(&state::owner("upgrade --finalize"))?) };
    let material = Material::load(&run)?;
    let mut sessions = connect::connect(&run)?;
    let outcome = (|| {
        probe::probe(&run, &mut sessions, DiskProbe::No);
        if let Some(error) = connect::errors(&mut sessions) {
            return Err(error);
        }
        let mut outcome = FinalizeOutcome {
            migrations: Vec::new(),
            applied: !dry_run,
            components: Vec::new(),
            timings: Vec::new(),
        };
        if dry_run {
            let now = schema::of_cluster(&run, &mut sessions, false)?;
            outcome.migrations = now.map(|schema| schema.waiting).unwrap_or_default();
        } else {
            connect::lock_hosts(&run, &mut sessions, "upgrade --finalize")?;
            outcome.migrations = on(&run, &mut sessions, &material)?;
            state::copy::publish(&run, &mut sessions)?;
            outcome.components = measure::components(&run, &mut sessions, &installed, true);
        }
        outcome.timings = run.emitter.timings();
        Ok(outcome)
    })();
    connect::release(&mut sessions);
    outcome
}

/// The same on hosts that are connected and locked; which migrations were done.
pub(super) fn on(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    material: &Material,
) -> Result<Vec<String>, EngineError> {
    let state = &run.context.state;
    let installed = require_installed(run.context, "upgrade")?;
    let mut record = record::load(state)?;
    if let Some(record) = &record
        && !matches!(record.phase, Phase::Switched | Phase::Finalizing | Phase::Finalized | Phase::RolledBack)
    {
        return Err(EngineError::refused(
            "finalize",
            format!("the upgrade to {} is not complete", record.to.version),
        )
        .hint("run `maxim.ctl upgrade` with its bundle again first"));
    }
    let found = measure::components(run, sessions, &installed, true);
    // One that restarted on its own runs what is wanted all the same.
    let runs = |one: &ComponentStatus| {
        matches!(one.health, Health::Well | Health::Attention) && one.running == one.wanted
    };
    if let Some(other) = found.iter().find(|one| !runs(one)) {
        return Err(EngineError::refused(
            "finalize",
            format!("{} runs {} and is not well: {}", other.component, other.running, other.detail),
        )
        .on(&other.host)
        .hint("the version before must run nowhere when its schema goes; repair this host first"));
    }
    run.emitter.phase("finalize", || {
        if let Some(record) = record.as_mut().filter(|record| record.phase == Phase::Switched) {
            record.phase = Phase::Finalizing;
            record::save(state, record)?;
            // Another control host must not go back from here on either.
            state::copy::publish(run, sessions)?;
        }
        let Some(agent) = sessions
            .iter_mut()
            .find(|session| session.host.roles.contains(&Role::Im))
            .and_then(|session| session.writer.as_mut())
        else {
            return Err(EngineError::failed("finalize", "no IM host is connected"));
        };
        let done = schema::finalize(run, agent)?;
        for migration in &done {
            run.emitter.note("", "finalize", format!("migration {migration} done"));
        }
        verify::canary(run, sessions, material.authority.certificate())?;
        remove_previous(run, sessions, material)?;
        if let Some(record) = record.as_mut().filter(|record| record.phase == Phase::Finalizing) {
            record.phase = Phase::Finalized;
            record::save(state, record)?;
        }
        Ok(done)
    })
}

/// Removes images and programs of versions before, and of such as were taken back, where nothing of them is used any more.
fn remove_previous(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    material: &Material,
) -> Result<(), EngineError> {
    let state = &run.context.state;
    let Some(applied) = Kept::load(state, kept::APPLIED)? else { return Ok(()) };
    let mut others = Vec::new();
    for kind in [kept::PREVIOUS, kept::NEXT, kept::FORMER] {
        others.extend(Kept::load(state, kind)?);
    }
    let mut tasks = Vec::with_capacity(sessions.len());
    for session in sessions.iter() {
        let of = |kept: &Kept| kept.hosts.get(&session.host.name).cloned().unwrap_or_default();
        let before: Vec<Task> = others.iter().flat_map(of).collect();
        tasks.push(leftovers(&before, &of(&applied)));
    }
    let changes = plan::check(run, sessions, &tasks, true)?;
    apply::apply(run, sessions, &tasks, &changes, material)?;
    for kind in [kept::PREVIOUS, kept::NEXT, kept::FORMER] {
        Kept::remove(state, kind)?;
    }
    Ok(())
}

/// Removal of the folders of `before` that `now` does not have. A program's folder is the one it lies in, which is
/// of its version alone.
fn leftovers(before: &[Task], now: &[Task]) -> Vec<Task> {
    let used: Vec<String> = now.iter().filter_map(kept::folder).collect();
    let mut left: Vec<Task> = Vec::new();
    for task in before {
        let Some(path) = kept::folder(task).filter(|path| !used.contains(path)) else { continue };
        let kind = TaskKind::Absent(AbsentTask::Tree(path));
        if left.iter().all(|other| other.kind != kind) {
            left.push(Task {
                // Several versions may have left folders of one task.
                id: format!("{}-before-{}", task.id, left.len() + 1),
                stage: Stage::Prepare,
                restarts: Vec::new(),
                reloads: Vec::new(),
                kind,
                ..task.clone()
            });
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::leftovers;
    use maxim_model::names::Stage;
    use maxim_model::task::{AbsentTask, BinaryTask, Task, TaskKind};

    #[test]
    fn only_folders_that_nothing_uses_any_more_are_removed() {
        let program = |id: &str, path: &str| Task {
            id: id.into(),
            component: "im".into(),
            stage: Stage::Prepare,
            restarts: vec!["maxim-im".into()],
            reloads: Vec::new(),
            deadline_seconds: 1,
            kind: TaskKind::Binary(BinaryTask {
                name: "maxim-im".into(),
                path: path.into(),
                sha256: String::new(),
                size: 1,
                in_place: false,
            }),
        };
        let before = [
            program("im/program", "/opt/maxim/bin/maxim-im-0.1.0-aa/maxim-im"),
            program("im/same", "/opt/maxim/bin/same/x"),
            program("im/program", "/opt/maxim/bin/maxim-im-0.2.0-cc/maxim-im"),
            program("im/program", "/opt/maxim/bin/maxim-im-0.1.0-aa/maxim-im"),
        ];
        let now = [
            program("im/program", "/opt/maxim/bin/maxim-im-0.2.0-bb/maxim-im"),
            program("im/same", "/opt/maxim/bin/same/x"),
        ];
        let left = leftovers(&before, &now);
        let removed: Vec<TaskKind> = left.iter().map(|task| task.kind.clone()).collect();
        let folders = ["/opt/maxim/bin/maxim-im-0.1.0-aa", "/opt/maxim/bin/maxim-im-0.2.0-cc"];
        assert_eq!(removed, folders.map(|path| TaskKind::Absent(AbsentTask::Tree(path.into()))));
        assert_ne!(left[0].id, left[1].id, "agents answer by it");
        assert!(left[0].restarts.is_empty());
    }
}
