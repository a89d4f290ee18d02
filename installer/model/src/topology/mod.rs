//! The topology: what a cluster shall be, as resolved — defaults filled in, every value checked.
//!
//! [`load`] makes it from the text of a `cluster.yaml` and `--set` flags: `tree` keeps the place of every key and
//! value, `resolve` reads them with `read`, `values`, `hosts`, `settings` and `backup`, `rules` checks what holds
//! between them, `edit` writes overrides back into the text. [`generate`] writes the text for this machine or for a
//! list of addresses. All mistakes are collected as [`TopologyErrors`], rendered with line and caret.
//!
//! Nothing here reads a file or the environment: both are passed in.

mod backup;
mod edit;
mod error;
pub mod generate;
mod hosts;
mod load;
mod read;
mod resolve;
mod rules;
pub mod settings;
mod suggest;
#[cfg(test)]
mod tests;
mod tree;
mod values;

pub use edit::set_value;
pub use error::{Place, TopologyError, TopologyErrors, is_secret_key};
pub use load::{Loaded, Source, load, load_stored};
pub use suggest::nearest;

use crate::names::{Profile, Role};
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A whole cluster as wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// Cluster name: `[a-z0-9][a-z0-9-]{0,31}`.
    pub name: String,
    /// What accounts end in, and the web host.
    pub domain: String,
    /// Profile.
    pub profile: Profile,
    /// What it must carry.
    pub capacity: Capacity,
    /// Hosts, at least one.
    pub hosts: Vec<Host>,
    /// Where certificates come from.
    pub tls: Tls,
    /// The database.
    pub database: Database,
    /// Redis.
    pub redis: Redis,
    /// Ports.
    pub ports: Ports,
    /// Paths on hosts.
    pub paths: Paths,
    /// Address that services for clients bind on (`0.0.0.0`, embedded: `127.0.0.1`).
    pub listen: String,
    /// Overrides by dotted name, checked against the schema.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// Backup.
    pub backup: Backup,
}

/// Users and rate that sizing and preflight are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Concurrent users, 1 to 1,000,000.
    pub users: u32,
    /// Messages per second, 1 to 1,000,000.
    pub messages_per_second: u32,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// RFC 1123 label(s), unique.
    pub name: String,
    /// IP address or resolvable name, unique.
    pub address: String,
    /// Roles, no duplicates.
    pub roles: Vec<Role>,
    /// How it is reached.
    pub connection: Connection,
}

/// How a host is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Connection {
    /// This machine: the agent is a child process.
    Local,
    /// By SSH.
    Ssh(Ssh),
}

/// SSH settings of one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ssh {
    /// User.
    pub user: String,
    /// Port.
    pub port: u16,
    /// Private key file (expanded); empty: agent and default keys.
    pub key: String,
    /// Use sudo when the user is not root.
    pub sudo: bool,
    /// File with the sudo password; empty: asked when needed.
    pub sudo_password_file: String,
    /// File with the SSH password; empty: none.
    pub password_file: String,
    /// Host key policy.
    pub known_hosts: KnownHosts,
    /// Jump host as `user@host:port`; empty: direct.
    pub jump: String,
    /// Private key file for the jump host; empty: as for the host itself.
    #[serde(default)]
    pub jump_key: String,
    /// File with the password for the jump host; empty: none. The password of the host is never offered to it.
    #[serde(default)]
    pub jump_password_file: String,
}

/// Host key policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KnownHosts {
    /// The key must be known (`~/.ssh/known_hosts` or pinned by an earlier run).
    Strict,
    /// A first key is pinned; a changed one is refused.
    AcceptNew,
}

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "kebab-case")]
pub enum Tls {
    /// The cluster's own authority.
    PrivateCa,
    /// Files on the control host.
    Files {
        /// PEM chain.
        cert: String,
        /// PEM key.
        key: String,
    },
}

/// The database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "engine", rename_all = "lowercase")]
pub enum Database {
    /// `SQLite` (embedded only).
    Sqlite,
    /// `MariaDB` that we run.
    Mariadb,
    /// `PostgreSQL` that we run.
    Postgresql,
    /// A server that somebody else runs.
    External {
        /// `mysql://user@host:port/database` or `postgresql://…`, without password.
        url: String,
        /// File with the password.
        password_file: String,
        /// PEM file of the authority that signed the server's certificate: TLS is demanded and checked. Empty: no TLS.
        #[serde(default)]
        ca_file: String,
    },
}

/// Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Redis {
    /// No Redis: live state in memory (embedded only).
    Memory,
    /// Redis that we run.
    Own,
    /// A server that somebody else runs.
    External {
        /// `redis://host:port` or `rediss://…`, without password.
        url: String,
        /// File with the password.
        password_file: String,
        /// As for the database.
        #[serde(default)]
        ca_file: String,
    },
}

/// Ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// STARTTLS, 5222.
    pub xmpp: u16,
    /// Direct TLS, 5223.
    pub xmpp_tls: u16,
    /// HTTPS, 443 (embedded 8443).
    pub https: u16,
    /// Console, 9443.
    pub console: u16,
    /// Metrics and health on loopback, 9280.
    pub metrics: u16,
    /// `MariaDB`, 3306.
    pub mariadb: u16,
    /// `PostgreSQL`, 5432.
    pub postgresql: u16,
    /// Redis, 6379.
    pub redis: u16,
}

/// Paths on hosts. In the embedded profile all lie under the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paths {
    /// Images and binaries by version, `/opt/maxim`.
    pub software: String,
    /// Rendered configuration, `/etc/maxim`.
    pub configuration: String,
    /// Data, `/var/lib/maxim`.
    pub data: String,
    /// What is not in the journal, `/var/log/maxim`.
    pub logs: String,
    /// Sockets, `/run/maxim`.
    pub run: String,
}

/// Backup settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Cron expression; empty: no schedule.
    pub schedule: String,
    /// Time zone of all schedules; empty: UTC.
    pub time_zone: String,
    /// When a share of the repository is read again; empty: never by itself.
    pub verify: String,
    /// When the newest set is restored into scratch and started; empty: never by itself.
    pub drill: String,
    /// Repository as given.
    pub repository: serde_json::Value,
    /// Daily, weekly, monthly sets kept.
    pub retention: (u32, u32, u32),
}

/// Credentials that a person gave for reaching hosts; never stored.
#[derive(Debug, Clone, Default)]
pub struct AccessSecrets {
    /// Sudo password by host name; the empty name holds for all.
    pub sudo: BTreeMap<String, Secret>,
    /// SSH password by host name.
    pub ssh: BTreeMap<String, Secret>,
}

impl Topology {
    /// Hosts with a role, in order.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(move |host| host.roles.contains(&role))
    }

    /// A host by name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }
}
