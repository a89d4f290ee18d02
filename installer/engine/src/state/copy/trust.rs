//! What a copy of the state may not change by itself. Whoever is root on the console's host can write it, and is
//! nobody on this machine.
//!
//! Two kinds. *Pins* (keys of bundles and of hosts) were confirmed here by a person and are never exchanged by what a
//! host says ([`other_pins`]). *Where this machine connects, which of its files it uses, and which authority it vouches
//! for* ([`differences`]): a copy with another address and that host's key would be handed the password of the file
//! that the topology names, or any other file of this machine. A person takes that over (`--accept-state`), or nobody.
//!
//! What it deliberately does not judge: settings, roles, ports, sizes, and hosts that are gone. They decide nothing
//! about this machine, and whoever changes the cluster is shown a plan.

use super::pins::{self, Strange};
use super::{BUNDLE_KEY, Copy, Files, HOST_KEYS, REPLACEMENT, STALE};
use crate::context::Context;
use crate::error::EngineError;
use maxim_model::Secret;
use maxim_model::topology::{Connection, Database, Host, Redis, Tls, Topology, load_stored};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The authority of a cluster: what its clients and hosts believe.
const AUTHORITY: [&str; 2] = ["ca.pem", "ca.key"];
/// So many differences are shown at most; the rest is counted.
const SHOWN: usize = 8;

/// What a person confirmed on this control host and a copy has otherwise: the key of bundles, the keys of a host. The
/// file, and what is different. `mine`: whole, with all that is pinned here.
pub(super) fn other_pins(mine: &Files, copy: &Files) -> Option<(&'static str, Strange)> {
    let text = |files: &Files, name: &str| files.0.get(name).map(|text| text.expose().to_owned());
    let (own, other) = (text(mine, BUNDLE_KEY), text(copy, BUNDLE_KEY));
    if own.is_some() && own != other {
        let what = "another key for bundles than the one that is trusted here, or none".into();
        return Some((BUNDLE_KEY, Strange { what, of: None }));
    }
    let [mine, other] = [mine, copy].map(|files| text(files, HOST_KEYS).unwrap_or_default());
    let topology = copy.topology().and_then(|text| load_stored(text, "/").ok());
    pins::strange(&mine, &other, topology.as_ref()).map(|strange| (HOST_KEYS, strange))
}

pub(super) fn refuse_other_pins(
    context: &Context,
    mine: &Files,
    copy: &Copy,
    host: &str,
) -> Result<(), EngineError> {
    let Some((file, strange)) = other_pins(mine, &copy.files) else { return Ok(()) };
    let path = context.state.file(file);
    let remedy = match &strange.of {
        Some(name) => format!(
            "compare the new key on that machine's console and remove the old one here: `ssh-keygen -R '{name}' -f {}`",
            path.display()
        ),
        None if file == HOST_KEYS => "look who wrote it: Maxim writes no such lines".to_owned(),
        None => format!("remove {} here", path.display()),
    };
    let by = copy.head.by.escape_debug();
    Err(EngineError::refused(STALE, format!("the state that {by} wrote names {}", strange.what)).on(host).hint(
        format!(
            "nothing was taken over: whoever can write on that host could have done it. When it was done on purpose (a \
             host that was replaced, a key that was rotated), {remedy}, and run the command again"
        ),
    ))
}

/// What a copy would have this machine connect to, use, or vouch for otherwise than a person here has said: in the
/// topology that lies here, or in the one that this run was given. Empty: nothing.
pub(super) fn differences(context: &Context, mine: &Files, copy: &Files) -> Vec<String> {
    // Both were said by a person; the run's is the later.
    let applied = mine.topology().and_then(|text| load_stored(text, "/").ok());
    let known: Vec<Guarded> = applied.iter().chain([&context.topology]).map(guarded).collect();
    let mut found = match copy.topology().map(|text| load_stored(text, "/")) {
        Some(Ok(topology)) => others(&known, &guarded(&topology)),
        _ => vec!["its topology is not understood here".to_owned()],
    };
    let changed = AUTHORITY.into_iter().filter(|name| {
        let own = mine.0.get(*name).map(Secret::expose);
        own.is_some() && own != copy.0.get(*name).map(Secret::expose)
    });
    found.extend(changed.map(|name| format!("{name} (the cluster's authority) is another one")));
    // Its hint is a command with a name and an address, and that command asks no host whether it is dead.
    let replacement = |files: &Files| files.0.get(REPLACEMENT).map(|text| text.expose().to_owned());
    found.extend(crate::replace::other(replacement(mine).as_deref(), replacement(copy).as_deref()));
    if found.len() > SHOWN {
        let more = found.len() - SHOWN;
        found.truncate(SHOWN);
        found.push(format!("{more} more"));
    }
    found
}

/// The refusal of what [`differences`] found, or the same as a warning: cause and hint.
pub(super) fn refusal(copy: &Copy, differences: &[String], host: &str) -> EngineError {
    EngineError::refused(
        super::UNCONFIRMED,
        format!(
            "generation {} of the state of this cluster, written by {} at {}, would have this machine connect \
             elsewhere, use other files, or vouch for another authority: {}",
            copy.head.generation,
            copy.head.by.escape_debug(),
            copy.head.at.escape_debug(),
            differences.join("; ")
        ),
    )
    .on(host)
    .hint(
        "nothing was taken over: whoever is root on that host could have written it. Ask who changed it; when it is \
         right, run the command once with --accept-state",
    )
}

/// What is guarded of a topology: dotted path and value.
type Guarded = BTreeMap<String, String>;

