//! Rules between values: which roles a cluster needs, which ports may not meet, which addresses cannot work.

use super::error::{Place, quoted};
use super::hosts::PlacedHost;
use super::read::Reader;
use super::tree::Node;
use super::{Connection, Database, Ports, Redis};
use crate::names::{Profile, Role};
use std::net::IpAddr;

/// Places that the rules point at.
pub(super) struct Places<'t> {
    /// `hosts`.
    pub hosts: Place,
    /// `ports`.
    pub ports: Option<&'t Node>,
    /// `listen`, or `hosts`.
    pub listen: Place,
    /// `domain`.
    pub domain: Place,
}

/// Role sets. On a single host the missing roles are added; on several they are asked for.
pub(super) fn roles(
    reader: &mut Reader<'_>,
    hosts: &mut [PlacedHost],
    database: &Database,
    redis: &Redis,
    profile: Profile,
    places: &Places<'_>,
) {
    if profile == Profile::Embedded {
        embedded_roles(reader, hosts, places);
        return;
    }
    let database_role = match database {
        Database::Mariadb => Some(Role::Mariadb),
        Database::Postgresql => Some(Role::Postgresql),
        Database::Sqlite | Database::External { .. } => None,
    };
    let redis_role = (*redis == Redis::Own).then_some(Role::Redis);
    if let [host] = hosts {
        if !host.has_roles {
            host.host.roles = vec![Role::Im, Role::Console];
        }
        for role in [database_role, redis_role].into_iter().flatten() {
            if !host.host.roles.contains(&role) {
                host.host.roles.push(role);
                host.role_places.push(host.roles_place);
            }
        }
    }
    for host in hosts.iter().filter(|host| host.host.roles.is_empty()) {
        reader.error(
            host.place,
            format!("the host `{}` has no roles", host.host.name),
            "say what it is for: `roles: [im]`; known are im, console, mariadb, postgresql, redis",
        );
    }
    let count = |role: Role| hosts.iter().filter(|host| host.host.roles.contains(&role)).count();
    if count(Role::Im) == 0 {
        reader.error(
            places.hosts,
            "no host has the role `im`",
            "without it there is no chat: give it to at least one host",
        );
    }
    for role in [Role::Mariadb, Role::Postgresql, Role::Redis] {
        let wanted = Some(role) == database_role || Some(role) == redis_role;
        match (wanted, count(role)) {
            (true, 0) => {
                let hint = if role == Role::Redis {
                    "give the role `redis` to one host, or name a server of yours: `redis: {url: …}`"
                        .to_owned()
                } else {
                    format!(
                        "give the role `{role}` to one host, or name a server of yours: `database: {{engine: external, url: …}}`"
                    )
                };
                reader.error(places.hosts, format!("no host has the role `{role}`"), hint);
            }
            (false, 1..) => {
                let (place, name) = first_with(hosts, role, places.hosts, 0);
                let (why, hint) = match (role, database) {
                    (Role::Redis, _) => ("`redis` is external", "remove the role, or `redis.url`".to_owned()),
                    (_, Database::External { .. }) => {
                        ("the database is external", "remove the role, or `database.url`".to_owned())
                    }
                    (_, Database::Postgresql) => (
                        "the database is `postgresql`",
                        "one engine serves a cluster: remove the role, or write `database: {engine: mariadb}`".to_owned(),
                    ),
                    _ => (
                        "the database is `mariadb`",
                        "one engine serves a cluster: remove the role, or write `database: {engine: postgresql}`".to_owned(),
                    ),
                };
                reader.error(place, format!("the host `{name}` has the role `{role}`, and {why}"), hint);
            }
            (true, 2..) => {
                let (place, name) = first_with(hosts, role, places.hosts, 1);
                reader.error(
                    place,
                    format!("`{name}` is a second host with the role `{role}`"),
                    "exactly one host has it; replication between several is not supported yet",
                );
            }
            _ => {}
        }
    }
    if count(Role::Console) > 1 {
        let (place, name) = first_with(hosts, Role::Console, places.hosts, 1);
        reader.error(
            place,
            format!("`{name}` is a second host with the role `console`"),
            "one host has the console",
        );
    }
}

