//! Probe: what is measured on every host, read-only.

use crate::events::millis;
use crate::fleet;
use crate::render::context::{CONSOLE_USER, SERVICE_USER, made};
use crate::run::{Run, Session};
use maxim_model::facts::{FactsQuery, PortQuery, UserQuery};
use maxim_model::names::{Profile, Role};
use maxim_model::topology::{Host, Topology};
use maxim_model::wire::{Reply, Request};
use std::time::{Duration, Instant};

/// Facts come within a second or two; a host under heavy load may need longer.
const FACTS: Duration = Duration::from_secs(30);

/// Whether the disk is probed (it takes up to a second).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskProbe {
    /// On hosts with a database.
    Databases,
    /// Not at all.
    No,
}

/// Reads the facts of every connected host into its session.
pub(crate) fn probe(run: &Run<'_>, sessions: &mut [Session<'_>], disk: DiskProbe) {
    run.emitter.phase("probe", || {
        fleet::for_each(sessions.iter_mut(), run.context.concurrency, |session| {
            let begun = Instant::now();
            if let Some(agent) = &mut session.reader {
                let query = query(&run.context.topology, session.host, disk);
                let asked = unix_nanos();
                let facts = agent.ask("probe", &Request::Facts(query), FACTS, |reply| match reply {
                    Reply::Facts { facts } => Some(facts),
                    _ => None,
                });
                match facts {
                    Ok(facts) => {
                        session.clock_offset_nanos = offset(facts.clock_unix_nanos, asked, unix_nanos());
                        session.facts = *facts;
                    }
                    Err(error) => session.error = Some(error),
                }
            }
            run.emitter.record("probe", &session.host.name, millis(begun));
        });
    });
}

fn unix_nanos() -> i128 {
    time::OffsetDateTime::now_utc().unix_timestamp_nanos()
}

/// The least offset of a clock that was read at some moment between two readings of this one.
fn offset(theirs: i128, before: i128, after: i128) -> i128 {
    if theirs < before {
        theirs - before
    } else if theirs > after {
        theirs - after
    } else {
        0
    }
}

/// What is asked of a host.
pub(crate) fn query(topology: &Topology, host: &Host, disk: DiskProbe) -> FactsQuery {
    let paths = &topology.paths;
    let database = host.roles.iter().any(|role| matches!(role, Role::Mariadb | Role::Postgresql));
    let standard = topology.profile == Profile::Standard;
    FactsQuery {
        paths: vec![
            paths.software.clone(),
            paths.configuration.clone(),
            paths.data.clone(),
            paths.logs.clone(),
        ],
        ports: ports(topology, host),
        names: if standard { vec![topology.domain.clone(), nobody(topology)] } else { Vec::new() },
        users: if standard { users(topology, host) } else { Vec::new() },
        units: host.roles.iter().map(|role| role.service()).collect(),
        disk_probe: (standard && database && disk == DiskProbe::Databases).then(|| paths.data.clone()),
    }
}

/// A name that nobody has: it resolves only where a wildcard answers for everything.
pub(crate) fn nobody(topology: &Topology) -> String {
    format!("maxim-check-no-such-host.{}", topology.domain)
}

/// The system users that a host gets.
fn users(topology: &Topology, host: &Host) -> Vec<UserQuery> {
    let console = host.roles.contains(&Role::Console).then_some(CONSOLE_USER);
    [SERVICE_USER]
        .into_iter()
        .chain(console)
        .map(|name| UserQuery { name: name.into(), made: made(topology) })
        .collect()
}

/// The ports that a host's roles bind, with the address each is bound on.
pub(crate) fn ports(topology: &Topology, host: &Host) -> Vec<PortQuery> {
    let mut all = Vec::new();
    let mut add = |port: u16, component: Role, address: &str| {
        all.push(PortQuery { port, component: component.name().into(), address: address.into() });
    };
    let ports = &topology.ports;
    let clients_elsewhere = |host: &Host| topology.with_role(Role::Im).any(|im| im.name != host.name);
    for role in &host.roles {
        match role {
            Role::Im => {
                for port in [ports.xmpp, ports.xmpp_tls, ports.https] {
                    add(port, Role::Im, &topology.listen);
                }
                add(ports.metrics, Role::Im, "127.0.0.1");
            }
            Role::Console => add(ports.console, Role::Console, &topology.listen),
            Role::Mariadb if clients_elsewhere(host) => add(ports.mariadb, *role, "0.0.0.0"),
            Role::Postgresql if clients_elsewhere(host) => add(ports.postgresql, *role, "0.0.0.0"),
            Role::Redis if clients_elsewhere(host) => add(ports.redis, *role, "0.0.0.0"),
            // With every client on the same host they are reached by socket.
            Role::Mariadb | Role::Postgresql | Role::Redis => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{DiskProbe, offset, ports, query};
    use crate::sample;

    #[test]
    fn a_clock_read_while_we_waited_is_not_blamed_for_the_wait() {
        assert_eq!(offset(150, 100, 200), 0);
        assert_eq!(offset(50, 100, 200), -50);
        assert_eq!(offset(230, 100, 200), 30);
    }

    #[test]
    fn a_database_with_clients_elsewhere_binds_its_port_and_is_probed() {
        let three = sample::three_hosts();
        let database = query(&three, &three.hosts[1], DiskProbe::Databases);
        assert_eq!(database.ports[0].port, 3306);
        assert_eq!(database.disk_probe.as_deref(), Some("/var/lib/maxim"));
        assert_eq!(query(&three, &three.hosts[0], DiskProbe::Databases).disk_probe, None);
        let single = sample::single_host();
        let bound: Vec<u16> = ports(&single, &single.hosts[0]).iter().map(|port| port.port).collect();
        assert_eq!(bound, [5222, 5223, 443, 9280, 9443], "stores are reached by socket");
    }
}
