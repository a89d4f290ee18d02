//! What engine and agent say to each other: one JSON object per line on the agent's standard input and output.
//!
//! The engine sends a [`Request`]; the agent answers with any number of [`Reply`] lines and ends with one that is
//! `Done` or `Error` for that request. The agent works on one request at a time. When an `Apply` meets a task whose
//! content is missing on the host, the agent says [`Reply::NeedContent`] and the engine answers with one
//! line `{"size":N}` ([`ContentHeader`]) followed by exactly N raw bytes (or `{"refused":"why"}`).
//! The agent ends when its input ends, after the task in hand.

use crate::backup::wire::{BackupReply, BackupRequest};
use crate::facts::{Facts, FactsQuery, UnitFact};
use crate::secret::Secret;
use crate::task::{Change, ServiceManager, Task};
use serde::{Deserialize, Serialize};

/// Version of the protocol; both ends are the same binary, so any difference is refused.
pub const WIRE_VERSION: u32 = 2;

/// What an agent may do, fixed when it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// What a console may see: facts, services and health. No checks of given tasks, no files, no logs, no probes of
    /// neighbours: with those, whoever holds the console's key could read any file of the host.
    Observe,
    /// What backups by a schedule need of a host: reading databases and files below the data folder, trying a restore in
    /// scratch, the host's lock. Nothing that serves can be changed.
    Backup,
    /// Facts, probes, checks, status and logs only.
    ReadOnly,
    /// Everything.
    Full,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Who are you? Answered by [`Reply::Hello`] then `Done`.
    Hello,
    /// Where this deployment lives, where that is not the default of the standard profile. Sent once, after `Hello`.
    Scope {
        /// Folders that are ours: only below them files are read, trees removed, artefacts and clusters found.
        own_paths: Vec<String>,
        /// The lock file (embedded: `ROOT/lock.json`).
        lock: String,
    },
    /// Measure the host. [`Reply::Facts`].
    Facts(FactsQuery),
    /// Open a listener on a free or given port for a neighbour's connection probe; answered with [`Reply::Listening`].
    /// It is closed by the next request or after 30 s.
    Listen {
        /// Address to bind.
        address: String,
        /// Ports to bind.
        ports: Vec<u16>,
    },
    /// Connect to neighbours. [`Reply::Connections`].
    Connect {
        /// `address:port` of each.
        targets: Vec<String>,
        /// Those of them where a listener of this probe is known to be: how many bytes a second come from there is
        /// measured too (at most 16 MiB and 0.3 s each).
        #[serde(default)]
        measured: Vec<String>,
        /// Milliseconds for each.
        timeout_ms: u64,
    },
    /// What would each task change? One [`Reply::Checked`] per task.
    Check {
        /// Tasks in order.
        tasks: Vec<Task>,
    },
    /// Make it so. [`Reply::TaskStarted`], then [`Reply::TaskDone`] per task; stops at the first failure.
    Apply {
        /// Tasks in order.
        tasks: Vec<Task>,
    },
    /// Use servers that somebody else runs as the IM core would: sign in, version, and in a database a table of our own
    /// that is made and removed at once. [`Reply::Externals`].
    Externals {
        /// The servers.
        servers: Vec<ExternalServer>,
        /// Milliseconds for each.
        timeout_ms: u64,
    },
    /// Take the lock of this host for a cluster. The agent renews it every 10 s while it lives. [`Reply::Lock`].
    Lock {
        /// Cluster.
        cluster: String,
        /// Who asks: `user@machine, pid, action`.
        owner: String,
        /// Lease, seconds (30).
        lease_seconds: u64,
    },
    /// Release the lock that this agent holds.
    Unlock,
    /// Who holds the lock? [`Reply::Lock`].
    LockOwner,
    /// Remove a lock whose lease expired, or that of a named owner. [`Reply::Lock`] with what was there.
    BreakLock {
        /// Owner as shown; empty: only when the lease expired.
        owner: String,
    },
    /// State of services. [`Reply::Units`].
    Units {
        /// Names without suffix.
        names: Vec<String>,
        /// Who keeps them.
        manager: ServiceManager,
    },
    /// Start, stop or restart services in the given order, each with a deadline. [`Reply::Units`].
    Service {
        /// `start`, `stop` or `restart`.
        action: ServiceAction,
        /// Names without suffix.
        names: Vec<String>,
        /// Who keeps them.
        manager: ServiceManager,
        /// Seconds for each.
        deadline_seconds: u64,
    },
    /// One HTTP/1.1 request over a unix socket (IM core administration). [`Reply::Http`].
    Http {
        /// Socket path, or `tcp:127.0.0.1:9280` for health.
        socket: String,
        /// Method.
        method: String,
        /// Path and query.
        path: String,
        /// JSON body; may hold a password.
        body: Secret,
    },
    /// Exchange a message between two accounts through two IM nodes. [`Reply::Canary`].
    Canary(CanaryRequest),
    /// Streams and repositories of backups. [`Reply::Backup`].
    Backup(BackupRequest),
    /// Last lines of a service's log. [`Reply::Log`] lines.
    Logs {
        /// Service without suffix.
        name: String,
        /// Who keeps it.
        manager: ServiceManager,
        /// Lines at most.
        lines: u32,
    },
    /// Read a file of ours (under our own paths only, at most 1 MiB). [`Reply::File`].
    ReadFile {
        /// Absolute path.
        path: String,
    },
    /// Go on as an agent that may change things. Granted only to a read-only agent that was started for it: after
    /// `Done` it becomes a fresh one, run from the very program that runs already, and is greeted anew.
    Promote,
    /// Remove the agent's own copy and folders of ours that are empty (a refused fresh host). Nothing else.
    RemoveSelf,
}

