//! Plan: render the tasks of every host and ask its agent what each would change.

use crate::authority::Authority;
use crate::context::Context;
use crate::delivery::Artefacts;
use crate::error::EngineError;
use crate::events::{millis, now_rfc3339};
use crate::files;
use crate::fleet;
use crate::playbooks::Library;
use crate::remote::Agent;
use crate::render::{HostInput, Purpose, RenderInput, context_for, tasks_for_host};
use crate::run::{Run, Session};
use crate::secrets::Secrets;
use maxim_model::Secret;
use maxim_model::event::EventKind;
use maxim_model::plan::{HostPlan, PLAN_FORMAT, Plan, PlannedTask};
use maxim_model::task::{Change, Task};
use maxim_model::wire::{Reply, Request};
use ring::hmac;
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// A host hashes what it has and asks databases; minutes are never needed.
const CHECK: Duration = Duration::from_mins(1);

/// What is made on the control side for a run: secrets, certificates, playbooks, artefacts.
pub(crate) struct Material {
    pub secrets: Secrets,
    pub authority: Authority,
    pub library: Library,
    pub artefacts: Artefacts,
    secret_names: Vec<String>,
}

impl Material {
    /// Reads or makes everything, in memory.
    pub fn load(run: &Run<'_>) -> Result<Self, EngineError> {
        let context = run.context;
        let topology = &context.topology;
        let library = context.delivery.library()?;
        let artefacts = run.artefacts()?.clone();
        let mut secret_names = library.secret_names();
        secret_names.push("plan_key".into());
        let mut secrets = Secrets::load(&context.state.file("secrets.json"))?;
        for (name, file) in external_passwords(context) {
            secrets.set(name, read_password(&file)?);
        }
        let authority = Authority::load(context.state.path(), &topology.name, OffsetDateTime::now_utc())?;
        Ok(Self { secrets, authority, library, artefacts, secret_names })
    }

    /// Writes what is new. Before anything is sent: a killed run must find the passwords it has set.
    pub fn save(&mut self, context: &Context) -> Result<(), EngineError> {
        context.state.create()?;
        self.secrets.save()?;
        self.authority.save()
    }

    /// The tasks of every host.
    pub fn tasks(
        &mut self,
        run: &Run<'_>,
        sessions: &[Session<'_>],
        purpose: Purpose,
        purge: bool,
    ) -> Result<Vec<Vec<Task>>, EngineError> {
        let topology = &run.context.topology;
        let root = run.root();
        let names = self.secret_names.clone();
        let known_hosts = files::read_optional(&run.context.state.file("known_hosts"))?.unwrap_or_default();
        // …/maxim/clusters/NAME
        let state_home = run
            .context
            .state
            .path()
            .ancestors()
            .nth(3)
            .map(|home| home.display().to_string())
            .unwrap_or_default();
        let mut contexts = Vec::with_capacity(sessions.len());
        for session in sessions {
            let input = RenderInput {
                topology,
                root: root.as_deref(),
                artefacts: &self.artefacts,
                secret_names: &names,
                purge,
                known_hosts: &known_hosts,
                state_home: &state_home,
            };
            let host = HostInput { host: session.host, facts: &session.facts };
            contexts.push(context_for(&input, &host, &mut self.secrets, &mut self.authority)?);
        }
        let values: Vec<String> = self.secrets.iter().map(|(_, secret)| secret.expose().to_owned()).collect();
        let library = &self.library;
        let work: Vec<_> = sessions.iter().map(|session| session.host).zip(contexts).collect();
        fleet::for_each(work, run.context.concurrency, |(host, context)| {
            tasks_for_host(library, topology.profile, host, &context, &values, purpose)
        })
        .into_iter()
        .collect()
    }
}

/// Passwords of external services come from files that the topology names.
fn external_passwords(context: &Context) -> Vec<(&'static str, String)> {
    use maxim_model::topology::{Database, Redis};
    let mut all = Vec::new();
    if let Database::External { password_file, .. } = &context.topology.database {
        all.push(("database_im_password", password_file.clone()));
    }
    if let Redis::External { password_file, .. } = &context.topology.redis {
        all.push(("redis_password", password_file.clone()));
    }
    all.retain(|(_, file)| !file.is_empty());
    all
}

/// The first line of a password file.
pub(crate) fn read_password(path: &str) -> Result<Secret, EngineError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        EngineError::usage("secrets", format!("{path}: {error}"))
            .hint("the file must hold the password in its first line and be readable for this user")
    })?;
    Ok(Secret::new(text.lines().next().unwrap_or_default()))
}

/// Asks every agent what its tasks would change; one of an absent host is not asked. `writer`: ask the agents that hold the locks.
pub(crate) fn check(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    tasks: &[Vec<Task>],
    writer: bool,
) -> Result<Vec<Vec<Change>>, EngineError> {
    let results =
        fleet::for_each(sessions.iter_mut().zip(tasks), run.context.concurrency, |(session, tasks)| {
            let begun = Instant::now();
            let host = &session.host.name;
            let agent = if writer { session.writer.as_mut() } else { session.reader.as_mut() };
            let changes = match agent {
                Some(agent) => check_host(run, agent, tasks),
                None if session.absent => Ok(Vec::new()),
                None => Err(EngineError::failed("plan", "the host is not connected").on(host)),
            };
            run.emitter.record("plan", host, millis(begun));
            changes
        });
    let mut all = Vec::new();
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(changes) => all.push(changes),
            Err(error) => errors.push(error),
        }
    }
    match EngineError::join(errors) {
        Some(error) => Err(error),
        None => Ok(all),
    }
}

