//! A file with its whole content, owner, group and mode; written atomically, shown as a diff unless it is sensitive.

use super::Outcome;
use crate::difference::unified;
use crate::error::{Failure, Result};
use crate::files::{Ownership, absolute, write_atomic};
use crate::place::Place;
use maxim_model::task::{Change, FileTask};
use std::fs;
use std::fs::File;
use std::io::{ErrorKind, Read};
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
    let place = Place::existing(path)?;
    let found = place
        .as_ref()
        .map_or_else(|| Err(ErrorKind::NotFound.into()), |place| fs::symlink_metadata(place.near()));
    let found = match found {
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
        let old = match &place {
            Some(place) => read_open(place.open()?, path)?,
            None => Vec::new(),
        };
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

fn read_open(file: File, path: &Path) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(BOUND + 1).read_to_end(&mut content).map_err(Failure::file("read", path))?;
    if content.len() as u64 > BOUND {
        return Err(Failure::refused(
            format!("{} is larger than {BOUND} bytes", path.display()),
            "look at it on the host itself",
        ));
    }
    Ok(content)
}

/// Makes it so.
pub fn apply(task: &FileTask, change: &Change) -> Result<Outcome> {
    let path = absolute(&task.path)?;
    let ownership = Ownership::resolve(&task.owner, &task.group, &task.mode)?;
    if task.only_if_absent && fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
        ownership.set(&path)?;
    } else {
        write_atomic(&path, task.content.expose().as_bytes(), ownership)?;
    }
    Ok(Outcome::changed(change.summary()))
}
