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

/// A place in the queue, given back however the wait ends: a connection that is cut off drops its wait.
struct Place<'a>(&'a AtomicU64);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
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

    /// Enters the queue; `Err` when it is full.
    fn enter(&self) -> Result<Place<'_>, Busy> {
        let place = Place(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.queue { Ok(place) } else { Err(Busy) }
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let place = self.enter()?;
        let _permit = self.workers.acquire().await.map_err(|_| Busy)?;
        drop(place);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_the_queue() {
        let limits = LimitSection {
            password_workers: 1,
            password_queue: 2,
            scram_iterations: 1,
            ..LimitSection::default()
        };
        let passwords = Passwords::new(&limits);
        let busy = passwords.workers.acquire().await.unwrap();
        for _ in 0..3 {
            let mut waits = [Box::pin(passwords.derive("a")), Box::pin(passwords.derive("b"))];
            for wait in &mut waits {
                assert!(poll_once(wait.as_mut()).is_pending());
            }
            // The queue is full while they wait, and only then.
            assert_eq!(passwords.derive("c").await.unwrap_err(), Busy);
        }
        drop(busy);
        assert!(passwords.derive("d").await.unwrap().is_some());
    }

    fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }
}
