//! The store in PostgreSQL.
//!
//! Reads and small writes go through a pool; the archive through the [pipeline](crate::server_store::pipeline)
//! over connections of its own, each batch as one prepared statement over arrays. Needs a database that exists
//! and a user who owns it. The writing connections ask for `synchronous_commit = on`, so that a commit is on disk
//! when it returns, whatever the server's default is.

pub(crate) mod schema;
mod sink;
mod sql;

use crate::server_store::pipeline::Pipeline;
use crate::server_store::{
    Fault, attempt, fault, impl_accounts, impl_archive, impl_housekeeping, impl_profiles, impl_rosters,
    still_there,
};
use crate::{ServerAddress, ServerConfig, StoreError};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use std::sync::Arc;
use std::time::Duration;

type Database = sqlx::Postgres;

/// The back end's name.
pub(crate) const NAME: &str = "postgresql";

/// Connections that write the archive.
const WRITERS: usize = 2;

/// A store in a PostgreSQL server.
#[derive(Debug, Clone)]
pub(crate) struct PostgresqlStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    pipeline: Pipeline,
}

impl PostgresqlStore {
    /// Connects and brings the schema up to date.
    pub(crate) async fn open(config: &ServerConfig) -> Result<Self, StoreError> {
        let options = options(config);
        let generator = schema::prepare(&options).await?;
        let pool = PgPoolOptions::new()
            .max_connections(config.connections.max(1))
            .acquire_timeout(Duration::from_secs(5))
            .idle_timeout(Duration::from_mins(5))
            // A connection that broke while it was idle is noticed by use, and what was asked is tried again.
            .test_before_acquire(false)
            .after_release({
                let options = options.clone();
                move |connection, _| {
                    let options = options.clone();
                    Box::pin(
                        async move { still_there(connection, || PgConnection::connect_with(&options)).await },
                    )
                }
            })
            .connect_with(options.clone())
            .await
            .map_err(failed("connecting"))?;
        let sinks = (0..WRITERS).map(|_| sink::PostgresqlSink::new(options.clone())).collect();
        let pipeline = Pipeline::start(NAME, sinks, generator);
        Ok(Self { inner: Arc::new(Inner { pool, pipeline }) })
    }
}

fn options(config: &ServerConfig) -> PgConnectOptions {
    let mut options = PgConnectOptions::new_without_pgpass()
        .username(&config.user)
        .database(&config.database)
        .application_name("maxim-im")
        .options([("synchronous_commit", "on")]);
    if let Some(password) = &config.password {
        options = options.password(password.expose());
    }
    options = match &config.address {
        ServerAddress::Tcp { host, port } => options.host(host).port(*port),
        ServerAddress::Socket(path) => options.socket(path),
    };
    options = match &config.ca_file {
        Some(ca_file) => options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(ca_file),
        None => options.ssl_mode(PgSslMode::Disable),
    };
    // Nobody's words belong into a log of slow statements.
    options.disable_statement_logging()
}

/// An error of this back end at a step.
fn failed(step: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::database(NAME, step, source)
}

fn fault_of(error: &sqlx::Error) -> Fault {
    fault(error, |code| match code {
        // Serialization failure, deadlock.
        "40001" | "40P01" => Some(Fault::Conflict),
        // Shutdown, crash, start-up, too many connections, connection errors, read-only during a change of
        // primaries.
        "57P01" | "57P02" | "57P03" | "53300" | "25006" => Some(Fault::Unreachable),
        code if code.starts_with("08") => Some(Fault::Unreachable),
        _ => None,
    })
}

fn is_retryable(error: &sqlx::Error) -> bool {
    matches!(fault_of(error), Fault::Conflict | Fault::Unreachable)
}

impl_accounts!(PostgresqlStore);
impl_rosters!(PostgresqlStore);
impl_archive!(PostgresqlStore);
impl_profiles!(PostgresqlStore);
impl_housekeeping!(PostgresqlStore);
