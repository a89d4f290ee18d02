//! A fake host for the tests of phases: the protocol of an agent over a socket pair, with a host that is a map from
//! task ids to tasks. It counts every mutation, and can be told to fail at a task, to die at one, or to be locked.

use crate::context::CancelFlag;
use crate::error::EngineError;
use crate::remote::{Agent, Connected, Stream};
use crate::run::Connector;
use crate::sample;
use maxim_model::Secret;
use maxim_model::backup::wire::{BackupRequest, ResticCommand};
use maxim_model::facts::UnitFact;
use maxim_model::task::{Change, Task, TaskKind};
use maxim_model::topology::{Host, Topology};
use maxim_model::wire::{Access, AgentError, LockHolder, Reply, Request, WIRE_VERSION};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a host is and how it behaves.
#[derive(Default)]
pub struct HostState {
    /// Tasks that were applied, by id.
    pub applied: BTreeMap<String, Task>,
    /// Ids of applied tasks in order, over all hosts of a test (with the host's name before it).
    pub mutations: usize,
    /// Fails when this task is applied.
    pub fails_at: Option<String>,
    /// The agent vanishes when this task is applied.
    pub dies_at: Option<String>,
    /// The same once; the next agent lives.
    pub dies_once_at: Option<String>,
    /// The same, and the host cannot be reached from then on.
    pub vanishes_at: Option<String>,
    /// Cancels the run when this task is applied.
    pub cancels_at: Option<(String, CancelFlag)>,
    /// Cancels the run when a service is asked to stop.
    pub cancels_at_stop: Option<CancelFlag>,
    /// How often each of its services was restarted on its own.
    pub restarts: u32,
    /// They begin to when this task is applied.
    pub restarts_after: Option<(String, u32)>,
    /// How many agents hold its lock now.
    pub locks: usize,
    /// Services that do not run, whatever their task says.
    pub down: Vec<String>,
    /// Somebody else holds the lock.
    pub locked_by: Option<String>,
    /// No message passes through it while its IM core's unit names this.
    pub drops_messages_as: Option<String>,
    /// Cannot be reached.
    pub unreachable: bool,
    /// Requests that a read-only agent was asked and must never be.
    pub violations: Vec<String>,
    /// What services were asked to do, as `start maxim-im`.
    pub services: Vec<String>,
    /// Accounts that were made.
    pub accounts: Vec<String>,
    /// Clock, nanoseconds ahead of this machine.
    pub clock_ahead: i128,
}

/// All fake hosts of a test by name.
pub struct Fleet {
    pub topology: Topology,
    pub hosts: BTreeMap<String, Arc<Mutex<HostState>>>,
    /// `host task` in the order in which tasks were applied.
    pub order: Arc<Mutex<Vec<String>>>,
    pub cancel: CancelFlag,
}

impl Fleet {
    pub fn new(topology: &Topology, cancel: CancelFlag) -> Self {
        let hosts = topology
            .hosts
            .iter()
            .map(|host| (host.name.clone(), Arc::<Mutex<HostState>>::default()))
            .collect();
        Self { topology: topology.clone(), hosts, order: Arc::default(), cancel }
    }

