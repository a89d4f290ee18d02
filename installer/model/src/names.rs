//! Names that must agree everywhere: components, roles, profiles, health.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a host is for (`roles:` in the topology).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The IM core.
    Im,
    /// The web console.
    Console,
    /// The database, engine MariaDB.
    Mariadb,
    /// The database, engine PostgreSQL.
    Postgresql,
    /// Redis, for live state.
    Redis,
}

/// A piece of software that runs on a host. In this slice components and roles are one to one.
pub type Component = Role;

impl Role {
    /// All roles, in the order in which their services are started.
    pub const ALL: [Self; 5] = [Self::Mariadb, Self::Postgresql, Self::Redis, Self::Im, Self::Console];

    /// The name in topology, playbooks and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Im => "im",
            Self::Console => "console",
            Self::Mariadb => "mariadb",
            Self::Postgresql => "postgresql",
            Self::Redis => "redis",
        }
    }

    /// The systemd unit (standard profile) or supervised service (embedded profile), without suffix.
    pub fn service(self) -> String {
        format!("maxim-{}", self.name())
    }

    /// When its service starts: stores first, the IM core on them, the console last.
    pub const fn stage(self) -> Stage {
        match self {
            Self::Mariadb | Self::Postgresql | Self::Redis => Stage::Store,
            Self::Im => Stage::Core,
            Self::Console => Stage::Console,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// Steps of an apply across hosts. A host enters a stage only when every host has finished the stages before it
/// that start something; `Prepare` is entered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Users, folders, images, files, units: nothing is started.
    Prepare,
    /// Database and Redis run and have their accounts.
    Store,
    /// The IM core runs.
    Core,
    /// The console runs.
    Console,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Self; 4] = [Self::Prepare, Self::Store, Self::Core, Self::Console];
}

/// How the services of a deployment are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One machine, no root, no systemd: `SQLite`, memory, our own supervisor.
    Embedded,
    /// systemd hosts, over SSH or locally, from a bundle.
    Standard,
}

impl Profile {
    /// The name in flags and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Standard => "standard",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}
