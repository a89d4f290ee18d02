//! Migrations of a MariaDB database, and the number of this archive writer.
//!
//! The server commits each definition by itself, so that a killed migration may be half done. Every statement of
//! a migration therefore bears being run again, and a migration is recorded after its last one. A named lock,
//! which the server frees when the connection ends, lets one node migrate while others wait.

use super::{NAME, failed, options, sql};
use crate::id::IdGenerator;
use crate::migration::{Applied, Class, Migration, ROUNDS, endless, finalizing, outstanding, parse_all};
use crate::{MessageId, SchemaState, ServerConfig, StoreError};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Connection, Executor, MySqlConnection};
use std::time::Duration;

const FILES: &[(&str, &str)] =
    &[("0001_initial.sql", include_str!("../../migrations/mariadb/0001_initial.sql"))];

const LOCK_SECONDS: i64 = 60;
const CONNECT: Duration = Duration::from_secs(15);

/// Brings the schema up to date and takes a writer number.
pub(super) async fn prepare(options: &MySqlConnectOptions) -> Result<IdGenerator, StoreError> {
    let mut connection = connect(options).await?;
    warn_unless_durable(&mut connection).await;
    migrate(&mut connection).await?;
    let step = failed("taking a writer number");
    let counted = connection.execute(sql::COUNT_START).await.map_err(&step)?;
    let newest: Option<i64> =
        sqlx::query_scalar(sql::NEWEST_MESSAGE).fetch_one(&mut connection).await.map_err(&step)?;
    // The lock goes with the connection, whatever closing it says.
    let _ = connection.close().await;
    Ok(IdGenerator::new(counted.last_insert_id(), newest.map(MessageId::from_i64)))
}

async fn connect(options: &MySqlConnectOptions) -> Result<MySqlConnection, StoreError> {
    let step = "connecting";
    tokio::time::timeout(CONNECT, MySqlConnection::connect_with(options))
        .await
        .map_err(|_| StoreError::Timeout { backend: NAME, step, seconds: CONNECT.as_secs() })?
        .map_err(failed(step))
}

/// How far the schema is.
pub(crate) async fn state(config: &ServerConfig) -> Result<SchemaState, StoreError> {
    let mut connection = connect(&options(config)).await?;
    let applied = read_applied(&mut connection).await?;
    SchemaState::new(NAME, &parse_all(FILES)?, &applied)
}

/// Does what waits for the end of an upgrade, under the lock of migrations.
pub(crate) async fn finalize(config: &ServerConfig) -> Result<(), StoreError> {
    let known = parse_all(FILES)?;
    let mut connection = connect(&options(config)).await?;
    lock(&mut connection).await?;
    let step = failed("finalizing the schema");
    let applied = read_applied(&mut connection).await?;
    for migration in finalizing(NAME, &known, &applied)? {
        for statement in migration.statements() {
            let mut rounds = 0;
            loop {
                let done = connection.execute(sqlx::AssertSqlSafe(statement.clone())).await.map_err(&step)?;
                rounds += 1;
                if migration.class != Class::Migrate || done.rows_affected() == 0 {
                    break;
                }
                if rounds == ROUNDS {
                    return Err(endless(migration));
                }
            }
        }
        record(&mut connection, migration).await.map_err(&step)?;
    }
    Ok(())
}

async fn lock(connection: &mut MySqlConnection) -> Result<(), StoreError> {
    let step = "migrating the schema";
    // The lock is the server's and not the database's, hence the name of the database in it.
    let locked: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK(CONCAT('maxim:', MD5(DATABASE())), ?)")
        .bind(LOCK_SECONDS)
        .fetch_one(connection)
        .await
        .map_err(failed(step))?;
    if locked == Some(1) {
        return Ok(());
    }
    Err(StoreError::Timeout { backend: NAME, step, seconds: LOCK_SECONDS as u64 })
}

async fn read_applied(connection: &mut MySqlConnection) -> Result<Vec<Applied>, StoreError> {
    let rows: Vec<(i64, i64, String)> = sqlx::query_as(sql::APPLIED_MIGRATIONS)
        .fetch_all(connection)
        .await
        .map_err(failed("reading the state of the schema"))?;
    Ok(rows.into_iter().map(Applied::from).collect())
}

async fn record(connection: &mut MySqlConnection, migration: &Migration) -> Result<(), sqlx::Error> {
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

async fn warn_unless_durable(connection: &mut MySqlConnection) {
    let setting: Result<i64, _> =
        sqlx::query_scalar("SELECT CAST(@@innodb_flush_log_at_trx_commit AS SIGNED)")
            .fetch_one(connection)
            .await;
    if setting.is_ok_and(|setting| setting != 1) {
        tracing::warn!(
            "the database server does not run with innodb_flush_log_at_trx_commit = 1: acknowledged messages can \
             be lost when its machine loses power"
        );
    }
}

async fn migrate(connection: &mut MySqlConnection) -> Result<(), StoreError> {
    let known = parse_all(FILES)?;
    let step = "migrating the schema";
    lock(connection).await?;
    connection
        .execute(
            "CREATE TABLE IF NOT EXISTS schema_migration (
                number BIGINT NOT NULL PRIMARY KEY, name VARCHAR(255) NOT NULL, class VARCHAR(20) NOT NULL,
                compatible_from BIGINT NOT NULL, checksum VARCHAR(64) NOT NULL, applied_at BIGINT NOT NULL
             ) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        )
        .await
        .map_err(failed(step))?;
    let applied = read_applied(connection).await?;
    for migration in outstanding(NAME, &known, &applied)? {
        for statement in migration.statements() {
            connection.execute(sqlx::AssertSqlSafe(statement)).await.map_err(failed(step))?;
        }
        record(connection, migration).await.map_err(failed(step))?;
    }
    Ok(())
}
