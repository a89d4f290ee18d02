//! State of a cluster on the control host: one private folder with the topology as applied, secrets, authority,
//! pinned keys, journal. Every file is written whole to a temporary name, synced and renamed.
//!
//! What is measured on hosts decides what is done; what stands here is what cannot be measured (secrets, wanted
//! versions) and what helps a person (journal, first account).

pub mod copy;

use crate::error::EngineError;
use crate::files;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The folder of one cluster. Having one opens nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

/// What was installed, `state.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// Counts installs that changed something.
    pub generation: u64,
    /// Version of Maxim that installed last.
    pub version: String,
    /// RFC 3339.
    pub installed_at: String,
    /// Wanted version by component.
    pub versions: BTreeMap<String, String>,
    /// Wanted artefact by component, as `mariadb-11.8.6-0f3a1b2c3d4e`.
    pub artefacts: BTreeMap<String, String>,
    /// The first account was made.
    #[serde(default)]
    pub account_created: bool,
    /// The agent's program that hosts have.
    #[serde(default)]
    pub agent: Option<AgentProgram>,
}

/// The program that hosts have as the agent's copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentProgram {
    /// Its version.
    pub version: String,
    /// SHA-256, hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Held while an action changes a cluster from this control host; released on drop and by the death of the process.
#[derive(Debug)]
pub struct ControlLock {
    _file: File,
}

impl StateDir {
    /// The folder of a cluster below a folder of clusters (`~/.local/share/maxim/clusters/NAME`).
    pub fn of_cluster(clusters: &Path, name: &str) -> Self {
        Self { path: clusters.join(name) }
    }

    /// The folder of an embedded deployment (`ROOT/cluster`).
    pub fn embedded(root: &Path) -> Self {
        Self { path: root.join("cluster") }
    }

    /// A folder as given.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where the clusters of this user lie (`$XDG_DATA_HOME/maxim/clusters`, else `~/.local/share/…`).
    pub fn default_clusters() -> Result<PathBuf, EngineError> {
        let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let base = base.or_else(|| {
            std::env::var_os("HOME")
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .map(|home| home.join(".local/share"))
        });
        base.map(|base| base.join("maxim/clusters")).ok_or_else(|| {
            EngineError::usage("state", "neither HOME nor XDG_DATA_HOME is set")
                .hint("set HOME, or give the folder with --root")
        })
    }

    /// Names of the clusters that have a topology below a folder of clusters, sorted.
    pub fn list(clusters: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(clusters)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().join("topology.yaml").is_file())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the folder when it is missing (0700).
    pub fn create(&self) -> Result<(), EngineError> {
        files::private_folder(&self.path)
    }

