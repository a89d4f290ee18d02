//! Running a child process: known program path, cleared environment, standard input that may hold a secret, bounded
//! output, and a deadline after which its whole process group is killed.
//!
//! Never a shell. Arguments are never secret. Output is kept up to a bound; the rest is read and dropped, so that a
//! talkative child can neither block nor fill memory.

use crate::error::{Failure, Result};
use maxim_model::Secret;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Where programs are looked for, whatever the caller's environment says.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Bytes kept of each output stream.
const OUTPUT_BOUND: usize = 1 << 20;

/// A command that is about to run.
#[derive(Debug)]
pub struct Invocation {
    program: PathBuf,
    arguments: Vec<String>,
    stdin: Secret,
    identity: Option<(u32, u32)>,
}

/// What a child left behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, bounded.
    pub stdout: String,
    /// Standard error, bounded.
    pub stderr: String,
}

impl Output {
    /// The last lines of what it said, for an error.
    pub fn tail(&self) -> String {
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(5)..].join("; ")
    }
}

/// The absolute path of a program on the known path.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Path::new(program).is_file().then(|| PathBuf::from(program));
    }
    PATH.split(':').map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
}

impl Invocation {
    /// A program by name (found on [`PATH`]) or absolute path.
    pub fn new(program: &str, arguments: &[&str]) -> Result<Self> {
        let Some(path) = find(program) else {
            return Err(Failure::refused(
                format!("the program `{program}` is not on this host (looked in {PATH})"),
                format!("install the package that brings `{program}`, then run the command again"),
            ));
        };
        Ok(Self {
            program: path,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            stdin: Secret::default(),
            identity: None,
        })
    }

    /// Gives it standard input.
    pub fn stdin(mut self, text: Secret) -> Self {
        self.stdin = text;
        self
    }

    /// Runs it as this user and group.
    pub fn identity(mut self, user: u32, group: u32) -> Self {
        self.identity = Some((user, group));
        self
    }

    /// The name for errors: program and at most two arguments.
    fn title(&self) -> String {
        let mut title =
            self.program.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        for argument in self.arguments.iter().take(2) {
            title.push(' ');
            title.push_str(argument);
        }
        title
    }

    /// Runs it and fails unless it exits with 0.
    pub fn check(self, deadline: Duration) -> Result<Output> {
        let title = self.title();
        let output = self.run(deadline)?;
        if output.status.success() {
            return Ok(output);
        }
        Err(Failure::Command { program: title, outcome: describe(output.status), tail: output.tail() })
    }

    /// Runs it; any exit status is an answer. A child that outlives its deadline is killed with its group.
    pub fn run(self, deadline: Duration) -> Result<Output> {
        let title = self.title();
        let failed =
            |outcome: String| Failure::Command { program: title.clone(), outcome, tail: String::new() };
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .env("HOME", "/")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some((user, group)) = self.identity {
            command.uid(user).gid(group);
        }
        let mut child = command.spawn().map_err(|error| failed(format!("could not be started: {error}")))?;
        let group = Pid::from_raw(child.id() as i32);
        let end = Instant::now() + deadline;
        let stdin = child.stdin.take();
        let input = self.stdin;
        let feeder = thread::spawn(move || {
            if let Some(mut pipe) = stdin {
                // A child that does not read its input is no error: its exit status decides.
                let _ = pipe.write_all(input.expose().as_bytes());
            }
        });
        let (stdout, stderr) = (Collector::start(child.stdout.take()), Collector::start(child.stderr.take()));
        let ended = wait_until(group, end);
        if ended {
            // Grandchildren may hold the pipes open: they get a moment.
            let grace = (Instant::now() + Duration::from_secs(1)).min(end);
            while !(stdout.is_done() && stderr.is_done()) && Instant::now() < grace {
                thread::sleep(Duration::from_millis(1));
            }
        }
        // The child is not reaped yet, so the group's number is still its own.
        let _ = killpg(group, Signal::SIGKILL);
        let status = child.wait();
        // Whoever left the group and still holds a pipe is not waited for.
        let grace = Instant::now() + Duration::from_secs(1);
        while !(stdout.is_done() && stderr.is_done() && feeder.is_finished()) && Instant::now() < grace {
            thread::sleep(Duration::from_millis(1));
        }
        let (stdout, stderr) = (stdout.text(), stderr.text());
        match status {
            Ok(status) if ended => Ok(Output { status, stdout, stderr }),
            Ok(_) => Err(Failure::Command {
                program: title,
                outcome: format!("was killed: it had not ended after {} s", deadline.as_secs()),
                tail: stderr.lines().last().unwrap_or_default().to_owned(),
            }),
            Err(error) => Err(failed(format!("could not be waited for: {error}"))),
        }
    }
}

