//! The configuration file: YAML, read whole and checked before anything is opened.
//!
//! [`Config::read`] needs a path and binds nothing. Unknown keys are refused with line and column, values out of
//! range with their path. Secrets never stand in the file: `password_file` points to them, and they are read
//! when the store or live state is opened.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use im_proto::Address;
use im_store::live::{LiveConfig, RedisConfig};
use im_store::{Secret, ServerAddress, ServerConfig, StoreConfig};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: check that it exists and that this user may read it")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Not YAML, an unknown key, or a value of the wrong type.
    #[error("{path}: {source}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// The parser's message with line and column.
        source: serde_yaml::Error,
    },
    /// A value that makes no sense.
    #[error("{path}: {key}: {reason}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// Path of the key.
        key: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
}

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The domain that accounts end in.
    pub domain: String,
    /// Name of this node, for people; never stored with data.
    #[serde(default = "default_node")]
    pub node: String,
    /// Where to listen.
    pub listen: Listen,
    /// Certificate and key; without them nothing encrypted can be offered.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// What is served at `/` and beside it.
    #[serde(default, deserialize_with = "empty_is_default")]
    pub web: Web,
    /// Where messages and accounts are kept.
    pub store: StoreSection,
    /// Where live state is kept; memory when not given.
    #[serde(default, deserialize_with = "empty_is_default")]
    pub live: LiveSection,
    /// Who may make accounts.
    #[serde(default, deserialize_with = "empty_is_default")]
    pub registration: Registration,
    /// Allows signing in without TLS, for load tests; refused unless every XMPP listener is on loopback.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// The message archive.
    #[serde(default, deserialize_with = "empty_is_default")]
    pub archive: ArchiveSection,
    /// Limits.
    #[serde(default, deserialize_with = "empty_is_default")]
    pub limits: LimitSection,
    /// Where to write the ports that were bound, as JSON.
    #[serde(default)]
    pub ports_file: Option<PathBuf>,
    /// Logging.
    #[serde(default, deserialize_with = "empty_is_default")]
    pub log: LogSection,
}

/// A section with nothing in it, as a template may leave one, means its defaults.
fn empty_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn default_node() -> String {
    "maxim".into()
}

/// Addresses as `host:port`, port 0 for any free one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// XMPP with STARTTLS.
    #[serde(default)]
    pub xmpp: Vec<SocketAddr>,
    /// XMPP with TLS from the first byte.
    #[serde(default)]
    pub xmpp_tls: Vec<SocketAddr>,
    /// Web chat, WebSocket, host-meta.
    #[serde(default)]
    pub https: Vec<SocketAddr>,
    /// `/metrics`, `/healthz`, `/readyz`; loopback only.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// Unix socket of the administration.
    #[serde(default)]
    pub admin_socket: Option<PathBuf>,
}

/// PEM files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain, the server's own first.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// What HTTPS serves beside the WebSocket.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Web {
    /// Folder of the web chat, as `im-core/web/build` makes it.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// PEM file of the private CA, served at `/ca.crt`.
    #[serde(default)]
    pub ca_certificate: Option<PathBuf>,
    /// Host and port under which clients reach HTTPS, for `/.well-known/host-meta`; by default what the
    /// request says.
    #[serde(default)]
    pub public_address: Option<String>,
}

/// Exactly one of the three.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSection {
    /// A file on this machine.
    #[serde(default)]
    pub sqlite: Option<SqliteSection>,
    /// MariaDB or MySQL.
    #[serde(default)]
    pub mariadb: Option<DatabaseSection>,
    /// PostgreSQL.
    #[serde(default)]
    pub postgresql: Option<DatabaseSection>,
}

/// A SQLite file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteSection {
    /// The file; its folder must exist.
    pub path: PathBuf,
}

/// A database server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSection {
    /// Host name or address; or `socket`.
    #[serde(default)]
    pub host: Option<String>,
    /// Port; the engine's usual one when not given.
    #[serde(default)]
    pub port: Option<u16>,
    /// Unix socket (MariaDB) or its folder (PostgreSQL); or `host`.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Name of the database.
    pub database: String,
    /// User.
    pub user: String,
    /// File with the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// PEM file of the authority; TLS is demanded when it is given.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Connections for reads and small writes, 1 to 500.
    #[serde(default = "default_connections")]
    pub connections: u32,
}

