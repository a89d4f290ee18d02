//! Keys and signatures of bundles, in the formats of minisign.
//!
//! Signing is deterministic (Ed25519 as in RFC 8032, pre-hashed by BLAKE2b-512 as minisign does), so that a bundle
//! that is built twice is the same bytes; the library's own signing mixes in random bytes, so only its key files and
//! its check are used. Every signature is checked by that library before it is given out.

use crate::error::BuildError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest};
use maxim_model::bundle::{PublicKey, UNTRUSTED_COMMENT};
use minisign::{KeyPair, SecretKeyBox, SignatureBox};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where the id, the seed and the public half lie in a secret key of minisign: after two bytes each for the
/// algorithms of signature, key derivation and checksum, 32 of salt and 16 of limits.
const ID: std::ops::Range<usize> = 54..62;
const SEED: std::ops::Range<usize> = 62..94;
const PUBLIC: std::ops::Range<usize> = 94..126;

/// A key that signs bundles.
pub struct SigningKey {
    id: [u8; 8],
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Folder of the developer's key below a home folder.
pub fn developer_folder(home: &Path) -> PathBuf {
    home.join(".local/share/maxim/keys")
}

/// The developer's public key on this machine, if one was made: what a checkout trusts.
pub fn developer_public_key(home: &Path) -> Option<PublicKey> {
    let text = fs::read_to_string(developer_folder(home).join("developer.pub")).ok()?;
    PublicKey::parse(&text).ok()
}

impl SigningKey {
    /// The developer's key; made when there is none. The secret half has mode 0600 and no password: it signs what
    /// this machine builds for itself, and nobody else trusts it.
    pub fn developer(home: &Path) -> Result<Self, BuildError> {
        let folder = developer_folder(home);
        let path = folder.join("developer.key");
        if !path.exists() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(BuildError::file("cannot make the folder", &folder))?;
            let wrong =
                |error: minisign::PError| BuildError::Key { path: path.clone(), problem: error.to_string() };
            let keys = KeyPair::generate_unencrypted_keypair().map_err(wrong)?;
            let secret = keys.sk.to_box(Some("secret key of a developer's Maxim bundles")).map_err(wrong)?;
            let public = PublicKey::parse(&keys.pk.to_base64())
                .map_err(|error| BuildError::Key { path: path.clone(), problem: error.to_string() })?;
            // The public half first: a secret half without it would stay unknown to readers.
            write_new(&folder.join("developer.pub"), public.to_file().as_bytes(), 0o644)?;
            write_new(&path, secret.into_string().as_bytes(), 0o600)?;
        }
        Self::load(&path)
    }

    /// A key file as minisign writes it, without a password.
    pub fn load(path: &Path) -> Result<Self, BuildError> {
        let wrong = |problem: String| BuildError::Key { path: path.to_owned(), problem };
        let metadata = fs::metadata(path).map_err(BuildError::file("cannot read the key", path))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(wrong(format!(
                "others can read it (mode {:04o}); run chmod 600 on it",
                metadata.permissions().mode() & 0o7777
            )));
        }
        let text = fs::read_to_string(path).map_err(BuildError::file("cannot read the key", path))?;
        let key = SecretKeyBox::from_string(&text)
            .and_then(SecretKeyBox::into_unencrypted_secret_key)
            .map_err(|error| wrong(error.to_string()))?;
        let bytes = key.to_bytes();
        let part =
            |range: std::ops::Range<usize>| bytes.get(range).ok_or_else(|| wrong("it is too short".into()));
        let pair = Ed25519KeyPair::from_seed_and_public_key(part(SEED)?, part(PUBLIC)?)
            .map_err(|_| wrong("its two halves do not belong together".into()))?;
        let id: [u8; 8] = part(ID)?.try_into().map_err(|_| wrong("it is too short".into()))?;
        let public = [b"Ed".as_slice(), &id, pair.public_key().as_ref()].concat();
        let public = PublicKey::parse(&STANDARD.encode(public)).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { id, pair, public })
    }

    /// The public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The text of a signature file.
    pub fn sign(&self, message: &[u8], trusted_comment: &str) -> Result<String, BuildError> {
        let signature = self.pair.sign(&Blake2b512::digest(message));
        let with_comment = [signature.as_ref(), trusted_comment.as_bytes()].concat();
        let global = self.pair.sign(&with_comment);
        let body = [b"ED".as_slice(), &self.id, signature.as_ref()].concat();
        let text = format!(
            "untrusted comment: {UNTRUSTED_COMMENT}\n{}\ntrusted comment: {trusted_comment}\n{}\n",
            STANDARD.encode(body),
            STANDARD.encode(global.as_ref()),
        );
        let wrong =
            |error: minisign::PError| BuildError::Bundle { problem: format!("the signature: {error}") };
        let public = minisign::PublicKey::from_base64(&self.public.to_base64()).map_err(wrong)?;
        let parsed = SignatureBox::from_string(&text).map_err(wrong)?;
        minisign::verify(&public, &parsed, Cursor::new(message), true, false, false).map_err(wrong)?;
        Ok(text)
    }
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), BuildError> {
    let failed = || BuildError::file("cannot write", path);
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .map_err(failed())?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed())?;
    fs::rename(&temporary, path).map_err(failed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_developers_key_is_made_once_and_signs_the_same_twice() {
        let home = tempfile::tempdir().unwrap();
        assert!(developer_public_key(home.path()).is_none());
        let first = SigningKey::developer(home.path()).unwrap();
        let again = SigningKey::developer(home.path()).unwrap();
        assert_eq!(first.public(), again.public());
        assert_eq!(developer_public_key(home.path()).as_ref(), Some(first.public()));
        assert_eq!(first.sign(b"text", "maxim 1").unwrap(), again.sign(b"text", "maxim 1").unwrap());
        assert_ne!(first.sign(b"text", "maxim 1").unwrap(), again.sign(b"texu", "maxim 1").unwrap());
        let path = developer_folder(home.path()).join("developer.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(SigningKey::load(&path).unwrap_err().to_string().contains("others can read it (mode 0644)"));
    }

    #[test]
    fn stock_minisign_verifies_the_signature() {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::developer(folder.path()).unwrap();
        let message = folder.path().join("manifest.json");
        fs::write(&message, "a manifest").unwrap();
        fs::write(
            folder.path().join("manifest.json.minisig"),
            key.sign(b"a manifest", "maxim 0.1.0").unwrap(),
        )
        .unwrap();
        fs::write(folder.path().join("key.pub"), key.public().to_file()).unwrap();
        let check = || {
            Command::new("minisign")
                .args(["-V", "-m", "manifest.json", "-p", "key.pub"])
                .current_dir(&folder)
                .output()
        };
        let good = check().expect("the package minisign is installed by tests/setup");
        let said = String::from_utf8_lossy(&good.stdout).into_owned();
        assert!(good.status.success() && said.contains("Trusted comment: maxim 0.1.0"), "{good:?}");
        fs::write(&message, "a manifesto").unwrap();
        assert!(!check().unwrap().status.success());
    }

    #[test]
    fn a_key_with_a_password_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyPair::generate_encrypted_keypair(Some("secret".into())).unwrap();
        let path = folder.path().join("release.key");
        write_new(&path, keys.sk.to_box(None).unwrap().into_string().as_bytes(), 0o600).unwrap();
        assert!(matches!(SigningKey::load(&path), Err(BuildError::Key { .. })));
    }
}
