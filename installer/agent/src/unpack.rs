//! Unpacking a `.tar.zst` from a stream into an empty folder, trusting nothing in it.
//!
//! The digest is verified by the caller after the last byte, and only then the folder gets its name; so whatever an
//! archive holds must stay inside the folder before it is known to be good. Refused are paths that are absolute or
//! hold `..`, members below a link, links that lead out, kinds of members that are not files, folders or links, and
//! more bytes than the manifest promised. Device nodes and fifos are skipped, set-id bits dropped; owners are the
//! numbers of the archive when the agent is root, and ours otherwise.

use crate::error::{Failure, Result};
use crate::files::{Ownership, copy};
use nix::unistd::geteuid;
use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

/// Largest window a frame may ask for: 32 MiB, so that the agent stays small.
const WINDOW_LOG: u32 = 25;
/// Members at most.
const MEMBERS: usize = 1_000_000;

/// Unpacks `archive` into `folder`, which exists and is empty. `final_path` is what errors speak of; `promised` is
/// the size of all files together, bytes.
pub fn unpack(archive: &mut impl Read, folder: &Path, final_path: &Path, promised: u64) -> Result<()> {
    let broken = |error: io::Error| broken(final_path, &error);
    let mut decoder = zstd::stream::read::Decoder::new(archive).map_err(broken)?;
    decoder.window_log_max(WINDOW_LOG).map_err(broken)?;
    let mut reader = tar::Archive::new(decoder);
    let mut unpacker = Unpacker {
        folder,
        final_path,
        folders: HashSet::from([PathBuf::new()]),
        files: HashSet::new(),
        modes: HashMap::new(),
        // Headers and rounding are not in the promise; a little room keeps honest archives in.
        left: promised.saturating_add(promised / 20).saturating_add(1 << 20),
        is_root: geteuid().is_root(),
    };
    for (count, entry) in reader.entries().map_err(broken)?.enumerate() {
        if count >= MEMBERS {
            return Err(unpacker.refuse("it has too many members"));
        }
        unpacker.member(&mut entry.map_err(broken)?)?;
    }
    unpacker.finish()?;
    // What follows the end mark of the archive belongs to the digest; the decoder must have seen its frame's end.
    let mut decoder = reader.into_inner();
    io::copy(&mut decoder, &mut io::sink()).map_err(broken)?;
    Ok(())
}

fn broken(path: &Path, error: &io::Error) -> Failure {
    Failure::Content {
        what: format!("the archive for {} cannot be read: {error}", path.display()),
        hint: "the bundle is damaged or the connection broke; verify the bundle with `maxim.ctl bundle verify` and \
               run the command again"
            .into(),
    }
}

struct Unpacker<'a> {
    folder: &'a Path,
    final_path: &'a Path,
    /// Real folders made by us, relative.
    folders: HashSet<PathBuf>,
    /// Regular files made by us, relative: what a hard link may name.
    files: HashSet<PathBuf>,
    /// Modes of folders, set last: a folder without write permission could not be filled.
    modes: HashMap<PathBuf, Ownership>,
    left: u64,
    is_root: bool,
}