fn default_connections() -> u32 {
    8
}

/// Memory or Redis.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveSection {
    /// Redis; memory when not given.
    #[serde(default)]
    pub redis: Option<RedisSection>,
}

/// A Redis server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSection {
    /// Host name or address; or `socket`.
    #[serde(default)]
    pub host: Option<String>,
    /// Port.
    #[serde(default = "default_redis_port")]
    pub port: u16,
    /// Unix socket; or `host`.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Name of the ACL user.
    #[serde(default)]
    pub user: Option<String>,
    /// File with the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// PEM file of the authority; TLS is demanded when it is given.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// What every key begins with.
    #[serde(default = "default_prefix")]
    pub prefix: String,
}

fn default_redis_port() -> u16 {
    6379
}

fn default_prefix() -> String {
    "maxim:".into()
}

/// Who may make accounts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Anybody, in band (XEP-0077).
    #[serde(default)]
    pub in_band: bool,
}

/// The message archive.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArchiveSection {
    /// Keep messages. Offline messages are kept in any case.
    pub enabled: bool,
    /// Remove messages after this many days; 0 keeps them for ever.
    pub expire_days: u32,
}

impl Default for ArchiveSection {
    fn default() -> Self {
        Self { enabled: true, expire_days: 0 }
    }
}

/// Logging.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// `error`, `warn`, `info`, `debug`, `trace`.
    pub level: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $default:literal, $min:literal..=$max:literal;)*) => {
        /// Named limits. None of the defaults slows an ordinary client or a load test.
        #[derive(Debug, Clone, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct LimitSection { $($(#[$doc])* pub $name: u64,)* }

        impl Default for LimitSection {
            fn default() -> Self { Self { $($name: $default,)* } }
        }

        impl LimitSection {
            /// Name, default, least and greatest value of every limit, for documentation and checks.
            pub const TABLE: &'static [(&'static str, u64, u64, u64)] =
                &[$((concat!("limits.", stringify!($name)), $default, $min, $max),)*];

            fn check(&self) -> Result<(), (&'static str, String)> {
                $(if !($min..=$max).contains(&self.$name) {
                    return Err((
                        concat!("limits.", stringify!($name)),
                        format!("{} is not within {} and {}", self.$name, $min, $max),
                    ));
                })*
                Ok(())
            }
        }
    };
}

