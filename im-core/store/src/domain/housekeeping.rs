//! Health, statistics, and the few values that all nodes must share.

/// Counts without canaries, for the administration and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Accounts.
    pub accounts: u64,
    /// Accounts nobody can sign in to at present.
    pub accounts_disabled: u64,
    /// Messages that await delivery, counted once per owner.
    pub offline_messages: u64,
    /// What the database takes on disk, in bytes, as the database itself says.
    pub database_bytes: u64,
}

domain! {
    /// Housekeeping.
    pub trait Housekeeping {
        /// Succeeds when the store can be read and written within a few seconds.
        fn ping(&self) -> ();
        /// Counts.
        fn statistics(&self) -> Statistics;
        /// The value of a setting that all nodes share.
        fn setting(&self, name: &str) -> Option<String>;
        /// Stores `value` unless the setting has one, and returns the one that holds: nodes that start at
        /// once agree (for instance on the key that makes salts for unknown accounts).
        fn setting_or_insert(&self, name: &str, value: &str) -> String;
        /// Replaces a setting.
        fn set_setting(&self, name: &str, value: &str) -> ();
        /// Refuses further writes, commits what is queued, and closes. Within ten seconds.
        fn close(&self) -> ();
    }
}
