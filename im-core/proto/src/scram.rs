//! SCRAM on the server's side (RFC 5802, RFC 7677) and SASL PLAIN messages (RFC 4616).
//!
//! Steps of a SCRAM exchange:
//! 1. [`ClientFirst::parse`] reads name, nonce and channel-binding flag;
//! 2. [`Exchange::begin`] makes the server's first message from stored salt and iterations;
//! 3. [`Exchange::finish`] checks binding, nonce and proof in constant time, and gives the server's signature.
//!
//! [`derive`] makes the keys that are stored; it costs milliseconds on purpose, so callers keep it off the
//! reactor. Nothing here keeps a password longer than a call.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

/// The hash of a SCRAM mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SCRAM-SHA-1
    Sha1,
    /// SCRAM-SHA-256
    Sha256,
}

impl Hash {
    /// Bytes of a digest.
    #[expect(clippy::len_without_is_empty, reason = "a digest is never empty")]
    pub fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        }
    }

    fn digest(self, data: &[u8]) -> digest::Digest {
        digest::digest(
            match self {
                Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
                Self::Sha256 => &digest::SHA256,
            },
            data,
        )
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        }
    }
}

/// What the server keeps instead of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Random per account and hash.
    pub salt: Vec<u8>,
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// `H(ClientKey)`
    pub stored_key: Vec<u8>,
    /// Key of the server's signature.
    pub server_key: Vec<u8>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// Why an exchange failed. The peer learns only the SASL condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// The message is not what the mechanism says.
    #[error("malformed SASL message")]
    Malformed,
    /// Wrong name or password, or a broken channel binding.
    #[error("not authorized")]
    NotAuthorized,
    /// Another identity than the authenticated one was asked for.
    #[error("invalid authorization identity")]
    InvalidAuthzid,
}

/// Prepares a password (RFC 4013). `None` when it holds forbidden characters or is empty.
pub fn prepare_password(password: &str) -> Option<String> {
    let prepared = stringprep::saslprep(password).ok()?;
    (!prepared.is_empty()).then(|| prepared.into_owned())
}

/// Makes the stored keys from a prepared password. Slow on purpose.
pub fn derive(hash: Hash, password: &str, salt: &[u8], iterations: NonZeroU32) -> Keys {
    let mut salted = vec![0; hash.len()];
    pbkdf2::derive(hash.pbkdf2(), iterations, salt, password.as_bytes(), &mut salted);
    let key = hmac::Key::new(hash.hmac(), &salted);
    let client_key = hmac::sign(&key, b"Client Key");
    let keys = Keys {
        salt: salt.to_vec(),
        iterations: iterations.get(),
        stored_key: hash.digest(client_key.as_ref()).as_ref().to_vec(),
        server_key: hmac::sign(&key, b"Server Key").as_ref().to_vec(),
    };
    salted.fill(0);
    keys
}

/// Compares in a time that depends on the lengths only.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

/// True when the prepared password fits the keys. Slow on purpose.
pub fn check_password(hash: Hash, password: &str, keys: &Keys) -> bool {
    let Some(iterations) = NonZeroU32::new(keys.iterations) else { return false };
    equal(&derive(hash, password, &keys.salt, iterations).stored_key, &keys.stored_key)
}

/// A stable salt for a name that has no account, so that the answer does not tell (needs a secret of the
/// server's that stays the same as long as its accounts do).
pub fn fake_salt(secret: &[u8], name: &str, hash: Hash, len: usize) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut context = hmac::Context::with_key(&key);
    context.update(&[hash.len() as u8]);
    context.update(name.as_bytes());
    let tag = context.sign();
    tag.as_ref()[..len.min(tag.as_ref().len())].to_vec()
}

/// Channel binding as the client asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// `n`: the client does not support it.
    Unsupported,
    /// `y`: the client supports it and thinks that the server does not.
    NotOffered,
    /// `p=`: required, of this type.
    Required(String),
}

/// The client's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFirst {
    /// Channel-binding flag.
    pub binding: Binding,
    /// Authorization identity, if given.
    pub authzid: Option<String>,
    /// Name, unescaped, not yet prepared.
    pub username: String,
    nonce: String,
    gs2_header: String,
    bare: String,
}

