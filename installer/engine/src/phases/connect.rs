//! Connect: reach every host and start a read-only agent on it; later the agent that may change things, with the
//! host's lock.

use crate::error::{Class, EngineError};
use crate::events::millis;
use crate::fleet;
use crate::remote::{Agent, Mode};
use crate::run::{Run, Session};
use crate::state;
use maxim_model::event::EventKind;
use maxim_model::wire::{LockHolder, Reply, Request};
use std::time::{Duration, Instant};

/// Seconds after which a lock whose owner died is free.
const LEASE_SECONDS: u64 = 30;
const REQUEST: Duration = Duration::from_secs(15);

/// Connects to all hosts, and sees to it that the state here is not older than the console's host knows it
/// ([`state::copy`]). A host that cannot be reached keeps its error in its session.
pub(crate) fn connect<'a>(run: &Run<'a>) -> Result<Vec<Session<'a>>, EngineError> {
    let mut sessions = reach(run);
    if let Err(error) = state::copy::look(run, &mut sessions) {
        release(&mut sessions);
        return Err(error);
    }
    Ok(sessions)
}

fn reach<'a>(run: &Run<'a>) -> Vec<Session<'a>> {
    run.emitter.phase("connect", || {
        let hosts = &run.context.topology.hosts;
        fleet::for_each(hosts, run.context.concurrency, |host| {
            let begun = Instant::now();
            let mut session = Session::new(host);
            let reached = (|| {
                let mut connected = run.connect(host)?;
                let mut agent = connected.agent(run.first_mode())?;
                run.scope(&mut agent)?;
                run.emitter.emit(EventKind::Connected {
                    host: host.name.clone(),
                    detail: connected.describe(),
                    agent_bytes_sent: connected.agent_bytes_sent(),
                });
                session.connected = Some(connected);
                session.reader = Some(agent);
                Ok(())
            })();
            session.error = reached.err();
            run.emitter.record("connect", &host.name, millis(begun));
            session
        })
    })
}

/// Errors of all sessions as one.
pub(crate) fn errors(sessions: &mut [Session<'_>]) -> Option<EngineError> {
    EngineError::join(sessions.iter_mut().filter_map(|session| session.error.take()).collect())
}

/// Whether nobody answers at the host's address: switched off, cut off, or gone for good.
pub(crate) fn is_unreached(error: &EngineError) -> bool {
    ["access.unreachable", "access.refused"].contains(&error.step.as_str())
}

/// What was refused before a host could be reached. A bundle whose program is broken is no fault of the hosts that it
/// could not be sent to.
pub(crate) fn refused(sessions: &[Session<'_>]) -> Option<EngineError> {
    let errors = sessions.iter().filter_map(|session| session.error.as_ref());
    EngineError::join(errors.filter(|error| error.class == Class::Refused).cloned().collect())
}

/// Starts the agents that may change things, and takes the lock of every host that is not absent. On any failure the
/// locks that were taken are released again, because every agent ends.
pub(crate) fn lock_hosts(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    action: &str,
) -> Result<(), EngineError> {
    let owner = state::owner(action);
    let errors = run.emitter.phase("lock", || {
        let present = sessions.iter_mut().filter(|session| !session.absent);
        fleet::for_each(present, run.context.concurrency, |session| {
            let begun = Instant::now();
            let host = session.host.name.clone();
            let locked = lock_host(run, session, &owner);
            run.emitter.record("lock", &host, millis(begun));
            locked.err()
        })
    });
    let held = match EngineError::join(errors.into_iter().flatten().collect()) {
        None => state::copy::hold(run, sessions),
        Some(error) => Err(error),
    };
    match held {
        Ok(()) => Ok(()),
        Err(error) => {
            release(sessions);
            Err(error)
        }
    }
}

/// Starts the agent of a host that may change things, and takes the host's lock. `owner`: who asks.
pub(crate) fn lock_host(run: &Run<'_>, session: &mut Session<'_>, owner: &str) -> Result<(), EngineError> {
    let host = &session.host.name;
    let connected = session
        .connected
        .as_mut()
        .ok_or_else(|| EngineError::failed("lock", "the host is not connected").on(host))?;
    // What has looked goes on as what may change things.
    let mut agent = match session.reader.take().filter(|_| run.first_mode() == Mode::LookThenChange) {
        Some(mut agent) => {
            agent.promote(REQUEST)?;
            agent
        }
        None => connected.agent(Mode::Change)?,
    };
    run.scope(&mut agent)?;
    lock_agent(&mut agent, &run.context.topology.name, owner)?;
    session.writer = Some(agent);
    Ok(())
}

/// Takes the lock of an agent's host, which it holds until it ends.
pub(crate) fn lock_agent(agent: &mut Agent, cluster: &str, owner: &str) -> Result<(), EngineError> {
    let request =
        Request::Lock { cluster: cluster.into(), owner: owner.into(), lease_seconds: LEASE_SECONDS };
    let (granted, holder) = agent.ask("lock", &request, REQUEST, |reply| match reply {
        Reply::Lock { granted, holder } => Some((granted, holder)),
        _ => None,
    })?;
    if granted { Ok(()) } else { Err(held(agent.host(), cluster, holder)) }
}

/// Ends all agents; locks go with them.
pub(crate) fn release(sessions: &mut [Session<'_>]) {
    let agents: Vec<_> = sessions
        .iter_mut()
        .flat_map(|session| [session.writer.take(), session.reader.take()])
        .flatten()
        .collect();
    let count = agents.len();
    fleet::for_each(agents, count, |agent| agent.finish(Duration::from_secs(15)));
}

fn held(host: &str, cluster: &str, holder: Option<LockHolder>) -> EngineError {
    let cause = match holder {
        Some(holder) if holder.cluster != cluster => format!(
            "the host is being worked on for another cluster, {}, by {} since {}",
            holder.cluster,
            holder.owner,
            when(holder.since)
        ),
        Some(holder) => {
            format!("the host is being worked on by {} since {}", holder.owner, when(holder.since))
        }
        None => "the lock of the host was not granted".into(),
    };
    EngineError::new(Class::Refused, "lock", cause)
        .on(host)
        .hint("wait until that run is done; a lock whose owner died is free after 30 s, and one whose machine lost power or network by `maxim.ctl unlock --owner`; `maxim.ctl unlock` shows locks")
}

/// Unix seconds as RFC 3339.
pub(crate) fn when(unix: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(unix)
        .ok()
        .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| unix.to_string())
}

#[cfg(test)]
mod tests {
    use super::{held, when};
    use maxim_model::wire::LockHolder;

    #[test]
    fn the_owner_of_a_lock_is_named() {
        let holder = LockHolder {
            cluster: "acme".into(),
            owner: "anna@control, pid 7, install".into(),
            since: 0,
            expires: 30,
        };
        let error = held("app1", "acme", Some(holder.clone()));
        assert!(error.cause.contains("anna@control") && error.cause.contains("1970-01-01"), "{error}");
        assert_eq!((error.host.as_str(), error.exit_code()), ("app1", 5));
        assert!(held("app1", "other", Some(holder)).cause.contains("another cluster, acme"));
        assert_eq!(when(0), "1970-01-01T00:00:00Z");
    }
}
