//! The snapshot before an upgrade: the one place where the backup of the cluster is called.
//!
//! It is taken before this run holds any lock, because making a backup takes the same ones, and not again when a run
//! completes what another began.

use super::UpgradeOptions;
use crate::context::Context;
use crate::error::EngineError;

/// Takes it; its name, empty when it was asked to go on without one.
pub(super) fn take(_context: &Context, options: UpgradeOptions) -> Result<String, EngineError> {
    if options.no_snapshot {
        return Ok(String::new());
    }
    Err(EngineError::usage("snapshot", "this version takes no snapshot before an upgrade by itself")
        .hint("take a backup of the database first, then say `--no-snapshot`"))
}
