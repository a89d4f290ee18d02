//! One host's turn, forwards and back: files, drain, switch, health, messages.
//!
//! The configuration is written while the old program still serves from what it has read. Then the IM core is drained:
//! it takes nothing new, acknowledges what it took, tells its sessions to come back and ends; what awaits delivery is
//! in the store. The services are switched and started in order, measured until they are well, and proven by messages
//! through this host to itself, to the next and back.

use crate::error::EngineError;
use crate::events::millis;
use crate::phases::plan::{self, Material};
use crate::phases::{apply, measure, verify};
use crate::remote::SLICE;
use crate::run::{Run, Session};
use crate::state::Installed;
use maxim_model::names::{Role, Stage};
use maxim_model::status::{ComponentStatus, Health};
use maxim_model::task::{Change, Task, TaskKind};
use maxim_model::wire::{Request, ServiceAction};
use std::time::{Duration, Instant};

/// The IM core ends within its own limit, which is shorter.
const DRAIN_SECONDS: u64 = 60;
/// Services that were started are well within this, or something is wrong.
const WELL: Duration = Duration::from_mins(1);
/// A message through a host takes milliseconds. Two tries: a single lost connection takes no working server back.
const CANARY_SECONDS: u64 = 8;
const CANARY_TRIES: usize = 2;

/// How a host is proven after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// By messages through itself, to the next IM host and back.
    Neighbours,
    /// By messages through itself alone: on the way back the others may still run what failed.
    Itself,
}

/// What a host shall be after its turn.
pub(super) struct Goal<'a> {
    pub tasks: &'a [Task],
    /// What each of them would change now.
    pub changes: &'a [Change],
    pub installed: &'a Installed,
    pub proof: Proof,
}

/// What the tasks of a host would change now.
pub(super) fn look(
    run: &Run<'_>,
    session: &mut Session<'_>,
    tasks: &[Task],
) -> Result<Vec<Change>, EngineError> {
    let mut changes = plan::check(run, std::slice::from_mut(session), &[tasks.to_vec()], true)?;
    Ok(changes.pop().unwrap_or_default())
}

/// Whether a host is as it should be.
pub(super) fn is_nothing(changes: &[Change]) -> bool {
    changes.iter().all(|change| matches!(change, Change::None | Change::Later { .. }))
}

/// The turn of the host at `place`; how many things were changed.
pub(super) fn turn(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    place: usize,
    material: &Material,
    goal: &Goal<'_>,
) -> Result<usize, EngineError> {
    let &Goal { tasks, changes, installed, proof } = goal;
    let begun = Instant::now();
    let host = sessions[place].host.name.clone();
    let mut done = 0;
    if !is_nothing(changes) {
        done +=
            part(run, &mut sessions[place], tasks, changes, material, |task| task.stage == Stage::Prepare)?;
        let away = Instant::now();
        let drained = switches_im(tasks, changes);
        if drained {
            drain(run, &mut sessions[place])?;
        }
        done +=
            part(run, &mut sessions[place], tasks, changes, material, |task| task.stage != Stage::Prepare)?;
        well(run, &mut sessions[place], installed)?;
        if drained {
            let message = format!("the IM core was away for {} ms", millis(away));
            run.emitter.note(&host, "switch", message);
        }
    } else {
        well(run, &mut sessions[place], installed)?;
    }
    prove(run, sessions, place, material, proof)?;
    if proof == Proof::Neighbours {
        bring_supervisor_up(run, &mut sessions[place], installed)?;
    }
    run.emitter.note(&host, "switch", format!("runs {}, proven by messages", installed.version));
    run.emitter.record("switch", &host, millis(begun));
    Ok(done)
}

/// Applies the tasks of a host that are `wanted`.
fn part(
    run: &Run<'_>,
    session: &mut Session<'_>,
    tasks: &[Task],
    changes: &[Change],
    material: &Material,
    wanted: impl Fn(&Task) -> bool,
) -> Result<usize, EngineError> {
    let (tasks, changes): (Vec<Task>, Vec<Change>) = tasks
        .iter()
        .zip(changes)
        .filter(|(task, _)| wanted(task))
        .map(|(task, change)| (task.clone(), change.clone()))
        .unzip();
    if is_nothing(&changes) {
        return Ok(0);
    }
    apply::apply(run, std::slice::from_mut(session), &[tasks], &[changes], material)
}

