//! What can go wrong on a host, said so that a person knows the place, the cause and what to do next.
//!
//! One enum for the whole agent: each variant names the thing it happened to; [`Failure::hint`] is what to do next.
//! Nothing secret may be put into a variant: texts of child processes pass [`crate::process::Output::tail`], which
//! is given no secret, and contents of files never become part of an error.

use maxim_model::wire::AgentError;
use std::io;
use std::path::{Path, PathBuf};

/// Result of everything in this crate.
pub type Result<T> = std::result::Result<T, Failure>;

/// Why an operation on this host failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// Verb, as `write`.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The task or request itself makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It was not done on purpose.
    #[error("{what}")]
    Refused {
        /// What was refused and why.
        what: String,
        /// What to do next.
        hint: String,
    },
    /// A wait ended without what it waited for.
    #[error("waited {seconds} s for {what}{}", if last.is_empty() { String::new() } else { format!("; last: {last}") })]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// What was seen last.
        last: String,
    },
    /// A child process could not be started or failed.
    #[error("`{program}` {outcome}{}", if tail.is_empty() { String::new() } else { format!(": {tail}") })]
    Command {
        /// Program with its first arguments (never a secret).
        program: String,
        /// As `exited with status 1`, `was killed after 10 s`.
        outcome: String,
        /// End of what it said.
        tail: String,
    },
    /// Content that came was not what was promised.
    #[error("{what}")]
    Content {
        /// Which content, and how it is wrong.
        what: String,
        /// What to do next.
        hint: String,
    },
    /// A service does not run as it should.
    #[error("service {service}: {what}{}", if log.is_empty() { String::new() } else { format!("\nlast lines of its log:\n{log}") })]
    Service {
        /// Service or unit.
        service: String,
        /// What is wrong.
        what: String,
        /// Last lines of its log.
        log: String,
    },
    /// Talk with a server failed (HTTP, XMPP, TLS).
    #[error("{with}: {what}")]
    Talk {
        /// Address or socket.
        with: String,
        /// What went wrong.
        what: String,
    },
    /// The engine's end of the pipe broke, or said what the protocol does not know.
    #[error("talk with the engine: {0}")]
    Wire(String),
}

impl Failure {
    /// A closure for `map_err` of file operations.
    pub fn file(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::File { action, path, source }
    }

    /// The same for calls that answer with an errno.
    pub fn errno(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(nix::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |errno| Self::File { action, path, source: errno.into() }
    }

    /// A refusal with its remedy.
    pub fn refused(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), hint: hint.into() }
    }

    /// Trouble with a peer.
    pub fn talk(with: impl Into<String>, what: impl ToString) -> Self {
        Self::Talk { with: with.into(), what: what.to_string() }
    }

    /// What to do next; empty when the cause says it all.
    pub fn hint(&self) -> String {
        match self {
            Self::Refused { hint, .. } | Self::Content { hint, .. } => hint.clone(),
            Self::File { path, source, .. } => file_hint(path, source),
            Self::Deadline { .. } => {
                "look at the service's log (`maxim.ctl logs`), remove the cause and run the command again"
                    .into()
            }
            Self::Service { service, .. } => {
                format!(
                    "see the whole log with `maxim.ctl logs {service}`, remove the cause and run the command again"
                )
            }
            Self::Command { .. } => "remove the cause named above and run the command again".into(),
            Self::Talk { .. } => {
                "check that the service runs (`maxim.ctl status`) and run the command again".into()
            }
            Self::Invalid(_) => "this is an error in a playbook or a call; the place is named above".into(),
            Self::Wire(_) => "run the command again; what is done is not done twice".into(),
        }
    }

    /// As it travels to the engine.
    pub fn to_wire(&self, step: &str) -> AgentError {
        AgentError { step: step.to_owned(), cause: self.to_string(), hint: self.hint() }
    }

    /// Whether the file system had no room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::File { source, .. } if is_full(source))
    }
}

/// Whether the error says that there is no room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn file_hint(path: &Path, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::StorageFull => {
            format!("the file system that holds {} is full: free space on it and run the command again", path.display())
        }
        io::ErrorKind::QuotaExceeded => "the disk quota is used up: raise it and run the command again".into(),
        io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is mounted read-only: mount it read-write, or set another path in the topology (`paths`)"
                .into()
        }
        io::ErrorKind::PermissionDenied => {
            "the agent lacks the right: the standard profile needs root or sudo, the embedded one a root folder that \
             you own"
                .into()
        }
        _ => "remove the cause named above and run the command again".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::Failure;
    use std::io;

    #[test]
    fn a_full_disk_is_named_with_its_place() {
        let failure = Failure::file("write", "/data/x")(io::Error::from(io::ErrorKind::StorageFull));
        assert!(failure.is_full());
        assert!(failure.to_string().starts_with("cannot write /data/x: "));
        assert!(failure.hint().contains("/data/x is full"));
    }

    #[test]
    fn a_deadline_says_what_was_awaited_and_seen() {
        let failure = Failure::Deadline { what: "port 1".into(), seconds: 3, last: "refused".into() };
        assert_eq!(failure.to_string(), "waited 3 s for port 1; last: refused");
    }
}
