//! Disks: space on each file system for what will be put there, its kind, and how fast it syncs.

use super::{Check, Subject, bytes};
use maxim_model::check::{CheckResult, Verdict};
use maxim_model::facts::Disk;
use maxim_model::names::Role;
use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const INODES: u64 = 20_000;
/// File systems that a database should not lie on.
const POOR: [&str; 12] = [
    "overlay",
    "overlayfs",
    "tmpfs",
    "ramfs",
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "fuse.sshfs",
    "vfat",
    "exfat",
];

pub(super) fn checks(subject: &Subject<'_>) -> Vec<CheckResult> {
    let (topology, host, facts) = (subject.topology, subject.host, subject.facts);
    let paths = &topology.paths;
    let database = host.roles.iter().any(|role| matches!(role, Role::Mariadb | Role::Postgresql));
    let mut results = Vec::new();

    // Needs of paths on the same file system add up.
    let mut needs: BTreeMap<&str, (u64, Vec<&str>, &Disk)> = BTreeMap::new();
    for disk in &facts.disks {
        let need = if disk.path == paths.software {
            software(subject)
        } else if disk.path == paths.data {
            host.roles.iter().map(|role| data(*role)).sum()
        } else {
            16 * MIB
        };
        let entry = needs.entry(&disk.mount).or_insert((0, Vec::new(), disk));
        entry.0 += need;
        entry.1.push(&disk.path);
    }
    for (mount, (need, below, disk)) in &needs {
        results.push(
            Check::new("disk.space", &host.name, &format!("free space on {mount}"))
                .measured(bytes(disk.available))
                .threshold(format!("at least {} for {}", bytes(*need), below.join(", ")))
                .why("images are unpacked beside the old ones, and a database that cannot write stops")
                .fix(format!(
                    "free space on {mount}, mount a larger file system there, or set `paths` in the topology"
                ))
                .unless(disk.available >= *need, Verdict::Block),
        );
        results.push(
            Check::new("disk.inodes", &host.name, &format!("free inodes on {mount}"))
                .measured(if disk.inodes_available == u64::MAX {
                    "not counted".into()
                } else {
                    disk.inodes_available.to_string()
                })
                .threshold(format!("at least {INODES}"))
                .why("an image has thousands of files")
                .fix("remove small files, or use a file system with more inodes")
                .unless(disk.inodes_available >= INODES, Verdict::Block),
        );
        let used = 100 - disk.available.saturating_mul(100).checked_div(disk.total).unwrap_or(100);
        results.push(
            Check::new("disk.used", &host.name, &format!("use of {mount}"))
                .measured(format!("{used} %"))
                .threshold("at most 85 %")
                .why("messages and files grow; a full disk stops the service")
                .fix("free space or add some before people use it")
                .unless(used <= 85, Verdict::Warn),
        );
    }
    for disk in &facts.disks {
        if disk.read_only || disk.symlink || (disk.noexec && disk.path == paths.software) {
            let what = match (disk.read_only, disk.symlink) {
                (true, _) => "is mounted read-only",
                (_, true) => "is a symbolic link",
                _ => "is mounted noexec",
            };
            results.push(
                Check::new("disk.usable", &host.name, &format!("{} can be used", disk.path))
                    .measured(format!("{} {what}", if disk.symlink { &disk.path } else { &disk.mount }))
                    .threshold("a folder that can be written, and run from")
                    .why("programs run from there, and what lies behind a link may be anything")
                    .fix(
                        "remount it, replace the link by a folder or a mount, or set `paths` in the topology",
                    )
                    .verdict(Verdict::Block),
            );
        }
        if disk.path == paths.data && database {
            results.push(
                Check::new("disk.kind", &host.name, "file system under the data")
                    .measured(&disk.file_system)
                    .threshold("ext4, xfs, btrfs or zfs")
                    .why("a database on it is slow, or loses what it was told is safe")
                    .fix(format!("mount a local ext4 or xfs file system on {}", disk.path))
                    .unless(!POOR.contains(&disk.file_system.as_str()), Verdict::Warn),
            );
            let wanted = 2 * GIB + u64::from(topology.capacity.users) * 2 * MIB;
            results.push(
                Check::new("disk.capacity", &host.name, "space for messages")
                    .measured(bytes(disk.available))
                    .threshold(format!("{} for {} users", bytes(wanted), topology.capacity.users))
                    .why("about 2 MiB for each user in a year of ordinary use")
                    .fix("plan for more space, or lower `capacity` in the topology")
                    .unless(disk.available >= wanted, Verdict::Warn),
            );
        }
    }
    if let Some(probe) = &facts.disk_probe {
        let millis = probe.p99_micros as f64 / 1000.0;
        // The slowest ones are those of whatever else the machine does just now: they warn. What stops an install is a
        // disk that is always slow.
        let verdict = match (probe.p50_micros, probe.p99_micros) {
            (100_000.., _) => Verdict::Block,
            (_, 10_000..) => Verdict::Warn,
            _ => Verdict::Pass,
        };
        results.push(
            Check::new("disk.sync", &host.name, "synced small writes")
                .measured(format!(
                    "p99 {millis:.1} ms, median {:.1} ms over {} writes",
                    probe.p50_micros as f64 / 1000.0,
                    probe.writes
                ))
                .threshold("p99 below 10 ms (a median of 100 ms blocks)")
                .why("every message is synced before it is acknowledged; this is what it waits for")
                .fix("use a local SSD for the data, and look for other load on this disk")
                .verdict(verdict),
        );
    }
    results
}

