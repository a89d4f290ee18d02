//! What is asked and answered. Unknown fields are refused in requests, so that a misspelt one is not lost, and
//! ignored in responses, so that a newer server can say more.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A password on its way. Debug output hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// Takes a password into keeping.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    /// The password itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Nothing to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// Makes an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// Bare JID on the served domain, or its local part alone.
    pub address: String,
    /// The first password.
    pub password: Password,
    /// The name people read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Replaces a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPassword {
    /// Bare JID or local part.
    pub address: String,
    /// The new password.
    pub password: Password,
}

/// Names an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserAddress {
    /// Bare JID or local part.
    pub address: String,
}

/// Asks for a page of accounts, in order of address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListUsers {
    /// Only addresses that contain this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// Only addresses after this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most this many, 1 to 1000; 100 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Bare JID.
    pub address: String,
    /// The name people read.
    #[serde(default)]
    pub name: Option<String>,
    /// Nobody can sign in to it.
    pub disabled: bool,
    /// When it was made, in milliseconds since 1970-01-01 UTC.
    pub created_at: i64,
}

/// A page of accounts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UserList {
    /// The accounts.
    pub users: Vec<User>,
    /// Ask again with `after` set to this; nothing when the list is at its end.
    #[serde(default)]
    pub next: Option<String>,
}

/// One part of readiness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadinessCheck {
    /// `store`, `live`, `listeners`.
    pub name: String,
    /// It works.
    pub ok: bool,
    /// What is wrong, or a short description.
    #[serde(default)]
    pub detail: String,
}

/// Whether clients can be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// All checks are well, and the node is not being drained.
    pub ready: bool,
    /// Version of the running program.
    pub version: String,
    /// The checks.
    pub checks: Vec<ReadinessCheck>,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Sessions on it.
    pub sessions: u64,
    /// It is the one that answers.
    pub this: bool,
}

/// Counts, without canaries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Version of the running program.
    pub version: String,
    /// The served domain.
    pub domain: String,
    /// How long the program has run, in seconds.
    pub uptime_seconds: u64,
    /// Sessions on the node that answers.
    pub sessions: u64,
    /// The nodes that are alive.
    #[serde(default)]
    pub nodes: Vec<NodeView>,
    /// Accounts.
    pub accounts: u64,
    /// Accounts nobody can sign in to.
    pub accounts_disabled: u64,
    /// Messages from clients since the start of this node.
    pub messages_received: u64,
    /// Messages to clients since the start of this node.
    pub messages_delivered: u64,
    /// Messages that await delivery.
    pub messages_offline: u64,
    /// Size of the database, in bytes.
    pub database_bytes: u64,
}

/// A hidden account for a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryAccount {
    /// Bare JID.
    pub address: String,
    /// Random, and told only here.
    pub password: Password,
}

/// Two hidden accounts that may message only each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryCreated {
    /// The two accounts.
    pub accounts: [CanaryAccount; 2],
}

/// Removes hidden accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepCanaries {
    /// Only those at least this old, in seconds: those of other runs that were killed. 0 means all.
    pub older_than_seconds: u64,
    /// Beside those, the named ones, whatever their age.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// What a sweep did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanarySwept {
    /// How many accounts were removed.
    pub removed: u64,
}

/// Ends all sessions and takes no new ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Within this time, in seconds.
    pub deadline_seconds: u64,
}

/// How far the database's schema is, as this version of the IM core sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Version of the IM core that answers.
    pub version: String,
    /// Numbers of the migrations that were applied, in order.
    pub applied: Vec<u32>,
    /// Migrations that wait until the upgrade is finalized, as `0004_drop_last_activity`.
    pub waiting: Vec<String>,
    /// The oldest schema whose program can still work on this one: up to there a rollback is possible.
    pub compatible_from: u32,
    /// What waits is being done now.
    pub finalizing: bool,
    /// Why it was not done, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// What kind of error it is, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request cannot be understood. HTTP 400.
    BadRequest,
    /// The address is not valid, or not on the served domain. HTTP 400.
    InvalidAddress,
    /// The password is not acceptable. HTTP 400.
    InvalidPassword,
    /// There is no such path. HTTP 404.
    UnknownOperation,
    /// There is no such account. HTTP 404.
    UserNotFound,
    /// The address is taken. HTTP 409.
    UserExists,
    /// The address is reserved, for instance for canaries. HTTP 409.
    AddressReserved,
    /// The store or the live state cannot be reached. HTTP 503.
    Unavailable,
    /// A fault of the server. HTTP 500.
    Internal,
    /// A code that this version does not know.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The HTTP status that goes with it.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadRequest | Self::InvalidAddress | Self::InvalidPassword => 400,
            Self::UnknownOperation | Self::UserNotFound => 404,
            Self::UserExists | Self::AddressReserved => 409,
            Self::Unavailable => 503,
            Self::Internal | Self::Unknown => 500,
        }
    }
}

/// The body of every response that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what is wrong, with the value that is.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
