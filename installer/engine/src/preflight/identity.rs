//! Identity: every host is itself, once, and belongs to no other cluster.

use super::{Check, Subject};
use maxim_model::check::{CheckResult, Verdict};
use maxim_model::facts::Facts;
use maxim_model::topology::{Connection, Host};
use std::collections::BTreeMap;
use std::net::IpAddr;

pub(super) fn checks(subject: &Subject<'_>) -> Vec<CheckResult> {
    let (host, facts) = (subject.host, subject.facts);
    let mut results = Vec::new();
    let others: Vec<&str> = facts
        .clusters
        .iter()
        .map(String::as_str)
        .filter(|cluster| *cluster != subject.topology.name)
        .collect();
    results.push(
        Check::new("identity.cluster", &host.name, "belongs to")
            .measured(if others.is_empty() { "no other cluster".into() } else { format!("cluster {}", others.join(", ")) })
            .threshold("this cluster or none")
            .why("two clusters on one host would overwrite each other's configuration and data")
            .fix(format!(
                "take another host, or remove the other cluster first: `maxim.ctl uninstall` with the topology of {}",
                others.join(", ")
            ))
            .unless(others.is_empty(), Verdict::Block),
    );
    for user in &facts.users {
        let shell = user.shell.rsplit('/').next().unwrap_or_default();
        let person = user.uid >= 1000 || user.uid == 0 || !["", "nologin", "false"].contains(&shell);
        results.push(
            Check::new("identity.user", &host.name, &format!("the user {}", user.name))
                .measured(if user.ours {
                    "made by an earlier install".into()
                } else {
                    format!("was there before, number {}, shell {}", user.uid, user.shell)
                })
                .threshold("absent, made by us, or a system user without a shell")
                .why("services and their data belong to it; a person's account of that name could read them")
                .fix(format!("rename or remove the account {} of this host", user.name))
                .unless(user.ours || !person, Verdict::Block),
        );
    }
    if let Ok(address) = host.address.parse::<IpAddr>()
        && matches!(host.connection, Connection::Ssh(_))
    {
        let there = facts.addresses.iter().any(|found| found.parse() == Ok(address));
        results.push(
            Check::new("identity.address", &host.name, "address of the topology")
                .measured(if there { format!("{address} is on the host") } else { format!("the host has {}", facts.addresses.join(", ")) })
                .threshold(address.to_string())
                .why("other hosts and clients connect to the address in the topology; certificates are made for it")
                .fix("write the address that the host itself has (no translated one) into the topology")
                .unless(there, Verdict::Block),
        );
    }
    results
}

/// Two entries of the topology that are the same machine, and hosts that share a name.
pub(super) fn between(hosts: &[(&Host, &Facts)]) -> Vec<CheckResult> {
    let mut results = Vec::new();
    let mut duplicates = |id: &str, title: &str, why: &str, fix: &str, key: &dyn Fn(&Facts) -> String| {
        let mut seen: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (host, facts) in hosts {
            let key = key(facts);
            if !key.is_empty() {
                seen.entry(key).or_default().push(&host.name);
            }
        }
        for (value, names) in seen.into_iter().filter(|(_, names)| names.len() > 1) {
            results.push(
                Check::new(id, names[0], title)
                    .measured(format!("{} have the same one: {value}", names.join(" and ")))
                    .threshold("one for each host")
                    .why(why)
                    .fix(fix)
                    .verdict(Verdict::Block),
            );
        }
    };
    duplicates(
        "identity.machine_id",
        "machine id",
        "it is one machine under two names, or one that was cloned: DHCP, journals and the console mix them up",
        "on a cloned host: `rm /etc/machine-id && systemd-machine-id-setup`, then reboot it",
        &|facts| facts.machine_id.clone(),
    );
    duplicates(
        "identity.hostname",
        "host name",
        "logs and monitoring tell hosts apart by their names",
        "give each host a name of its own: `hostnamectl set-hostname NAME`",
        &|facts| facts.hostname.clone(),
    );
    results
}

#[cfg(test)]
mod tests {
    use super::super::Subject;
    use super::{between, checks};
    use crate::sample;
    use maxim_model::check::Verdict;
    use maxim_model::facts::UserFact;
    use std::collections::BTreeMap;

    #[test]
    fn a_persons_account_under_a_name_of_ours_blocks_and_a_system_user_does_not() {
        let topology = sample::single_host();
        let judge = |uid: u32, shell: &str, ours: bool| {
            let mut facts = sample::facts(4 << 30);
            facts.users = vec![UserFact { name: "maxim".into(), uid, shell: shell.into(), ours }];
            let artefacts = BTreeMap::new();
            let subject = Subject {
                topology: &topology,
                host: &topology.hosts[0],
                facts: &facts,
                artefacts: &artefacts,
            };
            let results = super::checks(&subject);
            results.into_iter().find(|result| result.id == "identity.user").unwrap().verdict
        };
        assert_eq!(judge(1000, "/bin/bash", false), Verdict::Block);
        assert_eq!(judge(900, "/bin/bash", false), Verdict::Block);
        assert_eq!(judge(900, "/usr/sbin/nologin", false), Verdict::Pass);
        assert_eq!(judge(1000, "/bin/false", true), Verdict::Pass);
    }

    #[test]
    fn a_host_of_another_cluster_and_a_wrong_address_block() {
        let topology = sample::single_host();
        let mut facts = sample::facts(4 << 30);
        let judge = |facts: &maxim_model::facts::Facts| {
            let artefacts = BTreeMap::new();
            checks(&Subject { topology: &topology, host: &topology.hosts[0], facts, artefacts: &artefacts })
                .into_iter()
                .filter(|result| result.verdict == Verdict::Block)
                .map(|result| result.id)
                .collect::<Vec<_>>()
        };
        facts.clusters = vec!["acme".into()];
        assert!(judge(&facts).is_empty(), "an earlier install of this cluster is welcome");
        facts.clusters.push("other".into());
        assert_eq!(judge(&facts), ["identity.cluster"]);
        facts.clusters.clear();
        facts.addresses = vec!["192.0.2.7".into()];
        assert_eq!(judge(&facts), ["identity.address"]);
    }

    #[test]
    fn one_machine_under_two_names_is_found() {
        let topology = sample::three_hosts();
        let same = sample::facts(4 << 30);
        let mut other = same.clone();
        (other.machine_id, other.hostname) = ("ffff".into(), "two".into());
        let results = between(&[
            (&topology.hosts[0], &same),
            (&topology.hosts[1], &same),
            (&topology.hosts[2], &other),
        ]);
        let ids: Vec<_> = results.iter().map(|result| result.id.as_str()).collect();
        assert_eq!(ids, ["identity.machine_id", "identity.hostname"]);
        assert!(results[0].measured.contains("app1 and db1"));
    }
}
