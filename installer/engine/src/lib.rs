//! Connect, probe, plan, apply and verify: the actions behind the command line and the console.
//!
//! A caller builds a [`context::Context`] (topology, delivery, state folder, who listens) and calls a function of
//! [`actions`]. Everything that is done to a host is done by an agent there; the engine renders what is wanted,
//! sends it, and judges what comes back. It is synchronous: one thread for each host, no runtime.

pub mod actions;
pub mod authority;
pub mod backup;
pub mod context;
pub mod delivery;
pub mod error;
pub mod events;
#[cfg(test)]
mod fake;
mod files;
mod fleet;
mod journal;
#[cfg(test)]
mod phase_tests;
mod phases;
pub mod playbooks;
mod preflight;
mod remote;
pub mod render;
pub mod replace;
mod run;
#[cfg(test)]
mod sample;
pub mod secrets;
pub mod sizing;
pub mod state;
pub mod support;
pub mod upgrade;

pub use context::{Ask, AssumeYes, CancelFlag, Context};
pub use delivery::{Delivery, OpenBundle, Trust};
pub use error::{Class, EngineError};
pub use events::{EventSink, Silent, Timing};
pub use state::StateDir;
