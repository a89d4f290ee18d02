//! The lock of a host: one run at a time may change it.
//!
//! A JSON file says who holds it and until when; every look and change happens under an exclusive `flock` of a file
//! beside it, so that two agents never decide at once. A thread renews the lease every third of it while this agent
//! lives; a lease that ran out is free. Released when asked and when the agent ends.

use crate::error::{Failure, Result};
use crate::files::{Ownership, make_parents, read_bounded, write_atomic};
use maxim_model::wire::LockHolder;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest wait for another agent that looks at the same moment.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    #[serde(flatten)]
    holder: LockHolder,
    /// Random; tells this agent's hold from a later one of the same owner.
    token: String,
}

/// A lock that this process holds.
pub struct Lease {
    path: PathBuf,
    token: String,
    stop: Sender<()>,
    renewal: Option<JoinHandle<()>>,
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Tries to take a lock on a file that others have for a moment only, until it is there or `patience` is at its end.
///
/// # Errors
/// [`Failure::Deadline`] when it was not; the attempt's own, at once.
pub fn flock_within<T>(
    path: &Path,
    patience: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(taken) = attempt()? {
            return Ok(taken);
        }
        if Instant::now() >= end {
            return Err(Failure::Deadline {
                what: format!("the lock on {}, which another agent has", path.display()),
                seconds: patience.as_secs(),
                last: String::new(),
            });
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// What an attempt at a lock came to: false while somebody else has it.
///
/// # Errors
/// [`Failure::File`] for a file system without locks.
pub fn is_taken(path: &Path, attempt: std::result::Result<(), TryLockError>) -> Result<bool> {
    match attempt {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(Failure::file("lock", path)(source)),
    }
}

/// Runs something while no other agent looks at the lock.
fn guarded<T>(path: &Path, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let guard_path = PathBuf::from(format!("{}.guard", path.display()));
    make_parents(path)?;
    let _guard = flock_within(&guard_path, PATIENCE, || {
        let guard: File = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&guard_path)
            .map_err(Failure::file("open", &guard_path))?;
        // A releasing agent removes the guard's file: what was locked must still be what has the name.
        let taken = is_taken(&guard_path, guard.try_lock())? && is_same(&guard, &guard_path);
        Ok(taken.then_some(guard))
    })?;
    run()
}

fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn read(path: &Path) -> Result<Option<Held>> {
    // A file that is not understood cannot be a lock of ours that matters: ours are written whole.
    Ok(read_bounded(path, 64 << 10)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn write(path: &Path, held: &Held) -> Result<()> {
    let text = serde_json::to_vec(held).map_err(|error| Failure::Wire(error.to_string()))?;
    write_atomic(path, &text, Ownership::mode(0o644))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Who holds it, expired or not. Only reads: a read-only agent may ask.
pub fn holder(path: &Path) -> Result<Option<LockHolder>> {
    Ok(read(path)?.map(|held| held.holder))
}

/// Tries to take it. `Err` in the inner result is the holder that has it.
pub fn take(
    path: &Path,
    cluster: &str,
    owner: &str,
    seconds: u64,
) -> Result<std::result::Result<Lease, LockHolder>> {
    let seconds = seconds.clamp(1, 3600);
    let token = format!("{:032x}", rand::random::<u128>());
    let refused = guarded(path, || {
        if let Some(held) = read(path)?.filter(|held| held.holder.expires > now()) {
            return Ok(Some(held.holder));
        }
        let since = now();
        let holder = LockHolder {
            cluster: cluster.to_owned(),
            owner: owner.to_owned(),
            since,
            expires: since + seconds as i64,
        };
        write(path, &Held { holder, token: token.clone() })?;
        Ok(None)
    })?;
    if let Some(holder) = refused {
        return Ok(Err(holder));
    }
    let (stop, stopped) = mpsc::channel::<()>();
    let (renewed_path, renewed_token) = (path.to_path_buf(), token.clone());
    let pause = Duration::from_millis(seconds * 1000 / 3);
    let renewal = thread::Builder::new()
        .name("lease".into())
        .spawn(move || {
            while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) {
                // A failed renewal is tried again at the next turn; after three the lease is lost, and that is right.
                let _ = renew(&renewed_path, &renewed_token, seconds);
            }
        })
        .map_err(Failure::file("start a thread for", path))?;
    Ok(Ok(Lease { path: path.to_path_buf(), token, stop, renewal: Some(renewal) }))
}

fn renew(path: &Path, token: &str, seconds: u64) -> Result<()> {
    guarded(path, || match read(path)? {
        Some(mut held) if held.token == token => {
            held.holder.expires = now() + seconds as i64;
            write(path, &held)
        }
        _ => Ok(()),
    })
}

/// Removes an expired lock, or that of the named owner. Returns who held it and whether it is gone.
pub fn break_lock(path: &Path, owner: &str) -> Result<(Option<LockHolder>, bool)> {
    guarded(path, || {
        let Some(held) = read(path)? else { return Ok((None, true)) };
        let may = held.holder.expires <= now() || (!owner.is_empty() && held.holder.owner == owner);
        if may {
            remove(path)?;
        }
        Ok((Some(held.holder), may))
    })
}

impl Lease {
    /// Whether it is still ours: somebody may have broken it.
    pub fn is_held(&self) -> bool {
        read(&self.path).is_ok_and(|held| held.is_some_and(|held| held.token == self.token))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(renewal) = self.renewal.take() {
            let _ = renewal.join();
        }
        let _ = guarded(&self.path, || {
            if read(&self.path)?.is_some_and(|held| held.token == self.token) {
                remove(&self.path)?;
                // Leaves no trace; whoever waits on the guard sees that its file is gone and opens a new one.
                let _ = std::fs::remove_file(format!("{}.guard", self.path.display()));
            }
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Held, break_lock, holder, now, take, write};
    use maxim_model::wire::LockHolder;
    use std::time::{Duration, Instant};

    fn expired(path: &std::path::Path) {
        let holder = LockHolder { cluster: "old".into(), owner: "dead".into(), since: 1, expires: now() - 1 };
        write(path, &Held { holder, token: "t".into() }).unwrap();
    }

    #[test]
    fn one_holder_at_a_time_and_released_on_drop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock.json");
        let lease = take(&path, "acme", "anna", 30).unwrap().ok().unwrap();
        let refused = take(&path, "acme", "ben", 30).unwrap().err().unwrap();
        assert_eq!((refused.owner.as_str(), refused.cluster.as_str()), ("anna", "acme"));
        assert!(lease.is_held());
        drop(lease);
        assert_eq!(holder(&path).unwrap(), None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(take(&path, "acme", "ben", 30).unwrap().is_ok());
    }

    #[test]
    fn an_expired_lease_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock.json");
        expired(&path);
        assert!(take(&path, "acme", "ben", 30).unwrap().is_ok());
    }

    #[test]
    fn a_living_holder_renews() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock.json");
        let _lease = take(&path, "acme", "anna", 3).unwrap().ok().unwrap();
        let first = holder(&path).unwrap().unwrap().expires;
        let end = Instant::now() + Duration::from_secs(10);
        while holder(&path).unwrap().unwrap().expires <= first {
            assert!(Instant::now() < end, "the lease was not renewed");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn breaking_needs_expiry_or_the_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock.json");
        let lease = take(&path, "acme", "anna", 30).unwrap().ok().unwrap();
        assert!(!break_lock(&path, "").unwrap().1);
        assert!(!break_lock(&path, "ben").unwrap().1);
        let (who, gone) = break_lock(&path, "anna").unwrap();
        assert!(gone && who.unwrap().owner == "anna" && !lease.is_held());
        expired(&path);
        assert!(break_lock(&path, "").unwrap().1);
        assert_eq!(break_lock(&path, "").unwrap(), (None, true));
    }
}
