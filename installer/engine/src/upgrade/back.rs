//! The way back: every host that had its turn gets the tasks of the version before, as they were kept.
//!
//! Images, programs and configuration of that version are still there or in those tasks; the schema was only expanded,
//! which the version before works with. What the newer version brought and the older never had is removed. Where nothing
//! was switched yet, the version before is what is installed now; where the cluster was changed after the upgrade, there
//! is no way back that would not undo that too ([`kept::Kept::first_difference`]).

use super::kept::{self, Kept};
use super::{certificates, lost, order, record, turn};
use crate::actions::status::require_installed;
use crate::context::Context;
use crate::error::{Class, EngineError};
use crate::events::Timing;
use crate::phases::plan::{self, Material};
use crate::phases::probe::{self, DiskProbe};
use crate::phases::{connect, measure};
use crate::run::{Run, Session};
use crate::state;
use maxim_model::names::{Role, Stage};
use maxim_model::plan::Plan;
use maxim_model::status::ComponentStatus;
use maxim_model::task::{AbsentTask, Task, TaskKind};
use maxim_model::upgrade::{Phase, Record, Turn};

/// How to roll back.
#[derive(Debug, Clone, Copy, Default)]
pub struct RollbackOptions {
    /// Show the plan, change nothing.
    pub dry_run: bool,
}

/// What a rollback did.
#[derive(Debug, Clone)]
pub struct RollbackOutcome {
    /// Version that was taken back.
    pub from: String,
    /// Version that runs again.
    pub to: String,
    /// What would be or was changed.
    pub plan: Plan,
    /// False: a dry run, or the person said no.
    pub applied: bool,
    /// How many things were changed on hosts.
    pub changes: usize,
    /// What runs now, as measured.
    pub components: Vec<ComponentStatus>,
    /// Phase by phase and host by host.
    pub timings: Vec<Timing>,
}

/// Takes the last upgrade back, as long as it was not finalized.
pub fn rollback(context: &Context, options: RollbackOptions) -> Result<RollbackOutcome, EngineError> {
    require_installed(context, "rollback")?;
    crate::replace::refuse_in_the_middle(&context.state, "rollback")?;
    refuse_where_there_is_no_way_back(record::load(&context.state)?.as_ref())?;
    rollback_with(&Run::begin(context, "rollback", !options.dry_run)?, options)
}

/// The same in a run that exists.
pub(super) fn rollback_with(run: &Run<'_>, options: RollbackOptions) -> Result<RollbackOutcome, EngineError> {
    let context = run.context;
    let _control = if options.dry_run { None } else { Some(context.state.lock(&state::owner("rollback"))?) };
    let mut record = refuse_where_there_is_no_way_back(record::load(&context.state)?.as_ref())?;
    let mut material = Material::load(run)?;
    let mut sessions = connect::connect(run)?;
    let outcome = (|| {
        probe::probe(run, &mut sessions, DiskProbe::No);
        go_on_without_the_dead(run, &mut sessions, &record)?;
        if !options.dry_run {
            connect::lock_hosts(run, &mut sessions, "rollback")?;
        }
        if record.phase == Phase::Switched {
            refuse_when_changed_since(context, &record)?;
        }
        let previous = previous(context, &record)?;
        let of_host = |session: &Session<'_>| {
            if session.absent {
                return Ok(Vec::new());
            }
            let mut tasks = previous.tasks_of(&session.host.name)?;
            certificates::renew(context, &mut tasks);
            Ok(tasks)
        };
        let tasks: Vec<Vec<Task>> = sessions.iter().map(of_host).collect::<Result<_, EngineError>>()?;
        let changes = plan::check(run, &mut sessions, &tasks, !options.dry_run)?;
        let key = material.secrets.get_or_make("plan_key");
        let made = plan::assemble(run, &sessions, &tasks, &changes, &key)?;
        let mut outcome = RollbackOutcome {
            from: record.to.version.clone(),
            to: record.from.version.clone(),
            applied: false,
            changes: made.changes(),
            components: Vec::new(),
            timings: Vec::new(),
            plan: made,
        };
        if options.dry_run || !context.ask.approve(&outcome.plan) {
            outcome.timings = run.emitter.timings();
            return Ok(outcome);
        }
        let before = turn::Before::measure(run, &mut sessions, &previous.installed, |_| true);
        outcome.changes = run
            .emitter
            .phase("rollback", || take_back(run, &mut sessions, &material, &mut record, true, &before))?;
        outcome.components = measure::components(run, &mut sessions, &previous.installed, true);
        outcome.applied = true;
        outcome.timings = run.emitter.timings();
        Ok(outcome)
    })();
    connect::release(&mut sessions);
    outcome
}

