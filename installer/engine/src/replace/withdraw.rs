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

/// Forgets the key that the host was known by.
pub(super) fn host_key(context: &Context, old: &Host) -> Result<(), EngineError> {
    let path = context.state.file("known_hosts");
    let Some(text) = files::read_optional(&path)? else { return Ok(()) };
    let port = match &old.connection {
        Connection::Ssh(ssh) => ssh.port,
        Connection::Local => return Ok(()),
    };
    let kept = without(&text, &old.address, port);
    if kept == text { Ok(()) } else { files::write_whole(&path, kept.as_bytes(), 0o600) }
}

/// Pinned keys but those of an address.
fn without(text: &str, address: &str, port: u16) -> String {
    let name = pinned_name(address, port);
    text.split_inclusive('\n').filter(|line| line.split_ascii_whitespace().next() != Some(&name)).collect()
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn only_the_keys_of_the_address_are_forgotten() {
        let text = "10.0.0.1 ssh-ed25519 A\n10.0.0.11 ssh-ed25519 B\n[10.0.0.1]:2222 ssh-ed25519 C\n";
        assert_eq!(without(text, "10.0.0.1", 22), "10.0.0.11 ssh-ed25519 B\n[10.0.0.1]:2222 ssh-ed25519 C\n");
        assert_eq!(without(text, "10.0.0.1", 2222), "10.0.0.1 ssh-ed25519 A\n10.0.0.11 ssh-ed25519 B\n");
    }
}