/// Whether the IM core of the host will be another one, or start anew.
fn switches_im(tasks: &[Task], changes: &[Change]) -> bool {
    let service = Role::Im.service();
    tasks.iter().zip(changes).any(|(task, change)| {
        *change != Change::None && matches!(&task.kind, TaskKind::Unit(unit) if unit.name == service)
    })
}

/// Ends the IM core in good order.
fn drain(run: &Run<'_>, session: &mut Session<'_>) -> Result<(), EngineError> {
    let host = session.host.name.clone();
    let begun = Instant::now();
    let agent = session
        .writer
        .as_mut()
        .ok_or_else(|| EngineError::failed("drain", "the host is not connected").on(&host))?;
    let request = Request::Service {
        action: ServiceAction::Stop,
        names: vec![Role::Im.service()],
        manager: run.manager(),
        deadline_seconds: DRAIN_SECONDS,
    };
    agent.request("drain", &request, Duration::from_secs(DRAIN_SECONDS + 10), |_| {})?;
    run.emitter.note(&host, "drain", format!("the IM core ended in good order after {} ms", millis(begun)));
    Ok(())
}

/// Makes the supervisor of an embedded deployment one of this program, once the version is proven: its services start
/// anew under it, and the messages at the end of all turns prove them again.
pub(super) fn bring_supervisor_up(
    run: &Run<'_>,
    session: &mut Session<'_>,
    installed: &Installed,
) -> Result<(), EngineError> {
    if run.root().is_none() {
        return Ok(());
    }
    let host = session.host.name.clone();
    let begun = Instant::now();
    let agent = session
        .writer
        .as_mut()
        .ok_or_else(|| EngineError::failed("supervisor", "the host is not connected").on(&host))?;
    let request = Request::Service {
        action: ServiceAction::Restart,
        names: vec!["supervisor".into()],
        manager: run.manager(),
        deadline_seconds: DRAIN_SECONDS,
    };
    agent.request("supervisor", &request, Duration::from_secs(2 * DRAIN_SECONDS), |_| {})?;
    well(run, session, installed)?;
    run.emitter.note(&host, "supervisor", format!("the supervisor is of this version, {} ms", millis(begun)));
    Ok(())
}

/// Waits until every component of a host is measured to be well, in the version that is wanted.
fn well(run: &Run<'_>, session: &mut Session<'_>, installed: &Installed) -> Result<(), EngineError> {
    let until = Instant::now() + WELL;
    let host = session.host.name.clone();
    loop {
        let found = measure::components(run, std::slice::from_mut(session), installed, true);
        if let Some(error) = session.error.take() {
            return Err(error);
        }
        let Some(ill) = found.iter().find(|one| !is_well(one)) else { return Ok(()) };
        run.context.cancel.check("health")?;
        if Instant::now() > until {
            return Err(EngineError::failed("health", format!("{}: {}", ill.component, ill.detail))
                .on(&host)
                .hint(format!("`maxim.ctl logs {}` shows why", ill.component)));
        }
        std::thread::sleep(SLICE);
    }
}

fn is_well(one: &ComponentStatus) -> bool {
    one.health == Health::Well && (one.wanted.is_empty() || one.running == one.wanted)
}

/// Proves the host by messages: through itself, to the next IM host and back. A host of stores is proven by messages
/// through every IM host.
fn prove(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    place: usize,
    material: &Material,
    proof: Proof,
) -> Result<(), EngineError> {
    let im: Vec<usize> =
        (0..sessions.len()).filter(|place| sessions[*place].host.roles.contains(&Role::Im)).collect();
    let roles = &sessions[place].host.roles;
    let stores = roles.iter().any(|role| role.stage() == Stage::Store);
    let own = im.iter().position(|other| *other == place);
    let count = im.len();
    let ways: Vec<(usize, usize)> = match own {
        Some(own) if proof == Proof::Itself => vec![(own, own)],
        None if proof == Proof::Itself => return Ok(()),
        _ if stores => (0..count).map(|from| (from, (from + 1) % count)).collect(),
        Some(own) if count > 1 => vec![(own, own), (own, (own + 1) % count), ((own + 1) % count, own)],
        Some(own) => vec![(own, own)],
        None => return Ok(()),
    };
    let authority = material.authority.certificate();
    let mut tries = CANARY_TRIES;
    loop {
        tries -= 1;
        match verify::canary_between(run, sessions, authority, &ways, CANARY_SECONDS) {
            Err(error) if tries > 0 && !run.context.cancel.is_cancelled() => {
                run.emitter.warn(&error.host, "canary", error.cause, "it is tried once more");
            }
            result => return result,
        }
    }
}