/// Hosts that nobody answers at are absent from here on when an upgrade was broken off with them: the others do not wait
/// for a host that may be gone for good. Not without the host that keeps the state; and once every host runs one version
/// there is no such haste, and none is left out.
fn go_on_without_the_dead(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    record: &Record,
) -> Result<(), EngineError> {
    let is_dead = |session: &Session<'_>| session.error.as_ref().is_some_and(connect::is_unreached);
    let broken_off = matches!(record.phase, Phase::Switching | Phase::RollingBack);
    // It alone could say that another control host has gone on from here.
    let keeps_state = |session: &Session<'_>| session.host.roles.contains(&Role::Console);
    let unsure = sessions.iter().any(|session| is_dead(session) && keeps_state(session));
    if broken_off && !unsure && !sessions.iter().all(is_dead) {
        for session in sessions.iter_mut().filter(|session| is_dead(session)) {
            session.absent = true;
            let cause = session.error.take().map(|error| error.cause).unwrap_or_default();
            run.emitter.warn(&session.host.name, "connect", cause, "the others are taken back without it");
        }
    }
    connect::errors(sessions).map_or(Ok(()), Err)
}

/// What to do about a host that could not be taken back.
fn when_it_is_back(record: &Record) -> String {
    format!(
        "when the hosts can be reached, run `maxim.ctl rollback`; it goes on where this stopped. A host that is gone for good: `maxim.ctl host replace HOST ADDRESS` with the bundle of version {}",
        record.from.version
    )
}

fn refuse_where_there_is_no_way_back(record: Option<&Record>) -> Result<Record, EngineError> {
    match record {
        Some(record) if record.phase.can_go_back() => Ok(record.clone()),
        Some(record) if matches!(record.phase, Phase::Finalizing | Phase::Finalized) => {
            Err(EngineError::refused(
                "rollback",
                format!(
                    "the upgrade to {} was finalized at {}: its schema no longer fits {}",
                    record.to.version, record.changed_at, record.from.version
                ),
            )
            .hint("the way back is to restore a backup that was taken before the upgrade"))
        }
        _ => Err(EngineError::refused("rollback", "there is no upgrade to take back")
            .hint("`maxim.ctl status` shows what runs")),
    }
}

/// Refuses to go back from a cluster that was changed after the upgrade: hosts, addresses, secrets and configuration of
/// before would be put in their place.
pub(super) fn refuse_when_changed_since(context: &Context, record: &Record) -> Result<(), EngineError> {
    let refused = |cause: String| {
        EngineError::refused("rollback", cause).hint(
            "going back would undo that too: put hosts and configuration back as the upgrade left them with `maxim.ctl install`, then roll back; or restore a backup that was made before the upgrade",
        )
    };
    let (Some(applied), Some(next)) =
        (Kept::load(&context.state, kept::APPLIED)?, Kept::load(&context.state, kept::NEXT)?)
    else {
        return Err(EngineError::refused("rollback", "what the upgrade has put on the hosts was not kept")
            .hint("restore a backup that was made before the upgrade"));
    };
    applied.refuse_when_others_installed(&context.state, "rollback")?;
    match next.first_difference(&applied) {
        Some((host, task)) => {
            let cause = if task.is_empty() {
                format!(
                    "the cluster was changed after the upgrade to {}: its hosts are others",
                    record.to.version
                )
            } else {
                format!(
                    "the cluster was changed after the upgrade to {}: {task} is not what the upgrade put there",
                    record.to.version
                )
            };
            Err(refused(cause).on(host))
        }
        None => Ok(()),
    }
}