limits! {
    /// Bytes of one stanza of a signed-in client.
    stanza_bytes: 262_144, 10_000..=16_000_000;
    /// Bytes of one element before signing in.
    unauthenticated_stanza_bytes: 16_384, 4_096..=262_144;
    /// Elements inside one another.
    stanza_depth: 64, 16..=250;
    /// Connections of this node.
    connections: 200_000, 1..=10_000_000;
    /// Connections from one address.
    connections_per_address: 20_000, 1..=10_000_000;
    /// Seconds from connecting to a bound session.
    sign_in_seconds: 30, 2..=600;
    /// Failed attempts to sign in on one connection.
    sign_in_attempts: 5, 1..=100;
    /// Failed attempts to sign in to one account from one address, per minute.
    sign_in_failures_per_minute: 20, 1..=1_000_000;
    /// Sessions of one account.
    sessions_per_account: 50, 1..=10_000;
    /// Seconds for which a session that lost its connection can be resumed; 0 switches resumption off.
    resume_seconds: 300, 0..=86_400;
    /// Stanzas kept for a client that has not acknowledged them.
    unacknowledged_stanzas: 5_000, 100..=1_000_000;
    /// Bytes that wait to be written to one client.
    outgoing_bytes: 16_777_216, 262_144..=1_073_741_824;
    /// Messages of one client that wait for their commit.
    messages_in_flight: 64, 1..=10_000;
    /// Contacts in one roster.
    roster_items: 5_000, 1..=100_000;
    /// Messages in one page of an archive.
    archive_page: 250, 1..=1_000;
    /// PBKDF2 rounds of new passwords.
    scram_iterations: 10_000, 4_096..=1_000_000;
    /// Passwords that are derived at once; 0 means half of the processors.
    password_workers: 0, 0..=256;
    /// Passwords that wait to be derived; more are told to try later.
    password_queue: 256, 1..=100_000;
    /// Bytes of a vCard or of one element of private storage.
    profile_bytes: 262_144, 1_024..=4_000_000;
    /// Seconds from SIGTERM to the end.
    shutdown_seconds: 15, 1..=600;
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] with file, place and reason. Nothing is opened but the file itself.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(&text, path)
    }

    /// Checks a text; `path` is for messages.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self =
            serde_yaml::from_str(text).map_err(|source| ConfigError::Syntax { path: path.into(), source })?;
        config.check().map_err(|(key, reason)| ConfigError::Value { path: path.into(), key, reason })?;
        Ok(config)
    }

    fn check(&mut self) -> Result<(), (&'static str, String)> {
        let domain = Address::parse(&self.domain).map_err(|e| ("domain", e.to_string()))?;
        if domain.local().is_some() || domain.resource().is_some() {
            return Err(("domain", "is an address; give the part after the @ only".into()));
        }
        domain.as_str().clone_into(&mut self.domain);
        if self.node.is_empty() || self.node.len() > 64 || self.node.contains(['#', '\n']) {
            return Err(("node", "must have 1 to 64 characters and no '#'".into()));
        }
        let listen = &self.listen;
        if listen.xmpp.is_empty() && listen.xmpp_tls.is_empty() && listen.https.is_empty() {
            return Err(("listen", "names no listener; add xmpp, xmpp_tls or https".into()));
        }
        if let Some(metrics) = listen.metrics.filter(|m| !m.ip().is_loopback()) {
            return Err(("listen.metrics", format!("{metrics} is not a loopback address")));
        }
        let needs_tls = !listen.xmpp_tls.is_empty() || !listen.https.is_empty() || !self.allow_plaintext;
        if self.tls.is_none() && needs_tls {
            return Err(("tls", "is missing; give certificate and key".into()));
        }
        if let Some(address) = listen.xmpp.iter().find(|a| self.allow_plaintext && !a.ip().is_loopback()) {
            return Err((
                "allow_plaintext",
                format!("is for loopback only, and listen.xmpp names {address}"),
            ));
        }
        self.store_config_kind()?;
        if let Some(redis) = &self.live.redis
            && redis.host.is_some() == redis.socket.is_some()
        {
            return Err(("live.redis", "needs either host or socket".into()));
        }
        if !matches!(self.log.level.as_str(), "error" | "warn" | "info" | "debug" | "trace") {
            return Err((
                "log.level",
                format!("'{}' is none of error, warn, info, debug, trace", self.log.level),
            ));
        }
        self.limits.check()
    }

    fn store_config_kind(&self) -> Result<(), (&'static str, String)> {
        let store = &self.store;
        let given = [store.sqlite.is_some(), store.mariadb.is_some(), store.postgresql.is_some()];
        if given.iter().filter(|g| **g).count() != 1 {
            return Err(("store", "needs exactly one of sqlite, mariadb, postgresql".into()));
        }
        if let Some(database) = store.mariadb.as_ref().or(store.postgresql.as_ref()) {
            if database.host.is_some() == database.socket.is_some() {
                return Err(("store", "needs either host or socket".into()));
            }
            if !(1..=500).contains(&database.connections) {
                return Err((
                    "store",
                    format!("connections: {} is not within 1 and 500", database.connections),
                ));
            }
        }
        if store.sqlite.is_some() && self.live.redis.is_some() {
            return Err((
                "store",
                "sqlite serves one node; with live.redis use mariadb or postgresql".into(),
            ));
        }
        Ok(())
    }

    /// What the store needs; reads the password file.
    ///
    /// # Errors
    /// When the password file cannot be read.
    pub fn store_config(&self) -> Result<StoreConfig, ConfigError> {
        let server = |section: &DatabaseSection, port: u16| {
            let address = match (&section.socket, &section.host) {
                (Some(socket), _) => ServerAddress::Socket(socket.clone()),
                (None, host) => ServerAddress::Tcp {
                    host: host.clone().unwrap_or_else(|| "127.0.0.1".into()),
                    port: section.port.unwrap_or(port),
                },
            };
            Ok(ServerConfig {
                address,
                database: section.database.clone(),
                user: section.user.clone(),
                password: read_secret(section.password_file.as_deref())?,
                ca_file: section.ca_file.clone(),
                connections: section.connections,
            })
        };
        Ok(match (&self.store.sqlite, &self.store.mariadb, &self.store.postgresql) {
            (_, Some(section), _) => StoreConfig::Mariadb(server(section, 3306)?),
            (_, _, Some(section)) => StoreConfig::Postgresql(server(section, 5432)?),
            (sqlite, ..) => {
                StoreConfig::Sqlite { path: sqlite.as_ref().map(|s| s.path.clone()).unwrap_or_default() }
            }
        })
    }

    /// What live state needs; reads the password file.
    ///
    /// # Errors
    /// When the password file cannot be read.
    pub fn live_config(&self) -> Result<LiveConfig, ConfigError> {
        let Some(redis) = &self.live.redis else { return Ok(LiveConfig::Memory { node: self.node.clone() }) };
        Ok(LiveConfig::Redis(RedisConfig {
            node: self.node.clone(),
            host: redis.host.clone().unwrap_or_default(),
            port: redis.port,
            socket: redis.socket.clone(),
            password: read_secret(redis.password_file.as_deref())?,
            user: redis.user.clone(),
            ca_file: redis.ca_file.clone(),
            prefix: redis.prefix.clone(),
        }))
    }

    /// Time from connecting to a bound session.
    pub fn sign_in_deadline(&self) -> Duration {
        Duration::from_secs(self.limits.sign_in_seconds)
    }
}

