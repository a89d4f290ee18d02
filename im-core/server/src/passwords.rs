//! Derivation of keys from passwords, off the reactor and never more at once than there is room for.
//!
//! PBKDF2 costs milliseconds of pure computation. Without a bound, a storm of sign-ins by PLAIN or of
//! registrations would take every processor from those who are signed in already.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use im_proto::scram::{self, Hash};
use im_store::{Credentials, ScramKeys};
use ring::rand::SecureRandom as _;
use tokio::sync::Semaphore;

use crate::config::LimitSection;

/// Too many passwords are being derived at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked at the moment")]
pub struct Busy;

/// Workers for passwords.
#[derive(Debug)]
pub struct Passwords {
    workers: Semaphore,
    waiting: AtomicU64,
    queue: u64,
    iterations: NonZeroU32,
}

/// Random bytes from the system.
pub fn random_bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("the system has a random number generator");
    bytes
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

impl Passwords {
    /// Workers as the limits say.
    pub fn new(limits: &LimitSection) -> Self {
        let workers = match limits.password_workers as usize {
            0 => std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).max(1)),
            n => n,
        };
        Self {
            workers: Semaphore::new(workers),
            waiting: AtomicU64::new(0),
            queue: limits.password_queue,
            iterations: NonZeroU32::new(limits.scram_iterations as u32).unwrap_or(NonZeroU32::MIN),
        }
    }

    /// PBKDF2 rounds of new keys.
    pub fn iterations(&self) -> u32 {
        self.iterations.get()
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.queue {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Busy);
        }
        let permit = self.workers.acquire().await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let _permit = permit.map_err(|_| Busy)?;
        tokio::task::spawn_blocking(work).await.map_err(|_| Busy)
    }

    /// Keys for a new password, prepared here. `Ok(None)` when the password is not acceptable.
    ///
    /// # Errors
    /// [`Busy`] when too many wait.
    pub async fn derive(&self, password: &str) -> Result<Option<Credentials>, Busy> {
        let Some(password) = scram::prepare_password(password) else { return Ok(None) };
        let iterations = self.iterations;
        self.run(move || {
            let keys = |hash| to_store(scram::derive(hash, &password, &random_bytes(16), iterations));
            Some(Credentials { sha1: keys(Hash::Sha1), sha256: keys(Hash::Sha256) })
        })
        .await
    }

    /// Whether a password fits.
    ///
    /// # Errors
    /// [`Busy`] when too many wait.
    pub async fn check(&self, password: &str, keys: scram::Keys) -> Result<bool, Busy> {
        // What cannot be prepared fits nothing, but takes as long to find out.
        let password = scram::prepare_password(password).unwrap_or_default();
        self.run(move || scram::check_password(Hash::Sha256, &password, &keys)).await
    }
}

/// Keys as the store keeps them.
fn to_store(keys: scram::Keys) -> ScramKeys {
    ScramKeys {
        salt: keys.salt,
        iterations: keys.iterations,
        stored_key: keys.stored_key,
        server_key: keys.server_key,
    }
}

/// Keys as the exchange needs them.
pub fn from_store(keys: &ScramKeys) -> scram::Keys {
    scram::Keys {
        salt: keys.salt.clone(),
        iterations: keys.iterations,
        stored_key: keys.stored_key.clone(),
        server_key: keys.server_key.clone(),
    }
}
