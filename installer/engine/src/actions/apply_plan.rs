//! `apply FILE`: exactly that plan, or a refusal.

use crate::actions::install::InstallOutcome;
use crate::context::Context;
use crate::error::EngineError;
use maxim_model::plan::Plan;

/// Makes the plan anew and applies it when its fingerprint is the same; else refuses (exit code 5) and says what
/// differs. The context must hold the topology of the plan ([`Plan::topology`]).
pub fn apply_plan(context: &Context, plan: &Plan) -> Result<InstallOutcome, EngineError> {
    let _ = (context, plan);
    Err(EngineError::failed("apply", "not there yet"))
}
