//! Hosts whose connection dies in the middle: rebooted, cut off for a while, or their agent was killed.
//!
//! What is done on a host is measured before it is done, so work that broke off can simply be begun again. After a
//! failure each agent is asked whether it still answers. When all do, the failure is real. Those that do not are
//! connected to again within a deadline and locked anew (the lease of the agent before must have run out), and the
//! work is done once more. A host that does not come back leaves the failure as it was. When somebody else has written
//! the cluster's state meanwhile, the run ends as it is: neither forward nor back is its own to decide any more.

use crate::error::{Class, EngineError};
use crate::phases::{connect, measure};
use crate::remote::SLICE;
use crate::run::{Run, Session};
use crate::state::{self, Installed};
use maxim_model::wire::{Reply, Request};
use std::time::{Duration, Instant};

/// A server that was rebooted answers again within this.
pub(super) const REBOOT: Duration = if cfg!(test) { PAUSE } else { Duration::from_mins(5) };
/// On the way back: the others must not wait long for a host that is dead. Longer than the lock of an agent that died
/// with its host lasts.
pub(super) const SHORT: Duration = if cfg!(test) { PAUSE } else { Duration::from_secs(40) };
/// An agent that has nothing to do answers at once.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// Work is begun again so often; a host that dies each time is not well.
const AGAIN: usize = 2;

/// Does some work, once more after hosts that were lost in it have come back.
pub(super) fn persist<'a, T>(
    run: &Run<'_>,
    sessions: &mut [Session<'a>],
    installed: &Installed,
    patience: Duration,
    mut work: impl FnMut(&mut [Session<'a>]) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let mut left = AGAIN;
    loop {
        match work(sessions) {
            Err(error) if left > 0 && !is_over(&error) => {
                left -= 1;
                if !are_back(run, sessions, installed, patience, &error)? {
                    return Err(error);
                }
            }
            done => return done,
        }
    }
}

/// Whether a run ends here as it is: a person ended it, or somebody else has changed the cluster.
pub(super) fn is_over(error: &EngineError) -> bool {
    error.class == Class::Interrupted || error.step == state::copy::STALE
}

/// Connects again to those that do not answer any more, apart from those that never did. False: all answer, or one did
/// not come back.
fn are_back(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    installed: &Installed,
    patience: Duration,
    error: &EngineError,
) -> Result<bool, EngineError> {
    let lost: Vec<usize> = (0..sessions.len())
        .filter(|place| !sessions[*place].absent && !answers(&mut sessions[*place]))
        .collect();
    if lost.is_empty() {
        return Ok(false);
    }
    for place in lost {
        let host = sessions[place].host.name.clone();
        run.emitter.warn(
            &host,
            "connect",
            format!("the connection was lost: {}", error.cause),
            format!("it is connected to again within {} s", patience.as_secs()),
        );
        let begun = Instant::now();
        if let Err(why) = again(run, &mut sessions[place], begun + patience) {
            if why.class == Class::Interrupted {
                return Err(why);
            }
            run.emitter.warn(&host, "connect", format!("it did not come back: {}", why.cause), why.hint);
            return Ok(false);
        }
        // Its services have just been started, if it was; messages are sent through them next.
        measure::components_when_ready(run, std::slice::from_mut(&mut sessions[place]), installed);
        let message = format!("connected again after {} s", begun.elapsed().as_secs());
        run.emitter.note(&host, "connect", message);
    }
    // While a lock had run out somebody else may have worked on the cluster: what this run plans with is then old.
    state::copy::hold(run, sessions)?;
    Ok(true)
}

/// Whether the agent that may change things answers, and answers what it is asked.
fn answers(session: &mut Session<'_>) -> bool {
    session.writer.as_mut().is_some_and(|agent| {
        let hello = |reply| matches!(reply, Reply::Hello { .. }).then_some(());
        // One that has not answered yet what it was asked before may be gone: it is looked at anew.
        !agent.owes() && agent.ask("connect", &Request::Hello, ANSWER, hello).is_ok()
    })
}

/// Connects and locks until it succeeds, at the latest until then.
fn again(run: &Run<'_>, session: &mut Session<'_>, until: Instant) -> Result<(), EngineError> {
    let owner = state::owner(run.action());
    loop {
        run.context.cancel.check("connect")?;
        // The old ones first: an agent that lives ends with its input, and lets its lock go.
        session.writer = None;
        session.reader = None;
        session.connected = None;
        session.error = None;
        let tried = run.connect(session.host).and_then(|connected| {
            session.connected = Some(connected);
            connect::lock_host(run, session, &owner)
        });
        match tried {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => {}
        }
        let pause = Instant::now() + PAUSE;
        while Instant::now() < pause {
            run.context.cancel.check("connect")?;
            std::thread::sleep(SLICE);
        }
    }
}
