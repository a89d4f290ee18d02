//! One measurement of the cluster by the engine: the same action as `maxim.ctl status`.
//!
//! Given: the state folder of the cluster, the agent's program, and on a standard host the agent's socket. The
//! topology is read anew each time, so that a changed cluster is seen without a restart. Agents are started
//! read-only; nothing is changed on any host.

use crate::config::ClusterConfig;
use maxim_engine::actions;
use maxim_engine::{Ask, CancelFlag, Context, Delivery, EngineError, Silent, StateDir};
use maxim_model::plan::Plan;
use maxim_model::status::ClusterStatus;
use maxim_model::topology::{AccessSecrets, load_stored};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Measures the cluster. Called on a thread made for blocking, one call at a time.
pub trait StatusSource: Send + Sync + 'static {
    /// Measures once. Returns soon after `cancel` was set.
    fn measure(&self, cancel: &CancelFlag) -> Result<ClusterStatus, MeasureError>;
}

/// Why the cluster could not be measured at all. (A host that does not answer is part of a measurement.)
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct MeasureError {
    /// What happened and why.
    pub cause: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl MeasureError {
    pub(crate) fn too_slow(deadline: Duration) -> Self {
        let cause = if deadline.as_millis().is_multiple_of(1000) {
            format!("the measurement did not end within {} s", deadline.as_secs())
        } else {
            format!("the measurement did not end within {} ms", deadline.as_millis())
        };
        Self { cause, hint: "maxim.ctl doctor".into() }
    }

    pub(crate) fn ended_early(error: &tokio::task::JoinError) -> Self {
        Self { cause: format!("the measurement ended early: {error}"), hint: "maxim.ctl doctor".into() }
    }
}

impl From<EngineError> for MeasureError {
    fn from(error: EngineError) -> Self {
        let mut cause = String::new();
        for part in [&error.host, &error.step] {
            if !part.is_empty() {
                cause.push_str(part);
                cause.push_str(": ");
            }
        }
        cause.push_str(&error.cause);
        Self { cause, hint: error.hint }
    }
}

/// Hosts measured at the same time.
const CONCURRENCY: usize = 32;

/// Measures with the engine.
#[derive(Debug)]
pub struct EngineSource {
    config: ClusterConfig,
}

impl EngineSource {
    /// A source for a cluster. Nothing is opened before the first measurement.
    pub const fn new(config: ClusterConfig) -> Self {
        Self { config }
    }

    fn context(&self, cancel: &CancelFlag) -> Result<Context, MeasureError> {
        let state = StateDir::at(self.config.state.clone());
        let topology_text = state.topology()?.ok_or_else(|| MeasureError {
            cause: format!("{} has no topology.yaml", state.path().display()),
            hint: "maxim.ctl install".into(),
        })?;
        // Paths of an embedded deployment count from its root, of which the state is a folder.
        let root = self.config.state.parent().unwrap_or(Path::new("/")).to_string_lossy();
        let topology = load_stored(&topology_text, &root).map_err(|errors| MeasureError {
            cause: format!("{}: {errors}", state.path().join("topology.yaml").display()),
            hint: "maxim.ctl install".into(),
        })?;
        Ok(Context {
            topology,
            topology_text,
            delivery: Delivery::None,
            state,
            access: AccessSecrets::default(),
            concurrency: CONCURRENCY,
            force: Vec::new(),
            accept_state: false,
            events: Arc::new(Silent),
            ask: Arc::new(Nobody),
            cancel: cancel.clone(),
            program: self.config.program.clone(),
            agent_socket: self.config.agent_socket.clone(),
        })
    }
}

impl StatusSource for EngineSource {
    fn measure(&self, cancel: &CancelFlag) -> Result<ClusterStatus, MeasureError> {
        Ok(actions::status(&self.context(cancel)?)?)
    }
}

/// A measurement asks nobody and approves nothing.
struct Nobody;

impl Ask for Nobody {
    fn approve(&self, _plan: &Plan) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{EngineSource, MeasureError, StatusSource};
    use crate::config::ClusterConfig;
    use maxim_engine::{CancelFlag, EngineError};

    #[test]
    fn says_what_is_missing_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let source = EngineSource::new(ClusterConfig {
            state: folder.path().to_path_buf(),
            program: "/nonexistent/maxim-ctl".into(),
            agent_socket: None,
        });
        let error = source.measure(&CancelFlag::new()).unwrap_err();
        assert!(error.cause.contains("topology.yaml"), "{error}");
        assert_eq!(error.hint, "maxim.ctl install");
        std::fs::write(folder.path().join("topology.yaml"), "hosts: 1\n").unwrap();
        let error = source.measure(&CancelFlag::new()).unwrap_err();
        assert!(error.cause.contains("topology.yaml"), "{error}");
    }

    #[test]
    fn keeps_host_step_and_hint_of_the_engine() {
        let error = EngineError::failed("connect", "refused").on("db1").hint("start sshd");
        let error = MeasureError::from(error);
        assert_eq!(error.cause, "db1: connect: refused");
        assert_eq!(error.hint, "start sshd");
    }
}
