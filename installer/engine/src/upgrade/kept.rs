//! The tasks of a version as they were rendered: what a rollback applies.
//!
//! Kept on the control host after every install (`tasks/applied.json`) and at the begin of an upgrade (`previous.json`,
//! `next.json`), 0600, because they hold secrets. Rendering the version before anew would need its playbooks, its
//! templates and its program; its tasks say to the byte what stood on the hosts.

use crate::error::EngineError;
use crate::files;
use crate::run::Session;
use crate::state::{Installed, StateDir};
use maxim_model::Secret;
use maxim_model::task::{Task, TaskKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Of what is installed.
pub(super) const APPLIED: &str = "applied";
/// Of what an upgrade goes from.
pub(super) const PREVIOUS: &str = "previous";
/// Of what an upgrade goes to.
pub(super) const NEXT: &str = "next";

/// Of versions that an upgrade before this one went from or to, without being finalized: folders only.
pub(super) const FORMER: &str = "former";

/// The tasks of every host, and what they make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub installed: Installed,
    pub hosts: BTreeMap<String, Vec<Task>>,
}

impl Kept {
    /// Of these hosts.
    pub fn new(installed: Installed, sessions: &[Session<'_>], tasks: &[Vec<Task>]) -> Self {
        let hosts = sessions.iter().map(|session| session.host.name.clone()).zip(tasks.iter().cloned());
        Self { installed, hosts: hosts.collect() }
    }

    /// Reads those of a kind.
    pub fn load(state: &StateDir, kind: &str) -> Result<Option<Self>, EngineError> {
        let path = state.file("tasks").join(format!("{kind}.json"));
        files::read_optional(&path)?
            .map(|mut text| {
                let read = serde_json::from_str(&text)
                    .map_err(|error| EngineError::failed("state", format!("{}: {error}", path.display())));
                zeroize::Zeroize::zeroize(&mut text);
                read
            })
            .transpose()
    }

    /// Writes them as a kind.
    pub fn save(&self, state: &StateDir, kind: &str) -> Result<(), EngineError> {
        let folder = state.file("tasks");
        files::private_folder(&folder)?;
        let mut text =
            serde_json::to_vec(self).map_err(|error| EngineError::failed("state", error.to_string()))?;
        let written = files::write_whole(&folder.join(format!("{kind}.json")), &text, 0o600);
        zeroize::Zeroize::zeroize(&mut text);
        written
    }

    /// Forgets those of a kind.
    pub fn remove(state: &StateDir, kind: &str) -> Result<(), EngineError> {
        let path = state.file("tasks").join(format!("{kind}.json"));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(EngineError::failed("state", format!("{}: {error}", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// Refuses to take these for what is on the hosts, when another control host has installed since: it keeps the tasks.
    pub fn refuse_when_others_installed(&self, state: &StateDir, step: &str) -> Result<(), EngineError> {
        let installed = state.installed()?.unwrap_or_default();
        if self.installed.generation == installed.generation {
            return Ok(());
        }
        Err(EngineError::refused(
            step,
            "another control host has installed since, and what leads back from it is not known here",
        )
        .hint(format!(
            "run `maxim.ctl install` here with the bundle of version {}, then this command again",
            installed.version
        )))
    }

    /// The first host and task in which those of another run differ; no task: the host is only in one of them. A
    /// certificate counts by its place: the private authority renews it from time to time.
    pub fn first_difference(&self, other: &Self) -> Option<(String, String)> {
        let names = self.hosts.keys().chain(other.hosts.keys());
        for host in names {
            let (Some(mine), Some(theirs)) = (self.hosts.get(host), other.hosts.get(host)) else {
                return Some((host.clone(), String::new()));
            };
            let (mine, theirs): (Vec<Task>, Vec<Task>) =
                (mine.iter().map(lasting).collect(), theirs.iter().map(lasting).collect());
            let find = |tasks: &[Task], id: &str| tasks.iter().find(|task| task.id == id).cloned();
            for task in mine.iter().chain(&theirs) {
                if find(&mine, &task.id) != find(&theirs, &task.id) {
                    return Some((host.clone(), task.id.clone()));
                }
            }
        }
        None
    }

    /// The tasks of a host.
    pub fn tasks_of(&self, host: &str) -> Result<Vec<Task>, EngineError> {
        self.hosts.get(host).cloned().ok_or_else(|| {
            EngineError::refused("upgrade", "the host was not part of what is kept of this version")
                .on(host)
                .hint("hosts are added and removed before or after an upgrade, not in the middle")
        })
    }
}

/// The folder that is of the version of a task alone.
pub(super) fn folder(task: &Task) -> Option<String> {
    match &task.kind {
        TaskKind::Image(image) | TaskKind::Archive(image) => Some(image.path.clone()),
        TaskKind::Binary(binary) if !binary.in_place => {
            binary.path.rsplit_once('/').map(|(folder, _)| folder.to_owned())
        }
        _ => None,
    }
}

/// Notes, before the tasks of the last upgrade are overwritten, which folders it may have left on hosts: those of a bundle
/// that was taken back, or of a version that was never finalized. Finalizing removes what of them nothing uses.
pub(super) fn remember_folders(state: &StateDir) -> Result<(), EngineError> {
    let mut former = Kept::load(state, FORMER)?;
    for kind in [PREVIOUS, NEXT] {
        let Some(kept) = Kept::load(state, kind)? else { continue };
        let former =
            former.get_or_insert_with(|| Kept { installed: kept.installed.clone(), hosts: BTreeMap::new() });
        for (host, tasks) in kept.hosts {
            let known = former.hosts.entry(host).or_default();
            for task in tasks {
                let new =
                    folder(&task).filter(|path| known.iter().all(|old| folder(old).as_ref() != Some(path)));
                if new.is_some() {
                    known.push(task);
                }
            }
        }
    }
    former.map_or(Ok(()), |former| former.save(state, FORMER))
}

/// A task without what changes by itself.
fn lasting(task: &Task) -> Task {
    let mut task = task.clone();
    if let TaskKind::Certificate(certificate) = &mut task.kind {
        certificate.certificate.clear();
        certificate.key = Secret::default();
    }
    task
}

/// Keeps what an install has made.
pub(crate) fn keep(
    state: &StateDir,
    installed: &Installed,
    sessions: &[Session<'_>],
    tasks: &[Vec<Task>],
) -> Result<(), EngineError> {
    Kept::new(installed.clone(), sessions, tasks).save(state, APPLIED)
}

/// The tasks that were applied to a host last; none when nothing was kept of it.
pub(crate) fn applied_tasks(state: &StateDir, host: &str) -> Result<Vec<Task>, EngineError> {
    Ok(Kept::load(state, APPLIED)?.and_then(|mut kept| kept.hosts.remove(host)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{APPLIED, FORMER, Kept, NEXT, PREVIOUS, remember_folders};
    use crate::sample::task;
    use crate::state::{Installed, StateDir};
    use maxim_model::Secret;
    use maxim_model::names::Stage;
    use maxim_model::task::{BinaryTask, CertificateTask, Task, TaskKind};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn tasks_are_kept_privately_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path());
        let kept = Kept { installed: Installed::default(), hosts: [("a".to_owned(), Vec::new())].into() };
        kept.save(&state, APPLIED).unwrap();
        let mode = folder.path().join("tasks/applied.json").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(Kept::load(&state, APPLIED).unwrap(), Some(kept.clone()));
        assert_eq!(kept.tasks_of("b").unwrap_err().exit_code(), 5);
        Kept::remove(&state, APPLIED).unwrap();
        Kept::remove(&state, APPLIED).unwrap();
        assert_eq!(Kept::load(&state, APPLIED).unwrap(), None);
    }

    #[test]
    fn folders_of_upgrades_that_were_never_finalized_are_remembered_without_anything_else() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path());
        remember_folders(&state).unwrap();
        assert_eq!(Kept::load(&state, FORMER).unwrap(), None);
        let program = |path: &str| Task {
            kind: TaskKind::Binary(BinaryTask {
                name: "maxim-im".into(),
                path: path.into(),
                sha256: String::new(),
                size: 1,
                in_place: false,
            }),
            ..task("im/program", Stage::Prepare)
        };
        let keep = |kind, path: &str| {
            let tasks = vec![program(path), task("im/config", Stage::Core)];
            let hosts = [("a".to_owned(), tasks)].into();
            Kept { installed: Installed::default(), hosts }.save(&state, kind).unwrap();
        };
        keep(PREVIOUS, "/opt/one/maxim-im");
        keep(NEXT, "/opt/two/maxim-im");
        remember_folders(&state).unwrap();
        keep(PREVIOUS, "/opt/two/maxim-im");
        keep(NEXT, "/opt/three/maxim-im");
        remember_folders(&state).unwrap();
        let former = Kept::load(&state, FORMER).unwrap().unwrap();
        let folders: Vec<_> = former.hosts["a"].iter().map(super::folder).collect();
        assert_eq!(folders, ["/opt/one", "/opt/two", "/opt/three"].map(|path| Some(path.to_owned())));
    }

    #[test]
    fn a_renewed_certificate_is_no_difference_and_everything_else_is() {
        let certificate = |path: &str, content: &str| Task {
            kind: TaskKind::Certificate(CertificateTask {
                certificate_path: path.into(),
                key_path: "/k".into(),
                certificate: content.into(),
                key: Secret::new(content),
                owner: String::new(),
                group: String::new(),
                key_mode: "0600".into(),
            }),
            ..task("im/certificate", Stage::Prepare)
        };
        let kept = |tasks: Vec<Task>| Kept {
            installed: Installed::default(),
            hosts: [("a".to_owned(), vec![task("x", Stage::Core)]), ("b".to_owned(), tasks)].into(),
        };
        let before = kept(vec![certificate("/c", "old")]);
        assert_eq!(before.first_difference(&kept(vec![certificate("/c", "new")])), None);
        let differs = |other: &Kept| before.first_difference(other).unwrap();
        let named = |task: &str| ("b".to_owned(), task.to_owned());
        assert_eq!(differs(&kept(vec![certificate("/d", "old")])), named("im/certificate"));
        assert_eq!(differs(&kept(Vec::new())), named("im/certificate"));
        assert_eq!(differs(&kept(vec![certificate("/c", "old"), task("y", Stage::Core)])), named("y"));
        let mut fewer = before.clone();
        fewer.hosts.remove("b");
        assert_eq!((differs(&fewer), fewer.first_difference(&before)), (named(""), Some(named(""))));
    }
}
