//! The recovery kit: one page to print and one file, which suffice, with the repository, to rebuild everything.
//!
//! The page carries the repository's password and says what to type, with our program and with any restic. The file
//! says where the repository is and carries what else opens it (an SSH key, S3 keys), sealed with the password on
//! the page: found alone it opens nothing. Sealing is done by the engine; this is the data and the page's text.

use super::repository::Repository;
use serde::{Deserialize, Serialize};

/// Version of the format.
pub const KIT_FORMAT: u32 = 1;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryKit {
    /// [`KIT_FORMAT`].
    pub format: u32,
    /// Cluster name.
    pub cluster: String,
    /// Domain of its accounts.
    pub domain: String,
    /// `embedded` or `standard`.
    pub profile: String,
    /// Where the repository is.
    pub repository: Repository,
    /// restic's identifier of the repository.
    pub repository_id: String,
    /// When the kit was made, RFC 3339.
    pub made: String,
    /// Version of Maxim that made it.
    pub version: String,
    /// Salt of the key derivation, hex.
    pub salt: String,
    /// Rounds of PBKDF2 with HMAC-SHA-256.
    pub rounds: u32,
    /// [`KitSecrets`] as JSON, sealed by AES-256-GCM: nonce, then ciphertext with its tag; hex.
    pub sealed: String,
    /// HMAC-SHA-256 of [`KitSecrets`] as JSON under the repository's password, hex: tells a kit whose secrets were
    /// exchanged since. Empty in one of an earlier version.
    #[serde(default)]
    pub tag: String,
}

/// What the file carries sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KitSecrets {
    /// Private key for SFTP; empty: none.
    pub ssh_key: crate::Secret,
    /// Known host keys for SFTP; empty: none.
    pub known_hosts: String,
    /// Shared credentials for S3; empty: none.
    pub credentials: crate::Secret,
}

/// The page to print. It carries the password.
pub fn page(kit: &RecoveryKit, password: &crate::Secret, file: &str) -> String {
    let location = kit.repository.location();
    format!(
        "RECOVERY KIT OF {cluster} ({domain})\n\
         made {made} by Maxim {version}\n\
         \n\
         Keep this page where the cluster is not: a safe, another building. Whoever has it and the\n\
         repository can read every message.\n\
         \n\
         repository:    {location}\n\
         repository id: {id}\n\
         password:      {password}\n\
         \n\
         TO REBUILD EVERYTHING on new machines, with the file {file}:\n\
         \n\
         \x20 1. Put the password into a file: one line, mode 0600.\n\
         \x20 2. {restore}\n\
         \n\
         WITHOUT MAXIM, with any restic since 0.14:\n\
         \n\
         \x20 restic -r {location} --password-file FILE snapshots --tag maxim\n\
         \x20 restic -r {location} --password-file FILE restore SNAPSHOT --target FOLDER\n\
         \n\
         \x20 Snapshots with one tag `set-…` belong together; a set without a snapshot `part-manifest`\n\
         \x20 is not complete. The part `database` is SQL of mariadb-dump or pg_dump, or an SQLite file;\n\
         \x20 the part `state` is a tar with topology, secrets and the certificate authority.\n",
        cluster = kit.cluster,
        domain = kit.domain,
        made = kit.made,
        version = kit.version,
        id = kit.repository_id,
        password = password.expose(),
        restore = if kit.profile == "embedded" {
            "maxim.ctl backup restore --kit FILE --password-file PASSWORD --root FOLDER"
        } else {
            "maxim.ctl backup restore --kit FILE --password-file PASSWORD --bundle BUNDLE [-f cluster.yaml]"
        },
    )
}