/// Waits for the child's end without reaping it, looking first often, then every 10 ms. Returns whether it ended.
fn wait_until(child: Pid, end: Instant) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    let mut pause = Duration::from_micros(200);
    loop {
        match waitid(Id::Pid(child), flags) {
            Ok(WaitStatus::StillAlive) | Err(nix::Error::EINTR) => {}
            // An error means that there is nothing to wait for; the caller's wait tells.
            Ok(_) | Err(_) => return true,
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Reads a pipe to its end in a thread of its own and keeps the first megabyte.
struct Collector {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Collector {
    fn start(pipe: Option<impl Read + Send + 'static>) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&kept);
        let reader = thread::spawn(move || {
            if let Some(pipe) = pipe {
                collect(pipe, &into);
            }
        });
        Self { kept, reader }
    }

    fn is_done(&self) -> bool {
        self.reader.is_finished()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

fn collect(mut pipe: impl Read, into: &Mutex<Vec<u8>>) {
    let mut buffer = [0_u8; 16 << 10];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
                let room = OUTPUT_BOUND.saturating_sub(kept.len()).min(count);
                kept.extend_from_slice(&buffer[..room]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
}

/// An exit status in words.
pub fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, Invocation};
    use maxim_model::Secret;
    use std::time::{Duration, Instant};

    #[test]
    fn standard_input_reaches_the_child_and_the_environment_does_not() {
        let output =
            Invocation::new("cat", &[]).unwrap().stdin(Secret::new("hello")).check(Duration::from_secs(5));
        assert_eq!(output.unwrap().stdout, "hello");
        let output = Invocation::new("env", &[]).unwrap().check(Duration::from_secs(5)).unwrap();
        let mut names: Vec<&str> = output.stdout.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME", "LC_ALL", "PATH"]);
    }

    #[test]
    fn a_child_that_outlives_its_deadline_is_killed_with_its_children() {
        let began = Instant::now();
        let failure = Invocation::new("sh", &["-c", "sleep 300 & echo busy >&2; wait"])
            .unwrap()
            .run(Duration::from_secs(2))
            .unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(15));
        assert!(
            matches!(&failure, Failure::Command { outcome, tail, .. } if outcome.contains("killed") && tail == "busy")
        );
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipe_does_not_block() {
        let began = Instant::now();
        let output =
            Invocation::new("sh", &["-c", "sleep 300 & echo done"]).unwrap().check(Duration::from_secs(20));
        assert_eq!(output.unwrap().stdout, "done\n");
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn one_that_left_the_group_does_not_block_either() {
        let began = Instant::now();
        let script = "setsid sleep 20 & echo $!; sleep 0.1; exit 0";
        let output = Invocation::new("sh", &["-c", script]).unwrap().check(Duration::from_secs(30)).unwrap();
        assert!(began.elapsed() < Duration::from_secs(10));
        let pid = nix::unistd::Pid::from_raw(output.stdout.trim().parse().unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }

    #[test]
    fn failure_names_program_status_and_the_end_of_its_words() {
        let failure = Invocation::new("sh", &["-c", "echo one; echo two >&2; exit 3"])
            .unwrap()
            .check(Duration::from_secs(5));
        let text = failure.unwrap_err().to_string();
        assert!(text.contains("exited with status 3: two"), "{text}");
        let missing = Invocation::new("no-such-program-here", &[]).unwrap_err();
        assert!(missing.to_string().contains("no-such-program-here"));
    }
}
