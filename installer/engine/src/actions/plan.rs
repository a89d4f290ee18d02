//! `plan`: probe, preflight, and what every task would change, as data. Nothing is changed on any host.

use crate::actions::install::{WholeBundle, plan_install, preflight_or_refuse};
use crate::context::Context;
use crate::delivery;
use crate::error::EngineError;
use crate::events::Timing;
use crate::phases::connect;
use crate::phases::plan::Material;
use crate::phases::probe::DiskProbe;
use crate::preflight;
use crate::run::Run;
use maxim_model::check::CheckResult;
use maxim_model::plan::Plan;

/// A plan and the checks it rests on.
#[derive(Debug, Clone)]
pub struct PlanOutcome {
    /// The plan; it holds no secret and can be saved.
    pub plan: Plan,
    /// Preflight results that warn or inform.
    pub checks: Vec<CheckResult>,
    /// Phase by phase and host by host.
    pub timings: Vec<Timing>,
}

/// How a plan is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlanOptions {
    /// Keep newly made secrets and certificates in the cluster's state, so that the plan can be applied later
    /// (`plan -o FILE`). Without it the control host is left unchanged as well.
    pub keep: bool,
}

/// Makes a plan. A blocking preflight result is an error of class `Preflight`.
pub fn plan(context: &Context, options: PlanOptions) -> Result<PlanOutcome, EngineError> {
    plan_with(&Run::begin(context, "plan", false)?, options)
}

/// The same in a run that exists.
pub(crate) fn plan_with(run: &Run<'_>, options: PlanOptions) -> Result<PlanOutcome, EngineError> {
    let context = run.context;
    let mut material = Material::load(run)?;
    delivery::require(&context.delivery, &context.topology, &material.artefacts)?;
    let verified = WholeBundle::begin(&context.delivery);
    let mut sessions = connect::connect(run)?;
    let made = preflight_or_refuse(run, &mut sessions, DiskProbe::Databases)
        .and_then(|checks| Ok((checks, plan_install(run, &mut sessions, &mut material, false)?)))
        .and_then(|made| verified.end().map(|()| made));
    if made.is_err() {
        preflight::leave_no_trace(run, &mut sessions);
    }
    connect::release(&mut sessions);
    let (checks, (_, _, plan)) = made?;
    if options.keep {
        material.save(context)?;
    }
    Ok(PlanOutcome { plan, checks, timings: run.emitter.timings() })
}
