//! A service: its definition, whether it starts at boot, and that it runs with what it should run with.
//!
//! All definitions of a stage are written when its first one is due, then made known by one reload, because a reload
//! costs more than all the writing. Later stages wait: a target that is started would pull their services in. A running service whose definition is about to change is owed a restart first
//! (see [`crate::restart`]), so that a run killed in between is completed by the next one.

use super::{Context, Outcome};
use crate::difference::unified;
use crate::error::{Failure, Result};
use crate::files::{Ownership, read_bounded, write_atomic};
use crate::restart::Owed;
use crate::services::{Action, Keeper, State, keeper};
use maxim_model::names::Stage;
use maxim_model::task::{Change, ServiceManager, UnitTask};

fn mode(manager: &ServiceManager) -> u32 {
    match manager {
        ServiceManager::Systemd => 0o644,
        ServiceManager::Supervisor { .. } => 0o600,
    }
}

/// The definition as it is; `None` when there is none.
fn definition(keeper: &dyn Keeper, name: &str) -> Result<Option<String>> {
    let bytes = read_bounded(&keeper.definition(name), 1 << 20)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn state(keeper: &dyn Keeper, name: &str) -> Result<State> {
    Ok(keeper.states(&[name.to_owned()])?.pop().unwrap_or_default())
}

fn is_target(name: &str) -> bool {
    name.ends_with(".target")
}

/// Why a running service must be restarted or told to reload, if it must.
fn owed(context: &Context<'_>, task: &UnitTask, state: &State) -> Option<Owed> {
    if let Some(owed) = context.marks().owed(&task.name) {
        return Some(owed);
    }
    // The supervisor knows what the process was started from; systemd only whether its own copy is old.
    (state.stale && state.is_up() && !is_target(&task.name))
        .then(|| Owed { restart: true, because: "its definition changed".to_owned() })
}

/// What would change.
pub fn check(context: &Context<'_>, task: &UnitTask) -> Result<Change> {
    let keeper = keeper(&task.manager);
    let path = keeper.definition(&task.name).display().to_string();
    let old = definition(keeper.as_ref(), &task.name)?;
    let state = state(keeper.as_ref(), &task.name)?;
    let Some(old) = old else {
        let start = if task.running { " and start it" } else { "" };
        return Ok(Change::Create {
            summary: format!("define {}{start}", task.name),
            diff: unified(&path, "", &task.content),
        });
    };
    if old != task.content {
        let then = if task.running { " and restart it" } else { "" };
        return Ok(Change::Update {
            summary: format!("new definition of {}{then}", task.name),
            diff: unified(&path, &old, &task.content),
        });
    }
    // Published in this batch for a service whose own turn is now.
    if context.batch.written.contains(&task.name) {
        return Ok(Change::Update {
            summary: format!("new definition of {}", task.name),
            diff: String::new(),
        });
    }
    if state.enabled != task.enabled {
        let what = if task.enabled { "start it at boot" } else { "do not start it at boot" };
        return Ok(Change::Update { summary: format!("{}: {what}", task.name), diff: String::new() });
    }
    if !task.running || (is_target(&task.name) && state.is_active()) {
        let stale = state.stale;
        return Ok(if stale {
            Change::Restart { summary: format!("make {} known", task.name) }
        } else {
            Change::None
        });
    }
    if let Some(owed) = owed(context, task, &state) {
        let what = if owed.restart { "restart" } else { "reload" };
        return Ok(Change::Restart { summary: format!("{what} {}, because of {}", task.name, owed.because) });
    }
    if let Some(because) = context.batch.planned.get(&task.name) {
        return Ok(Change::Restart { summary: format!("restart {}, because of {because}", task.name) });
    }
    if !state.is_active() {
        let now = if state.fact.active.is_empty() { "unknown" } else { &state.fact.active };
        return Ok(Change::Restart { summary: format!("start {}, which is {now}", task.name) });
    }
    Ok(Change::None)
}

/// Writes all definitions of the stage that differ, and makes them known at once.
fn publish(context: &mut Context<'_>, manager: &ServiceManager, stage: Stage) -> Result<()> {
    if !context.batch.published.insert(stage) {
        return Ok(());
    }
    let keeper = keeper(manager);
    let ours = |(its, unit): &&(Stage, UnitTask)| *its == stage && unit.manager == *manager;
    let units: Vec<UnitTask> =
        context.batch.units.iter().filter(ours).map(|(_, unit)| unit.clone()).collect();
    let names: Vec<String> = units.iter().map(|unit| unit.name.clone()).collect();
    let states = keeper.states(&names)?;
    let (mut enable, mut disable, mut stale) = (Vec::new(), Vec::new(), false);
    for (unit, state) in units.iter().zip(&states) {
        stale |= state.stale;
        let path = keeper.definition(&unit.name);
        if definition(keeper.as_ref(), &unit.name)?.as_deref() != Some(unit.content.as_str()) {
            // A target has no process that could be old; restarting it would restart all that belong to it.
            if unit.running && state.is_up() && !is_target(&unit.name) {
                context.marks().owe(&unit.name, true, "its definition")?;
            }
            write_atomic(&path, unit.content.as_bytes(), Ownership::mode(mode(manager)))?;
            context.batch.written.insert(unit.name.clone());
        }
        let was_new = context.batch.written.contains(&unit.name);
        if unit.enabled && (!state.enabled || was_new) {
            enable.push(unit.name.clone());
            context.batch.written.insert(unit.name.clone());
        } else if !unit.enabled && state.enabled && !was_new {
            disable.push(unit.name.clone());
            context.batch.written.insert(unit.name.clone());
        }
    }
    if !context.batch.written.is_empty() || stale || !enable.is_empty() || !disable.is_empty() {
        keeper.publish(&enable, &disable, &context.deadline)?;
    }
    Ok(())
}

/// Makes it so.
pub fn apply(context: &mut Context<'_>, task: &UnitTask, stage: Stage) -> Result<Outcome> {
    if let ServiceManager::Supervisor { .. } = task.manager {
        // A definition that cannot be read would only be noticed when the service is to start.
        crate::supervisor::definition::Definition::parse(&task.name, &task.content)?;
    }
    publish(context, &task.manager, stage)?;
    let keeper = keeper(&task.manager);
    let defined = context.batch.written.remove(&task.name);
    let words = |what: &str| {
        if defined { format!("defined {}{what}", task.name) } else { format!("{}{what}", task.name) }
    };
    let before = state(keeper.as_ref(), &task.name)?;
    if !task.running {
        return Ok(Outcome::changed(words("")));
    }
    let owed = owed(context, task, &before);
    let action = match &owed {
        _ if !before.is_up() => Action::Start,
        Some(owed) if owed.restart => Action::Restart,
        Some(_) => Action::Reload,
        None if before.is_active() => {
            return Ok(Outcome::changed(words("")));
        }
        // On its way: joins the start that is under way.
        None => Action::Start,
    };
    keeper.act(action, &task.name, &context.deadline)?;
    let after = state(keeper.as_ref(), &task.name)?;
    if !after.is_active() {
        return Err(Failure::Service {
            service: task.name.clone(),
            what: format!("is {} after its {}", after.fact.active, action.name()),
            log: keeper.log(&task.name, 15).unwrap_or_default().join("\n"),
        });
    }
    context.marks().paid(&task.name)?;
    let done = match action {
        Action::Start => "started",
        Action::Restart => "restarted",
        Action::Reload => "reloaded",
        Action::Stop => "stopped",
    };
    Ok(Outcome::changed(words(&format!(" {done}"))))
}
