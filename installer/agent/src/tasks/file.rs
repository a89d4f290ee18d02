//! A file with its whole content, owner, group and mode; written atomically, shown as a diff unless it is sensitive.

use super::Outcome;
use crate::difference::unified;
use crate::error::{Failure, Result};
use crate::files::{Ownership, absolute, read_bounded, write_atomic};
use maxim_model::task::{Change, FileTask};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Bytes of a file that is compared.
const BOUND: u64 = 16 << 20;

/// What would change.
pub fn check(task: &FileTask) -> Result<Change> {
    let path = absolute(&task.path)?;
    let ownership = Ownership::resolve(&task.owner, &task.group, &task.mode);
    if let Err(failure @ Failure::Invalid(_)) = ownership {
        return Err(failure);
    }
    compare(&path, task.content.expose(), task.sensitive, task.only_if_absent, ownership.ok())
}

/// Compares a file with what is wanted. Without `ownership` its owner is not known yet and counts as different.
pub fn compare(
    path: &Path,
    content: &str,
    sensitive: bool,
    only_if_absent: bool,
    ownership: Option<Ownership>,
) -> Result<Change> {
    let shown = path.display().to_string();
    let diff_of = |old: &str| {
        if sensitive {
            "(the content is secret and not shown)\n".to_owned()
        } else {
            unified(&shown, old, content)
        }
    };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Change::Create { summary: format!("create {shown}"), diff: diff_of("") });
        }
        Err(error) => return Err(Failure::file("look at", path)(error)),
    };
    if found.is_dir() {
        return Err(Failure::refused(format!("{shown} is a folder, a file is wanted"), "move it away"));
    }
    let mut differences = match ownership {
        // A link is replaced by a file, whatever it points to.
        Some(ownership) if found.is_file() => ownership.differences(&found),
        Some(_) => vec!["replace what is not a regular file".to_owned()],
        None => vec!["set its owner".to_owned()],
    };
    let mut diff = String::new();
    if !only_if_absent && found.is_file() {
        let old = read_bounded(path, BOUND)?.unwrap_or_default();
        if old != content.as_bytes() {
            differences.insert(0, "new content".to_owned());
            diff = diff_of(&String::from_utf8_lossy(&old));
        }
    }
    if differences.is_empty() {
        return Ok(Change::None);
    }
    Ok(Change::Update { summary: format!("{shown}: {}", differences.join(", ")), diff })
}

/// Makes it so.
pub fn apply(task: &FileTask, change: &Change) -> Result<Outcome> {
    let path = absolute(&task.path)?;
    let ownership = Ownership::resolve(&task.owner, &task.group, &task.mode)?;
    if task.only_if_absent && path.is_file() {
        ownership.set(&path)?;
    } else {
        write_atomic(&path, task.content.expose().as_bytes(), ownership)?;
    }
    Ok(Outcome::changed(change.summary()))
}
