//! `unlock`: who holds the lock of a cluster, since when; takes it away when its lease expired, or by name.

use crate::context::Context;
use crate::error::EngineError;
use crate::fleet;
use crate::phases::connect;
use crate::remote::Mode;
use crate::run::Run;
use maxim_model::wire::{LockHolder, Reply, Request};
use serde::Serialize;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(15);

/// The lock on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockState {
    /// Host.
    pub host: String,
    /// Who holds (or held) it; none: nobody.
    pub holder: Option<LockHolder>,
    /// Whether it was removed now.
    pub removed: bool,
}

/// Which locks are removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Unlock {
    /// None: only show.
    #[default]
    Show,
    /// Those whose lease expired.
    Expired,
    /// Those of this owner, as shown.
    Owner(String),
}

/// Shows and removes locks of hosts. An owner that is alive notices that its lock is gone and stops.
pub fn unlock(context: &Context, which: &Unlock) -> Result<Vec<LockState>, EngineError> {
    let run = Run::begin(context, "unlock", *which != Unlock::Show)?;
    let mut sessions = connect::connect(&run)?;
    if let Some(error) = connect::errors(&mut sessions) {
        connect::release(&mut sessions);
        return Err(error);
    }
    let results = fleet::for_each(sessions.iter_mut(), context.concurrency, |session| {
        let host = session.host.name.clone();
        let lost = || EngineError::failed("unlock", "the host is not connected").on(&host);
        let ask = |agent: &mut crate::remote::Agent, request: &Request| {
            agent.ask("unlock", request, DEADLINE, |reply| match reply {
                Reply::Lock { holder, .. } => Some(holder),
                _ => None,
            })
        };
        let holder = ask(session.reader.as_mut().ok_or_else(lost)?, &Request::LockOwner)?;
        let owner = match which {
            Unlock::Show => return Ok(LockState { host, holder, removed: false }),
            Unlock::Expired => String::new(),
            Unlock::Owner(owner) => owner.clone(),
        };
        if holder.is_none() {
            return Ok(LockState { host, holder, removed: false });
        }
        let mut agent = session.connected.as_mut().ok_or_else(lost)?.agent(Mode::Change)?;
        run.scope(&mut agent)?;
        ask(&mut agent, &Request::BreakLock { owner })?;
        let left = ask(&mut agent, &Request::LockOwner)?;
        agent.finish(Duration::from_secs(5));
        Ok(LockState { host, removed: left.is_none(), holder })
    });
    connect::release(&mut sessions);
    results.into_iter().collect()
}
