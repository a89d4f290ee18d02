//! Migrations of a PostgreSQL database, and the number of this archive writer. All of it is one transaction under
//! an advisory lock: a killed run leaves nothing, and of several nodes one migrates while the others wait.

use super::{NAME, failed, options, sql};
use crate::id::IdGenerator;
use crate::migration::{Applied, Class, Migration, ROUNDS, endless, finalizing, outstanding, parse_all};
use crate::{MessageId, SchemaState, ServerConfig, StoreError};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection};
use std::time::Duration;

const FILES: &[(&str, &str)] =
    &[("0001_initial.sql", include_str!("../../migrations/postgresql/0001_initial.sql"))];

const CONNECT: Duration = Duration::from_secs(15);
/// Advisory locks are per database; the number is only ours.
const LOCK: &str = "SET LOCAL lock_timeout = '60s'; SELECT pg_advisory_xact_lock(7021196850334);";

/// Brings the schema up to date and takes a writer number.
pub(super) async fn prepare(options: &PgConnectOptions) -> Result<IdGenerator, StoreError> {
    let mut connection = connect(options).await?;
    migrate(&mut connection).await?;
    let step = failed("taking a writer number");
    let starts: i64 = sqlx::query_scalar(sql::COUNT_START).fetch_one(&mut connection).await.map_err(&step)?;
    let newest: Option<i64> =
        sqlx::query_scalar(sql::NEWEST_MESSAGE).fetch_one(&mut connection).await.map_err(&step)?;
    // Everything is committed, whatever closing says.
    let _ = connection.close().await;
    Ok(IdGenerator::new(starts as u64, newest.map(MessageId::from_i64)))
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let step = "connecting";
    tokio::time::timeout(CONNECT, PgConnection::connect_with(options))
        .await
        .map_err(|_| StoreError::Timeout { backend: NAME, step, seconds: CONNECT.as_secs() })?
        .map_err(failed(step))
}

/// How far the schema is.
pub(crate) async fn state(config: &ServerConfig) -> Result<SchemaState, StoreError> {
    let mut connection = connect(&options(config)).await?;
    let applied = read_applied(&mut connection).await.map_err(failed("reading the state of the schema"))?;
    SchemaState::new(NAME, &parse_all(FILES)?, &applied)
}

/// Does what waits for the end of an upgrade. Rows are filled in transactions of their own, between which others
/// write; what takes away is one transaction under the lock of migrations.
pub(crate) async fn finalize(config: &ServerConfig) -> Result<(), StoreError> {
    let known = parse_all(FILES)?;
    let step = failed("finalizing the schema");
    let mut connection = connect(&options(config)).await?;
    let applied = read_applied(&mut connection).await.map_err(&step)?;
    for migration in finalizing(NAME, &known, &applied)? {
        if migration.class == Class::Migrate {
            for statement in migration.statements() {
                let mut rounds = 0;
                while connection
                    .execute(sqlx::AssertSqlSafe(statement.clone()))
                    .await
                    .map_err(&step)?
                    .rows_affected()
                    > 0
                {
                    rounds += 1;
                    if rounds == ROUNDS {
                        return Err(endless(migration));
                    }
                }
            }
        }
        let mut transaction = connection.begin().await.map_err(&step)?;
        transaction.execute(LOCK).await.map_err(&step)?;
        // Another node may have been asked the same.
        let done = read_applied(&mut transaction).await.map_err(&step)?;
        if done.iter().all(|done| done.number != migration.number) {
            apply(&mut transaction, migration).await.map_err(&step)?;
        }
        transaction.commit().await.map_err(&step)?;
    }
    Ok(())
}

async fn read_applied(connection: &mut PgConnection) -> Result<Vec<Applied>, sqlx::Error> {
    let rows: Vec<(i64, i64, String)> = sqlx::query_as(sql::APPLIED_MIGRATIONS).fetch_all(connection).await?;
    Ok(rows.into_iter().map(Applied::from).collect())
}

async fn apply(connection: &mut PgConnection, migration: &Migration) -> Result<(), sqlx::Error> {
    for statement in migration.statements() {
        connection.execute(sqlx::AssertSqlSafe(statement)).await?;
    }
    sqlx::query(sql::RECORD_MIGRATION)
        .bind(i64::from(migration.number))
        .bind(migration.name)
        .bind(migration.class.as_str())
        .bind(i64::from(migration.compatible_from))
        .bind(&migration.checksum)
        .bind(crate::id::now_ms())
        .execute(connection)
        .await?;
    tracing::info!(backend = NAME, number = migration.number, name = migration.name, "schema migrated");
    Ok(())
}

async fn migrate(connection: &mut PgConnection) -> Result<(), StoreError> {
    let known = parse_all(FILES)?;
    let step = failed("migrating the schema");
    let mut transaction = connection.begin().await.map_err(&step)?;
    transaction.execute(LOCK).await.map_err(&step)?;
    transaction
        .execute(
            "CREATE TABLE IF NOT EXISTS schema_migration (
                number BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, class TEXT NOT NULL,
                compatible_from BIGINT NOT NULL, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)",
        )
        .await
        .map_err(&step)?;
    let applied = read_applied(&mut transaction).await.map_err(&step)?;
    for migration in outstanding(NAME, &known, &applied)? {
        apply(&mut transaction, migration).await.map_err(&step)?;
    }
    transaction.commit().await.map_err(&step)
}
