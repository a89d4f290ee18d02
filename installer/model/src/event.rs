//! Typed events: everything a run says, once, as data. The command line renders them as progress bars, plain lines
//! or JSON lines; the console as live pages; the journal keeps them.

use crate::check::CheckResult;
use crate::task::Change;
use serde::{Deserialize, Serialize};

/// One event with its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// RFC 3339 with milliseconds, UTC.
    pub time: String,
    /// Milliseconds since the run began.
    pub elapsed_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen. `host` is empty for what concerns the whole cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A run began.
    RunStarted {
        /// Identifier of the run.
        run: String,
        /// `install`, `check`, …
        action: String,
        /// Cluster name.
        cluster: String,
        /// Profile and why it was chosen.
        profile: String,
    },
    /// A phase began (`connect`, `probe`, `plan`, `apply`, `verify`).
    PhaseStarted {
        /// Phase name.
        step: String,
    },
    /// A phase ended.
    PhaseFinished {
        /// Phase name.
        step: String,
        /// How long it took.
        duration_ms: u64,
    },
    /// A host was reached and its agent runs.
    Connected {
        /// Host.
        host: String,
        /// How: `local`, `ssh root@…`.
        detail: String,
        /// Whether the agent had to be copied, and its bytes.
        agent_bytes_sent: u64,
    },
    /// A preflight check was made.
    Checked {
        /// Host.
        host: String,
        /// Result.
        result: CheckResult,
    },
    /// What a task would change.
    Planned {
        /// Host.
        host: String,
        /// Task id.
        step: String,
        /// Change.
        change: Change,
    },
    /// A task began.
    TaskStarted {
        /// Host.
        host: String,
        /// Task id.
        step: String,
        /// Title for people.
        title: String,
    },
    /// Bytes of a transfer.
    Progress {
        /// Host.
        host: String,
        /// Task id.
        step: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A task ended well.
    TaskFinished {
        /// Host.
        host: String,
        /// Task id.
        step: String,
        /// Whether something was changed.
        changed: bool,
        /// In words.
        detail: String,
        /// How long it took.
        duration_ms: u64,
    },
    /// A task failed.
    TaskFailed {
        /// Host.
        host: String,
        /// Task id.
        step: String,
        /// Cause.
        cause: String,
        /// What to do next.
        hint: String,
        /// How long it took.
        duration_ms: u64,
    },
    /// A host's lock was taken or refused, a lease taken over, a service drained … in words.
    Note {
        /// Host.
        host: String,
        /// Step.
        step: String,
        /// The sentence.
        message: String,
    },
    /// Something that does not stop the run but should be seen.
    Warning {
        /// Host.
        host: String,
        /// Step.
        step: String,
        /// The sentence.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A canary message went through the deployed path.
    Canary {
        /// IM host that the sender used.
        from_host: String,
        /// IM host that the receiver used.
        to_host: String,
        /// Sign-in and delivery, milliseconds.
        round_trip_ms: u64,
    },
}

impl EventKind {
    /// The host concerned, if one is.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Connected { host, .. }
            | Self::Checked { host, .. }
            | Self::Planned { host, .. }
            | Self::TaskStarted { host, .. }
            | Self::Progress { host, .. }
            | Self::TaskFinished { host, .. }
            | Self::TaskFailed { host, .. }
            | Self::Note { host, .. }
            | Self::Warning { host, .. } => Some(host),
            _ => None,
        }
    }
}
