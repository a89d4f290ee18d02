//! Services: ended in good order on one host.

use crate::error::EngineError;
use crate::remote::Agent;
use crate::run::Run;
use maxim_model::wire::{Request, ServiceAction};
use std::time::Duration;

/// Seconds that one service has to end in good order.
const STOP_SECONDS: u64 = 90;
/// For the answer.
const ANSWER_SECONDS: u64 = 10;

/// Stops services of a host in this order, one after the other. Nothing to be stopped, nothing asked.
pub(crate) fn stop(
    run: &Run<'_>,
    agent: &mut Agent,
    step: &str,
    names: Vec<String>,
) -> Result<(), EngineError> {
    if names.is_empty() {
        return Ok(());
    }
    let wait = Duration::from_secs(STOP_SECONDS * names.len() as u64 + ANSWER_SECONDS);
    let request = Request::Service {
        action: ServiceAction::Stop,
        names,
        manager: run.manager(),
        deadline_seconds: STOP_SECONDS,
    };
    agent.request(step, &request, wait, |_| {})
}
