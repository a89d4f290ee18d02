//! Apply: every host works through its stages, with barriers between those that start something.
//!
//! Each host has its own thread and its own deadlines: a task has its seconds and a little for the way there and
//! back, counted anew at every sign of life. The first failure lets no host enter another stage; what a host has
//! begun it finishes. An interruption is the same, without an error of a task.

use super::plan::Material;
use crate::error::EngineError;
use crate::events::millis;
use crate::fleet::{Barrier, Permits, Stopped};
use crate::remote::Agent;
use crate::run::{Run, Session};
use maxim_model::event::EventKind;
use maxim_model::names::Stage;
use maxim_model::task::{Change, Task, TaskKind};
use maxim_model::wire::{Reply, Request};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Beyond a task's own deadline, for the way there and back.
const SLACK: Duration = Duration::from_secs(10);
/// A transfer that moves nothing for so long is broken.
const IDLE: Duration = Duration::from_secs(20);
/// Progress of a transfer is told so often.
const TELL: Duration = Duration::from_millis(100);

/// Applies the tasks of all hosts; how many of them changed something. Sent is only what [`needed`] names: the agents
/// that answer have just looked at all of it. A host whose tasks would change nothing is left alone.
pub(crate) fn apply(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    tasks: &[Vec<Task>],
    changes: &[Vec<Change>],
    material: &Material,
) -> Result<usize, EngineError> {
    let work: Vec<Vec<Task>> =
        tasks.iter().zip(changes).map(|(tasks, changes)| needed(tasks, changes)).collect();
    let barrier = Barrier::new(work.iter().map(Vec::as_slice));
    let permits = Permits::new(run.context.concurrency);
    let changed = AtomicUsize::new(0);
    let errors = std::sync::Mutex::new(Vec::new());
    run.emitter.phase("apply", || {
        std::thread::scope(|scope| {
            for (session, tasks) in sessions.iter_mut().zip(&work) {
                let (barrier, permits, changed, errors) = (&barrier, &permits, &changed, &errors);
                scope.spawn(move || {
                    let begun = Instant::now();
                    let host = session.host.name.clone();
                    if let Err(error) = host_stages(run, session, tasks, barrier, permits, changed, material)
                    {
                        barrier.failed(&host);
                        errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                    }
                    run.emitter.record("apply", &host, millis(begun));
                });
            }
        });
    });
    let errors = errors.into_inner().unwrap_or_else(PoisonError::into_inner);
    match EngineError::join(errors) {
        Some(error) => Err(error),
        None => Ok(changed.into_inner()),
    }
}

/// The tasks that must be sent: those that would change something or may (`Later`), the services that those restart,
/// and the waits of every component with a service among them.
fn needed(tasks: &[Task], changes: &[Change]) -> Vec<Task> {
    let differs = |place: usize| changes.get(place).is_none_or(|change| *change != Change::None);
    let restarted: Vec<&str> = tasks
        .iter()
        .enumerate()
        .filter(|(place, _)| differs(*place))
        .flat_map(|(_, task)| task.restarts.iter().chain(&task.reloads))
        .map(String::as_str)
        .collect();
    let sent = |place: usize, task: &Task| {
        differs(place)
            || matches!(&task.kind, TaskKind::Unit(unit) if restarted.contains(&unit.name.as_str()))
    };
    let components: Vec<&str> = tasks
        .iter()
        .enumerate()
        .filter(|(place, task)| matches!(task.kind, TaskKind::Unit(_)) && sent(*place, task))
        .map(|(_, task)| task.component.as_str())
        .collect();
    tasks
        .iter()
        .enumerate()
        .filter(|(place, task)| {
            sent(*place, task)
                || (matches!(task.kind, TaskKind::Wait(_)) && components.contains(&task.component.as_str()))
        })
        .map(|(_, task)| task.clone())
        .collect()
}