fn read_secret(path: Option<&Path>) -> Result<Option<Secret>, ConfigError> {
    let Some(path) = path else { return Ok(None) };
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n']))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "domain: IM.Example\nlisten: {xmpp: ['127.0.0.1:0']}\nstore: {sqlite: {path: /x/im.db}}\nallow_plaintext: true\n";

    fn fails(text: &str) -> String {
        Config::parse(text, Path::new("im.yaml")).unwrap_err().to_string()
    }

    #[test]
    fn takes_a_small_file_and_fills_in_defaults() {
        let config = Config::parse(GOOD, Path::new("im.yaml")).unwrap();
        assert_eq!(config.domain, "im.example");
        assert_eq!(config.limits.resume_seconds, 300);
        let empty =
            Config::parse(&format!("{GOOD}limits:\nweb:\nlive: {{}}\n"), Path::new("im.yaml")).unwrap();
        assert_eq!(empty.limits.resume_seconds, 300);
        assert!(matches!(config.store_config().unwrap(), StoreConfig::Sqlite { .. }));
        for (name, default, min, max) in LimitSection::TABLE {
            assert!((min..=max).contains(&default), "{name}");
        }
    }

    #[test]
    fn says_where_an_error_is() {
        let unknown = fails(&format!("{GOOD}limits: {{stanza_byte: 1}}\n"));
        assert!(unknown.contains("stanza_byte") && unknown.contains("line 5"), "{unknown}");
        assert!(
            fails(&format!("{GOOD}limits: {{stanza_bytes: 1}}\n"))
                .contains("limits.stanza_bytes: 1 is not within")
        );
        assert!(fails(&GOOD.replace("127.0.0.1", "0.0.0.0")).contains("loopback only"));
        assert!(fails(&GOOD.replace("allow_plaintext: true", "")).contains("tls: is missing"));
        assert!(fails(&GOOD.replace("IM.Example", "a@b")).contains("domain"));
        assert!(fails(&GOOD.replace("{sqlite: {path: /x/im.db}}", "{}")).contains("exactly one"));
        assert!(fails(&format!("{GOOD}live: {{redis: {{host: h}}}}\n")).contains("sqlite serves one node"));
    }
}
