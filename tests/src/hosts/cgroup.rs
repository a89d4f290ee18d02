//! A control group for each test host.
//!
//! Without one, all hosts on this machine share one: their systemds then take each other's services for their
//! own, by name, and end processes of another host (seen as services that fail at random).
//!
//! Steps: find where this process stands in the hierarchies that systemd uses, and make a folder there; with a
//! memory limit, in the memory controller too. `clean.sh` removes them.

use super::run;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes the control groups of a host and gives their folders. What an earlier boot left in them goes first.
pub fn make(name: &str, memory_mib: Option<u64>) -> Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let places = fs::read_to_string("/proc/self/cgroup")?;
    let mut made = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split_whitespace().skip(1);
        let (Some(mounted), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let options: Vec<_> = options.split(',').collect();
        let controller = match kind {
            "cgroup2" => "",
            "cgroup" if options.contains(&"name=systemd") => "name=systemd",
            "cgroup" if options.contains(&"memory") && memory_mib.is_some() => "memory",
            _ => continue,
        };
        // Lines are `number:controllers:path`; version 2 has no controllers there.
        let Some(own) = places.lines().find_map(|place| {
            let (_, rest) = place.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|one| one == controller).then_some(path)
        }) else {
            continue;
        };
        let folder = format!("{mounted}{}/maxim-{name}", own.trim_end_matches('/'));
        remove(&folder)?;
        fs::create_dir(&folder).with_context(|| format!("make the control group {folder}"))?;
        if let Some(mebibytes) = memory_mib {
            let limit = if controller == "memory" { "memory.limit_in_bytes" } else { "memory.max" };
            // Version 2 has this file only where the controller was passed down; without it the host still
            // sees the small machine in /proc/meminfo.
            let limit = Path::new(&folder).join(limit);
            if limit.exists() {
                fs::write(&limit, (mebibytes * 1024 * 1024).to_string())
                    .with_context(|| format!("write {}", limit.display()))?;
            }
        }
        made.push(folder);
    }
    Ok(made)
}

fn remove(folder: &str) -> Result<()> {
    if Path::new(folder).exists() {
        run(Command::new("find").args([folder, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]))?;
    }
    Ok(())
}
