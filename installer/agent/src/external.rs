//! Servers that somebody else runs, used as the IM core would use them: TLS, sign-in, version, rights.
//!
//! In a database a table is made, written to and removed again: PostgreSQL in a transaction that is rolled back, MariaDB
//! (whose definitions are not undone) by `DROP TABLE`. In Redis a key with a life of ten seconds is set and removed.
//! Every server has a deadline; a wrong password is an answer, not a wait. Passwords go into the handshake and nowhere
//! else, and no statement is logged.

use crate::error::{Failure, Result};
use maxim_model::wire::{ExternalKind, ExternalResult, ExternalServer};
use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};
use std::time::{Duration, Instant};

/// How far it went, and why no further.
type Step<T> = std::result::Result<T, (&'static str, String)>;

/// Tries every server, all at once.
pub fn try_all(servers: &[ExternalServer], patience: Duration) -> Result<Vec<ExternalResult>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Talk { with: "external servers".into(), what: error.to_string() })?;
    Ok(runtime.block_on(async {
        let mut results = Vec::with_capacity(servers.len());
        // One or two of them: not worth trying at the same time.
        for server in servers {
            results.push(try_one(server, patience).await);
        }
        results
    }))
}

async fn try_one(server: &ExternalServer, patience: Duration) -> ExternalResult {
    let began = Instant::now();
    let mut version = String::new();
    let work = async {
        match server.kind {
            ExternalKind::Mariadb => mariadb(server, &mut version).await,
            ExternalKind::Postgresql => postgresql(server, &mut version).await,
            ExternalKind::Redis => redis(server, &mut version).await,
        }
    };
    let outcome = tokio::time::timeout(patience, work)
        .await
        .unwrap_or_else(|_| Err(("connect", format!("no answer within {} s", patience.as_secs()))));
    let (failed, cause) =
        outcome.err().map_or_else(Default::default, |(step, cause)| (step.to_owned(), cause));
    ExternalResult { version, failed, cause, millis: began.elapsed().as_millis() as u64 }
}

fn at<E: std::error::Error>(step: &'static str) -> impl Fn(E) -> (&'static str, String) {
    move |error| {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        (step, text)
    }
}

/// A table that nobody else has: its name, and the statements that make it and write to it.
struct Scratch {
    name: String,
    make: String,
    write: String,
}

impl Scratch {
    /// `options`: what the engine wants behind the columns.
    fn new(options: &str) -> Self {
        let name = format!("maxim_check_{:016x}", rand::random::<u64>());
        Self {
            make: format!("CREATE TABLE {name} (id BIGINT PRIMARY KEY){options}"),
            write: format!("INSERT INTO {name} VALUES (1)"),
            name,
        }
    }
}

async fn mariadb(server: &ExternalServer, version: &mut String) -> Step<()> {
    let mut options = MySqlConnectOptions::new()
        .host(&server.host)
        .port(server.port)
        .username(&server.user)
        .database(&server.database)
        .password(server.password.expose());
    options = if server.authority.is_empty() {
        options.ssl_mode(MySqlSslMode::Disabled)
    } else {
        options.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca_from_pem(server.authority.clone().into_bytes())
    };
    let mut connection = options.disable_statement_logging().connect().await.map_err(at("connect"))?;
    let row = connection.fetch_one("SELECT VERSION()").await.map_err(at("version"))?;
    *version = row.try_get(0).map_err(at("version"))?;
    let Scratch { name: table, make, write } = Scratch::new(" ENGINE=InnoDB");
    let rights = at::<sqlx::Error>("rights");
    connection.execute(AssertSqlSafe(make)).await.map_err(&rights)?;
    let written = connection.execute(AssertSqlSafe(write)).await;
    let indexed = connection.execute(AssertSqlSafe(format!("ALTER TABLE {table} ADD COLUMN more INT"))).await;
    connection.execute(AssertSqlSafe(format!("DROP TABLE {table}"))).await.map_err(|error| {
        let (step, cause) = rights(error);
        (step, format!("{cause} (the empty table {table} is left: remove it)"))
    })?;
    written.and(indexed).map_err(&rights)?;
    // The answer stands; a connection that does not end well changes nothing about it.
    let _ = connection.close().await;
    Ok(())
}

