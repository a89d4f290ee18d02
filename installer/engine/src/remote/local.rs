//! This machine: the agent is a child process of the same program, over a socket pair.
//!
//! A socket pair rather than pipes, because reads and writes on it can have deadlines. The child's standard error
//! goes to a temporary file that is read only when something went wrong.

use super::{Agent, Connected, Mode, Stream};
use crate::context::CancelFlag;
use crate::error::EngineError;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// This machine.
pub struct Local {
    host: String,
    program: PathBuf,
    socket: Option<PathBuf>,
    cancel: CancelFlag,
}

impl Local {
    /// Agents will be started from `program`, or reached at `socket`.
    pub fn new(host: &str, program: PathBuf, socket: Option<PathBuf>, cancel: CancelFlag) -> Self {
        Self { host: host.into(), program, socket, cancel }
    }
}

impl Connected for Local {
    fn agent(&mut self, mode: Mode) -> Result<Agent, EngineError> {
        if let Some(socket) = &self.socket {
            let stream = UnixStream::connect(socket).map_err(|error| {
                EngineError::failed("connect", format!("{}: {error}", socket.display())).on(&self.host).hint(
                    "the agent's socket on this machine must be there: `systemctl status maxim-agent.socket`",
                )
            })?;
            return Agent::greet(
                &self.host,
                Box::new(Socket(stream)),
                mode.access(),
                self.cancel.clone(),
                Duration::from_secs(10),
            );
        }
        let stream = Process::start(&self.program, mode).map_err(|error| {
            EngineError::failed("connect", format!("cannot start {} agent: {error}", self.program.display()))
                .on(&self.host)
                .hint("the program must be readable and executable for this user")
        })?;
        Agent::greet(
            &self.host,
            Box::new(stream),
            mode.access(),
            self.cancel.clone(),
            Duration::from_secs(10),
        )
    }

    fn describe(&self) -> String {
        "local".into()
    }
}

/// An agent that was started by its socket.
struct Socket(UnixStream);

impl Stream for Socket {
    fn write_all(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        write_all(&mut self.0, bytes, deadline)
    }

    fn read(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
        read(&mut self.0, buffer, wait)
    }

    fn close_input(&mut self) {
        // The agent may have ended already.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn diagnosis(&mut self) -> String {
        String::new()
    }
}

/// A child that speaks the protocol on its standard input and output.
struct Process {
    child: Child,
    stream: UnixStream,
    errors: File,
}

impl Process {
    fn start(program: &std::path::Path, mode: Mode) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let input: OwnedFd = theirs.try_clone()?.into();
        let output: OwnedFd = theirs.into();
        let errors = tempfile::tempfile()?;
        let mut command = Command::new(program);
        command.arg("agent").args(mode.arguments());
        let child = command.stdin(input).stdout(output).stderr(Stdio::from(errors.try_clone()?)).spawn()?;
        Ok(Self { child, stream: ours, errors })
    }
}

impl Stream for Process {
    fn write_all(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        write_all(&mut self.stream, bytes, deadline)
    }

    fn read(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
        read(&mut self.stream, buffer, wait)
    }

    fn close_input(&mut self) {
        // The agent may have ended already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn diagnosis(&mut self) -> String {
        let mut text = String::new();
        if self.errors.seek(SeekFrom::Start(0)).is_ok() {
            // Text that is not UTF-8 is no diagnosis that anybody can read.
            let _ = (&mut self.errors).take(4096).read_to_string(&mut text);
        }
        text.trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.close_input();
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                _ => return,
            }
        }
        // It did not end at the end of its input: it is stuck.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes everything to a unix stream before a deadline.
fn write_all(stream: &mut UnixStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads from a unix stream; `TimedOut` when nothing came.
fn read(stream: &mut UnixStream, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
    stream.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
    match stream.read(buffer) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Err(io::ErrorKind::TimedOut.into())
        }
        other => other,
    }
}