    /// Removes the folder with all in it; with the last cluster `maxim/clusters` goes, too: a host that was installed
    /// locally is left as it was.
    pub fn remove(&self) -> Result<(), EngineError> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(EngineError::failed("state", format!("{}: {error}", self.path.display())));
            }
            _ => {}
        }
        for (folder, name) in self.path.ancestors().skip(1).zip(["clusters", "maxim"]) {
            // Only ours, and only when nothing is left in it; the keys of a developer, for one, stay.
            if folder.file_name() != Some(OsStr::new(name)) || std::fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The topology as last applied; none when nothing was installed from here.
    pub fn topology(&self) -> Result<Option<String>, EngineError> {
        files::read_optional(&self.file("topology.yaml"))
    }

    /// Keeps the topology as applied.
    pub fn save_topology(&self, text: &str) -> Result<(), EngineError> {
        if self.topology()?.as_deref() == Some(text) {
            return Ok(());
        }
        self.create()?;
        files::write_whole(&self.file("topology.yaml"), text.as_bytes(), 0o600)
    }

    /// What was installed; none when nothing was.
    pub fn installed(&self) -> Result<Option<Installed>, EngineError> {
        let path = self.file("state.json");
        files::read_optional(&path)?
            .map(|text| {
                serde_json::from_str(&text)
                    .map_err(|error| EngineError::failed("state", format!("{}: {error}", path.display())))
            })
            .transpose()
    }

    /// Keeps what was installed.
    pub fn save_installed(&self, installed: &Installed) -> Result<(), EngineError> {
        let text = serde_json::to_string_pretty(installed)
            .map_err(|error| EngineError::failed("state", error.to_string()))?;
        files::write_whole(&self.file("state.json"), text.as_bytes(), 0o600)
    }

    /// Nothing is installed any more.
    pub(crate) fn forget_installed(&self) -> Result<(), EngineError> {
        let path = self.file("state.json");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(EngineError::failed("state", format!("{}: {error}", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// Takes the lock of this control host for an action that changes the cluster; refused (exit code 5), naming
    /// the owner, when another process has it. `owner` is who asks, as `user@machine, pid 812, install`.
    pub fn lock(&self, owner: &str) -> Result<ControlLock, EngineError> {
        self.create()?;
        let path = self.file("lock");
        let failed =
            |error: &std::io::Error| EngineError::failed("lock", format!("{}: {error}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who it is only makes the message better; the refusal stands without it.
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() { "another process" } else { holder.trim() };
                return Err(EngineError::refused(
                    "lock",
                    format!("this cluster is being worked on by {holder}"),
                )
                .hint("wait until it is done; its end releases the lock"));
            }
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
        // Not replaced by rename: the lock is on this very file.
        file.set_len(0).map_err(|error| failed(&error))?;
        file.rewind().map_err(|error| failed(&error))?;
        file.write_all(owner.as_bytes()).map_err(|error| failed(&error))?;
        Ok(ControlLock { _file: file })
    }
}

/// Who runs this process, as `user@machine, pid 812, install`.
pub(crate) fn owner(action: &str) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .ok()
        .flatten()
        .map_or_else(|| nix::unistd::geteuid().to_string(), |user| user.name);
    let machine = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "unknown".into());
    format!("{user}@{machine}, pid {}, {action}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::{Installed, StateDir};
    use crate::error::Class;

    #[test]
    fn the_second_owner_is_refused_and_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::of_cluster(folder.path(), "acme");
        let held = state.lock("anna@control, pid 7, install").unwrap();
        let error = state.lock("bob@control, pid 8, install").unwrap_err();
        assert_eq!(error.class, Class::Refused);
        assert!(error.cause.contains("anna@control, pid 7"), "{error}");
        drop(held);
        state.lock("bob@control, pid 8, install").unwrap();
    }

    #[test]
    fn topology_and_versions_are_kept_and_listed() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::of_cluster(folder.path(), "acme");
        assert_eq!((state.topology().unwrap(), state.installed().unwrap()), (None, None));
        assert!(StateDir::list(folder.path()).is_empty());
        state.save_topology("name: acme\n").unwrap();
        let installed = Installed { generation: 3, ..Installed::default() };
        state.save_installed(&installed).unwrap();
        assert_eq!(StateDir::list(folder.path()), ["acme"]);
        assert_eq!(state.installed().unwrap(), Some(installed));
        state.remove().unwrap();
        state.remove().unwrap();
        assert!(StateDir::list(folder.path()).is_empty());
        assert!(folder.path().exists(), "a folder of another name is not ours");
    }

    #[test]
    fn the_last_cluster_takes_the_folders_of_clusters_along() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, clusters) = (folder.path().join("maxim"), folder.path().join("maxim/clusters"));
        let both = ["one", "two"].map(|name| StateDir::of_cluster(&clusters, name));
        for state in &both {
            state.create().unwrap();
        }
        both[0].remove().unwrap();
        assert!(clusters.exists());
        std::fs::create_dir(ours.join("keys")).unwrap();
        both[1].remove().unwrap();
        assert!(!clusters.exists() && ours.join("keys").exists());
        both[1].create().unwrap();
        std::fs::remove_dir(ours.join("keys")).unwrap();
        both[1].remove().unwrap();
        assert!(!ours.exists() && folder.path().exists());
    }
}
