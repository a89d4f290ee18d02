//! Measuring the host. Reads `/proc`, `/sys`, `/etc` and asks the kernel; changes nothing, starts no program where a
//! file tells the same.
//!
//! Each part is a file: the system itself, disks and the disk probe, ports and who holds them, what is in the way.
//! A part that cannot be measured leaves its fields empty; checks treat that as unknown, not as well.

mod conflicts;
mod disk;
mod ports;
mod probe;
mod system;

use crate::scope::Scope;
use crate::services;
use maxim_model::facts::{Facts, FactsQuery, NameFact, UnitFact, UserFact, UserQuery};
use maxim_model::task::ServiceManager;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest wait for the resolver: a host without DNS would hold the whole check up.
const RESOLVER_PATIENCE: Duration = Duration::from_millis(1500);

/// Measures everything asked for; the parts that wait run at the same time.
pub fn gather(query: &FactsQuery, scope: &Scope) -> Facts {
    thread::scope(|threads| {
        let names = threads.spawn(|| resolve_all(&query.names));
        let probe =
            threads.spawn(|| query.disk_probe.as_ref().and_then(|path| probe::probe(Path::new(path))));
        let ports = threads.spawn(|| ports::look(&query.ports, scope));
        let units = threads.spawn(|| units(query, scope));
        let mut facts = system::look();
        facts.disks = query.paths.iter().map(|path| disk::look(path)).collect();
        facts.users = query.users.iter().filter_map(user).collect();
        (facts.artefacts, facts.clusters) = traces(scope);
        conflicts::look(&mut facts);
        facts.names = names.join().unwrap_or_default();
        facts.ports = ports.join().unwrap_or_default();
        facts.units = units.join().unwrap_or_default();
        facts.disk_probe = probe.join().ok().flatten();
        // Last, so that it is as near as can be to the moment in which the engine reads it.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        facts.clock_unix_nanos = since.as_nanos() as i128;
        facts
    })
}

/// State of our units: from the supervisor when one's folder is in our scope, else from systemd.
fn units(query: &FactsQuery, scope: &Scope) -> Vec<UnitFact> {
    if query.units.is_empty() {
        return Vec::new();
    }
    let root = scope.own_paths().iter().find(|own| own.join("etc/services").is_dir());
    let manager = match root {
        Some(root) => ServiceManager::Supervisor { root: root.display().to_string() },
        None => ServiceManager::Systemd,
    };
    services::facts(&manager, &query.units).unwrap_or_default()
}

/// A user that exists under a name of ours.
fn user(query: &UserQuery) -> Option<UserFact> {
    let user = nix::unistd::User::from_name(&query.name).ok().flatten()?;
    let made = crate::made::Made::at(&query.made).ok()?;
    Some(UserFact {
        name: query.name.clone(),
        uid: user.uid.as_raw(),
        shell: user.shell.display().to_string(),
        ours: made.holds("user", &query.name).unwrap_or(false),
    })
}

fn resolve_all(names: &[String]) -> Vec<NameFact> {
    // Each in a thread of its own that may outlive this call: the system's resolver knows no deadline.
    let waiting: Vec<_> = names
        .iter()
        .map(|name| {
            let (sender, receiver) = mpsc::channel();
            let asked = name.clone();
            let _ = thread::Builder::new().name("resolve".into()).spawn(move || {
                let found = (asked.as_str(), 0_u16).to_socket_addrs().map(|list| {
                    let mut list: Vec<String> = list.map(|address| address.ip().to_string()).collect();
                    list.sort();
                    list.dedup();
                    list
                });
                let _ = sender.send(found.unwrap_or_default());
            });
            receiver
        })
        .collect();
    let end = std::time::Instant::now() + RESOLVER_PATIENCE;
    names
        .iter()
        .zip(waiting)
        .map(|(name, receiver)| {
            let left = end.saturating_duration_since(std::time::Instant::now());
            NameFact { name: name.clone(), addresses: receiver.recv_timeout(left).unwrap_or_default() }
        })
        .collect()
}

/// Complete artefacts of ours, and names of clusters that have put something here.
fn traces(scope: &Scope) -> (Vec<String>, Vec<String>) {
    let (mut artefacts, mut clusters) = (Vec::new(), Vec::new());
    for own in scope.own_paths() {
        for (folder, is_image) in [("images", true), ("web", true), ("bin", false)] {
            for path in entries(&own.join(folder)) {
                let complete = if is_image {
                    !crate::tasks::completed(&path).is_empty()
                } else {
                    // A program gets its name only when it is whole, so a name in the folder is enough.
                    entries(&path).iter().any(|file| file.is_file() && !is_hidden(file))
                };
                if complete && !is_hidden(&path) {
                    artefacts.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
                }
            }
        }
        for file in [own.join("cluster"), own.join("etc/cluster")] {
            if file.is_file() {
                clusters
                    .extend(crate::files::read_text(&file).lines().next().map(|line| line.trim().to_owned()));
            }
        }
    }
    for list in [&mut artefacts, &mut clusters] {
        list.retain(|name| !name.is_empty());
        list.sort();
        list.dedup();
    }
    (artefacts, clusters)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::{gather, traces};
    use crate::scope::Scope;
    use maxim_model::facts::{FactsQuery, PortQuery, PortState};
    use std::fs;
    use std::net::TcpListener;

    #[test]
    fn this_machine_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let query = FactsQuery {
            paths: vec![format!("{}/not/yet", folder.path().display())],
            ports: vec![PortQuery { port, component: "im".into(), address: "127.0.0.1".into() }],
            names: vec!["localhost".into(), "no-such-name.invalid".into()],
            disk_probe: Some(folder.path().display().to_string()),
            ..FactsQuery::default()
        };
        let facts = gather(&query, &Scope::default());
        assert!(facts.memory_total >= facts.memory_available && facts.memory_available > 0);
        assert!(facts.cpus > 0 && !facts.hostname.is_empty() && !facts.kernel.is_empty());
        assert_eq!(facts.architecture, std::env::consts::ARCH);
        assert_eq!(facts.disks[0].measured, folder.path().display().to_string());
        assert!(facts.disks[0].total > 0);
        assert!(facts.addresses.iter().any(|address| address == "127.0.0.1"));
        assert!(!facts.names[0].addresses.is_empty() && facts.names[1].addresses.is_empty());
        let PortState::Foreign { holder } = &facts.ports[0].state else { panic!("{:?}", facts.ports) };
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        let probe = facts.disk_probe.unwrap();
        assert!(probe.writes > 0 && probe.p50_micros <= probe.p99_micros);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the probe left something");
        drop(taken);
    }

    #[test]
    fn only_complete_artefacts_count() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("opt");
        for path in ["images/a-1", "images/b-1", "bin/c-1", "bin/d-1"] {
            fs::create_dir_all(own.join(path)).unwrap();
        }
        fs::write(own.join("images/a-1/.maxim-complete"), "x").unwrap();
        fs::write(own.join("bin/c-1/maxim-im"), "x").unwrap();
        fs::write(own.join("bin/d-1/.maxim-new-maxim-im-0123abcd"), "x").unwrap();
        fs::write(own.join("cluster"), "acme\n").unwrap();
        let scope = Scope::new(&[own.display().to_string()], "/run/lock.json").unwrap();
        assert_eq!(traces(&scope), (vec!["a-1".to_owned(), "c-1".to_owned()], vec!["acme".to_owned()]));
    }
}
