//! Kernel settings that the services want. The plan puts them right by a drop-in where the kernel lets it.

use super::{Check, Subject};
use crate::sizing;
use maxim_model::check::{CheckResult, Verdict};
use maxim_model::names::Role;

/// A setting, what it must be, and whom it matters to.
struct Wanted {
    name: &'static str,
    good: fn(u64) -> bool,
    threshold: &'static str,
    why: &'static str,
    value: &'static str,
    roles: &'static [Role],
}

const STORES: &[Role] = &[Role::Mariadb, Role::Postgresql, Role::Redis];

/// Files that a role keeps open beside its clients: tables, log, libraries, connections between the services.
const FILES_OF_ROLE: u64 = 16_384;
/// What everything else on a host keeps open.
const FILES_OF_SYSTEM: u64 = 16_384;

const SETTINGS: &[Wanted] = &[
    Wanted {
        name: "net.core.somaxconn",
        good: |value| value >= 32_768,
        threshold: "at least 32,768",
        why: "many clients that come back at once wait in this queue",
        value: "32768",
        roles: &[Role::Im, Role::Redis],
    },
    Wanted {
        name: "net.ipv4.tcp_max_syn_backlog",
        good: |value| value >= 16_384,
        threshold: "at least 16,384",
        why: "many clients that come back at once wait in this queue",
        value: "16384",
        roles: &[Role::Im],
    },
    Wanted {
        name: "net.ipv4.tcp_syncookies",
        good: |value| value == 1,
        threshold: "1",
        why: "without it a flood of half-open connections shuts everybody out",
        value: "1",
        roles: &[Role::Im],
    },
    Wanted {
        name: "vm.overcommit_memory",
        good: |value| value == 1,
        threshold: "1",
        why: "Redis forks to save; with strict accounting that fails when memory is half used",
        value: "1",
        roles: &[Role::Redis],
    },
    Wanted {
        name: "vm.swappiness",
        good: |value| value <= 10,
        threshold: "at most 10",
        why: "a store that is swapped out answers late",
        value: "10",
        roles: STORES,
    },
];

pub(super) fn checks(subject: &Subject<'_>) -> Vec<CheckResult> {
    if !subject.standard() {
        return Vec::new();
    }
    let (host, facts) = (subject.host, subject.facts);
    let concerns = |roles: &[Role]| roles.iter().any(|role| host.roles.contains(role));
    let mut results = Vec::new();
    for wanted in SETTINGS.iter().filter(|wanted| concerns(wanted.roles)) {
        // A setting that cannot be read does not exist in this kernel.
        let Some(value) = facts.sysctls.get(wanted.name) else { continue };
        let good = value.trim().parse().is_ok_and(wanted.good);
        results.push(
            Check::new(&format!("kernel.{}", wanted.name), &host.name, wanted.name)
                .measured(value.trim())
                .threshold(wanted.threshold)
                .why(wanted.why)
                .fix(if facts.sysctl_writable {
                    format!(
                        "the plan sets it by a drop-in in /etc/sysctl.d (by hand: sysctl -w {}={})",
                        wanted.name, wanted.value
                    )
                } else {
                    format!(
                        "set {}={} on the machine that this host runs on; it cannot be set from inside",
                        wanted.name, wanted.value
                    )
                })
                .fixed_by_plan(facts.sysctl_writable)
                .unless(good, Verdict::Warn),
        );
    }
    if concerns(STORES) && !facts.transparent_huge_pages.is_empty() {
        results.push(
            Check::new("kernel.huge_pages", &host.name, "transparent huge pages")
                .measured(&facts.transparent_huge_pages)
                .threshold("madvise or never")
                .why("with `always` the stores use more memory and stall while pages are put together")
                .fix("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, and the same at boot")
                .unless(facts.transparent_huge_pages != "always", Verdict::Warn),
        );
    }
    let sizes = sizing::sizing(subject.topology, host, facts);
    if facts.nr_open > 0 && host.roles.contains(&Role::Im) {
        let nodes = subject.topology.with_role(Role::Im).count().max(1) as u64;
        let wanted = u64::from(subject.topology.capacity.users) / nodes * 12 / 10 + 4096;
        results.push(
            Check::new("limits.open_files", &host.name, "open files of one process")
                .measured(format!(
                    "fs.nr_open {}; the service gets {}",
                    facts.nr_open,
                    sizes.get("im_nofile").copied().unwrap_or(0)
                ))
                .threshold(format!("{wanted}: users × 1.2 and some"))
                .why("each client needs one")
                .fix(format!("sysctl -w fs.nr_open={}", wanted.next_power_of_two()))
                .unless(facts.nr_open >= wanted, Verdict::Warn),
        );
    }
    results.extend(file_max(subject));
    results
}

