//! What the host that keeps the repository is given, where it is reached by SSH, so that backups by a schedule are made
//! from there while no control host is at hand (`docs/decisions/0010-backups.md`).
//!
//! Steps, after an install has been proven: the repository with its key and the recovery kit; then, in a folder that
//! only root can read, the cluster as seen from there (topology, pinned host keys, versions), the repository's secrets,
//! a key of its own for the other hosts, and the part `state` as the control host would pack it. On the other hosts that
//! key starts an agent that answers backups and nothing else.

use super::restore::marker::refuse_while_rebuilding;
use super::vault::{KEPT_CREDENTIALS, KEPT_KEY, KEPT_KNOWN_HOSTS, PASSWORD, Vault, access, host, repository};
use super::{due, kit, state_part, tasks};
use crate::context::Context;
use crate::delivery::Artefacts;
use crate::error::EngineError;
use crate::files;
use crate::render::console::{new_key, public_text, seen_from};
use crate::render::context::read_pem;
use crate::run::{Run, Session};
use crate::secrets::Secrets;
use crate::state::{self, Installed};
use maxim_model::Secret;
use maxim_model::names::Profile;
use maxim_model::task::{FileTask, TaskKind};
use maxim_model::topology::{Connection, Host, Tls, Topology};
use serde_json::{Value, json};

/// Name of the key among the secrets.
const KEY: &str = "backup_ssh_key";
/// The packed state in the folder of the keeper.
pub(crate) const PACKED: &str = "handed-over.tar";

/// The host that makes backups by itself without being the control host; none when there is none.
fn keeper(topology: &Topology) -> Option<&Host> {
    if topology.profile == Profile::Embedded || due::schedules(topology).is_ok_and(|all| all.is_empty()) {
        return None;
    }
    host(topology).filter(|keeper| matches!(keeper.connection, Connection::Ssh(_)))
}

/// Folder below which the keeper's copies of cluster states lie, as `XDG_DATA_HOME` has it.
pub(crate) fn home(topology: &Topology) -> String {
    format!("{}/backup/state", topology.paths.data)
}

fn folder(topology: &Topology) -> String {
    format!("{}/maxim/clusters/{}", home(topology), topology.name)
}

/// Makes the key of the repository's host when the cluster has one that needs it.
pub(crate) fn ensure_key(topology: &Topology, secrets: &mut Secrets) -> Result<(), EngineError> {
    if keeper(topology).is_some() && secrets.get(KEY).is_none_or(|key| public_text(key).is_err()) {
        secrets.set(KEY, new_key(&marker(topology))?);
    }
    Ok(())
}

/// Last word of the line on other hosts.
pub(crate) fn marker(topology: &Topology) -> String {
    format!("maxim-backup@{}", topology.name)
}

/// The line in root's `authorized_keys` of a host; empty where there is to be none.
pub(crate) fn authorized_line(
    topology: &Topology,
    host: &Host,
    artefacts: &Artefacts,
    secrets: &Secrets,
) -> Result<String, EngineError> {
    let Some(keeper) = keeper(topology).filter(|keeper| keeper.name != host.name) else {
        return Ok(String::new());
    };
    let (Some(key), Some(program)) = (secrets.get(KEY), artefacts.get("maxim-ctl")) else {
        return Ok(String::new());
    };
    let paths = &topology.paths;
    Ok(format!(
        "restrict,from=\"{}\",command=\"{} agent --backup-only {} {}\" ssh-ed25519 {} {}",
        keeper.address,
        program.path,
        paths.data,
        paths.run,
        public_text(key)?,
        marker(topology),
    ))
}

/// Gives the keeper what it needs. Its agent that may change things must be there. What cannot be done now is said and
/// does not make an install fail: the cluster serves.
pub(crate) fn hand_over(run: &Run<'_>, sessions: &mut [Session<'_>], installed: &Installed) {
    let Some(keeper) = keeper(&run.context.topology) else { return };
    if refuse_while_rebuilding(&run.context.state, "backup").is_err() {
        // Its timer would make a set of the empty cluster; it is handed over when the data is there.
        return;
    }
    let done = run.emitter.phase("hand-over", || {
        let contents = contents(run, sessions, keeper, installed)?;
        let session = sessions.iter_mut().find(|session| session.host.name == keeper.name);
        let Some(agent) = session.and_then(|session| session.writer.as_mut()) else {
            return Err(EngineError::failed("backup", "the host is not connected").on(&keeper.name));
        };
        for (name, content) in contents {
            let file = FileTask {
                path: format!("{}/{name}", folder(&run.context.topology)),
                content,
                sensitive: true,
                owner: String::new(),
                group: String::new(),
                mode: "0600".into(),
                only_if_absent: false,
            };
            tasks::apply(run, agent, tasks::task(&format!("backup/hand-over/{name}"), TaskKind::File(file)))?;
        }
        Ok(())
    });
    if let Err(error) = done {
        run.emitter.warn(
            &keeper.name,
            "backup/hand-over",
            format!("backups by the schedule cannot be made yet: {}", error.cause),
            if error.hint.is_empty() { "put it right and run the same install again" } else { &error.hint },
        );
    }
}

