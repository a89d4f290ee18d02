//! What the console's host is given so that the console can look at the whole cluster: `console` in the context.
//!
//! The console has a key of its own (`console_ssh_key`, made here once, kept with the secrets, in OpenSSH's format).
//! Its host reaches its own agent through a socket, the others by SSH as root with a forced command: whatever is
//! asked for there, an agent that may only be looked at answers. The topology it gets says exactly that and holds no secret.

use crate::delivery::Artefacts;
use crate::error::EngineError;
use crate::phases::measure::READY_PATH;
use crate::secrets::Secrets;
use crate::state::Installed;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maxim_model::Secret;
use maxim_model::names::{Profile, Role};
use maxim_model::topology::{Connection, Database, Host, Redis, Topology};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Map, Value, json};

/// Name of the key among the secrets.
pub(crate) const KEY: &str = "console_ssh_key";

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n";
const END: &str = "-----END OPENSSH PRIVATE KEY-----\n";
const MAGIC: &[u8] = b"openssh-key-v1\0";
const KIND: &[u8] = b"ssh-ed25519";
/// Where the public part begins in a key without passphrase: magic, cipher, key derivation, its options, count.
const PUBLIC_AT: usize = MAGIC.len() + 8 + 8 + 4 + 4;
/// Base64 characters in a line, as ssh-keygen writes them.
const LINE: usize = 70;

/// Makes the console's key when the cluster has a console and no key yet. Before secrets are listed: a random text
/// under this name would be no key.
pub(crate) fn ensure_key(topology: &Topology, secrets: &mut Secrets) -> Result<(), EngineError> {
    let wanted = topology.profile == Profile::Standard && topology.with_role(Role::Console).next().is_some();
    // Whatever else stands under this name is no key that could be used.
    if wanted && secrets.get(KEY).is_none_or(|key| public_of(key).is_err()) {
        secrets.set(KEY, new_key(&format!("maxim-console@{}", topology.name))?);
    }
    Ok(())
}

/// The value of `console` for one host. Every text is empty where it does not apply.
pub(crate) fn value(
    topology: &Topology,
    host: &Host,
    artefacts: &Artefacts,
    known_hosts: &str,
    secrets: &Secrets,
) -> Result<Value, EngineError> {
    let mut value = json!({
        "topology": "", "known_hosts": "", "state": "", "authorized_key": "", "agent": agent(topology, host),
        "marker": format!("maxim-console@{}", topology.name),
    });
    let has_console = topology.with_role(Role::Console).next().is_some();
    let Some(key) = secrets.get(KEY).filter(|_| has_console && topology.profile == Profile::Standard) else {
        return Ok(value);
    };
    if host.roles.contains(&Role::Console) {
        let key = format!("{}/console/cluster/id_ed25519", topology.paths.data);
        value["topology"] = pretty(&seen_from(topology, host, &key))?.into();
        value["known_hosts"] = known_hosts.into();
        value["state"] = pretty(&wanted(topology, artefacts))?.into();
    } else if let Some(program) = artefacts.get("maxim-ctl") {
        let consoles: Vec<&str> =
            topology.with_role(Role::Console).map(|host| host.address.as_str()).collect();
        value["authorized_key"] = format!(
            "restrict,from=\"{}\",command=\"{} {}\" ssh-ed25519 {} maxim-console@{}",
            consoles.join(","),
            program.path,
            agent(topology, host),
            public_text(key)?,
            topology.name
        )
        .into();
    }
    Ok(value)
}

/// Arguments of the agent that a console reaches: it names the one page of health that a measurement reads
/// ([`crate::phases::measure`]), on hosts that have it.
fn agent(topology: &Topology, host: &Host) -> String {
    if host.roles.contains(&Role::Im) {
        format!("agent --observe --get {}{READY_PATH}", topology.ports.metrics)
    } else {
        "agent --observe".to_owned()
    }
}

