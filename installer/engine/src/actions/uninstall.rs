//! `uninstall`: leaves data unless told to purge; leaves nothing else.
//!
//! Steps: connect; lock; services stop in reverse order; the `uninstall` lists of the playbooks, components in
//! reverse order; the agent's own copy; on purge the state on the control host too. A host that cannot be reached
//! stops it before anything is removed anywhere.

use crate::context::Context;
use crate::error::EngineError;
use crate::events::Timing;
use crate::fleet;
use crate::phases::plan::Material;
use crate::phases::probe::DiskProbe;
use crate::phases::{apply, connect, plan, probe, services};
use crate::render::Purpose;
use crate::run::{Run, Session};
use crate::state;
use maxim_model::names::Stage;
use maxim_model::plan::Plan;
use maxim_model::task::Change;
use maxim_model::wire::Request;
use std::time::Duration;

/// How to uninstall.
#[derive(Debug, Clone, Copy, Default)]
pub struct UninstallOptions {
    /// Remove data, users and the cluster's state too.
    pub purge: bool,
    /// Show the plan, change nothing.
    pub dry_run: bool,
}

/// What was removed.
#[derive(Debug, Clone)]
pub struct UninstallOutcome {
    /// The plan.
    pub plan: Plan,
    /// False: a dry run, or the person said no.
    pub applied: bool,
    /// How many things were removed on hosts.
    pub changes: usize,
    /// Data folders that were left, as `host:/var/lib/maxim`.
    pub left: Vec<String>,
    /// Phase by phase and host by host.
    pub timings: Vec<Timing>,
}

/// Uninstalls.
pub fn uninstall(context: &Context, options: UninstallOptions) -> Result<UninstallOutcome, EngineError> {
    if context.state.topology()?.is_none() {
        return Err(EngineError::failed(
            "uninstall",
            format!("nothing is installed here ({})", context.state.path().display()),
        )
        .hint("name the deployment with --root or -f"));
    }
    let run = Run::begin(context, "uninstall", !options.dry_run)?;
    let control = if options.dry_run { None } else { Some(context.state.lock(&state::owner("uninstall"))?) };
    let mut material = Material::load(&run)?;
    let mut sessions = connect::connect(&run)?;
    let outcome = uninstalled_from(&run, &mut sessions, &mut material, options);
    connect::release(&mut sessions);
    let outcome = outcome?;
    drop(control);
    if outcome.applied && !options.purge {
        // Secrets and the authority stay with the data they belong to; what runs does not any more.
        context.state.forget_installed()?;
        crate::upgrade::forget(&context.state)?;
        crate::replace::forget(&context.state)?;
    }
    if outcome.applied && options.purge {
        context.state.remove()?;
        if let Some(root) = run.root() {
            // Only when nothing is left in it: whatever lies there besides is not ours.
            let _ = std::fs::remove_dir(root);
        }
    }
    Ok(outcome)
}

fn uninstalled_from(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    material: &mut Material,
    options: UninstallOptions,
) -> Result<UninstallOutcome, EngineError> {
    let context = run.context;
    probe::probe(run, sessions, DiskProbe::No);
    if let Some(error) = connect::errors(sessions) {
        return Err(error);
    }
    if !options.dry_run {
        connect::lock_hosts(run, sessions, "uninstall")?;
    }
    let (tasks, changes, made) = run.emitter.phase("plan", || {
        let mut tasks = material.tasks(run, sessions, Purpose::Uninstall, options.purge)?;
        // There is nothing to wait for between hosts: the services are stopped in order before.
        tasks.iter_mut().flatten().for_each(|task| task.stage = Stage::Prepare);
        let changes = plan::check(run, sessions, &tasks, !options.dry_run)?;
        let key = material.secrets.get_or_make("plan_key");
        let made = plan::assemble(run, sessions, &tasks, &changes, &key)?;
        Ok::<_, EngineError>((tasks, changes, made))
    })?;
    let data = &context.topology.paths.data;
    let mut outcome = UninstallOutcome {
        applied: false,
        changes: made.changes(),
        left: if options.purge {
            Vec::new()
        } else {
            context.topology.hosts.iter().map(|host| format!("{}:{data}", host.name)).collect()
        },
        timings: Vec::new(),
        plan: made,
    };
    let nothing = changes.iter().flatten().all(|change| *change == Change::None);
    if options.dry_run || (!nothing && !context.ask.approve_uninstall(&outcome.plan, options.purge)) {
        outcome.timings = run.emitter.timings();
        return Ok(outcome);
    }
    for stage in [Stage::Console, Stage::Core, Stage::Store] {
        stop(run, sessions, stage)?;
    }
    outcome.changes = apply::apply(run, sessions, &tasks, &changes, material)?;
    if !options.purge {
        state::copy::publish_uninstalled(run, sessions)?;
    }
    remove_agents(run, sessions);
    outcome.applied = true;
    outcome.timings = run.emitter.timings();
    Ok(outcome)
}

fn stop(run: &Run<'_>, sessions: &mut [Session<'_>], stage: Stage) -> Result<(), EngineError> {
    let results = fleet::for_each(sessions.iter_mut(), run.context.concurrency, |session| {
        let mut names: Vec<String> = session
            .host
            .roles
            .iter()
            .filter(|role| role.stage() == stage)
            .map(|role| role.service())
            .collect();
        // Only what the host knows: an uninstall that was killed before goes on here.
        names.retain(|name| {
            session.facts.units.iter().any(|unit| unit.name == *name && !unit.active.is_empty())
        });
        session.writer.as_mut().map_or(Ok(()), |agent| services::stop(run, agent, "uninstall", names))
    });
    EngineError::join(results.into_iter().filter_map(Result::err).collect()).map_or(Ok(()), Err)
}

/// The agent's own copy goes last. What it cannot remove is told; it is one folder that only root can read.
fn remove_agents(run: &Run<'_>, sessions: &mut [Session<'_>]) {
    fleet::for_each(sessions.iter_mut(), run.context.concurrency, |session| {
        if let Some(agent) = session.writer.as_mut()
            && let Err(error) =
                agent.request("uninstall", &Request::RemoveSelf, Duration::from_secs(10), |_| {})
        {
            run.emitter.warn(&session.host.name, "uninstall", error.cause, error.hint);
        }
    });
}
