//! Which folders of this host are ours, where the lock lies, and where pending restarts are remembered.
//!
//! Files are read for the engine, trees removed and artefacts found only below these folders. A scope that is too
//! wide (`/`, `/etc`, a home folder) is refused, so that a mistake elsewhere cannot become a removed system.

use crate::error::{Failure, Result};
use crate::files::absolute;
use std::path::{Path, PathBuf};

/// Folders that nobody's deployment may claim whole.
const NEVER_OURS: &[&str] = &[
    "/etc/systemd",
    "/etc/ssh",
    "/etc/security",
    "/etc/sysctl.d",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/local",
    "/usr/share",
    "/var/lib",
    "/var/log",
    "/var/cache",
    "/var/tmp",
    "/run/systemd",
    "/run/user",
    "/run/lock",
];

/// See the module's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    own_paths: Vec<PathBuf>,
    lock: PathBuf,
}

impl Default for Scope {
    /// That of the standard profile.
    fn default() -> Self {
        let own = ["/opt/maxim", "/etc/maxim", "/var/lib/maxim", "/var/log/maxim", "/run/maxim"];
        Self {
            own_paths: own.iter().map(PathBuf::from).collect(),
            lock: PathBuf::from("/run/maxim-lock.json"),
        }
    }
}

impl Scope {
    /// A scope as the engine names it.
    pub fn new(own_paths: &[String], lock: &str) -> Result<Self> {
        if own_paths.is_empty() {
            return Err(Failure::Invalid("a scope must name at least one folder".into()));
        }
        let own_paths = own_paths.iter().map(|path| checked(path)).collect::<Result<Vec<_>>>()?;
        Ok(Self { own_paths, lock: absolute(lock)? })
    }

    /// Our folders.
    pub fn own_paths(&self) -> &[PathBuf] {
        &self.own_paths
    }

    /// The lock file.
    pub fn lock(&self) -> &Path {
        &self.lock
    }

    /// Where pending restarts are remembered. Beside the lock: on a standard host that is a memory file system, and
    /// rightly so, because a restart of the host restarts every service.
    pub fn restarts(&self) -> PathBuf {
        crate::files::parent(&self.lock).join("maxim-restart")
    }

    /// Whether a path is below one of our folders (or is one). Links on the way are resolved, so that a link in a
    /// folder of ours cannot lead out.
    pub fn owns(&self, path: &Path) -> bool {
        let Some(real) = resolve(path) else { return false };
        self.own_paths.iter().any(|own| {
            let own = resolve(own).unwrap_or_else(|| own.clone());
            real.starts_with(&own)
        })
    }
}

/// The real path of something that may not exist: its nearest existing ancestor resolved, the rest as given.
fn resolve(path: &Path) -> Option<PathBuf> {
    let mut rest = Vec::new();
    let mut current = path.to_path_buf();
    loop {
        if let Ok(real) = current.canonicalize() {
            return Some(rest.iter().rev().fold(real, |path, part| path.join(part)));
        }
        if current.symlink_metadata().is_ok() {
            // A link to nowhere: where it leads cannot be told.
            return None;
        }
        rest.push(current.file_name()?.to_os_string());
        current.pop();
    }
}

fn checked(path: &str) -> Result<PathBuf> {
    let found = absolute(path)?;
    let depth = found.components().count() - 1;
    let forbidden = depth < 2
        || NEVER_OURS.iter().any(|never| Path::new(never) == found)
        || (depth == 2 && found.starts_with("/home"));
    if forbidden {
        return Err(Failure::refused(
            format!(
                "{path} cannot be a folder of a deployment: it belongs to the system or holds other things"
            ),
            "name a folder of its own, as /opt/maxim",
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::Scope;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    #[test]
    fn system_folders_are_refused() {
        for path in ["/", "/etc", "/opt", "/var/lib", "/usr/lib", "/home/anna", "relative", "/opt/../etc/x"] {
            assert!(Scope::new(&[path.to_owned()], "/run/x/lock").is_err(), "{path}");
        }
        assert!(Scope::new(&["/home/anna/maxim".to_owned()], "/home/anna/maxim/lock.json").is_ok());
        assert!(Scope::new(&[], "/run/lock.json").is_err());
    }

    #[test]
    fn a_link_does_not_lead_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("data")).unwrap();
        symlink("/etc", root.join("out")).unwrap();
        symlink("/nowhere/at/all", root.join("broken")).unwrap();
        let scope = Scope::new(&[root.to_string_lossy().into_owned()], "/run/lock.json").unwrap();
        assert!(scope.owns(&root.join("data/not/yet")));
        assert!(scope.owns(&root));
        assert!(!scope.owns(&root.join("out/passwd")));
        assert!(!scope.owns(&root.join("broken/x")));
        assert!(!scope.owns(Path::new("/etc/passwd")));
        assert!(!scope.owns(&folder.path().join("root2")));
    }
}
