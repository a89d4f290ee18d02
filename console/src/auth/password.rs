//! Password hashes: PBKDF2-HMAC-SHA256 with a random salt, as `pbkdf2-sha256$ITERATIONS$SALT$HASH` (base64).
//!
//! A hash takes a good part of a second by intent, so it never runs on the reactor, and only [`AT_ONCE`] run at the
//! same time: a flood of sign-ins waits, then is turned away, and the pages of those who are in stay quick.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use maxim_model::Secret;
use ring::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Iterations of new hashes. The OWASP password storage cheat sheet asks for at least 600,000.
pub const ITERATIONS: u32 = 600_000;
/// Fewest iterations accepted in a hash made elsewhere.
const FEWEST: u32 = 600_000;
/// Most iterations accepted: more would let one sign-in hold a processor for too long.
const MOST: u32 = 10_000_000;
/// Shortest password, characters.
pub const SHORTEST: usize = 12;
/// Longest password, bytes.
pub const LONGEST: usize = 1024;
/// Hashes computed at the same time.
const AT_ONCE: usize = 2;
/// How long an attempt waits for its turn.
const TURN: Duration = Duration::from_secs(10);
/// What a stored hash begins with.
const SCHEME: &str = "pbkdf2-sha256";

/// Why a password cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    /// Fewer than [`SHORTEST`] characters.
    Short,
    /// More than [`LONGEST`] bytes.
    Long,
    /// It holds the account's name or hardly any different characters.
    Guessable,
}

/// Why a hash was not computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Too many at once.
    #[error("too many sign-ins at once")]
    Busy,
    /// The system's random source failed, or the worker was stopped.
    #[error("the password could not be hashed")]
    Failed,
}

/// Judges a new password.
pub fn weakness(password: &str, account: &str) -> Option<Weakness> {
    if password.chars().count() < SHORTEST {
        return Some(Weakness::Short);
    }
    if password.len() > LONGEST {
        return Some(Weakness::Long);
    }
    let mut distinct: Vec<char> = password.chars().collect();
    distinct.sort_unstable();
    distinct.dedup();
    let without_name = password.to_lowercase().replace(&account.to_lowercase(), "");
    if distinct.len() < 5 || without_name.chars().count() < SHORTEST / 2 {
        return Some(Weakness::Guessable);
    }
    None
}

/// Hashes a password with a new salt. Blocking.
pub fn hash(password: &Secret) -> Result<String, HashError> {
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).map_err(|_| HashError::Failed)?;
    let iterations = NonZeroU32::new(ITERATIONS).ok_or(HashError::Failed)?;
    let mut output = [0; 32];
    pbkdf2::derive(PBKDF2_HMAC_SHA256, iterations, &salt, password.expose().as_bytes(), &mut output);
    Ok(format!("{SCHEME}${ITERATIONS}${}${}", BASE64.encode(salt), BASE64.encode(output)))
}

/// A stored hash taken apart.
struct Parsed {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    output: Vec<u8>,
}

fn parse(stored: &str) -> Option<Parsed> {
    let mut parts = stored.split('$');
    let (SCHEME, iterations, salt, output, None) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next())
    else {
        return None;
    };
    let iterations = iterations.parse().ok().filter(|count| (FEWEST..=MOST).contains(count))?;
    let salt = BASE64.decode(salt).ok().filter(|salt| salt.len() >= 16)?;
    let output = BASE64.decode(output).ok().filter(|output| output.len() == 32)?;
    Some(Parsed { iterations: NonZeroU32::new(iterations)?, salt, output })
}

/// Whether a text is a hash that [`verify`] understands.
pub fn is_hash(text: &str) -> bool {
    parse(text).is_some()
}

