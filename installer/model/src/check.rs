//! Result of one preflight check.

use serde::{Deserialize, Serialize};

/// What a failing check means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// Only reported.
    Info,
    /// Shown and counted; the install goes on.
    Warn,
    /// The install stops, unless `--force CHECK` names it.
    Block,
}

/// One check on one host (or between hosts), with everything a person needs to act on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// Stable identifier as `memory.total`, used by `--force`.
    pub id: String,
    /// Host; empty for a check of the whole cluster.
    pub host: String,
    /// Outcome.
    pub verdict: Verdict,
    /// What was looked at, short: "memory available".
    pub title: String,
    /// The measured value with its unit.
    pub measured: String,
    /// The threshold with its unit.
    pub threshold: String,
    /// Why it matters.
    pub why: String,
    /// How to fix it; a command where there is one.
    pub fix: String,
    /// Whether the plan fixes it by itself (a drop-in that the plan shows).
    pub fixed_by_plan: bool,
}
