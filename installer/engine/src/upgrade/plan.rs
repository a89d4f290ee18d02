//! What an upgrade will do, for the person who approves it.

use super::{Upgrade, order, stage};
use im_admin_api::Schema;
use maxim_model::plan::Plan;
use maxim_model::task::{Change, Task};
use serde::Serialize;

/// The plan of an upgrade.
#[derive(Debug, Clone, Serialize)]
pub struct UpgradePlan {
    /// Version that is installed.
    pub from: String,
    /// Version of the bundle.
    pub to: String,
    /// A run before was killed, and this one completes it.
    pub resumes: bool,
    /// Hosts in the order of their turns.
    pub hosts: Vec<String>,
    /// Bytes that are sent to hosts before anything is switched.
    pub staged_bytes: u64,
    /// Whether a snapshot is taken first.
    pub snapshot: bool,
    /// Number of the newest migration of the schema now; none: not known.
    pub schema_now: Option<u32>,
    /// Up to where the new version expands it. The version before works on that.
    pub schema_expanded: u32,
    /// Where it is once the upgrade is finalized; equal to `schema_expanded`: nothing is taken away.
    pub schema_finalized: u32,
    /// Whether the point of no return is passed in this run.
    pub finalizes: bool,
    /// Task by task.
    pub plan: Plan,
}

impl UpgradePlan {
    pub(super) fn new(
        upgrade: &Upgrade<'_>,
        schema: Option<&Schema>,
        tasks: &[Vec<Task>],
        changes: &[Vec<Change>],
        plan: Plan,
    ) -> Self {
        let topology = &upgrade.run.context.topology;
        let range = upgrade.manifest.compatibility.as_ref().map(|matrix| matrix.schema);
        Self {
            from: upgrade.from.version.clone(),
            to: upgrade.to.version.clone(),
            resumes: upgrade.resumed().is_some_and(|record| record.phase.is_under_way()),
            hosts: order(topology).into_iter().map(|place| topology.hosts[place].name.clone()).collect(),
            staged_bytes: stage::bytes(tasks, changes),
            snapshot: !upgrade.options.no_snapshot,
            schema_now: schema.and_then(|schema| schema.applied.last().copied()),
            schema_expanded: range.map_or(0, |range| range.expanded),
            schema_finalized: range.map_or(0, |range| range.finalized),
            finalizes: upgrade.options.finalize,
            plan,
        }
    }
}
