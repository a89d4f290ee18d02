//! Files as they must always be written: whole, to a temporary name beside the target, synced, with owner and mode
//! set before the name is taken. A killed run leaves the old file or the new one, never half of one.
//!
//! Also: owners and groups by name, folders with their parents, and reading with a bound.

use crate::error::{Failure, Result};
use crate::place::Place;
use nix::unistd::{Gid, Group, Uid, User};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// What temporary names of ours begin with; the sweep of a folder knows them by it.
pub const TEMPORARY_PREFIX: &str = ".maxim-new-";

/// Owner, group and mode as numbers. `None` leaves the owner as whoever runs the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// User id.
    pub user: Option<u32>,
    /// Group id.
    pub group: Option<u32>,
    /// Permission bits.
    pub mode: u32,
}

impl Ownership {
    /// Resolves names; `mode` is an octal text as `"0640"`.
    pub fn resolve(owner: &str, group: &str, mode: &str) -> Result<Self> {
        let bits = parse_mode(mode)?;
        let user = if owner.is_empty() { None } else { Some(find_user(owner)?) };
        let group_id = match (group.is_empty(), user) {
            (false, _) => Some(find_group(group)?),
            (true, Some((_, primary))) => Some(primary),
            (true, None) => None,
        };
        Ok(Self { user: user.map(|(id, _)| id), group: group_id, mode: bits })
    }

    /// Only a mode.
    pub const fn mode(mode: u32) -> Self {
        Self { user: None, group: None, mode }
    }

    /// How what is there differs from what is wanted, in words; nothing when it does not.
    pub fn differences(&self, found: &fs::Metadata) -> Vec<String> {
        let mut differences = Vec::new();
        let mode = found.mode() & 0o7777;
        if mode != self.mode {
            differences.push(format!("mode {mode:04o} → {:04o}", self.mode));
        }
        if let Some(user) = self.user.filter(|&user| user != found.uid()) {
            differences.push(format!("owner {} → {}", user_name(found.uid()), user_name(user)));
        }
        if let Some(group) = self.group.filter(|&group| group != found.gid()) {
            differences.push(format!("group {} → {}", group_name(found.gid()), group_name(group)));
        }
        differences
    }

    /// Sets owner, group and mode of a file or folder that exists. It is opened first, by no link that could have been
    /// put on the way ([`Place`]), and nothing that has another name as well is given away.
    pub fn set(&self, path: &Path) -> Result<()> {
        let file = Place::of(path)?.open()?;
        let found = file.metadata().map_err(Failure::file("look at", path))?;
        if found.is_file() && found.nlink() > 1 {
            return Err(Failure::refused(
                format!("{} has another name elsewhere on this file system", path.display()),
                "look at who linked it and why; remove it, then run the command again",
            ));
        }
        self.set_on(&file, path)
    }

    /// The same for what is open; `path` is only shown.
    pub fn set_on(&self, file: &File, path: &Path) -> Result<()> {
        if self.user.is_some() || self.group.is_some() {
            fchown(file, self.user, self.group).map_err(Failure::file("set the owner of", path))?;
        }
        // After chown, which clears the set-id bits.
        file.set_permissions(Permissions::from_mode(self.mode))
            .map_err(Failure::file("set the mode of", path))
    }
}

/// An octal mode.
pub fn parse_mode(mode: &str) -> Result<u32> {
    u32::from_str_radix(mode, 8)
        .ok()
        .filter(|&bits| bits <= 0o7777 && !mode.is_empty())
        .ok_or_else(|| Failure::Invalid(format!("`{mode}` is not an octal file mode such as 0640")))
}

fn find_user(name: &str) -> Result<(u32, u32)> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        _ => Err(Failure::refused(
            format!("there is no user `{name}` on this host"),
            "its `user` task must come before the tasks that use it",
        )),
    }
}

fn find_group(name: &str) -> Result<u32> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        _ => Err(Failure::refused(
            format!("there is no group `{name}` on this host"),
            "its `user` task must come before the tasks that use it",
        )),
    }
}

fn user_name(id: u32) -> String {
    User::from_uid(Uid::from_raw(id)).ok().flatten().map_or_else(|| id.to_string(), |user| user.name)
}

fn group_name(id: u32) -> String {
    Group::from_gid(Gid::from_raw(id)).ok().flatten().map_or_else(|| id.to_string(), |group| group.name)
}

/// Refuses what is not an absolute path without `.` and `..`, or holds a NUL or a line break.
pub fn absolute(path: &str) -> Result<PathBuf> {
    let wrong = !path.starts_with('/')
        || path.contains(['\0', '\n'])
        || path.split('/').any(|part| part == "." || part == "..");
    if wrong {
        return Err(Failure::Invalid(format!(
            "`{}` is not an absolute path without `..`",
            path.escape_debug()
        )));
    }
    Ok(PathBuf::from(path))
}

/// The folder that holds a path.
pub fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Makes a folder's missing parents, mode 0755. Returns those that were made, outermost first.
pub fn make_parents(path: &Path) -> Result<Vec<PathBuf>> {
    let mut missing = Vec::new();
    let mut current = parent(path);
    while !current.exists() {
        missing.push(current.to_path_buf());
        current = parent(current);
    }
    missing.reverse();
    for folder in &missing {
        match fs::create_dir(Place::of(folder)?.near()) {
            Ok(()) => Ownership::mode(0o755).set(folder)?,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Failure::file("create the folder", folder)(error)),
        }
    }
    Ok(missing)
}

