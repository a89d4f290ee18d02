//! From playbooks to tasks: every string is a tera template, rendered here on the control side.
//!
//! A playbook entry becomes a [`Task`] in these steps: its `when` is evaluated; with `for_each` the rest is done once
//! for each `item`; every string of its body is rendered (a string that is one single `{{ expression }}` keeps the
//! type of the expression: number, bool, list, object); `template: FILE` becomes `content`; the result is read
//! strictly as the kind of task it names. Undefined variables, unknown fields, unknown templates and secrets that
//! would be visible are errors that name the playbook and the task.
//!
//! # The context that playbooks and templates see
//!
//! | name | what |
//! |---|---|
//! | `cluster` | `{name, domain, profile, version}` |
//! | `host` | `{name, address, roles: [..], local: bool, facts: {..}}` of the host that is rendered for |
//! | `hosts` | all hosts: `{name, address, roles}` |
//! | `topology` | the whole resolved topology |
//! | `paths` | `{software, configuration, data, logs, run}` |
//! | `root` | embedded: the root folder; standard: empty |
//! | `ports` | `{xmpp, xmpp_tls, https, console, metrics, mariadb, postgresql, redis}` |
//! | `listen`, `listen_host` | address that services for clients bind on; the second as it stands before `:port` (IPv6 in brackets) |
//! | `capacity` | `{users, messages_per_second}` |
//! | `settings` | every setting by its dotted name, `settings["im.max_stanza_bytes"]`, defaults filled in |
//! | `sizing` | numbers of [`crate::sizing`]: bytes unless the name says otherwise |
//! | `manager` | the `manager` of unit tasks: `manager: "{{ manager }}"` |
//! | `user`, `group` | the service user (`maxim`; embedded: empty, which means whoever runs the agent) |
//! | `console_user` | the console's own user, whose group has the same name; embedded: empty |
//! | `made` | file on the host that remembers what was made by us and could have been there before: the `made` of `user` and `line` tasks |
//! | `artefacts` | by name (`mariadb`, `postgresql`, `redis`, `maxim-im`, `maxim-console`, `maxim-ctl`, `web`): `{name, version, artefact, path, sha256, size, unpacked_size, in_place}`; write `artefacts["maxim-im"].path`. `web` is absent when there is no web chat |
//! | `endpoints` | `database {engine, host, address, port, local, remote_clients, name, user}`, `redis {kind, host, address, port, local, remote_clients, user}`, both with `external` and `authority` (PEM of an external server's authority; empty: no TLS), `im: [address..]`, `im_hosts: [{name, address}..]`; `local`: on this host, use the socket; `remote_clients`: an IM host elsewhere connects to it, so that it must listen and speak TLS |
//! | `sockets` | `{im_admin, mariadb, postgresql, redis}`: paths (`postgresql`: folder) below `paths.run` |
//! | `secrets` | by name, made on first use: `database_im_password`, `redis_password`, `console_admin_password`, `console_session_key`, … |
//! | `certificates` | by component with that role on this host (`im`, `console`, `mariadb`, `postgresql`, `redis`): `{certificate, key}` |
//! | `ca_certificate` | PEM of the cluster's authority |
//! | `console` | standard profile, empty texts elsewhere. On the console's host: `{topology, known_hosts, state}` (files of its state folder; its key is `secrets.console_ssh_key`). On the others: `{authorized_key, marker}`, one line that admits the console's key to an agent that may only be looked at, and its last word |
//! | `backup` | `{here, scheduled, calendars: [..], state_home}`: whether this host keeps the repository, and when runs by the schedule start from it |
//! | `peers` | addresses of the other hosts |
//! | `purge` | uninstall only: remove data too |
//! | `item` | inside `for_each` |
//!
//! A `file` or `unit` whose content holds a secret must be `sensitive: true` (a unit can never hold one).

mod body;
pub(crate) mod console;
pub(crate) mod context;

pub use body::Renderer;
pub use context::{HostInput, RenderInput, context_for};

use crate::error::EngineError;
use crate::playbooks::Library;
use maxim_model::names::Profile;
use maxim_model::task::{Task, TaskKind};
use maxim_model::topology::Host;

/// What is made of a playbook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Its `install` list.
    Install,
    /// Its `uninstall` list, components in reverse order.
    Uninstall,
}

