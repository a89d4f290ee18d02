//! Who is at work on a repository from this host: agents, and each restic that they have started. A run that is killed
//! leaves its restic behind for a while, until its agent has ended that or killed it; as long as it lives, nobody can take
//! its lock of the repository away. Whoever comes next waits for that.
//!
//! A lock on a file (flock(2)) tells: everybody shares it, and restic has the file as its standard input, so that it is held
//! for as long as one of them is there, whatever became of the agent.

use crate::error::{Failure, Result};
use crate::lock::{flock_within, is_taken};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Its name in the folder where restic works.
const NAME: &str = "at-work";
/// An agent whose engine is gone waits for its restic, asks it to end, and kills it, within this mostly: one that reads from
/// a database that says nothing for a while takes longer.
const PATIENCE: Duration = Duration::from_secs(40);
/// Longest wait for another who has it alone, which lasts from one system call to the next: who is stopped just there does
/// not stop all others.
const MOMENT: Duration = Duration::from_secs(5);

/// One that is at work, until it is dropped and each child that it was shared with has ended.
pub struct AtWork {
    path: PathBuf,
    file: File,
}

impl AtWork {
    /// Joins those who are.
    pub fn join(work: &Path) -> Result<Self> {
        let path = work.join(NAME);
        let open =
            File::options().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
        let file = open.map_err(Failure::file("open", &path))?;
        let joined = Self { path, file };
        joined.share()?;
        Ok(joined)
    }

    fn share(&self) -> Result<()> {
        let attempt = || is_taken(&self.path, self.file.try_lock_shared());
        flock_within(&self.path, MOMENT, || Ok(attempt()?.then_some(())))
    }

    /// Standard input of a child that is at work too: an empty file.
    pub fn shared(&self) -> Result<Stdio> {
        self.file.try_clone().map(Stdio::from).map_err(Failure::file("open", &self.path))
    }

    /// Waits until nobody else is: false when somebody is still after 40 seconds, or when `watch` says no. Who waits is not
    /// at work: two that do so do not wait for each other. To be called while no child is there that this was shared with.
    pub fn alone(&self, watch: impl Fn() -> bool) -> bool {
        let until = Instant::now() + PATIENCE;
        let alone = loop {
            if self.file.try_lock().is_ok() {
                break true;
            }
            if Instant::now() > until || !watch() {
                break false;
            }
            // A failed attempt to have it alone gave up the share already, on Linux; this says so.
            let _ = self.file.unlock();
            std::thread::sleep(Duration::from_millis(50));
        };
        // Who cannot even join is not alone.
        self.share().is_ok() && alone
    }
}

#[cfg(test)]
mod tests {
    use super::AtWork;
    use std::process::Command;

    #[test]
    fn who_has_it_alone_and_is_stopped_there_is_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let stopped = std::fs::File::create(folder.path().join(super::NAME)).unwrap();
        stopped.lock().unwrap();
        let refused = AtWork::join(folder.path()).err().expect("it is held").to_string();
        assert!(refused.contains("at-work"), "{refused}");
        drop(stopped);
        AtWork::join(folder.path()).unwrap();
    }

    #[test]
    fn what_a_killed_run_left_behind_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let killed = AtWork::join(folder.path()).unwrap();
        assert!(killed.alone(|| false));
        let mut left = Command::new("sleep").arg("60").stdin(killed.shared().unwrap()).spawn().unwrap();
        drop(killed);
        let next = AtWork::join(folder.path()).unwrap();
        assert!(!next.alone(|| false), "its child lives");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| next.alone(|| true));
            left.kill().unwrap();
            left.wait().unwrap();
            assert!(waits.join().unwrap());
        });
        let other = AtWork::join(folder.path()).unwrap();
        assert!(!next.alone(|| false) && !other.alone(|| false), "both are there");
        drop(other);
        // Another thread may start a child just now, which has everything open for a moment.
        assert!(next.alone(|| true));
    }
}
