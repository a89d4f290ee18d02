//! The data of the installer: topology → facts → checks → plan → tasks → events → screen.
//!
//! Everything here is plain data with its rules of meaning. There is no I/O: text and bytes are passed in, values
//! and typed errors come out. The agent, the engine, the command line and the console all speak in these types.

pub mod backup;
pub mod bundle;
pub mod check;
pub mod event;
pub mod facts;
pub mod manifest;
pub mod names;
pub mod plan;
pub mod playbook;
pub mod secret;
pub mod status;
pub mod task;
pub mod topology;
pub mod upgrade;
pub mod wire;

pub use secret::Secret;
