//! `status`: every host and component as measured now.

use crate::context::Context;
use crate::error::EngineError;
use crate::events::now_rfc3339;
use crate::phases::probe::DiskProbe;
use crate::phases::{connect, measure, probe};
use crate::run::{Run, Session};
use crate::state::Installed;
use maxim_model::status::{ClusterStatus, ComponentStatus};

/// Measures the cluster. Hosts that cannot be reached are part of the answer, not an error. When nothing was
/// installed: an error of class `Failed` that says how to begin.
pub fn status(context: &Context) -> Result<ClusterStatus, EngineError> {
    let installed = require_installed(context, "status")?;
    let run = Run::begin(context, "status", false)?;
    let mut sessions = connect::connect(&run)?;
    probe::probe(&run, &mut sessions, DiskProbe::No);
    let components =
        run.emitter.phase("status", || measure::components(&run, &mut sessions, &installed, false));
    context.cancel.check("status")?;
    let measured = of(&run, &mut sessions, components);
    connect::release(&mut sessions);
    measured
}

/// The answer, from hosts that are connected and probed.
pub(crate) fn of(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    components: Vec<ComponentStatus>,
) -> Result<ClusterStatus, EngineError> {
    let context = run.context;
    let backup = crate::backup::last(&context.topology, sessions);
    let hosts = sessions.iter().map(|session| measure::host_status(session, &context.topology)).collect();
    Ok(ClusterStatus {
        cluster: context.topology.name.clone(),
        domain: context.topology.domain.clone(),
        profile: context.topology.profile.name().into(),
        hosts,
        components,
        endpoints: measure::endpoints(&context.topology),
        upgrade: crate::upgrade::status(&context.state)?,
        backup,
        measured_at: now_rfc3339(),
    })
}

/// What was installed, or how to begin.
pub(crate) fn require_installed(context: &Context, step: &str) -> Result<Installed, EngineError> {
    context.state.installed()?.ok_or_else(|| {
        EngineError::failed(step, format!("nothing is installed here ({})", context.state.path().display()))
            .hint(
                "`maxim.ctl install` installs on this machine, `maxim.ctl install -f cluster.yaml` on others",
            )
    })
}
