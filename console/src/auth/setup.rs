//! The first administrator, from the file that the installer wrote.
//!
//! Given: the database and the path. [`prepare`] is quick and finds what is wrong: nothing to do when an administrator
//! exists; else read the file (private to its owner, small) and judge what stands in it. [`Setup::complete`] is slow
//! where a password must be hashed: it stores the hash and overwrites the file with a note, so that the password is
//! nowhere in the clear. The file itself stays: an installer that writes it only when it is absent then has nothing
//! to change at its next run.

use super::password;
use crate::store::{Store, StoreError};
use maxim_model::Secret;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Name of the first administrator.
pub const FIRST_ADMINISTRATOR: &str = "admin";

/// What the file holds once it was used.
const NOTE: &str =
    "# Used: the console has its first administrator. The password is kept as a hash in its database.\n";

/// Largest file that is read.
const LARGEST: u64 = 4096;

/// Why there is no first administrator.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Nobody could sign in.
    #[error(
        "no administrator exists and no `setup_password_file` is configured: \
         set one with `maxim-console --config FILE --reset-password`"
    )]
    NoFile,
    /// The file could not be read or replaced.
    #[error("the setup password file {path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Others can read it.
    #[error("the setup password file {path} has mode {mode:03o}, others may read it: chmod 600 it")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds neither a password nor a hash.
    #[error(
        "the setup password file {path} holds no usable password: one line of at least {shortest} characters, \
         or a hash `pbkdf2-sha256$ITERATIONS$SALT$HASH`, is needed",
        shortest = password::SHORTEST
    )]
    Content {
        /// The file.
        path: PathBuf,
    },
    /// Hashing failed.
    #[error("the first administrator's password: {0}")]
    Hash(#[from] password::HashError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The first administrator, about to be made.
#[derive(Debug)]
pub struct Setup {
    path: PathBuf,
    credential: Credential,
}

#[derive(Debug)]
enum Credential {
    Password(Secret),
    Hash(String),
}

/// Finds out whether the first administrator must be made, and whether that will work. None: there is one.
pub fn prepare(store: &Store, file: Option<&Path>) -> Result<Option<Setup>, SetupError> {
    if !store.has_no_administrator()? {
        wipe_used(file)?;
        return Ok(None);
    }
    let path = file.ok_or(SetupError::NoFile)?;
    let text = read_private(path)?;
    let line = text.expose().trim_end_matches(['\r', '\n']);
    let content = || SetupError::Content { path: path.to_path_buf() };
    if line.starts_with('#') || line.contains('\n') {
        return Err(content());
    }
    let credential = if password::is_hash(line) {
        Credential::Hash(line.to_owned())
    } else if password::weakness(line, FIRST_ADMINISTRATOR).is_none() {
        Credential::Password(Secret::new(line))
    } else {
        return Err(content());
    };
    Ok(Some(Setup { path: path.to_path_buf(), credential }))
}

impl Setup {
    /// Makes the first administrator. Blocking.
    pub fn complete(self, store: &Store, now: i64) -> Result<(), SetupError> {
        let hash = match self.credential {
            Credential::Hash(hash) => hash,
            Credential::Password(password) => password::hash(&password)?,
        };
        store.add_administrator(FIRST_ADMINISTRATOR, &hash, now)?;
        replace(&self.path).map_err(|cause| SetupError::File { path: self.path, cause })
    }
}

/// A run that was killed between keeping the hash and replacing the file left the password in the clear.
fn wipe_used(file: Option<&Path>) -> Result<(), SetupError> {
    let Some(path) = file.filter(|path| path.is_file()) else { return Ok(()) };
    let failed = |cause| SetupError::File { path: path.to_path_buf(), cause };
    let mut first = [0; 1];
    let count = std::fs::File::open(path).and_then(|mut file| file.read(&mut first)).map_err(failed)?;
    if count == 0 || first[0] == b'#' { Ok(()) } else { replace(path).map_err(failed) }
}

fn read_private(path: &Path) -> Result<Secret, SetupError> {
    let failed = |cause| SetupError::File { path: path.to_path_buf(), cause };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SetupError::Mode { path: path.to_path_buf(), mode });
    }
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).map_err(failed)?;
    Ok(Secret::new(text))
}

/// Writes the note beside the file and renames it over: the password is whole or gone, never half.
fn replace(path: &Path) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(NOTE.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::{SetupError, prepare};
    use crate::auth::password;
    use crate::store::Store;
    use maxim_model::Secret;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    fn prepared(content: &str, mode: u32) -> (tempfile::TempDir, Store, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let path = folder.path().join("setup-password");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (folder, store, path)
    }

    #[test]
    fn takes_the_password_once_and_wipes_the_file() {
        let (_folder, store, path) = prepared("planted-7431-orbit\n", 0o600);
        prepare(&store, Some(&path)).unwrap().unwrap().complete(&store, 1).unwrap();
        let stored = store.administrator("admin").unwrap().unwrap().password_hash;
        assert!(password::verify(Some(&stored), &Secret::new("planted-7431-orbit")));
        let left = std::fs::read_to_string(&path).unwrap();
        assert!(left.starts_with('#') && !left.contains("planted"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(prepare(&store, Some(&path)).unwrap().is_none(), "the second start changes nothing");
        // Killed after the hash was kept, before the file was replaced.
        std::fs::write(&path, "planted-7431-orbit\n").unwrap();
        assert!(prepare(&store, Some(&path)).unwrap().is_none());
        assert!(std::fs::read_to_string(&path).unwrap().starts_with('#'));
        std::fs::remove_file(&path).unwrap();
        assert!(prepare(&store, Some(&path)).unwrap().is_none());
    }

    #[test]
    fn takes_a_ready_hash() {
        let hash = format!("pbkdf2-sha256$600000${}${}", "A".repeat(22), "A".repeat(43));
        let (_folder, store, path) = prepared(&hash, 0o600);
        prepare(&store, Some(&path)).unwrap().unwrap().complete(&store, 1).unwrap();
        assert_eq!(store.administrator("admin").unwrap().unwrap().password_hash, hash);
    }

    #[test]
    fn refuses_what_cannot_be_trusted_or_used() {
        let (_folder, store, path) = prepared("planted-7431-orbit\n", 0o644);
        assert!(matches!(prepare(&store, Some(&path)), Err(SetupError::Mode { .. })));
        for content in ["", "short", "# Used", "two lines of\npassword text"] {
            let (_folder, store, path) = prepared(content, 0o600);
            let error = prepare(&store, Some(&path)).unwrap_err();
            assert!(matches!(error, SetupError::Content { .. }), "{content:?}: {error}");
        }
        assert!(matches!(prepare(&store, None), Err(SetupError::NoFile)));
        let absent = path.with_file_name("absent");
        assert!(matches!(prepare(&store, Some(&absent)), Err(SetupError::File { .. })));
    }
}
