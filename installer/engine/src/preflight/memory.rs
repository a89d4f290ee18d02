//! Memory and processors, by role and capacity: below what a role needs to start blocks, below what the capacity asks
//! for warns.

use super::{Check, Subject, bytes};
use crate::sizing::{minimum_memory, wanted_memory};
use maxim_model::check::{CheckResult, Verdict};
use maxim_model::names::{Profile, Role};

const MIB: u64 = 1 << 20;
/// What the system itself keeps.
const SYSTEM: u64 = 128 * MIB;

pub(super) fn checks(subject: &Subject<'_>) -> Vec<CheckResult> {
    let (topology, host, facts) = (subject.topology, subject.host, subject.facts);
    let nodes = topology.with_role(Role::Im).count().max(1) as u64;
    let users = u64::from(topology.capacity.users);
    let rate = u64::from(topology.capacity.messages_per_second);
    let roles = host.roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(", ");

    let start: u64 = host.roles.iter().map(|role| minimum_memory(*role)).sum();
    // What our own services use already is theirs to use again.
    let ours: u64 = facts.units.iter().map(|unit| unit.memory).sum();
    let available = facts.memory_available + ours;
    let wanted = SYSTEM + host.roles.iter().map(|role| wanted_memory(*role, users, rate, nodes)).sum::<u64>();
    let mut results = vec![
        Check::new("memory.available", &host.name, "memory available")
            .measured(bytes(available))
            .threshold(format!("at least {} for {roles} to start", bytes(start)))
            .why("a service that gets less is killed while it starts")
            .fix("free memory, add some, or move a role to another host")
            .unless(available >= start, Verdict::Block),
        Check::new("memory.total", &host.name, "memory installed")
            .measured(bytes(facts.memory_total))
            .threshold(format!("{} for {users} users and {rate} messages/s", bytes(wanted)))
            .why("with less, caches are small and a full load is served slowly")
            .fix("add memory, add hosts, or lower `capacity` in the topology")
            .unless(
                facts.memory_total >= wanted,
                if topology.profile == Profile::Embedded { Verdict::Info } else { Verdict::Warn },
            ),
    ];

    let mut cpus = 1;
    if host.roles.contains(&Role::Im) {
        cpus = cpus.max(rate.div_ceil(nodes).div_ceil(2_000));
    }
    if host.roles.iter().any(|role| matches!(role, Role::Mariadb | Role::Postgresql)) {
        cpus = cpus.max(rate.div_ceil(2_000));
    }
    if host.roles.len() > 1 {
        cpus = cpus.max(2);
    }
    results.push(
        Check::new("cpu.count", &host.name, "processors")
            .measured(format!(
                "{} ({})",
                facts.cpus,
                if facts.cpu_model.is_empty() { "unknown model" } else { &facts.cpu_model }
            ))
            .threshold(format!("{cpus} for {rate} messages/s"))
            .why("messages are encrypted, routed and written; each processor carries about 2,000 a second")
            .fix("add processors, add IM hosts, or lower `capacity` in the topology")
            .unless(
                u64::from(facts.cpus) >= cpus,
                if topology.profile == Profile::Embedded { Verdict::Info } else { Verdict::Warn },
            ),
    );
    results
}

#[cfg(test)]
mod tests {
    use super::super::{Subject, verdicts};
    use super::{MIB, checks};
    use crate::sample;
    use maxim_model::check::Verdict;
    use std::collections::BTreeMap;

    #[test]
    fn starting_blocks_and_capacity_warns() {
        let mut topology = sample::three_hosts();
        let artefacts = BTreeMap::new();
        let mut facts = sample::facts(1 << 30);
        facts.memory_available = 200 * MIB;
        let judge = |topology: &maxim_model::topology::Topology,
                     facts: &maxim_model::facts::Facts,
                     place: usize| {
            let subject = Subject { topology, host: &topology.hosts[place], facts, artefacts: &artefacts };
            checks(&subject)
        };
        let database = judge(&topology, &facts, 1);
        assert_eq!(verdicts(&database)[0], ("memory.available", Verdict::Block));
        assert_eq!(verdicts(&database)[1], ("memory.total", Verdict::Warn));
        assert_eq!(verdicts(&judge(&topology, &facts, 2))[0].1, Verdict::Pass, "redis starts in less");

        facts.units = vec![maxim_model::facts::UnitFact { memory: 300 * MIB, ..Default::default() }];
        assert_eq!(
            verdicts(&judge(&topology, &facts, 1))[0].1,
            Verdict::Pass,
            "what runs already is counted"
        );
        topology.capacity.messages_per_second = 20_000;
        assert_eq!(verdicts(&judge(&topology, &facts, 0))[2], ("cpu.count", Verdict::Warn));
    }
}
