//! Network between hosts: every pair that must talk can. A listener that the check opens on the very port tells apart
//! what is filtered from what merely does not run yet.
//!
//! Steps: what must reach what comes from the topology; free ports are listened on by the agents of the far ends (all
//! hosts at once); then every near end connects; listeners close with the next request.

use super::Check;
use crate::fleet;
use crate::run::{Run, Session};
use maxim_model::check::{CheckResult, Verdict};
use maxim_model::facts::PortState;
use maxim_model::names::{Profile, Role};
use maxim_model::topology::{Database, Redis, Topology};
use maxim_model::wire::{ConnectResult, ConnectState, Reply, Request};
use std::time::Duration;

const LISTEN: Duration = Duration::from_secs(10);
const CONNECT_MILLIS: u64 = 2_000;
/// Between the IM core and its stores every message pays it.
const SLOW_MICROS: u64 = 5_000;
/// What a message costs between the IM core and the database: written, marked, handed out, read from the archive.
const BYTES_OF_A_MESSAGE: u64 = 16 << 10;
/// Bytes a second (100 Mbit/s) below which a client that reads its archive feels it whatever the capacity.
const LEAST_BYTES: u64 = 12_500_000;
const DATABASE: &str = "database";

/// One connection that a running cluster makes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Need {
    from: String,
    to: String,
    address: String,
    port: u16,
    what: &'static str,
    /// A store: its round trip is judged.
    store: bool,
    /// A database of ours that does not run yet: what comes through from there is measured.
    measured: bool,
}

fn needs(topology: &Topology) -> Vec<Need> {
    let mut all = Vec::new();
    for from in topology.with_role(Role::Im) {
        let mut add = |role: Role, port: u16, what: &'static str, store: bool| {
            for to in topology.with_role(role).filter(|to| to.name != from.name) {
                all.push(Need {
                    from: from.name.clone(),
                    to: to.name.clone(),
                    address: to.address.clone(),
                    port,
                    what,
                    store,
                    measured: what == DATABASE,
                });
            }
        };
        match topology.database {
            Database::Mariadb => add(Role::Mariadb, topology.ports.mariadb, DATABASE, true),
            Database::Postgresql => add(Role::Postgresql, topology.ports.postgresql, DATABASE, true),
            Database::Sqlite | Database::External { .. } => {}
        }
        if topology.redis == Redis::Own {
            add(Role::Redis, topology.ports.redis, "Redis", true);
        }
        add(Role::Im, topology.ports.xmpp, "IM core", false);
        for (url, what) in external(topology) {
            if let Some((address, port)) = place(&url) {
                all.push(Need {
                    from: from.name.clone(),
                    to: String::new(),
                    address,
                    port,
                    what,
                    store: true,
                    measured: false,
                });
            }
        }
    }
    all
}

fn external(topology: &Topology) -> Vec<(String, &'static str)> {
    let mut all = Vec::new();
    if let Database::External { url, .. } = &topology.database {
        all.push((url.clone(), "external database"));
    }
    if let Redis::External { url, .. } = &topology.redis {
        all.push((url.clone(), "external Redis"));
    }
    all
}

