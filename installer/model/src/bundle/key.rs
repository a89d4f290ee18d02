//! Whom a bundle is from: minisign public keys, their fingerprints, and the signature over the manifest.
//!
//! A signature file is accepted only in the very form that the builder writes (pre-hashed signature, both comment
//! lines as fixed by version and processor), so that not one bit of it can be changed unseen, the untrusted comment
//! included. The fingerprint is a SHA-256 over the whole key: the eight-byte id that minisign shows is chosen at
//! random and proves nothing.

use super::BundleError;
use crate::manifest::Manifest;
use minisign::SignatureBox;
use sha2::{Digest, Sha256};
use std::io::Cursor;

/// First line of every signature (after minisign's own prefix).
pub const UNTRUSTED_COMMENT: &str = "signature of the manifest of a Maxim bundle";

/// The signed comment of a bundle's signature.
pub fn trusted_comment(version: &str, architecture: &str) -> String {
    format!("maxim {version} {architecture}")
}

/// A minisign public key.
#[derive(Debug, Clone)]
pub struct PublicKey {
    inner: minisign::PublicKey,
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.inner.to_bytes() == other.inner.to_bytes()
    }
}

impl Eq for PublicKey {}

impl PublicKey {
    /// Reads a key file of minisign (comment line and key line), or the key line alone.
    pub fn parse(text: &str) -> Result<Self, BundleError> {
        let problem = |problem: &str| BundleError::Key { problem: problem.to_owned() };
        let line = text
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with("untrusted comment:"))
            .ok_or_else(|| problem("the text is empty"))?;
        let inner = minisign::PublicKey::from_base64(line).map_err(|error| problem(&error.to_string()))?;
        if inner.to_base64() != line {
            return Err(problem("its encoding is not canonical"));
        }
        Ok(Self { inner })
    }

    /// The key line.
    pub fn to_base64(&self) -> String {
        self.inner.to_base64()
    }

    /// The text of a key file, as `minisign -p` reads it.
    pub fn to_file(&self) -> String {
        format!("untrusted comment: public key of Maxim bundles\n{}\n", self.to_base64())
    }

    /// SHA-256 of the key in sixteen groups of four hexadecimal digits, for a person to compare.
    pub fn fingerprint(&self) -> String {
        let digits = hex::encode(Sha256::digest(self.inner.to_bytes()));
        let groups: Vec<&str> = (0..digits.len()).step_by(4).map(|at| &digits[at..at + 4]).collect();
        groups.join(" ")
    }
}

/// Which key must have signed.
#[derive(Debug, Clone)]
pub enum Trust {
    /// One of these.
    Keys(Vec<PublicKey>),
    /// The one that the bundle itself carries. It proves that the bundle is whole, not whose it is: the caller must
    /// have the fingerprint confirmed ([`super::Index::key`]) before anything from the bundle is used.
    Carried,
}

impl Trust {
    /// Checks the signature, and gives the key that made it.
    pub(super) fn check(
        &self,
        manifest: &[u8],
        parsed: &Result<Manifest, String>,
        signature: &[u8],
    ) -> Result<PublicKey, BundleError> {
        let refused = |problem: String| BundleError::Signature { problem };
        let carried = parsed
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|manifest| PublicKey::parse(&manifest.public_key).map_err(|error| error.to_string()));
        let text =
            std::str::from_utf8(signature).map_err(|_| refused("its file is not plain text".to_owned()))?;
        let signed = SignatureBox::from_string(text)
            .map_err(|error| refused(format!("its file is not one of minisign ({error})")))?;
        // Length of the last line: the signature over the comment must have its 64 bytes.
        if signed.to_string() != text || text.lines().last().map_or(0, str::len) != 88 {
            return Err(refused("its file is not in canonical form".to_owned()));
        }
        let key = match self {
            Self::Carried => carried.map_err(refused)?,
            Self::Keys(keys) => {
                let known = keys.iter().find(|key| key.inner.keynum() == signed.keynum());
                known.cloned().ok_or_else(|| BundleError::UntrustedKey {
                    fingerprint: carried.map_or_else(|_| "unknown".to_owned(), |key| key.fingerprint()),
                })?
            }
        };
        minisign::verify(&key.inner, &signed, Cursor::new(manifest), true, false, false)
            .map_err(|error| refused(error.to_string()))?;
        // From here on the manifest is what the owner of the key signed.
        let manifest = parsed.as_ref().map_err(|problem| BundleError::malformed("manifest.json", problem))?;
        if manifest.public_key != key.to_base64() {
            return Err(refused("the manifest carries another key than the one that signed it".to_owned()));
        }
        let comment = signed.trusted_comment().map_err(|error| refused(error.to_string()))?;
        let untrusted = signed.untrusted_comment().map_err(|error| refused(error.to_string()))?;
        if comment != trusted_comment(&manifest.version, &manifest.architecture)
            || untrusted != UNTRUSTED_COMMENT
        {
            return Err(refused("its comments are not those of this bundle".to_owned()));
        }
        Ok(key)
    }
}
