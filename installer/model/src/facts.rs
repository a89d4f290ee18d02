//! What was measured on a host. Produced by the agent, read by checks, sizing and templates.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the agent is asked to look at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FactsQuery {
    /// Folders whose file system is measured (they need not exist: the nearest existing parent counts).
    pub paths: Vec<String>,
    /// Ports that the host's roles will bind, with the address to bind.
    pub ports: Vec<PortQuery>,
    /// Names to resolve.
    pub names: Vec<String>,
    /// Units of ours whose state is wanted.
    pub units: Vec<String>,
    /// System users that the host's roles need.
    #[serde(default)]
    pub users: Vec<UserQuery>,
    /// Folder for the disk probe (synced small writes, at most one second); none: not probed.
    pub disk_probe: Option<String>,
}

/// A system user that will be made, or was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserQuery {
    /// Its name.
    pub name: String,
    /// File of ours that remembers what we made.
    pub made: String,
}

/// A user that exists under a name of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserFact {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its shell.
    pub shell: String,
    /// We made it.
    pub ours: bool,
}

/// A port that will be bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortQuery {
    /// 1 to 65535.
    pub port: u16,
    /// Who will bind it.
    pub component: String,
    /// The address it will be bound on.
    pub address: String,
}

/// Facts of one host. Memory and disk in bytes, times in the named unit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Name as `uname -n` says.
    pub hostname: String,
    /// `/etc/machine-id`; empty where there is none.
    pub machine_id: String,
    /// `x86_64`, `aarch64`, …
    pub architecture: String,
    /// `linux` …
    pub system: String,
    /// Kernel release, as `6.1.0-18-amd64`.
    pub kernel: String,
    /// `PRETTY_NAME` of os-release.
    pub distribution: String,
    /// glibc version as `2.36`; empty where there is none.
    pub glibc: String,
    /// systemd version; 0 where it does not run as PID 1.
    pub systemd: u32,
    /// Effective user id of the agent.
    pub uid: u32,
    /// Effective user's name.
    pub user: String,
    /// Logical processors usable.
    pub cpus: u32,
    /// CPU model name.
    pub cpu_model: String,
    /// Installed memory (or the control group's limit where lower).
    pub memory_total: u64,
    /// Memory available now.
    pub memory_available: u64,
    /// Addresses of all interfaces, without prefix length.
    pub addresses: Vec<String>,
    /// Smallest MTU of interfaces that are up, loopback apart; 0 when unknown.
    pub mtu: u32,
    /// Nanoseconds since the epoch at which `now` was read.
    #[serde(with = "nanos")]
    pub clock_unix_nanos: i128,
    /// Name of an active time service; empty when none was found.
    pub time_service: String,
    /// Open files allowed to one process (`fs.nr_open`).
    pub nr_open: u64,
    /// sysctl values by dotted name, those that checks and playbooks care for.
    pub sysctls: BTreeMap<String, String>,
    /// Whether `/proc/sys` can be written (containers: no).
    pub sysctl_writable: bool,
    /// `always`, `madvise`, `never` or empty.
    pub transparent_huge_pages: String,
    /// SELinux mode: `enforcing`, `permissive`, `disabled`, or empty.
    pub selinux: String,
    /// A firewall front end that is active (`firewalld`, `ufw`, `nftables`), or empty.
    pub firewall: String,
    /// File systems of the asked paths.
    pub disks: Vec<Disk>,
    /// State of the asked ports.
    pub ports: Vec<PortFact>,
    /// Those of the asked users that exist.
    #[serde(default)]
    pub users: Vec<UserFact>,
    /// Answers for the asked names.
    pub names: Vec<NameFact>,
    /// Result of the disk probe.
    pub disk_probe: Option<DiskProbe>,
    /// State of the asked units.
    pub units: Vec<UnitFact>,
    /// Image and binary folders of ours that are complete on this host (`/opt/maxim/…` names).
    pub artefacts: Vec<String>,
    /// Names of clusters that have put something on this host.
    pub clusters: Vec<String>,
    /// Other servers found running or installed that would be in the way (`mariadbd`, `redis-server`, `nginx`, …).
    pub conflicts: Vec<String>,
}

/// Nanoseconds travel as 64 bits (enough until the year 2262): tagged replies cannot carry 128.
mod nanos {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &i128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(i64::try_from(*value).unwrap_or(i64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i128, D::Error> {
        i64::deserialize(deserializer).map(i128::from)
    }
}

/// The file system under a path.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// The path asked for.
    pub path: String,
    /// The nearest existing folder that was measured.
    pub measured: String,
    /// Mount point.
    pub mount: String,
    /// `ext4`, `xfs`, `overlay`, …
    pub file_system: String,
    /// Bytes.
    pub total: u64,
    /// Bytes free to us.
    pub available: u64,
    /// Inodes free; `u64::MAX` when the file system does not count them.
    pub inodes_available: u64,
    /// Mounted noexec.
    pub noexec: bool,
    /// Mounted read-only.
    pub read_only: bool,
    /// The asked path itself is a symbolic link.
    pub symlink: bool,
}

/// State of one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFact {
    /// The port.
    pub port: u16,
    /// Component that wants it.
    pub component: String,
    /// Free, ours, or foreign.
    pub state: PortState,
}

/// Who holds a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum PortState {
    /// Nobody.
    Free,
    /// One of our own services.
    Ours {
        /// Its unit or service.
        unit: String,
    },
    /// Somebody else.
    Foreign {
        /// Process name and id where visible, as `nginx (812)`.
        holder: String,
    },
}

/// Answer of the resolver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameFact {
    /// The name asked for.
    pub name: String,
    /// Addresses; empty when it did not resolve.
    pub addresses: Vec<String>,
}

/// Synced small writes on a path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiskProbe {
    /// Folder that was probed.
    pub path: String,
    /// Writes done.
    pub writes: u32,
    /// Median, microseconds.
    pub p50_micros: u64,
    /// 99th percentile, microseconds.
    pub p99_micros: u64,
}

/// State of one of our units.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitFact {
    /// Unit or service name.
    pub name: String,
    /// `active`, `inactive`, `failed`, `activating`, or empty when unknown.
    pub active: String,
    /// Main process id; 0 when none.
    pub pid: u32,
    /// Seconds since it became active.
    pub since_seconds: u64,
    /// Times it was restarted on its own.
    pub restarts: u32,
    /// Resident memory of its control group or process, bytes.
    pub memory: u64,
    /// The artefact it runs from, as `mariadb-11.8.6-0f3a…`; empty when unknown.
    pub artefact: String,
}

#[cfg(test)]
mod tests {
    use super::Facts;
    use crate::wire::Reply;

    #[test]
    fn facts_travel_as_a_reply() {
        let facts = Facts { clock_unix_nanos: 1_790_000_000_123_456_789, ..Facts::default() };
        let line = serde_json::to_string(&Reply::Facts { facts: Box::new(facts.clone()) }).expect("written");
        let Ok(Reply::Facts { facts: read }) = serde_json::from_str(&line) else {
            panic!("no facts in {line}")
        };
        assert_eq!(*read, facts);
    }
}
