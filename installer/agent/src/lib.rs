//! What runs on a host: facts, checks and one module per kind of task.
//!
//! The engine starts this agent on a host (over SSH, or as a child process) and speaks to it in JSON lines on its
//! standard input and output; [`serve`] is the whole of it. [`supervisor::run`] is the keeper of services of the
//! embedded profile, a process of its own.
//!
//! Every change of a host happens here, in a task. A read-only agent refuses every request that could change
//! anything. Secrets arrive on standard input and leave only into files and into the standard input of child
//! processes. The agent streams what is large and stays small (64 MB at most). It opens no network connection but
//! those that a request names, and never speaks to anything outside of the deployment.

mod access;
pub mod backup;
mod canary;
mod deadline;
mod difference;
mod error;
mod external;
mod facts;
mod files;
mod http;
mod link;
mod lock;
mod made;
mod neighbour;
mod place;
mod process;
mod procfs;
mod remove_self;
mod restart;
mod scope;
mod scram;
mod serve;
mod services;
pub mod supervisor;
mod tasks;
mod unix;
mod unpack;
mod wait;

/// Of which sources this agent is made; the same for everything built of them.
pub const SOURCES: &str = env!("MAXIM_AGENT_SOURCES");

pub use access::{Health, mutates};
pub use error::{Failure, Result};
pub use serve::{serve, serve_backups, serve_standard};
