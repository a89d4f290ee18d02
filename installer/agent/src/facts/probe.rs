//! How fast the disk takes synced small writes: what a database's log does all day.
//!
//! 2,300 bytes at a time into an unnamed file (`O_TMPFILE`), each synced, a thousand of them or one second. The file
//! has no name at any moment, so nothing can be left behind.

use maxim_model::facts::DiskProbe;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

const SIZE: usize = 2300;
const WRITES: usize = 1000;
const TIME: Duration = Duration::from_millis(950);

/// Probes the nearest existing folder; nothing where the file system has no unnamed files or we may not write.
pub fn probe(path: &Path) -> Option<DiskProbe> {
    let folder = path.ancestors().find(|ancestor| ancestor.is_dir())?;
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let mut file = File::from(open(folder, flags, Mode::from_bits_truncate(0o600)).ok()?);
    let block = [0x4d_u8; SIZE];
    let mut times = Vec::with_capacity(WRITES);
    let end = Instant::now() + TIME;
    while times.len() < WRITES && Instant::now() < end {
        let began = Instant::now();
        file.write_all(&block).ok()?;
        file.sync_data().ok()?;
        times.push(began.elapsed().as_micros() as u64);
    }
    times.sort_unstable();
    let rank =
        |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied();
    Some(DiskProbe {
        path: folder.display().to_string(),
        writes: times.len() as u32,
        p50_micros: rank(50)?,
        p99_micros: rank(99)?,
    })
}
