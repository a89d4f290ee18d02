//! A program file in a versioned folder: received, verified, made executable, renamed into place.

use super::Outcome;
use crate::error::{Failure, Result};
use crate::files::{Ownership, absolute, commit, copy, make_parents, sweep, temporary_beside};
use crate::link::ContentSource;
use maxim_model::task::{BinaryTask, Change};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// SHA-256 of a file.
pub fn digest(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Failure::file("read", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0_u8; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex::encode(hash.finalize())),
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::file("read", path)(error)),
        }
    }
}

/// The running program, when it is the one that is wanted: it need not be sent a second time.
fn own_program(task: &BinaryTask) -> Option<File> {
    let own = Path::new("/proc/self/exe");
    let same = fs::metadata(own).is_ok_and(|found| found.len() == task.size)
        && digest(own).is_ok_and(|found| found.eq_ignore_ascii_case(&task.sha256));
    if same { File::open(own).ok() } else { None }
}

/// What would change.
pub fn check(task: &BinaryTask) -> Result<Change> {
    let path = absolute(&task.path)?;
    let found = fs::metadata(&path).ok().filter(|found| found.is_file());
    let same = match &found {
        Some(found) if found.len() == task.size => digest(&path)?.eq_ignore_ascii_case(&task.sha256),
        _ => false,
    };
    let executable = found.as_ref().is_some_and(|found| found.permissions().mode() & 0o111 == 0o111);
    if task.in_place {
        if same && executable {
            return Ok(Change::None);
        }
        return Err(Failure::refused(
            format!("{} is not the program that was measured when this run began", task.path),
            "build again and run the command again",
        ));
    }
    Ok(match (same && executable, found.is_some()) {
        (true, _) => Change::None,
        (false, true) => Change::Update { summary: format!("replace {}", task.path), diff: String::new() },
        (false, false) => Change::Create {
            summary: format!("install {} ({} bytes)", task.path, task.size),
            diff: String::new(),
        },
    })
}

/// Makes it so.
pub fn apply(task: &BinaryTask, id: &str, source: &mut dyn ContentSource) -> Result<Outcome> {
    let path = absolute(&task.path)?;
    make_parents(&path)?;
    sweep(&path);
    let temporary = temporary_beside(&path);
    let written = (|| {
        let own = own_program(task);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(&temporary)
            .map_err(Failure::file("create", &temporary))?;
        if let Some(mut own) = own {
            copy(&mut own, &mut file, &path)?;
        } else {
            let mut content = source.open(id, &task.sha256, task.size)?;
            copy(&mut content, &mut file, &path)?;
            content.verify(&task.name, &task.sha256)?;
        }
        Ownership::mode(0o755).set_on(&file, &path)?;
        file.sync_all().map_err(Failure::file("sync", &path))?;
        drop(file);
        commit(&temporary, &path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map(|()| Outcome::changed(format!("installed {}", task.path)))
}
