//! Hosts reached by SSH: sign in, put the agent's copy there once, start it.
//!
//! The copy lies in a folder that only root can read, under the SHA-256 of its content. One remote command opens it,
//! hashes what it opened, and runs exactly that descriptor; when it is missing or differs, it says so and nothing is
//! run: then the program is sent and the command tried again. With sudo the same command runs below `sudo -n`, or
//! `sudo -S` with the password as the first line of standard input. Where the key's line on the host has a forced
//! command (the console's key), the agent answers at once and all of this is skipped.

mod known_hosts;
mod relay;
mod session;
mod stream;

use super::{Agent, Connected, Stream};
use crate::context::{Ask, CancelFlag};
use crate::error::EngineError;
use crate::phases::plan::read_password;
use crate::state::StateDir;
use maxim_model::Secret;
use maxim_model::topology::{AccessSecrets, Host, Ssh};
use maxim_model::wire::{Access, Request};
use session::{Line, Target, Waited, refused};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use stream::SshStream;

/// A shell, sudo and an agent start well within this.
const START: Duration = Duration::from_secs(15);
/// A transfer that moves nothing for so long is broken.
const IDLE: Duration = Duration::from_secs(20);
/// The remote end's window towards us; replies are small.
const WINDOW: u32 = 4 * 1024 * 1024;
const PACKET: u32 = 32_768;
const PIECE: usize = 512 * 1024;
const MISSING: &str = "MAXIM-AGENT-MISSING";
const READY: &str = "MAXIM-AGENT-READY";
const STORED: &str = "MAXIM-AGENT-STORED";
/// What sudo says to a wrong password (we ask it to speak English).
const SUDO_REFUSED: &str = "Sorry, try again";
/// Lines that a login shell may print before ours.
const NOISE: usize = 200;

/// The program that is sent, hashed once for all hosts.
pub struct Program {
    path: PathBuf,
    digest: OnceLock<Result<(String, u64), String>>,
}

impl Program {
    /// Nothing is read before the first host needs it.
    pub fn new(path: PathBuf) -> Self {
        Self { path, digest: OnceLock::new() }
    }

    /// Hashes it now, while hosts are being reached.
    pub fn hash_early(&self) {
        // Whoever needs the digest gets the same error.
        let _ = self.digest();
    }

    /// SHA-256 in hex, and size.
    fn digest(&self) -> Result<(String, u64), String> {
        self.digest
            .get_or_init(|| {
                let wrong = |error: io::Error| format!("{}: {error}", self.path.display());
                let mut file = File::open(&self.path).map_err(wrong)?;
                let mut digest = Sha256::new();
                let mut piece = vec![0; PIECE];
                let mut size = 0;
                loop {
                    let count = file.read(&mut piece).map_err(wrong)?;
                    if count == 0 {
                        return Ok((hex::encode(digest.finalize()), size));
                    }
                    digest.update(&piece[..count]);
                    size += count as u64;
                }
            })
            .clone()
    }
}

/// What is the same for all hosts of a run.
pub struct Means {
    /// The program to send.
    pub program: Program,
    /// Passwords that were given.
    pub access: AccessSecrets,
    /// Whom to ask for a sudo password.
    pub ask: Arc<dyn Ask>,
    /// Where host keys are pinned.
    pub state: StateDir,
    /// Folder of our software on hosts.
    pub software: String,
    /// Ends every wait.
    pub cancel: CancelFlag,
}

/// How commands become root on a host, found out once.
#[derive(Clone)]
enum Sudo {
    /// Not needed, or not wanted.
    No,
    /// `sudo -n` works.
    WithoutPassword,
    /// By password.
    Password(Secret),
}

/// A host that is signed in to.
pub struct SshHost {
    host: String,
    settings: Ssh,
    address: String,
    line: Line,
    means: Arc<Means>,
    sudo: Option<Sudo>,
    sent: u64,
}

