//! Migrations of a PostgreSQL database, and the number of this archive writer. All of it is one transaction under
//! an advisory lock: a killed run leaves nothing, and of several nodes one migrates while the others wait.

use super::{NAME, failed, sql};
use crate::id::IdGenerator;
use crate::migration::{Applied, outstanding, parse_all};
use crate::{MessageId, StoreError};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection};
use std::time::Duration;

const FILES: &[(&str, &str)] =
    &[("0001_initial.sql", include_str!("../../migrations/postgresql/0001_initial.sql"))];

const CONNECT: Duration = Duration::from_secs(15);

/// Brings the schema up to date and takes a writer number.
pub(super) async fn prepare(options: &PgConnectOptions) -> Result<IdGenerator, StoreError> {
    let step = "connecting";
    let mut connection = tokio::time::timeout(CONNECT, PgConnection::connect_with(options))
        .await
        .map_err(|_| StoreError::Timeout { backend: NAME, step, seconds: CONNECT.as_secs() })?
        .map_err(failed(step))?;
    migrate(&mut connection).await?;
    let step = failed("taking a writer number");
    let starts: i64 = sqlx::query_scalar(sql::COUNT_START).fetch_one(&mut connection).await.map_err(&step)?;
    let newest: Option<i64> =
        sqlx::query_scalar(sql::NEWEST_MESSAGE).fetch_one(&mut connection).await.map_err(&step)?;
    // Everything is committed, whatever closing says.
    let _ = connection.close().await;
    Ok(IdGenerator::new(starts as u64, newest.map(MessageId::from_i64)))
}

async fn migrate(connection: &mut PgConnection) -> Result<(), StoreError> {
    let known = parse_all(FILES)?;
    let step = failed("migrating the schema");
    let mut transaction = connection.begin().await.map_err(&step)?;
    // Advisory locks are per database; the number is only ours.
    transaction
        .execute("SET LOCAL lock_timeout = '60s'; SELECT pg_advisory_xact_lock(7021196850334);")
        .await
        .map_err(&step)?;
    transaction
        .execute(
            "CREATE TABLE IF NOT EXISTS schema_migration (
                number BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, class TEXT NOT NULL,
                compatible_from BIGINT NOT NULL, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)",
        )
        .await
        .map_err(&step)?;
    let rows: Vec<(i64, i64, String)> =
        sqlx::query_as(sql::APPLIED_MIGRATIONS).fetch_all(&mut *transaction).await.map_err(&step)?;
    let applied: Vec<Applied> = rows.into_iter().map(Applied::from).collect();
    for migration in outstanding(NAME, &known, &applied)? {
        for statement in migration.statements() {
            transaction.execute(sqlx::AssertSqlSafe(statement)).await.map_err(&step)?;
        }
        sqlx::query(sql::RECORD_MIGRATION)
            .bind(i64::from(migration.number))
            .bind(migration.name)
            .bind(migration.class.as_str())
            .bind(i64::from(migration.compatible_from))
            .bind(&migration.checksum)
            .bind(crate::id::now_ms())
            .execute(&mut *transaction)
            .await
            .map_err(&step)?;
        tracing::info!(backend = NAME, number = migration.number, name = migration.name, "schema migrated");
    }
    transaction.commit().await.map_err(&step)
}