/// Compares in constant time. Without a stored hash the same work is done and the answer is no, so that the time
/// taken does not tell which names exist. Blocking.
pub fn verify(stored: Option<&str>, password: &Secret) -> bool {
    let found = stored.and_then(parse);
    let real = found.is_some();
    let parsed = found.unwrap_or_else(|| Parsed {
        iterations: NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN),
        salt: vec![0; 16],
        output: vec![0; 32],
    });
    let equal = pbkdf2::verify(
        PBKDF2_HMAC_SHA256,
        parsed.iterations,
        &parsed.salt,
        password.expose().as_bytes(),
        &parsed.output,
    )
    .is_ok();
    equal && real
}

/// Computes hashes off the reactor, a few at a time.
#[derive(Clone)]
pub struct Hasher(Arc<Semaphore>);

impl Default for Hasher {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Hasher {
    /// See [`verify`].
    pub async fn verify(&self, stored: Option<String>, password: Secret) -> Result<bool, HashError> {
        self.work(move || verify(stored.as_deref(), &password)).await
    }

    /// See [`hash`].
    pub async fn hash(&self, password: Secret) -> Result<String, HashError> {
        self.work(move || hash(&password)).await?
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.0).acquire_owned())
            .await
            .map_err(|_| HashError::Busy)?
            .map_err(|_| HashError::Failed)?;
        tokio::task::spawn_blocking(move || {
            // The turn is kept by the work itself: a visitor who goes away does not free it early.
            let _turn = turn;
            work()
        })
        .await
        .map_err(|_| HashError::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::{ITERATIONS, Weakness, hash, is_hash, verify, weakness};
    use maxim_model::Secret;

    #[test]
    fn verifies_what_it_hashed_and_nothing_else() {
        let password = Secret::new("correct horse battery");
        let stored = hash(&password).unwrap();
        assert!(is_hash(&stored));
        assert!(verify(Some(&stored), &password));
        assert!(!verify(Some(&stored), &Secret::new("correct horse batterz")));
        assert_ne!(stored, hash(&password).unwrap(), "the salt is random");
        assert!(stored.contains(&ITERATIONS.to_string()) && !stored.contains("horse"));
    }

    #[test]
    fn agrees_with_an_independent_implementation() {
        // python3 -c "import hashlib,base64; s=bytes(range(16));
        //   print(base64.b64encode(hashlib.pbkdf2_hmac('sha256',b'correct horse battery',s,600000)))"
        let stored =
            "pbkdf2-sha256$600000$AAECAwQFBgcICQoLDA0ODw$uwbIwLHdW/1OQPTil6LQ5k2n75S0uOwgmJAhyLQVNq0";
        assert!(verify(Some(stored), &Secret::new("correct horse battery")));
    }

    #[test]
    fn refuses_hashes_that_are_weak_or_broken() {
        let good = "pbkdf2-sha256$600000$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert!(is_hash(good));
        for bad in [
            "",
            "plain text",
            &good.replace("600000", "1000"),
            &good.replace("600000", "4294967295"),
            &good.replace("pbkdf2-sha256", "md5"),
            &good.replace("$AAAAAAAAAAAAAAAAAAAAAA$", "$AAAA$"),
            &format!("{good}$more"),
        ] {
            assert!(!is_hash(bad), "{bad}");
        }
        // Same work, answer no: even for the password whose hash an unknown account is compared with.
        assert!(!verify(Some(""), &Secret::new("")));
    }

    #[test]
    fn judges_new_passwords() {
        assert_eq!(weakness("short", "admin"), Some(Weakness::Short));
        assert_eq!(weakness("elevenchars", "admin"), Some(Weakness::Short));
        assert_eq!(weakness(&"ab12%".repeat(300), "admin"), Some(Weakness::Long));
        assert_eq!(weakness("aaaaaaaaaaaaaaaa", "admin"), Some(Weakness::Guessable));
        assert_eq!(weakness("Admin-Admin-admin", "admin"), Some(Weakness::Guessable));
        assert_eq!(weakness("plum kettle orbit", "admin"), None);
        assert_eq!(weakness("九龙壁下听雨声来了又去", "admin"), Some(Weakness::Short));
    }
}
