//! SCRAM-SHA-256 as a client (RFC 5802, RFC 7677), without channel binding: the TLS connection is to a server whose
//! certificate was verified against the cluster's own authority.
//!
//! Canary passwords are random ASCII, on which SASLprep changes nothing; others are refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maxim_model::Secret;
use ring::{digest, hmac, pbkdf2};
use std::num::NonZeroU32;
use zeroize::Zeroizing;

/// More iterations than this a server of ours never asks for; a hostile one could keep us busy.
const ITERATIONS_BOUND: u32 = 1_000_000;

/// One exchange.
pub struct Client {
    password: Secret,
    nonce: String,
    bare: String,
    signature: Vec<u8>,
}

/// A fresh nonce.
pub fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// The salted password.
pub fn salted(password: &str, salt: &[u8], iterations: NonZeroU32) -> Zeroizing<[u8; 32]> {
    let mut salted = Zeroizing::new([0_u8; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut *salted);
    salted
}

/// HMAC-SHA-256.
pub fn sign(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref());
    out
}

/// The key that a server stores: the digest of the client's key.
pub fn stored_key(salted: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, &sign(salted, b"Client Key")).as_ref());
    out
}

impl Client {
    /// Begins for an account.
    pub fn new(account: &str, password: &Secret, nonce: &str) -> Result<Self, String> {
        if !password.expose().bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err("the canary's password is not plain ASCII".into());
        }
        let name = account.replace('=', "=3D").replace(',', "=2C");
        Ok(Self {
            password: password.clone(),
            nonce: nonce.to_owned(),
            bare: format!("n={name},r={nonce}"),
            signature: Vec::new(),
        })
    }

    /// The first message, base64.
    pub fn first(&self) -> String {
        STANDARD.encode(format!("n,,{}", self.bare))
    }

    /// Answers the server's first message.
    pub fn answer(&mut self, challenge: &str) -> Result<String, String> {
        let broken = || "the server's SCRAM challenge is malformed".to_owned();
        let challenge =
            STANDARD.decode(challenge.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let challenge = challenge.ok_or_else(broken)?;
        let field =
            |name: &str| challenge.split(',').find_map(|part| part.strip_prefix(name)).ok_or_else(broken);
        let nonce = field("r=")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server's SCRAM nonce does not continue ours".into());
        }
        let salt = STANDARD.decode(field("s=")?).map_err(|_| broken())?;
        let iterations: u32 = field("i=")?.parse().map_err(|_| broken())?;
        let iterations =
            NonZeroU32::new(iterations).filter(|count| count.get() <= ITERATIONS_BOUND).ok_or_else(broken)?;
        let salted = salted(self.password.expose(), &salt, iterations);
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{challenge},{without_proof}", self.bare);
        let mut proof = sign(&*salted, b"Client Key");
        for (byte, mask) in proof.iter_mut().zip(sign(&stored_key(&*salted), signed.as_bytes())) {
            *byte ^= mask;
        }
        self.signature = sign(&sign(&*salted, b"Server Key"), signed.as_bytes()).to_vec();
        Ok(STANDARD.encode(format!("{without_proof},p={}", STANDARD.encode(proof))))
    }

    /// Checks the server's proof.
    pub fn verify(&self, success: &str) -> Result<(), String> {
        let text = STANDARD.decode(success.trim()).unwrap_or_default();
        let proof = text.strip_prefix(b"v=").and_then(|rest| STANDARD.decode(rest).ok());
        if !self.signature.is_empty() && proof.as_deref() == Some(self.signature.as_slice()) {
            return Ok(());
        }
        Err("the server could not prove that it knows the password".into())
    }
}

#[cfg(test)]
mod tests {
    use super::Client;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use maxim_model::Secret;

    // The example exchange of RFC 7677, section 3.
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const CHALLENGE: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    #[test]
    fn the_example_of_the_rfc() {
        let mut client = Client::new("user", &Secret::new("pencil"), NONCE).unwrap();
        assert_eq!(STANDARD.decode(client.first()).unwrap(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let answer = client.answer(&STANDARD.encode(CHALLENGE)).unwrap();
        let answer = String::from_utf8(STANDARD.decode(answer).unwrap()).unwrap();
        assert!(answer.ends_with("p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="), "{answer}");
        client.verify(&STANDARD.encode("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")).unwrap();
        assert!(client.verify(&STANDARD.encode("v=AAAA")).is_err());
    }

    #[test]
    fn a_strange_server_is_refused() {
        for challenge in [
            "r=other,s=AAAA,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO,s=AAAA,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=0",
            "r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=99999999",
            "x",
        ] {
            let mut client = Client::new("user", &Secret::new("pencil"), NONCE).unwrap();
            assert!(client.answer(&STANDARD.encode(challenge)).is_err(), "{challenge}");
            assert!(client.verify("").is_err());
        }
        assert!(Client::new("user", &Secret::new("pässword"), NONCE).is_err());
    }
}
