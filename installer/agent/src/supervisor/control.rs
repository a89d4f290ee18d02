//! The supervisor's control socket: one JSON request line, one JSON answer line.

use super::service::ServiceStatus;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Command {
    /// State of all services.
    Status,
    /// Start one and wait until it is ready.
    Start {
        /// Service.
        name: String,
    },
    /// Stop one and wait for its end.
    Stop {
        /// Service.
        name: String,
    },
    /// Stop, then start from the definition as it is now.
    Restart {
        /// Service.
        name: String,
    },
    /// SIGHUP.
    Reload {
        /// Service.
        name: String,
    },
    /// Stop all services in reverse order, then end.
    Shutdown,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Empty: it was done.
    pub error: String,
    /// Last lines of the log of a service that failed.
    #[serde(default)]
    pub log: String,
    /// Process id of the supervisor.
    pub pid: u32,
    /// All services by name.
    pub services: Vec<ServiceStatus>,
}

/// Where the socket is.
pub fn socket(root: &Path) -> PathBuf {
    root.join("run/supervisor.sock")
}

/// File with process id and start time of the supervisor.
pub fn pid_file(root: &Path) -> PathBuf {
    root.join("run/supervisor.pid")
}
