//! Hosts reached by SSH: sign in, put the agent's copy there once, start it.
//!
//! The copy lies in a folder that only root can read, under the SHA-256 of its content. One remote command opens it,
//! hashes what it opened, and runs exactly that descriptor; when it is missing or differs, it says so and nothing is
//! run: then the program is sent and the command tried again. With sudo the same command runs below `sudo -n`, or
//! `sudo -k -S` with the password as the first line of standard input (`-k`: a password is always asked for, so that
//! it can never land in what follows). Which program it is, says `program`. Where the key's line on the host has a forced
//! command (the console's key), the agent answers at once and all of this is skipped.

mod known_hosts;
mod program;
mod reach;
mod relay;
mod send;
mod session;
mod stream;
mod sudo;

pub use known_hosts::name_at_port as pinned_name;
pub use program::Programs;

use super::{Agent, Connected, Mode, Stream};
use crate::context::{Ask, CancelFlag};
use crate::error::EngineError;
use crate::phases::plan::read_password;
use crate::state::StateDir;
use maxim_model::topology::{AccessSecrets, Connection, Host, Ssh, Topology};
use maxim_model::wire::Request;
use program::Program;
use session::{Line, Target, Waited, refused};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream::SshStream;
use sudo::Sudo;

/// A shell, sudo and an agent start well within this.
const START: Duration = Duration::from_secs(15);
/// A transfer that moves nothing for so long is broken.
const IDLE: Duration = Duration::from_secs(20);
/// The remote end's window towards us; replies are small.
const WINDOW: u32 = 4 * 1024 * 1024;
const PACKET: u32 = 32_768;
const MISSING: &str = "MAXIM-AGENT-MISSING";
const READY: &str = "MAXIM-AGENT-READY";
/// What sudo says to a wrong password (we ask it to speak English).
const SUDO_REFUSED: &str = "Sorry, try again";
/// Lines that a login shell may print before ours.
const NOISE: usize = 200;