/// A temporary name beside a path.
pub fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    parent(path).join(format!("{TEMPORARY_PREFIX}{name}-{:08x}", rand::random::<u32>()))
}

/// Writes a whole file: temporary name, owner and mode, sync, rename, sync of the folder. All of it in a folder that is
/// held open and was reached by no link of somebody else.
pub fn write_atomic(path: &Path, content: &[u8], ownership: Ownership) -> Result<()> {
    make_parents(path)?;
    let place = Place::of(path)?;
    sweep(&place.near());
    let temporary = place.temporary();
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(Failure::file("create a file beside", path))?;
        file.write_all(content).map_err(Failure::file("write", path))?;
        ownership.set_on(&file, path)?;
        file.sync_all().map_err(Failure::file("sync", path))?;
        fs::rename(&temporary, place.near()).map_err(Failure::file("rename into place", path))?;
        place.sync()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Gives a finished temporary file or folder its name and syncs the folder that holds it.
pub fn commit(temporary: &Path, path: &Path) -> Result<()> {
    fs::rename(temporary, path).map_err(Failure::file("rename into place", path))?;
    sync_folder(parent(path))
}

/// Syncs a folder's entries.
pub fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|handle| handle.sync_all()).map_err(Failure::file("sync the folder", folder))
}

/// Removes temporaries that a killed run left beside a path, for that path only. Errors do not matter: a left-over
/// is untidy, not wrong.
pub fn sweep(path: &Path) {
    let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { return };
    let prefix = format!("{TEMPORARY_PREFIX}{name}-");
    let Ok(entries) = fs::read_dir(parent(path)) else { return };
    for entry in entries.flatten() {
        let found = entry.file_name().to_string_lossy().into_owned();
        // Exactly our eight hexadecimal digits after the name, so that `a` never sweeps a temporary of `a-b`.
        if found.strip_prefix(&prefix).is_some_and(|rest| rest.len() == 8) {
            remove_any(&entry.path());
        }
    }
}

/// Removes a file, link or tree, whatever it is; errors do not matter.
pub fn remove_any(path: &Path) {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let _ = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

/// Reads a whole file of at most `bound` bytes; `None` when there is none.
pub fn read_bounded(path: &Path, bound: u64) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::file("read", path)(error)),
    };
    let mut content = Vec::new();
    file.take(bound + 1).read_to_end(&mut content).map_err(Failure::file("read", path))?;
    if content.len() as u64 > bound {
        return Err(Failure::refused(
            format!("{} is larger than {bound} bytes", path.display()),
            "look at it on the host itself",
        ));
    }
    Ok(Some(content))
}

/// A small text of `/proc`, `/sys` or `/etc`, trimmed; empty when it cannot be read.
pub fn read_text(path: impl AsRef<Path>) -> String {
    read_bounded(path.as_ref(), 4 << 20)
        .ok()
        .flatten()
        .map_or_else(String::new, |bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// Copies with errors of the two sides told apart: a broken input is not the file's fault.
pub fn copy(from: &mut impl Read, to: &mut impl Write, path: &Path) -> Result<u64> {
    let mut buffer = vec![0_u8; 128 << 10];
    let mut total = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(Failure::Content {
                    what: format!("the content of {} is broken: {error}", path.display()),
                    hint: "the bundle is damaged or the connection broke; verify the bundle with \
                           `maxim.ctl bundle verify` and run the command again"
                        .into(),
                });
            }
        };
        to.write_all(&buffer[..count]).map_err(Failure::file("write", path))?;
        total += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::{Ownership, absolute, parse_mode, read_bounded, sweep, write_atomic};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn writes_whole_with_mode_and_leaves_no_temporary() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file");
        write_atomic(&path, b"one", Ownership::mode(0o640)).unwrap();
        write_atomic(&path, b"two", Ownership::mode(0o600)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn left_overs_of_a_killed_run_are_swept_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let mine = folder.path().join(".maxim-new-a-0123abcd");
        let other = folder.path().join(".maxim-new-a-b-0123abcd");
        fs::write(&mine, b"").unwrap();
        fs::write(&other, b"").unwrap();
        sweep(&folder.path().join("a"));
        assert!(!mine.exists() && other.exists());
    }

    #[test]
    fn failed_write_removes_its_temporary() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write_atomic(&path, b"x", Ownership::mode(0o600)).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn modes_paths_and_bounds_are_checked() {
        assert_eq!(parse_mode("0750").unwrap(), 0o750);
        for wrong in ["", "9", "rwx", "17777"] {
            assert!(parse_mode(wrong).is_err(), "{wrong}");
        }
        for wrong in ["a", "/a/../b", "./a", "/a\n", ""] {
            assert!(absolute(wrong).is_err(), "{wrong}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, b"12345").unwrap();
        assert!(read_bounded(&path, 4).is_err());
        assert_eq!(read_bounded(&path, 5).unwrap().unwrap(), b"12345");
        assert!(read_bounded(&folder.path().join("none"), 5).unwrap().is_none());
        assert!(Ownership::resolve("no-such-user-here", "", "0600").is_err());
    }
}
