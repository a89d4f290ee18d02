//! What a dead host knew and that shall not open anything any more, should somebody find its disk: passwords of the
//! stores, the console's key, certificates, its own host key.
//!
//! Passwords and keys are made anew, and the install that follows puts them on every host. A certificate of the
//! private authority cannot be called back before it ends (nobody asks a list of revoked ones); it is forgotten, and a
//! new one is issued for whoever takes the place. A password of a server that somebody else runs is theirs to change.

use crate::context::Context;
use crate::error::EngineError;
use crate::files;
use crate::phases::plan::Material;
use crate::remote::ssh::pinned_name;
use crate::render::console::KEY;
use crate::secrets::random_text;
use maxim_model::Secret;
use maxim_model::names::Role;
use maxim_model::topology::{Connection, Database, Host, Redis, Topology};
use std::path::PathBuf;

const LENGTH: usize = 40;

/// Makes anew what the host knew, in memory; in words.
pub(super) fn from(old: &Host, topology: &Topology, material: &mut Material) -> Vec<String> {
    let had = |role: Role| old.roles.contains(&role);
    let mut withdrawn = Vec::new();
    if had(Role::Im) && !matches!(topology.database, Database::External { .. }) {
        material.secrets.set("database_im_password", Secret::new(random_text(LENGTH)));
        withdrawn.push("password of the database".to_owned());
    }
    if (had(Role::Im) || had(Role::Redis)) && matches!(topology.redis, Redis::Own) {
        material.secrets.set("redis_password", Secret::new(random_text(LENGTH)));
        withdrawn.push("password of Redis".to_owned());
    }
    if had(Role::Console) {
        // No key at all: one is made when it is next needed.
        material.secrets.set(KEY, Secret::default());
        withdrawn.push("key of the console".to_owned());
    }
    withdrawn
        .extend(material.authority.forget(&old.name).into_iter().map(|name| format!("certificate {name}")));
    withdrawn
}

/// Whether the new host is where the old one was: known by the same address and port.
pub(super) fn is_same_place(old: &Host, topology: &Topology, new: &str) -> bool {
    let place = |host: &Host| pin_of(host).map(|name| (name, host.address.clone()));
    topology.host(new).is_some_and(|new| place(new).is_some() && place(new) == place(old))
}

/// Forgets the key that the host was known by.
pub(super) fn host_key(context: &Context, old: &Host) -> Result<(), EngineError> {
    Pin::take(context, old).map(|mut pin| pin.withdraw())
}

/// The pinned key of a dead host, taken away; put back when this is dropped, unless it was withdrawn for good.
pub(super) struct Pin {
    path: PathBuf,
    name: String,
    /// Its lines; empty: none, or withdrawn.
    lines: String,
}

impl Pin {
    /// Takes it away.
    pub fn take(context: &Context, old: &Host) -> Result<Self, EngineError> {
        let path = context.state.file("known_hosts");
        let Some(name) = pin_of(old) else {
            return Ok(Self { path, name: String::new(), lines: String::new() });
        };
        let text = files::read_optional(&path)?.unwrap_or_default();
        let kept = without(&text, &name);
        if kept != text {
            files::write_whole(&path, kept.as_bytes(), 0o600)?;
        }
        let lines = text.split_inclusive('\n').filter(|line| is_of(line, &name)).collect();
        Ok(Self { path, name, lines })
    }

    /// It holds no longer, whatever comes.
    pub fn withdraw(&mut self) {
        self.lines.clear();
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        // What was pinned for this address meanwhile is the key of a machine that nobody approved.
        let Ok(text) = files::read_optional(&self.path) else { return };
        let mut text = without(&text.unwrap_or_default(), &self.name);
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&self.lines);
        if let Err(error) = files::write_whole(&self.path, text.as_bytes(), 0o600) {
            tracing::warn!(cause = error.cause, "the host key of the old host could not be put back");
        }
    }
}

/// The name that a host's key is pinned under; none: no key is asked for.
fn pin_of(host: &Host) -> Option<String> {
    match &host.connection {
        Connection::Ssh(ssh) => Some(pinned_name(&host.address, ssh.port)),
        Connection::Local => None,
    }
}

fn is_of(line: &str, name: &str) -> bool {
    line.split_ascii_whitespace().next() == Some(name)
}

/// Pinned keys but those of a name.
fn without(text: &str, name: &str) -> String {
    text.split_inclusive('\n').filter(|line| !is_of(line, name)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Pin, is_same_place, pin_of, without};
    use crate::sample;
    use crate::state::StateDir;
    use maxim_model::topology::Connection;

    #[test]
    fn only_the_keys_of_the_address_are_forgotten() {
        let text = "10.0.0.1 ssh-ed25519 A\n10.0.0.11 ssh-ed25519 B\n[10.0.0.1]:2222 ssh-ed25519 C\n";
        let (first, third) = ("10.0.0.1", "[10.0.0.1]:2222");
        assert_eq!(without(text, first), "10.0.0.11 ssh-ed25519 B\n[10.0.0.1]:2222 ssh-ed25519 C\n");
        assert_eq!(without(text, third), "10.0.0.1 ssh-ed25519 A\n10.0.0.11 ssh-ed25519 B\n");
    }

    #[test]
    fn a_key_that_was_taken_away_comes_back_unless_the_replacement_was_approved() {
        let folder = tempfile::tempdir().unwrap();
        let context = sample::context(sample::three_hosts(), StateDir::at(folder.path()));
        let old = context.topology.host("db1").unwrap();
        let name = pin_of(old).unwrap();
        let path = folder.path().join("known_hosts");
        let read = || std::fs::read_to_string(&path).unwrap();
        let (other, dead) = ("10.9.9.9 ssh-ed25519 B\n", format!("{name} ssh-ed25519 A\n"));
        let pin_new = || std::fs::write(&path, format!("{other}{name} ssh-ed25519 NEW\n")).unwrap();
        std::fs::write(&path, format!("{dead}{other}")).unwrap();
        let pin = Pin::take(&context, old).unwrap();
        assert_eq!(read(), other);
        pin_new();
        drop(pin);
        assert_eq!(read(), format!("{other}{dead}"), "said no");
        let mut pin = Pin::take(&context, old).unwrap();
        pin_new();
        pin.withdraw();
        drop(pin);
        assert_eq!(read(), format!("{other}{name} ssh-ed25519 NEW\n"), "approved: the new key stays");
    }

    #[test]
    fn a_place_is_an_address_and_a_port() {
        let topology = sample::three_hosts();
        let old = topology.host("db1").unwrap();
        assert!(is_same_place(old, &topology, "db1"));
        assert!(!is_same_place(old, &topology, "app1"));
        let mut moved = old.clone();
        if let Connection::Ssh(ssh) = &mut moved.connection {
            ssh.port += 1;
        }
        assert!(!is_same_place(&moved, &topology, "db1"));
    }
}
