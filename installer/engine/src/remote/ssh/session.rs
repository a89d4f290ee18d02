//! One SSH connection: TCP, key exchange, host key, authentication. Then channels, without blocking.
//!
//! The libssh2 session never blocks: every operation is tried, and when it would wait, the socket is polled in short
//! slices that end at the deadline or when the run is cancelled. A far end that vanishes is found by TCP itself
//! (keep-alive and user timeout) within about ten seconds.

use super::known_hosts::{self, Judgement, KnownHosts};
use crate::context::CancelFlag;
use crate::error::{Class, EngineError};
use crate::files;
use crate::remote::SLICE;
use crate::state::StateDir;
use maxim_model::Secret;
use maxim_model::topology::{KnownHosts as Policy, Ssh};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ssh2::{
    BlockDirections, Error as SshError, ErrorCode, KeyboardInteractivePrompt, MethodType, Prompt, Session,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// To reach a host and exchange keys.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// To sign in; a server may ask its directory.
const SIGN_IN: Duration = Duration::from_secs(15);
/// Fast ciphers first: those with hardware support on both ends.
const CIPHERS: &str =
    "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes256-ctr";
const HOST_KEYS: [&str; 6] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
];
/// libssh2's code for "try again".
const AGAIN: i32 = -37;

/// Pinning rewrites one file; hosts are connected in parallel.
static PINNING: Mutex<()> = Mutex::new(());

/// What is needed to reach a host.
pub struct Target<'a> {
    /// Name in the topology, for errors.
    pub host: &'a str,
    /// Address.
    pub address: &'a str,
    /// Settings.
    pub ssh: &'a Ssh,
    /// Password for signing in, when one was given.
    pub password: Option<Secret>,
    /// Where keys are pinned.
    pub state: &'a StateDir,
    /// Ends every wait.
    pub cancel: CancelFlag,
}

/// A signed-in connection. Clones share it.
#[derive(Clone)]
pub struct Line {
    session: Session,
    socket: std::sync::Arc<OwnedFd>,
    cancel: CancelFlag,
}

impl Line {
    /// Connects by TCP and signs in.
    pub fn open(target: &Target<'_>) -> Result<Self, EngineError> {
        let stream = super::reach::tcp(target)?;
        Self::over(target, stream)
    }

