//! The agent's loop: one request after the other from standard input, answers to standard output, the end at the end
//! of input.
//!
//! What a restricted agent may do is decided in one place ([`crate::access`]), before anything else looks at the request. SIGTERM ends the process after the task in hand. The agent writes nothing to standard error.

use crate::access::{Folders, Health, refusal};
use crate::backup;
use crate::canary;
use crate::deadline::Deadline;
use crate::error::{Failure, Result};
use crate::external;
use crate::facts;
use crate::files::read_bounded;
use crate::http;
use crate::link::Link;
use crate::lock::{self, Lease};
use crate::neighbour::{self, Listeners};
use crate::scope::Scope;
use crate::services::{self, Action};
use crate::tasks::{self, Batch, Context};
use maxim_model::Secret;
use maxim_model::task::Task;
use maxim_model::wire::{Access, Reply, Request, ServiceAction, WIRE_VERSION};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of a file that is sent back.
const FILE_BOUND: u64 = 1 << 20;
/// Patience with an HTTP exchange. Adding an account costs a key derivation and a synced write, no more.
const HTTP_PATIENCE: Duration = Duration::from_secs(30);

/// Becomes an agent that may change things; returns only why that was not possible.
type Promotion = fn() -> std::io::Error;

/// Serves on the process's own standard streams until the input ends. An engine that goes in the middle of an apply
/// (interrupted, killed, cut off) is noticed after the task in hand: nothing more is begun. A `promotable` one becomes
/// an agent that may change things when it is asked to.
/// With a `peer`, standard input must be a socket that this user has opened.
/// `health`: what an agent of [`Access::Observe`] may ask on its own host.
pub fn serve_standard(
    access: Access,
    promotable: bool,
    peer: Option<&str>,
    health: Vec<Health>,
) -> Result<()> {
    if let Some(peer) = peer {
        require_peer(peer)?;
    }
    let link = Link::new(std::io::stdin(), std::io::stdout()).watching(input_ended);
    let promotion: Option<Promotion> =
        (promotable && access == Access::ReadOnly).then_some(promote as Promotion);
    serve_link(access, health, promotion, None, link)
}

/// The same for backups by a schedule: the folders of the deployment are given by whoever wrote the command, not by
/// whoever asks.
pub fn serve_backups(data: &str, run: &str) -> Result<()> {
    let folders = Folders::new(data, run);
    let link = Link::new(std::io::stdin(), std::io::stdout()).watching(input_ended);
    serve_link(Access::Backup, Vec::new(), None, Some(folders), link)
}

/// Standard input must be a socket whose other end was opened by this user: who may open the socket's file is said by
/// its mode, and this is seen by the kernel.
fn require_peer(name: &str) -> Result<()> {
    let wanted = nix::unistd::User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    let found = getsockopt(&std::io::stdin(), PeerCredentials).map(|peer| peer.uid());
    match (wanted, found) {
        (Some(wanted), Ok(found)) if wanted == found => Ok(()),
        _ => Err(Failure::refused(
            format!("only {name} may talk to this agent, over its socket"),
            "look at who tried: the agent's service is maxim-agent.socket",
        )),
    }
}

/// Runs the very file that runs already (which was hashed before it was started) as a full agent, in this process.
fn promote() -> std::io::Error {
    use std::os::unix::process::CommandExt as _;
    std::process::Command::new("/proc/self/exe").arg("agent").exec()
}

fn input_ended() -> bool {
    let input = std::io::stdin();
    let mut waited = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut waited, PollTimeout::ZERO), Ok(count) if count > 0)
}

/// Serves until the input ends, on any streams.
pub fn serve(access: Access, input: impl Read, output: impl Write) -> Result<()> {
    serve_link(access, Vec::new(), None, None, Link::new(input, output))
}