/// What an external server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExternalKind {
    /// `MariaDB` or `MySQL`.
    Mariadb,
    /// `PostgreSQL`.
    Postgresql,
    /// Redis.
    Redis,
}

/// A server that somebody else runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExternalServer {
    /// What it is.
    pub kind: ExternalKind,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Account; may be empty for Redis.
    pub user: String,
    /// Its password; may be empty.
    pub password: Secret,
    /// Database; empty for Redis.
    pub database: String,
    /// PEM of the authority that must have signed its certificate; empty: no TLS.
    pub authority: String,
}

/// What came of using one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalResult {
    /// As it says itself; empty when it did not come to that.
    pub version: String,
    /// How far it went: `connect`, `version`, `rights`; empty: all went well.
    pub failed: String,
    /// Why it went no further.
    pub cause: String,
    /// Milliseconds for all of it.
    pub millis: u64,
}

/// What to do with services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceAction {
    /// Start.
    Start,
    /// Stop.
    Stop,
    /// Restart.
    Restart,
}

/// See [`Request::Canary`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanaryRequest {
    /// Domain of both accounts.
    pub domain: String,
    /// `address:port` (STARTTLS) the sender connects to.
    pub from: String,
    /// `address:port` (STARTTLS) the receiver connects to.
    pub to: String,
    /// Local part of the sender.
    pub sender: String,
    /// Its password.
    pub sender_password: Secret,
    /// Local part of the receiver.
    pub receiver: String,
    /// Its password.
    pub receiver_password: Secret,
    /// PEM of the authority that must have signed the server's certificate; empty: the platform's is not consulted
    /// and the certificate given in `pinned_certificate` must match exactly.
    pub ca_certificate: String,
    /// PEM, see above.
    pub pinned_certificate: String,
    /// Seconds for all of it.
    pub deadline_seconds: u64,
}

/// An answer line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// See [`Request::Hello`].
    Hello {
        /// [`WIRE_VERSION`].
        wire: u32,
        /// Version of the binary.
        version: String,
        /// Of which sources it is made: two builds of one version may differ.
        #[serde(default)]
        sources: String,
        /// What it may do.
        access: Access,
        /// Process id.
        pid: u32,
    },
    /// See [`Request::Facts`].
    Facts {
        /// The facts.
        facts: Box<Facts>,
    },
    /// See [`Request::Listen`].
    Listening {
        /// Ports that could be bound.
        ports: Vec<u16>,
        /// Those that could not, with the reason.
        refused: Vec<(u16, String)>,
    },
    /// See [`Request::Connect`].
    Connections {
        /// In order of the targets.
        results: Vec<ConnectResult>,
    },
    /// See [`Request::Check`].
    Checked {
        /// Task id.
        id: String,
        /// What would change.
        change: Change,
    },
    /// A task began.
    TaskStarted {
        /// Task id.
        id: String,
    },
    /// The agent wants the content with this digest.
    NeedContent {
        /// Task id.
        id: String,
        /// SHA-256, hex.
        sha256: String,
        /// Bytes.
        size: u64,
    },
    /// A task ended well.
    TaskDone {
        /// Task id.
        id: String,
        /// Whether something was changed.
        changed: bool,
        /// In words.
        detail: String,
        /// How long it took.
        duration_ms: u64,
    },
    /// See [`Request::Externals`].
    Externals {
        /// In order of the servers.
        results: Vec<ExternalResult>,
    },
    /// See [`Request::Lock`].
    Lock {
        /// Held by this agent now.
        granted: bool,
        /// The holder, when there is one.
        holder: Option<LockHolder>,
    },
    /// See [`Request::Units`].
    Units {
        /// In order of the names.
        units: Vec<UnitFact>,
    },
    /// See [`Request::Http`].
    Http {
        /// Status code.
        status: u16,
        /// Body.
        body: Secret,
    },
    /// See [`Request::Canary`].
    Canary {
        /// From the first connection to the received message.
        round_trip_ms: u64,
    },
    /// See [`Request::Backup`].
    Backup(BackupReply),
    /// A line of a log.
    Log {
        /// The line.
        line: String,
    },
    /// See [`Request::ReadFile`]; absent files have no content.
    File {
        /// Content.
        content: Option<Secret>,
    },
    /// The request is finished.
    Done,
    /// The request failed; nothing more comes for it.
    Error(AgentError),
}

/// An error of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentError {
    /// Task id or operation.
    pub step: String,
    /// What happened and why, the whole chain.
    pub cause: String,
    /// What to do next; may be empty.
    pub hint: String,
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// Cluster.
    pub cluster: String,
    /// Owner as given.
    pub owner: String,
    /// Unix seconds when it was taken.
    pub since: i64,
    /// Unix seconds when the lease ends unless it is renewed.
    pub expires: i64,
}

/// Outcome of a connection probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectResult {
    /// Target as given.
    pub target: String,
    /// Outcome.
    pub state: ConnectState,
    /// Microseconds to connect.
    pub micros: u64,
    /// Bytes a second that came from there; none: not measured.
    #[serde(default)]
    pub bytes_per_second: Option<u64>,
}

/// How a connection attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectState {
    /// Accepted.
    Reached,
    /// Refused at once: nobody listens.
    Refused,
    /// No answer: filtered, or the host is away.
    Filtered,
    /// No route or another error.
    Unreachable,
}

/// Precedes content bytes. Exactly one of the two is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentHeader {
    /// Bytes that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Why none follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}
