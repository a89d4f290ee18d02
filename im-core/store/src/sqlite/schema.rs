//! Migrations of the SQLite file, and the number of this archive writer.

use super::{NAME, connect, failed};
use crate::id::IdGenerator;
use crate::migration::{Applied, Class, Migration, ROUNDS, endless, finalizing, outstanding, parse_all};
use crate::{MessageId, SchemaState, StoreError};
use rusqlite::{Connection, TransactionBehavior, params};
use std::path::Path;

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

/// How far the schema of a file is.
pub(crate) async fn state(path: &Path) -> Result<SchemaState, StoreError> {
    on_file(path, |connection| {
        let applied = read_applied(connection).map_err(failed("reading the state of the schema"))?;
        SchemaState::new(NAME, &parse_all(FILES)?, &applied)
    })
    .await
}

/// Does what waits for the end of an upgrade.
pub(crate) async fn finalize(path: &Path) -> Result<(), StoreError> {
    on_file(path, finalize_on).await
}

async fn on_file<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let path = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&mut connect(&path)?));
    done.await.map_err(failed("looking at the schema"))?
}

/// Rows are filled in transactions of their own, between which others write; what takes away is one transaction.
fn finalize_on(connection: &mut Connection) -> Result<(), StoreError> {
    let known = parse_all(FILES)?;
    let step = failed("finalizing the schema");
    let applied = read_applied(connection).map_err(&step)?;
    for migration in finalizing(NAME, &known, &applied)? {
        if migration.class == Class::Migrate {
            for statement in migration.statements() {
                let mut rounds = 0;
                while connection.execute(&statement, []).map_err(&step)? > 0 {
                    rounds += 1;
                    if rounds == ROUNDS {
                        return Err(endless(migration));
                    }
                }
            }
        }
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(&step)?;
        // The last round of filling is done again here: nothing comes between it and what takes away.
        apply(&transaction, migration).map_err(&step)?;
        transaction.commit().map_err(&step)?;
        tracing::info!(backend = NAME, number = migration.number, name = migration.name, "schema migrated");
    }
    Ok(())
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