    /// Looks at or changes a host.
    pub fn with<T>(&self, host: &str, work: impl FnOnce(&mut HostState) -> T) -> T {
        work(&mut self.hosts[host].lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn mutations(&self) -> usize {
        self.hosts.keys().map(|host| self.with(host, |state| state.mutations)).sum()
    }

    pub fn order(&self) -> Vec<String> {
        self.order.lock().unwrap().clone()
    }
}

impl Connector for Fleet {
    fn connect(&self, host: &Host) -> Result<Box<dyn Connected>, EngineError> {
        let state = Arc::clone(&self.hosts[&host.name]);
        if state.lock().unwrap().unreachable {
            return Err(
                EngineError::new(crate::Class::Preflight, "access.unreachable", "no answer").on(&host.name)
            );
        }
        Ok(Box::new(FakeHost {
            host: host.clone(),
            topology: self.topology.clone(),
            state,
            order: Arc::clone(&self.order),
            cancel: self.cancel.clone(),
        }))
    }
}

struct FakeHost {
    host: Host,
    topology: Topology,
    state: Arc<Mutex<HostState>>,
    order: Arc<Mutex<Vec<String>>>,
    cancel: CancelFlag,
}

impl Connected for FakeHost {
    fn agent(&mut self, mode: crate::remote::Mode) -> Result<Agent, EngineError> {
        let (near, far) = UnixStream::pair().unwrap();
        let agent = FakeAgent {
            host: self.host.clone(),
            topology: self.topology.clone(),
            access: mode.access(),
            locked: Cell::new(false),
            promotable: mode == crate::remote::Mode::LookThenChange,
            state: Arc::clone(&self.state),
            order: Arc::clone(&self.order),
        };
        std::thread::spawn(move || agent.serve(far));

        Agent::greet(
            &self.host.name,
            Box::new(Near(near)),
            mode.access(),
            self.cancel.clone(),
            Duration::from_secs(5),
        )
    }

    fn describe(&self) -> String {
        "fake".into()
    }
}

struct Near(UnixStream);

impl Stream for Near {
    fn write_all(&mut self, bytes: &[u8], _deadline: Instant) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn read(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
        self.0.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        match self.0.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
            other => other,
        }
    }

    fn close_input(&mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn diagnosis(&mut self) -> String {
        String::new()
    }
}

struct FakeAgent {
    host: Host,
    topology: Topology,
    access: Access,
    promotable: bool,
    locked: Cell<bool>,
    state: Arc<Mutex<HostState>>,
    order: Arc<Mutex<Vec<String>>>,
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        if self.locked.get() {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).locks -= 1;
        }
    }
}

impl FakeAgent {
    fn serve(mut self, stream: UnixStream) {
        let mut input = BufReader::new(stream.try_clone().unwrap());
        let mut output = stream;
        let mut line = String::new();
        while matches!(input.read_line(&mut line), Ok(count) if count > 0) {
            let request: Request = serde_json::from_str(&line).unwrap();
            line.clear();
            if request == Request::Promote && self.promotable {
                self.access = Access::Full;
            }
            if !self.answer(request, &mut output) {
                break;
            }
        }
        // As a real one: its lock is free before anybody can see that it has ended.
        drop(self);
        drop((input, output));
    }