fn serve_link(
    access: Access,
    health: Vec<Health>,
    promotion: Option<Promotion>,
    folders: Option<Folders>,
    mut link: Link<impl Read, impl Write>,
) -> Result<()> {
    let scope = folders.as_ref().map_or_else(|| Ok(Scope::default()), Folders::scope)?;
    let server = Server { access, health, promotion, folders, scope, lease: None, listeners: None };
    // Locked while a request is worked on; the signal thread takes it before it ends the process.
    let server = Arc::new(Mutex::new(server));
    let signals = watch_signals(Arc::clone(&server));
    let outcome = loop {
        match link.request() {
            Ok(None) => break Ok(()),
            Ok(Some(Ok(request))) => {
                let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(failure) = server.answer(request, &mut link) {
                    break Err(failure);
                }
            }
            Ok(Some(Err(what))) => {
                let failure = Failure::Wire(format!("{what}; engine and agent may be of different versions"));
                if let Err(failure) = link.reply(&Reply::Error(failure.to_wire("request"))) {
                    break Err(failure);
                }
            }
            Err(failure) => break Err(failure),
        }
    };
    if let Some(signals) = signals {
        signals.close();
    }
    // Releases the lock, if this agent holds it.
    server.lock().unwrap_or_else(PoisonError::into_inner).lease = None;
    tasks::finish_syncs();
    if access == Access::Full {
        tasks::remove_replaced(&server.lock().unwrap_or_else(PoisonError::into_inner).scope);
    }
    outcome
}

/// Ends the process on SIGTERM, SIGINT or SIGHUP once no task is in hand. Without it, a run that is ended so would
/// leave its lock to expire.
fn watch_signals(server: Arc<Mutex<Server>>) -> Option<signal_hook::iterator::Handle> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP]).ok()?;
    let handle = signals.handle();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
                server.lease = None;
                std::process::exit(128 + signal);
            }
        })
        .ok()?;
    Some(handle)
}

struct Server {
    access: Access,
    health: Vec<Health>,
    promotion: Option<Promotion>,
    folders: Option<Folders>,
    scope: Scope,
    lease: Option<Lease>,
    listeners: Option<Listeners>,
}

/// The name of a request in errors.
fn step(request: &Request) -> &'static str {
    match request {
        Request::Hello => "hello",
        Request::Scope { .. } => "scope",
        Request::Facts(_) => "facts",
        Request::Listen { .. } => "listen",
        Request::Connect { .. } => "connect",
        Request::Externals { .. } => "externals",
        Request::Check { .. } => "check",
        Request::Apply { .. } => "apply",
        Request::Lock { .. } | Request::LockOwner => "lock",
        Request::Unlock | Request::BreakLock { .. } => "unlock",
        Request::Units { .. } => "units",
        Request::Service { .. } => "service",
        Request::Http { .. } => "http",
        Request::Canary(_) => "canary",
        Request::Backup(_) => "backup",
        Request::Logs { .. } => "logs",
        Request::ReadFile { .. } => "read-file",
        Request::Promote => "promote",
        Request::RemoveSelf => "remove-self",
    }
}

impl Server {
    /// Answers one request. Only trouble with the link itself is an error of this function.
    fn answer(&mut self, request: Request, link: &mut Link<impl Read, impl Write>) -> Result<()> {
        let step = step(&request);
        if let (Request::Promote, Some(promotion)) = (&request, self.promotion) {
            self.listeners = None;
            link.reply(&Reply::Done)?;
            // Only when that fails anything follows; then this is still the read-only agent, and says so.
            let error = promotion();
            return Err(Failure::Wire(format!(
                "the agent could not go on as one that may change things: {error}"
            )));
        }
        if self.listeners.is_some() && !matches!(request, Request::Connect { .. }) {
            self.listeners = None;
        }
        if self.listeners.as_ref().is_some_and(Listeners::is_over) {
            self.listeners = None;
        }
        let last = if let Some(why) = refusal(self.access, &self.health, self.folders.as_ref(), &request) {
            let refusal = Failure::refused(
                format!("the request `{step}` {why}"),
                "this is an error in the engine, please report it; nothing was changed",
            );
            Reply::Error(refusal.to_wire(step))
        } else {
            match self.work(request, link) {
                Ok(()) => Reply::Done,
                // The engine is gone: there is nobody to tell.
                Err((_, failure @ Failure::Wire(_))) => return Err(failure),
                Err((task, failure)) => Reply::Error(failure.to_wire(task.as_deref().unwrap_or(step))),
            }
        };
        link.reply(&last)
    }

