//! The schema of a database in use: how far it is, and the last steps of an upgrade.
//!
//! [`crate::Store::open`] only expands. What fills and takes away is done here, on a connection of its own, while the
//! store serves: see [`crate::migration`]. Running it again goes on where it stopped.

use crate::migration::{Applied, Migration, finalizing};
use crate::{StoreConfig, StoreError, mariadb, postgresql, sqlite};

/// How far a schema is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaState {
    /// Numbers of the migrations that were applied, in order.
    pub applied: Vec<u32>,
    /// Those that wait until the upgrade is finalized, as `0004_drop_last_activity`.
    pub waiting: Vec<String>,
    /// The oldest schema whose program can still work on this one: up to there a rollback is possible.
    pub compatible_from: u32,
}

impl SchemaState {
    pub(crate) fn new(
        backend: &'static str,
        known: &[Migration],
        applied: &[Applied],
    ) -> Result<Self, StoreError> {
        let mut numbers: Vec<u32> = applied.iter().map(|done| done.number).collect();
        numbers.sort_unstable();
        Ok(Self {
            applied: numbers,
            waiting: finalizing(backend, known, applied)?
                .iter()
                .map(|migration| format!("{:04}_{}", migration.number, migration.name))
                .collect(),
            compatible_from: applied.iter().map(|done| done.compatible_from).max().unwrap_or_default(),
        })
    }
}

/// How far the schema of a database is, as this program sees it.
pub async fn schema_state(config: &StoreConfig) -> Result<SchemaState, StoreError> {
    match config {
        StoreConfig::Sqlite { path } => sqlite::schema::state(path).await,
        StoreConfig::Mariadb(config) => mariadb::schema::state(config).await,
        StoreConfig::Postgresql(config) => postgresql::schema::state(config).await,
    }
}

/// Does what waits for the end of an upgrade. Afterwards the version before cannot run on this database any more.
pub async fn finalize_schema(config: &StoreConfig) -> Result<(), StoreError> {
    match config {
        StoreConfig::Sqlite { path } => sqlite::schema::finalize(path).await,
        StoreConfig::Mariadb(config) => mariadb::schema::finalize(config).await,
        StoreConfig::Postgresql(config) => postgresql::schema::finalize(config).await,
    }
}
