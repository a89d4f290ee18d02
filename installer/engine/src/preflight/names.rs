//! Names: whether the domain leads to a host of the topology, and no wildcard answers for every other name.

use super::Check;
use crate::phases::probe::nobody;
use maxim_model::check::{CheckResult, Verdict};
use maxim_model::facts::Facts;
use maxim_model::names::{Profile, Role};
use maxim_model::topology::{Host, Topology};

pub(super) fn checks(topology: &Topology, hosts: &[(&Host, &Facts)]) -> Vec<CheckResult> {
    if topology.profile == Profile::Embedded || hosts.is_empty() {
        return Vec::new();
    }
    let answers: Vec<&String> = hosts
        .iter()
        .flat_map(|(_, facts)| &facts.names)
        .filter(|name| name.name == topology.domain)
        .flat_map(|name| &name.addresses)
        .collect();
    let im: Vec<&str> = topology.with_role(Role::Im).map(|host| host.address.as_str()).collect();
    let right = answers.iter().any(|answer| im.contains(&answer.as_str()));
    let measured = if answers.is_empty() {
        format!("{} does not resolve on the hosts", topology.domain)
    } else {
        let mut unique: Vec<&str> = answers.iter().map(|answer| answer.as_str()).collect();
        unique.sort_unstable();
        unique.dedup();
        format!("{} resolves to {}", topology.domain, unique.join(", "))
    };
    let nobody = nobody(topology);
    let wildcard: Vec<&str> = hosts
        .iter()
        .filter_map(|(_, facts)| facts.names.iter().find(|name| name.name == nobody))
        .flat_map(|name| &name.addresses)
        .map(String::as_str)
        .collect();
    let mut results = vec![
        Check::new("names.domain", "", "the domain leads to an IM host")
            .measured(measured)
            .threshold(im.join(" or "))
            .why("clients find the service by it; the install itself does not need it")
            .fix("create the DNS records that the install prints at its end")
            .unless(right, Verdict::Warn),
    ];
    if let Some(answer) = wildcard.first() {
        results.push(
            Check::new("names.wildcard", "", "no wildcard answers")
                .measured(format!("{nobody} resolves to {answer}"))
                .threshold("no answer for a name that nobody has")
                .why("a mistyped name then leads to some other machine instead of an error")
                .fix(format!(
                    "remove the wildcard record of {}, or the search domain that has one",
                    topology.domain
                ))
                .verdict(Verdict::Warn),
        );
    }
    results
}

#[cfg(test)]
mod tests {
    use super::checks;
    use crate::sample;
    use maxim_model::check::Verdict;
    use maxim_model::facts::NameFact;

    #[test]
    fn a_domain_that_leads_elsewhere_is_told_once() {
        let topology = sample::three_hosts();
        let mut facts = sample::facts(4 << 30);
        let judge = |facts: &maxim_model::facts::Facts| {
            let hosts: Vec<_> = topology.hosts.iter().map(|host| (host, facts)).collect();
            let results = checks(&topology, &hosts);
            assert_eq!(results.len(), 1);
            results[0].verdict
        };
        assert_eq!(judge(&facts), Verdict::Warn);
        let mut answer = |address: &str| {
            facts.names = vec![NameFact { name: "im.acme.example".into(), addresses: vec![address.into()] }];
            judge(&facts)
        };
        assert_eq!(answer("192.0.2.1"), Verdict::Warn);
        assert_eq!(answer("10.77.0.11"), Verdict::Pass);

        let name = super::nobody(&topology);
        facts.names.push(NameFact { name, addresses: vec!["198.51.100.1".into()] });
        let hosts: Vec<_> = topology.hosts.iter().map(|host| (host, &facts)).collect();
        let results = checks(&topology, &hosts);
        assert_eq!((results[1].id.as_str(), results[1].verdict), ("names.wildcard", Verdict::Warn));
    }
}
