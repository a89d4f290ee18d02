//! A plan: what `check` said on every host, as data that can be shown, saved, reviewed and applied later.
//!
//! A plan holds no secret: tasks are named by identifier and a keyed digest, contents are not in it. Applying renders
//! the tasks anew, checks again, and refuses (exit 5) when the fingerprint differs.

use crate::names::{Profile, Stage};
use crate::task::Change;
use serde::{Deserialize, Serialize};

/// Version of the file format.
pub const PLAN_FORMAT: u32 = 1;

/// The plan of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_FORMAT`].
    pub format: u32,
    /// Cluster name.
    pub cluster: String,
    /// Profile.
    pub profile: Profile,
    /// Version of Maxim that made it.
    pub version: String,
    /// RFC 3339.
    pub created_at: String,
    /// Digest of the bundle's manifest; empty from a checkout.
    pub manifest_sha256: String,
    /// The topology it was made from, as text.
    pub topology: String,
    /// Hosts in topology order.
    pub hosts: Vec<HostPlan>,
    /// SHA-256 over everything above that depends on what was measured: task digests and changes of every host,
    /// machine ids, versions found.
    pub fingerprint: String,
}

/// The plan for one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostPlan {
    /// Host name.
    pub host: String,
    /// Machine id, empty for a local embedded deployment.
    pub machine_id: String,
    /// Tasks in order.
    pub tasks: Vec<PlannedTask>,
}

/// One task of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedTask {
    /// Task identifier.
    pub id: String,
    /// Component.
    pub component: String,
    /// Stage.
    pub stage: Stage,
    /// Kind name.
    pub kind: String,
    /// Keyed digest of the whole task (HMAC with the cluster's key, so that no secret can be guessed from it).
    pub digest: String,
    /// What would change.
    pub change: Change,
}

impl Plan {
    /// How many changes it holds.
    pub fn changes(&self) -> usize {
        self.hosts.iter().flat_map(|host| &host.tasks).filter(|task| task.change.is_change()).count()
    }
}
