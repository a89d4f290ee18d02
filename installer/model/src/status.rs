//! What runs where: the answer of `status` and of the console's first page.

use serde::{Deserialize, Serialize};

/// Health of a component as re-measured, never as assumed. Unknown is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Runs and answers.
    Well,
    /// Runs, but something wants attention.
    Attention,
    /// Does not run or does not answer.
    Broken,
    /// Could not be measured.
    Unknown,
    /// Is starting or stopping.
    Working,
}

/// One component on one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComponentStatus {
    /// Host name.
    pub host: String,
    /// `im`, `mariadb`, …
    pub component: String,
    /// Version that should run.
    pub wanted: String,
    /// Version that runs; empty when none.
    pub running: String,
    /// Health.
    pub health: Health,
    /// In words: "active for 3 h", "failed: exit code 1", "host not reached: …".
    pub detail: String,
    /// Resident memory, bytes; 0 when not running.
    pub memory: u64,
    /// Seconds since it was started; 0 when not running.
    pub since_seconds: u64,
    /// Times it restarted on its own.
    pub restarts: u32,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Host name.
    pub host: String,
    /// Address.
    pub address: String,
    /// Whether the agent answered.
    pub reached: bool,
    /// Why not, when not.
    pub error: String,
    /// Facts in short for display.
    pub distribution: String,
    /// Logical processors.
    pub cpus: u32,
    /// Memory installed, bytes.
    pub memory_total: u64,
    /// Memory available, bytes.
    pub memory_available: u64,
    /// Free bytes under the data path.
    pub disk_available: u64,
    /// Total bytes under the data path.
    pub disk_total: u64,
}

/// Where people and clients reach the deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// `host:port`, STARTTLS.
    pub xmpp: Vec<String>,
    /// `host:port`, direct TLS.
    pub xmpp_tls: Vec<String>,
    /// URLs of the web chat.
    pub web: Vec<String>,
    /// URLs of the console.
    pub console: Vec<String>,
}

/// The whole cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Cluster name.
    pub cluster: String,
    /// Domain of the accounts.
    pub domain: String,
    /// `embedded` or `standard`.
    pub profile: String,
    /// Hosts.
    pub hosts: Vec<HostStatus>,
    /// Components.
    pub components: Vec<ComponentStatus>,
    /// Endpoints.
    pub endpoints: Endpoints,
    /// The last upgrade, while it is under way or can be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<crate::upgrade::UpgradeStatus>,
    /// What was done about backups last.
    #[serde(default)]
    pub backup: crate::backup::BackupRecord,
    /// When it was measured, RFC 3339.
    pub measured_at: String,
}
