//! What a server stores of a password, computed here, so that the password itself never reaches the server.

use crate::scram;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use std::num::NonZeroU32;

/// Iterations of a new SCRAM verifier; the server's own default.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("is not zero");

/// A fresh verifier for `PostgreSQL`.
pub fn new_scram(password: &str) -> String {
    let salt: [u8; 16] = rand::random();
    scram_verifier(password, &salt, ITERATIONS)
}

/// `mysql_native_password`: `*` and the double SHA-1 in upper-case hex.
pub fn native_password(password: &str) -> String {
    let once = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let twice = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, once.as_ref());
    format!("*{}", hex::encode_upper(twice.as_ref()))
}

/// A verifier as `PostgreSQL` stores it: `SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER`.
fn scram_verifier(password: &str, salt: &[u8], iterations: NonZeroU32) -> String {
    let salted = scram::salted(password, salt, iterations);
    let stored = STANDARD.encode(scram::stored_key(&*salted));
    let server = STANDARD.encode(scram::sign(&*salted, b"Server Key"));
    format!("SCRAM-SHA-256${iterations}:{}${stored}:{server}", STANDARD.encode(salt))
}

/// Whether a stored verifier belongs to a password.
pub fn verifies(verifier: &str, password: &str) -> bool {
    let parts = verifier.strip_prefix("SCRAM-SHA-256$").and_then(|rest| rest.split_once(':'));
    let Some((iterations, rest)) = parts else { return false };
    let Some((salt, _)) = rest.split_once('$') else { return false };
    let (Ok(iterations), Ok(salt)) = (iterations.parse::<u32>(), STANDARD.decode(salt)) else { return false };
    NonZeroU32::new(iterations)
        .filter(|count| count.get() <= 1_000_000)
        .is_some_and(|iterations| scram_verifier(password, &salt, iterations) == verifier)
}

#[cfg(test)]
mod tests {
    use super::{native_password, new_scram, scram_verifier, verifies};
    use std::num::NonZeroU32;

    #[test]
    fn verifiers_are_those_of_the_servers() {
        // SELECT PASSWORD('mypass') as MySQL's manual shows it.
        assert_eq!(native_password("mypass"), "*6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4");
        let verifier = scram_verifier("pencil", &[1; 16], NonZeroU32::new(4096).unwrap());
        assert!(verifier.starts_with("SCRAM-SHA-256$4096:AQEBAQEBAQEBAQEBAQEBAQ==$"));
        assert!(verifies(&verifier, "pencil") && !verifies(&verifier, "pencils"));
        assert!(verifies(&new_scram("pencil"), "pencil") && new_scram("a") != new_scram("a"));
        for broken in ["", "md5abc", "SCRAM-SHA-256$0:AA==$x:y", "SCRAM-SHA-256$x"] {
            assert!(!verifies(broken, "pencil"), "{broken}");
        }
    }
}