/// What is the same for all hosts of a run.
pub struct Means {
    /// The programs that may be the agent.
    pub programs: Programs,
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

/// A host that is signed in to.
pub struct SshHost {
    host: String,
    settings: Ssh,
    address: String,
    line: Line,
    means: Arc<Means>,
    sudo: Option<Sudo>,
    /// Which group of programs is tried: the next when one speaks another protocol.
    group: usize,
    /// The host cannot run what was put on it.
    unfit: bool,
    sent: u64,
}

/// What came of starting the agent's copy.
enum Started {
    /// It has said hello.
    Running(Agent),
    /// No copy that could be run is on the host.
    Missing,
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
            password,
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
                // Its own or none: the password of the host behind it is nothing that it may see.
                password: match settings.jump_password_file.as_str() {
                    "" => None,
                    file => Some(read_password(file)?),
                },
                cancel: means.cancel.clone(),
                ..target
            };
            let jump = Line::open(&jump).map_err(|error| {
                let cause = format!("jump host {}: {}", settings.jump, error.cause);
                // What is wrong with the jump host says nothing of whether the host behind it lives.
                let unreached = ["access.unreachable", "access.refused", "access.host_key_changed"];
                let jump = unreached.contains(&error.step.as_str());
                let step = if jump { "access.jump".to_owned() } else { error.step.clone() };
                EngineError { step, cause, ..error }
            })?;
            Line::over(&target, reach::through(jump, &target)?)?
        };
        Ok(Self {
            host: host.name.clone(),
            settings: settings.clone(),
            address: host.address.clone(),
            line,
            means: Arc::clone(means),
            sudo: None,
            group: 0,
            unfit: false,
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
            Sudo::Password(_) => format!("LC_ALL=C exec sudo -k -S -p '' -- sh -c {quoted}"),
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

    /// Starts an agent from a copy on the host. How commands become root is found out on the way.
    fn start(&mut self, mode: Mode) -> Result<Started, EngineError> {
        let script = self.start_script(mode)?;
        let sudo = match &self.sudo {
            Some(sudo) => sudo.clone(),
            // What works without a password needs no other attempt to find that out.
            None if self.wants_sudo() => Sudo::WithoutPassword,
            None => Sudo::No,
        };
        if let Some(started) = self.start_below(&script, &sudo, mode)? {
            self.sudo = Some(sudo);
            return Ok(started);
        }
        let sudo = Sudo::Password(self.sudo_password()?);
        let started = self.start_below(&script, &sudo, mode)?.ok_or_else(|| self.wrong_sudo_password())?;
        self.sudo = Some(sudo);
        Ok(started)
    }

    fn start_script(&self, mode: Mode) -> Result<String, EngineError> {
        let mut digests = Vec::new();
        for program in self.programs() {
            digests.push(self.digest(program)?.0);
        }
        Ok(format!(
            "d={}; for s in {}; do p=\"$d/$s\"; if [ -r \"$p\" ] && exec 3<\"$p\" && h=$(sha256sum <&3) && \
             [ \"${{h%% *}}\" = \"$s\" ]; then echo {READY}; exec /proc/self/fd/3 agent {}; fi; done; echo {MISSING}",
            quote(&format!("{}/agent", self.means.software)),
            digests.join(" "),
            mode.arguments().join(" "),
        ))
    }

    /// One attempt. None: sudo wants a password.
    fn start_below(&mut self, script: &str, sudo: &Sudo, mode: Mode) -> Result<Option<Started>, EngineError> {
        let until = Instant::now() + START;
        let hello = {
            let mut line = serde_json::to_vec(&Request::Hello)
                .map_err(|error| EngineError::failed("connect", error.to_string()))?;
            line.push(b'\n');
            line
        };
        let mut stream = self.run(script, sudo)?;
        let mut greeted = false;
        // Below sudo with a password, whatever is sent too early would be taken for another password.
        if !matches!(sudo, Sudo::Password(_)) {
            greeted = stream.write_all(&hello, until).is_ok();
        }
        for _ in 0..NOISE {
            let line = match stream.line(until) {
                Ok(Some(line)) => line,
                Ok(None) if *sudo == Sudo::WithoutPassword => {
                    return self.refused_by_sudo(&stream.diagnosis()).map_or(Ok(None), Err);
                }
                Ok(None) => return Err(self.not_started(&mut stream, sudo)),
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
                MISSING => return Ok(Some(Started::Missing)),
                READY => {
                    if !greeted {
                        stream.write_all(&hello, until).map_err(|error| {
                            self.failed("access.agent", format!("the connection broke ({error})"), "")
                        })?;
                    }
                    return self.greeted(stream, mode).map(Some);
                }
                // A forced command: the agent itself answers.
                text if text.starts_with("{\"reply\"") => {
                    stream.pushed_back.splice(0..0, line.into_bytes());
                    return self.greeted(stream, mode).map(Some);
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

    /// Takes the answer to hello. A program that the host cannot run at all ends here without one.
    fn greeted(&mut self, stream: SshStream, mode: Mode) -> Result<Started, EngineError> {
        let agent =
            Agent::greeted(&self.host, Box::new(stream), mode.access(), self.means.cancel.clone(), START);
        match agent {
            Ok(agent) => Ok(Started::Running(agent)),
            Err(error) => Err(match program::unfit(&error.cause) {
                Some((cause, hint)) => {
                    self.unfit = true;
                    self.failed("access.agent", cause, hint)
                }
                None => error,
            }),
        }
    }

    /// The command ended before it said anything we know.
    fn not_started(&self, stream: &mut SshStream, sudo: &Sudo) -> EngineError {
        let said = stream.diagnosis();
        if let Sudo::Password(_) = sudo {
            return self.refused_by_sudo(&said).unwrap_or_else(|| self.wrong_sudo_password());
        }
        self.failed(
            "access.agent",
            format!("the agent could not be started: {said}"),
            "a POSIX shell and sha256sum must be there, and the software folder must not be mounted noexec",
        )
    }

    fn digest(&self, program: &Program) -> Result<(String, u64), EngineError> {
        program.digest().map_err(|cause| EngineError::failed("connect", cause).on(&self.host))
    }

    /// The programs that are tried now.
    fn programs(&self) -> &[Program] {
        self.means.programs.groups().get(self.group).map_or(&[], Vec::as_slice)
    }

    /// Starts an agent; puts the program on the host when it is missing.
    fn start_or_send(&mut self, mode: Mode) -> Result<Agent, EngineError> {
        if let Started::Running(agent) = self.start(mode)? {
            return Ok(agent);
        }
        self.send_program()?;
        let started = self.start(mode);
        if self.unfit {
            // Nothing else could take it away again.
            self.remove_program();
        }
        match started? {
            Started::Running(agent) => Ok(agent),
            Started::Missing => Err(self.failed(
                "access.agent",
                "the agent's copy is not what was sent",
                "look at the disk of the host",
            )),
        }
    }
}

impl Connected for SshHost {
    fn agent(&mut self, mode: Mode) -> Result<Agent, EngineError> {
        loop {
            match self.start_or_send(mode) {
                Err(error)
                    if error.step == super::agent::OTHER_PROTOCOL
                        && self.group + 1 < self.means.programs.groups().len() =>
                {
                    self.group += 1;
                }
                other => return other,
            }
        }
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

/// Names under which the keys of a topology's hosts and of their jump hosts are pinned.
pub fn pinned_names(topology: &Topology) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for host in &topology.hosts {
        let Connection::Ssh(settings) = &host.connection else { continue };
        names.insert(pinned_name(&host.address, settings.port));
        if !settings.jump.is_empty() {
            let (jump, address) = jump(settings);
            names.insert(pinned_name(&address, jump.port));
        }
    }
    names
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
    let key = if settings.jump_key.is_empty() { settings.key.clone() } else { settings.jump_key.clone() };
    (Ssh { user, port, key, jump: String::new(), password_file: String::new(), ..settings.clone() }, address)
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
