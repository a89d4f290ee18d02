//! Real bare hosts for tests: each has its own systemd, journal, sshd, disk and network address, and no way
//! out.
//!
//! Needs: root, and what `tests/setup hosts` installs.
//!
//! 1. [`base`] makes one base system for each Debian release, once, in the cache.
//! 2. [`Testbed::up`] claims a bridge and a private subnet, lays an overlay over the base for each host,
//!    boots all of them at once and waits until they answer.
//! 3. [`Host`] is a machine to work with: run something over SSH, pull its cable or its plug, boot it again,
//!    compare its disk before and after.
//! 4. Clean-up is one shell script (`clean.sh`) in a keeper process that waits for this process to end in
//!    whatever way, SIGKILL included. What even the keeper left (it was killed too) the next run reaps.
//!
//! It deliberately gives the hosts no default route: an install that passes here needs no internet, by
//! construction. It does not imitate kernels: modules, clock and `/proc/sys` outside `net` are the machine's, of which
//! it raises one number where it is low: how many inotify instances there may be.

pub mod base;
mod cgroup;
mod disk;
mod host;
mod network;
mod snapshot;
mod testbed;
pub mod watch;

pub use base::{Release, SUDO_PASSWORD, USER_SUDO_FREE, USER_SUDO_PASSWORD};
pub use host::{Host, Output};
pub use snapshot::{Change, Snapshot};
pub use testbed::{HostSpec, Testbed, clean, is_alive, reap, runs};

use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// `${XDG_CACHE_HOME:-~/.cache}/maxim`, shared by builds, base systems and test runs.
pub fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| home.join(".cache"))
        .join("maxim")
}

/// Polls `ready` every 10 ms until it gives a value; after `limit` an error says what was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = ready() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {limit:?} for {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a program to its end; an error carries its name, arguments and what it said.
fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("start {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