impl SshHost {
    /// Connects and signs in, through a jump host when one is set.
    pub fn connect(host: &Host, settings: &Ssh, means: &Arc<Means>) -> Result<Self, EngineError> {
        let password = match means.access.ssh.get(&host.name).or_else(|| means.access.ssh.get("")) {
            Some(password) => Some(password.clone()),
            None if settings.password_file.is_empty() => None,
            None => Some(read_password(&settings.password_file)?),
        };
        let target = Target {
            host: &host.name,
            address: &host.address,
            ssh: settings,
            password: password.clone(),
            state: &means.state,
            cancel: means.cancel.clone(),
        };
        let line = if settings.jump.is_empty() {
            Line::open(&target)?
        } else {
            let (jump_settings, jump_address) = jump(settings);
            let jump = Target {
                address: &jump_address,
                ssh: &jump_settings,
                password,
                cancel: means.cancel.clone(),
                ..target
            };
            let jump = Line::open(&jump).map_err(|error| {
                let cause = format!("jump host {}: {}", settings.jump, error.cause);
                EngineError { cause, ..error }
            })?;
            Line::over(&target, session::through(jump, &target)?)?
        };
        Ok(Self {
            host: host.name.clone(),
            settings: settings.clone(),
            address: host.address.clone(),
            line,
            means: Arc::clone(means),
            sudo: None,
            sent: 0,
        })
    }

    fn failed(&self, id: &str, cause: impl Into<String>, hint: &str) -> EngineError {
        let target = Target {
            host: &self.host,
            address: &self.address,
            ssh: &self.settings,
            password: None,
            state: &self.means.state,
            cancel: self.means.cancel.clone(),
        };
        refused(&target, id, cause.into(), hint)
    }

    /// Runs a shell script, below sudo when that is how this host goes.
    fn run(&self, script: &str, sudo: &Sudo) -> Result<SshStream, EngineError> {
        let quoted = quote(script);
        let command = match sudo {
            Sudo::No => format!("exec sh -c {quoted}"),
            Sudo::WithoutPassword => format!("LC_ALL=C exec sudo -n -- sh -c {quoted}"),
            Sudo::Password(_) => format!("LC_ALL=C exec sudo -S -p '' -- sh -c {quoted}"),
        };
        let broken = |error: Waited| match error {
            Waited::Cancelled => EngineError::interrupted("connect").on(&self.host),
            Waited::TooLong => self.failed(
                "access.agent",
                "no answer to a command within 15 s",
                "look at the load of the host",
            ),
            Waited::Failed(error) => self.failed(
                "access.agent",
                format!("a command could not be started ({})", error.message()),
                "the SSH server must allow commands for this user",
            ),
        };
        let until = Instant::now() + START;
        let session = self.line.session();
        let mut channel = self
            .line
            .drive(until, || session.channel_open("session", WINDOW, PACKET, None))
            .map_err(broken)?;
        self.line.drive(until, || channel.exec(&command)).map_err(broken)?;
        let mut stream = SshStream {
            line: self.line.clone(),
            channel,
            pushed_back: Vec::new(),
            errors: Vec::new(),
            input_closed: false,
        };
        if let Sudo::Password(password) = sudo {
            let mut line = format!("{}\n", password.expose());
            let written = stream.write_all(line.as_bytes(), until);
            zeroize::Zeroize::zeroize(&mut line);
            written
                .map_err(|error| self.failed("access.sudo", format!("the connection broke ({error})"), ""))?;
        }
        Ok(stream)
    }

    /// Starts an agent from the copy on the host. None: it is missing.
    fn start(&mut self, access: Access) -> Result<Option<Agent>, EngineError> {
        let (digest, _) = self.digest()?;
        let flag = if access == Access::ReadOnly { " --read-only" } else { "" };
        let path = quote(&format!("{}/agent/{digest}", self.means.software));
        let script = format!(
            "p={path}; if [ -r \"$p\" ] && exec 3<\"$p\" && s=$(sha256sum <&3) && [ \"${{s%% *}}\" = {digest} ]; \
             then echo {READY}; exec /proc/self/fd/3 agent{flag}; fi; echo {MISSING}"
        );
        let until = Instant::now() + START;
        let hello = {
            let mut line = serde_json::to_vec(&Request::Hello)
                .map_err(|error| EngineError::failed("connect", error.to_string()))?;
            line.push(b'\n');
            line
        };
        let sudo = self.sudo()?;
        let mut stream = self.run(&script, &sudo)?;
        let mut greeted = false;
        // Below sudo with a password, whatever is sent too early would be taken for another password.
        if !matches!(sudo, Sudo::Password(_)) {
            greeted = stream.write_all(&hello, until).is_ok();
        }
        for _ in 0..NOISE {
            let line = match stream.line(until) {
                Ok(Some(line)) => line,
                Ok(None) => return Err(self.not_started(&mut stream)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    return Err(EngineError::interrupted("connect").on(&self.host));
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(self.wrong_sudo_password());
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let said = stream.diagnosis();
                    return Err(self.failed(
                        "access.agent",
                        format!("the agent did not start within 15 s {said}"),
                        "look at the load of the host",
                    ));
                }
                Err(error) => {
                    return Err(self.failed("access.agent", format!("the connection broke ({error})"), ""));
                }
            };
            match line.trim_end() {
                MISSING => return Ok(None),
                READY => {
                    if !greeted {
                        stream.write_all(&hello, until).map_err(|error| {
                            self.failed("access.agent", format!("the connection broke ({error})"), "")
                        })?;
                    }
                    return Agent::greeted(
                        &self.host,
                        Box::new(stream),
                        access,
                        self.means.cancel.clone(),
                        START,
                    )
                    .map(Some);
                }
                // A forced command: the agent itself answers.
                text if text.starts_with("{\"reply\"") => {
                    stream.pushed_back.splice(0..0, line.into_bytes());
                    return Agent::greeted(
                        &self.host,
                        Box::new(stream),
                        access,
                        self.means.cancel.clone(),
                        START,
                    )
                    .map(Some);
                }
                _ => {}
            }
        }
        Err(self.failed(
            "access.agent",
            "the login shell prints without end",
            "look at the shell's start-up files of this user",
        ))
    }