    /// Signs in over a stream that exists (the far end of a jump).
    pub fn over(
        target: &Target<'_>,
        stream: impl AsFd + std::os::fd::AsRawFd + 'static,
    ) -> Result<Self, EngineError> {
        let failed = |error: &SshError| {
            refused(
                target,
                "access.handshake",
                handshake_words(error),
                "is it an SSH server? look at its log: `journalctl -u ssh`",
            )
        };
        let socket = stream
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| refused(target, "access.handshake", error.to_string(), ""))?;
        let mut session = Session::new().map_err(|error| failed(&error))?;
        session.set_tcp_stream(stream);
        session.set_blocking(false);
        let known = Known::read(target)?;
        // Without our preference libssh2 would still agree on something: a refusal here is not fatal.
        for method in [MethodType::CryptCs, MethodType::CryptSc] {
            if let Err(error) = session.method_pref(method, CIPHERS) {
                tracing::debug!(%error, "cipher preference");
            }
        }
        if let Err(error) = session.method_pref(MethodType::HostKey, &known.preference(target)) {
            tracing::debug!(%error, "host key preference");
        }
        let line = Self {
            session: session.clone(),
            socket: std::sync::Arc::new(socket),
            cancel: target.cancel.clone(),
        };
        let until = Instant::now() + CONNECT;
        line.drive(until, || session.handshake()).map_err(|error| match error {
            Waited::Cancelled => EngineError::interrupted("connect").on(target.host),
            Waited::TooLong => refused(
                target,
                "access.handshake",
                "the SSH server did not answer within 5 s".into(),
                "look at the load of the host and at firewalls on the way",
            ),
            Waited::Failed(error) => failed(&error),
        })?;
        line.check_host_key(target, &known)?;
        line.sign_in(target)?;
        Ok(line)
    }

    /// Tries an operation until it succeeds, fails, or the deadline comes.
    pub fn drive<T>(
        &self,
        until: Instant,
        mut operation: impl FnMut() -> Result<T, SshError>,
    ) -> Result<T, Waited> {
        loop {
            match operation() {
                Ok(value) => return Ok(value),
                Err(error) if error.code() == ErrorCode::Session(AGAIN) => {}
                Err(error) => return Err(Waited::Failed(error)),
            }
            if self.cancel.is_cancelled() {
                return Err(Waited::Cancelled);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Waited::TooLong);
            }
            self.wait(left.min(SLICE));
        }
    }

    /// The same without looking at the cancel flag: for the clean end of a connection.
    pub fn drive_quietly<T>(
        &self,
        until: Instant,
        mut operation: impl FnMut() -> Result<T, SshError>,
    ) -> Option<T> {
        loop {
            match operation() {
                Ok(value) => return Some(value),
                Err(error) if error.code() == ErrorCode::Session(AGAIN) && Instant::now() < until => {
                    self.wait(SLICE);
                }
                Err(_) => return None,
            }
        }
    }

    /// Whether the run was cancelled.
    pub fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Waits until the socket is ready for what libssh2 waits for, at most so long.
    pub fn wait(&self, most: Duration) {
        let flags = match self.session.block_directions() {
            BlockDirections::Inbound | BlockDirections::None => PollFlags::POLLIN,
            BlockDirections::Outbound => PollFlags::POLLOUT,
            BlockDirections::Both => PollFlags::POLLIN | PollFlags::POLLOUT,
        };
        poll_one(self.socket.as_fd(), flags, most);
    }

    /// The libssh2 session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The socket below.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn check_host_key(&self, target: &Target<'_>, known: &Known) -> Result<(), EngineError> {
        let Some((key, _)) = self.session.host_key() else {
            return Err(refused(target, "access.host_key", "the server showed no host key".into(), ""));
        };
        let (address, port) = (target.address, target.ssh.port);
        let shown = known_hosts::fingerprint(key);
        // What the cluster has pinned counts before anything else.
        let pinned = known.pinned.judge(address, port, key);
        let pinned_is_silent = pinned == Judgement::Unknown;
        let judgement = if pinned_is_silent { known.system.judge(address, port, key) } else { pinned };
        match judgement {
            // What a person's own file knows is pinned too: the console has only what the cluster has pinned.
            Judgement::Known if pinned_is_silent => known.pin(target, key),
            Judgement::Known => Ok(()),
            Judgement::Revoked => Err(refused(
                target,
                "access.host_key",
                format!("its host key {shown} is marked as revoked"),
                "find out why before connecting to this host again",
            )),
            Judgement::Changed(before) => Err(refused(
                target,
                "access.host_key_changed",
                format!("its host key has changed: {shown} now, {before} before"),
                &format!(
                    "somebody may be in between. When the host was reinstalled: `ssh-keygen -R '{}'`, remove its line from {}, and compare the new fingerprint on its console",
                    known_hosts::name_at_port(address, port),
                    known.pinned_path.display()
                ),
            )),
            Judgement::Unknown if target.ssh.known_hosts == Policy::AcceptNew => known.pin(target, key),
            Judgement::Unknown => Err(refused(
                target,
                "access.host_key_unknown",
                format!("its host key {shown} is not known"),
                &format!(
                    "compare it on the host's console (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`), then `ssh-keyscan -p {port} {address} >> ~/.ssh/known_hosts`; or set `ssh: {{known_hosts: accept-new}}`"
                ),
            )),
        }
    }

    fn sign_in(&self, target: &Target<'_>) -> Result<(), EngineError> {
        let user = &target.ssh.user;
        let until = Instant::now() + SIGN_IN;
        let mut tried: Vec<String> = Vec::new();
        let mut attempt = |name: String,
                           operation: &mut dyn FnMut() -> Result<(), SshError>|
         -> Result<bool, EngineError> {
            match self.drive(until, operation) {
                Ok(()) => Ok(true),
                Err(Waited::Cancelled) => Err(EngineError::interrupted("connect").on(target.host)),
                Err(Waited::TooLong) => Err(refused(
                    target,
                    "access.sign_in",
                    "the server did not answer within 15 s".into(),
                    "look at the load of the host",
                )),
                Err(Waited::Failed(error)) => {
                    let broken =
                        matches!(error.code(), ErrorCode::Session(code) if [-7, -13, -43].contains(&code));
                    if broken {
                        return Err(refused(
                            target,
                            "access.sign_in",
                            format!("the server closed the connection ({})", error.message()),
                            "too many keys may have been tried: name one with `ssh: {key: FILE}`",
                        ));
                    }
                    tried.push(format!("{name} ({})", error.message()));
                    Ok(false)
                }
            }
        };
        for key in key_files(target)? {
            if attempt(format!("key {}", key.display()), &mut || {
                self.session.userauth_pubkey_file(user, None, &key, None)
            })? {
                return Ok(());
            }
        }
        if target.ssh.key.is_empty() && std::env::var_os("SSH_AUTH_SOCK").is_some() {
            match self.identities() {
                Ok((agent, identities)) => {
                    for identity in &identities {
                        if attempt(format!("agent key {}", identity.comment()), &mut || {
                            agent.userauth(user, identity)
                        })? {
                            return Ok(());
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "the SSH agent was not usable"),
            }
        }
        if let Some(password) = &target.password {
            if attempt("password".into(), &mut || self.session.userauth_password(user, password.expose()))? {
                return Ok(());
            }
            if self.keyboard_interactive(user, password) {
                return Ok(());
            }
        }
        let how = if tried.is_empty() {
            "there was no key and no password to try".to_owned()
        } else {
            format!("tried {}", tried.join(", "))
        };
        Err(refused(
            target,
            "access.sign_in",
            format!("{user} may not sign in: {how}"),
            &format!(
                "put a public key into ~{user}/.ssh/authorized_keys on the host (`ssh-copy-id -p {} {user}@{}`), or name the right one with `ssh: {{key: FILE}}`; a key with a passphrase needs ssh-agent",
                target.ssh.port, target.address
            ),
        ))
    }

    fn identities(&self) -> Result<(ssh2::Agent, Vec<ssh2::PublicKey>), SshError> {
        let mut agent = self.session.agent()?;
        agent.connect()?;
        agent.list_identities()?;
        let identities = agent.identities()?;
        Ok((agent, identities))
    }

    /// Servers that ask for the password by questions; libssh2 wants to block for it, within its own timeout.
    fn keyboard_interactive(&self, user: &str, password: &Secret) -> bool {
        struct Answer<'a>(&'a Secret);
        impl KeyboardInteractivePrompt for Answer<'_> {
            fn prompt(&mut self, _user: &str, _instructions: &str, prompts: &[Prompt]) -> Vec<String> {
                prompts.iter().map(|_| self.0.expose().to_owned()).collect()
            }
        }
        self.session.set_blocking(true);
        self.session.set_timeout(u32::try_from(CONNECT.as_millis()).unwrap_or(5000));
        let signed_in = self.session.userauth_keyboard_interactive(user, &mut Answer(password)).is_ok();
        self.session.set_timeout(0);
        self.session.set_blocking(false);
        signed_in
    }
}

