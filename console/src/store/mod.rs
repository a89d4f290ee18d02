//! The console's own SQLite database: administrators, sessions, failed sign-ins. (Later areas add their tables here,
//! one migration each.)
//!
//! Given: the data folder, writable by the service user. Steps: open with a busy timeout, a write-ahead log and full
//! syncs, then run the migrations that are missing in one transaction each. Everything is synchronous; routes go
//! through [`Store::run`], which moves the work off the reactor. No secret is stored in the clear: passwords as
//! salted hashes, session tokens as digests.

mod administrators;
mod attempts;
mod sessions;

pub use administrators::Administrator;
pub use attempts::Admission;
pub use sessions::{Session, TokenDigest};

use rusqlite::Connection;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Name of the database file in the data folder.
pub const DATABASE_FILE: &str = "console.sqlite";

/// How long a writer waits for another one before it gives up.
const BUSY: Duration = Duration::from_secs(5);

/// Schema changes in order; the database's `user_version` says how many were applied. Never edit one that shipped.
const MIGRATIONS: &[&str] = &[include_str!("0001.sql")];

/// What can go wrong in the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("the console's database {path}: {cause}")]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: rusqlite::Error,
    },
    /// The database was written by a newer console.
    #[error(
        "the console's database {path} has schema {found}, this version knows {known}: \
         start the version that wrote it, or a newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: usize,
        /// The newest schema known here.
        known: usize,
    },
    /// The worker thread ended early.
    #[error("the database worker was stopped")]
    Stopped,
}

/// The open database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    path: Arc<Path>,
}

impl Store {
    /// Opens the database in a folder, creating and migrating it as needed.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(DATABASE_FILE);
        let fail = |cause| StoreError::Database { path: path.clone(), cause };
        // Made by us first, so that it is private; SQLite gives its other files the same mode. If it cannot be made,
        // SQLite says why.
        let _ = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut connection = Connection::open(&path).map_err(fail)?;
        connection.busy_timeout(BUSY).map_err(fail)?;
        connection.pragma_update(None, "journal_mode", "wal").map_err(fail)?;
        connection.pragma_update(None, "synchronous", "full").map_err(fail)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(fail)?;

        let found: i64 =
            connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(fail)?;
        let found = usize::try_from(found).unwrap_or(0);
        if found > MIGRATIONS.len() {
            return Err(StoreError::Newer { path, found, known: MIGRATIONS.len() });
        }
        for (number, statements) in MIGRATIONS.iter().enumerate().skip(found) {
            let transaction = connection.transaction().map_err(fail)?;
            transaction.execute_batch(statements).map_err(fail)?;
            transaction.pragma_update(None, "user_version", (number + 1) as i64).map_err(fail)?;
            transaction.commit().map_err(fail)?;
        }
        Ok(Self { connection: Arc::new(Mutex::new(connection)), path: path.into() })
    }

    /// Runs database work on a thread made for blocking.
    pub async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    {
        let store = self.clone();
        tokio::task::spawn_blocking(move || work(&store)).await.map_err(|_| StoreError::Stopped)?
    }

    /// Runs work on the connection and gives its errors the path.
    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        work(&mut self.lock()).map_err(|cause| StoreError::Database { path: self.path.to_path_buf(), cause })
    }

    /// A panic in other work rolled its transaction back, so the connection is sound and is used on.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{DATABASE_FILE, Store, StoreError};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn opens_twice_and_keeps_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.add_administrator("admin", "hash", 1).unwrap();
        drop(store);
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.administrator("admin").unwrap().unwrap().password_hash, "hash");
        let mode = std::fs::metadata(folder.path().join(DATABASE_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn refuses_a_database_of_a_newer_version() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path()).unwrap());
        let connection = rusqlite::Connection::open(folder.path().join(DATABASE_FILE)).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let Err(error) = Store::open(folder.path()) else { panic!("opened") };
        assert!(matches!(error, StoreError::Newer { found: 99, .. }));
    }

    #[test]
    fn says_which_file_cannot_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let Err(error) = Store::open(&folder.path().join("absent")) else { panic!("opened") };
        assert!(error.to_string().contains("absent/console.sqlite"), "{error}");
    }
}
