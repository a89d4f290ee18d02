//! The IM core as clients meet it: the real binary on free ports, SQLite in a temporary folder, and a small XMPP
//! client that speaks over TCP, TLS and WebSocket.
//!
//! Every test has a server of its own, which is killed by its process identifier when the test ends.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on says where it stopped"
)]

mod client;
mod fixtures;
mod server;

mod administration;
mod cluster;
mod delivery;
mod durability;
mod hostile;
mod messages;
mod roster;
mod sign_in;
mod stream_management;
mod web;