    /// The command ended before it said anything we know.
    fn not_started(&self, stream: &mut SshStream) -> EngineError {
        let said = stream.diagnosis();
        if let Some(Sudo::Password(_)) = &self.sudo {
            return self.wrong_sudo_password();
        }
        if said.contains("not in the sudoers") || said.contains("not allowed") {
            return self.failed(
                "access.sudo",
                format!("{} may not use sudo", self.settings.user),
                "add the user to the sudo group, or connect as root",
            );
        }
        self.failed(
            "access.agent",
            format!("the agent could not be started: {said}"),
            "a POSIX shell and sha256sum must be there, and the software folder must not be mounted noexec",
        )
    }

    fn wrong_sudo_password(&self) -> EngineError {
        self.failed(
            "access.sudo_password",
            format!("sudo did not accept the password of {}", self.settings.user),
            "give the right one with `sudo_password_file` in the topology, or when asked; or allow sudo without a password for this user",
        )
    }

    fn digest(&self) -> Result<(String, u64), EngineError> {
        self.means.program.digest().map_err(|cause| EngineError::failed("connect", cause).on(&self.host))
    }

    /// How to become root, found out the first time.
    fn sudo(&mut self) -> Result<Sudo, EngineError> {
        if let Some(sudo) = &self.sudo {
            return Ok(sudo.clone());
        }
        let sudo = if self.settings.user == "root" || !self.settings.sudo {
            Sudo::No
        } else if self.works_without_password()? {
            Sudo::WithoutPassword
        } else {
            let given = self.means.access.sudo.get(&self.host).or_else(|| self.means.access.sudo.get(""));
            let password = match given {
                Some(password) => Some(password.clone()),
                None if self.settings.sudo_password_file.is_empty() => {
                    self.means.ask.sudo_password(&self.host)
                }
                None => Some(read_password(&self.settings.sudo_password_file)?),
            };
            Sudo::Password(password.ok_or_else(|| {
                self.failed(
                    "access.sudo",
                    format!("sudo asks for the password of {}", self.settings.user),
                    "name a file with it by `ssh: {sudo_password_file: FILE}`, run on a terminal to be asked, or allow sudo without a password",
                )
            })?)
        };
        self.sudo = Some(sudo.clone());
        Ok(sudo)
    }

    fn works_without_password(&self) -> Result<bool, EngineError> {
        let mut stream = self.run(&format!("echo {READY}"), &Sudo::WithoutPassword)?;
        let until = Instant::now() + START;
        while let Ok(Some(line)) = stream.line(until) {
            if line.trim_end() == READY {
                return Ok(true);
            }
        }
        let said = stream.diagnosis();
        if said.contains("command not found") || said.contains("sudo: not found") {
            return Err(self.failed(
                "access.sudo",
                "there is no sudo on the host",
                "install it, or connect as root",
            ));
        }
        Ok(false)
    }

