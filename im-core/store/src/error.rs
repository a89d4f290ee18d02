//! What can go wrong in a store. An error says back end and step; what the database said is its source.

use crate::MessageId;
use std::error::Error;
use std::sync::Arc;

/// A failed operation of a store. Cheap to clone: a batch that failed tells every message in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database refused or could not be reached.
    #[error("{backend}: {step} failed")]
    Database {
        /// `sqlite`, `mariadb` or `postgresql`.
        backend: &'static str,
        /// What was being done.
        step: &'static str,
        /// What the database or its driver said.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The database did not answer in time.
    #[error(
        "{backend}: {step} took longer than {seconds} s; check that the database is up and not overloaded"
    )]
    Timeout {
        /// `sqlite`, `mariadb` or `postgresql`.
        backend: &'static str,
        /// What was being done.
        step: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// A query names a message that is not in the archive.
    #[error("message {0} is not in this archive")]
    UnknownMessage(MessageId),
    /// A value cannot be stored.
    #[error("{what} cannot be stored: {reason}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// The database's schema was made by a newer version of the IM core.
    #[error(
        "{backend}: the schema is at version {found}, this program knows versions up to {known}; start the newer \
         version that upgraded it, or restore the backup made before that upgrade"
    )]
    SchemaTooNew {
        /// `sqlite`, `mariadb` or `postgresql`.
        backend: &'static str,
        /// The version of the schema.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// The upgrade before this one was not finalized, and this program's schema rests on it.
    #[error(
        "{backend}: migration {number} of the version before waits until its upgrade is finalized; start that version \
         and run `upgrade --finalize`"
    )]
    NotFinalized {
        /// `sqlite`, `mariadb` or `postgresql`.
        backend: &'static str,
        /// The number of the migration.
        number: u32,
    },
    /// A migration that was applied is not the one that this program carries.
    #[error(
        "{backend}: migration {number} in the database differs from this program's; was the database changed by hand?"
    )]
    MigrationChanged {
        /// `sqlite`, `mariadb` or `postgresql`.
        backend: &'static str,
        /// The number of the migration.
        number: u32,
    },
    /// The configuration cannot be used.
    #[error("store configuration: {0}")]
    Configuration(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// A database error with its source.
    pub(crate) fn database(
        backend: &'static str,
        step: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Database { backend, step, source: Arc::from(source.into()) }
    }
}
