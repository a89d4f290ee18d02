//! What `/proc` says about processes: start time, memory, control group, executable, the image it runs in.

use crate::files::read_text;
use std::fs;
use std::path::{Path, PathBuf};

/// When a process was started, in clock ticks since boot; with its id it names a process for good. `None`: no such
/// process, or one that has ended and waits to be reaped.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = read_text(format!("/proc/{pid}/stat"));
    // The name in parentheses may hold anything, parentheses included: fields are counted from the last one.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    // Field 3 is the state; the start time is field 22, the 19th after the state.
    let started = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(started)
}

/// Resident memory, bytes; 0 when it cannot be read.
pub fn resident(pid: u32) -> u64 {
    read_text(format!("/proc/{pid}/status"))
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map_or(0, |kilobytes| kilobytes * 1024)
}

/// Short name of a process.
pub fn name(pid: u32) -> String {
    read_text(format!("/proc/{pid}/comm"))
}

/// The executable, where we may see it.
pub fn executable(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// The systemd unit of a process by its control group, as `maxim-im.service`.
pub fn unit(pid: u32) -> Option<String> {
    let groups = read_text(format!("/proc/{pid}/cgroup"));
    groups.lines().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        path.split('/').rev().find(|part| part.ends_with(".service")).map(str::to_owned)
    })
}

/// Seconds since boot.
pub fn uptime() -> f64 {
    read_text("/proc/uptime").split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// The artefact a process runs from: the folder below `images` that is its root, or the folder below `bin` that
/// holds its executable.
pub fn artefact(pid: u32) -> String {
    artefact_of_root(&read_text(format!("/proc/{pid}/mountinfo")))
        .or_else(|| component_after(&executable(pid)?, "bin").filter(|name| name.contains('-')))
        .unwrap_or_default()
}

/// From the mount table of a process: what is mounted as its `/`.
fn artefact_of_root(mounts: &str) -> Option<String> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (source, target) = (fields.next()?, fields.next()?);
        (target == "/").then(|| component_after(Path::new(source), "images")).flatten()
    })
}

/// The path component that follows a folder name, if anything is below it.
fn component_after(path: &Path, folder: &str) -> Option<String> {
    let mut parts = path.iter().map(|part| part.to_string_lossy());
    parts.find(|part| part == folder)?;
    parts.next().map(|part| part.into_owned())
}

#[cfg(test)]
mod tests {
    use super::{artefact_of_root, component_after, resident, start_time};
    use std::path::Path;

    #[test]
    fn this_process_is_known_and_a_reaped_one_is_not() {
        assert!(start_time(std::process::id()).is_some());
        assert!(resident(std::process::id()) > 0);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(start_time(pid), None);
    }

    #[test]
    fn image_and_binary_are_found_in_paths() {
        let mounts = "612 611 0:52 /opt/maxim/images/mariadb-11.8.6-0f3a / rw,relatime shared:1 - overlay overlay rw\n\
                      613 612 0:5 / /proc rw - proc proc rw";
        assert_eq!(artefact_of_root(mounts).as_deref(), Some("mariadb-11.8.6-0f3a"));
        assert_eq!(artefact_of_root("1 0 0:1 / / rw - overlay overlay rw"), None);
        assert_eq!(
            component_after(Path::new("/opt/maxim/bin/maxim-im-0.1.0-0f3a/maxim-im"), "bin").as_deref(),
            Some("maxim-im-0.1.0-0f3a")
        );
    }
}