/// Open files of the whole host. Not by a drop-in of ours: newer systems have set it to its largest value, and a number
/// that we write today would lower that at the next boot.
fn file_max(subject: &Subject<'_>) -> Option<CheckResult> {
    let host = subject.host;
    let value: u64 = subject.facts.sysctls.get("fs.file-max")?.trim().parse().ok()?;
    let nodes = subject.topology.with_role(Role::Im).count().max(1) as u64;
    let clients = u64::from(subject.topology.capacity.users) / nodes * 12 / 10;
    let wanted = FILES_OF_SYSTEM
        + host
            .roles
            .iter()
            .map(|role| FILES_OF_ROLE + if *role == Role::Im { clients } else { 0 })
            .sum::<u64>();
    let room = wanted.next_power_of_two();
    Some(
        Check::new("kernel.fs.file-max", &host.name, "fs.file-max")
            .measured(value.to_string())
            .threshold(format!(
                "at least {wanted}: users × 1.2, and {FILES_OF_ROLE} for each role and the system"
            ))
            .why("when the host has no more open files to give, every service on it is refused some")
            .fix(format!("sysctl -w fs.file-max={room}, and the same in a file below /etc/sysctl.d"))
            .unless(value >= wanted, Verdict::Warn),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Subject;
    use super::checks;
    use crate::sample;
    use maxim_model::check::{CheckResult, Verdict};
    use maxim_model::facts::Facts;
    use std::collections::BTreeMap;

    fn judge(place: usize, facts: &Facts) -> Vec<CheckResult> {
        let topology = sample::three_hosts();
        let artefacts = BTreeMap::new();
        checks(&Subject { topology: &topology, host: &topology.hosts[place], facts, artefacts: &artefacts })
            .into_iter()
            .filter(|result| result.verdict == Verdict::Warn)
            .collect()
    }

    #[test]
    fn settings_matter_to_the_roles_they_are_for() {
        let mut facts = sample::facts(4 << 30);
        for (name, value) in
            [("vm.overcommit_memory", "0"), ("net.core.somaxconn", "4096\n"), ("vm.swappiness", "60")]
        {
            facts.sysctls.insert(name.into(), value.into());
        }
        let ids = |results: Vec<CheckResult>| results.into_iter().map(|result| result.id).collect::<Vec<_>>();
        assert_eq!(ids(judge(0, &facts)), ["kernel.net.core.somaxconn"]);
        assert_eq!(ids(judge(1, &facts)), ["kernel.vm.swappiness"]);
        assert_eq!(
            ids(judge(2, &facts)),
            ["kernel.net.core.somaxconn", "kernel.vm.overcommit_memory", "kernel.vm.swappiness"]
        );
        facts.transparent_huge_pages = "always".into();
        assert!(ids(judge(1, &facts)).contains(&"kernel.huge_pages".to_owned()));
    }

    #[test]
    fn files_of_the_whole_host_are_judged_by_roles_and_users() {
        let mut facts = sample::facts(4 << 30);
        let file_max =
            |facts: &Facts| judge(0, facts).into_iter().find(|result| result.id == "kernel.fs.file-max");
        facts.sysctls.insert("fs.file-max".into(), "9223372036854775807".into());
        assert!(file_max(&facts).is_none());
        facts.sysctls.insert("fs.file-max".into(), "16384".into());
        let short = file_max(&facts).unwrap();
        assert!(!short.fixed_by_plan && short.fix.contains("sysctl -w fs.file-max="), "{short:?}");
        facts.sysctls.remove("fs.file-max");
        assert!(file_max(&facts).is_none(), "a kernel without it");
    }

    #[test]
    fn the_plan_fixes_what_the_kernel_lets_it() {
        let mut facts = sample::facts(4 << 30);
        facts.sysctls.insert("vm.swappiness".into(), "60".into());
        assert!(judge(1, &facts)[0].fixed_by_plan);
        facts.sysctl_writable = false;
        assert!(!judge(1, &facts)[0].fixed_by_plan);
    }
}