/// Renders all tasks of one host.
pub fn tasks_for_host(
    library: &Library,
    profile: Profile,
    host: &Host,
    context: &serde_json::Value,
    secrets: &[String],
    purpose: Purpose,
) -> Result<Vec<Task>, EngineError> {
    let mut renderer = Renderer::new(library, context, secrets)?;
    let mut tasks = Vec::new();
    let playbooks: Vec<_> = match purpose {
        Purpose::Install => library.for_host(profile, &host.roles).collect(),
        Purpose::Uninstall => library.for_host(profile, &host.roles).rev().collect(),
    };
    for (path, playbook) in playbooks {
        let entries = match purpose {
            Purpose::Install => &playbook.install,
            Purpose::Uninstall => &playbook.uninstall,
        };
        for entry in entries {
            tasks.extend(
                renderer
                    .tasks(&playbook.component, entry)
                    .map_err(|cause| wrong(path, &entry.id, &host.name, cause))?,
            );
        }
    }
    for (index, task) in tasks.iter().enumerate() {
        if tasks[..index].iter().any(|earlier| earlier.id == task.id) {
            return Err(wrong("playbooks", &task.id, &host.name, "two tasks have this id".into()));
        }
    }
    // Stable: the order of the playbooks holds within a stage.
    if purpose == Purpose::Install {
        tasks.sort_by_key(|task| task.stage);
    }
    Ok(tasks)
}

fn wrong(path: &str, task: &str, host: &str, cause: String) -> EngineError {
    EngineError::failed("render", format!("playbooks/{path}, task `{task}`: {cause}"))
        .on(host)
        .hint("the playbook or a template it uses is wrong; report this with the line above")
}

/// Services that the tasks of a host keep, in order of their stages.
pub fn services(tasks: &[Task]) -> Vec<String> {
    tasks
        .iter()
        .filter_map(|task| match &task.kind {
            TaskKind::Unit(unit) if unit.running => Some(unit.name.clone()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{HostInput, Purpose, RenderInput, context_for, tasks_for_host};
    use crate::authority::Authority;
    use crate::delivery::{Artefacts, sample_artefacts};
    use crate::playbooks::Library;
    use crate::sample;
    use crate::secrets::Secrets;
    use maxim_model::names::Stage;
    use maxim_model::task::{Task, TaskKind};
    use maxim_model::topology::{Database, Topology};
    use std::path::Path;
    use time::OffsetDateTime;

    fn render(
        topology: &Topology,
        root: Option<&Path>,
        purpose: Purpose,
        purge: bool,
    ) -> Vec<(String, Vec<Task>)> {
        let library = Library::embedded().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut secrets = Secrets::load(&folder.path().join("secrets.json")).unwrap();
        let mut authority =
            Authority::load(folder.path(), &topology.name, OffsetDateTime::now_utc()).unwrap();
        let artefacts: Artefacts = sample_artefacts(&topology.paths.software);
        let names = library.secret_names();
        topology
            .hosts
            .iter()
            .map(|host| {
                let facts = sample::sound_facts(topology, 8 << 30);
                let input = RenderInput {
                    topology,
                    root,
                    artefacts: &artefacts,
                    secret_names: &names,
                    purge,
                    state_home: "/root/.local/share",
                    known_hosts: "",
                };
                let context =
                    context_for(&input, &HostInput { host, facts: &facts }, &mut secrets, &mut authority)
                        .unwrap();
                let values: Vec<String> =
                    secrets.iter().map(|(_, secret)| secret.expose().to_owned()).collect();
                let tasks = tasks_for_host(&library, topology.profile, host, &context, &values, purpose)
                    .unwrap_or_else(|error| panic!("{} on {}", error.cause, error.host));
                (host.name.clone(), tasks)
            })
            .collect()
    }

    fn every_way(topology: &Topology, root: Option<&Path>) -> Vec<(String, Vec<Task>)> {
        for purge in [false, true] {
            for (host, tasks) in render(topology, root, Purpose::Uninstall, purge) {
                assert!(!tasks.is_empty(), "{host}: nothing is removed");
            }
        }
        render(topology, root, Purpose::Install, false)
    }

    #[test]
    fn every_playbook_renders() {
        let mut topologies = vec![sample::single_host(), sample::three_hosts()];
        let mut postgresql = sample::three_hosts();
        postgresql.database = Database::Postgresql;
        postgresql.hosts[1].roles = vec![maxim_model::names::Role::Postgresql];
        topologies.push(postgresql);
        for topology in &topologies {
            for (host, tasks) in every_way(topology, None) {
                assert!(!tasks.is_empty(), "{host}: nothing is installed");
                assert!(tasks.is_sorted_by_key(|task| task.stage), "{host}: stages are in order");
            }
        }
    }

    #[test]
    fn the_embedded_playbooks_render_and_stay_below_their_root() {
        let root = Path::new("/home/anna/.local/share/maxim");
        let hosts = every_way(&sample::embedded(root), Some(root));
        let tasks = &hosts[0].1;
        for task in tasks {
            let path = match &task.kind {
                TaskKind::Directory(directory) => &directory.path,
                TaskKind::File(file) => &file.path,
                TaskKind::Binary(binary) => &binary.path,
                TaskKind::Certificate(certificate) => &certificate.key_path,
                _ => continue,
            };
            assert!(path.starts_with("/home/anna/.local/share/maxim"), "{}: {path}", task.id);
        }
        let units: Vec<_> = tasks
            .iter()
            .filter(|task| matches!(task.kind, TaskKind::Unit(_)))
            .map(|task| task.stage)
            .collect();
        assert_eq!(units, [Stage::Core, Stage::Console]);
    }
}
