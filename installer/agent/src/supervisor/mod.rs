//! Keeper of the services of an embedded deployment: no root, no systemd.
//!
//! `run(root)` is a process of its own, started by the agent and left behind by it. Below the root it needs
//! `etc/services` (definitions, see [`definition`]), and makes `run` and `log`. Its steps: take the lock (one
//! supervisor per root), leave the caller's session, write its pid file, open the control socket (0600), start the
//! enabled services in order, then serve requests until SIGTERM, SIGINT or a `Shutdown` request; at the end it stops
//! the services in reverse order, each within its deadline.
//!
//! It does not watch files: a changed definition takes effect at the next start of its service. It does not start at
//! boot by itself.

pub mod client;
pub mod control;
pub mod definition;
pub mod log;
mod service;

pub use service::ServiceStatus;

use crate::error::{Failure, Result};
use crate::files::{Ownership, make_parents, write_atomic};
use crate::{procfs, unix};
use control::{Answer, Command};
use definition::{Definition, enabled_mark, in_order};
use service::Service;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A service with the thread that keeps it.
type Kept = (Arc<Service>, Option<JoinHandle<()>>);

/// A running supervisor.
pub struct Supervisor {
    root: PathBuf,
    services: Mutex<BTreeMap<String, Kept>>,
    closing: AtomicBool,
    shutdown: Mutex<Sender<()>>,
    /// Held for its lock until the end.
    _lock: File,
}

/// Runs until it is told to end. See the module's text.
pub fn run(root: &Path) -> Result<()> {
    // Fails where the process leads its group already (started from a shell); then it has a job of its own anyway.
    let _ = nix::unistd::setsid();
    raise_descriptor_limit();
    // Before any thread, so that no signal is missed.
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGHUP,
    ])
    .map_err(Failure::file("watch signals in", root))?;
    let (supervisor, asked) = Supervisor::start(root)?;
    let told = Arc::clone(&supervisor);
    let watcher = signals.handle();
    let signal_thread = thread::spawn(move || {
        for signal in signals.forever() {
            // A closed terminal is no reason to end: that is what this process is for.
            if signal != signal_hook::consts::SIGHUP {
                told.ask_end();
            }
        }
    });
    // The sender lives in the supervisor, so this ends only by a message.
    let _ = asked.recv();
    supervisor.finish();
    watcher.close();
    let _ = signal_thread.join();
    Ok(())
}

/// Services may have as many descriptors as the system lets us have.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