/// What is gone back to: as long as nothing was switched, what is installed now.
fn previous(context: &Context, record: &Record) -> Result<Kept, EngineError> {
    let kind = if record.phase == Phase::Staging { kept::APPLIED } else { kept::PREVIOUS };
    let kept = Kept::load(&context.state, kind)?.ok_or_else(|| {
        EngineError::refused("rollback", "what the version before needs was not kept")
            .hint("restore the folder of this cluster's state from a copy")
    })?;
    if kind == kept::APPLIED {
        kept.refuse_when_others_installed(&context.state, "rollback")?;
    }
    Ok(kept)
}

/// After a failed turn: takes back what was switched, and says what came of both.
pub(super) fn after_failure(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    material: &Material,
    record: &mut Record,
    before: &turn::Before,
    failure: &EngineError,
) -> EngineError {
    let place = if failure.host.is_empty() { String::new() } else { format!("{}: ", failure.host) };
    record.failure = format!("{place}{}", failure.cause);
    run.emitter.warn(
        &failure.host,
        &failure.step,
        format!("the upgrade failed: {}", failure.cause),
        format!("every host that was switched is taken back to {}", record.from.version),
    );
    let back = take_back(run, sessions, material, record, false, before);
    let mut error = failure.clone();
    error.class = Class::Failed;
    match back {
        Ok(_) => {
            error.cause = format!(
                "{}; every host was taken back to version {} and proven by messages",
                failure.cause, record.from.version
            );
            error.hint("nothing was lost; the bundle cannot be used as it is")
        }
        Err(other) => {
            error.cause = format!("{}; and the way back is not complete", failure.cause);
            EngineError::join(vec![error.hint(when_it_is_back(record)), other])
                .unwrap_or_else(|| failure.clone())
        }
    }
}

/// Completes a rollback by itself that was killed; the upgrade has failed all the same.
pub(super) fn complete(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    mut record: Record,
    material: &Material,
) -> EngineError {
    let why =
        if record.failure.is_empty() { "a rollback was begun".to_owned() } else { record.failure.clone() };
    let before = match previous(run.context, &record) {
        // Hosts are in the middle of it: what they lack now is not excused.
        Ok(previous) => turn::Before::measure(run, sessions, &previous.installed, |_| false),
        Err(error) => return error,
    };
    let back = || take_back(run, sessions, material, &mut record, false, &before);
    let done = run.emitter.phase("rollback", back);
    match done {
        Ok(_) => EngineError::failed(
            "upgrade",
            format!("{why}; every host was taken back to version {}", record.from.version),
        )
        .hint("upgrade with another bundle"),
        Err(error) => error,
    }
}