/// Why an operation did not succeed.
#[derive(Debug)]
pub enum Waited {
    /// The run was cancelled.
    Cancelled,
    /// The deadline came.
    TooLong,
    /// libssh2 said no.
    Failed(SshError),
}

impl From<Waited> for io::Error {
    fn from(waited: Waited) -> Self {
        match waited {
            Waited::Cancelled => io::ErrorKind::Interrupted.into(),
            Waited::TooLong => io::ErrorKind::TimedOut.into(),
            Waited::Failed(error) => error.into(),
        }
    }
}

/// Polls one descriptor; an interrupted or failed poll only shortens the wait.
pub(super) fn poll_one(socket: BorrowedFd<'_>, flags: PollFlags, most: Duration) {
    let millis = u16::try_from(most.as_millis().max(1)).unwrap_or(u16::MAX);
    let _ = poll(&mut [PollFd::new(socket, flags)], PollTimeout::from(millis));
}

/// An error of access: what a host's preflight says when it cannot even begin.
pub(super) fn refused(target: &Target<'_>, id: &str, cause: String, hint: &str) -> EngineError {
    EngineError::new(Class::Preflight, id, cause).on(target.host).hint(hint)
}

fn handshake_words(error: &SshError) -> String {
    match error.code() {
        ErrorCode::Session(-5 | -8 | -10) => {
            format!("no common algorithm with the SSH server ({})", error.message())
        }
        ErrorCode::Session(-2 | -13 | -43) => {
            "what answers at this port is no SSH server, or it closed the connection".into()
        }
        _ => format!("SSH could not be set up ({})", error.message()),
    }
}