async fn postgresql(server: &ExternalServer, version: &mut String) -> Step<()> {
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&server.host)
        .port(server.port)
        .username(&server.user)
        .database(&server.database)
        .password(server.password.expose());
    options = if server.authority.is_empty() {
        options.ssl_mode(PgSslMode::Disable)
    } else {
        options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert_from_pem(server.authority.clone().into_bytes())
    };
    let mut connection = options.disable_statement_logging().connect().await.map_err(at("connect"))?;
    let row = connection.fetch_one("SHOW server_version").await.map_err(at("version"))?;
    *version = row.try_get(0).map_err(at("version"))?;
    let scratch = Scratch::new("");
    let rights = at::<sqlx::Error>("rights");
    let mut transaction = connection.begin().await.map_err(&rights)?;
    for statement in [scratch.make, scratch.write] {
        transaction.execute(AssertSqlSafe(statement)).await.map_err(&rights)?;
    }
    transaction.rollback().await.map_err(&rights)?;
    let _ = connection.close().await;
    Ok(())
}

async fn redis(server: &ExternalServer, version: &mut String) -> Step<()> {
    let mut identity = RedisConnectionInfo::default();
    if !server.user.is_empty() {
        identity = identity.set_username(&server.user);
    }
    if !server.password.expose().is_empty() {
        identity = identity.set_password(server.password.expose());
    }
    let tls = !server.authority.is_empty();
    let address = if tls {
        ConnectionAddr::TcpTls {
            host: server.host.clone(),
            port: server.port,
            insecure: false,
            tls_params: None,
        }
    } else {
        ConnectionAddr::Tcp(server.host.clone(), server.port)
    };
    let info = address.into_connection_info().map_err(at("connect"))?.set_redis_settings(identity);
    let client = if tls {
        // The driver takes the process's provider; whoever set one before meant it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let root_cert = Some(server.authority.clone().into_bytes());
        Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
    } else {
        Client::open(info)
    }
    .map_err(at("connect"))?;
    let mut connection = client.get_multiplexed_async_connection().await.map_err(at("connect"))?;
    let rights = at::<redis::RedisError>("rights");
    let text: String =
        redis::cmd("INFO").arg("server").query_async(&mut connection).await.map_err(at("version"))?;
    let found = text.lines().find_map(|line| line.strip_prefix("redis_version:"));
    found.unwrap_or_default().trim().clone_into(version);
    let key = format!("maxim:check:{:016x}", rand::random::<u64>());
    let () = redis::cmd("SET")
        .arg(&key)
        .arg(1)
        .arg("EX")
        .arg(10)
        .query_async(&mut connection)
        .await
        .map_err(&rights)?;
    let script = "return redis.call('DEL', KEYS[1])";
    let () = redis::cmd("EVAL")
        .arg(script)
        .arg(1)
        .arg(&key)
        .query_async(&mut connection)
        .await
        .map_err(&rights)?;
    let () = redis::cmd("PUBLISH").arg(&key).arg(1).query_async(&mut connection).await.map_err(&rights)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::try_all;
    use maxim_model::Secret;
    use maxim_model::wire::{ExternalKind, ExternalServer};
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    fn server(kind: ExternalKind, port: u16) -> ExternalServer {
        ExternalServer {
            kind,
            host: "127.0.0.1".into(),
            port,
            user: "chat".into(),
            password: Secret::new("planted-7431"),
            database: "im".into(),
            authority: String::new(),
        }
    }

    #[test]
    fn a_server_that_refuses_or_says_nothing_is_told_within_the_deadline() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let kinds = [ExternalKind::Mariadb, ExternalKind::Postgresql, ExternalKind::Redis];
        let servers: Vec<_> = kinds
            .iter()
            .flat_map(|kind| [server(*kind, silent.local_addr().unwrap().port()), server(*kind, closed)])
            .collect();
        let began = Instant::now();
        let results = try_all(&servers, Duration::from_millis(300)).unwrap();
        assert!(began.elapsed() < Duration::from_secs(20));
        assert_eq!(results.len(), servers.len());
        for result in results {
            assert_eq!(result.failed, "connect", "{result:?}");
            assert!(!result.cause.is_empty() && !result.cause.contains("planted"), "{result:?}");
        }
    }
}
