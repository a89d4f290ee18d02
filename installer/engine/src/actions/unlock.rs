//! `unlock`: who holds the lock of a cluster, since when; takes it away when its lease expired, or by name.

use crate::context::Context;
use crate::error::EngineError;
use maxim_model::wire::LockHolder;
use serde::Serialize;

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

/// Shows and removes locks of hosts.
pub fn unlock(context: &Context, which: &Unlock) -> Result<Vec<LockState>, EngineError> {
    let _ = (context, which);
    Err(EngineError::failed("unlock", "not there yet"))
}
