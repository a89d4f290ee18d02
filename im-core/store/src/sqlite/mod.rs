//! The store in one SQLite file: what an embedded deployment uses.
//!
//! One thread writes, a few threads read, each with a connection of its own and its statements prepared; no call
//! blocks the caller's reactor. All writes go through the [`writer`], which commits as many at a time as have
//! queued up. The file is in WAL mode with `synchronous=FULL`: a commit is on disk when it returns.
//!
//! Steps of opening: make or open the file, apply migrations under its exclusive lock, take a writer number,
//! start the threads. Not here: sharing the file between machines.

mod accounts;
mod archive;
mod housekeeping;
mod profiles;
mod readers;
mod rosters;
pub(crate) mod schema;
mod writer;

use crate::confirm::Confirmations;
use crate::{MessageId, StoreError};
use readers::Readers;
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use writer::Writer;

/// The back end's name.
pub(crate) const NAME: &str = "sqlite";

const READERS: usize = 3;

/// A store in a file.
#[derive(Debug, Clone)]
pub(crate) struct SqliteStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    writer: Writer,
    readers: Readers,
}

impl SqliteStore {
    /// Opens the file, making it when it is missing.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let mut connection = connect(&path)?;
            schema::migrate(&mut connection)?;
            let generator = schema::take_writer_number(&mut connection)?;
            let readers = Readers::start(READERS, || connect_reader(&path))?;
            let writer = Writer::start(connection, generator)?;
            Ok(Self { inner: Arc::new(Inner { path, writer, readers }) })
        });
        opened.await.map_err(failed("opening"))?
    }

    /// Queues confirmations of deliveries.
    pub(crate) fn confirm(&self, owner: &str, ids: &[MessageId]) {
        self.inner.writer.confirm(owner, ids);
    }

    /// What was confirmed and is not yet on disk.
    pub(crate) fn confirmations(&self) -> &Confirmations {
        self.inner.writer.confirmations()
    }

    /// Runs `job` on a reading thread.
    async fn read<T: Send + 'static>(
        &self,
        step: &'static str,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.inner.readers.run(step, job).await
    }

    /// Runs `job` on the writing thread, within a transaction; returns when that is on disk.
    async fn write<T: Send + 'static>(
        &self,
        step: &'static str,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.inner.writer.run(step, job).await
    }
}

/// An error of this back end at a step.
fn failed<E: std::error::Error + Send + Sync + 'static>(step: &'static str) -> impl Fn(E) -> StoreError {
    move |source| StoreError::database(NAME, step, source)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path).map_err(failed("opening the file"))?;
    connection.busy_timeout(Duration::from_secs(30)).map_err(failed("opening the file"))?;
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY; \
             PRAGMA cache_size = -32768; PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864;",
        )
        .map_err(failed("opening the file"))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn connect_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed("opening the file to read"))?;
    connection.busy_timeout(Duration::from_secs(10)).map_err(failed("opening the file to read"))?;
    connection
        .execute_batch("PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY;")
        .map_err(failed("opening the file to read"))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}
