//! Services and who keeps them: systemd of the host, or our own supervisor. One small set of operations for both.

mod supervised;
mod systemd;

use crate::deadline::Deadline;
use crate::error::Result;
use maxim_model::facts::UnitFact;
use maxim_model::task::ServiceManager;
use std::path::{Path, PathBuf};

/// State of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// What is reported.
    pub fact: UnitFact,
    /// Started at boot (or cannot be and need not be, as a unit without an install section).
    pub enabled: bool,
    /// The keeper works with an older definition than the file holds.
    pub stale: bool,
}

impl State {
    /// Whether it runs.
    pub fn is_active(&self) -> bool {
        self.fact.active == "active"
    }

    /// Whether a process of it is there, ready or not.
    pub fn is_up(&self) -> bool {
        matches!(self.fact.active.as_str(), "active" | "activating" | "reloading" | "deactivating")
    }
}

/// What to do with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start and wait until it is ready.
    Start,
    /// Stop and wait for its end.
    Stop,
    /// Both.
    Restart,
    /// Have it read its configuration again.
    Reload,
}

impl Action {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
        }
    }
}

/// A keeper of services.
pub trait Keeper {
    /// Where a service's definition lies.
    fn definition(&self, name: &str) -> PathBuf;
    /// State of services in the order asked.
    fn states(&self, names: &[String]) -> Result<Vec<State>>;
    /// Makes written definitions known, and sets whether services start at boot.
    fn publish(&self, enable: &[String], disable: &[String], deadline: &Deadline) -> Result<()>;
    /// Starts, stops, restarts or reloads one.
    fn act(&self, action: Action, name: &str, deadline: &Deadline) -> Result<()>;
    /// Last lines of its log.
    fn log(&self, name: &str, lines: u32) -> Result<Vec<String>>;
    /// Stops it, forgets it, removes its definition. Returns whether anything was there.
    fn remove(&self, name: &str, deadline: &Deadline) -> Result<bool>;
}

/// The keeper for a manager.
pub fn keeper(manager: &ServiceManager) -> Box<dyn Keeper> {
    match manager {
        ServiceManager::Systemd => Box::new(systemd::Systemd),
        ServiceManager::Supervisor { root } => Box::new(supervised::Supervised::new(Path::new(root))),
    }
}

/// Runs one after the other, stopping at the first failure.
pub fn act_all(
    manager: &ServiceManager,
    action: Action,
    names: &[String],
    seconds: u64,
) -> Result<Vec<UnitFact>> {
    let keeper = keeper(manager);
    for name in names {
        keeper.act(action, name, &Deadline::after(seconds))?;
    }
    facts(manager, names)
}

/// State of services for the engine.
pub fn facts(manager: &ServiceManager, names: &[String]) -> Result<Vec<UnitFact>> {
    Ok(keeper(manager).states(names)?.into_iter().map(|state| state.fact).collect())
}
