//! State of a cluster on the control host: one private folder with the topology as applied, secrets, authority,
//! pinned keys, journal. Every file is written whole to a temporary name, synced and renamed.

use crate::error::EngineError;
use std::path::{Path, PathBuf};

/// The folder of one cluster. Having one opens nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
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

    /// The topology as last applied; none when nothing was installed from here.
    pub fn topology(&self) -> Result<Option<String>, EngineError> {
        match std::fs::read_to_string(self.path.join("topology.yaml")) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(EngineError::failed(
                "state",
                format!("{}: {error}", self.path.join("topology.yaml").display()),
            )),
        }
    }
}
