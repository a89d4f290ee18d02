//! The store in use: one of the back ends, opened and migrated.

use crate::{MessageId, Secret, StoreError, mariadb, postgresql, sqlite};
use std::path::PathBuf;

/// Which database, and how it is reached.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// A file on this machine, for a single node.
    Sqlite {
        /// The database file; made when missing, in a folder that exists.
        path: PathBuf,
    },
    /// MariaDB 10.5 or MySQL 8, or newer.
    Mariadb(ServerConfig),
    /// PostgreSQL 13 or newer.
    Postgresql(ServerConfig),
}

/// Where a database server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// By TCP.
    Tcp {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// By a Unix socket: the socket itself for MariaDB, its folder for PostgreSQL.
    Socket(PathBuf),
}

/// How a database server is reached.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where it listens.
    pub address: ServerAddress,
    /// Name of the database, which must exist.
    pub database: String,
    /// User with all rights in that database.
    pub user: String,
    /// Its password; none where the socket proves who is calling.
    pub password: Option<Secret>,
    /// PEM file of the authority that signed the server's certificate: TLS is demanded and checked when it is
    /// given, and not used otherwise.
    pub ca_file: Option<PathBuf>,
    /// Most connections for reads and small writes, 1 or more. Two more are held by the archive writer.
    pub connections: u32,
}

/// The store. Cloning copies a pointer.
#[derive(Debug, Clone)]
pub struct Store {
    backend: Backend,
}

#[derive(Debug, Clone)]
pub(crate) enum Backend {
    Sqlite(sqlite::SqliteStore),
    Mariadb(mariadb::MariadbStore),
    Postgresql(postgresql::PostgresqlStore),
}

impl Store {
    /// Connects, brings the schema up to date under a lock, and starts the archive writer. Several nodes may do
    /// so at once. Fails within a minute when the database cannot be reached.
    pub async fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let backend = match config {
            StoreConfig::Sqlite { path } => Backend::Sqlite(sqlite::SqliteStore::open(path).await?),
            StoreConfig::Mariadb(config) => Backend::Mariadb(mariadb::MariadbStore::open(config).await?),
            StoreConfig::Postgresql(config) => {
                Backend::Postgresql(postgresql::PostgresqlStore::open(config).await?)
            }
        };
        Ok(Self { backend })
    }

    /// The kind of database: `sqlite`, `mariadb` or `postgresql`.
    pub fn kind(&self) -> &'static str {
        match &self.backend {
            Backend::Sqlite(_) => sqlite::NAME,
            Backend::Mariadb(_) => mariadb::NAME,
            Backend::Postgresql(_) => postgresql::NAME,
        }
    }

    /// Says that these messages reached a client of `owner` and no longer await delivery. Waits for nothing: they
    /// count as delivered at once, and the marks are removed with what is written next, within a second. Unknown
    /// ones are ignored. A process that is killed before that finds them waiting again.
    pub fn confirm(&self, owner: &str, ids: &[MessageId]) {
        match &self.backend {
            Backend::Sqlite(store) => store.confirm(owner, ids),
            Backend::Mariadb(store) => store.confirm(owner, ids),
            Backend::Postgresql(store) => store.confirm(owner, ids),
        }
    }

    /// Messages of `owner` that were confirmed by this process and whose marks are not removed yet.
    pub fn confirming(&self, owner: &str) -> Vec<MessageId> {
        let found = match &self.backend {
            Backend::Sqlite(store) => store.confirmations().of(owner),
            Backend::Mariadb(store) => store.confirmations().of(owner),
            Backend::Postgresql(store) => store.confirmations().of(owner),
        };
        found.into_iter().map(MessageId::from_i64).collect()
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }
}
