//! One run of an action: its context, its events, how hosts are connected.

use crate::context::Context;
use crate::delivery::Artefacts;
use crate::error::EngineError;
use crate::events::{Emitter, EventSink};
use crate::journal::{Journal, run_name};
use crate::remote::local::Local;
use crate::remote::ssh::{Means, Programs, SshHost};
use crate::remote::{Agent, Connected, Mode};
use crate::state::copy::{Head, Seen};
use maxim_model::event::EventKind;
use maxim_model::facts::Facts;
use maxim_model::names::Profile;
use maxim_model::task::ServiceManager;
use maxim_model::topology::{Connection, Host};
use maxim_model::wire::Request;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Connects to a host; tests bring their own.
pub(crate) trait Connector: Send + Sync {
    /// Reaches a host. The deadline of connecting is the connector's.
    fn connect(&self, host: &Host) -> Result<Box<dyn Connected>, EngineError>;
}

/// A run.
pub(crate) struct Run<'a> {
    pub context: &'a Context,
    pub emitter: Emitter,
    /// Whether it may come to change things on hosts.
    writes: bool,
    action: String,
    /// What was last seen of the authoritative copy of the state.
    copy: Mutex<Seen>,
    connector: Arc<dyn Connector>,
    artefacts: OnceLock<Artefacts>,
}

/// One host in a run: what is open, what was measured, what went wrong.
pub(crate) struct Session<'a> {
    pub host: &'a Host,
    pub connected: Option<Box<dyn Connected>>,
    /// The read-only agent.
    pub reader: Option<Agent>,
    /// The agent that may change things; holds the host's lock.
    pub writer: Option<Agent>,
    pub facts: Facts,
    pub error: Option<EngineError>,
    /// Nobody answers there, and the run goes on without it.
    pub absent: bool,
    /// How far the host's clock is from this one's, at least; 0 when it may be the same.
    pub clock_offset_nanos: i128,
}

impl<'a> Run<'a> {
    /// Begins a run whose events are also kept in the journal when `journal` is set (actions that change something).
    pub fn begin(context: &'a Context, action: &str, journal: bool) -> Result<Self, EngineError> {
        Self::with_connector(context, action, journal, Arc::new(RealConnector::new(context)))
    }

    /// The same with another way to hosts.
    pub fn with_connector(
        context: &'a Context,
        action: &str,
        journal: bool,
        connector: Arc<dyn Connector>,
    ) -> Result<Self, EngineError> {
        let name = run_name(action);
        let mut sinks: Vec<Arc<dyn EventSink>> = vec![Arc::clone(&context.events)];
        if journal {
            context.state.create()?;
            sinks.push(Arc::new(Journal::open(&context.state, &name)?));
        }
        let emitter = Emitter::new(sinks);
        emitter.emit(EventKind::RunStarted {
            run: name,
            action: action.into(),
            cluster: context.topology.name.clone(),
            profile: context.topology.profile.name().into(),
        });
        Ok(Self {
            context,
            emitter,
            writes: journal,
            action: action.to_owned(),
            copy: Mutex::default(),
            connector,
            artefacts: OnceLock::new(),
        })
    }

    /// Connects to one host.
    pub fn connect(&self, host: &Host) -> Result<Box<dyn Connected>, EngineError> {
        self.connector.connect(host)
    }

    /// Whether it may come to change things on hosts.
    pub fn writes(&self) -> bool {
        self.writes
    }

    /// The action's name.
    pub fn action(&self) -> &str {
        &self.action
    }

    /// Whether it goes on when the state on this control host turned out to be older than the copy: it looks at what
    /// runs, or does what no state decides.
    pub fn tolerates_newer_state(&self) -> bool {
        const OF_HOSTS: [&str; 8] =
            ["status", "logs", "doctor", "unlock", "check", "start", "stop", "restart"];
        OF_HOSTS.contains(&self.action.as_str())
            || ["user", "console"].iter().any(|of| self.action.starts_with(of))
    }

    /// Whether it is sure to leave the cluster as it is. Accounts are changed by a run that writes no journal.
    pub fn changes_nothing(&self) -> bool {
        !self.writes && (!self.action.starts_with("user") || self.action == "user list")
    }