/// Address and port of `scheme://user@host:port/name`.
fn place(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let place = rest.split('/').next()?;
    let usual = match scheme {
        "mysql" | "mariadb" => 3306,
        "postgres" | "postgresql" => 5432,
        _ => 6379,
    };
    match place.rsplit_once(':') {
        Some((address, port)) if !address.is_empty() && !address.ends_with(':') => {
            Some((address.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
        }
        _ => Some((place.trim_matches(['[', ']']).to_owned(), usual)),
    }
}

/// Probes every pair of reached hosts.
pub(super) fn probe(run: &Run<'_>, sessions: &mut [Session<'_>]) -> Vec<CheckResult> {
    let topology = &run.context.topology;
    if topology.profile == Profile::Embedded {
        return Vec::new();
    }
    let mut needs = needs(topology);
    needs.retain(|need| {
        sessions.iter().all(|session| {
            session.error.is_none() || (session.host.name != need.from && session.host.name != need.to)
        })
    });
    let mut results = mtu(sessions);
    if needs.is_empty() {
        return results;
    }
    // A database that runs is not disturbed, and what it says is not ours to count.
    for need in &mut needs {
        need.measured &= sessions
            .iter()
            .filter(|session| session.host.name == need.to)
            .flat_map(|session| &session.facts.ports)
            .any(|fact| fact.port == need.port && fact.state == PortState::Free);
    }
    listen(run, sessions, &needs);
    let found = connect(run, sessions, &needs);
    close(run, sessions, &needs);
    for (need, found) in needs.iter().zip(found) {
        results.extend(bandwidth(topology, need, found.as_ref()));
        results.push(judge(need, found.as_ref()));
    }
    results
}

/// Opens listeners on the free ports that others will connect to.
fn listen(run: &Run<'_>, sessions: &mut [Session<'_>], needs: &[Need]) {
    fleet::for_each(sessions.iter_mut(), run.context.concurrency, |session| {
        let free = |port: u16| {
            session.facts.ports.iter().any(|fact| fact.port == port && fact.state == PortState::Free)
        };
        let mut ports: Vec<u16> = needs
            .iter()
            .filter(|need| need.to == session.host.name && free(need.port))
            .map(|need| need.port)
            .collect();
        ports.sort_unstable();
        ports.dedup();
        if let Some(agent) = session.reader.as_mut().filter(|_| !ports.is_empty()) {
            let request = Request::Listen { address: "0.0.0.0".into(), ports };
            // A port that cannot be listened on shows as refused, which is what is told then.
            if let Err(error) = agent.request("network", &request, LISTEN, |_| {}) {
                tracing::debug!(host = session.host.name, cause = error.cause, "no listener for the probe");
            }
        }
    });
}

/// Closes the listeners (any next request does): the services want these ports in a moment.
fn close(run: &Run<'_>, sessions: &mut [Session<'_>], needs: &[Need]) {
    fleet::for_each(sessions.iter_mut(), run.context.concurrency, |session| {
        let listened = needs.iter().any(|need| need.to == session.host.name);
        if let Some(agent) = session.reader.as_mut().filter(|_| listened)
            && let Err(error) = agent.request("network", &Request::Hello, LISTEN, |_| {})
        {
            session.error = Some(error);
        }
    });
}

/// Connects from every near end. A host that is a far end as well asks on a second agent, because its first one
/// would close its listeners.
fn connect(run: &Run<'_>, sessions: &mut [Session<'_>], needs: &[Need]) -> Vec<Option<ConnectResult>> {
    let answers = fleet::for_each(sessions.iter_mut(), run.context.concurrency, |session| {
        let own: Vec<(usize, String)> = needs
            .iter()
            .enumerate()
            .filter(|(_, need)| need.from == session.host.name)
            .map(|(place, need)| (place, crate::phases::verify::with_port(&need.address, need.port)))
            .collect();
        if own.is_empty() {
            return Vec::new();
        }
        let request = Request::Connect {
            targets: own.iter().map(|(_, target)| target.clone()).collect(),
            measured: own
                .iter()
                .filter(|(place, _)| needs[*place].measured)
                .map(|(_, target)| target.clone())
                .collect(),
            timeout_ms: CONNECT_MILLIS,
        };
        let wait = Duration::from_millis(CONNECT_MILLIS * own.len() as u64) + LISTEN;
        let pick = |reply| match reply {
            Reply::Connections { results } => Some(results),
            _ => None,
        };
        let listens = needs.iter().any(|need| need.to == session.host.name);
        let found = if listens {
            session.connected.as_mut().and_then(|connected| {
                let mut second = connected.agent(crate::remote::Mode::Look).ok()?;
                let found = second.ask("network", &request, wait, pick).ok();
                second.finish(Duration::from_secs(2));
                found
            })
        } else {
            session.reader.as_mut().and_then(|agent| agent.ask("network", &request, wait, pick).ok())
        };
        let found = found.unwrap_or_default();
        own.into_iter()
            .map(|(place, target)| (place, found.iter().find(|one| one.target == target).cloned()))
            .collect()
    });
    let mut all = vec![None; needs.len()];
    for (place, found) in answers.into_iter().flatten() {
        all[place] = found;
    }
    all
}

