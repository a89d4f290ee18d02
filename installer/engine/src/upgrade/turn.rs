//! One host's turn, forwards and back: files, drain, switch, health, messages.
//!
//! The configuration is written while the old program still serves from what it has read. Then the IM core is drained:
//! it takes nothing new, acknowledges what it took, tells its sessions to come back and ends; what awaits delivery is
//! in the store. The services are switched and started in order, measured until they are well, and proven by messages
//! through this host to itself, to the next and back. From the drain until the host is well a Ctrl-C waits: it must not
//! leave the IM core stopped.
//!
//! What a host was before counts ([`Before`]): a service that had restarted on its own may go on saying so, and with
//! `--force upgrade.health` what was broken before need not be well afterwards.

use super::HEALTH_CHECK;
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
const WELL: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_mins(1) };
/// What was broken before may be well with the new version: it is given this to come up.
const STARTING: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(15) };
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
    pub before: &'a Before,
}

/// Components that were not well before anything was switched.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// `(host, component)` of those that had restarted on their own.
    restarted: Vec<(String, String)>,
    /// Of those that were broken, when it was said that this may be (`--force upgrade.health`), or when a host with
    /// their stores is absent.
    excused: Vec<(String, String)>,
}

impl Before {
    /// Measures every host by the agents that hold the locks. `untouched`: whether the turn of a host has not begun;
    /// what one that was in the middle of it has lost is not excused.
    pub fn measure(
        run: &Run<'_>,
        sessions: &mut [Session<'_>],
        installed: &Installed,
        untouched: impl Fn(&str) -> bool,
    ) -> Self {
        let found = measure::components(run, sessions, installed, true);
        // A host that is lost is found out in its turn.
        for session in sessions.iter_mut().filter(|session| session.writer.is_some() || session.absent) {
            session.error = None;
        }
        let stores =
            |session: &Session<'_>| session.host.roles.iter().any(|role| role.stage() == Stage::Store);
        let forced = run.context.force.iter().any(|id| id == HEALTH_CHECK)
            || sessions.iter().any(|session| session.absent && stores(session));
        let mut before = Self::default();
        for one in found {
            let name = (one.host, one.component);
            match one.health {
                Health::Well => {}
                Health::Attention if one.restarts > 0 => before.restarted.push(name),
                Health::Attention => {}
                _ if forced && untouched(&name.0) => before.excused.push(name),
                _ => {}
            }
        }
        before
    }

    fn has(list: &[(String, String)], one: &ComponentStatus) -> bool {
        list.iter().any(|(host, component)| *host == one.host && *component == one.component)
    }

    /// Whether a component is as well as it must be after a turn, in the version that is wanted.
    fn suffices(&self, one: &ComponentStatus) -> bool {
        let right = one.wanted.is_empty() || one.running == one.wanted;
        match one.health {
            Health::Well if right => true,
            // In the wanted version nothing but restarts asks for attention.
            Health::Attention if right => Self::has(&self.restarted, one) || Self::has(&self.excused, one),
            _ => Self::has(&self.excused, one),
        }
    }

    /// Hosts that are absent, or whose IM core was broken before and still is: no message can be asked of them.
    fn silent(
        &self,
        run: &Run<'_>,
        sessions: &mut [Session<'_>],
        installed: &Installed,
    ) -> Result<Vec<String>, EngineError> {
        let im = Role::Im.name();
        let mut silent = Vec::new();
        for session in sessions.iter_mut() {
            let host = session.host.name.clone();
            if session.absent {
                silent.push(host);
                continue;
            }
            if !self.excused.iter().any(|(other, component)| *other == host && component == im) {
                continue;
            }
            let found = measure::components(run, std::slice::from_mut(session), installed, true);
            if let Some(error) = session.error.take() {
                return Err(error);
            }
            if found.iter().any(|one| {
                one.component == im
                    && matches!(one.health, Health::Broken | Health::Unknown | Health::Working)
            }) {
                silent.push(host);
            }
        }
        Ok(silent)
    }

    /// Proves all hosts together by messages from each IM host to the next one.
    pub fn prove_all(
        &self,
        run: &Run<'_>,
        sessions: &mut [Session<'_>],
        material: &Material,
        installed: &Installed,
    ) -> Result<(), EngineError> {
        let authority = material.authority.certificate();
        let silent = self.silent(run, sessions, installed)?;
        if silent.is_empty() {
            return verify::canary(run, sessions, authority);
        }
        let speaking: Vec<usize> = im_places(sessions)
            .into_iter()
            .enumerate()
            .filter(|(_, place)| !silent.contains(&sessions[*place].host.name))
            .map(|(number, _)| number)
            .collect();
        let count = speaking.len();
        let ways: Vec<(usize, usize)> =
            (0..count).map(|from| (speaking[from], speaking[(from + 1) % count])).collect();
        verify::canary_between(run, sessions, authority, &ways, CANARY_SECONDS)
    }
}

/// Places of the sessions with the IM core.
fn im_places(sessions: &[Session<'_>]) -> Vec<usize> {
    (0..sessions.len()).filter(|place| sessions[*place].host.roles.contains(&Role::Im)).collect()
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
    let &Goal { tasks, changes, installed, proof, before } = goal;
    let begun = Instant::now();
    let host = sessions[place].host.name.clone();
    let mut done = 0;
    if !is_nothing(changes) {
        done +=
            part(run, &mut sessions[place], tasks, changes, material, |task| task.stage == Stage::Prepare)?;
        let away = Instant::now();
        // Until what is stopped from here on runs again.
        let held = run.context.cancel.hold();
        let drained = switches_im(tasks, changes);
        if drained {
            drain(run, &mut sessions[place])?;
        }
        done +=
            part(run, &mut sessions[place], tasks, changes, material, |task| task.stage != Stage::Prepare)?;
        well(run, &mut sessions[place], installed, before)?;
        drop(held);
        if drained {
            let message = format!("the IM core was away for {} ms", millis(away));
            run.emitter.note(&host, "switch", message);
        }
    } else {
        well(run, &mut sessions[place], installed, before)?;
    }
    prove(run, sessions, place, material, goal)?;
    if proof == Proof::Neighbours {
        bring_supervisor_up(run, &mut sessions[place], installed, before)?;
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
    before: &Before,
) -> Result<(), EngineError> {
    if run.root().is_none() {
        return Ok(());
    }
    run.context.cancel.check("supervisor")?;
    let held = run.context.cancel.hold();
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
    well(run, session, installed, before)?;
    drop(held);
    run.emitter.note(&host, "supervisor", format!("the supervisor is of this version, {} ms", millis(begun)));
    Ok(())
}

/// Waits until every component of a host is measured to be as well as it must be, in the version that is wanted.
fn well(
    run: &Run<'_>,
    session: &mut Session<'_>,
    installed: &Installed,
    before: &Before,
) -> Result<(), EngineError> {
    let until = Instant::now() + WELL;
    let excused_from = Instant::now() + STARTING;
    let host = session.host.name.clone();
    loop {
        let found = measure::components(run, std::slice::from_mut(session), installed, true);
        if let Some(error) = session.error.take() {
            return Err(error);
        }
        let ill = found.iter().find(|one| !before.suffices(one));
        if ill.is_none()
            && found.iter().any(|one| !matches!(one.health, Health::Well | Health::Attention))
            && Instant::now() < excused_from
        {
            std::thread::sleep(SLICE);
            continue;
        }
        let Some(ill) = ill else {
            for one in found.iter().filter(|one| one.health != Health::Well) {
                let what = format!("{}: {}", one.component, one.detail);
                run.emitter.warn(&host, "health", what, "it was so before, and is not blamed on the upgrade");
            }
            return Ok(());
        };
        run.context.cancel.check("health")?;
        if Instant::now() > until {
            return Err(EngineError::failed("health", format!("{}: {}", ill.component, ill.detail))
                .on(&host)
                .hint(format!("`maxim.ctl logs {}` shows why", ill.component)));
        }
        std::thread::sleep(SLICE);
    }
}

/// Proves the host by messages: through itself, to the next IM host and back. A host of stores is proven by messages
/// through every IM host.
fn prove(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    place: usize,
    material: &Material,
    goal: &Goal<'_>,
) -> Result<(), EngineError> {
    let &Goal { installed, proof, before, .. } = goal;
    let silent = before.silent(run, sessions, installed)?;
    // Each with its number among all IM hosts.
    let im: Vec<(usize, usize)> = im_places(sessions)
        .into_iter()
        .enumerate()
        .filter(|(_, place)| !silent.contains(&sessions[*place].host.name))
        .collect();
    let roles = &sessions[place].host.roles;
    let stores = roles.iter().any(|role| role.stage() == Stage::Store);
    let own = im.iter().position(|(_, other)| *other == place);
    let count = im.len();
    let ways: Vec<(usize, usize)> = match own {
        Some(own) if proof == Proof::Itself => vec![(own, own)],
        None if proof == Proof::Itself => return Ok(()),
        _ if stores => (0..count).map(|from| (from, (from + 1) % count)).collect(),
        Some(own) if count > 1 => vec![(own, own), (own, (own + 1) % count), ((own + 1) % count, own)],
        Some(own) => vec![(own, own)],
        None => return Ok(()),
    };
    let ways: Vec<(usize, usize)> = ways.into_iter().map(|(from, to)| (im[from].0, im[to].0)).collect();
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
