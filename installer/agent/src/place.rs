//! A name in a folder that is held open, so that nobody can put another folder in its place meanwhile.
//!
//! Some of our folders belong to a service's user, and the agent is root. Whoever has taken over that service could
//! put a link where a file or a folder of ours was, and have root write, or give away, what lies behind it. So the way
//! to a file is walked one folder at a time, links on it are followed only where root (or whoever runs the agent) has
//! made them in a folder of theirs, and the last name is then used relative to the open folder.
//!
//! The walk needs no kernel newer than 4.18 (`openat2` would be 5.6) and the `/proc` that the agent needs anyway.

use crate::error::{Failure, Result};
use crate::files::{TEMPORARY_PREFIX, parent};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// Links on the way at most; the kernel's own bound.
const LINKS: usize = 40;

/// See the module's text.
pub struct Place {
    folder: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl Place {
    /// Walks to the folder that holds a path; it must be there.
    pub fn of(path: &Path) -> Result<Self> {
        let folder = walk(parent(path)).map_err(|errno| refusal(path, errno))?;
        let name = path.file_name().unwrap_or(OsStr::new(".")).to_os_string();
        Ok(Self { folder, name, path: path.to_path_buf() })
    }

    /// The same; none when there is no such folder.
    pub fn existing(path: &Path) -> Result<Option<Self>> {
        match Self::of(path) {
            Ok(place) => Ok(Some(place)),
            Err(Failure::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The path for the kernel: valid while this lives, and not to be shown.
    pub fn near(&self) -> PathBuf {
        self.folder().join(&self.name)
    }

    /// A temporary name beside it, likewise.
    pub fn temporary(&self) -> PathBuf {
        let name = self.name.to_string_lossy();
        self.folder().join(format!("{TEMPORARY_PREFIX}{name}-{:08x}", rand::random::<u32>()))
    }

    /// The folder, likewise.
    fn folder(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd()))
    }

    /// Opens what has the name for reading; a link in its place is refused, and nothing is waited for.
    pub fn open(&self) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(self.near())
            .map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
                Some(errno @ Errno::ELOOP) => refusal(&self.path, errno),
                _ => Failure::file("open", &self.path)(error),
            })
    }

    /// Syncs the folder's entries.
    pub fn sync(&self) -> Result<()> {
        File::open(self.folder())
            .and_then(|folder| folder.sync_all())
            .map_err(Failure::file("sync the folder", parent(&self.path)))
    }
}

fn refusal(path: &Path, errno: Errno) -> Failure {
    if errno == Errno::ELOOP {
        return Failure::refused(
            format!("{}: a symbolic link stands on the way that is not root's", path.display()),
            "look at who made it and why; remove it, then run the command again",
        );
    }
    Failure::errno("open the folder of", path)(errno)
}

/// Opens a folder. `ELOOP`: a link that is not to be trusted.
fn walk(path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let root = || open("/", flags, Mode::empty());
    let mut folder = root()?;
    let mut rest: VecDeque<OsString> = names(path);
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        match openat(&folder, name.as_os_str(), flags, Mode::empty()) {
            Ok(next) => folder = next,
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                let link = fstatat(&folder, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                if link.st_mode & 0o170_000 != 0o120_000 {
                    return Err(Errno::ENOTDIR);
                }
                links += 1;
                if links > LINKS || !is_trusted(&link) || !is_trusted(&fstat(&folder)?) {
                    return Err(Errno::ELOOP);
                }
                let target = PathBuf::from(readlinkat(&folder, name.as_os_str())?);
                if target.is_absolute() {
                    folder = root()?;
                }
                for part in names(&target).into_iter().rev() {
                    rest.push_front(part);
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(folder)
}

/// Owned by root, or by whoever runs the agent.
fn is_trusted(found: &FileStat) -> bool {
    found.st_uid == 0 || found.st_uid == nix::unistd::geteuid().as_raw()
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_os_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Place;
    use crate::error::Failure;
    use std::fs;
    use std::os::unix::fs::{lchown, symlink};

    #[test]
    fn our_own_links_are_followed_and_those_of_a_service_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let place = |path: &str| Place::of(&folder.path().join(path));
        fs::create_dir_all(folder.path().join("real/inside")).unwrap();
        fs::write(folder.path().join("real/file"), "x").unwrap();
        symlink("real", folder.path().join("ours")).unwrap();
        symlink(folder.path().join("real"), folder.path().join("absolute")).unwrap();
        for path in ["real/file", "ours/file", "absolute/inside/../file"] {
            assert_eq!(fs::read(place(path).unwrap().near()).unwrap(), b"x", "{path}");
        }
        assert!(Place::existing(&folder.path().join("none/file")).unwrap().is_none());
        assert!(Place::of(&folder.path().join("real/file/x")).is_err());
        // The last name is never followed.
        symlink("file", folder.path().join("real/link")).unwrap();
        assert!(matches!(place("real/link").unwrap().open(), Err(Failure::Refused { .. })));
        assert!(place("real/file").unwrap().open().is_ok());

        if nix::unistd::geteuid().is_root() {
            let theirs = folder.path().join("theirs");
            symlink("real", &theirs).unwrap();
            lchown(&theirs, Some(65_534), Some(65_534)).unwrap();
            assert!(matches!(place("theirs/file"), Err(Failure::Refused { .. })));
        }
    }
}
