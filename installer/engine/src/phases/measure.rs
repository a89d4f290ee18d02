//! Measure: what runs on each host, and how well. Read-only.

use crate::error::EngineError;
use crate::fleet;
use crate::remote::{Agent, SLICE};
use crate::run::{Run, Session};
use crate::state::Installed;
use maxim_model::Secret;
use maxim_model::facts::UnitFact;
use maxim_model::names::{Profile, Role};
use maxim_model::status::{ComponentStatus, Endpoints, Health, HostStatus};
use maxim_model::topology::Topology;
use maxim_model::wire::{Reply, Request};
use std::time::{Duration, Instant};

const UNITS: Duration = Duration::from_secs(15);
/// Longer than the IM core takes to find that a store is silent (5 s each), so that it can say which.
const READY: Duration = Duration::from_secs(12);
/// An IM core that was just started answers within this, or something is wrong.
const STARTING: Duration = Duration::from_secs(15);
/// Where the IM core says whether it can serve; the only page that a console reads on a host.
pub(crate) const READY_PATH: &str = "/readyz";
/// So many restarts on its own want attention.
const RESTARTS: u32 = 3;

/// Components of all hosts, in topology order. `writer`: ask the agents that hold the locks.
pub(crate) fn components(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    installed: &Installed,
    writer: bool,
) -> Vec<ComponentStatus> {
    fleet::for_each(sessions.iter_mut(), run.context.concurrency, |session| {
        let roles = session.host.roles.clone();
        let host = session.host.name.clone();
        let agent = if writer { session.writer.as_mut() } else { session.reader.as_mut() };
        let measured = match (agent, &session.error) {
            (Some(agent), _) => measure(run, agent, &roles),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Err(EngineError::failed("status", "the host is not connected")),
        };
        match measured {
            Ok(units) => roles
                .iter()
                .zip(units)
                .map(|(role, (unit, ready))| component(&host, *role, &unit, ready, installed))
                .collect::<Vec<_>>(),
            Err(error) => {
                let detail = format!("not reached: {}", error.cause);
                session.error.get_or_insert(error);
                roles
                    .iter()
                    .map(|role| ComponentStatus {
                        host: host.clone(),
                        component: role.name().into(),
                        wanted: installed.versions.get(role.name()).cloned().unwrap_or_default(),
                        running: String::new(),
                        health: Health::Unknown,
                        detail: detail.clone(),
                        memory: 0,
                        since_seconds: 0,
                        restarts: 0,
                    })
                    .collect()
            }
        }
    })
    .into_iter()
    .flatten()
    .collect()
}

/// The same, a little later when the IM core was just started: it is active before it has opened its stores.
pub(crate) fn components_when_ready(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    installed: &Installed,
) -> Vec<ComponentStatus> {
    let until = Instant::now() + STARTING;
    loop {
        let found = components(run, sessions, installed, true);
        let starting = |status: &ComponentStatus| {
            status.health == Health::Working
                || (status.health == Health::Broken
                    && !status.running.is_empty()
                    && status.since_seconds <= 20)
        };
        if !found.iter().any(starting) || Instant::now() > until || run.context.cancel.is_cancelled() {
            return found;
        }
        std::thread::sleep(SLICE);
    }
}

/// A service, and for the IM core whether it says that it is ready.
type Measured = (UnitFact, Option<Result<(), String>>);

/// State of each role's service, and for the IM core whether it says that it is ready.
fn measure(run: &Run<'_>, agent: &mut Agent, roles: &[Role]) -> Result<Vec<Measured>, EngineError> {
    let names: Vec<String> = roles.iter().map(|role| role.service()).collect();
    let request = Request::Units { names: names.clone(), manager: run.manager() };
    let units = agent.ask("status", &request, UNITS, |reply| match reply {
        Reply::Units { units } => Some(units),
        _ => None,
    })?;
    let mut all = Vec::new();
    for (role, name) in roles.iter().zip(names) {
        let unit = units.iter().find(|unit| unit.name == name).cloned().unwrap_or_default();
        let ready = (*role == Role::Im && unit.active == "active").then(|| ready(run, agent));
        all.push((unit, ready));
    }
    Ok(all)
}

/// Whether the IM core's stores and listeners answer.
fn ready(run: &Run<'_>, agent: &mut Agent) -> Result<(), String> {
    let request = Request::Http {
        socket: format!("tcp:127.0.0.1:{}", run.context.topology.ports.metrics),
        method: "GET".into(),
        path: READY_PATH.into(),
        body: Secret::default(),
    };
    let answer = agent.ask("status", &request, READY, |reply| match reply {
        Reply::Http { status, body } => Some((status, body)),
        _ => None,
    });
    match answer {
        Ok((200, _)) => Ok(()),
        Ok((status, body)) => {
            let text: String =
                body.expose().chars().filter(|letter| !letter.is_control()).take(200).collect();
            Err(format!("not ready ({status}): {text}"))
        }
        Err(error) => Err(format!("does not answer: {}", error.cause)),
    }
}

