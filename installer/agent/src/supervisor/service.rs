//! One supervised service: a thread that starts its process, waits for its end and starts it again with back-off.
//!
//! Each process leads a group of its own, which is ended as a whole. A signal is only ever sent while the process is
//! known not to be reaped (it is reaped under the lock), so that it cannot hit a stranger with the same number.
//! What a killed supervisor left running is found by a file with process id and start time, and ended before the
//! service is started anew.

use super::definition::{Definition, Ready, check_name};
use super::log::LogFile;
use crate::error::{Failure, Result};
use crate::files::{Ownership, write_atomic};
use crate::process::PATH;
use crate::{procfs, wait};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// First pause before a service that ended is started again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A service that lived so long is taken as sound: the pause begins small again.
const SOUND_AFTER: Duration = Duration::from_secs(20);

/// What the outside sees of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Name.
    pub name: String,
    /// `active`, `activating`, `deactivating`, `inactive`, `failed`: words as systemd uses them.
    pub active: String,
    /// Process id; 0 when none.
    pub pid: u32,
    /// Seconds since it was started.
    pub since_seconds: u64,
    /// Times it was started again on its own since it was last started by request.
    pub restarts: u32,
    /// Digest of the definition that the process was started from; empty when it does not run.
    pub definition: String,
    /// How it ended last; empty when it never did.
    pub last_end: String,
}

#[derive(Debug, Default)]
struct State {
    wanted: bool,
    closing: bool,
    stopping: bool,
    pid: Option<u32>,
    /// Grows with every process that was started.
    generation: u64,
    started: Option<Instant>,
    restarts: u32,
    digest: String,
    ready: Option<Ready>,
    seen_ready: bool,
    stop_deadline: Duration,
    last_end: String,
    failed_starts: u32,
}