    fn work(
        &mut self,
        request: Request,
        link: &mut Link<impl Read, impl Write>,
    ) -> std::result::Result<(), (Option<String>, Failure)> {
        match request {
            Request::Check { tasks } => return self.check(&tasks, link),
            Request::Apply { tasks } => return self.apply(&tasks, link),
            _ => {}
        }
        self.simple(request, link).map_err(|failure| (None, failure))
    }

    fn simple(&mut self, request: Request, link: &mut Link<impl Read, impl Write>) -> Result<()> {
        let reply = match request {
            Request::Hello => Reply::Hello {
                wire: WIRE_VERSION,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                sources: crate::SOURCES.to_owned(),
                access: self.access,
                pid: std::process::id(),
            },
            Request::Scope { own_paths, lock } => {
                // One for backups has its folders from its command line.
                if self.folders.is_some() {
                    return Ok(());
                }
                self.scope = Scope::new(&own_paths, &lock)?;
                return Ok(());
            }
            Request::Facts(query) => Reply::Facts { facts: Box::new(facts::gather(&query, &self.scope)) },
            Request::Listen { address, ports } => {
                let (listeners, ports, refused) = Listeners::open(&address, &ports);
                self.listeners = Some(listeners);
                Reply::Listening { ports, refused }
            }
            Request::Connect { targets, measured, timeout_ms } => {
                let patience = Duration::from_millis(timeout_ms.clamp(1, 60_000));
                Reply::Connections { results: neighbour::connect(&targets, &measured, patience) }
            }
            Request::Externals { servers, timeout_ms } => {
                let patience = Duration::from_millis(timeout_ms.clamp(1, 60_000));
                Reply::Externals { results: external::try_all(&servers, patience)? }
            }
            Request::Lock { cluster, owner, lease_seconds } => self.lock(&cluster, &owner, lease_seconds)?,
            Request::Unlock => {
                self.lease = None;
                return Ok(());
            }
            Request::LockOwner => Reply::Lock {
                granted: self.lease.as_ref().is_some_and(Lease::is_held),
                holder: lock::holder(self.scope.lock())?,
            },
            Request::BreakLock { owner } => {
                let (holder, gone) = lock::break_lock(self.scope.lock(), &owner)?;
                Reply::Lock { granted: gone, holder }
            }
            Request::Units { names, manager } => Reply::Units { units: services::facts(&manager, &names)? },
            Request::Service { action, names, manager, deadline_seconds } => {
                let action = match action {
                    ServiceAction::Start => Action::Start,
                    ServiceAction::Stop => Action::Stop,
                    ServiceAction::Restart => Action::Restart,
                };
                Reply::Units { units: services::act_all(&manager, action, &names, deadline_seconds)? }
            }
            Request::Http { socket, method, path, body } => {
                let response = http::exchange(&socket, &method, &path, body.expose(), HTTP_PATIENCE)?;
                let body = String::from_utf8_lossy(&response.body).into_owned();
                Reply::Http { status: response.status, body: Secret::new(body) }
            }
            Request::Canary(request) => Reply::Canary { round_trip_ms: canary::exchange(&request)? },
            Request::Backup(request) => return backup::answer(request, &self.scope, link),
            Request::Logs { name, manager, lines } => {
                for line in services::keeper(&manager).log(&name, lines)? {
                    link.reply(&Reply::Log { line })?;
                }
                return Ok(());
            }
            Request::ReadFile { path } => self.read_file(&path)?,
            Request::RemoveSelf => {
                crate::remove_self::remove_self(&self.scope)?;
                return Ok(());
            }
            Request::Promote => {
                return Err(Failure::refused(
                    "this agent was not started to be promoted",
                    "this is an error in the engine, please report it; nothing was changed",
                ));
            }
            Request::Check { .. } | Request::Apply { .. } => {
                return Err(Failure::Invalid("tasks are worked on elsewhere".into()));
            }
        };
        link.reply(&reply)
    }

