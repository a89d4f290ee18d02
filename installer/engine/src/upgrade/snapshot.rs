//! The snapshot before an upgrade: the one place where the backup of the cluster is called.

use super::UpgradeOptions;
use crate::error::EngineError;
use crate::run::{Run, Session};

/// Whether the upgrade may go on as it was asked for.
pub(super) fn allowed(options: UpgradeOptions) -> Result<(), EngineError> {
    if options.no_snapshot {
        return Ok(());
    }
    Err(EngineError::usage("snapshot", "this version takes no snapshot before an upgrade by itself")
        .hint("take a backup of the database first, then say `--no-snapshot`"))
}

/// Takes it; its name, empty when none was taken.
pub(super) fn take(
    run: &Run<'_>,
    _sessions: &mut [Session<'_>],
    options: UpgradeOptions,
) -> Result<String, EngineError> {
    allowed(options)?;
    run.emitter.warn("", "snapshot", "no snapshot was taken before this upgrade", "");
    Ok(String::new())
}