    /// Puts the program on the host.
    fn send_program(&mut self) -> Result<(), EngineError> {
        let (digest, size) = self.digest()?;
        let software = quote(&self.means.software);
        let script = format!(
            "set -e; umask 022; mkdir -p {software}; umask 077; d={software}/agent; mkdir -p \"$d\"; chmod 0700 \"$d\"; \
             t=\"$d/.{digest}.$$\"; trap 'rm -f \"$t\"' EXIT; cat >\"$t\"; \
             [ \"$(wc -c <\"$t\")\" -eq {size} ] || {{ echo 'it did not arrive whole' >&2; exit 1; }}; \
             chmod 0700 \"$t\"; sync \"$t\" 2>/dev/null || sync; mv -f \"$t\" \"$d/{digest}\"; trap - EXIT; \
             for f in \"$d\"/* \"$d\"/.*; do [ -f \"$f\" ] && [ \"$f\" != \"$d/{digest}\" ] && rm -f \"$f\"; done; echo {STORED}"
        );
        let sudo = self.sudo()?;
        let mut stream = self.run(&script, &sudo)?;
        let sent = (|| -> io::Result<()> {
            let mut file = File::open(&self.means.program.path)?;
            let mut piece = vec![0; PIECE];
            loop {
                let count = file.read(&mut piece)?;
                if count == 0 {
                    break;
                }
                if self.means.cancel.is_cancelled() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                stream.write_all(&piece[..count], Instant::now() + IDLE)?;
            }
            stream.close_input();
            Ok(())
        })();
        if self.means.cancel.is_cancelled() {
            return Err(EngineError::interrupted("connect").on(&self.host));
        }
        let until = Instant::now() + START;
        while let Ok(Some(line)) = stream.line(until) {
            if line.trim_end() == STORED {
                self.sent += size;
                return Ok(());
            }
        }
        let said = stream.diagnosis();
        let why = match sent {
            Err(error) if said.is_empty() => error.to_string(),
            _ => said,
        };
        let hint = if why.contains("No space left") {
            format!("free space on the file system of {}", self.means.software)
        } else if why.contains("Permission denied") || why.contains("not permitted") {
            "connect as root, or set `ssh: {sudo: true}` for this host".to_owned()
        } else {
            format!("{} must be a folder that can be written to", self.means.software)
        };
        Err(self.failed(
            "access.agent",
            format!("the agent's copy could not be put on the host: {why}"),
            &hint,
        ))
    }
}

impl Connected for SshHost {
    fn agent(&mut self, access: Access) -> Result<Agent, EngineError> {
        if let Some(agent) = self.start(access)? {
            return Ok(agent);
        }
        self.send_program()?;
        self.start(access)?.ok_or_else(|| {
            self.failed(
                "access.agent",
                "the agent's copy is not what was sent",
                "look at the disk of the host",
            )
        })
    }

    fn describe(&self) -> String {
        let place = format!("ssh {}@{}", self.settings.user, self.address);
        let port = if self.settings.port == 22 { String::new() } else { format!(":{}", self.settings.port) };
        let jump =
            if self.settings.jump.is_empty() { String::new() } else { format!(" by {}", self.settings.jump) };
        format!("{place}{port}{jump}")
    }

    fn agent_bytes_sent(&self) -> u64 {
        self.sent
    }
}

/// User, address and port of `user@host:port`; what is left out is as for the host itself.
fn jump(settings: &Ssh) -> (Ssh, String) {
    let (user, place) = match settings.jump.split_once('@') {
        Some((user, place)) => (user.to_owned(), place),
        None => (settings.user.clone(), settings.jump.as_str()),
    };
    let (address, port) = match place.rsplit_once(':') {
        Some((address, port)) if !address.contains(':') || address.starts_with('[') => {
            (address.trim_matches(['[', ']']).to_owned(), port.parse().unwrap_or(22))
        }
        _ => (place.trim_matches(['[', ']']).to_owned(), 22),
    };
    (Ssh { user, port, jump: String::new(), ..settings.clone() }, address)
}

/// One word for a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::{jump, quote};
    use crate::sample;
    use maxim_model::topology::Connection;

    #[test]
    fn a_jump_host_is_read_in_every_form() {
        let host = sample::host("a", "10.0.0.1", &[]);
        let Connection::Ssh(mut ssh) = host.connection else { panic!("by SSH") };
        let mut read = |text: &str| {
            ssh.jump = text.into();
            let (settings, address) = jump(&ssh);
            (settings.user, address, settings.port)
        };
        assert_eq!(read("ann@gate.example:2222"), ("ann".into(), "gate.example".into(), 2222));
        assert_eq!(read("gate.example"), ("root".into(), "gate.example".into(), 22));
        assert_eq!(read("ann@[fd00::1]:2222"), ("ann".into(), "fd00::1".into(), 2222));
        assert_eq!(read("fd00::1"), ("root".into(), "fd00::1".into(), 22));
    }

    #[test]
    fn words_for_a_shell_are_one_word() {
        assert_eq!(quote("/opt/o'clock $x"), r"'/opt/o'\''clock $x'");
    }
}