fn judge(need: &Need, found: Option<&ConnectResult>) -> CheckResult {
    let target = if need.to.is_empty() { need.address.clone() } else { need.to.clone() };
    let check =
        Check::new("network.reach", &need.from, &format!("{} on {target}, port {}", need.what, need.port))
            .threshold("reached")
            .why("the IM core on this host works only with it")
            .fix(format!(
                "let TCP {} through from {} to {} ({}): host firewall, security group, routes",
                need.port, need.from, target, need.address
            ));
    let Some(found) = found else {
        return check.measured("could not be tried").verdict(Verdict::Warn);
    };
    let millis = found.micros as f64 / 1000.0;
    match found.state {
        ConnectState::Reached if need.store && found.micros >= SLOW_MICROS => {
            Check::new("network.latency", &need.from, &format!("round trip to {} on {target}", need.what))
                .measured(format!("{millis:.1} ms"))
                .threshold("below 5 ms")
                .why("every message pays it before it is acknowledged")
                .fix("put the stores and the IM core into one network")
                .verdict(Verdict::Warn)
        }
        ConnectState::Reached => check.measured(format!("reached in {millis:.1} ms")).verdict(Verdict::Pass),
        ConnectState::Refused => check.measured("refused").verdict(Verdict::Block),
        ConnectState::Filtered => {
            check.measured("no answer within 2 s: filtered on the way").verdict(Verdict::Block)
        }
        ConnectState::Unreachable => check.measured("no route").verdict(Verdict::Block),
    }
}

/// What comes through from a database, against what the capacity will ask of it.
fn bandwidth(topology: &Topology, need: &Need, found: Option<&ConnectResult>) -> Option<CheckResult> {
    let rate = found?.bytes_per_second?;
    let nodes = topology.with_role(Role::Im).count().max(1) as u64;
    let wanted =
        (u64::from(topology.capacity.messages_per_second) / nodes * BYTES_OF_A_MESSAGE).max(LEAST_BYTES);
    let megabits = |bytes: u64| bytes.saturating_mul(8) / 1_000_000;
    Some(
        Check::new("network.bandwidth", &need.from, &format!("bandwidth from {} on {}", need.what, need.to))
            .measured(format!("{} Mbit/s", megabits(rate)))
            .threshold(format!("at least {} Mbit/s", megabits(wanted)))
            .why("a client that reads its archive, and many that come back at once, wait for it")
            .fix("put the database and the IM core into one network with a faster link, or lower `capacity.messages_per_second`")
            .unless(rate >= wanted, Verdict::Warn),
    )
}