fn guarded(topology: &Topology) -> Guarded {
    let mut all = Guarded::new();
    for host in &topology.hosts {
        of_host(&mut all, host);
    }
    if let Tls::Files { cert, key } = &topology.tls {
        all.insert("tls.cert".into(), cert.clone());
        all.insert("tls.key".into(), key.clone());
    }
    let mut external = |of: &str, url: &str, password_file: &str, ca_file: &str| {
        for (name, value) in [("url", url), ("password_file", password_file), ("ca_file", ca_file)] {
            all.insert(format!("{of}.external.{name}"), value.to_owned());
        }
    };
    if let Database::External { url, password_file, ca_file } = &topology.database {
        external("database", url, password_file, ca_file);
    }
    if let Redis::External { url, password_file, ca_file } = &topology.redis {
        external("redis", url, password_file, ca_file);
    }
    flatten(&mut all, "backup.repository", &topology.backup.repository);
    all
}

fn of_host(all: &mut Guarded, host: &Host) {
    let path = format!("hosts.{}", host.name);
    all.insert(format!("{path}.address"), host.address.clone());
    match &host.connection {
        Connection::Local => {
            all.insert(format!("{path}.connection"), "local".into());
        }
        Connection::Ssh(ssh) => {
            all.insert(format!("{path}.connection"), "ssh".into());
            flatten(all, &format!("{path}.ssh"), &plain(ssh));
        }
    }
}

/// As JSON: every field there is counts, also one that is added later.
fn plain(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

fn flatten(all: &mut Guarded, path: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                flatten(all, &format!("{path}.{name}"), value);
            }
        }
        Value::String(text) => {
            all.insert(path.to_owned(), text.clone());
        }
        other => {
            all.insert(path.to_owned(), other.to_string());
        }
    }
}

/// What of `copy` is in none of those that are known here, as `hosts.db1.address is "…", here "…"`.
fn others(known: &[Guarded], copy: &Guarded) -> Vec<String> {
    copy.iter()
        .filter(|(path, value)| !known.iter().any(|known| known.get(*path) == Some(*value)))
        .map(|(path, value)| {
            let here = known.iter().rev().find_map(|known| known.get(path));
            match here {
                Some(here) => format!("{path} is {value:?}, here {here:?}"),
                None => format!("{path} is {value:?}, here there is none"),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Guarded, guarded, others};
    use maxim_model::topology::load_stored;

    const BEFORE: &str = "\
api_version: maxim/v1
name: acme
domain: im.acme.example
ssh: {user: ann, key: /home/ann/key, sudo: true, jump: {host: gate.example, user: ann, key: /home/ann/gate}}
hosts:
- {name: app1, address: 10.77.0.11, roles: [im, console]}
- {name: db1, address: 10.77.0.12, roles: [redis]}
tls: {mode: files, cert: /etc/chain.pem, key: /etc/key.pem}
database: {external: {url: 'mysql://maxim@10.9.9.9:3306/maxim', password_file: /root/database, ca_file: /root/ca.pem}}
backup: {schedule: '0 3 * * *', repository: {type: sftp, host: 10.8.8.8, user: keep, path: /sets, key: /root/sftp}}
settings: {im: {registration: {in_band: false}}}
";

    fn of(text: &str) -> Guarded {
        guarded(&load_stored(text, "/").unwrap_or_else(|errors| panic!("{errors}")))
    }

    #[test]
    fn whatever_decides_where_to_connect_and_which_files_to_use_counts_and_nothing_else() {
        for (from, to, path) in [
            ("10.77.0.12", "10.66.6.6", "hosts.db1.address"),
            ("user: ann, key: /home/ann/key", "user: eve, key: /home/ann/key", "hosts.app1.ssh.user"),
            ("/home/ann/key", "/home/ann/.ssh/id_rsa", "hosts.app1.ssh.key"),
            ("sudo: true", "sudo: true, sudo_password_file: /etc/shadow", "hosts.db1.ssh.sudo_password_file"),
            ("sudo: true", "sudo: true, known_hosts: accept-new", "hosts.db1.ssh.known_hosts"),
            ("sudo: true", "sudo: true, port: 2222", "hosts.db1.ssh.port"),
            ("gate.example", "other.example", "hosts.db1.ssh.jump"),
            ("/home/ann/gate", "/home/ann/key", "hosts.db1.ssh.jump_key"),
            ("roles: [redis]", "roles: [redis], connection: local", "hosts.db1.connection"),
            ("name: db1", "name: db2", "hosts.db2.address"),
            ("/etc/key.pem", "/home/ann/.ssh/id_ed25519", "tls.key"),
            ("10.9.9.9", "10.66.6.6", "database.external.url"),
            ("/root/database", "/root/.pgpass", "database.external.password_file"),
            ("10.8.8.8", "10.66.6.6", "backup.repository.host"),
            ("/root/sftp", "/root/.ssh/id_rsa", "backup.repository.key"),
        ] {
            let after = BEFORE.replacen(from, to, 1);
            assert_ne!(after, BEFORE, "{from}");
            let found = others(&[of(BEFORE)], &of(&after));
            assert!(found.iter().any(|line| line.starts_with(&format!("{path} is "))), "{path}: {found:?}");
            assert!(others(&[of(BEFORE), of(&after)], &of(&after)).is_empty(), "the run was given it");
        }
        let harmless = BEFORE.replace("in_band: false", "in_band: true").replace("0 3 *", "0 4 *");
        let fewer: String = harmless.split_inclusive('\n').filter(|line| !line.contains("db1")).collect();
        for text in [BEFORE, &harmless, &fewer.replace("[im, console]", "[im, console, redis]")] {
            assert_eq!(others(&[of(BEFORE)], &of(text)), Vec::<String>::new(), "{text}");
        }
    }
}
