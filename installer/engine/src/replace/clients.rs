//! What would open a database before it is what it was: the IM cores, kept down until the data is there.

use crate::error::EngineError;
use crate::fleet;
use crate::phases::services;
use crate::run::{Run, Session};
use maxim_model::names::Role;
use maxim_model::task::{Task, TaskKind};
use maxim_model::wire::Request;
use std::time::Duration;

const ANSWER: Duration = Duration::from_secs(10);

/// Stops the IM cores, and sees to it that a host that is rebooted does not start its own again: the install at the end of
/// the replacement does. `tasks`: what is planned for each host.
pub(super) fn keep_down(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    tasks: &[Vec<Task>],
) -> Result<(), EngineError> {
    run.emitter.phase("stop", || {
        let hosts = sessions.iter_mut().zip(tasks);
        let results = fleet::for_each(hosts, run.context.concurrency, |(session, tasks)| {
            let name = Role::Im.service();
            let known = session.facts.units.iter().any(|unit| unit.name == name && !unit.active.is_empty());
            let Some(agent) = session.writer.as_mut().filter(|_| known) else { return Ok(()) };
            let idle: Vec<Task> = tasks.iter().filter_map(|task| idle(task, &name)).collect();
            let wait =
                idle.iter().map(|task| Duration::from_secs(task.deadline_seconds)).sum::<Duration>() + ANSWER;
            services::stop(run, agent, "host replace", vec![name])?;
            // An agent leaves a service enabled whose definition it has just written: the second time it has not.
            for _ in 0..2 {
                agent.request("host replace", &Request::Apply { tasks: idle.clone() }, wait, |_| {})?;
            }
            Ok(())
        });
        EngineError::join(results.into_iter().filter_map(Result::err).collect()).map_or(Ok(()), Err)
    })
}

/// The task of a service so that nothing starts it; none: it is another task.
fn idle(task: &Task, name: &str) -> Option<Task> {
    let TaskKind::Unit(unit) = &task.kind else { return None };
    (unit.name == name).then(|| {
        let mut unit = unit.clone();
        (unit.enabled, unit.running) = (false, false);
        Task { kind: TaskKind::Unit(unit), restarts: Vec::new(), reloads: Vec::new(), ..task.clone() }
    })
}

#[cfg(test)]
mod tests {
    use super::keep_down;
    use crate::context::CancelFlag;
    use crate::fake::Fleet;
    use crate::phases::connect;
    use crate::run::Run;
    use crate::sample::{self, task};
    use crate::state::StateDir;
    use maxim_model::facts::UnitFact;
    use maxim_model::names::Stage;
    use maxim_model::task::{ServiceManager, Task, TaskKind, UnitTask};
    use std::sync::Arc;

    fn unit(name: &str) -> Task {
        let kind = TaskKind::Unit(UnitTask {
            name: name.into(),
            manager: ServiceManager::Systemd,
            content: String::new(),
            enabled: true,
            running: true,
        });
        Task { kind, ..task(name, Stage::Core) }
    }

    /// `maxim.target` starts at boot whatever is enabled.
    #[test]
    fn im_cores_are_stopped_and_a_reboot_does_not_start_them() {
        let folder = tempfile::tempdir().unwrap();
        let context = sample::context(sample::three_hosts(), StateDir::at(folder.path()));
        let fleet = Arc::new(Fleet::new(&context.topology, CancelFlag::new()));
        let run = Run::with_connector(&context, "host-replace", true, fleet.clone()).unwrap();
        let mut sessions = connect::connect(&run).unwrap();
        connect::lock_hosts(&run, &mut sessions, "host replace").unwrap();
        // The second host has no IM core yet.
        let fact = UnitFact { name: "maxim-im".into(), active: "active".into(), ..UnitFact::default() };
        sessions[0].facts.units.push(fact);
        let planned = vec![unit("maxim-im"), unit("maxim-console"), task("a", Stage::Core)];
        keep_down(&run, &mut sessions, &[planned.clone(), planned, Vec::new()]).unwrap();
        connect::release(&mut sessions);
        let (asked, applied) = fleet.with("app1", |host| (host.services.clone(), host.applied.clone()));
        assert_eq!(asked, ["stop maxim-im"]);
        let units: Vec<(&str, bool, bool)> = applied
            .values()
            .filter_map(|task| match &task.kind {
                TaskKind::Unit(unit) => Some((unit.name.as_str(), unit.enabled, unit.running)),
                _ => None,
            })
            .collect();
        assert_eq!(units, [("maxim-im", false, false)], "nothing else is touched");
        assert!(fleet.with("db1", |host| host.applied.is_empty() && host.services.is_empty()));
    }
}
