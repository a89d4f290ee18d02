//! A component image or an archive: a versioned folder unpacked from a stream. A complete one carries a mark with the
//! digest of its archive, written last, so that "already there" is cheap to see and true.
//!
//! Nobody waits for the disk: the mark first names the boot in which it was written, and holds for that boot only.
//! In the background the file system is synced, and then the mark is written anew without the boot. After a power cut
//! in between the boot is another one, the folder counts as incomplete and is made again.

use super::Outcome;
use crate::error::{Failure, Result};
use crate::files::{
    Ownership, absolute, make_parents, parent, read_text, remove_any, sweep, temporary_beside, write_atomic,
};
use crate::link::ContentSource;
use crate::restart::Marks;
use crate::scope::Scope;
use crate::unpack::unpack;
use maxim_model::task::{Change, ImageTask};
use nix::sys::statvfs::statvfs;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

/// The mark of a complete folder; it holds the archive's SHA-256.
pub const COMPLETE: &str = ".maxim-complete";

/// The digest that a complete folder was made from; empty when it is not complete.
pub fn completed(path: &Path) -> String {
    completed_in(&read_text(path.join(COMPLETE)), &boot())
}

/// What a mark says in a boot.
fn completed_in(mark: &str, boot: &str) -> String {
    let mut words = mark.split_whitespace();
    let digest = words.next().unwrap_or_default();
    match words.next() {
        Some(written) if written != boot => String::new(),
        _ => digest.to_owned(),
    }
}

/// Identifies the running boot of the kernel, whose page cache holds what is not on disk yet.
fn boot() -> String {
    read_text("/proc/sys/kernel/random/boot_id")
}

/// Syncs in the background; waited for when the agent ends.
static SYNCS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Waits for the background. A killed agent loses only the second form of the mark.
pub fn finish_syncs() {
    let handles = std::mem::take(&mut *SYNCS.lock().unwrap_or_else(PoisonError::into_inner));
    for handle in handles {
        let _ = handle.join();
    }
}

/// Replaced folders that services may still run from.
static OLD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// What the names of such folders begin with.
const OLD_PREFIX: &str = ".maxim-old-";

fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    parent(path).join(format!("{OLD_PREFIX}{name}-{:08x}", rand::random::<u32>()))
}

/// Removes folders that were replaced, this time or by a run that was killed, unless a service is still owed the restart
/// that takes it off them.
pub fn remove_replaced(scope: &Scope) {
    let marks = Marks::new(scope.restarts());
    let mut folders: Vec<PathBuf> = std::mem::take(&mut *OLD.lock().unwrap_or_else(PoisonError::into_inner));
    if marks.any() {
        return;
    }
    let beside = scope.own_paths().iter().flat_map(|own| [own.join("images"), own.join("web")]);
    for entry in beside.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(OLD_PREFIX) {
            folders.push(entry.path());
        }
    }
    for folder in folders {
        remove_any(&folder);
    }
}

fn sync_later(path: &Path, sha256: &str) {
    let (path, text) = (path.to_path_buf(), format!("{sha256}\n"));
    let job = move || {
        let synced = File::open(&path).is_ok_and(|folder| nix::unistd::syncfs(folder).is_ok());
        if synced {
            // When this fails the mark still holds for this boot.
            let _ = write_atomic(&path.join(COMPLETE), text.as_bytes(), Ownership::mode(0o644));
        }
    };
    if let Ok(handle) = std::thread::Builder::new().name("sync".into()).spawn(job) {
        SYNCS.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }
}

/// What would change.
pub fn check(task: &ImageTask, what: &str) -> Result<Change> {
    let path = absolute(&task.path)?;
    if completed(&path).eq_ignore_ascii_case(&task.sha256) {
        return Ok(Change::None);
    }
    if path.symlink_metadata().is_ok() {
        return Ok(Change::Update {
            summary: format!("replace the incomplete {what} {}", task.path),
            diff: String::new(),
        });
    }
    Ok(Change::Create {
        summary: format!(
            "unpack the {what} {} ({} bytes, {} unpacked)",
            task.path, task.size, task.unpacked_size
        ),
        diff: String::new(),
    })
}

/// Makes it so.
pub fn apply(task: &ImageTask, id: &str, source: &mut dyn ContentSource) -> Result<Outcome> {
    let path = absolute(&task.path)?;
    make_parents(&path)?;
    sweep(&path);
    room(&path, task.unpacked_size)?;
    let temporary = temporary_beside(&path);
    let made = make(task, id, source, &temporary, &path);
    if made.is_err() {
        remove_any(&temporary);
    }
    made.map(|()| Outcome::changed(format!("unpacked {}", task.path)))
}

fn make(
    task: &ImageTask,
    id: &str,
    source: &mut dyn ContentSource,
    temporary: &Path,
    path: &Path,
) -> Result<()> {
    let mut content = source.open(id, &task.sha256, task.size)?;
    fs::create_dir(temporary).map_err(Failure::file("create the folder", temporary))?;
    unpack(&mut content, temporary, path, task.unpacked_size)?;
    content.verify(&task.name, &task.sha256)?;
    Ownership::mode(0o755).set(temporary)?;
    let mark = temporary.join(COMPLETE);
    let boot = boot();
    if boot.is_empty() {
        // A kernel that does not name its boot: then the disk must be waited for.
        let handle = File::open(temporary).map_err(Failure::file("open", temporary))?;
        nix::unistd::syncfs(handle).map_err(Failure::errno("sync the file system of", temporary))?;
    }
    fs::write(&mark, format!("{} {boot}\n", task.sha256)).map_err(Failure::file("write", &mark))?;
    // A folder in the way is incomplete, or it would not be replaced. After a power cut a service may run from it all
    // the same (its mark is of another boot), so it goes only when that has been restarted.
    if path.symlink_metadata().is_ok() {
        let aside = aside(path);
        fs::rename(path, &aside).map_err(Failure::file("set aside", path))?;
        OLD.lock().unwrap_or_else(PoisonError::into_inner).push(aside);
    }
    fs::rename(temporary, path).map_err(Failure::file("rename into place", path))?;
    sync_later(path, &task.sha256);
    Ok(())
}

/// Refuses at once what cannot fit, instead of after a long transfer.
fn room(path: &Path, wanted: u64) -> Result<()> {
    let folder = parent(path);
    let Ok(found) = statvfs(folder) else { return Ok(()) };
    let free = found.blocks_available() * found.fragment_size();
    if free >= wanted {
        return Ok(());
    }
    let full = io::Error::from(io::ErrorKind::StorageFull);
    Err(Failure::file("unpack into", folder)(io::Error::new(
        io::ErrorKind::StorageFull,
        format!("{full} ({free} bytes are free, {wanted} are needed)"),
    )))
}

#[cfg(test)]
mod tests {
    use super::completed_in;

    #[test]
    fn an_unsynced_mark_holds_for_its_boot_only() {
        assert_eq!(completed_in("0f3a", "boot-1"), "0f3a");
        assert_eq!(completed_in("0f3a boot-1", "boot-1"), "0f3a");
        assert_eq!(completed_in("0f3a boot-1", "boot-2"), "");
        assert_eq!(completed_in("", "boot-1"), "");
    }
}