impl Supervisor {
    /// Takes the lock, opens the control socket and starts the enabled services in the background. The receiver gets
    /// a message when somebody asks for the end; then call [`Supervisor::finish`].
    pub fn start(root: &Path) -> Result<(Arc<Self>, Receiver<()>)> {
        let run = root.join("run");
        make_parents(&run.join("x"))?;
        make_parents(&root.join("log/x"))?;
        Ownership::mode(0o700).set(&run)?;
        let lock_path = run.join("supervisor.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(Failure::file("open", &lock_path))?;
        if lock.try_lock().is_err() {
            return Err(Failure::refused(
                format!("a supervisor already runs for {}", root.display()),
                "talk to that one: `maxim.ctl status`",
            ));
        }
        let socket = control::socket(root);
        // Nobody listens on it: its owner would hold the lock.
        let _ = fs::remove_file(&socket);
        // The folder is 0700, so nobody gets in between bind and the next line.
        let listener = unix::listen(&socket)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))
            .map_err(Failure::file("set the mode of", &socket))?;
        let pid = std::process::id();
        let started = procfs::start_time(pid).unwrap_or(0);
        write_atomic(
            &control::pid_file(root),
            format!("{pid} {started}\n").as_bytes(),
            Ownership::mode(0o600),
        )?;
        let (sender, receiver) = mpsc::channel();
        let supervisor = Arc::new(Self {
            root: root.to_path_buf(),
            services: Mutex::new(BTreeMap::new()),
            closing: AtomicBool::new(false),
            shutdown: Mutex::new(sender),
            _lock: lock,
        });
        supervisor.note(&format!("started for {}, process {pid}", root.display()));
        let server = Arc::clone(&supervisor);
        thread::Builder::new()
            .name("control".into())
            .spawn(move || server.listen(&listener))
            .map_err(Failure::file("start a thread for", root))?;
        let starter = Arc::clone(&supervisor);
        thread::Builder::new()
            .name("start".into())
            .spawn(move || starter.start_enabled())
            .map_err(Failure::file("start a thread for", root))?;
        Ok((supervisor, receiver))
    }

    fn note(&self, text: &str) {
        log::LogFile::open(&self.root.join("log/supervisor.log"), 1 << 20, 3).note(text);
    }

    fn ask_end(&self) {
        let _ = self.shutdown.lock().unwrap_or_else(PoisonError::into_inner).send(());
    }

    /// Stops all services in reverse order and gives up socket and pid file.
    pub fn finish(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.note("ending: services are stopped");
        let mut order = in_order(&self.orders());
        order.reverse();
        for name in order {
            let held = self.services.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            if let Some((service, keeper)) = held {
                service.close();
                if let Some(keeper) = keeper {
                    let _ = keeper.join();
                }
            }
        }
        let socket = control::socket(&self.root);
        // Wakes the listener, which then sees that the end has come.
        let _ = unix::connect(&socket);
        let _ = fs::remove_file(socket);
        let _ = fs::remove_file(control::pid_file(&self.root));
        self.note("ended");
    }

    /// Which of the known services come after which.
    fn orders(&self) -> BTreeMap<String, Vec<String>> {
        let known: Vec<String> =
            self.services.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        known
            .into_iter()
            .map(|name| {
                let after =
                    Definition::read(&self.root, &name).map_or_else(|_| Vec::new(), |(found, _)| found.after);
                (name, after)
            })
            .collect()
    }

    fn start_enabled(&self) {
        let orders: BTreeMap<String, Vec<String>> = definition::names(&self.root)
            .into_iter()
            .filter(|name| enabled_mark(&self.root, name).exists())
            .map(|name| {
                let after =
                    Definition::read(&self.root, &name).map_or_else(|_| Vec::new(), |(found, _)| found.after);
                (name, after)
            })
            .collect();
        for name in in_order(&orders) {
            if self.closing.load(Ordering::SeqCst) {
                return;
            }
            if let Err(failure) = self.service(&name).and_then(|service| service.start()) {
                self.note(&format!("{name}: {failure}"));
            }
        }
    }

    fn service(&self, name: &str) -> Result<Arc<Service>> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((service, _)) = services.get(name) {
            return Ok(Arc::clone(service));
        }
        if self.closing.load(Ordering::SeqCst) {
            return Err(Failure::refused("the supervisor is ending", "start it again"));
        }
        // Refuses what has no definition before a keeper is made for it.
        Definition::read(&self.root, name)?;
        let (service, keeper) = Service::new(&self.root, name)?;
        services.insert(name.to_owned(), (Arc::clone(&service), Some(keeper)));
        Ok(service)
    }

    fn listen(self: &Arc<Self>, listener: &UnixListener) {
        for stream in listener.incoming() {
            if self.closing.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else {
                // Out of descriptors or the like: do not spin.
                thread::sleep(Duration::from_millis(50));
                continue;
            };
            let server = Arc::clone(self);
            let _ = thread::Builder::new().name("request".into()).spawn(move || server.serve(&stream));
        }
    }

    fn serve(&self, stream: &UnixStream) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
        let mut line = String::new();
        if BufReader::new(stream.take(64 << 10)).read_line(&mut line).is_err() || line.is_empty() {
            return;
        }
        let answer = match serde_json::from_str::<Command>(&line) {
            Ok(command) => self.answer(&command),
            Err(error) => Answer { error: format!("not a request: {error}"), ..Answer::default() },
        };
        if let Ok(mut text) = serde_json::to_vec(&answer) {
            text.push(b'\n');
            let mut stream = stream;
            let _ = stream.write_all(&text);
        }
    }

    fn answer(&self, command: &Command) -> Answer {
        let outcome = match command {
            Command::Status => Ok(()),
            Command::Start { name } => self.service(name).and_then(|service| service.start()),
            Command::Stop { name } => self.known(name).map_or(Ok(()), |service| service.stop()),
            Command::Restart { name } => {
                self.service(name).and_then(|service| service.stop().and_then(|()| service.start()))
            }
            Command::Reload { name } => self.known(name).map_or(Ok(()), |service| service.reload()),
            Command::Shutdown => {
                self.ask_end();
                Ok(())
            }
        };
        let mut answer = Answer { pid: std::process::id(), services: self.statuses(), ..Answer::default() };
        match outcome {
            Ok(()) => {}
            Err(Failure::Service { what, log, .. }) => (answer.error, answer.log) = (what, log),
            Err(other) => answer.error = other.to_string(),
        }
        answer
    }

    fn known(&self, name: &str) -> Option<Arc<Service>> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.get(name).map(|(service, _)| Arc::clone(service))
    }

    fn statuses(&self) -> Vec<ServiceStatus> {
        let known: Vec<Arc<Service>> = {
            let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
            services.values().map(|(service, _)| Arc::clone(service)).collect()
        };
        known.iter().map(|service| service.status()).collect()
    }
}

#[cfg(test)]
mod tests;