/// The files, the topology last: with it the cluster is there.
fn contents(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    keeper: &Host,
    installed: &Installed,
) -> Result<Vec<(String, Secret)>, EngineError> {
    let context = run.context;
    let topology = &context.topology;
    let repository = repository(context)?;
    let mut secrets = Secrets::load(&context.state.file("secrets.json"))?;
    let password = secrets.get_or_make(PASSWORD);
    ensure_key(topology, &mut secrets)?;
    // Kept before the repository exists: a key that is lost opens nothing.
    secrets.save()?;
    let access = access(context, repository, password.clone())?;
    if !kit::is_made(context, &access)? {
        // Another control host that goes on from here finds it: one of its own would not open what is made now.
        state::copy::publish(run, sessions)?;
        let mut vault = Vault::with(run, access.clone())?;
        let id = vault.init()?;
        if let Some((page, file)) = kit::ensure(context, vault.access(), &id)? {
            run.emitter.note(
                &keeper.name,
                "backup/hand-over",
                format!(
                    "the repository was made; keep its recovery kit where the cluster is not: {}, {}",
                    page.display(),
                    file.display()
                ),
            );
        }
    }
    let text = |value: Value| {
        serde_json::to_string_pretty(&value)
            .map(|text| text + "\n")
            .map_err(|error| EngineError::failed("backup", error.to_string()))
    };
    let mut all = vec![
        (PACKED.to_owned(), packed(context)?),
        ("secrets.json".into(), Secret::new(text(json!({ PASSWORD: password.expose() }))?)),
        ("id_ed25519".into(), secrets.get(KEY).cloned().unwrap_or_default()),
        (KEPT_KEY.into(), access.ssh_key.clone()),
        (KEPT_KNOWN_HOSTS.into(), Secret::new(access.known_hosts.clone())),
        (KEPT_CREDENTIALS.into(), access.credentials.clone()),
    ];
    for name in ["known_hosts", "ca.pem", "ca.key"] {
        let content = files::read_optional(&context.state.file(name))?.unwrap_or_default();
        all.push((name.into(), Secret::new(content)));
    }
    if let Tls::Files { cert, .. } = &topology.tls {
        all.push(("tls.crt".into(), Secret::new(read_pem(cert)?)));
    }
    // When it was installed is of no use there, and would make every install write it.
    let versions = Installed { installed_at: String::new(), ..installed.clone() };
    let versions = serde_json::to_value(versions)
        .map_err(|error| EngineError::failed("backup", error.to_string()))
        .and_then(text)?;
    all.push(("state.json".into(), Secret::new(versions)));
    all.push(("topology.yaml".into(), Secret::new(text(seen(topology, keeper))?)));
    all.retain(|(_, content)| !content.expose().is_empty());
    Ok(all)
}

/// The part `state`, as text: what travels to hosts is text.
fn packed(context: &Context) -> Result<Secret, EngineError> {
    use base64::Engine as _;
    let mut tar = state_part::pack(context)?;
    let encoded = base64::engine::general_purpose::STANDARD.encode(&tar);
    zeroize::Zeroize::zeroize(&mut tar);
    Ok(Secret::new(encoded))
}