/// The named key alone, else those that OpenSSH tries by default.
fn key_files(target: &Target<'_>) -> Result<Vec<PathBuf>, EngineError> {
    if !target.ssh.key.is_empty() {
        let path = PathBuf::from(&target.ssh.key);
        return match std::fs::File::open(&path) {
            Ok(_) => Ok(vec![path]),
            Err(error) => Err(refused(
                target,
                "access.key",
                format!("{}: {error}", path.display()),
                "`ssh: {key: FILE}` must name a readable private key on this machine",
            )),
        };
    }
    let Some(home) = home() else { return Ok(Vec::new()) };
    Ok(["id_ed25519", "id_ecdsa", "id_rsa"]
        .into_iter()
        .map(|name| home.join(".ssh").join(name))
        .filter(|path| path.is_file())
        .collect())
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute())
}

/// What is known about host keys before connecting.
struct Known {
    pinned: KnownHosts,
    pinned_path: PathBuf,
    system: KnownHosts,
}

impl Known {
    fn read(target: &Target<'_>) -> Result<Self, EngineError> {
        let pinned_path = target.state.file("known_hosts");
        let mut pinned = KnownHosts::default();
        if let Some(text) = files::read_optional(&pinned_path)? {
            pinned.add_text(&text);
        }
        let mut system = KnownHosts::default();
        let user = home().map(|home| home.join(".ssh/known_hosts"));
        for path in user.iter().map(PathBuf::as_path).chain([Path::new("/etc/ssh/ssh_known_hosts")]) {
            // A file that cannot be read says nothing; under the strict policy that refuses, which is safe.
            if let Ok(text) = std::fs::read_to_string(path) {
                system.add_text(&text);
            }
        }
        Ok(Self { pinned, pinned_path, system })
    }

    /// Kinds of host keys in the order in which they are asked for: known ones first.
    fn preference(&self, target: &Target<'_>) -> String {
        let (address, port) = (target.address, target.ssh.port);
        let pinned = self.pinned.kinds(address, port);
        let kinds = if pinned.is_empty() { self.system.kinds(address, port) } else { pinned };
        let is_known = |algorithm: &str| {
            kinds
                .iter()
                .any(|kind| *kind == algorithm || (*kind == "ssh-rsa" && algorithm.starts_with("rsa-")))
        };
        let (mut first, rest): (Vec<&str>, Vec<&str>) =
            HOST_KEYS.into_iter().partition(|algorithm| is_known(algorithm));
        first.extend(rest);
        first.join(",")
    }

    fn pin(&self, target: &Target<'_>, key: &[u8]) -> Result<(), EngineError> {
        let _one = PINNING.lock().unwrap_or_else(PoisonError::into_inner);
        target.state.create()?;
        let mut text = files::read_optional(&self.pinned_path)?.unwrap_or_default();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&known_hosts::line(target.address, target.ssh.port, key));
        files::write_whole(&self.pinned_path, text.as_bytes(), 0o600)
    }
}