/// Images and programs of the host's roles that are not there yet, and once more for an upgrade beside them.
fn software(subject: &Subject<'_>) -> u64 {
    let mut needed = 64 * MIB;
    for role in &subject.host.roles {
        let names: &[&str] = match role {
            Role::Im => &["maxim-im", "web"],
            Role::Console => &["maxim-console", "maxim-ctl"],
            other => &[other.name()],
        };
        for name in names {
            if let Some(artefact) = subject.artefacts.get(*name).filter(|artefact| !artefact.in_place) {
                let there = subject.facts.artefacts.contains(&artefact.artefact);
                needed += artefact.unpacked_size * if there { 1 } else { 2 };
            }
        }
    }
    needed
}

/// What a role writes when it starts for the first time.
const fn data(role: Role) -> u64 {
    match role {
        Role::Mariadb => 512 * MIB,
        Role::Postgresql => 384 * MIB,
        Role::Redis => 64 * MIB,
        Role::Im | Role::Console => 32 * MIB,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Subject;
    use super::checks;
    use crate::sample;
    use maxim_model::check::Verdict;
    use maxim_model::facts::{DiskProbe, Facts};
    use std::collections::BTreeMap;

    fn found(change: impl Fn(&mut Facts)) -> Vec<(String, Verdict)> {
        let topology = sample::three_hosts();
        let mut facts = sample::sound_facts(&topology, 4 << 30);
        change(&mut facts);
        let artefacts = BTreeMap::new();
        checks(&Subject {
            topology: &topology,
            host: &topology.hosts[1],
            facts: &facts,
            artefacts: &artefacts,
        })
        .into_iter()
        .filter(|result| result.verdict != Verdict::Pass)
        .map(|result| (result.id, result.verdict))
        .collect()
    }

    fn only(id: &str, verdict: Verdict) -> Vec<(String, Verdict)> {
        vec![(id.to_owned(), verdict)]
    }

    #[test]
    fn every_fault_of_a_disk_has_its_name() {
        assert!(found(|_| {}).is_empty());
        let full = found(|facts| facts.disks.iter_mut().for_each(|disk| disk.available = 300 << 20));
        assert!(full.contains(&("disk.space".into(), Verdict::Block)), "{full:?}");
        assert_eq!(found(|facts| facts.disks[0].noexec = true), only("disk.usable", Verdict::Block));
        assert!(
            found(|facts| facts.disks[1].noexec = true).is_empty(),
            "nothing runs from the configuration"
        );
        assert_eq!(found(|facts| facts.disks[2].symlink = true), only("disk.usable", Verdict::Block));
        assert_eq!(found(|facts| facts.disks[2].read_only = true), only("disk.usable", Verdict::Block));
        assert_eq!(
            found(|facts| facts.disks[2].file_system = "nfs4".into()),
            only("disk.kind", Verdict::Warn)
        );
        assert_eq!(
            found(|facts| facts.disks.iter_mut().for_each(|disk| disk.inodes_available = 9)),
            only("disk.inodes", Verdict::Block)
        );
        let probe = |p99_micros| {
            let p50_micros = if p99_micros < 200_000 { 100 } else { 100_000 };
            Some(DiskProbe { path: "/x".into(), writes: 1000, p50_micros, p99_micros })
        };
        assert!(found(|facts| facts.disk_probe = probe(9_999)).is_empty());
        assert_eq!(found(|facts| facts.disk_probe = probe(10_000)), only("disk.sync", Verdict::Warn));
        assert_eq!(found(|facts| facts.disk_probe = probe(199_999)), only("disk.sync", Verdict::Warn));
        assert_eq!(found(|facts| facts.disk_probe = probe(200_000)), only("disk.sync", Verdict::Block));
    }

    #[test]
    fn paths_on_one_file_system_add_up() {
        // Software and data together need more than either alone.
        let tight = found(|facts| {
            facts.disks.iter_mut().for_each(|disk| {
                disk.available = 560 << 20;
                disk.mount = "/".into();
            });
        });
        assert!(
            tight.iter().any(|(id, verdict)| id == "disk.space" && *verdict == Verdict::Block),
            "{tight:?}"
        );
    }
}
