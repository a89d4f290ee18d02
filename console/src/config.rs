//! The configuration file of the console.
//!
//! Given: the text of a YAML file and its path. Steps: parse strictly (unknown and duplicate keys are refused with
//! line and column), check meaning (absolute paths, an address with a port, sane durations), return a [`Config`].
//! It binds no port and opens no file but the configuration itself (`--check-config` opens certificate and key in a
//! step of its own). It deliberately knows no secret: files are named, never their contents.

use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is wrong with a configuration. Every variant names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {path}: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Not YAML, an unknown key, or a value of the wrong type. The message carries line and column.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// A value that cannot work.
    #[error("{path}: `{key}` {message}")]
    Meaning {
        /// The file.
        path: PathBuf,
        /// Dotted key.
        key: &'static str,
        /// What is wrong and what is accepted.
        message: String,
    },
}

/// The configuration as resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Address and port of the HTTPS listener; port 0 lets the system choose (see `ports_file`).
    pub listen: SocketAddr,
    /// Where the bound port is written as `{"console":PORT}`; none: nowhere.
    pub ports_file: Option<PathBuf>,
    /// PEM certificate chain.
    pub certificate: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
    /// Folder of the console's own database.
    pub data: PathBuf,
    /// File with the first administrator's password or its hash; none: an administrator must exist already.
    pub setup_password_file: Option<PathBuf>,
    /// A session ends when nobody used it for so long.
    pub idle: Duration,
    /// A session ends so long after sign-in whatever happens.
    pub absolute: Duration,
    /// The cluster that is watched.
    pub cluster: ClusterConfig,
}

/// Where the state of the cluster lies and how its hosts are reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// State folder: topology as applied, pinned host keys, wanted versions.
    pub state: PathBuf,
    /// The `maxim-ctl` that is started as a read-only agent for a local host.
    pub program: PathBuf,
    /// Unix socket of the agent on the console's own host (standard profile).
    #[serde(default)]
    pub agent_socket: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    listen: String,
    #[serde(default)]
    ports_file: Option<PathBuf>,
    tls: TlsFiles,
    data: PathBuf,
    #[serde(default)]
    setup_password_file: Option<PathBuf>,
    #[serde(default)]
    session: SessionFile,
    cluster: ClusterConfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SessionFile {
    idle_minutes: u64,
    absolute_hours: u64,
}

impl Default for SessionFile {
    fn default() -> Self {
        Self { idle_minutes: 30, absolute_hours: 12 }
    }
}

impl Config {
    /// Reads and checks a configuration file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| ConfigError::Read { path: path.to_path_buf(), cause })?;
        Self::parse(&text, path)
    }

    /// Parses the text of a configuration; `path` is only for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: Document = serde_yaml::from_str(text)
            .map_err(|error| ConfigError::Syntax { path: path.to_path_buf(), message: error.to_string() })?;
        let meaning = |key, message: String| ConfigError::Meaning { path: path.to_path_buf(), key, message };

        let listen = file.listen.parse().map_err(|_| {
            meaning(
                "listen",
                format!(
                    "is {:?}; an IP address with a port is needed, as 0.0.0.0:9443 or [::]:9443",
                    file.listen
                ),
            )
        })?;
        let absolute = |key, value: PathBuf| {
            if value.is_absolute() {
                Ok(value)
            } else {
                Err(meaning(key, format!("is `{}`; an absolute path is needed", value.display())))
            }
        };
        // An empty text means "none", so that a template needs no condition around an optional path.
        let optional = |key, value: Option<PathBuf>| match value {
            Some(path) if !path.as_os_str().is_empty() => absolute(key, path).map(Some),
            _ => Ok(None),
        };
        let within = |key, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(value)
            } else {
                Err(meaning(key, format!("is {value}; {low} to {high} is accepted")))
            }
        };
        let idle = within("session.idle_minutes", file.session.idle_minutes, 1, 24 * 60)?;
        let hours = within("session.absolute_hours", file.session.absolute_hours, 1, 7 * 24)?;

        Ok(Self {
            listen,
            ports_file: optional("ports_file", file.ports_file)?,
            certificate: absolute("tls.certificate", file.tls.certificate)?,
            key: absolute("tls.key", file.tls.key)?,
            data: absolute("data", file.data)?,
            setup_password_file: optional("setup_password_file", file.setup_password_file)?,
            idle: Duration::from_mins(idle),
            absolute: Duration::from_hours(hours),
            cluster: ClusterConfig {
                state: absolute("cluster.state", file.cluster.state)?,
                program: absolute("cluster.program", file.cluster.program)?,
                agent_socket: optional("cluster.agent_socket", file.cluster.agent_socket)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, ConfigError};
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    const GOOD: &str = "
listen: 127.0.0.1:9443
tls: {certificate: /c/tls.crt, key: /c/tls.key}
data: /d
cluster: {state: /s, program: /p/maxim-ctl, agent_socket: ''}
";

    fn message(text: &str) -> String {
        match Config::parse(text, Path::new("/etc/maxim/console.yaml")) {
            Ok(config) => panic!("accepted: {config:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn fills_in_defaults() {
        let config = Config::parse(GOOD, Path::new("x")).unwrap();
        assert_eq!(config.idle, Duration::from_mins(30));
        assert_eq!(config.absolute, Duration::from_hours(12));
        assert_eq!(config.cluster.agent_socket, None);
        assert_eq!(config.setup_password_file, None);
        assert_eq!(config.key, PathBuf::from("/c/tls.key"));
    }

    #[test]
    fn refuses_an_unknown_key_with_its_line() {
        let text = format!("{GOOD}listne: 1\n");
        let said = message(&text);
        assert!(said.contains("unknown field `listne`") && said.contains("line 6"), "{said}");
    }

    #[test]
    fn refuses_a_duplicate_key() {
        let said = message(&format!("{GOOD}data: /other\n"));
        assert!(said.contains("duplicate"), "{said}");
    }

    #[test]
    fn refuses_values_that_cannot_work() {
        for (from, to, key) in [
            ("127.0.0.1:9443", "9443", "`listen`"),
            ("127.0.0.1:9443", "127.0.0.1:99443", "`listen`"),
            ("data: /d", "data: d", "`data`"),
            ("/p/maxim-ctl", "maxim-ctl", "`cluster.program`"),
            ("data: /d", "data: /d\nsession: {idle_minutes: 0}", "`session.idle_minutes`"),
            ("data: /d", "data: /d\nsession: {absolute_hours: 1000}", "`session.absolute_hours`"),
        ] {
            let said = message(&GOOD.replace(from, to));
            assert!(said.starts_with("/etc/maxim/console.yaml: ") && said.contains(key), "{said}");
        }
    }

    #[test]
    fn names_a_file_that_is_not_there() {
        let error = Config::load(Path::new("/nonexistent/console.yaml")).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }));
        assert!(error.to_string().contains("/nonexistent/console.yaml"));
    }
}
