//! What the end-to-end tests stand on: real bare hosts, and clients to chat with.
//!
//! [`hosts`] boots Debian machines without a way out and takes them down whatever happens.
//! [`browser`] is a real one without a window.
//! [`chat`] is a client of our own to see messages arrive with.
//! [`traffic`] sends and receives through faults and keeps the books.
//! [`load`] puts an XMPP server under load and measures it.
//! The scenarios themselves are in `tests/e2e.rs`, one test binary. Nothing in the product depends on this
//! crate.

pub mod browser;
pub mod chat;
pub mod hosts;
pub mod load;
pub mod traffic;