impl Unpacker<'_> {
    fn refuse(&self, what: impl std::fmt::Display) -> Failure {
        Failure::Content {
            what: format!("the archive for {} is refused: {what}", self.final_path.display()),
            hint: "it was not made by `maxim.ctl bundle build`; get the bundle from its source again".into(),
        }
    }

    fn member(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<()> {
        let kind = entry.header().entry_type();
        let path = {
            let bytes = entry.path_bytes();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            inside(&text)
                .ok_or_else(|| self.refuse(format!("its member `{}` leads out", text.escape_debug())))?
        };
        let ownership = self.ownership(entry)?;
        match kind {
            EntryType::Directory => self.make_folder(&path, Some(ownership)),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.make_file(&path, ownership, entry)
            }
            EntryType::Symlink | EntryType::Link => {
                let bytes = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&bytes).into_owned();
                self.make_link(&path, &target, kind == EntryType::Link, ownership)
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo | EntryType::XGlobalHeader => Ok(()),
            other => {
                Err(self.refuse(format!("its member {} is of the unknown kind {other:?}", path.display())))
            }
        }
    }

    fn ownership(&self, entry: &tar::Entry<'_, impl Read>) -> Result<Ownership> {
        let header = entry.header();
        let wrong = |error: io::Error| broken(self.final_path, &error);
        let mode = header.mode().map_err(wrong)? & 0o1777;
        if !self.is_root {
            return Ok(Ownership::mode(mode));
        }
        let id = |id: u64| u32::try_from(id).map_err(|_| self.refuse("an owner's number is too large"));
        Ok(Ownership {
            user: Some(id(header.uid().map_err(wrong)?)?),
            group: Some(id(header.gid().map_err(wrong)?)?),
            mode,
        })
    }

    /// Makes a folder and those above it; each must be a real folder of ours.
    fn make_folder(&mut self, path: &Path, ownership: Option<Ownership>) -> Result<()> {
        if !self.folders.contains(path) {
            if let Some(above) = path.parent() {
                self.make_folder(above, None)?;
            }
            let target = self.folder.join(path);
            if target.symlink_metadata().is_ok() {
                return Err(
                    self.refuse(format!("a member lies below {}, which is not a folder", path.display()))
                );
            }
            fs::create_dir(&target).map_err(Failure::file("create the folder", self.shown(path)))?;
            self.folders.insert(path.to_path_buf());
        }
        if let Some(ownership) = ownership {
            self.modes.insert(path.to_path_buf(), ownership);
        }
        Ok(())
    }

    fn shown(&self, path: &Path) -> PathBuf {
        self.final_path.join(path)
    }

    /// Makes the folder above and sees that nothing is in the way.
    fn prepare(&mut self, path: &Path) -> Result<PathBuf> {
        if path.as_os_str().is_empty() {
            return Err(self.refuse("a member has no name"));
        }
        if let Some(above) = path.parent() {
            self.make_folder(above, None)?;
        }
        let target = self.folder.join(path);
        if target.symlink_metadata().is_ok() {
            return Err(self.refuse(format!("its member {} is there twice", path.display())));
        }
        Ok(target)
    }

    fn make_file(
        &mut self,
        path: &Path,
        ownership: Ownership,
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> Result<()> {
        let size = entry.size();
        self.left =
            self.left.checked_sub(size).ok_or_else(|| self.refuse("it is larger than its manifest says"))?;
        let target = self.prepare(path)?;
        let shown = self.shown(path);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&target)
            .map_err(Failure::file("create", &shown))?;
        copy(entry, &mut file, &shown)?;
        ownership.set_on(&file, &shown)?;
        self.files.insert(path.to_path_buf());
        Ok(())
    }

    fn make_link(&mut self, path: &Path, target: &str, hard: bool, ownership: Ownership) -> Result<()> {
        let out = |unpacker: &Self| {
            let (path, target) = (path.display(), target.escape_debug());
            unpacker.refuse(format!("its link {path} leads out, to `{target}`"))
        };
        if hard {
            let named = inside(target).ok_or_else(|| out(self))?;
            if !self.files.contains(&named) {
                return Err(self.refuse(format!("its link {} names no earlier file", path.display())));
            }
            let place = self.prepare(path)?;
            fs::hard_link(self.folder.join(&named), place)
                .map_err(Failure::file("link", self.shown(path)))?;
            self.files.insert(path.to_path_buf());
            return Ok(());
        }
        if !stays(path, target) {
            return Err(out(self));
        }
        let place = self.prepare(path)?;
        symlink(target, &place).map_err(Failure::file("link", self.shown(path)))?;
        if self.is_root {
            std::os::unix::fs::lchown(&place, ownership.user, ownership.group)
                .map_err(Failure::file("set the owner of", self.shown(path)))?;
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        // Innermost first: a folder may lose the permission that the ones below it need.
        let mut modes: Vec<(&PathBuf, &Ownership)> = self.modes.iter().collect();
        modes.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
        for (path, ownership) in modes {
            ownership.set(&self.folder.join(path))?;
        }
        Ok(())
    }
}

/// A member's path as a relative one without `.` and `..`; `None` when it leads out.
fn inside(text: &str) -> Option<PathBuf> {
    if text.contains('\0') {
        return None;
    }
    let mut path = PathBuf::new();
    for component in Path::new(text).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

/// Whether a symbolic link at `path` stays inside. `..` may only stand at the beginning of the target, where it climbs
/// real folders; behind a name it could climb from wherever a link of that name leads.
fn stays(path: &Path, target: &str) -> bool {
    if target.is_empty() || target.contains('\0') {
        return false;
    }
    let mut depth = path.components().count().saturating_sub(1);
    let mut named = false;
    for component in Path::new(target).components() {
        match component {
            Component::Normal(_) => named = true,
            Component::ParentDir if !named && depth > 0 => depth -= 1,
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests;