    fn lock(&mut self, cluster: &str, owner: &str, seconds: u64) -> Result<Reply> {
        if self.lease.as_ref().is_some_and(Lease::is_held) {
            return Ok(Reply::Lock { granted: true, holder: lock::holder(self.scope.lock())? });
        }
        self.lease = None;
        Ok(match lock::take(self.scope.lock(), cluster, owner, seconds)? {
            Ok(lease) => {
                self.lease = Some(lease);
                Reply::Lock { granted: true, holder: lock::holder(self.scope.lock())? }
            }
            Err(holder) => Reply::Lock { granted: false, holder: Some(holder) },
        })
    }

    fn read_file(&self, path: &str) -> Result<Reply> {
        let path = crate::files::absolute(path)?;
        if !self.scope.owns(Path::new(&path)) {
            return Err(Failure::refused(
                format!("{} is not a file of ours", path.display()),
                "only files below the deployment's own folders can be read",
            ));
        }
        let content = read_bounded(&path, FILE_BOUND)?;
        Ok(Reply::File {
            content: content.map(|bytes| Secret::new(String::from_utf8_lossy(&bytes).into_owned())),
        })
    }

    fn check(
        &mut self,
        tasks: &[Task],
        link: &mut Link<impl Read, impl Write>,
    ) -> std::result::Result<(), (Option<String>, Failure)> {
        let mut batch = Batch::new(tasks);
        for task in tasks {
            let named = |failure| (Some(task.id.clone()), failure);
            if link.gone() {
                return Err(named(Failure::Wire("the engine has gone; nothing more is begun".into())));
            }
            let mut context = self.context(task, &mut batch);
            let change = tasks::check(&mut context, task).map_err(named)?;
            link.reply(&Reply::Checked { id: task.id.clone(), change }).map_err(named)?;
        }
        Ok(())
    }

    fn apply(
        &mut self,
        tasks: &[Task],
        link: &mut Link<impl Read, impl Write>,
    ) -> std::result::Result<(), (Option<String>, Failure)> {
        let mut batch = Batch::new(tasks);
        for task in tasks {
            let named = |failure| (Some(task.id.clone()), failure);
            if self.lease.as_ref().is_some_and(|lease| !lease.is_held()) {
                return Err(named(Failure::refused(
                    "the lock of this host was taken away from this run",
                    "see who holds it with `maxim.ctl unlock`, then run the command again",
                )));
            }
            link.reply(&Reply::TaskStarted { id: task.id.clone() }).map_err(named)?;
            let began = Instant::now();
            let mut context = self.context(task, &mut batch);
            let outcome = tasks::apply(&mut context, task, link).map_err(named)?;
            let done = Reply::TaskDone {
                id: task.id.clone(),
                changed: outcome.changed,
                detail: outcome.detail,
                duration_ms: began.elapsed().as_millis() as u64,
            };
            link.reply(&done).map_err(named)?;
        }
        Ok(())
    }

    fn context<'a>(&'a self, task: &Task, batch: &'a mut Batch) -> Context<'a> {
        Context {
            scope: &self.scope,
            access: self.access,
            deadline: Deadline::after(task.deadline_seconds),
            batch,
        }
    }
}

#[cfg(test)]
mod tests;