/// The topology as one of its hosts uses it (JSON is YAML), with a key for the others.
pub(crate) fn seen_from(topology: &Topology, console: &Host, key: &str) -> Value {
    let hosts: Vec<Value> = topology
        .hosts
        .iter()
        .map(|host| {
            let mut seen = json!({"name": host.name, "address": host.address, "roles": host.roles});
            if host.name == console.name {
                seen["connection"] = "local".into();
            } else {
                let port = match &host.connection {
                    Connection::Ssh(ssh) => ssh.port,
                    Connection::Local => 22,
                };
                seen["ssh"] = json!({"user": "root", "port": port, "key": key, "known_hosts": "strict"});
            }
            seen
        })
        .collect();
    let mut all = Map::new();
    all.insert("api_version".into(), "maxim/v1".into());
    all.insert("profile".into(), json!(topology.profile));
    all.insert("name".into(), topology.name.clone().into());
    all.insert("domain".into(), topology.domain.clone().into());
    all.insert("capacity".into(), json!(topology.capacity));
    all.insert("hosts".into(), hosts.into());
    match &topology.database {
        Database::External { url, .. } => all.insert("database".into(), json!({"external": {"url": url}})),
        Database::Postgresql => all.insert("database".into(), json!({"engine": "postgresql"})),
        Database::Mariadb => all.insert("database".into(), json!({"engine": "mariadb"})),
        Database::Sqlite => None,
    };
    if let Redis::External { url, .. } = &topology.redis {
        all.insert("redis".into(), json!({"external": {"url": url}}));
    }
    all.insert("ports".into(), json!(topology.ports));
    all.insert("paths".into(), json!(topology.paths));
    all.insert("listen".into(), topology.listen.clone().into());
    Value::Object(all)
}

/// Wanted versions. Nothing in it changes unless they do, so that a second install changes nothing.
fn wanted(topology: &Topology, artefacts: &Artefacts) -> Installed {
    let mut installed = Installed { version: env!("CARGO_PKG_VERSION").into(), ..Installed::default() };
    for role in Role::ALL {
        let name = match role {
            Role::Im => "maxim-im",
            Role::Console => "maxim-console",
            other => other.name(),
        };
        if topology.with_role(role).next().is_some()
            && let Some(artefact) = artefacts.get(name)
        {
            installed.versions.insert(role.name().into(), artefact.version.clone());
            installed.artefacts.insert(role.name().into(), artefact.artefact.clone());
        }
    }
    installed
}

fn pretty(value: &impl serde::Serialize) -> Result<String, EngineError> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| EngineError::failed("render", error.to_string()))
}

/// A new Ed25519 key in OpenSSH's format (PROTOCOL.key), without passphrase.
pub(crate) fn new_key(comment: &str) -> Result<Secret, EngineError> {
    let seed: [u8; 32] = rand::random();
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|error| {
        EngineError::failed("secrets", format!("a key for SSH could not be made: {error}"))
    })?;
    let public = pair.public_key().as_ref();
    let mut blob = Vec::new();
    put(&mut blob, KIND);
    put(&mut blob, public);

    let check: u32 = rand::random();
    let mut private = [check.to_be_bytes(), check.to_be_bytes()].concat();
    put(&mut private, KIND);
    put(&mut private, public);
    put(&mut private, &[seed.as_slice(), public].concat());
    put(&mut private, comment.as_bytes());
    for padding in 1..=8 {
        if private.len().is_multiple_of(8) {
            break;
        }
        private.push(padding);
    }

    let mut whole = MAGIC.to_vec();
    put(&mut whole, b"none");
    put(&mut whole, b"none");
    put(&mut whole, b"");
    whole.extend(1_u32.to_be_bytes());
    put(&mut whole, &blob);
    put(&mut whole, &private);
    let encoded = STANDARD.encode(&whole);
    let mut text = BEGIN.to_owned();
    for start in (0..encoded.len()).step_by(LINE) {
        text.push_str(&encoded[start..encoded.len().min(start + LINE)]);
        text.push('\n');
    }
    text.push_str(END);
    Ok(Secret::new(text))
}

/// A length and the bytes (RFC 4251 section 5, `string`).
fn put(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend((bytes.len() as u32).to_be_bytes());
    into.extend(bytes);
}

/// The public part as `authorized_keys` has it.
pub(crate) fn public_text(key: &Secret) -> Result<String, EngineError> {
    public_of(key).map(|public| STANDARD.encode(public))
}

