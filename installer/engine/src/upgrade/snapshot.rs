//! The snapshot before an upgrade: the one place where the backup of the cluster is called.
//!
//! It is taken once the upgrade was approved and before this run holds any lock, because making a backup takes the same
//! ones, and not again when a run completes what another began.

use crate::backup;
use crate::context::Context;
use crate::error::EngineError;
use maxim_model::backup::SetKind;

/// Whether one can be taken: there is a repository.
pub(super) fn require(context: &Context) -> Result<(), EngineError> {
    backup::repository_of(context).map(|_| ()).map_err(|error| {
        let hint =
            format!("{}; or say `--no-snapshot` to upgrade without a way back to the data", error.hint);
        error.hint(hint)
    })
}

/// Takes it; the name of its set.
pub(super) fn take(context: &Context) -> Result<String, EngineError> {
    Ok(backup::create(context, SetKind::Safety)?.manifest.set)
}