fn host_stages(
    run: &Run<'_>,
    session: &mut Session<'_>,
    tasks: &[Task],
    barrier: &Barrier,
    permits: &Permits,
    changed: &AtomicUsize,
    material: &Material,
) -> Result<(), EngineError> {
    for stage in Stage::ALL {
        let batch: Vec<Task> = tasks.iter().filter(|task| task.stage == stage).cloned().collect();
        if batch.is_empty() {
            continue;
        }
        match barrier.enter(stage, || run.context.cancel.is_cancelled()) {
            Ok(()) => {}
            Err(Stopped::Cancelled) => return Err(EngineError::interrupted("apply").on(&session.host.name)),
            Err(Stopped::Failed(other)) => {
                run.emitter.note(
                    &session.host.name,
                    "apply",
                    format!("stopped before the stage that follows: {other} failed"),
                );
                return Ok(());
            }
        }
        let agent = session.writer.as_mut().ok_or_else(|| {
            EngineError::failed("apply", "the host is not connected").on(&session.host.name)
        })?;
        changed.fetch_add(permits.with(|| batch_on_host(run, agent, batch, material))?, Ordering::SeqCst);
        barrier.finished(stage);
    }
    Ok(())
}

/// One stage on one host; how many tasks changed something.
fn batch_on_host(
    run: &Run<'_>,
    agent: &mut Agent,
    tasks: Vec<Task>,
    material: &Material,
) -> Result<usize, EngineError> {
    let host = agent.host().to_owned();
    let emitter = &run.emitter;
    let longest = tasks.iter().map(|task| task.deadline_seconds).max().unwrap_or(60);
    let mut until = Instant::now() + Duration::from_secs(longest) + SLACK;
    // A failure that is not a task's belongs to the task that was to be done next.
    let mut current = tasks.first().map_or_else(|| "apply".to_owned(), |task| task.id.clone());
    let mut task_begun = Instant::now();
    let mut changed = 0;
    let request = Request::Apply { tasks };
    agent.send(&current, &request)?;
    let Request::Apply { tasks } = request else { return Ok(0) };
    loop {
        let reply = match agent.next(&current, until) {
            Ok(Some(reply)) => reply,
            Ok(None) => return Ok(changed),
            Err(error) => {
                emitter.emit(EventKind::TaskFailed {
                    host,
                    step: error.step.clone(),
                    cause: error.cause.clone(),
                    hint: error.hint.clone(),
                    duration_ms: millis(task_begun),
                });
                return Err(error);
            }
        };
        match reply {
            Reply::TaskStarted { id } => {
                let task = tasks.iter().find(|task| task.id == id);
                until = Instant::now()
                    + Duration::from_secs(task.map_or(longest, |task| task.deadline_seconds))
                    + SLACK;
                task_begun = Instant::now();
                current.clone_from(&id);
                emitter.emit(EventKind::TaskStarted {
                    host: host.clone(),
                    title: task.map(title).unwrap_or_default(),
                    step: id,
                });
            }
            Reply::NeedContent { id, sha256, .. } => {
                send_content(run, agent, &id, &sha256, material)?;
                until = Instant::now() + Duration::from_secs(longest) + SLACK;
            }
            Reply::TaskDone { id, changed: did, detail, duration_ms } => {
                changed += usize::from(did);
                until = Instant::now() + Duration::from_secs(longest) + SLACK;
                if let Some(next) = tasks.iter().skip_while(|task| task.id != id).nth(1) {
                    current.clone_from(&next.id);
                }
                emitter.emit(EventKind::TaskFinished {
                    host: host.clone(),
                    step: id,
                    changed: did,
                    detail,
                    duration_ms,
                });
            }
            other => tracing::debug!(?other, "a reply that does not belong here"),
        }
    }
}

fn send_content(
    run: &Run<'_>,
    agent: &mut Agent,
    id: &str,
    sha256: &str,
    material: &Material,
) -> Result<(), EngineError> {
    let content = match run.context.delivery.content(&material.artefacts, sha256) {
        Ok(content) => content,
        Err(error) => {
            agent.refuse_content(id, &error.cause)?;
            return Err(error.on(agent.host()));
        }
    };
    let (host, total) = (agent.host().to_owned(), content.size);
    let mut told = Instant::now();
    agent.send_content(id, content, IDLE, |done| {
        if done == total || told.elapsed() >= TELL {
            told = Instant::now();
            run.emitter.emit(EventKind::Progress { host: host.clone(), step: id.into(), done, total });
        }
    })
}

