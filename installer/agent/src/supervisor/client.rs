//! Asking a supervisor: is it there, start it, and its services.

use super::control::{Answer, Command, socket};
use super::log::tail;
use crate::error::{Failure, Result};
use crate::process::PATH;
use crate::unix;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

/// One request and its answer. A failed service is an error with the last lines of its log.
pub fn ask(root: &Path, command: &Command, patience: Duration) -> Result<Answer> {
    let path = socket(root);
    let with = path.display().to_string();
    let stream = unix::connect(&path)?;
    let talk = |error: std::io::Error| {
        Failure::talk(with.clone(), format!("the supervisor does not answer: {error}"))
    };
    stream.set_read_timeout(Some(patience)).map_err(talk)?;
    stream.set_write_timeout(Some(patience)).map_err(talk)?;
    let mut line = serde_json::to_vec(command).map_err(|error| Failure::Wire(error.to_string()))?;
    line.push(b'\n');
    (&stream).write_all(&line).map_err(talk)?;
    let mut text = String::new();
    BufReader::new((&stream).take(1 << 20)).read_line(&mut text).map_err(talk)?;
    let answer: Answer = serde_json::from_str(&text)
        .map_err(|_| Failure::talk(with.clone(), "the supervisor's answer is not understood".to_owned()))?;
    if answer.error.is_empty() {
        return Ok(answer);
    }
    let service = match command {
        Command::Start { name }
        | Command::Stop { name }
        | Command::Restart { name }
        | Command::Reload { name } => name,
        Command::Status | Command::Shutdown => "supervisor",
    };
    Err(Failure::Service { service: service.to_owned(), what: answer.error, log: answer.log })
}

/// State of all services; `None` when no supervisor runs for this root.
pub fn status(root: &Path) -> Result<Option<Answer>> {
    if unix::connect(&socket(root)).is_err() {
        return Ok(None);
    }
    ask(root, &Command::Status, Duration::from_secs(10)).map(Some)
}

/// Makes sure that a supervisor runs: starts `program supervise --root ROOT` in the background and waits until it
/// answers. Returns whether it was started.
pub fn ensure(root: &Path, program: &Path, arguments: &[&str]) -> Result<bool> {
    if status(root)?.is_some() {
        return Ok(false);
    }
    let mut command = std::process::Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", root)
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(Failure::file("start the supervisor", program))?;
    let patience = Duration::from_secs(15);
    let end = Instant::now() + patience;
    let trouble = |what: String| Failure::Service {
        service: "supervisor".into(),
        what,
        log: tail(&root.join("log/supervisor.log"), 10).join("\n"),
    };
    loop {
        if status(root)?.is_some() {
            break;
        }
        if let Ok(Some(status)) = child.try_wait() {
            // Another one may have won the race for the lock; then it answers soon.
            if status_soon(root) {
                return Ok(false);
            }
            return Err(trouble(format!("it {}", crate::process::describe(status))));
        }
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            return Err(trouble(format!("it did not answer within {} s", patience.as_secs())));
        }
        thread::sleep(Duration::from_millis(5));
    }
    // Reaped whenever it ends, if this process still lives then.
    let _ = thread::Builder::new().name("supervisor-reaper".into()).spawn(move || child.wait());
    Ok(true)
}

fn status_soon(root: &Path) -> bool {
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        if matches!(status(root), Ok(Some(_))) {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Ends the supervisor and all its services; waits until it is gone. Nothing to do is fine. Returns whether one ran.
pub fn shutdown(root: &Path, patience: Duration) -> Result<bool> {
    if unix::connect(&socket(root)).is_err() {
        return Ok(false);
    }
    ask(root, &Command::Shutdown, patience)?;
    let end = Instant::now() + Duration::from_secs(10);
    while unix::connect(&socket(root)).is_ok() {
        if Instant::now() >= end {
            return Err(Failure::Service {
                service: "supervisor".into(),
                what: "it did not end within 10 s".into(),
                log: String::new(),
            });
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(true)
}
