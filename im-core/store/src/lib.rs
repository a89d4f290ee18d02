//! What the IM core keeps: domain traits, three SQL stores behind them, and live state.
//!
//! Two halves that never mix:
//!
//! * **What must last** is in a [`Store`]: accounts, rosters, the message archive with what still awaits
//!   delivery, profiles. The traits in [`domain`] say what can be asked; [`Store`] answers them from SQLite,
//!   MariaDB (or MySQL), or PostgreSQL, each with SQL of its own and its own numbered migrations.
//! * **What is live** is in a [`live::Live`]: who is connected where, how to reach another node, rate limits.
//!   It is in memory on a single node and in Redis in a cluster. Losing it loses no message.
//!
//! Addresses are bare or full JIDs as prepared strings, stanzas are their raw XML bytes: this crate neither
//! parses nor builds XML, and knows nothing of listeners or sessions' sockets. Nothing it writes names a host
//! or a node, so that data restored elsewhere works there.

mod confirm;
pub mod domain;
mod error;
mod id;
mod limits;
pub mod live;
mod mariadb;
mod migration;
mod postgresql;
mod schema;
mod secret;
mod server_store;
mod sqlite;
mod store;

pub use domain::{
    Account, AccountFilter, AccountKind, Accounts, Ack, Archive, ArchiveCopy, ArchivePage,
    ArchivePreferences, ArchiveQuery, ArchiveRule, ArchivedMessage, Credentials, DefaultPolicy, Housekeeping,
    LastActivity, NewAccount, NewMessage, Offline, Page, Profiles, Roster, RosterChange, RosterEdit,
    RosterItem, RosterOutcome, Rosters, ScramKeys, SignIn, Statistics, Subscription,
};
pub use error::StoreError;
pub use id::MessageId;
pub use schema::{SchemaState, finalize_schema, schema_state};
pub use secret::Secret;
pub use store::{ServerAddress, ServerConfig, Store, StoreConfig};
