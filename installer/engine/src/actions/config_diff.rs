//! `config diff`: drift between what is wanted and what is found.

use crate::context::Context;
use crate::error::EngineError;
use maxim_model::task::Change;
use serde::Serialize;

/// One thing that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// Host.
    pub host: String,
    /// Task id, as `im/config`.
    pub task: String,
    /// What an install would change.
    pub change: Change,
}

/// Checks every task of every host, read-only.
pub fn config_diff(context: &Context) -> Result<Vec<Drift>, EngineError> {
    let _ = context;
    Err(EngineError::failed("config diff", "not there yet"))
}
