//! `uninstall`: leaves data unless told to purge; leaves nothing else.

use crate::context::Context;
use crate::error::EngineError;
use crate::events::Timing;
use maxim_model::plan::Plan;

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
    let _ = (context, options);
    Err(EngineError::failed("uninstall", "not there yet"))
}
