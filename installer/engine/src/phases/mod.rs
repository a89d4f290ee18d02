//! The steps that actions are made of, each working on all hosts at once.
//!
//! connect → probe → preflight → plan → apply → verify. A phase fills the [`crate::run::Session`]s of the hosts and
//! says what it did by events; it never goes on to the next one by itself.

pub mod apply;
pub mod connect;
pub mod measure;
pub mod plan;
pub mod probe;
pub mod services;
pub mod verify;
