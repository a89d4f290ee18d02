//! The IM core: listeners, streams, sessions, routing and features.
//!
//! How a message goes through the house:
//!
//! 1. [`server`] accepts a connection, [`negotiation`] (with [`sasl`] and [`binding`]) takes it to a
//!    [`session::Session`], [`connection`] then serves it in one task over a [`link::Link`];
//! 2. [`inbound`] stamps each stanza with its sender and hands it to [`messages`], [`presence`] (with
//!    [`subscriptions`]) or [`iq`], which asks the [`features`];
//! 3. messages are committed to the store, many at a time, before anything else happens to them;
//! 4. [`routing`] finds the receiver's sessions, here or through [`cluster`] on other nodes, and puts the stanza
//!    into their outboxes; what nobody took waits in the store for [`offline`].
//!
//! Beside that stand [`admin`] (unix socket), [`http`] (web chat, WebSocket, metrics) and [`accounts`].
//! Addresses, stanzas and framing come from `im-proto`, persistence and live state from `im-store`.

pub mod accounts;
pub mod admin;
pub mod binding;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod core;
pub mod features;
pub mod framing;
pub mod http;
pub mod inbound;
pub mod iq;
pub mod link;
pub mod messages;
pub mod metrics;
pub mod negotiation;
pub mod nodes;
pub mod offline;
pub mod outbox;
pub mod passwords;
pub mod presence;
pub mod process;
pub mod resume;
pub mod routing;
pub mod sasl;
pub mod schema;
pub mod server;
pub mod session;
pub mod subscriptions;
pub mod tls;
pub mod users;

/// Milliseconds since 1970-01-01 UTC.
pub fn now_ms() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
