//! Whether ports are free, and who holds those that are not.
//!
//! A port is tried by binding it and closing it at once; who listens is told by `/proc/net/tcp` and the descriptors
//! of processes, as far as we may see them.

use crate::procfs;
use crate::scope::Scope;
use crate::supervisor::client;
use maxim_model::facts::{PortFact, PortQuery, PortState};
use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;

/// Looks at all ports asked for.
pub fn look(queries: &[PortQuery], scope: &Scope) -> Vec<PortFact> {
    let mut holders: Option<Holders> = None;
    queries
        .iter()
        .map(|query| {
            let state = match TcpListener::bind((query.address.as_str(), query.port)) {
                Ok(_) => PortState::Free,
                Err(error) => {
                    let holders = holders.get_or_insert_with(|| Holders::look(scope));
                    match (holders.of(query.port), error.kind()) {
                        (Some(state), _) => state,
                        // An address that is not on this host, or a port below 1024 without the right: whether the
                        // port is taken was just looked up, and nobody listens on it.
                        (None, ErrorKind::AddrNotAvailable | ErrorKind::PermissionDenied) => PortState::Free,
                        (None, _) => PortState::Foreign { holder: format!("unknown ({error})") },
                    }
                }
            };
            PortFact { port: query.port, component: query.component.clone(), state }
        })
        .collect()
}

/// Listening ports with their sockets, and processes by socket.
struct Holders {
    /// Inode of a listening socket by port.
    listening: Vec<(u16, u64)>,
    /// Process by inode.
    processes: HashMap<u64, u32>,
    /// Processes of our supervisor's services.
    supervised: HashMap<u32, String>,
    own: Vec<std::path::PathBuf>,
}

impl Holders {
    fn look(scope: &Scope) -> Self {
        let mut listening = Vec::new();
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            listening.extend(parse(&fs::read_to_string(table).unwrap_or_default()));
        }
        let wanted: Vec<u64> = listening.iter().map(|(_, inode)| *inode).collect();
        let mut supervised = HashMap::new();
        for own in scope.own_paths() {
            if let Ok(Some(answer)) = client::status(own) {
                supervised
                    .extend(answer.services.into_iter().filter(|s| s.pid != 0).map(|s| (s.pid, s.name)));
            }
        }
        Self { processes: processes(&wanted), listening, supervised, own: scope.own_paths().to_vec() }
    }

    /// Who listens on a port; nobody, as far as the tables say.
    fn of(&self, port: u16) -> Option<PortState> {
        let inodes: Vec<u64> =
            self.listening.iter().filter(|(found, _)| *found == port).map(|(_, inode)| *inode).collect();
        if inodes.is_empty() {
            return None;
        }
        let Some(pid) = inodes.iter().find_map(|inode| self.processes.get(inode)).copied() else {
            return Some(PortState::Foreign { holder: "a process that is not visible".to_owned() });
        };
        Some(self.state(pid))
    }

    fn state(&self, pid: u32) -> PortState {
        if let Some(name) = self.supervised.get(&pid) {
            return PortState::Ours { unit: name.clone() };
        }
        if let Some(unit) = procfs::unit(pid)
            && unit.starts_with("maxim-")
        {
            return PortState::Ours { unit: unit.trim_end_matches(".service").to_owned() };
        }
        // A service of ours whose keeper is gone still runs from our folders.
        let from_ours = procfs::executable(pid).is_some_and(|program| {
            self.own
                .iter()
                .any(|own| ["bin", "images"].iter().any(|folder| program.starts_with(own.join(folder))))
        });
        if from_ours {
            return PortState::Ours { unit: procfs::name(pid) };
        }
        PortState::Foreign { holder: format!("{} ({pid})", procfs::name(pid)) }
    }
}

/// Listening sockets of a table of `/proc/net`: local port and inode.
fn parse(table: &str) -> Vec<(u16, u64)> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
            (*state == LISTEN).then_some((port, inode.parse().ok()?))
        })
        .collect()
}

/// Processes that hold any of the sockets.
fn processes(inodes: &[u64]) -> HashMap<u64, u32> {
    let mut found = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        for descriptor in fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            let inode =
                target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse::<u64>().ok());
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                found.entry(inode).or_insert(pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{look, parse};
    use crate::scope::Scope;
    use maxim_model::facts::{PortQuery, PortState};

    #[test]
    fn the_kernel_table_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1466 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41234 1\n\
            1: 0100007F:1467 0100007F:1466 01 00000000:00000000 00:00000000 00000000  1000        0 41235 1\n";
        assert_eq!(parse(table), [(5222, 41234)]);
    }

    #[test]
    fn a_free_port_is_free() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let query = PortQuery { port, component: "im".into(), address: "127.0.0.1".into() };
        assert_eq!(look(&[query], &Scope::default())[0].state, PortState::Free);
    }
}
