//! Migrations of the SQLite file, and the number of this archive writer.

use super::{NAME, failed};
use crate::id::IdGenerator;
use crate::migration::{Applied, Migration, outstanding, parse_all};
use crate::{MessageId, StoreError};
use rusqlite::{Connection, TransactionBehavior, params};

const FILES: &[(&str, &str)] =
    &[("0001_initial.sql", include_str!("../../migrations/sqlite/0001_initial.sql"))];

/// Brings the schema up to date. The whole of it is one exclusive transaction: a killed run leaves nothing, and
/// of several programs that start at once one migrates while the others wait.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let known = parse_all(FILES)?;
    let step = failed("migrating the schema");
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(&step)?;
    transaction
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_migration (
                number INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, class TEXT NOT NULL,
                compatible_from INTEGER NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL)",
        )
        .map_err(&step)?;
    let applied = read_applied(&transaction).map_err(&step)?;
    for migration in outstanding(NAME, &known, &applied)? {
        apply(&transaction, migration).map_err(&step)?;
        tracing::info!(backend = NAME, number = migration.number, name = migration.name, "schema migrated");
    }
    transaction.commit().map_err(&step)
}

fn read_applied(connection: &Connection) -> rusqlite::Result<Vec<Applied>> {
    let mut statement = connection
        .prepare("SELECT number, compatible_from, checksum FROM schema_migration ORDER BY number")?;
    statement
        .query_map([], |row| {
            Ok(Applied { number: row.get(0)?, compatible_from: row.get(1)?, checksum: row.get(2)? })
        })?
        .collect()
}

fn apply(connection: &Connection, migration: &Migration) -> rusqlite::Result<()> {
    connection.execute_batch(migration.sql)?;
    connection.execute(
        "INSERT INTO schema_migration (number, name, class, compatible_from, checksum, applied_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            migration.number,
            migration.name,
            migration.class.as_str(),
            migration.compatible_from,
            migration.checksum,
            crate::id::now_ms()
        ],
    )?;
    Ok(())
}

/// Counts this start and makes the generator of identifiers that goes with it.
pub(super) fn take_writer_number(connection: &mut Connection) -> Result<IdGenerator, StoreError> {
    let step = failed("taking a writer number");
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&step)?;
    let starts: i64 = transaction
        .query_row("UPDATE archive_writer SET starts = starts + 1 RETURNING starts", [], |row| row.get(0))
        .map_err(&step)?;
    let newest: Option<i64> =
        transaction.query_row("SELECT max(id) FROM message", [], |row| row.get(0)).map_err(&step)?;
    transaction.commit().map_err(&step)?;
    Ok(IdGenerator::new(starts as u64, newest.map(MessageId::from_i64)))
}
