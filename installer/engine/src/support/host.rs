//! What a host gives: facts, units, the configuration that was put there, logs, and what an install would change.

use super::archive::{Archive, end_of};
use super::pretty;
use crate::error::EngineError;
use crate::events::millis;
use crate::phases::plan;
use crate::remote::Agent;
use crate::run::{Run, Session};
use crate::upgrade;
use maxim_model::names::Profile;
use maxim_model::task::{Change, FileTask, Task, TaskKind};
use maxim_model::wire::{Reply, Request};
use serde::Serialize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const READ: Duration = Duration::from_secs(20);
/// Bytes of one log at most, its end.
const LOG_LIMIT: usize = 2 << 20;

/// One thing that an install would change.
#[derive(Serialize)]
struct Drift<'a> {
    task: &'a str,
    component: &'a str,
    kind: &'static str,
    change: &'a Change,
}

/// Gathers from one host. What cannot be had is noted; only trouble with the archive is an error.
pub(super) fn gather(
    run: &Run<'_>,
    session: &mut Session<'_>,
    lines: u32,
    archive: &Mutex<Archive>,
) -> Result<(), EngineError> {
    let begun = Instant::now();
    let host = session.host.name.clone();
    let locked = || -> MutexGuard<'_, Archive> { archive.lock().unwrap_or_else(PoisonError::into_inner) };
    let path = |name: &str| format!("hosts/{host}/{name}");
    if session.reader.is_none() || session.error.is_some() {
        let cause = session.error.as_ref().map_or("not connected", |error| error.cause.as_str());
        locked().lack(&host, "everything of this host", cause);
        return Ok(());
    }
    locked().add(&path("facts.json"), "what was measured on the host", &pretty(&session.facts)?)?;
    let (tasks, unread) = match upgrade::applied_tasks(&run.context.state, &host) {
        Ok(tasks) => (tasks, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let checked = match unread {
        None => plan::check(run, std::slice::from_mut(session), std::slice::from_ref(&tasks), false),
        // Without the tasks it is not known what was put there; the rest is gathered all the same.
        Some(error) => Err(error),
    };
    match checked.map(|mut changes| changes.pop().unwrap_or_default()) {
        Ok(changes) => {
            let drift: Vec<Drift<'_>> = tasks
                .iter()
                .zip(&changes)
                .filter(|(_, change)| change.is_change())
                .map(|(task, change)| Drift {
                    task: &task.id,
                    component: &task.component,
                    kind: task.kind.name(),
                    change,
                })
                .collect();
            let what = "what is not as it was installed, task by task";
            locked().add(&path("plan.json"), what, &pretty(&drift)?)?;
        }
        Err(error) => locked().lack(&host, "plan", &error.cause),
    }
    let Some(agent) = session.reader.as_mut() else { return Ok(()) };
    let mut services: Vec<String> = session.host.roles.iter().map(|role| role.service()).collect();
    if run.context.topology.profile == Profile::Embedded {
        services.push("supervisor".into());
    }
    if tasks.iter().any(|task| task.component == "backup" && matches!(task.kind, TaskKind::Unit(_))) {
        services.push("maxim-backup".into());
    }
    match units(run, agent, &services) {
        Ok(units) => locked().add(&path("units.json"), "state of the services", &pretty(&units)?)?,
        Err(error) => locked().lack(&host, "units", &error.cause),
    }
    for task in &tasks {
        run.context.cancel.check("support-bundle")?;
        let TaskKind::File(file) = &task.kind else { continue };
        let name = path(&format!("configuration/{}", file.path.trim_start_matches('/')));
        match configuration(agent, file) {
            Ok(Some(text)) => {
                let mut archive = locked();
                let text = if file.sensitive {
                    archive.redactor().sensitive(&text)
                } else {
                    archive.redactor().text(&text)
                };
                archive.put(&name, &what_of(task, file), &text, false)?;
            }
            Ok(None) => locked().lack(&host, &file.path, "the file is not there"),
            Err(error) => locked().lack(&host, &file.path, &error.cause),
        }
    }
    for service in services {
        run.context.cancel.check("support-bundle")?;
        match log(run, agent, &service, lines) {
            Ok(text) => {
                let mut archive = locked();
                let text = archive.redactor().text(&text);
                let end = end_of(&text, LOG_LIMIT);
                let shortened = end.len() < text.len();
                archive.put(&path(&format!("logs/{service}.log")), "last lines of a log", end, shortened)?;
            }
            Err(error) => locked().lack(&host, &format!("log of {service}"), &error.cause),
        }
    }
    run.emitter.note(&host, "support-bundle", format!("gathered in {} ms", millis(begun)));
    Ok(())
}

fn what_of(task: &Task, file: &FileTask) -> String {
    let kind = if file.sensitive { "redacted, it holds secrets" } else { "as it is on the host" };
    format!("configuration of {}, {kind}", task.component)
}

fn units(
    run: &Run<'_>,
    agent: &mut Agent,
    names: &[String],
) -> Result<Vec<maxim_model::facts::UnitFact>, EngineError> {
    let request = Request::Units { names: names.to_vec(), manager: run.manager() };
    agent.ask("support-bundle", &request, READ, |reply| match reply {
        Reply::Units { units } => Some(units),
        _ => None,
    })
}

fn configuration(agent: &mut Agent, file: &FileTask) -> Result<Option<String>, EngineError> {
    let request = Request::ReadFile { path: file.path.clone() };
    agent.ask("support-bundle", &request, READ, |reply| match reply {
        Reply::File { content } => Some(content.map(|text| text.expose().to_owned())),
        _ => None,
    })
}

/// The last lines of a log. What is older than twice the limit is let go while they come.
fn log(run: &Run<'_>, agent: &mut Agent, service: &str, lines: u32) -> Result<String, EngineError> {
    let request = Request::Logs { name: service.to_owned(), manager: run.manager(), lines };
    let mut text = String::new();
    agent.request("support-bundle", &request, READ, |reply| {
        if let Reply::Log { line } = reply {
            text.push_str(&line);
            text.push('\n');
            if text.len() > 2 * LOG_LIMIT {
                text.drain(..text.len() - end_of(&text, LOG_LIMIT).len());
            }
        }
    })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{Archive, gather};
    use crate::context::CancelFlag;
    use crate::fake::Fleet;
    use crate::phases::connect;
    use crate::run::Run;
    use crate::sample;
    use crate::state::StateDir;
    use crate::support::redact::Redactor;
    use std::sync::{Arc, Mutex};

    #[test]
    fn a_host_is_gathered_also_when_what_was_applied_to_it_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let context = sample::context(sample::three_hosts(), StateDir::at(folder.path()));
        std::fs::create_dir(folder.path().join("tasks")).unwrap();
        std::fs::write(folder.path().join("tasks/applied.json"), "{ half").unwrap();
        let fleet = Arc::new(Fleet::new(&context.topology, CancelFlag::new()));
        let run = Run::with_connector(&context, "support-bundle", false, fleet).unwrap();
        let mut sessions = connect::connect(&run).unwrap();
        let redactor = Redactor::of(&context).unwrap();
        let archive = Archive::begin(&folder.path().join("x.tar.zst"), "x", redactor).unwrap();
        let archive = Mutex::new(archive);
        gather(&run, &mut sessions[0], 10, &archive).unwrap();
        connect::release(&mut sessions);
        let archive = archive.into_inner().unwrap();
        let there = |end: &str| archive.entries().iter().any(|entry| entry.path.ends_with(end));
        assert!(there("facts.json") && there("units.json") && !there("plan.json"));
        let lack = archive.missing().iter().find(|lack| lack.what == "plan").unwrap();
        assert!(lack.cause.contains("applied.json"), "{lack:?}");
    }
}
