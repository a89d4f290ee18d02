//! `apply FILE`: exactly that plan, or a refusal.

use crate::actions::install::{InstallOptions, InstallOutcome, install_with};
use crate::context::Context;
use crate::error::EngineError;
use crate::run::Run;
use maxim_model::plan::{PLAN_FORMAT, Plan};

/// Makes the plan anew and applies it when its fingerprint is the same; else refuses (exit code 5) and says what
/// differs. The context must hold the topology of the plan ([`Plan::topology`]).
pub fn apply_plan(context: &Context, plan: &Plan) -> Result<InstallOutcome, EngineError> {
    if plan.format != PLAN_FORMAT {
        return Err(EngineError::refused(
            "apply",
            format!("the plan has format {}, this program reads {PLAN_FORMAT}", plan.format),
        )
        .hint("make the plan again with this version"));
    }
    if plan.cluster != context.topology.name {
        return Err(EngineError::refused(
            "apply",
            format!("the plan is for cluster {}, not for {}", plan.cluster, context.topology.name),
        ));
    }
    let run = Run::begin(context, "apply", true)?;
    install_with(&run, InstallOptions { dry_run: false }, Some(plan))
}
