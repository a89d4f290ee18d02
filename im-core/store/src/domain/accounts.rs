//! Accounts and what proves them: salted SCRAM keys (RFC 5802, RFC 7677), never a password.

use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What a server keeps to verify one SCRAM mechanism (RFC 5802 section 3).
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ScramKeys {
    /// Random bytes, at least 16.
    pub salt: Vec<u8>,
    /// Rounds of PBKDF2, at least 4096.
    pub iterations: u32,
    /// `H(ClientKey)`: 20 bytes for SHA-1, 32 for SHA-256.
    pub stored_key: Vec<u8>,
    /// `HMAC(SaltedPassword, "Server Key")`, as long as the stored key.
    pub server_key: Vec<u8>,
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// The keys of every mechanism that is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// For SCRAM-SHA-1 and SCRAM-SHA-1-PLUS.
    pub sha1: ScramKeys,
    /// For SCRAM-SHA-256 and SCRAM-SHA-256-PLUS; PLAIN is checked against these too.
    pub sha256: ScramKeys,
}

/// Whom an account is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccountKind {
    /// Somebody, or something, that a company gave an account.
    Person,
    /// An account of the verification after an install: hidden from lists, counts and statistics.
    Canary,
}

impl AccountKind {
    /// The name under which the kind is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Canary => "canary",
        }
    }

    /// The kind stored under `name`; anything unknown is a person, so that nobody is hidden by mistake.
    pub fn from_name(name: &str) -> Self {
        if name == "canary" { Self::Canary } else { Self::Person }
    }
}

/// An account to be made.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// Bare JID, prepared (RFC 7622), at most 512 characters.
    pub address: String,
    /// Keys of the first password.
    pub credentials: Credentials,
    /// Whom it is for.
    pub kind: AccountKind,
    /// The name that people read, if one was given.
    pub display_name: Option<String>,
}

/// An account as it is listed: no keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Bare JID.
    pub address: String,
    /// Whom it is for.
    pub kind: AccountKind,
    /// The name that people read.
    pub display_name: Option<String>,
    /// Nobody can sign in to it at present.
    pub disabled: bool,
    /// When it was made, in milliseconds since 1970-01-01 UTC.
    pub created_at: i64,
}

/// What signing in needs to know, in one read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignIn {
    /// Keys to verify the proof with.
    pub credentials: Credentials,
    /// Nobody may sign in at present.
    pub disabled: bool,
    /// Whom the account is for.
    pub kind: AccountKind,
}

/// Which accounts to list. Results are in order of address.
#[derive(Debug, Clone)]
pub struct AccountFilter {
    /// Whom they are for; canaries are seen only by asking for them.
    pub kind: AccountKind,
    /// Only addresses that contain this text, in the same case.
    pub contains: Option<String>,
    /// Only addresses after this one: the last of the page before.
    pub after: Option<String>,
    /// Only accounts made before this moment, in milliseconds since 1970-01-01 UTC.
    pub created_before: Option<i64>,
    /// At most this many, 1 to 1000.
    pub limit: u32,
}

impl Default for AccountFilter {
    fn default() -> Self {
        Self { kind: AccountKind::Person, contains: None, after: None, created_before: None, limit: 100 }
    }
}

domain! {
    /// Accounts.
    pub trait Accounts {
        /// Makes an account; `false` when the address is taken, and then nothing is changed.
        fn create_account(&self, account: &NewAccount) -> bool;
        /// The account at this bare JID. One that is being removed is not there.
        fn account(&self, address: &str) -> Option<Account>;
        /// What signing in to this bare JID needs. An account that is being removed has nothing.
        fn sign_in(&self, address: &str) -> Option<SignIn>;
        /// Replaces the keys; `false` when there is no such account.
        fn set_credentials(&self, address: &str, credentials: &Credentials) -> bool;
        /// Disables or enables; `false` when there is no such account.
        fn set_disabled(&self, address: &str, disabled: bool) -> bool;
        /// Removes an account with all that it owns: roster, archive, offline messages, profile. What it sent
        /// stays in the archives of others. `false` when there was no such account. Removal first locks the
        /// account; when it was interrupted, removing again completes it.
        fn remove_account(&self, address: &str) -> bool;
        /// Locks an account for removal, at once: nobody can sign in to it any more, and it is listed no more.
        /// [`Accounts::remove_account`] then does the rest. `false` when there is no such account.
        fn begin_removal(&self, address: &str) -> bool;
        /// Accounts whose removal was begun and not completed, at most 1000.
        fn unfinished_removals(&self) -> Vec<String>;
        /// Which of these bare JIDs may not be signed in to: disabled, being removed, or not there. At most 1000.
        fn refused_accounts(&self, addresses: &[String]) -> Vec<String>;
        /// A page of accounts.
        fn list_accounts(&self, filter: &AccountFilter) -> Vec<Account>;
    }
}
