//! The snapshot before an upgrade: the one place where the backup of the cluster is called.
//!
//! It is taken before this run holds any lock, because making a backup takes the same ones, and not again when a run
//! completes what another began.

use super::UpgradeOptions;
use crate::backup;
use crate::context::Context;
use crate::error::EngineError;
use maxim_model::backup::SetKind;

/// Takes it; the name of its set, empty when it was asked to go on without one.
pub(super) fn take(context: &Context, options: UpgradeOptions) -> Result<String, EngineError> {
    if options.no_snapshot {
        return Ok(String::new());
    }
    backup::repository_of(context).map_err(|error| {
        let hint =
            format!("{}; or say `--no-snapshot` to upgrade without a way back to the data", error.hint);
        error.hint(hint)
    })?;
    Ok(backup::create(context, SetKind::Safety)?.manifest.set)
}
