//! Reading and checking a bundle, as pure functions over the bytes that are passed in.
//!
//! A bundle is a plain tar of regular files with one canonical header each ([`header`]): `maxim.ctl`, then
//! `manifest.json`, then `manifest.json.minisig`, then the members in the order of the manifest, then two zero
//! blocks and nothing more. Steps of every reader here:
//!
//! 1. `maxim.ctl` is passed over (its digest is compared once the manifest is believed);
//! 2. manifest and signature are read, bounded in size, and the signature is checked against the trusted key before
//!    any other word of the manifest is used ([`key`]);
//! 3. the members must follow exactly as the manifest says: [`verify`] reads them all in constant memory,
//!    [`Index`] looks at the headers only, and gives contents whose digest is checked while they stream.
//!
//! What it deliberately does not do: open files, decide whom to trust, unpack images (the agent does, and checks
//! again). A refusal always names the member.

pub mod header;
pub mod key;
mod reader;
#[cfg(test)]
mod tests;

pub use key::{PublicKey, Trust, UNTRUSTED_COMMENT, trusted_comment};
pub use reader::{Content, Index, Verified, verify};

use std::io;
use thiserror::Error;

/// Largest manifest in bytes.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// Largest signature in bytes.
pub const SIGNATURE_LIMIT: u64 = 4 << 10;

/// Why a bundle was refused. All but [`BundleError::Io`] mean exit code 5.
#[derive(Debug, Error)]
pub enum BundleError {
    /// The bundle could not be read.
    #[error("cannot read the bundle at {member}")]
    Io {
        /// Member that was being read.
        member: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Not what the format asks for: cut off, a wrong header, a member that is not named, missing or out of order.
    #[error("the bundle is broken at {member}: {problem}")]
    Malformed {
        /// Member.
        member: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The content of a member is not the one that was signed.
    #[error("the bundle is broken at {member}: its content has SHA-256 {found}, the manifest says {wanted}")]
    Digest {
        /// Member.
        member: String,
        /// Hex.
        wanted: String,
        /// Hex.
        found: String,
    },
    /// The signature is not one of a key that is trusted.
    #[error(
        "the bundle is signed by another key than the trusted one: its key has the fingerprint {fingerprint}"
    )]
    UntrustedKey {
        /// Of the key that the bundle carries; `unknown` when it carries none that can be read.
        fingerprint: String,
    },
    /// The signature does not fit the manifest.
    #[error("the signature of manifest.json does not hold: {problem}")]
    Signature {
        /// In words.
        problem: String,
    },
    /// For other machines.
    #[error("the bundle is for {found}, and {wanted} is needed here")]
    Architecture {
        /// Of the bundle.
        found: String,
        /// Asked for.
        wanted: String,
    },
    /// A key that cannot be read.
    #[error("not a minisign public key: {problem}")]
    Key {
        /// In words.
        problem: String,
    },
}

impl BundleError {
    /// The member at fault; for signature and key it is the manifest.
    pub fn member(&self) -> &str {
        match self {
            Self::Io { member, .. } | Self::Malformed { member, .. } | Self::Digest { member, .. } => member,
            Self::UntrustedKey { .. }
            | Self::Signature { .. }
            | Self::Architecture { .. }
            | Self::Key { .. } => crate::manifest::MEMBER_MANIFEST,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } => "check that the file is there and can be read, then run the command again",
            Self::Malformed { .. } | Self::Digest { .. } | Self::Signature { .. } => {
                "the file was damaged or changed on its way: copy or download it again"
            }
            Self::UntrustedKey { .. } => {
                "compare the fingerprint with the publisher's; when it is right, name the key by --trust-key"
            }
            Self::Architecture { .. } => "take the bundle that was built for the processors of these hosts",
            Self::Key { .. } => {
                "give the publisher's key file, two lines as minisign writes it, or its second line"
            }
        }
    }

    pub(crate) fn malformed(member: &str, problem: impl Into<String>) -> Self {
        Self::Malformed { member: member.to_owned(), problem: problem.into() }
    }
}