/// Takes back every host whose turn has begun (`all`: every host), the last one first; how many things were changed.
pub(super) fn take_back(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    material: &Material,
    record: &mut Record,
    all: bool,
    before: &turn::Before,
) -> Result<usize, EngineError> {
    let context = run.context;
    let previous = previous(context, record)?;
    let next = Kept::load(&context.state, kept::NEXT)?;
    if record.phase == Phase::Staging {
        // What lies there is of an upgrade that has not switched anything; the next run must not find it.
        previous.save(&context.state, kept::PREVIOUS)?;
    }
    record.phase = Phase::RollingBack;
    record::save(&context.state, record)?;
    context.state.save_installed(&previous.installed)?;
    let mut done = 0;
    let mut errors = Vec::new();
    for place in order(&context.topology).into_iter().rev() {
        let host = context.topology.hosts[place].name.clone();
        if !all && record.turn(&host) == Turn::Waiting {
            continue;
        }
        if sessions[place].absent {
            let error = EngineError::failed("rollback", "nobody answers there, so it was not taken back");
            errors.push(error.on(&host).hint(when_it_is_back(record)));
            continue;
        }
        let taken = lost::persist(run, sessions, &previous.installed, lost::SHORT, |sessions| {
            let mut tasks = previous.tasks_of(&host)?;
            certificates::renew(context, &mut tasks);
            let newer = next.as_ref().map(|next| next.tasks_of(&host)).transpose()?.unwrap_or_default();
            tasks.extend(only_newer(&tasks, &newer));
            let changes = turn::look(run, &mut sessions[place], &tasks)?;
            if record.turn(&host) == Turn::TakenBack && turn::is_nothing(&changes) {
                return Ok(());
            }
            let (installed, proof) = (&previous.installed, turn::Proof::Itself);
            let goal = turn::Goal { tasks: &tasks, changes: &changes, installed, proof, before };
            done += turn::turn(run, sessions, place, material, &goal)?;
            // A version that failed was never proven, so the supervisor is that of before still.
            if all {
                turn::bring_supervisor_up(run, &mut sessions[place], &previous.installed, before)?;
            }
            record.set_turn(&host, Turn::TakenBack);
            record::save(&context.state, record)
        });
        match taken {
            Ok(()) => {}
            // The others are taken back all the same: one that cannot be reached must not keep them.
            Err(error) if lost::is_over(&error) => return Err(error),
            Err(error) => errors.push(error),
        }
    }
    if let Some(error) = EngineError::join(errors) {
        return Err(error);
    }
    // Now that all of them run the same again.
    before.prove_all(run, sessions, material, &previous.installed)?;
    previous.save(&context.state, kept::APPLIED)?;
    record.phase = Phase::RolledBack;
    record::save(&context.state, record)?;
    // What the host of the repository puts into its sets is of this version again, as everything else.
    crate::backup::hand_over(run, sessions, &previous.installed);
    state::copy::publish(run, sessions)?;
    Ok(done)
}

/// Removal of the files and services that only the newer version has.
fn only_newer(older: &[Task], newer: &[Task]) -> Vec<Task> {
    let place = |task: &Task| match &task.kind {
        TaskKind::File(file) => Some(AbsentTask::File(file.path.clone())),
        TaskKind::Unit(unit) if unit.manager == maxim_model::task::ServiceManager::Systemd => {
            let name = &unit.name;
            let full = if name.contains('.') { name.clone() } else { format!("{name}.service") };
            Some(AbsentTask::Unit(full))
        }
        _ => None,
    };
    let there: Vec<AbsentTask> = older.iter().filter_map(place).collect();
    newer
        .iter()
        .filter_map(|task| place(task).map(|absent| (task, absent)))
        .filter(|(_, absent)| !there.contains(absent))
        .map(|(task, absent)| Task {
            id: format!("{}-removed", task.id),
            stage: Stage::Console,
            restarts: Vec::new(),
            reloads: Vec::new(),
            kind: TaskKind::Absent(absent),
            ..task.clone()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{only_newer, refuse_where_there_is_no_way_back};
    use maxim_model::Secret;
    use maxim_model::names::Stage;
    use maxim_model::task::{AbsentTask, FileTask, Task, TaskKind};

    fn file(path: &str) -> Task {
        Task {
            id: format!("im/{path}"),
            component: "im".into(),
            stage: Stage::Prepare,
            restarts: vec!["maxim-im".into()],
            reloads: Vec::new(),
            deadline_seconds: 1,
            kind: TaskKind::File(FileTask {
                path: path.into(),
                content: Secret::new("x"),
                sensitive: false,
                owner: String::new(),
                group: String::new(),
                mode: "0644".into(),
                only_if_absent: false,
            }),
        }
    }

    #[test]
    fn what_only_the_newer_version_has_is_removed() {
        let removed = only_newer(&[file("/a")], &[file("/a"), file("/b")]);
        assert_eq!(removed.len(), 1);
        assert_eq!(removed[0].kind, TaskKind::Absent(AbsentTask::File("/b".into())));
        assert!(removed[0].restarts.is_empty() && removed[0].id == "im//b-removed");
    }

    #[test]
    fn without_an_upgrade_there_is_nothing_to_take_back() {
        assert_eq!(refuse_where_there_is_no_way_back(None).unwrap_err().exit_code(), 5);
    }
}