/// Place and name of the host number `skip` that has a role.
fn first_with(hosts: &[PlacedHost], role: Role, otherwise: Place, skip: usize) -> (Place, String) {
    hosts
        .iter()
        .filter_map(|host| {
            let at = host.host.roles.iter().position(|other| *other == role)?;
            Some((host.role_places.get(at).copied().unwrap_or(host.roles_place), host.host.name.clone()))
        })
        .nth(skip)
        .unwrap_or((otherwise, String::new()))
}

fn embedded_roles(reader: &mut Reader<'_>, hosts: &mut [PlacedHost], places: &Places<'_>) {
    if let [_, second, ..] = hosts {
        reader.error(
            second.place,
            "the embedded profile is for one machine",
            "remove the other hosts, or use `profile: standard`",
        );
        return;
    }
    let Some(host) = hosts.first_mut() else { return };
    if host.host.connection != Connection::Local {
        reader.error(host.place, "the embedded profile runs on this machine", "remove `connection: ssh`");
    }
    if !host.has_roles {
        host.host.roles = vec![Role::Im, Role::Console];
    }
    for (index, role) in host.host.roles.iter().enumerate() {
        if !matches!(role, Role::Im | Role::Console) {
            let place = host.role_places.get(index).copied().unwrap_or(places.hosts);
            reader.error(
                place,
                format!("the role `{role}` does not exist in the embedded profile"),
                "it keeps its data in SQLite and live state in memory: use im and console",
            );
        }
    }
    if !host.host.roles.contains(&Role::Im) {
        reader.error(host.roles_place, "no host has the role `im`", "without it there is no chat");
    }
}

/// Two services of one host on one port; a service on the port by which the host is reached.
pub(super) fn ports(reader: &mut Reader<'_>, hosts: &[PlacedHost], ports: &Ports, places: &Places<'_>) {
    let all = [
        (Role::Im, "xmpp", ports.xmpp),
        (Role::Im, "xmpp_tls", ports.xmpp_tls),
        (Role::Im, "https", ports.https),
        (Role::Im, "metrics", ports.metrics),
        (Role::Console, "console", ports.console),
        (Role::Mariadb, "mariadb", ports.mariadb),
        (Role::Postgresql, "postgresql", ports.postgresql),
        (Role::Redis, "redis", ports.redis),
    ];
    let place_of = |name: &str| places.ports.and_then(|node| node.get(name)).map(|node| node.place);
    let mut told: Vec<(&str, &str)> = Vec::new();
    for host in hosts {
        let bound: Vec<_> = all.iter().filter(|(role, _, _)| host.host.roles.contains(role)).collect();
        for (index, (_, name, port)) in bound.iter().enumerate() {
            if let Some((_, other, _)) = bound[..index].iter().find(|(_, _, other)| other == port)
                && !told.contains(&(*other, *name))
            {
                told.push((*other, *name));
                let place = place_of(name).or_else(|| place_of(other)).unwrap_or(host.place);
                reader.error(
                    place,
                    format!(
                        "`ports.{other}` and `ports.{name}` are both {port}, and both are on `{}`",
                        host.host.name
                    ),
                    "give one of them another port",
                );
            }
            if let Connection::Ssh(ssh) = &host.host.connection
                && ssh.port == *port
            {
                reader.error(
                    place_of(name).unwrap_or(host.port_place),
                    format!(
                        "`ports.{name}` is {port}, the port by which `{}` is reached by SSH",
                        host.host.name
                    ),
                    "give the service another port",
                );
            }
        }
    }
}

/// Addresses that exist, and cannot work for several hosts.
pub(super) fn reach(
    reader: &mut Reader<'_>,
    hosts: &[PlacedHost],
    domain: &str,
    listen: &str,
    places: &Places<'_>,
) {
    if hosts.len() < 2 {
        return;
    }
    for host in hosts {
        let address = &host.host.address;
        let loopback = address.parse::<IpAddr>().map_or(address == "localhost", |ip| ip.is_loopback());
        if loopback {
            reader.error(
                host.place,
                format!("the address {} of `{}` means each host itself", quoted(address), host.host.name),
                "with several hosts, give the address under which the others reach it",
            );
        }
    }
    if domain == "localhost" {
        reader.error(
            places.domain,
            "the domain `localhost` means each host itself",
            "with several hosts, name a domain as `im.acme.example`",
        );
    }
    if listen.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
        reader.error(
            places.listen,
            format!("`listen` is {}, where no other host and no client can reach it", quoted(listen)),
            "`0.0.0.0`, or an address that all hosts have",
        );
    }
}
