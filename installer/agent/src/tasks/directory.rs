//! A folder with owner, group and mode. Missing parents are made; a link in its place is refused.

use super::Outcome;
use crate::error::{Failure, Result};
use crate::files::{Ownership, absolute, make_parents, parent, sync_folder};
use crate::place::Place;
use maxim_model::task::{Change, DirectoryTask};
use std::fs;
use std::io::ErrorKind;

/// What would change.
pub fn check(task: &DirectoryTask) -> Result<Change> {
    let path = absolute(&task.path)?;
    let found = match fs::symlink_metadata(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Change::Create {
                summary: format!("create the folder {}", task.path),
                diff: String::new(),
            });
        }
        Err(error) => return Err(Failure::file("look at", path)(error)),
    };
    if !found.is_dir() {
        let what = if found.is_symlink() { "a symbolic link" } else { "not a folder" };
        return Err(Failure::refused(
            format!("{} is {what}", task.path),
            "move it away, or set another path in the topology (`paths`)",
        ));
    }
    let differences = match Ownership::resolve(&task.owner, &task.group, &task.mode) {
        Ok(ownership) => ownership.differences(&found),
        // A user that an earlier task will make.
        Err(Failure::Refused { .. }) => vec![format!("owner {}:{}", task.owner, task.group)],
        Err(other) => return Err(other),
    };
    if differences.is_empty() {
        return Ok(Change::None);
    }
    Ok(Change::Update { summary: format!("{}: {}", task.path, differences.join(", ")), diff: String::new() })
}

/// Makes it so.
pub fn apply(task: &DirectoryTask, change: &Change) -> Result<Outcome> {
    let path = absolute(&task.path)?;
    let ownership = Ownership::resolve(&task.owner, &task.group, &task.mode)?;
    make_parents(&path)?;
    match fs::create_dir(Place::of(&path)?.near()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Failure::file("create the folder", path)(error)),
    }
    ownership.set(&path)?;
    sync_folder(parent(&path))?;
    Ok(Outcome::changed(change.summary()))
}
