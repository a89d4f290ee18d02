//! `start`, `stop`, `restart`: services in dependency order, stores first (stop: last).

use crate::actions::status::require_installed;
use crate::context::Context;
use crate::error::EngineError;
use crate::events::millis;
use crate::fleet;
use crate::phases::{connect, measure};
use crate::run::{Run, Session};
use crate::state::{self, Installed};
use maxim_model::event::EventKind;
use maxim_model::names::{Component, Stage};
use maxim_model::status::ComponentStatus;
use maxim_model::wire::{Reply, Request, ServiceAction};
use std::time::{Duration, Instant};

/// A database may need a while to write what it holds, or to recover.
const DEADLINE_SECONDS: u64 = 90;

/// Acts on all components, or on one, and says what runs afterwards.
pub fn service(
    context: &Context,
    action: ServiceAction,
    component: Option<Component>,
) -> Result<Vec<ComponentStatus>, EngineError> {
    let name = match action {
        ServiceAction::Start => "start",
        ServiceAction::Stop => "stop",
        ServiceAction::Restart => "restart",
    };
    let installed = require_installed(context, name)?;
    if action != ServiceAction::Stop {
        crate::replace::refuse_in_the_middle(&context.state, name)?;
    }
    if let Some(component) = component
        && context.topology.with_role(component).next().is_none()
    {
        return Err(EngineError::usage(name, format!("no host of this cluster runs {component}")));
    }
    act_by(&Run::begin(context, name, true)?, action, component, &installed)
}

/// The same by a run.
pub(crate) fn act_by(
    run: &Run<'_>,
    action: ServiceAction,
    component: Option<Component>,
    installed: &Installed,
) -> Result<Vec<ComponentStatus>, EngineError> {
    let (context, name) = (run.context, run.action());
    // Before the lock: a newer state is fetched under that very lock, and not at all by whoever holds it already.
    let mut sessions = connect::connect(run)?;
    let acted = (|| {
        if let Some(error) = connect::errors(&mut sessions) {
            return Err(error);
        }
        let _control = context.state.lock(&state::owner(name))?;
        if action != ServiceAction::Stop {
            // Once more, with what was just fetched: it may have been begun at another control host.
            crate::replace::refuse_in_the_middle(&context.state, name)?;
        }
        connect::lock_hosts(run, &mut sessions, name)?;
        for stage in stages(action) {
            context.cancel.check(name)?;
            act(run, &mut sessions, stage, name, component)?;
        }
        Ok(match action {
            ServiceAction::Stop => measure::components(run, &mut sessions, installed, true),
            _ => measure::components_when_ready(run, &mut sessions, installed),
        })
    })();
    connect::release(&mut sessions);
    acted
}

/// A restart is a stop in reverse order and a start.
fn stages(action: ServiceAction) -> Vec<(Stage, ServiceAction)> {
    let services = [Stage::Store, Stage::Core, Stage::Console];
    let up = services.iter().map(|stage| (*stage, ServiceAction::Start));
    let down = services.iter().rev().map(|stage| (*stage, ServiceAction::Stop));
    match action {
        ServiceAction::Start => up.collect(),
        ServiceAction::Stop => down.collect(),
        ServiceAction::Restart => down.chain(up).collect(),
    }
}

fn act(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    (stage, action): (Stage, ServiceAction),
    name: &str,
    component: Option<Component>,
) -> Result<(), EngineError> {
    let results = fleet::for_each(sessions.iter_mut(), run.context.concurrency, |session| {
        let names: Vec<String> = session
            .host
            .roles
            .iter()
            .filter(|role| role.stage() == stage && component.is_none_or(|wanted| wanted == **role))
            .map(|role| role.service())
            .collect();
        let Some(agent) = session.writer.as_mut().filter(|_| !names.is_empty()) else { return Ok(()) };
        let host = agent.host().to_owned();
        let begun = Instant::now();
        let wait = Duration::from_secs(DEADLINE_SECONDS * names.len() as u64 + 10);
        let step = names.join(", ");
        run.emitter.emit(EventKind::TaskStarted {
            host: host.clone(),
            step: step.clone(),
            title: name.into(),
        });
        let request =
            Request::Service { action, names, manager: run.manager(), deadline_seconds: DEADLINE_SECONDS };
        let done = agent.ask(name, &request, wait, |reply| match reply {
            Reply::Units { units } => Some(units),
            _ => None,
        });
        match done {
            Ok(units) => {
                let detail = units
                    .iter()
                    .map(|unit| format!("{} {}", unit.name, unit.active))
                    .collect::<Vec<_>>()
                    .join(", ");
                run.emitter.emit(EventKind::TaskFinished {
                    host,
                    step,
                    changed: true,
                    detail,
                    duration_ms: millis(begun),
                });
                Ok(())
            }
            Err(error) => {
                run.emitter.emit(EventKind::TaskFailed {
                    host,
                    step,
                    cause: error.cause.clone(),
                    hint: error.hint.clone(),
                    duration_ms: millis(begun),
                });
                Err(error)
            }
        }
    });
    EngineError::join(results.into_iter().filter_map(Result::err).collect()).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::{ServiceAction, Stage, stages};

    #[test]
    fn stores_start_first_and_stop_last() {
        assert_eq!(stages(ServiceAction::Start)[0].0, Stage::Store);
        assert_eq!(stages(ServiceAction::Stop)[2], (Stage::Store, ServiceAction::Stop));
        assert_eq!(stages(ServiceAction::Restart).len(), 6);
    }
}