fn check_host(run: &Run<'_>, agent: &mut Agent, tasks: &[Task]) -> Result<Vec<Change>, EngineError> {
    let mut changes: Vec<Option<Change>> = vec![None; tasks.len()];
    let host = agent.host().to_owned();
    let mut stray = None;
    agent.request("plan", &Request::Check { tasks: tasks.to_vec() }, CHECK, |reply| {
        if let Reply::Checked { id, change } = reply {
            match tasks.iter().position(|task| task.id == id) {
                Some(place) => {
                    if change != Change::None {
                        run.emitter.emit(EventKind::Planned {
                            host: host.clone(),
                            step: id,
                            change: change.clone(),
                        });
                    }
                    changes[place] = Some(change);
                }
                None => stray = Some(id),
            }
        }
    })?;
    if let Some(id) = stray {
        return Err(
            EngineError::failed("plan", format!("the agent answered for unknown task {id}")).on(&host)
        );
    }
    tasks
        .iter()
        .zip(changes)
        .map(|(task, change)| {
            change.ok_or_else(|| {
                EngineError::failed("plan", format!("the agent did not answer for task {}", task.id))
                    .on(&host)
            })
        })
        .collect()
}

/// Puts a plan together from tasks and what they would change.
pub(crate) fn assemble(
    run: &Run<'_>,
    sessions: &[Session<'_>],
    tasks: &[Vec<Task>],
    changes: &[Vec<Change>],
    plan_key: &Secret,
) -> Result<Plan, EngineError> {
    let context = run.context;
    let key = hmac::Key::new(hmac::HMAC_SHA256, plan_key.expose().as_bytes());
    let mut hosts = Vec::new();
    for ((session, tasks), changes) in sessions.iter().zip(tasks).zip(changes) {
        let mut planned = Vec::new();
        for (task, change) in tasks.iter().zip(changes) {
            let mut text =
                serde_json::to_vec(task).map_err(|error| EngineError::failed("plan", error.to_string()))?;
            let digest = hex::encode(hmac::sign(&key, &text));
            zeroize::Zeroize::zeroize(&mut text);
            planned.push(PlannedTask {
                id: task.id.clone(),
                component: task.component.clone(),
                stage: task.stage,
                kind: task.kind.name().into(),
                digest,
                change: change.clone(),
            });
        }
        let machine_id = if run.root().is_some() { String::new() } else { session.facts.machine_id.clone() };
        hosts.push(HostPlan { host: session.host.name.clone(), machine_id, tasks: planned });
    }
    let mut plan = Plan {
        format: PLAN_FORMAT,
        cluster: context.topology.name.clone(),
        profile: context.topology.profile,
        version: env!("CARGO_PKG_VERSION").into(),
        created_at: now_rfc3339(),
        manifest_sha256: context.delivery.manifest_sha256().into(),
        topology: context.topology_text.clone(),
        hosts,
        fingerprint: String::new(),
    };
    plan.fingerprint = fingerprint(&plan)?;
    Ok(plan)
}

/// SHA-256 over everything in a plan that depends on what was measured and what would be done. Diffs are left out:
/// the digests of the tasks and the kinds of change say the same without quoting files.
fn fingerprint(plan: &Plan) -> Result<String, EngineError> {
    let relevant = (
        &plan.cluster,
        &plan.profile,
        &plan.version,
        &plan.manifest_sha256,
        &plan.topology,
        plan.hosts
            .iter()
            .map(|host| {
                let tasks: Vec<_> = host
                    .tasks
                    .iter()
                    .map(|task| {
                        (&task.id, &task.digest, std::mem::discriminant(&task.change), task.change.summary())
                    })
                    .map(|(id, digest, kind, summary)| (id, digest, format!("{kind:?}"), summary))
                    .collect();
                (&host.host, &host.machine_id, tasks)
            })
            .collect::<Vec<_>>(),
    );
    let text =
        serde_json::to_vec(&relevant).map_err(|error| EngineError::failed("plan", error.to_string()))?;
    Ok(hex::encode(Sha256::digest(&text)))
}

/// What differs between two plans, in words; at most five things.
pub(crate) fn differences(saved: &Plan, now: &Plan) -> Vec<String> {
    let mut all = Vec::new();
    if saved.version != now.version {
        all.push(format!("the plan was made by version {}, this is {}", saved.version, now.version));
    }
    if saved.manifest_sha256 != now.manifest_sha256 {
        all.push("the bundle is another one".into());
    }
    if saved.topology != now.topology {
        all.push("the topology is another one".into());
    }
    for host in &now.hosts {
        let Some(before) = saved.hosts.iter().find(|before| before.host == host.host) else {
            all.push(format!("{} is new", host.host));
            continue;
        };
        if before.machine_id != host.machine_id {
            all.push(format!("{} is another machine than it was", host.host));
        }
        for task in &host.tasks {
            match before.tasks.iter().find(|old| old.id == task.id) {
                None => all.push(format!("{}: task {} is new", host.host, task.id)),
                Some(old) if old.digest != task.digest => {
                    all.push(format!("{}: what {} wants has changed", host.host, task.id));
                }
                Some(old) if old.change != task.change => {
                    let (was, is) = (described(&old.change), described(&task.change));
                    all.push(format!("{}: {}: then {was}, now {is}", host.host, task.id));
                }
                Some(_) => {}
            }
        }
    }
    all.truncate(5);
    all
}

fn described(change: &Change) -> &str {
    match change {
        Change::None => "nothing to do",
        other => other.summary(),
    }
}
