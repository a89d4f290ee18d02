//! SCRAM from the client's side (RFC 5802, RFC 7677), without channel binding.
//!
//! Salted passwords are kept, so that a second round of sign-ins measures the server and not this.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

/// Salted passwords by user, hash, salt and iterations.
pub(super) type Cache = Arc<Mutex<HashMap<String, Vec<u8>>>>;

#[derive(Debug, Clone, Copy)]
pub(super) enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    fn digest(self, data: &[u8]) -> digest::Digest {
        let algorithm = match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
        };
        digest::digest(algorithm, data)
    }

    fn mac(self, key: &[u8], data: &[u8]) -> hmac::Tag {
        let algorithm = match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), data)
    }

    fn salt(self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let (algorithm, length) = match self {
            Self::Sha1 => (pbkdf2::PBKDF2_HMAC_SHA1, 20),
            Self::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        };
        let mut salted = vec![0; length];
        pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut salted);
        salted
    }
}

/// One authentication.
pub(super) struct Scram {
    hash: Hash,
    user: String,
    password: String,
    nonce: String,
    cache: Cache,
    auth_message: String,
    salted: Vec<u8>,
}

impl Scram {
    pub(super) fn new(hash: Hash, user: String, password: String, cache: Cache) -> Self {
        let nonce = format!("{:032x}", rand::random::<u128>());
        Self { hash, user, password, nonce, cache, auth_message: String::new(), salted: Vec::new() }
    }

    fn bare(&self) -> String {
        format!("n={},r={}", self.user, self.nonce)
    }

    /// The client's first message, in Base64.
    pub(super) fn first(&self) -> String {
        BASE64.encode(format!("n,,{}", self.bare()))
    }

    /// The answer to the server's challenge, both in Base64.
    pub(super) fn answer(&mut self, challenge: &str) -> Result<String> {
        let challenge = String::from_utf8(BASE64.decode(challenge).context("the challenge")?)?;
        let field =
            |name: &str| challenge.split(',').find_map(|field| field.strip_prefix(name)).map(str::to_owned);
        let nonce = field("r=").context("a challenge without a nonce")?;
        ensure!(nonce.starts_with(&self.nonce), "the server's nonce does not continue ours");
        let salt_text = field("s=").context("a challenge without a salt")?;
        let salt = BASE64.decode(&salt_text)?;
        let iterations: NonZeroU32 = field("i=").context("a challenge without iterations")?.parse()?;
        let key = format!("{}\n{:?}\n{iterations}\n{salt_text}", self.user, self.hash);
        let known = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        self.salted = match known {
            Some(salted) => salted,
            None => {
                let salted = self.hash.salt(&self.password, &salt, iterations);
                self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(key, salted.clone());
                salted
            }
        };
        let without_proof = format!("c=biws,r={nonce}");
        self.auth_message = format!("{},{challenge},{without_proof}", self.bare());
        let client_key = self.hash.mac(&self.salted, b"Client Key");
        let signature =
            self.hash.mac(self.hash.digest(client_key.as_ref()).as_ref(), self.auth_message.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        Ok(BASE64.encode(format!("{without_proof},p={}", BASE64.encode(proof))))
    }

    /// Checks that the server knows the password's keys too.
    pub(super) fn verify(&self, last: &str) -> Result<()> {
        let server_key = self.hash.mac(&self.salted, b"Server Key");
        let signature = self.hash.mac(server_key.as_ref(), self.auth_message.as_bytes());
        let said = String::from_utf8(BASE64.decode(last.trim()).context("the server's last message")?)?;
        ensure!(
            said == format!("v={}", BASE64.encode(signature.as_ref())),
            "the server's signature is wrong"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfcs() {
        for (hash, nonce, first, last) in [
            (
                Hash::Sha1,
                "fyko+d2lbbFgONRv9qkxdawL",
                "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
                "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ),
            (
                Hash::Sha256,
                "rOprNGfwEbeRWgbNEkqO",
                "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
        ] {
            let mut scram = Scram::new(hash, "user".into(), "pencil".into(), Cache::default());
            scram.nonce = nonce.into();
            scram.answer(&BASE64.encode(first)).unwrap();
            scram.verify(&BASE64.encode(last)).unwrap();
            assert!(scram.verify(&BASE64.encode("v=AAAA")).is_err());
        }
    }
}
