//! Passwords of people: from standard input, or from the terminal without echo. Never from a flag.

use crate::failure::Failure;
use crate::messages::Messages;
use maxim_model::Secret;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};

/// Longest password that is read, bytes.
const LIMIT: u64 = 4096;

/// One line of standard input, without its end.
pub(crate) fn from_stdin() -> Result<Secret, Failure> {
    let mut line = String::new();
    BufReader::new(std::io::stdin().take(LIMIT))
        .read_line(&mut line)
        .map_err(|error| Failure::failed(format!("standard input: {error}"), ""))?;
    checked(line.trim_end_matches(['\n', '\r']))
}

/// A new password: from standard input when told so, else asked for twice.
pub(crate) fn new_password(stdin: bool, messages: &Messages) -> Result<Secret, Failure> {
    if stdin {
        return from_stdin();
    }
    let first = ask(&messages.text("password-new"), messages)?;
    let second = ask(&messages.text("password-again"), messages)?;
    if first != second {
        return Err(Failure::usage(
            messages.text("password-differs"),
            messages.text("password-differs-hint"),
        ));
    }
    checked(first.expose())
}

/// Asks on the terminal, without echo.
pub(crate) fn ask(question: &str, messages: &Messages) -> Result<Secret, Failure> {
    let nobody = || Failure::usage(messages.text("password-nobody"), messages.text("password-nobody-hint"));
    if !std::io::stdin().is_terminal() {
        return Err(nobody());
    }
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_| nobody())?;
    let _ = write!(terminal, "{question}: ");
    let _ = terminal.flush();
    let quiet = NoEcho::new(&terminal).ok_or_else(nobody)?;
    let mut line = String::new();
    let read = BufReader::new((&terminal).take(LIMIT)).read_line(&mut line);
    drop(quiet);
    let _ = writeln!(terminal);
    read.map_err(|error| Failure::failed(format!("terminal: {error}"), ""))?;
    if line.is_empty() {
        return Err(Failure::new(130, messages.text("interrupted"), ""));
    }
    Ok(Secret::new(line.trim_end_matches(['\n', '\r'])))
}

fn checked(password: &str) -> Result<Secret, Failure> {
    if password.is_empty() {
        return Err(Failure::usage("the password is empty", "give one line with the password"));
    }
    Ok(Secret::new(password))
}

/// Switches the echo of a terminal off, and on again when dropped.
struct NoEcho<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> NoEcho<'a> {
    fn new(terminal: &'a File) -> Option<Self> {
        let before = tcgetattr(terminal).ok()?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &quiet).ok()?;
        Some(Self { terminal, before })
    }
}

impl Drop for NoEcho<'_> {
    fn drop(&mut self) {
        // The terminal is gone when this fails.
        let _ = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

/// The first line of a private file.
pub(crate) fn from_file(path: &std::path::Path, what: &str) -> Result<Secret, Failure> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error: std::io::Error| {
        Failure::usage(
            format!("{what}: {}: {error}", path.display()),
            "name a file of mode 0600 with one line",
        )
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Failure::usage(
            format!("{what}: {} can be read by others (mode {mode:04o})", path.display()),
            format!("chmod 600 {}", path.display()),
        ));
    }
    let mut line = String::new();
    BufReader::new(file.take(LIMIT)).read_line(&mut line).map_err(failed)?;
    checked(line.trim_end_matches(['\n', '\r']))
}