    /// Remembers what was seen of the authoritative copy.
    pub fn seen_copy(&self, head: Option<Head>) {
        *self.copy.lock().unwrap_or_else(PoisonError::into_inner) = Seen { looked: true, head };
    }

    /// What was last seen of the authoritative copy.
    pub fn copy_seen(&self) -> Seen {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the first agent of a host is started for.
    pub fn first_mode(&self) -> Mode {
        if self.writes { Mode::LookThenChange } else { Mode::Look }
    }

    /// What can be put on hosts. Programs of a checkout are hashed for it, once in a run.
    pub fn artefacts(&self) -> Result<&Artefacts, EngineError> {
        if let Some(artefacts) = self.artefacts.get() {
            return Ok(artefacts);
        }
        let found = self.context.delivery.artefacts(&self.context.topology, &self.context.program)?;
        Ok(self.artefacts.get_or_init(|| found))
    }

    /// Root folder of an embedded deployment.
    pub fn root(&self) -> Option<PathBuf> {
        root(self.context)
    }

    /// Who keeps the services.
    pub fn manager(&self) -> ServiceManager {
        match self.root() {
            Some(root) => ServiceManager::Supervisor { root: root.display().to_string() },
            None => ServiceManager::Systemd,
        }
    }

    /// Tells an agent which folders are ours, when they are not the usual ones.
    pub fn scope(&self, agent: &mut Agent) -> Result<(), EngineError> {
        let request = match self.root() {
            Some(root) => Request::Scope {
                own_paths: vec![root.display().to_string()],
                lock: root.join("lock.json").display().to_string(),
            },
            None => {
                let paths = &self.context.topology.paths;
                Request::Scope {
                    own_paths: vec![
                        paths.software.clone(),
                        paths.configuration.clone(),
                        paths.data.clone(),
                        paths.logs.clone(),
                        paths.run.clone(),
                    ],
                    lock: "/run/maxim-lock.json".into(),
                }
            }
        };
        agent.request("connect", &request, Duration::from_secs(10), |_| {})
    }
}

/// Root folder of an embedded deployment: that of its software. None in the standard profile.
pub(crate) fn root(context: &Context) -> Option<PathBuf> {
    (context.topology.profile == Profile::Embedded).then(|| PathBuf::from(&context.topology.paths.software))
}

impl<'a> Session<'a> {
    pub fn new(host: &'a Host) -> Self {
        Self {
            host,
            connected: None,
            reader: None,
            writer: None,
            facts: Facts::default(),
            error: None,
            absent: false,
            clock_offset_nanos: 0,
        }
    }
}

/// Local hosts by a child process (or the socket of an agent that listens), others by SSH.
struct RealConnector {
    context: Context,
    means: Arc<Means>,
}

impl RealConnector {
    fn new(context: &Context) -> Self {
        // Unreadable or none: then hosts get the running program.
        let installed = context.state.installed().ok().flatten().and_then(|installed| installed.agent);
        let means = Means {
            programs: Programs::choose(&context.delivery, installed, context.program.clone()),
            access: context.access.clone(),
            ask: Arc::clone(&context.ask),
            state: context.state.clone(),
            software: context.topology.paths.software.clone(),
            cancel: context.cancel.clone(),
        };
        let means = Arc::new(means);
        if context.topology.hosts.iter().any(|host| matches!(host.connection, Connection::Ssh(_))) {
            let early = Arc::clone(&means);
            std::thread::spawn(move || early.programs.hash_early());
        }
        Self { context: context.clone(), means }
    }
}

impl Connector for RealConnector {
    fn connect(&self, host: &Host) -> Result<Box<dyn Connected>, EngineError> {
        match &host.connection {
            Connection::Local => Ok(Box::new(Local::new(
                &host.name,
                self.context.program.clone(),
                self.context.agent_socket.clone(),
                self.context.cancel.clone(),
            ))),
            Connection::Ssh(ssh) => Ok(Box::new(SshHost::connect(host, ssh, &self.means)?)),
        }
    }
}