/// A service and its keeper.
#[derive(Debug)]
pub struct Service {
    name: String,
    root: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

impl Service {
    /// Makes a service that is not wanted yet, and its thread.
    pub fn new(root: &Path, name: &str) -> Result<(Arc<Self>, thread::JoinHandle<()>)> {
        check_name(name)?;
        let service = Arc::new(Self {
            name: name.to_owned(),
            root: root.to_path_buf(),
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        });
        let keeper = Arc::clone(&service);
        let handle = thread::Builder::new()
            .name(format!("keep-{name}"))
            .spawn(move || keeper.keep())
            .map_err(Failure::file("start a thread for", root))?;
        Ok((service, handle))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_path(&self) -> PathBuf {
        self.root.join("log").join(format!("{}.log", self.name))
    }

    fn pid_path(&self) -> PathBuf {
        self.root.join("run").join(format!("{}.pid", self.name))
    }

    /// State for the outside.
    pub fn status(&self) -> ServiceStatus {
        let (ready, generation) = {
            let state = self.lock();
            (state.ready.clone().filter(|_| state.pid.is_some() && !state.seen_ready), state.generation)
        };
        // Looked at without the lock: a probe may take its time.
        if ready.is_some_and(|ready| is_ready(&ready)) {
            let mut state = self.lock();
            if state.generation == generation {
                state.seen_ready = true;
            }
        }
        let state = self.lock();
        let active = match (state.pid, state.wanted) {
            (Some(_), _) if state.stopping => "deactivating",
            (Some(_), _) if state.ready.is_none() || state.seen_ready => "active",
            (Some(_), _) => "activating",
            (None, true) if state.generation == 0 && state.last_end.is_empty() => "activating",
            (None, true) => "failed",
            (None, false) => "inactive",
        };
        ServiceStatus {
            name: self.name.clone(),
            active: active.to_owned(),
            pid: state.pid.unwrap_or(0),
            since_seconds: state.pid.and(state.started).map_or(0, |started| started.elapsed().as_secs()),
            restarts: state.restarts,
            definition: if state.pid.is_some() { state.digest.clone() } else { String::new() },
            last_end: state.last_end.clone(),
        }
    }

    /// Starts it (again after a failure, at once) and waits until it is ready.
    pub fn start(&self) -> Result<()> {
        let (definition, _) = Definition::read(&self.root, &self.name)?;
        let (generation, mut ends) = {
            let mut state = self.lock();
            let running = state.pid.is_some();
            state.wanted = true;
            state.stopping = false;
            if !running {
                state.restarts = 0;
                state.failed_starts = 0;
                state.last_end.clear();
            }
            self.changed.notify_all();
            (state.generation + u64::from(!running), state.restarts)
        };
        let end = Instant::now() + Duration::from_secs(definition.start_deadline_seconds.clamp(1, 600));
        let mut pause = Duration::from_millis(5);
        loop {
            let status = self.status();
            if status.active == "active" && self.lock().generation >= generation {
                return Ok(());
            }
            // A process that ended once may have met a race (a port not free yet); one that ends three times has a
            // cause that waiting does not remove.
            if status.restarts >= ends + 3 || Instant::now() >= end {
                let what = if status.last_end.is_empty() {
                    format!("was not ready after {} s", definition.start_deadline_seconds)
                } else {
                    format!("does not stay up: it {}", status.last_end)
                };
                return Err(self.failure(what));
            }
            ends = ends.min(status.restarts);
            thread::sleep(pause);
            pause = (pause * 3 / 2).min(Duration::from_millis(50));
        }
    }

    /// Ends it and waits for the end: SIGTERM to the group, SIGKILL after its deadline.
    pub fn stop(&self) -> Result<()> {
        let mut state = self.lock();
        state.wanted = false;
        self.changed.notify_all();
        let deadline = state.stop_deadline.max(Duration::from_millis(100));
        for (signal, patience) in [(Signal::SIGTERM, deadline), (Signal::SIGKILL, Duration::from_secs(5))] {
            let Some(pid) = state.pid else { break };
            state.stopping = true;
            let _ = killpg(Pid::from_raw(pid as i32), signal);
            let (next, _) = self
                .changed
                .wait_timeout_while(state, patience, |state| state.pid == Some(pid))
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
        state.stopping = false;
        let stuck = state.pid.is_some();
        drop(state);
        if stuck { Err(self.failure("did not end after SIGKILL".into())) } else { Ok(()) }
    }

    /// Asks the process to read its configuration again (SIGHUP to the process, not its group).
    pub fn reload(&self) -> Result<()> {
        let state = self.lock();
        let Some(pid) = state.pid else { return Ok(()) };
        nix::sys::signal::kill(Pid::from_raw(pid as i32), Signal::SIGHUP).map_err(|errno| Failure::Service {
            service: self.name.clone(),
            what: errno.to_string(),
            log: String::new(),
        })
    }

    /// Stops it for good and ends the keeper.
    pub fn close(&self) {
        let _ = self.stop();
        self.lock().closing = true;
        self.changed.notify_all();
    }

    fn failure(&self, what: String) -> Failure {
        Failure::Service {
            service: self.name.clone(),
            what,
            log: super::log::tail(&self.log_path(), 15).join("\n"),
        }
    }

    fn keep(&self) {
        self.end_left_over();
        loop {
            let mut state = self.lock();
            while !state.wanted && !state.closing {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.closing {
                return;
            }
            // The process is made under the lock, so that a stop finds either none or its number.
            let started = self.spawn(&mut state);
            drop(state);
            // Judged at the end itself: a stop and a start by request may both come before the lock is taken again.
            let (lived, on_its_own) = match started {
                Ok((child, log)) => self.attend(child, log),
                Err(failure) => {
                    let mut log = LogFile::open(&self.log_path(), 10 << 20, 5);
                    log.note(&format!("{} could not be started: {failure}", self.name));
                    let mut state = self.lock();
                    state.last_end = format!("could not be started: {failure}");
                    state.generation += 1;
                    (Duration::ZERO, true)
                }
            };
            let mut state = self.lock();
            if on_its_own && state.wanted && !state.closing {
                state.restarts += 1;
                state.failed_starts = if lived >= SOUND_AFTER { 0 } else { state.failed_starts + 1 };
                let pause = (FIRST_PAUSE
                    * 2_u32.saturating_pow(state.failed_starts.saturating_sub(1).min(10)))
                .min(LONGEST_PAUSE);
                let attempts = state.failed_starts;
                // Ends early when it is stopped or started by request.
                let waited = self.changed.wait_timeout_while(state, pause, |state| {
                    state.wanted && !state.closing && state.failed_starts == attempts
                });
                drop(waited);
            }
        }
    }

    fn spawn(&self, state: &mut State) -> Result<(Child, LogFile)> {
        let (definition, digest) = Definition::read(&self.root, &self.name)?;
        let log = LogFile::open(&self.log_path(), definition.log_bytes, definition.log_files);
        let directory = definition.working_directory.as_ref().map_or(self.root.clone(), PathBuf::from);
        let (program, arguments) = definition.argv.split_first().expect("a parsed definition has a program");
        let (reader, writer) = std::io::pipe().map_err(Failure::file("make a pipe for", &self.root))?;
        let second = writer.try_clone().map_err(Failure::file("make a pipe for", &self.root))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &self.root)
            .env("LANG", "C.UTF-8")
            .envs(&definition.environment)
            .current_dir(directory)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(second);
        let child = command.spawn().map_err(Failure::file("start", program))?;
        // The command holds the pipe's writing ends; they must be closed here, or the log's reader never sees an end.
        drop(command);
        let pid = child.id();
        state.pid = Some(pid);
        state.generation += 1;
        state.started = Some(Instant::now());
        state.digest = digest;
        state.ready = definition.ready;
        state.seen_ready = false;
        state.stop_deadline = Duration::from_secs(definition.stop_deadline_seconds.clamp(1, 600));
        if let Some(start_time) = procfs::start_time(pid) {
            // Not synced with care: it only matters while this machine stays up.
            let _ = write_atomic(
                &self.pid_path(),
                format!("{pid} {start_time}\n").as_bytes(),
                Ownership::mode(0o600),
            );
        }
        let copier_log = LogFile::open(&self.log_path(), definition.log_bytes, definition.log_files);
        let mut copier_log = copier_log;
        let copier =
            thread::Builder::new().name(format!("log-{}", self.name)).spawn(move || copier_log.drain(reader));
        if copier.is_err() {
            // Without a reader the service would block on a full pipe.
            let _ = killpg(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
        Ok((child, log))
    }

    /// Waits for the end of the process, ends what is left of its group and reaps it. Returns how long it lived, and
    /// whether it ended while it was wanted.
    fn attend(&self, mut child: Child, mut log: LogFile) -> (Duration, bool) {
        let pid = child.id();
        let began = Instant::now();
        // Does not reap: the number stays taken until the lock is held.
        while let Err(nix::Error::EINTR) =
            waitid(Id::Pid(Pid::from_raw(pid as i32)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
        {}
        let mut state = self.lock();
        let _ = killpg(Pid::from_raw(pid as i32), Signal::SIGKILL);
        let status = child.wait();
        let _ = std::fs::remove_file(self.pid_path());
        state.pid = None;
        state.last_end = status.map_or_else(|error| error.to_string(), crate::process::describe);
        let on_its_own = state.wanted;
        if on_its_own {
            log.note(&format!("{} {}; it is started again", self.name, state.last_end));
        }
        drop(state);
        self.changed.notify_all();
        (began.elapsed(), on_its_own)
    }

    /// Ends what an earlier supervisor that was killed left running.
    fn end_left_over(&self) {
        let text = crate::files::read_text(self.pid_path());
        let Some((pid, start_time)) = text.split_once(' ') else { return };
        let (Ok(pid), Ok(start_time)) = (pid.parse::<u32>(), start_time.parse::<u64>()) else { return };
        for (signal, patience) in [(Signal::SIGTERM, 10), (Signal::SIGKILL, 5)] {
            if procfs::start_time(pid) != Some(start_time) {
                break;
            }
            let _ = killpg(Pid::from_raw(pid as i32), signal);
            let end = Instant::now() + Duration::from_secs(patience);
            while procfs::start_time(pid) == Some(start_time) && Instant::now() < end {
                thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = std::fs::remove_file(self.pid_path());
    }
}

fn is_ready(ready: &Ready) -> bool {
    let patience = Duration::from_millis(500);
    let probe = match ready {
        Ready { http: Some(url), .. } => wait::http(url, patience),
        Ready { port: Some(address), .. } => wait::port(address, patience),
        Ready { socket: Some(path), .. } => wait::socket(Path::new(path)),
        _ => Ok(()),
    };
    probe.is_ok()
}