/// Hosts that talk to each other with different MTUs lose large packets where something in between drops ICMP.
fn mtu(sessions: &[Session<'_>]) -> Vec<CheckResult> {
    let mut sizes: Vec<(u32, &str)> = sessions
        .iter()
        .filter(|session| session.error.is_none() && session.facts.mtu > 0)
        .map(|session| (session.facts.mtu, session.host.name.as_str()))
        .collect();
    sizes.sort_unstable();
    let (Some(least), Some(most)) = (sizes.first(), sizes.last()) else { return Vec::new() };
    if sizes.len() < 2 {
        return Vec::new();
    }
    vec![
        Check::new("network.mtu", "", "MTU of the hosts")
            .measured(if least.0 == most.0 {
                format!("{} everywhere", least.0)
            } else {
                format!("{} on {}, {} on {}", least.0, least.1, most.0, most.1)
            })
            .threshold("the same everywhere")
            .why("large packets get lost between them where path discovery is filtered; connections then hang")
            .fix("set the same MTU on the interfaces by which the hosts talk: `ip link set dev DEVICE mtu SIZE`")
            .unless(least.0 == most.0, Verdict::Warn),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Need, bandwidth, judge, needs, place};
    use crate::sample;
    use maxim_model::check::Verdict;
    use maxim_model::topology::Database;
    use maxim_model::wire::{ConnectResult, ConnectState};

    #[test]
    fn what_must_talk_follows_from_the_roles() {
        let mut topology = sample::three_hosts();
        let found: Vec<_> =
            needs(&topology).into_iter().map(|need| (need.from, need.to, need.port)).collect();
        assert_eq!(found, [("app1".into(), "db1".into(), 3306), ("app1".into(), "cache1".into(), 6379)]);
        assert!(needs(&sample::single_host()).is_empty());
        topology.database = Database::External {
            url: "postgresql://chat@db.acme.example/im".into(),
            password_file: String::new(),
            ca_file: String::new(),
        };
        assert!(needs(&topology).iter().any(|need| need.address == "db.acme.example" && need.port == 5432));
    }

    #[test]
    fn each_outcome_is_told_apart() {
        let need = Need {
            from: "app1".into(),
            to: "db1".into(),
            address: "10.77.0.12".into(),
            port: 3306,
            what: "database",
            store: true,
            measured: true,
        };
        let outcome = |state, micros| {
            judge(
                &need,
                Some(&ConnectResult {
                    target: "10.77.0.12:3306".into(),
                    state,
                    micros,
                    bytes_per_second: None,
                }),
            )
        };
        assert_eq!(outcome(ConnectState::Reached, 300).verdict, Verdict::Pass);
        let slow = outcome(ConnectState::Reached, 7_000);
        assert_eq!((slow.id.as_str(), slow.verdict), ("network.latency", Verdict::Warn));
        let messages: Vec<String> =
            [ConnectState::Refused, ConnectState::Filtered, ConnectState::Unreachable]
                .into_iter()
                .map(|state| {
                    let result = outcome(state, 0);
                    assert_eq!(result.verdict, Verdict::Block);
                    result.measured
                })
                .collect();
        assert!(messages[0] != messages[1] && messages[1] != messages[2]);
        assert_eq!(judge(&need, None).verdict, Verdict::Warn);
    }

    #[test]
    fn bandwidth_is_judged_by_what_the_capacity_asks_for() {
        let mut topology = sample::three_hosts();
        let need = needs(&topology).into_iter().find(|need| need.what == "database").unwrap();
        assert!(need.measured && !needs(&topology).iter().any(|need| need.what == "Redis" && need.measured));
        let found = |bytes_per_second| ConnectResult {
            target: "10.77.0.12:3306".into(),
            state: ConnectState::Reached,
            micros: 200,
            bytes_per_second,
        };
        let verdict = |topology: &maxim_model::topology::Topology, rate| {
            bandwidth(topology, &need, Some(&found(Some(rate)))).unwrap().verdict
        };
        assert_eq!(verdict(&topology, 125_000_000), Verdict::Pass);
        assert_eq!(verdict(&topology, 1_000_000), Verdict::Warn);
        topology.capacity.messages_per_second = 20_000;
        assert_eq!(verdict(&topology, 125_000_000), Verdict::Warn);
        assert!(bandwidth(&topology, &need, Some(&found(None))).is_none());
    }

    #[test]
    fn places_of_external_services() {
        assert_eq!(place("redis://cache.acme.example:6390"), Some(("cache.acme.example".into(), 6390)));
        assert_eq!(place("mysql://chat@[fd00::5]:3307/im"), Some(("fd00::5".into(), 3307)));
        assert_eq!(place("mysql://chat@db/im"), Some(("db".into(), 3306)));
    }
}