fn unescape_name(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('=') {
        out.push_str(&rest[..at]);
        out.push(match rest.get(at..at + 3)? {
            "=2C" => ',',
            "=3D" => '=',
            _ => return None,
        });
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    (!out.is_empty()).then_some(out)
}

fn nonce_ok(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.len() <= 512 && nonce.bytes().all(|b| matches!(b, 0x21..=0x2b | 0x2d..=0x7e))
}

impl ClientFirst {
    /// Reads `gs2-header client-first-message-bare` (RFC 5802 §7).
    ///
    /// # Errors
    /// [`SaslError::Malformed`] when it does not follow the grammar.
    pub fn parse(message: &[u8]) -> Result<Self, SaslError> {
        let text = std::str::from_utf8(message).map_err(|_| SaslError::Malformed)?;
        let mut fields = text.splitn(3, ',');
        let mut field = || fields.next().ok_or(SaslError::Malformed);
        let (flag, authzid, bare) = (field()?, field()?, field()?);
        let binding = match flag {
            "n" => Binding::Unsupported,
            "y" => Binding::NotOffered,
            _ => match flag.strip_prefix("p=") {
                Some(name) if !name.is_empty() => Binding::Required(name.into()),
                _ => return Err(SaslError::Malformed),
            },
        };
        let authzid = match authzid {
            "" => None,
            a => Some(a.strip_prefix("a=").and_then(unescape_name).ok_or(SaslError::Malformed)?),
        };
        let mut parts = bare.split(',');
        let name = parts.next().and_then(|p| p.strip_prefix("n=")).ok_or(SaslError::Malformed)?;
        let nonce = parts.next().and_then(|p| p.strip_prefix("r=")).ok_or(SaslError::Malformed)?;
        if !nonce_ok(nonce) {
            return Err(SaslError::Malformed);
        }
        Ok(Self {
            binding,
            authzid,
            username: unescape_name(name).ok_or(SaslError::Malformed)?,
            nonce: nonce.into(),
            gs2_header: text[..text.len() - bare.len()].into(),
            bare: bare.into(),
        })
    }
}

/// An exchange that waits for the client's last message.
pub struct Exchange {
    hash: Hash,
    keys: Keys,
    gs2_header: String,
    nonce: String,
    /// Client's first message bare and server's first message, joined as the proof covers them.
    transcript: String,
    binding_data: Option<Vec<u8>>,
    /// False for a name without account: the exchange goes on and fails at its end.
    known: bool,
}

impl Exchange {
    /// Begins: returns the exchange and the server's first message.
    ///
    /// `binding_data` is the channel's data when the client requires binding. `known` is false when the keys
    /// are made up.
    pub fn begin(
        hash: Hash,
        first: &ClientFirst,
        keys: Keys,
        server_nonce: &str,
        binding_data: Option<Vec<u8>>,
        known: bool,
    ) -> (Self, String) {
        let nonce = format!("{}{server_nonce}", first.nonce);
        let message = format!("r={nonce},s={},i={}", BASE64.encode(&keys.salt), keys.iterations);
        let exchange = Self {
            hash,
            keys,
            gs2_header: first.gs2_header.clone(),
            nonce,
            transcript: format!("{},{message}", first.bare),
            binding_data,
            known,
        };
        (exchange, message)
    }

    /// Checks the client's last message; returns the server's (`v=…`).
    ///
    /// # Errors
    /// [`SaslError::Malformed`] by grammar; [`SaslError::NotAuthorized`] when binding, nonce or proof is wrong.
    pub fn finish(&self, message: &[u8]) -> Result<String, SaslError> {
        let text = std::str::from_utf8(message).map_err(|_| SaslError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(SaslError::Malformed)?;
        let proof = BASE64.decode(proof).map_err(|_| SaslError::Malformed)?;
        let mut parts = without_proof.split(',');
        let binding = parts.next().and_then(|p| p.strip_prefix("c=")).ok_or(SaslError::Malformed)?;
        let nonce = parts.next().and_then(|p| p.strip_prefix("r=")).ok_or(SaslError::Malformed)?;
        let binding = BASE64.decode(binding).map_err(|_| SaslError::Malformed)?;
        let mut wanted = self.gs2_header.clone().into_bytes();
        wanted.extend_from_slice(self.binding_data.as_deref().unwrap_or_default());

        let auth_message = format!("{},{without_proof}", self.transcript);
        let signature =
            hmac::sign(&hmac::Key::new(self.hash.hmac(), &self.keys.stored_key), auth_message.as_bytes());
        let client_key: Vec<u8> = proof.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let proof_ok = proof.len() == self.hash.len()
            && equal(self.hash.digest(&client_key).as_ref(), &self.keys.stored_key);
        // All checks are made before any verdict, so that the time tells nothing.
        let checks = [proof_ok, equal(&binding, &wanted), nonce == self.nonce, self.known];
        if checks.contains(&false) {
            return Err(SaslError::NotAuthorized);
        }
        let server =
            hmac::sign(&hmac::Key::new(self.hash.hmac(), &self.keys.server_key), auth_message.as_bytes());
        Ok(format!("v={}", BASE64.encode(server)))
    }
}

/// A SASL PLAIN message: authorization identity, name, password.
pub struct Plain {
    /// Authorization identity, if given.
    pub authzid: Option<String>,
    /// Name, not yet prepared.
    pub username: String,
    /// Password, not yet prepared.
    pub password: String,
}

impl Plain {
    /// Reads `[authzid] NUL authcid NUL passwd`.
    ///
    /// # Errors
    /// [`SaslError::Malformed`] when it does not follow the grammar.
    pub fn parse(message: &[u8]) -> Result<Self, SaslError> {
        let text = std::str::from_utf8(message).map_err(|_| SaslError::Malformed)?;
        let parts: Vec<&str> = text.split('\0').collect();
        match parts[..] {
            [authzid, username, password] if !username.is_empty() && !password.is_empty() => Ok(Self {
                authzid: (!authzid.is_empty()).then(|| authzid.into()),
                username: username.into(),
                password: password.into(),
            }),
            _ => Err(SaslError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(hash: Hash, first: &str, server_nonce: &str, salt: &str, last: &str) -> Result<String, SaslError> {
        let salt = BASE64.decode(salt).unwrap();
        let keys = derive(hash, "pencil", &salt, NonZeroU32::new(4096).unwrap());
        let first = ClientFirst::parse(first.as_bytes())?;
        assert_eq!(first.username, "user");
        let (exchange, _) = Exchange::begin(hash, &first, keys, server_nonce, None, true);
        exchange.finish(last.as_bytes())
    }

    /// RFC 5802 §5
    #[test]
    fn sha1_vector() {
        let answer = run(
            Hash::Sha1,
            "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
            "3rfcNHYJY1ZVvWVs7j",
            "QSXCR+Q6sek8bf92",
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        );
        assert_eq!(answer.unwrap(), "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=");
    }

    /// RFC 7677 §3
    #[test]
    fn sha256_vector() {
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let run = |last: &str| {
            run(
                Hash::Sha256,
                "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
                "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
                "W22ZaJ0SNY7soEsUEjb6gQ==",
                last,
            )
        };
        assert_eq!(run(last).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(run(&last.replace("dHzb", "eHzb")), Err(SaslError::NotAuthorized));
        assert_eq!(run(&last.replace("c=biws", "c=eSws")), Err(SaslError::NotAuthorized));
        assert_eq!(run(&last.replace("hvYD", "hvYE")), Err(SaslError::NotAuthorized));
        assert_eq!(run("nonsense"), Err(SaslError::Malformed));
    }

    #[test]
    fn binding_data_must_match() {
        let keys = derive(Hash::Sha256, "pw", b"salt", NonZeroU32::new(1).unwrap());
        let first = ClientFirst::parse(b"p=tls-exporter,,n=user,r=abc").unwrap();
        assert_eq!(first.binding, Binding::Required("tls-exporter".into()));
        let (exchange, _) =
            Exchange::begin(Hash::Sha256, &first, keys.clone(), "def", Some(vec![1, 2]), true);
        let proof = |cbind: &[u8]| {
            let without = format!("c={},r=abcdef", BASE64.encode(cbind));
            let message = format!("{},{without}", exchange.transcript);
            let mut salted = vec![0; 32];
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, NonZeroU32::MIN, b"salt", b"pw", &mut salted);
            let client_key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &salted), b"Client Key");
            let signature =
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &keys.stored_key), message.as_bytes());
            let proof: Vec<u8> =
                client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
            format!("{without},p={}", BASE64.encode(proof))
        };
        assert!(exchange.finish(proof(b"p=tls-exporter,,\x01\x02").as_bytes()).is_ok());
        assert_eq!(
            exchange.finish(proof(b"p=tls-exporter,,\x01\x03").as_bytes()),
            Err(SaslError::NotAuthorized)
        );
    }

    #[test]
    fn reads_names_and_refuses_nonsense() {
        assert_eq!(ClientFirst::parse(b"y,a=x,n=a=2Cb=3D,r=n").unwrap().username, "a,b=");
        for bad in [
            "",
            "n,,",
            "n,,r=x",
            "x,,n=a,r=b",
            "n,,n=a=2,r=b",
            "n,,n=,r=b",
            "n,b,n=a,r=b",
            "p=,,n=a,r=b",
            "n,,m=x,n=a,r=b",
        ] {
            assert!(ClientFirst::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let plain = Plain::parse(b"\0user\0pass").unwrap();
        assert_eq!((plain.authzid, plain.username.as_str(), plain.password.as_str()), (None, "user", "pass"));
        assert!(Plain::parse(b"user\0pass").is_err());
        assert!(prepare_password("a\u{0007}").is_none());
        assert_eq!(prepare_password("I\u{ad}X").as_deref(), Some("IX"));
    }
}
