//! `check`: probe and preflight only. Agents are started read-only; nothing is changed on any host.

use crate::context::Context;
use crate::error::EngineError;
use crate::events::Timing;
use crate::phases::connect;
use crate::phases::probe::DiskProbe;
use crate::preflight;
use crate::run::Run;
use maxim_model::check::CheckResult;
use maxim_model::facts::Facts;
use std::collections::BTreeMap;

/// What preflight found.
#[derive(Debug, Clone)]
pub struct CheckOutcome {
    /// Every result, in order of host and area. A host that was not reached has one blocking result `access.…`.
    pub results: Vec<CheckResult>,
    /// Facts of the hosts that were reached.
    pub facts: BTreeMap<String, Facts>,
    /// Results that block and were not forced.
    pub blocked: usize,
    /// Results that warn.
    pub warnings: usize,
    /// Phase by phase and host by host.
    pub timings: Vec<Timing>,
}

/// Probes every host and judges what was measured. Blocking results are no error here: see
/// [`CheckOutcome::blocked`] (exit code 3). A broken bundle is one of class `Refused`.
pub fn check(context: &Context) -> Result<CheckOutcome, EngineError> {
    let run = Run::begin(context, "check", false)?;
    let mut sessions = connect::connect(&run)?;
    let mut outcome = preflight::preflight(&run, &mut sessions, DiskProbe::Databases);
    if outcome.blocked > 0 {
        preflight::leave_no_trace(&run, &mut sessions);
    }
    let refused = connect::refused(&sessions);
    connect::release(&mut sessions);
    context.cancel.check("check")?;
    if let Some(error) = refused {
        return Err(error);
    }
    outcome.timings = run.emitter.timings();
    Ok(outcome)
}
