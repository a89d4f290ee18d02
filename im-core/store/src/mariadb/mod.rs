//! The store in MariaDB or MySQL: what a cluster uses unless told otherwise.
//!
//! Reads and small writes go through a pool; the archive through the [pipeline](crate::server_store::pipeline)
//! over connections of its own, each batch as one text with `BEGIN` and `COMMIT`: one way there and back.
//! Needs a database that exists and a user with all rights in it. A commit is on disk when it returns where the
//! server runs with `innodb_flush_log_at_trx_commit = 1`; opening warns where it does not.

pub(crate) mod schema;
mod sink;
mod sql;

use crate::server_store::pipeline::Pipeline;
use crate::server_store::{
    Fault, attempt, fault, impl_accounts, impl_archive, impl_housekeeping, impl_profiles, impl_rosters,
    still_there,
};
use crate::{ServerAddress, ServerConfig, StoreError};
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode};
use sqlx::{ConnectOptions, Connection, Executor, MySqlConnection, MySqlPool};
use std::sync::Arc;
use std::time::Duration;

type Database = sqlx::MySql;

/// The back end's name.
pub(crate) const NAME: &str = "mariadb";

/// Connections that write the archive.
const WRITERS: usize = 2;

/// A store in a MariaDB server.
#[derive(Debug, Clone)]
pub(crate) struct MariadbStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: MySqlPool,
    pipeline: Pipeline,
}

impl MariadbStore {
    /// Connects and brings the schema up to date.
    pub(crate) async fn open(config: &ServerConfig) -> Result<Self, StoreError> {
        let options = options(config);
        let generator = schema::prepare(&options).await?;
        let pool = MySqlPoolOptions::new()
            .max_connections(config.connections.max(1))
            .acquire_timeout(Duration::from_secs(5))
            .idle_timeout(Duration::from_mins(5))
            // A connection that broke while it was idle is noticed by use, and what was asked is tried again.
            .test_before_acquire(false)
            .after_connect(|connection, _| Box::pin(isolate(connection)))
            .after_release({
                let options = options.clone();
                move |connection, _| {
                    let options = options.clone();
                    Box::pin(async move { still_there(connection, || connect(&options)).await })
                }
            })
            .connect_with(options.clone())
            .await
            .map_err(failed("connecting"))?;
        let sinks = (0..WRITERS).map(|_| sink::MariadbSink::new(options.clone())).collect();
        let pipeline = Pipeline::start(NAME, sinks, generator);
        Ok(Self { inner: Arc::new(Inner { pool, pipeline }) })
    }
}

/// Gap locks would only make writers of different rosters wait for each other.
async fn isolate(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await.map(drop)
}

async fn connect(options: &MySqlConnectOptions) -> Result<MySqlConnection, sqlx::Error> {
    let mut connection = MySqlConnection::connect_with(options).await?;
    isolate(&mut connection).await?;
    Ok(connection)
}

fn options(config: &ServerConfig) -> MySqlConnectOptions {
    let mut options = MySqlConnectOptions::new().username(&config.user).database(&config.database);
    if let Some(password) = &config.password {
        options = options.password(password.expose());
    }
    options = match &config.address {
        ServerAddress::Tcp { host, port } => options.host(host).port(*port),
        ServerAddress::Socket(path) => options.socket(path),
    };
    options = match &config.ca_file {
        Some(ca_file) => options.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca(ca_file),
        None => options.ssl_mode(MySqlSslMode::Disabled),
    };
    // Statements of the archive writer hold what people write to each other.
    options.disable_statement_logging()
}

/// An error of this back end at a step.
fn failed(step: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::database(NAME, step, source)
}

fn fault_of(error: &sqlx::Error) -> Fault {
    let number = match error {
        sqlx::Error::Database(error) => {
            error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map(|error| error.number())
        }
        _ => None,
    };
    fault(error, |_| match number? {
        // Lock wait timeout, deadlock.
        1205 | 1213 => Some(Fault::Conflict),
        // Too many connections, shutdown, aborted and killed connections, server gone, read-only during a
        // change of primaries.
        1040 | 1053 | 1152..=1161 | 1184 | 1203 | 1927 | 2006 | 2013 | 1290 | 1792 => {
            Some(Fault::Unreachable)
        }
        _ => None,
    })
}

fn is_retryable(error: &sqlx::Error) -> bool {
    matches!(fault_of(error), Fault::Conflict | Fault::Unreachable)
}

impl_accounts!(MariadbStore);
impl_rosters!(MariadbStore);
impl_archive!(MariadbStore);
impl_profiles!(MariadbStore);
impl_housekeeping!(MariadbStore);
