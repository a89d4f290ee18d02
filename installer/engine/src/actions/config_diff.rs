//! `config diff`: drift between what is wanted and what is found.

use crate::actions::install::plan_install;
use crate::actions::status::require_installed;
use crate::context::Context;
use crate::delivery;
use crate::error::EngineError;
use crate::phases::plan::Material;
use crate::phases::probe::DiskProbe;
use crate::phases::{connect, probe};
use crate::run::Run;
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

/// Checks every task of every host, read-only. The context needs the delivery that was installed from: what is
/// wanted is rendered from its playbooks.
pub fn config_diff(context: &Context) -> Result<Vec<Drift>, EngineError> {
    require_installed(context, "config diff")?;
    let run = Run::begin(context, "config diff", false)?;
    let mut material = Material::load(&run)?;
    delivery::require(&context.delivery, &context.topology, &material.artefacts)?;
    let mut sessions = connect::connect(&run)?;
    probe::probe(&run, &mut sessions, DiskProbe::No);
    let planned = match connect::errors(&mut sessions) {
        Some(error) => Err(error),
        None => plan_install(&run, &mut sessions, &mut material, false),
    };
    connect::release(&mut sessions);
    let (_, _, plan) = planned?;
    Ok(plan
        .hosts
        .into_iter()
        .flat_map(|host| {
            host.tasks.into_iter().filter(|task| task.change.is_change()).map(move |task| Drift {
                host: host.host.clone(),
                task: task.id,
                change: task.change,
            })
        })
        .collect())
}