fn component(
    host: &str,
    role: Role,
    unit: &UnitFact,
    ready: Option<Result<(), String>>,
    installed: &Installed,
) -> ComponentStatus {
    let wanted = installed.versions.get(role.name()).cloned().unwrap_or_default();
    let active = unit.active == "active";
    let running =
        if active { version_of(&unit.artefact).unwrap_or_else(|| wanted.clone()) } else { String::new() };
    let (health, detail) = match (unit.active.as_str(), ready) {
        ("active", Some(Err(why))) => (Health::Broken, why),
        ("active", _) if unit.restarts >= RESTARTS => {
            (Health::Attention, format!("active; restarted {} times on its own", unit.restarts))
        }
        ("active", _) if !wanted.is_empty() && running != wanted => {
            (Health::Attention, format!("active, version {running} where {wanted} is wanted"))
        }
        ("active", _) => (Health::Well, "active".into()),
        ("activating" | "reloading", _) => (Health::Working, "starting".into()),
        ("deactivating", _) => (Health::Working, "stopping".into()),
        ("failed", _) => (Health::Broken, "failed; `maxim.ctl logs` shows why".into()),
        ("inactive", _) => (Health::Broken, "stopped".into()),
        ("", _) => (Health::Unknown, "unknown to the host".into()),
        (other, _) => (Health::Unknown, other.to_owned()),
    };
    ComponentStatus {
        host: host.into(),
        component: role.name().into(),
        wanted,
        running,
        health,
        detail,
        memory: if active { unit.memory } else { 0 },
        since_seconds: if active { unit.since_seconds } else { 0 },
        restarts: unit.restarts,
    }
}

/// The version in `NAME-VERSION-HASH`; the name may hold dashes.
pub(crate) fn version_of(artefact: &str) -> Option<String> {
    let (rest, _hash) = artefact.rsplit_once('-')?;
    let start = rest
        .char_indices()
        .find(|(place, letter)| {
            *letter == '-' && rest[place + 1..].starts_with(|next: char| next.is_ascii_digit())
        })?
        .0;
    Some(rest[start + 1..].to_owned())
}

/// A host in short, from its facts.
pub(crate) fn host_status(session: &Session<'_>, topology: &Topology) -> HostStatus {
    let facts = &session.facts;
    let disk = facts.disks.iter().find(|disk| disk.path == topology.paths.data);
    HostStatus {
        host: session.host.name.clone(),
        address: session.host.address.clone(),
        reached: session.error.is_none(),
        error: session.error.as_ref().map(|error| error.cause.clone()).unwrap_or_default(),
        distribution: facts.distribution.clone(),
        cpus: facts.cpus,
        memory_total: facts.memory_total,
        memory_available: facts.memory_available,
        disk_available: disk.map_or(0, |disk| disk.available),
        disk_total: disk.map_or(0, |disk| disk.total),
    }
}

/// Where people and clients reach a deployment.
pub(crate) fn endpoints(topology: &Topology) -> Endpoints {
    let embedded = topology.profile == Profile::Embedded;
    let mut endpoints = Endpoints::default();
    let url = |address: &str, port: u16| {
        if port == 443 {
            format!("https://{}/", bracket(address))
        } else {
            format!("https://{}:{port}/", bracket(address))
        }
    };
    let reach = |host: &maxim_model::topology::Host| {
        if embedded && topology.listen == "127.0.0.1" {
            "localhost".to_owned()
        } else {
            super::verify::connect_address(topology, host)
        }
    };
    for host in topology.with_role(Role::Im) {
        let address = reach(host);
        endpoints.xmpp.push(super::verify::with_port(&address, topology.ports.xmpp));
        endpoints.xmpp_tls.push(super::verify::with_port(&address, topology.ports.xmpp_tls));
        endpoints.web.push(url(&address, topology.ports.https));
    }
    for host in topology.with_role(Role::Console) {
        endpoints.console.push(url(&reach(host), topology.ports.console));
    }
    endpoints
}

fn bracket(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{component, endpoints, version_of};
    use crate::sample;
    use crate::state::Installed;
    use maxim_model::facts::UnitFact;
    use maxim_model::names::Role;
    use maxim_model::status::Health;

    #[test]
    fn versions_are_read_from_artefacts() {
        assert_eq!(version_of("mariadb-11.8.6-0f3a1b2c3d4e").as_deref(), Some("11.8.6"));
        assert_eq!(version_of("maxim-im-0.1.0-0f3a1b2c3d4e").as_deref(), Some("0.1.0"));
        assert_eq!(version_of("postgresql-17.2-1+b1-0f3a1b2c3d4e").as_deref(), Some("17.2-1+b1"));
        assert_eq!(version_of(""), None);
    }

    #[test]
    fn health_is_what_was_measured() {
        let installed =
            Installed { versions: [("im".to_owned(), "0.1.0".to_owned())].into(), ..Installed::default() };
        let unit = |active: &str, restarts| UnitFact {
            name: "maxim-im".into(),
            active: active.into(),
            artefact: "maxim-im-0.1.0-0f3a1b2c3d4e".into(),
            restarts,
            ..UnitFact::default()
        };
        let health = |unit, ready| component("a", Role::Im, &unit, ready, &installed).health;
        assert_eq!(health(unit("active", 0), Some(Ok(()))), Health::Well);
        assert_eq!(health(unit("active", 5), Some(Ok(()))), Health::Attention);
        assert_eq!(health(unit("active", 0), Some(Err("store".into()))), Health::Broken);
        assert_eq!(health(unit("failed", 0), None), Health::Broken);
        assert_eq!(health(unit("", 0), None), Health::Unknown);
        let old = UnitFact { artefact: "maxim-im-0.0.9-0f3a1b2c3d4e".into(), ..unit("active", 0) };
        let status = component("a", Role::Im, &old, Some(Ok(())), &installed);
        assert_eq!((status.health, status.running.as_str()), (Health::Attention, "0.0.9"));
    }

    #[test]
    fn endpoints_of_both_profiles() {
        let standard = endpoints(&sample::three_hosts());
        assert_eq!(standard.web, ["https://10.77.0.11/"]);
        assert_eq!(standard.console, ["https://10.77.0.11:9443/"]);
        let embedded = endpoints(&sample::embedded(std::path::Path::new("/x")));
        assert_eq!(embedded.xmpp, ["localhost:5222"]);
        assert_eq!(embedded.web, ["https://localhost:8443/"]);
    }
}