/// The topology as the keeper uses it (JSON is YAML).
fn seen(topology: &Topology, keeper: &Host) -> Value {
    let folder = folder(topology);
    let mut all = seen_from(topology, keeper, &format!("{folder}/id_ed25519"));
    let backup = &topology.backup;
    let (daily, weekly, monthly) = backup.retention;
    let mut repository = backup.repository.clone();
    for (key, kept) in
        [("key", KEPT_KEY), ("known_hosts_file", KEPT_KNOWN_HOSTS), ("credentials_file", KEPT_CREDENTIALS)]
    {
        if repository[key].as_str().is_some_and(|path| !path.is_empty()) {
            repository[key] = format!("{folder}/{kept}").into();
        }
    }
    let mut section = json!({
        "repository": repository,
        "retention": {"daily": daily, "weekly": weekly, "monthly": monthly},
    });
    for (key, value) in [
        ("schedule", &backup.schedule),
        ("time_zone", &backup.time_zone),
        ("verify", &backup.verify),
        ("drill", &backup.drill),
    ] {
        if !value.is_empty() {
            section[key] = value.clone().into();
        }
    }
    all["backup"] = section;
    if matches!(topology.tls, Tls::Files { .. }) {
        let certificate = format!("{folder}/tls.crt");
        all["tls"] = json!({"mode": "files", "cert": certificate, "key": certificate});
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{PASSWORD, authorized_line, contents, ensure_key, keeper, seen};
    use crate::context::{CancelFlag, Context};
    use crate::delivery::sample_artefacts;
    use crate::fake::Fleet;
    use crate::phases::connect;
    use crate::run::Run;
    use crate::sample;
    use crate::secrets::Secrets;
    use crate::state::{Installed, StateDir};
    use maxim_model::task::TaskKind;
    use maxim_model::topology::{Connection, load_stored};
    use std::sync::Arc;

    #[test]
    fn the_key_of_a_repository_is_in_the_copy_of_the_state_before_the_repository_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let mut topology = sample::three_hosts();
        topology.backup.schedule = "0 3 * * *".into();
        topology.backup.repository = serde_json::json!({"type": "local", "path": "/srv/sets"});
        let fleet = Arc::new(Fleet::new(&topology, CancelFlag::new()));
        let context = Context {
            topology_text: "name: acme\n".into(),
            ..sample::context(topology, StateDir::at(folder.path().join("state")))
        };
        let connector: Arc<Fleet> = Arc::clone(&fleet);
        let run = Run::with_connector(&context, "install", true, connector).unwrap();
        let _control = context.state.lock("test").unwrap();
        let mut sessions = connect::connect(&run).unwrap();
        connect::lock_hosts(&run, &mut sessions, "install").unwrap();
        context.state.save_topology(&context.topology_text).unwrap();
        context.state.save_installed(&Installed { generation: 1, ..Installed::default() }).unwrap();
        let keeper = keeper(&context.topology).unwrap();
        contents(&run, &mut sessions, keeper, &Installed::default()).unwrap();
        let order = fleet.order();
        let place = |what: &str| order.iter().position(|entry| entry.contains(what));
        let (copied, made) = (place("state/"), place("restic init"));
        assert!(copied.is_some() && made.is_some() && copied < made, "{order:?}");
        let password = Secrets::load(&context.state.file("secrets.json")).unwrap();
        let password = password.get(PASSWORD).unwrap().expose().to_owned();
        let kept = fleet.with(&keeper.name, |state| {
            state.applied.values().any(|task| match &task.kind {
                TaskKind::File(file) => file.content.expose().contains(&password),
                _ => false,
            })
        });
        assert!(kept, "what was copied holds the key");
        connect::release(&mut sessions);
    }

    #[test]
    fn the_keeper_sees_the_same_cluster_and_others_answer_backups_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut secrets = Secrets::load(&folder.path().join("secrets.json")).unwrap();
        let mut topology = sample::three_hosts();
        ensure_key(&topology, &mut secrets).unwrap();
        assert!(keeper(&topology).is_none() && secrets.iter().next().is_none(), "nothing without a schedule");
        topology.backup.schedule = "0 3 * * *".into();
        topology.backup.drill = "0 4 * * 0".into();
        topology.backup.time_zone = "Asia/Shanghai".into();
        topology.backup.repository = serde_json::json!(
            {"type": "sftp", "host": "10.77.0.99", "path": "/b", "key": "/root/key", "known_hosts_file": "/root/known"});
        ensure_key(&topology, &mut secrets).unwrap();
        let keeper = keeper(&topology).unwrap().clone();
        let text = serde_json::to_string(&seen(&topology, &keeper)).unwrap();
        let read = load_stored(&text, "").unwrap();
        assert_eq!(read.backup.schedule, topology.backup.schedule);
        assert_eq!(
            (read.backup.drill, read.backup.time_zone),
            (topology.backup.drill.clone(), "Asia/Shanghai".into())
        );
        assert_eq!(read.backup.retention, topology.backup.retention);
        assert!(read.backup.repository["key"].as_str().unwrap().starts_with("/var/lib/maxim/backup/state/"));
        for host in &read.hosts {
            assert_eq!(matches!(host.connection, Connection::Local), host.name == keeper.name);
        }
        let artefacts = sample_artefacts("/opt/maxim");
        for host in &topology.hosts {
            let line = authorized_line(&topology, host, &artefacts, &secrets).unwrap();
            if host.name == keeper.name {
                assert_eq!(line, "");
            } else {
                assert!(
                    line.starts_with(&format!("restrict,from=\"{}\",command=\"", keeper.address)),
                    "{line}"
                );
                assert!(
                    line.contains(" agent --backup-only /var/lib/maxim /run/maxim\" ssh-ed25519 AAAA"),
                    "{line}"
                );
            }
        }
    }
}