/// The public part of a key that was made here.
fn public_of(key: &Secret) -> Result<Vec<u8>, EngineError> {
    let broken = || {
        EngineError::failed("secrets", "a key for SSH in secrets.json is none that was made here")
            .hint("remove that entry; the next install makes a new key and puts it on the hosts")
    };
    let body: String = key.expose().lines().filter(|line| !line.starts_with('-')).collect();
    let whole = STANDARD.decode(body).map_err(|_| broken())?;
    let length = whole.get(PUBLIC_AT..PUBLIC_AT + 4).ok_or_else(broken)?;
    let length = length.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    let blob = whole.get(PUBLIC_AT + 4..).and_then(|rest| rest.get(..length)).ok_or_else(broken)?;
    if blob.get(4..4 + KIND.len()) != Some(KIND) {
        return Err(broken());
    }
    Ok(blob.to_vec())
}

#[cfg(test)]
mod tests {
    use super::{KEY, ensure_key, new_key, value};
    use crate::delivery::sample_artefacts;
    use crate::sample;
    use crate::secrets::Secrets;
    use crate::state::Installed;
    use base64::Engine as _;
    use maxim_model::Secret;
    use maxim_model::topology::{Connection, load_stored};
    use std::process::Command;

    #[test]
    fn the_key_is_what_ssh_keygen_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id_ed25519");
        let key = new_key("maxim-console@acme").unwrap();
        crate::files::write_whole(&path, key.expose().as_bytes(), 0o600).unwrap();
        let Ok(shown) = Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output() else {
            panic!("ssh-keygen is needed; tests/setup installs it");
        };
        let text = String::from_utf8(shown.stdout).unwrap();
        let public = super::STANDARD.encode(super::public_of(&key).unwrap());
        assert!(text.contains(&public), "{text} {}", String::from_utf8_lossy(&shown.stderr));
        assert!(text.contains("maxim-console@acme"));
    }

    #[test]
    fn the_console_sees_the_same_cluster_and_others_admit_only_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut secrets = Secrets::load(&folder.path().join("secrets.json")).unwrap();
        let topology = sample::three_hosts();
        ensure_key(&topology, &mut secrets).unwrap();
        let key = secrets.get(KEY).unwrap().clone();
        ensure_key(&topology, &mut secrets).unwrap();
        assert_eq!(secrets.get(KEY), Some(&key), "made once");
        let artefacts = sample_artefacts("/opt/maxim");

        let seen = value(&topology, &topology.hosts[0], &artefacts, "known", &secrets).unwrap();
        let read = load_stored(seen["topology"].as_str().unwrap(), "/").unwrap();
        assert_eq!(
            (&read.name, &read.domain, &read.ports),
            (&topology.name, &topology.domain, &topology.ports)
        );
        assert_eq!(
            (&read.paths, &read.database, &read.listen),
            (&topology.paths, &topology.database, &topology.listen)
        );
        assert_eq!(read.hosts[0].connection, Connection::Local);
        for (host, original) in read.hosts.iter().zip(&topology.hosts).skip(1) {
            assert_eq!(
                (&host.name, &host.address, &host.roles),
                (&original.name, &original.address, &original.roles)
            );
            let Connection::Ssh(ssh) = &host.connection else { panic!("by SSH") };
            assert_eq!(
                (ssh.user.as_str(), ssh.key.as_str()),
                ("root", "/var/lib/maxim/console/cluster/id_ed25519")
            );
        }
        assert_eq!(seen["known_hosts"], "known");
        assert_eq!(seen["authorized_key"], "");
        let state: Installed = serde_json::from_str(seen["state"].as_str().unwrap()).unwrap();
        assert!(state.versions.contains_key("im"));

        let other = value(&topology, &topology.hosts[1], &artefacts, "known", &secrets).unwrap();
        let line = other["authorized_key"].as_str().unwrap();
        assert!(
            line.starts_with(&format!("restrict,from=\"{}\",command=\"", topology.hosts[0].address)),
            "{line}"
        );
        assert!(line.contains(" agent --observe\" ssh-ed25519 AAAA"), "{line}");
        assert_eq!(seen["agent"], "agent --observe --get 9280/readyz", "the IM core is here");
        assert_eq!((&other["topology"], &other["known_hosts"]), (&"".into(), &"".into()));
        for text in [&seen, &other] {
            assert!(!text.to_string().contains("PRIVATE KEY"));
        }
    }

    #[test]
    fn a_key_that_was_not_made_here_is_refused() {
        for text in ["", "random text", "AAAA"] {
            assert!(super::public_of(&Secret::new(text)).is_err());
        }
    }
}
