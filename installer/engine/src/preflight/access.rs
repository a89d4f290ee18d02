//! Access: whether the host could be reached, and as whom.

use super::Check;
use crate::error::EngineError;
use crate::run::Session;
use maxim_model::check::{CheckResult, Verdict};

/// A host that was not reached; the error says what stood in the way.
pub(super) fn not_reached(host: &str, error: &EngineError) -> CheckResult {
    let id = if error.step.starts_with("access.") { error.step.as_str() } else { "access.agent" };
    Check::new(id, host, "access to the host")
        .measured(&error.cause)
        .why("every host must be reached before anything is changed on any of them")
        .fix(if error.hint.is_empty() {
            "look at the host and its network, then run again"
        } else {
            error.hint.as_str()
        })
        .verdict(Verdict::Block)
}

pub(super) fn reached(session: &Session<'_>) -> CheckResult {
    let how = session.connected.as_ref().map(|connected| connected.describe()).unwrap_or_default();
    Check::new("access.agent", &session.host.name, "access to the host")
        .measured(format!("{how}, as {}", session.facts.user))
        .verdict(Verdict::Pass)
}
