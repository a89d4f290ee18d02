//! Small tasks outside of a plan: an image that restic runs from, the record of what was done.

use crate::delivery::Artefact;
use crate::error::EngineError;
use crate::remote::Agent;
use crate::run::Run;
use maxim_model::Secret;
use maxim_model::backup::BackupRecord;
use maxim_model::backup::record::RECORD_FILE;
use maxim_model::names::Stage;
use maxim_model::task::{FileTask, ImageTask, Task, TaskKind};
use maxim_model::topology::Topology;
use maxim_model::wire::{Reply, Request};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_mins(5);

pub(super) fn task(id: &str, kind: TaskKind) -> Task {
    Task {
        id: id.into(),
        component: "backup".into(),
        stage: Stage::Prepare,
        restarts: Vec::new(),
        reloads: Vec::new(),
        deadline_seconds: 240,
        kind,
    }
}

pub(super) fn apply(run: &Run<'_>, agent: &mut Agent, task: Task) -> Result<(), EngineError> {
    let step = task.id.clone();
    agent.send(&step, &Request::Apply { tasks: vec![task] })?;
    while let Some(reply) = agent.next(&step, Instant::now() + WAIT)? {
        if let Reply::NeedContent { sha256, .. } = reply {
            match run.artefacts().and_then(|all| run.context.delivery.content(all, &sha256)) {
                Ok(content) => agent.send_content(&step, content, WAIT, |_| {})?,
                Err(error) => agent.refuse_content(&step, &error.cause)?,
            }
        }
    }
    Ok(())
}

/// Unpacks an image of the bundle on a host.
pub(super) fn bring_image(run: &Run<'_>, agent: &mut Agent, artefact: &Artefact) -> Result<(), EngineError> {
    let image = ImageTask {
        name: artefact.name.clone(),
        path: artefact.path.clone(),
        sha256: artefact.sha256.clone(),
        size: artefact.size,
        unpacked_size: artefact.unpacked_size,
    };
    apply(run, agent, task("backup/restic", TaskKind::Image(image)))
}

fn record_path(topology: &Topology) -> String {
    format!("{}/{RECORD_FILE}", topology.paths.data)
}

/// What was done last; nothing when nothing was. That nobody answers is an error: whoever took it for nothing would write
/// that over what was.
pub(super) fn read_record(agent: &mut Agent, topology: &Topology) -> Result<BackupRecord, EngineError> {
    let request = Request::ReadFile { path: record_path(topology) };
    let content = agent.ask("backup", &request, Duration::from_secs(10), |reply| match reply {
        Reply::File { content } => Some(content),
        _ => None,
    })?;
    Ok(content.and_then(|text| serde_json::from_str(text.expose()).ok()).unwrap_or_default())
}

/// Notes what was done, or what failed. That it cannot be noted undoes nothing of it: a warning.
pub(super) fn note(run: &Run<'_>, agent: &mut Agent, change: impl FnOnce(&mut BackupRecord)) {
    if let Err(error) = write_record(run, agent, change) {
        run.emitter.warn(agent.host(), "backup/record", error.cause, "`status` does not know of this run");
    }
}

fn write_record(
    run: &Run<'_>,
    agent: &mut Agent,
    change: impl FnOnce(&mut BackupRecord),
) -> Result<(), EngineError> {
    let topology = &run.context.topology;
    let mut record = read_record(agent, topology)?;
    change(&mut record);
    let content = serde_json::to_string_pretty(&record)
        .map_err(|error| EngineError::failed("backup", error.to_string()))?;
    let file = FileTask {
        path: record_path(topology),
        content: Secret::new(content + "\n"),
        sensitive: false,
        owner: String::new(),
        group: String::new(),
        mode: "0600".into(),
        only_if_absent: false,
    };
    apply(run, agent, task("backup/record", TaskKind::File(file)))
}