/// A task in words, for people.
pub(crate) fn title(task: &Task) -> String {
    use maxim_model::task::AbsentTask;
    match &task.kind {
        TaskKind::User(user) => format!("user {}", user.name),
        TaskKind::Directory(directory) => format!("folder {}", directory.path),
        TaskKind::File(file) => format!("file {}", file.path),
        TaskKind::Line(line) => format!("line in {}", line.path),
        TaskKind::Image(image) | TaskKind::Archive(image) => format!("image {}", image.name),
        TaskKind::Binary(binary) => format!("program {}", binary.name),
        TaskKind::Unit(unit) => format!("service {}", unit.name),
        TaskKind::Sysctl(sysctl) => format!("kernel settings {}", sysctl.name),
        TaskKind::Limits(limits) => format!("limits of {}", limits.user),
        TaskKind::Certificate(certificate) => format!("certificate {}", certificate.certificate_path),
        TaskKind::SqlAccount(account) => format!("database account {}", account.name),
        TaskKind::SqlSchema(schema) => format!("database {}", schema.name),
        TaskKind::Command(command) => command.argv.first().cloned().unwrap_or_default(),
        TaskKind::Wait(_) => "readiness".into(),
        TaskKind::Absent(
            AbsentTask::File(path) | AbsentTask::Tree(path) | AbsentTask::EmptyDirectory(path),
        ) => {
            format!("removal of {path}")
        }
        TaskKind::Absent(AbsentTask::User(user)) => format!("removal of {}", user.name),
        TaskKind::Absent(AbsentTask::Line(line)) => format!("removal of our line in {}", line.path),
        TaskKind::Absent(AbsentTask::Unit(name)) => format!("removal of {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::needed;
    use maxim_model::names::Stage;
    use maxim_model::task::{Change, ServiceManager, Task, TaskKind, UnitTask, WaitTask, WaitUntil};

    fn task(id: &str, component: &str, kind: TaskKind, restarts: &[&str]) -> Task {
        Task {
            id: id.into(),
            component: component.into(),
            stage: Stage::Prepare,
            restarts: restarts.iter().map(ToString::to_string).collect(),
            reloads: Vec::new(),
            deadline_seconds: 1,
            kind,
        }
    }

    fn folder() -> TaskKind {
        TaskKind::Directory(maxim_model::task::DirectoryTask {
            path: "/x".into(),
            owner: String::new(),
            group: String::new(),
            mode: "0755".into(),
        })
    }

    fn unit(name: &str) -> TaskKind {
        TaskKind::Unit(UnitTask {
            name: name.into(),
            manager: ServiceManager::Systemd,
            content: String::new(),
            enabled: true,
            running: true,
        })
    }

    #[test]
    fn what_changes_is_sent_with_the_restarts_and_waits_that_follow_and_nothing_else() {
        let wait = || TaskKind::Wait(WaitTask { until: WaitUntil::Port("127.0.0.1:1".into()) });
        let tasks = [
            task("im/config", "im", folder(), &["maxim-im"]),
            task("im/data", "im", folder(), &[]),
            task("im/service", "im", unit("maxim-im"), &[]),
            task("im/ready", "im", wait(), &[]),
            task("redis/service", "redis", unit("maxim-redis"), &[]),
            task("redis/ready", "redis", wait(), &[]),
        ];
        let ids =
            |changes: &[Change]| needed(&tasks, changes).into_iter().map(|task| task.id).collect::<Vec<_>>();
        let mut changes = vec![Change::None; tasks.len()];
        assert!(ids(&changes).is_empty());
        changes[0] = Change::Later { summary: String::new() };
        assert_eq!(ids(&changes), ["im/config", "im/service", "im/ready"]);
        changes[0] = Change::None;
        changes[1] = Change::Create { summary: String::new(), diff: String::new() };
        assert_eq!(ids(&changes), ["im/data"]);
        changes[4] = Change::Restart { summary: String::new() };
        assert_eq!(ids(&changes), ["im/data", "redis/service", "redis/ready"]);
    }
}
