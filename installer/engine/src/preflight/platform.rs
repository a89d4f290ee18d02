//! Platform: system, processor, kernel, systemd, C library, privileges.

use super::{Check, Subject};
use maxim_model::check::{CheckResult, Verdict};

const KERNEL: (u32, u32) = (4, 18);
const SYSTEMD: u32 = 239;
const GLIBC: (u32, u32) = (2, 17);

pub(super) fn checks(subject: &Subject<'_>) -> Vec<CheckResult> {
    let (host, facts) = (subject.host.name.as_str(), subject.facts);
    let mut results = vec![
        Check::new("platform.system", host, "operating system")
            .measured(format!("{} {}", facts.system, facts.architecture))
            .threshold("linux x86_64")
            .why("programs and images are built for it")
            .fix("use a 64-bit x86 machine with Linux")
            .unless(facts.system == "linux" && facts.architecture == "x86_64", Verdict::Block),
        Check::new("platform.kernel", host, "kernel")
            .measured(known(&facts.kernel))
            .threshold("at least 4.18")
            .why("older kernels lack what the sandboxes of the services use")
            .fix("update the distribution of this host")
            .unless(version(&facts.kernel).is_some_and(|found| found >= KERNEL), Verdict::Block),
    ];
    if facts.glibc.is_empty() {
        results.push(
            Check::new("platform.glibc", host, "C library")
                .measured("no glibc was found")
                .threshold("glibc, at least 2.17")
                .why("our own programs are linked against it")
                .fix("use a distribution with glibc (Debian, Ubuntu, RHEL, SUSE and their relatives)")
                // The agent runs there, so some C library does.
                .verdict(Verdict::Warn),
        );
    } else {
        results.push(
            Check::new("platform.glibc", host, "C library")
                .measured(format!("glibc {}", facts.glibc))
                .threshold("at least 2.17")
                .why("our own programs are linked against it")
                .fix("update the distribution of this host")
                .unless(version(&facts.glibc).is_some_and(|found| found >= GLIBC), Verdict::Block),
        );
    }
    if subject.standard() {
        results.push(
            Check::new("platform.systemd", host, "systemd")
                .measured(if facts.systemd == 0 {
                    "does not run as process 1".into()
                } else {
                    format!("systemd {}", facts.systemd)
                })
                .threshold("at least 239")
                .why("it keeps the services of the standard profile")
                .fix("use a host that systemd has booted, or `--profile embedded` on a single machine")
                .unless(facts.systemd >= SYSTEMD, Verdict::Block),
        );
        results.push(
            Check::new("access.privileges", host, "privileges")
                .measured(format!("{} (user id {})", facts.user, facts.uid))
                .threshold("root")
                .why("services, users and system folders are made on the host")
                .fix("connect as root, or set `ssh: {sudo: true}` for this host")
                .unless(facts.uid == 0, Verdict::Block),
        );
    }
    results
}

fn known(text: &str) -> String {
    if text.is_empty() { "unknown".into() } else { text.to_owned() }
}

/// Major and minor of `6.1.0-18-amd64` or `2.36`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|letter: char| !letter.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::{Subject, verdicts};
    use super::{checks, version};
    use crate::sample;
    use maxim_model::check::Verdict;
    use std::collections::BTreeMap;

    #[test]
    fn each_wrong_thing_blocks_by_its_own_name() {
        let topology = sample::single_host();
        let judge = |change: &dyn Fn(&mut maxim_model::facts::Facts)| {
            let mut facts = sample::facts(4 << 30);
            change(&mut facts);
            let artefacts = BTreeMap::new();
            let subject = Subject {
                topology: &topology,
                host: &topology.hosts[0],
                facts: &facts,
                artefacts: &artefacts,
            };
            checks(&subject)
                .into_iter()
                .filter(|result| result.verdict == Verdict::Block)
                .map(|result| result.id)
                .collect::<Vec<_>>()
        };
        assert!(judge(&|_| {}).is_empty());
        assert_eq!(judge(&|facts| facts.architecture = "aarch64".into()), ["platform.system"]);
        assert_eq!(judge(&|facts| facts.kernel = "3.10.0-1160.el7".into()), ["platform.kernel"]);
        assert_eq!(judge(&|facts| facts.glibc = "2.12".into()), ["platform.glibc"]);
        assert_eq!(judge(&|facts| facts.systemd = 219), ["platform.systemd"]);
        assert_eq!(judge(&|facts| facts.uid = 1000), ["access.privileges"]);
    }

    #[test]
    fn an_embedded_deployment_needs_neither_systemd_nor_root() {
        let topology = sample::embedded(std::path::Path::new("/x"));
        let mut facts = sample::facts(1 << 30);
        (facts.systemd, facts.uid) = (0, 1000);
        let artefacts = BTreeMap::new();
        let results = checks(&Subject {
            topology: &topology,
            host: &topology.hosts[0],
            facts: &facts,
            artefacts: &artefacts,
        });
        assert!(verdicts(&results).iter().all(|(_, verdict)| *verdict == Verdict::Pass), "{results:?}");
        assert_eq!(version("5.4"), Some((5, 4)));
        assert_eq!(version("x"), None);
    }
}
