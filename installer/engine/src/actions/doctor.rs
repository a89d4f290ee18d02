//! `doctor`: preflight, status and logs read together; what is wrong, what shows it, what to do.

use crate::context::Context;
use crate::error::EngineError;
use maxim_model::check::Verdict;
use serde::Serialize;

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Host; empty: the cluster.
    pub host: String,
    /// Component or area.
    pub component: String,
    /// How bad.
    pub verdict: Verdict,
    /// What is wrong, one line.
    pub title: String,
    /// What shows it: log lines, measured values.
    pub evidence: Vec<String>,
    /// What to do.
    pub fix: String,
}

/// Looks for what is wrong. An empty list: nothing was found.
pub fn doctor(context: &Context) -> Result<Vec<Finding>, EngineError> {
    let _ = context;
    Err(EngineError::failed("doctor", "not there yet"))
}
