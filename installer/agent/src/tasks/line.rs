//! One line of ours in a file that belongs to others too: it is known by the marker at its end. Every other byte of
//! the file stays as it is, and so do its owner and mode. A link in the place of the file or of its folder is refused.
//!
//! What had to be made for the line (the file with mode 0600, its folder with 0700) is remembered, and removed with it
//! when nothing else is in it.

use super::Outcome;
use crate::error::{Failure, Result};
use crate::files::{Ownership, absolute, parent, sync_folder, write_atomic};
use crate::made::Made;
use crate::place::Place;
use maxim_model::task::{AbsentLine, Change, LineTask};
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes of such a file at most.
const BOUND: u64 = 4 << 20;

/// A file as found.
struct Found {
    content: Vec<u8>,
    ownership: Ownership,
}

/// The file; none when it is not there.
fn read(path: &Path) -> Result<Option<Found>> {
    let refused = |what: &str| {
        Failure::refused(
            format!("{} {what}", path.display()),
            "put a plain file or folder there, then run the command again",
        )
    };
    if fs::symlink_metadata(parent(path)).is_ok_and(|folder| folder.is_symlink()) {
        return Err(refused("lies in a folder that is a symbolic link"));
    }
    let Some(place) = Place::existing(path)? else { return Ok(None) };
    let file = match place.open() {
        Ok(file) => file,
        Err(Failure::File { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let found = file.metadata().map_err(Failure::file("look at", path))?;
    if !found.is_file() {
        return Err(refused("is not a file"));
    }
    let mut content = Vec::new();
    file.take(BOUND + 1).read_to_end(&mut content).map_err(Failure::file("read", path))?;
    if content.len() as u64 > BOUND {
        return Err(refused("is too large to be edited"));
    }
    let ownership =
        Ownership { user: Some(found.uid()), group: Some(found.gid()), mode: found.mode() & 0o7777 };
    Ok(Some(Found { content, ownership }))
}

/// Whether a line is ours: the marker is its last word.
fn is_ours(line: &[u8], marker: &str) -> bool {
    let line = line.trim_ascii_end();
    line.strip_suffix(marker.as_bytes()).is_some_and(|rest| rest.last().is_some_and(u8::is_ascii_whitespace))
}

/// The content without our lines.
fn without(content: &[u8], marker: &str) -> Vec<u8> {
    content
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| !is_ours(line, marker))
        .flatten()
        .copied()
        .collect()
}

/// The content with our line as the only one of ours. At the end; before everything where the last line has no end, so
/// that not even that byte must be added to what others wrote.
fn with(content: &[u8], line: &str, marker: &str) -> Vec<u8> {
    let mut rest = without(content, marker);
    let ours = format!("{line}\n").into_bytes();
    if rest.is_empty() || rest.ends_with(b"\n") {
        rest.extend(ours);
        rest
    } else {
        [ours, rest].concat()
    }
}

fn judged(task: &LineTask) -> Result<()> {
    let wrong = task.marker.trim().is_empty()
        || task.line.contains('\n')
        || !is_ours(task.line.as_bytes(), &task.marker);
    if wrong {
        Err(Failure::Invalid(format!("the line for {} must end in its marker", task.path)))
    } else {
        Ok(())
    }
}

/// What would change.
pub fn check(task: &LineTask) -> Result<Change> {
    judged(task)?;
    let path = absolute(&task.path)?;
    // Only our line is shown: the rest is nobody's business.
    let diff = format!("+{}\n", task.line);
    Ok(match read(&path)? {
        None => Change::Create { summary: format!("create {} with a line of ours", task.path), diff },
        Some(found) if with(&found.content, &task.line, &task.marker) == found.content => Change::None,
        Some(found) if without(&found.content, &task.marker) == found.content => {
            Change::Update { summary: format!("add a line to {}", task.path), diff }
        }
        Some(found) => {
            let count =
                found.content.split(|byte| *byte == b'\n').filter(|line| is_ours(line, &task.marker)).count();
            let line = format!("{}\n", task.line).into_bytes();
            // One line of ours that is right, wherever it was moved to.
            let right = found.content.split_inclusive(|byte| *byte == b'\n').any(|found| found == line);
            if count == 1 && right {
                Change::None
            } else {
                Change::Update { summary: format!("replace our line in {}", task.path), diff }
            }
        }
    })
}

/// Makes it so.
pub fn apply(task: &LineTask, change: &Change) -> Result<Outcome> {
    judged(task)?;
    let path = absolute(&task.path)?;
    if let Some(found) = read(&path)? {
        write_atomic(&path, &with(&found.content, &task.line, &task.marker), found.ownership)?;
        return Ok(Outcome::changed(change.summary()));
    }
    let made = Made::at(&task.made)?;
    let folder = parent(&path);
    if fs::symlink_metadata(folder).is_err() {
        let shown = folder.display().to_string();
        made.making(
            "folder",
            &shown,
            || folder.is_dir(),
            || match fs::create_dir(folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    Err(Failure::file("create the folder", folder)(error))
                }
                _ => Ownership::mode(0o700).set(folder),
            },
        )?;
    }
    made.making(
        "file",
        &task.path,
        || path.exists(),
        || write_atomic(&path, &with(b"", &task.line, &task.marker), Ownership::mode(0o600)),
    )?;
    Ok(Outcome::changed(change.summary()))
}

/// What removing would change.
pub fn check_absent(task: &AbsentLine) -> Result<Change> {
    let path = absolute(&task.path)?;
    let found = match read(&path) {
        // A line of ours was never put through a link, so there is none to remove.
        Err(Failure::Refused { .. }) => None,
        found => found?,
    };
    Ok(match found {
        Some(found) if without(&found.content, &task.marker) != found.content => {
            Change::Remove { summary: format!("remove our line from {}", task.path) }
        }
        _ => Change::None,
    })
}

/// Removes the line, and what was made for it and holds nothing else.
pub fn apply_absent(task: &AbsentLine) -> Result<Outcome> {
    let path = absolute(&task.path)?;
    let made = Made::at(&task.made)?;
    let Some(found) = read(&path)? else { return Ok(Outcome::unchanged(format!("{} is gone", task.path))) };
    let rest = without(&found.content, &task.marker);
    if !rest.is_empty() || !made.holds("file", &task.path)? {
        write_atomic(&path, &rest, found.ownership)?;
        // Somebody else uses them now.
        if !rest.is_empty() {
            made.forget("file", &task.path)?;
            made.forget("folder", &parent(&path).display().to_string())?;
        }
        return Ok(Outcome::changed(format!("removed our line from {}", task.path)));
    }
    fs::remove_file(&path).map_err(Failure::file("remove", &path))?;
    made.forget("file", &task.path)?;
    let folder = parent(&path);
    let shown = folder.display().to_string();
    if made.holds("folder", &shown)? {
        // Only when nothing else is in it.
        let _ = fs::remove_dir(folder);
        made.forget("folder", &shown)?;
    }
    sync_folder(folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/")))?;
    Ok(Outcome::changed(format!("removed {}, which held only our line", task.path)))
}

#[cfg(test)]
mod tests {
    use super::{apply, apply_absent, check, check_absent};
    use maxim_model::task::{AbsentLine, Change, LineTask};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    const MARKER: &str = "maxim-console@acme";

    fn tasks(folder: &Path, line: &str) -> (LineTask, AbsentLine) {
        let path = folder.join(".ssh/authorized_keys").display().to_string();
        let made = folder.join("made").display().to_string();
        let line =
            LineTask { path: path.clone(), line: line.into(), marker: MARKER.into(), made: made.clone() };
        (line, AbsentLine { path, marker: MARKER.into(), made })
    }

    fn ours(key: &str) -> String {
        format!("restrict ssh-ed25519 {key} {MARKER}")
    }

    #[test]
    fn what_was_made_for_the_line_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (line, absent) = tasks(folder.path(), &ours("AAAA"));
        let change = check(&line).unwrap();
        assert!(matches!(change, Change::Create { .. }));
        apply(&line, &change).unwrap();
        assert_eq!(check(&line).unwrap(), Change::None);
        let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(".ssh"), mode(".ssh/authorized_keys")), (0o700, 0o600));
        assert!(check_absent(&absent).unwrap().is_change());
        apply_absent(&absent).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(check_absent(&absent).unwrap(), Change::None);
    }

    #[test]
    fn lines_of_others_stay_byte_for_byte_with_owner_and_mode() {
        for before in ["", "# mine\r\nssh-ed25519 BBBB anna@laptop\n", "ssh-ed25519 BBBB without-an-end"] {
            let folder = tempfile::tempdir().unwrap();
            let (line, absent) = tasks(folder.path(), &ours("AAAA"));
            let path = folder.path().join(".ssh/authorized_keys");
            fs::create_dir(path.parent().unwrap()).unwrap();
            fs::write(&path, before).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            apply(&line, &check(&line).unwrap()).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(before) && text.lines().any(|found| found == line.line), "{text}");
            // A new key replaces the old line; it is never there twice.
            let (newer, _) = tasks(folder.path(), &ours("CCCC"));
            assert!(matches!(check(&newer).unwrap(), Change::Update { .. }));
            apply(&newer, &check(&newer).unwrap()).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains("CCCC") && !text.contains("AAAA"), "{text}");
            assert_eq!(check(&newer).unwrap(), Change::None);
            apply_absent(&absent).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), before, "the file was there before, so it stays");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
        }
    }

    #[test]
    fn links_are_refused_and_the_line_must_carry_its_marker() {
        let folder = tempfile::tempdir().unwrap();
        let (line, absent) = tasks(folder.path(), &ours("AAAA"));
        let ssh = folder.path().join(".ssh");
        fs::create_dir(&ssh).unwrap();
        fs::write(folder.path().join("elsewhere"), "x\n").unwrap();
        symlink(folder.path().join("elsewhere"), ssh.join("authorized_keys")).unwrap();
        assert!(check(&line).is_err());
        assert_eq!(check_absent(&absent).unwrap(), Change::None, "an uninstall does not stumble over it");
        fs::remove_file(ssh.join("authorized_keys")).unwrap();
        fs::remove_dir(&ssh).unwrap();
        fs::create_dir(folder.path().join("real")).unwrap();
        symlink("real", &ssh).unwrap();
        assert!(check(&line).is_err());
        let (unmarked, _) = tasks(folder.path(), "ssh-ed25519 AAAA somebody");
        assert!(check(&unmarked).is_err());
    }
}
