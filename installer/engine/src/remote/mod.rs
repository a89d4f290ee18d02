//! Reaching hosts: byte streams to agents ([`Stream`]), the agent's protocol ([`Agent`]), and how each kind of host
//! is connected ([`local`], [`ssh`]).
//!
//! Every wait has a deadline and is ended early by the run's cancel flag. Nothing here decides what is done.

pub mod agent;
pub mod local;
pub mod ssh;

pub use agent::Agent;

use crate::error::EngineError;
use maxim_model::wire::Access;
use std::io;
use std::time::{Duration, Instant};

/// How long a read may sleep before the cancel flag is looked at again.
pub(crate) const SLICE: Duration = Duration::from_millis(50);

/// Both directions of an agent's standard input and output.
pub trait Stream: Send {
    /// Writes everything before the deadline.
    fn write_all(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()>;

    /// Reads what is there; waits at most `wait` for the first byte. `TimedOut`: nothing came. 0: the agent ended.
    fn read(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize>;

    /// No more requests: the agent ends after the task in hand.
    fn close_input(&mut self);

    /// What the far end said beside the protocol (its standard error), for an error message.
    fn diagnosis(&mut self) -> String;
}

/// What an agent is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// To look only.
    Look,
    /// To look first, and then, when [`Agent::promote`] asks for it, to change things: the same verified file is run
    /// again in its place, so that neither is it hashed twice nor signed in twice.
    LookThenChange,
    /// To change things at once.
    Change,
}

impl Mode {
    /// What it may do at its start.
    pub const fn access(self) -> Access {
        match self {
            Self::Look | Self::LookThenChange => Access::ReadOnly,
            Self::Change => Access::Full,
        }
    }

    /// Arguments of `maxim.ctl agent`.
    pub const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Look => &["--read-only"],
            Self::LookThenChange => &["--read-only", "--promotable"],
            Self::Change => &[],
        }
    }
}

/// A host that is connected and can be asked for agents.
pub trait Connected: Send {
    /// Starts an agent; the first answer to `Hello` was seen.
    fn agent(&mut self, mode: Mode) -> Result<Agent, EngineError>;

    /// How it was reached, for people: `local`, `ssh root@10.77.0.11`.
    fn describe(&self) -> String;

    /// Bytes of the agent that had to be sent.
    fn agent_bytes_sent(&self) -> u64 {
        0
    }
}
