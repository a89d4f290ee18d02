//! What a host's disk has become, compared with its bare base system.
//!
//! The upper folder of the overlay holds whatever was written, so looking at it is quick and misses nothing.
//! A file that was copied up and is the same as before counts as unchanged; a removed one is "gone".
//! Times are not compared. Files that a running Debian changes by itself are left out ([`VOLATILE`]).

use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Beginnings of paths that change on a machine where nobody does anything.
const VOLATILE: &[&str] = &[
    "/run/",
    "/var/log/",
    "/var/cache/",
    "/var/tmp/systemd-private-",
    "/tmp/systemd-private-",
    "/tmp/.",
    "/var/lib/systemd/",
    "/var/lib/dbus",
    "/var/lib/private",
    "/var/tmp",
    "/etc/machine-id",
    "/etc/.pwd.lock",
    "/etc/.updated",
    "/var/.updated",
    "/etc/resolv.conf",
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
    "/root/.bash_history",
    "/var/lib/sudo/",
    "/etc/ld.so.cache",
];

/// One path that differs from the base system.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Gone,
    Folder { mode: u32, owner: (u32, u32) },
    File { mode: u32, owner: (u32, u32), hash: String },
    Link { target: PathBuf },
    Other { mode: u32 },
}

/// Everything on a disk that differs from the base system, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    entries: BTreeMap<String, Entry>,
}

/// One difference between two snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path on the host.
    pub path: String,
    /// `appeared`, `changed` or `back to the base`, with what it is now.
    pub what: String,
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.what)
    }
}

impl Snapshot {
    /// Reads the upper folder of an overlay over `base`.
    pub fn of_overlay(base: &Path, upper: &Path) -> Result<Self> {
        let mut snapshot = Self::default();
        snapshot.read_folder(base, upper, "")?;
        Ok(snapshot)
    }

    /// What differs in `later`, in the order of the paths.
    pub fn changes_to(&self, later: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (path, entry) in &later.entries {
            let what = match self.entries.get(path) {
                Some(before) if before == entry => continue,
                Some(before) => format!("changed from {before:?} to {entry:?}"),
                None => format!("appeared: {entry:?}"),
            };
            changes.push(Change { path: path.clone(), what });
        }
        for path in self.entries.keys().filter(|path| !later.entries.contains_key(*path)) {
            changes.push(Change { path: path.clone(), what: "back to the base".to_owned() });
        }
        changes.sort_by(|left, right| left.path.cmp(&right.path));
        changes
    }

    /// The paths that differ from the base system.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    fn read_folder(&mut self, base: &Path, upper: &Path, inside: &str) -> Result<()> {
        let folder = upper.join(inside.trim_start_matches('/'));
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("list {}", folder.display())),
        };
        for entry in entries {
            let entry = entry?;
            let path = format!("{inside}/{}", entry.file_name().to_string_lossy());
            if VOLATILE.iter().any(|volatile| path.starts_with(volatile)) {
                continue;
            }
            // A running host may take a file away between the listing and the look.
            let Some(now) = describe(&entry.path())? else { continue };
            if describe(&base.join(path.trim_start_matches('/')))?.as_ref() != Some(&now) {
                self.entries.insert(path.clone(), now);
            }
            if entry.file_type()?.is_dir() {
                self.read_folder(base, upper, &path)?;
            }
        }
        Ok(())
    }
}

fn describe(path: &Path) -> Result<Option<Entry>> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("look at {}", path.display())),
    };
    let mode = metadata.mode() & 0o7777;
    let owner = (metadata.uid(), metadata.gid());
    let kind = metadata.file_type();
    Ok(Some(if kind.is_dir() {
        Entry::Folder { mode, owner }
    } else if kind.is_symlink() {
        Entry::Link { target: fs::read_link(path)? }
    } else if kind.is_file() {
        let Ok(content) = fs::read(path) else { return Ok(None) };
        let digest = ring::digest::digest(&ring::digest::SHA256, &content);
        let hash = hex::encode(&digest.as_ref()[..12]);
        Entry::File { mode, owner, hash }
    } else if is_whiteout(&metadata) {
        Entry::Gone
    } else {
        Entry::Other { mode: metadata.mode() }
    }))
}

/// How overlayfs marks a removed file: a character device 0/0.
fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}
