//! Where sets are kept: a folder, another host by SFTP, or S3-compatible storage — as restic names them.

use crate::Secret;
use serde::{Deserialize, Serialize};

/// A repository as the topology has it (`backup.repository`), checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Repository {
    /// A folder of the host that runs restic.
    Local {
        /// Absolute path.
        path: String,
    },
    /// A folder of another host.
    Sftp {
        /// Name or address.
        host: String,
        /// Port of its SSH server.
        #[serde(default = "twenty_two")]
        port: u16,
        /// User there.
        #[serde(default = "root")]
        user: String,
        /// Absolute path there.
        path: String,
        /// File with the private key, on the control host; empty: keys of the user who runs restic.
        #[serde(default)]
        key: String,
        /// File with the host's key as `known_hosts` has it, on the control host; empty: that of the user.
        #[serde(default)]
        known_hosts_file: String,
    },
    /// A bucket.
    S3 {
        /// `https://host[:port]` or `http://…`.
        endpoint: String,
        /// Bucket.
        bucket: String,
        /// Folder in it; may be empty.
        #[serde(default)]
        prefix: String,
        /// Region; empty: the endpoint's own.
        #[serde(default)]
        region: String,
        /// File with the keys in the form of AWS's shared credentials, on the control host.
        #[serde(default)]
        credentials_file: String,
    },
}

const fn twenty_two() -> u16 {
    22
}

fn root() -> String {
    "root".into()
}

impl Repository {
    /// Reads what the topology has; none when no repository is set.
    ///
    /// # Errors
    /// In words, when the value is not one that the topology's own rules let through.
    pub fn from_topology(value: &serde_json::Value) -> Result<Option<Self>, String> {
        if value.is_null() {
            return Ok(None);
        }
        serde_json::from_value(value.clone()).map(Some).map_err(|error| error.to_string())
    }

    /// What restic's `-r` takes. It holds no secret.
    pub fn location(&self) -> String {
        match self {
            Self::Local { path } => path.clone(),
            Self::Sftp { host, port, user, path, .. } => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                format!("sftp://{user}@{host}:{port}/{path}")
            }
            Self::S3 { endpoint, bucket, prefix, .. } => {
                let endpoint = endpoint.trim_end_matches('/');
                let prefix = prefix.trim_matches('/');
                if prefix.is_empty() {
                    format!("s3:{endpoint}/{bucket}")
                } else {
                    format!("s3:{endpoint}/{bucket}/{prefix}")
                }
            }
        }
    }
}

/// A repository with what opens it. Travels to an agent's standard input and is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryAccess {
    /// Where it is.
    pub repository: Repository,
    /// restic's password.
    pub password: Secret,
    /// Private key for SFTP; empty: none given.
    pub ssh_key: Secret,
    /// Known host keys for SFTP; empty: those of the user.
    pub known_hosts: String,
    /// Shared credentials for S3; empty: none given.
    pub credentials: Secret,
    /// Folder of the host for restic's cache and temporary packs; private, made when missing.
    pub work: String,
    /// Folder of the host for files with secrets while restic runs (a memory file system where there is one).
    pub run: String,
    /// Folder that may hold images with restic (`restic-…`), looked at before the known path.
    pub images: String,
}

#[cfg(test)]
mod tests {
    use super::Repository;
    use serde_json::json;

    #[test]
    fn locations_are_those_of_restic() {
        let read = |value| Repository::from_topology(&value).unwrap().unwrap().location();
        assert_eq!(read(json!({"type": "local", "path": "/b"})), "/b");
        assert_eq!(
            read(json!({"type": "sftp", "host": "fd00::1", "port": 2222, "user": "b", "path": "/x"})),
            "sftp://b@[fd00::1]:2222//x"
        );
        assert_eq!(
            read(json!({"type": "s3", "endpoint": "http://h:1/", "bucket": "a", "prefix": "/p/"})),
            "s3:http://h:1/a/p"
        );
        assert_eq!(Repository::from_topology(&json!(null)).unwrap(), None);
        assert!(Repository::from_topology(&json!({"type": "tape"})).is_err());
    }
}
