//! A child process that is read from or written to while it runs: cleared environment, its words on standard error
//! kept to a bound, its whole process group killed when it is dropped before it ended.

use crate::error::{Failure, Result};
use crate::process::{Invocation, PATH, describe};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpid, getsid, setsid};
use std::io::Read;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes kept of what it says.
const WORDS: u64 = 64 << 10;
/// How far behind those who serve, 0 to 19.
const NICENESS: &str = "19";
/// Bytes that may wait in the pipe from a child: what dumps and what takes the dump seldom wait for each other then.
const PIPE: i32 = 1 << 20;

/// A running child.
pub struct Running {
    title: String,
    child: Child,
    words: Option<JoinHandle<String>>,
    ended: bool,
}

/// Starts a program with piped standard streams. `environment` holds no secret.
pub fn start(
    title: &str,
    program: &str,
    arguments: &[String],
    environment: &[(&str, &str)],
) -> Result<Running> {
    let mut command = Command::new(program);
    command.process_group(0);
    launch(title, command, arguments, environment, Stdio::piped())
}

/// The same for what may take its time: whatever serves on this host goes first.
///
/// `input` is its standard input. Niceness weighs only among the processes of one session, where the kernel makes a
/// scheduling group of each (sched(7), "The autogroup feature"): so it gets a session of its own, and the group's niceness
/// is set.
pub fn start_behind(
    title: &str,
    program: &str,
    arguments: &[String],
    environment: &[(&str, &str)],
    input: Stdio,
) -> Result<Running> {
    // A kernel without scheduling groups has no such file, and that is no word of the program.
    let script =
        format!("{{ echo {NICENESS} >/proc/self/autogroup; }} 2>/dev/null; exec nice -n {NICENESS} \"$@\"");
    let arguments: Vec<String> = ["sh", "-c", &script, "sh", program]
        .into_iter()
        .map(str::to_owned)
        .chain(arguments.iter().cloned())
        .collect();
    // It makes a session of its own, and with it a group.
    launch(title, Command::new("setsid"), &arguments, environment, input)
}

/// A service for as long as this process lives, however that ends; as another user and group, if need be.
pub fn start_bound(
    title: &str,
    program: &str,
    arguments: &[String],
    environment: &[(&str, &str)],
    identity: Option<(u32, u32)>,
) -> Result<Running> {
    let mut words: Vec<String> = ["--pdeathsig", "KILL"].map(str::to_owned).to_vec();
    if let Some((user, group)) = identity {
        words.extend([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]);
    }
    words.extend(["--", program].map(str::to_owned));
    words.extend(arguments.iter().cloned());
    let mut command = Command::new("setpriv");
    command.process_group(0);
    launch(title, command, &words, environment, Stdio::piped())
}

fn launch(
    title: &str,
    mut command: Command,
    arguments: &[String],
    environment: &[(&str, &str)],
    input: Stdio,
) -> Result<Running> {
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .envs(environment.iter().copied())
        .current_dir("/")
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Failure::Command {
        program: title.to_owned(),
        outcome: format!("could not be started: {error}"),
        tail: String::new(),
    })?;
    if let Some(pipe) = &child.stdout {
        // Less is only slower.
        let _ = fcntl(pipe.as_fd(), FcntlArg::F_SETPIPE_SZ(PIPE));
    }
    let stderr = child.stderr.take();
    let words = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut pipe) = stderr {
            // What cannot be read cannot be shown.
            let _ = (&mut pipe).take(WORDS).read_to_end(&mut text);
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    Ok(Running { title: title.to_owned(), child, words: Some(words), ended: false })
}

impl Running {
    /// Its standard input.
    pub fn stdin(&mut self) -> Result<ChildStdin> {
        self.child.stdin.take().ok_or_else(|| Failure::Invalid("standard input was taken before".into()))
    }

    /// Its standard output.
    pub fn stdout(&mut self) -> Result<ChildStdout> {
        self.child.stdout.take().ok_or_else(|| Failure::Invalid("standard output was taken before".into()))
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// Waits for its end: how it ended, and what it said. `watch` is asked now and then whether to go on; when it says
    /// no, the child is asked to end, and killed when it does not.
    pub fn wait(
        &mut self,
        patience: Duration,
        mut watch: impl FnMut() -> bool,
    ) -> Result<(ExitStatus, String)> {
        drop(self.child.stdin.take());
        let until = Instant::now() + patience;
        let mut asked: Option<Instant> = None;
        let mut pause = Duration::from_millis(2);
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(error) => {
                    return Err(Failure::Command {
                        program: self.title.clone(),
                        outcome: format!("could not be waited for: {error}"),
                        tail: String::new(),
                    });
                }
            }
            let group = Pid::from_raw(self.child.id() as i32);
            match asked {
                None if Instant::now() > until || !watch() => {
                    // restic takes its locks away when it is interrupted.
                    let _ = killpg(group, Signal::SIGINT);
                    asked = Some(Instant::now());
                }
                Some(at) if at.elapsed() > Duration::from_secs(10) => {
                    let _ = killpg(group, Signal::SIGKILL);
                }
                _ => {}
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        };
        self.ended = true;
        let words = self.words.take().and_then(|words| words.join().ok()).unwrap_or_default();
        if asked.is_some() {
            return Err(Failure::Command {
                program: self.title.clone(),
                outcome: "was ended before it was done".into(),
                tail: tail(&words),
            });
        }
        Ok((status, words))
    }

    /// Waits and fails unless it exits with 0.
    pub fn check(&mut self, patience: Duration) -> Result<()> {
        let (status, words) = self.wait(patience, || true)?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::Command { program: self.title.clone(), outcome: describe(status), tail: tail(&words) })
    }

    /// Kills it with its children.
    pub fn kill(&mut self) {
        if !self.ended {
            let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
            // Its group may not be there yet.
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.ended = true;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of what a program said.
pub fn tail(words: &str) -> String {
    let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(5)..].join("; ")
}

/// From here on this process, and what it starts, goes behind whatever serves on this host (see [`start_behind`]).
pub fn go_behind() {
    let own = getsid(None).is_ok_and(|session| session == getpid());
    if own || setsid().is_ok() {
        // A kernel without scheduling groups has no such file.
        let _ = std::fs::write("/proc/self/autogroup", NICENESS);
    }
    let pid = getpid().to_string();
    // A host without the program: slower for the others, and nothing else.
    if let Ok(renice) = Invocation::new("renice", &["-n", NICENESS, "-p", &pid]) {
        let _ = renice.run(Duration::from_secs(5));
    }
}

#[cfg(test)]
mod tests {
    use super::start_bound;
    use std::time::{Duration, Instant};

    /// The kernel looks at the thread that has started it, which in an agent ends with the agent.
    #[test]
    fn what_is_bound_ends_with_who_has_started_it() {
        let end = Instant::now() + Duration::from_secs(20);
        let until = |what: &str, done: &mut dyn FnMut() -> bool| {
            while !done() {
                assert!(Instant::now() < end, "{what}");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        let mut running = std::thread::scope(|scope| {
            let starts = scope.spawn(|| {
                let running = start_bound("sleep", "sleep", &["600".to_owned()], &[], None).unwrap();
                let name = format!("/proc/{}/comm", running.child.id());
                until("it does not begin", &mut || std::fs::read_to_string(&name).unwrap() == "sleep\n");
                running
            });
            starts.join().unwrap()
        });
        until("it goes on", &mut || running.has_ended());
    }
}
