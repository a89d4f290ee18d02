//! A component image or an archive: a versioned folder unpacked from a stream. A complete one carries a mark with the
//! digest of its archive, written last, so that "already there" is cheap to see and true.

use super::Outcome;
use crate::error::{Failure, Result};
use crate::files::{
    Ownership, absolute, commit, make_parents, parent, read_text, remove_any, sweep, temporary_beside,
};
use crate::link::ContentSource;
use crate::unpack::unpack;
use maxim_model::task::{Change, ImageTask};
use nix::sys::statvfs::statvfs;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// The mark of a complete folder; it holds the archive's SHA-256.
pub const COMPLETE: &str = ".maxim-complete";

/// The digest that a complete folder was made from; empty when it is not complete.
pub fn completed(path: &Path) -> String {
    read_text(path.join(COMPLETE))
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
    // Everything reaches the disk before the mark does, or a power cut could leave a marked folder with empty files.
    sync_file_system(temporary)?;
    fs::write(&mark, format!("{}\n", task.sha256)).map_err(Failure::file("write", &mark))?;
    File::open(&mark).and_then(|file| file.sync_all()).map_err(Failure::file("sync", &mark))?;
    // A folder in the way is incomplete, or it would not be replaced.
    if path.symlink_metadata().is_ok() {
        remove_any(path);
    }
    commit(temporary, path)
}

fn sync_file_system(folder: &Path) -> Result<()> {
    let handle = File::open(folder).map_err(Failure::file("open", folder))?;
    nix::unistd::syncfs(handle).map_err(Failure::errno("sync the file system of", folder))
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