    /// False: the agent dies.
    fn answer(&self, request: Request, output: &mut UnixStream) -> bool {
        let mut say = |reply: &Reply| {
            let mut line = serde_json::to_vec(reply).unwrap();
            line.push(b'\n');
            output.write_all(&line).is_ok()
        };
        let mut state = self.state.lock().unwrap();
        let mutates = matches!(
            request,
            Request::Apply { .. }
                | Request::Lock { .. }
                | Request::Service { .. }
                | Request::BreakLock { .. }
        );
        if mutates && self.access == Access::ReadOnly {
            state.violations.push(format!("{request:?}"));
        }
        if let Request::Service { action, names, .. } = &request {
            let action = format!("{action:?}").to_lowercase();
            if let Some(cancel) = state.cancels_at_stop.as_ref().filter(|_| action == "stop") {
                cancel.cancel();
            }
            state.services.extend(names.iter().map(|name| format!("{action} {name}")));
        }
        match request {
            Request::Hello => {
                say(&Reply::Hello {
                    wire: WIRE_VERSION,
                    version: env!("CARGO_PKG_VERSION").into(),
                    sources: crate::remote::agent::SOURCES.into(),
                    access: self.access,
                    pid: 1,
                });
            }
            Request::Facts(_) => {
                let mut facts = sample::sound_facts(&self.topology, 16 << 30);
                facts.hostname.clone_from(&self.host.name);
                facts.machine_id = format!("id-{}", self.host.name);
                facts.clock_unix_nanos =
                    time::OffsetDateTime::now_utc().unix_timestamp_nanos() + state.clock_ahead;
                say(&Reply::Facts { facts: Box::new(facts) });
            }
            Request::Lock { cluster, .. } => {
                let holder =
                    state.locked_by.clone().map(|owner| LockHolder { cluster, owner, since: 0, expires: 30 });
                self.locked.set(holder.is_none());
                state.locks += usize::from(holder.is_none());
                say(&Reply::Lock { granted: holder.is_none(), holder });
            }
            Request::Check { tasks } => {
                for task in tasks {
                    let change = match state.applied.get(&task.id) {
                        Some(applied) if *applied == task => Change::None,
                        Some(_) => {
                            Change::Update { summary: format!("change {}", task.id), diff: String::new() }
                        }
                        None => {
                            Change::Create { summary: format!("create {}", task.id), diff: String::new() }
                        }
                    };
                    say(&Reply::Checked { id: task.id, change });
                }
            }
            Request::Apply { tasks } => {
                for task in tasks {
                    say(&Reply::TaskStarted { id: task.id.clone() });
                    state.unreachable |= state.vanishes_at.as_ref() == Some(&task.id);
                    if state.unreachable
                        || state.dies_at.as_ref() == Some(&task.id)
                        || state.dies_once_at.take_if(|id| *id == task.id).is_some()
                    {
                        return false;
                    }
                    if state.fails_at.as_ref() == Some(&task.id) {
                        let (cause, hint) = ("disk full".to_owned(), "free space".to_owned());
                        return say(&Reply::Error(AgentError { step: task.id, cause, hint }));
                    }
                    if let Some((_, cancel)) = state.cancels_at.as_ref().filter(|(id, _)| *id == task.id) {
                        cancel.cancel();
                    }
                    if let Some((_, count)) = state.restarts_after.take_if(|(id, _)| *id == task.id) {
                        state.restarts = count;
                    }
                    let changed = state.applied.get(&task.id) != Some(&task);
                    if changed {
                        state.mutations += 1;
                        self.order.lock().unwrap().push(format!("{} {}", self.host.name, task.id));
                        state.applied.insert(task.id.clone(), task.clone());
                    }
                    say(&Reply::TaskDone { id: task.id, changed, detail: String::new(), duration_ms: 1 });
                }
            }
            Request::Units { names, .. } | Request::Service { names, .. } => {
                let units = names
                    .into_iter()
                    .map(|name| {
                        let runs = !state.down.contains(&name) && state.applied.values().any(
                            |task| matches!(&task.kind, TaskKind::Unit(unit) if unit.name == name && unit.running),
                        );
                        UnitFact {
                            active: if runs { "active" } else { "inactive" }.into(),
                            name,
                            restarts: state.restarts,
                            ..UnitFact::default()
                        }
                    })
                    .collect();
                say(&Reply::Units { units });
            }
            Request::Http { path, body, .. } => {
                let (status, body) = http(&mut state, &path, body.expose());
                say(&Reply::Http { status, body: Secret::new(body) });
            }
            Request::ReadFile { path } => {
                let content = state.applied.values().find_map(|task| match &task.kind {
                    TaskKind::File(file) if file.path == path => Some(file.content.clone()),
                    _ => None,
                });
                say(&Reply::File { content });
            }
            Request::Canary(_) => {
                let drops = state.drops_messages_as.as_ref().is_some_and(|digest| {
                    state.applied.values().any(
                        |task| matches!(&task.kind, TaskKind::Unit(unit) if unit.name == "maxim-im" && unit.content.contains(digest)),
                    )
                });
                if drops {
                    let (cause, hint) = ("no message came".to_owned(), String::new());
                    return say(&Reply::Error(AgentError { step: "canary".into(), cause, hint }));
                }
                say(&Reply::Canary { round_trip_ms: 5 });
            }
            Request::Backup(BackupRequest::Restic { command: ResticCommand::Init, .. }) => {
                self.order.lock().unwrap().push(format!("{} restic init", self.host.name));
            }
            _ => {}
        }
        say(&Reply::Done)
    }
}

fn http(state: &mut HostState, path: &str, body: &str) -> (u16, String) {
    let canary = |name: &str| format!(r#"{{"address":"{name}@localhost","password":"p"}}"#);
    match path {
        im_admin_api::paths::CANARY_CREATE => {
            (200, format!(r#"{{"accounts":[{},{}]}}"#, canary("canary-a"), canary("canary-b")))
        }
        im_admin_api::paths::CANARY_SWEEP => (200, r#"{"removed":2}"#.into()),
        im_admin_api::paths::USER_CREATE => {
            let user: im_admin_api::CreateUser = serde_json::from_str(body).unwrap();
            if state.accounts.contains(&user.address) {
                return (409, r#"{"code":"user_exists","message":"the address is taken"}"#.into());
            }
            state.accounts.push(user.address.clone());
            (200, format!(r#"{{"address":"{}","disabled":false,"created_at":0}}"#, user.address))
        }
        _ => (200, String::new()),
    }
}
