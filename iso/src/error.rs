//! What can go wrong when a bundle is built.

use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Error of a build, with its step and place.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A file or folder.
    #[error("{action} {path}")]
    File {
        /// What was tried, as `cannot write`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A program could not be started or failed.
    #[error("{program} failed ({status}) while {step}: {output}")]
    Program {
        /// Its name.
        program: String,
        /// What it was needed for.
        step: String,
        /// Exit status, or why it did not start.
        status: String,
        /// The end of what it said.
        output: String,
    },
    /// A program that is needed is not on this machine.
    #[error("{program} is not installed; it is needed for {step}")]
    MissingProgram {
        /// Its name.
        program: String,
        /// What for.
        step: String,
    },
    /// The lock file.
    #[error("the lock file {path}: {problem}")]
    Lock {
        /// Where.
        path: PathBuf,
        /// In words.
        problem: String,
    },
    /// Locked packages that the archive no longer has.
    #[error("{} no longer served by the Debian archive: {}", plural(packages.len()), packages.join(", "))]
    NotServed {
        /// `name version` of each.
        packages: Vec<String>,
    },
    /// What came is not what the lock says.
    #[error("{package} is not what the lock file says: SHA-256 {found} instead of {wanted}")]
    Digest {
        /// `name version`.
        package: String,
        /// Hex.
        wanted: String,
        /// Hex.
        found: String,
    },
    /// Something in an image is wrong.
    #[error("image {image}: {problem}")]
    Image {
        /// Its name.
        image: String,
        /// In words.
        problem: String,
    },
    /// A program of ours is not portable.
    #[error("{path}: {problem}")]
    NotPortable {
        /// The program.
        path: PathBuf,
        /// In words.
        problem: String,
    },
    /// The signing key.
    #[error("the signing key {path}: {problem}")]
    Key {
        /// Where.
        path: PathBuf,
        /// In words.
        problem: String,
    },
    /// The bundle would break its own rules.
    #[error("the bundle cannot be written: {problem}")]
    Bundle {
        /// In words.
        problem: String,
    },
    /// A build step was stopped from outside.
    #[error("interrupted while {step}")]
    Interrupted {
        /// The step.
        step: String,
    },
}

impl BuildError {
    /// What to do next; empty when the message says it all.
    pub fn hint(&self) -> String {
        match self {
            Self::MissingProgram { .. } => "run tests/setup build bundle, which installs what building needs".into(),
            Self::NotServed { .. } => {
                "build with --relock to lock the versions that are served now, and review the change of iso/bundle.lock"
                    .into()
            }
            Self::Lock { .. } => "make it anew with bundle build --relock".into(),
            Self::Digest { .. } => {
                "somebody changed the package or the lock file; if you trust the archive, build with --relock".into()
            }
            Self::Key { .. } => "give an unencrypted minisign secret key of mode 0600".into(),
            _ => String::new(),
        }
    }

    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

fn plural(count: usize) -> String {
    if count == 1 { "1 locked package is".into() } else { format!("{count} locked packages are") }
}
