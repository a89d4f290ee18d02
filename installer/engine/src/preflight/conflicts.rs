//! Conflicts: other servers, SELinux, firewalls.

use super::{Check, Subject};
use crate::phases::probe;
use maxim_model::check::{CheckResult, Verdict};

pub(super) fn checks(subject: &Subject<'_>) -> Vec<CheckResult> {
    if !subject.standard() {
        return Vec::new();
    }
    let (host, facts) = (subject.host.name.as_str(), subject.facts);
    let mut results = vec![
        Check::new("conflicts.servers", host, "other servers on the host")
            .measured(if facts.conflicts.is_empty() { "none".into() } else { facts.conflicts.join(", ") })
            .threshold("none")
            .why("they take memory and may claim the same ports later")
            .fix("stop and disable what is not needed, or move it to another host; ours do not touch it")
            .unless(facts.conflicts.is_empty(), Verdict::Warn),
        Check::new("conflicts.selinux", host, "SELinux")
            .measured(if facts.selinux.is_empty() { "absent".into() } else { facts.selinux.clone() })
            .threshold("not enforcing")
            .why("there is no policy for our services yet: it may deny them their files")
            .fix("set it to permissive (`setenforce 0` and /etc/selinux/config), or watch the audit log after the install")
            .unless(facts.selinux != "enforcing", Verdict::Warn),
    ];
    let ports: Vec<String> = probe::ports(subject.topology, subject.host)
        .iter()
        .filter(|port| port.address != "127.0.0.1")
        .map(|port| port.port.to_string())
        .collect();
    let open = match facts.firewall.as_str() {
        "firewalld" => {
            let all: Vec<String> = ports.iter().map(|port| format!("--add-port={port}/tcp")).collect();
            format!("firewall-cmd --permanent {} && firewall-cmd --reload", all.join(" "))
        }
        "ufw" => ports.iter().map(|port| format!("ufw allow {port}/tcp")).collect::<Vec<_>>().join(" && "),
        _ => format!("accept TCP {} in its rules", ports.join(", ")),
    };
    results.push(
        Check::new("conflicts.firewall", host, "firewall")
            .measured(if facts.firewall.is_empty() {
                "none active".into()
            } else {
                format!("{} is active", facts.firewall)
            })
            .threshold("open for the ports of the roles")
            .why("clients and other hosts must reach the services; its rules are never changed by us")
            .fix(open)
            .unless(facts.firewall.is_empty() || ports.is_empty(), Verdict::Warn),
    );
    results
}

#[cfg(test)]
mod tests {
    use super::super::Subject;
    use super::checks;
    use crate::sample;
    use maxim_model::check::Verdict;
    use std::collections::BTreeMap;

    #[test]
    fn an_active_firewall_comes_with_the_command_that_opens_it() {
        let topology = sample::three_hosts();
        let mut facts = sample::facts(4 << 30);
        facts.firewall = "firewalld".into();
        facts.selinux = "enforcing".into();
        facts.conflicts = vec!["nginx".into()];
        let artefacts = BTreeMap::new();
        let results = checks(&Subject {
            topology: &topology,
            host: &topology.hosts[1],
            facts: &facts,
            artefacts: &artefacts,
        });
        assert!(results.iter().all(|result| result.verdict == Verdict::Warn), "{results:?}");
        assert!(results[2].fix.contains("--add-port=3306/tcp"), "{}", results[2].fix);
    }
}
