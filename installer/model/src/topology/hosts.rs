//! Hosts and how they are reached: `hosts:`, `ssh:`, jump hosts.
//!
//! A jump is `user@host:port`, or the name of a host of this topology, whose own address, user, port, key and password
//! file are then taken; or a mapping `{host, user, port, key, password_file}`. Its password is never that of the host
//! behind it. One jump is supported; a chain and a cycle are refused by name.

use super::error::{Place, quoted};
use super::read::Reader;
use super::suggest::nearest;
use super::tree::{Node, Value};
use super::values;
use super::{Connection, Host, KnownHosts, Ssh};
use crate::names::{Profile, Role};

/// Hosts that one cluster may have.
const MAXIMUM_HOSTS: usize = 1000;

const SSH_KEYS: [&str; 8] =
    ["user", "port", "key", "sudo", "sudo_password_file", "password_file", "known_hosts", "jump"];
const JUMP_KEYS: [&str; 5] = ["host", "user", "port", "key", "password_file"];
const HOST_KEYS: [&str; 5] = ["name", "address", "roles", "ssh", "connection"];

/// A host with the places of what rules between hosts complain about.
#[derive(Debug, Clone)]
pub(super) struct PlacedHost {
    /// The host.
    pub host: Host,
    /// The whole entry.
    pub place: Place,
    /// Its `roles`, or the entry when there are none.
    pub roles_place: Place,
    /// Each role.
    pub role_places: Vec<Place>,
    /// Whether `roles` was given.
    pub has_roles: bool,
    /// Its `ssh.port`, or the entry.
    pub port_place: Place,
}

/// SSH settings as far as they are given.
#[derive(Debug, Clone, Default)]
pub(super) struct PartialSsh {
    user: Option<String>,
    port: Option<u16>,
    key: Option<String>,
    sudo: Option<bool>,
    sudo_password_file: Option<String>,
    password_file: Option<String>,
    known_hosts: Option<KnownHosts>,
    jump: Option<PartialJump>,
    port_place: Option<Place>,
}

/// A jump as it is given.
#[derive(Debug, Clone)]
struct PartialJump {
    /// A host of the topology, or `user@host:port`.
    text: String,
    place: Place,
    key: String,
    password_file: String,
}

/// Reads one `ssh:` mapping.
pub(super) fn read_ssh(reader: &mut Reader<'_>, node: Option<&Node>, path: &str) -> PartialSsh {
    let mut ssh = PartialSsh::default();
    let Some(node) = node else { return ssh };
    if reader.mapping(node, path, &SSH_KEYS).is_none() {
        return ssh;
    }
    let full = |key: &str| format!("{path}.{key}");
    ssh.user = node.get("user").and_then(|node| reader.checked(node, &full("user"), values::user));
    ssh.port = node.get("port").and_then(|node| port(reader, node, &full("port")));
    ssh.port_place = node.get("port").map(|node| node.place);
    ssh.key = node.get("key").and_then(|node| reader.control_file(node, &full("key")));
    ssh.sudo = node.get("sudo").and_then(|node| reader.boolean(node, &full("sudo")));
    for (key, slot) in
        [("sudo_password_file", &mut ssh.sudo_password_file), ("password_file", &mut ssh.password_file)]
    {
        *slot = node.get(key).and_then(|node| reader.control_file(node, &full(key)));
    }
    ssh.known_hosts = node.get("known_hosts").and_then(|node| {
        let choices = [("strict", KnownHosts::Strict), ("accept-new", KnownHosts::AcceptNew)];
        reader.choice(node, &full("known_hosts"), &choices)
    });
    ssh.jump = node.get("jump").and_then(|node| read_jump(reader, node, &full("jump")));
    ssh
}

fn read_jump(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<PartialJump> {
    if matches!(node.value, Value::Scalar { .. }) {
        let text = reader.text(node, path)?;
        return Some(PartialJump {
            text,
            place: node.place,
            key: String::new(),
            password_file: String::new(),
        });
    }
    reader.mapping(node, path, &JUMP_KEYS)?;
    let full = |key: &str| format!("{path}.{key}");
    let Some(host) = node.get("host") else {
        reader.error(
            node.place,
            format!("`{path}` has no `host`"),
            "name the jump host, as `{host: gate.example, user: ann}`",
        );
        return None;
    };
    let mut text = reader.text(host, &full("host"))?;
    let user = node.get("user").and_then(|node| reader.checked(node, &full("user"), values::user));
    let port = node.get("port").and_then(|node| port(reader, node, &full("port")));
    if text.contains(':') && user.is_some() {
        text = format!("[{text}]");
    }
    if let Some(user) = user {
        text = format!("{user}@{text}");
    }
    if let Some(port) = port {
        text = format!("{text}:{port}");
    }
    let mut file =
        |key: &str| node.get(key).and_then(|node| reader.control_file(node, &full(key))).unwrap_or_default();
    Some(PartialJump { text, place: host.place, key: file("key"), password_file: file("password_file") })
}

/// A port number.
pub(super) fn port(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<u16> {
    reader.integer(node, path, 1, 65_535).and_then(|value| u16::try_from(value).ok())
}

impl PartialSsh {
    /// What is not given here comes from `other`.
    fn or(self, other: &Self) -> Self {
        Self {
            user: self.user.or_else(|| other.user.clone()),
            port: self.port.or(other.port),
            key: self.key.or_else(|| other.key.clone()),
            sudo: self.sudo.or(other.sudo),
            sudo_password_file: self.sudo_password_file.or_else(|| other.sudo_password_file.clone()),
            password_file: self.password_file.or_else(|| other.password_file.clone()),
            known_hosts: self.known_hosts.or(other.known_hosts),
            jump: self.jump.or_else(|| other.jump.clone()),
            port_place: self.port_place.or(other.port_place),
        }
    }

    fn finish(&self) -> Ssh {
        Ssh {
            user: self.user.clone().unwrap_or_else(|| "root".to_owned()),
            port: self.port.unwrap_or(22),
            key: self.key.clone().unwrap_or_default(),
            sudo: self.sudo.unwrap_or(false),
            sudo_password_file: self.sudo_password_file.clone().unwrap_or_default(),
            password_file: self.password_file.clone().unwrap_or_default(),
            known_hosts: self.known_hosts.unwrap_or(KnownHosts::Strict),
            jump: String::new(),
            jump_key: self.jump.as_ref().map(|jump| jump.key.clone()).unwrap_or_default(),
            jump_password_file: self.jump.as_ref().map(|jump| jump.password_file.clone()).unwrap_or_default(),
        }
    }
}

/// Reads `hosts:`.
pub(super) fn read_hosts(
    reader: &mut Reader<'_>,
    node: &Node,
    global: &PartialSsh,
    profile: Profile,
) -> Vec<PlacedHost> {
    let Some(items) = reader.list(node, "hosts") else { return Vec::new() };
    if items.is_empty() {
        reader.error(
            node.place,
            "`hosts` is empty",
            "name at least one host: `- {name: app1, address: 10.77.0.11}`",
        );
    }
    if items.len() > MAXIMUM_HOSTS {
        reader.error(
            node.place,
            format!("{} hosts are too many", items.len()),
            format!("at most {MAXIMUM_HOSTS}"),
        );
        return Vec::new();
    }
    let mut hosts = Vec::new();
    let mut jumps = Vec::new();
    for (index, item) in items.iter().enumerate() {
        if let Some((host, jump)) = read_host(reader, item, index, global, profile) {
            hosts.push(host);
            jumps.push(jump);
        }
    }
    refuse_duplicates(reader, items);
    resolve_jumps(reader, &mut hosts, &jumps);
    hosts
}

/// A jump as written, with its place and whether the host itself asked for it.
type Jump = Option<(String, Place, bool)>;

fn read_host(
    reader: &mut Reader<'_>,
    node: &Node,
    index: usize,
    global: &PartialSsh,
    profile: Profile,
) -> Option<(PlacedHost, Jump)> {
    let path = format!("hosts[{index}]");
    if let Value::Scalar { text, .. } = &node.value
        && !node.is_null()
    {
        reader.error(
            node.place,
            format!("`{path}` must be a mapping, and is a single value"),
            format!(
                "write `{{name: app{}, address: {}}}`",
                index + 1,
                text.chars().take(60).collect::<String>()
            ),
        );
        return None;
    }
    reader.mapping(node, &path, &HOST_KEYS)?;
    for key in ["name", "address"] {
        if node.get(key).is_none() && !Reader::misspelt(node, key, &HOST_KEYS) {
            reader.error(
                node.place,
                format!("`{path}` has no `{key}`"),
                match key {
                    "name" => "every host has a name of its own, as `name: app1`",
                    _ => "give the address under which it is reached, as `address: 10.77.0.11`",
                },
            );
        }
    }
    let name =
        node.get("name").and_then(|node| reader.checked(node, &format!("{path}.name"), values::host_name));
    let address = node
        .get("address")
        .and_then(|node| reader.checked(node, &format!("{path}.address"), values::address));
    let (roles, role_places) = match node.get("roles") {
        Some(list) => read_roles(reader, list, &format!("{path}.roles")),
        None => (Vec::new(), Vec::new()),
    };
    let own = read_ssh(reader, node.get("ssh"), &format!("{path}.ssh"));
    let own_jump = own.jump.is_some();
    let local = match node.get("connection") {
        Some(node) => {
            reader.choice(node, &format!("{path}.connection"), &[("local", true), ("ssh", false)])?
        }
        None => profile == Profile::Embedded,
    };
    if let (true, Some(ssh)) = (local, node.get("ssh")) {
        reader.error(
            ssh.place,
            format!("`{path}.ssh`: a local host is not reached by SSH"),
            "remove `ssh`, or `connection: local`",
        );
    }
    let ssh = own.or(global);
    let jump =
        if local { None } else { ssh.jump.as_ref().map(|jump| (jump.text.clone(), jump.place, own_jump)) };
    let placed = PlacedHost {
        place: node.place,
        roles_place: node.get("roles").map_or(node.place, |node| node.place),
        role_places,
        has_roles: node.get("roles").is_some(),
        port_place: ssh.port_place.unwrap_or(node.place),
        host: Host {
            name: name?,
            address: address?,
            roles,
            connection: if local { Connection::Local } else { Connection::Ssh(ssh.finish()) },
        },
    };
    Some((placed, jump))
}

fn read_roles(reader: &mut Reader<'_>, node: &Node, path: &str) -> (Vec<Role>, Vec<Place>) {
    let mut roles = Vec::new();
    let mut places = Vec::new();
    let Some(items) = reader.list(node, path) else { return (roles, places) };
    if items.is_empty() {
        reader.error(
            node.place,
            format!("`{path}` is empty"),
            "name what the host is for, or remove the host",
        );
    }
    let choices: Vec<(&str, Role)> = Role::ALL.iter().map(|role| (role.name(), *role)).collect();
    for item in items {
        let Some(role) = reader.choice(item, path, &choices) else { continue };
        if roles.contains(&role) {
            reader.error(item.place, format!("the role `{role}` stands twice"), "keep one of them");
        } else {
            roles.push(role);
            places.push(item.place);
        }
    }
    (roles, places)
}

/// Names and addresses, also of entries that have other mistakes.
fn refuse_duplicates(reader: &mut Reader<'_>, items: &[Node]) {
    for key in ["name", "address"] {
        let mut seen: Vec<(String, Place)> = Vec::new();
        for node in items.iter().filter_map(|item| item.get(key)) {
            let Value::Scalar { text, .. } = &node.value else { continue };
            let value = text.to_ascii_lowercase();
            if let Some((_, first)) = seen.iter().find(|(other, _)| *other == value) {
                let first = first.line;
                reader.error(
                    node.place,
                    format!("two hosts have the {key} {}", quoted(text)),
                    if first > 0 {
                        format!("the first is on line {first}; each host has its own")
                    } else {
                        "each host has its own".to_owned()
                    },
                );
            } else {
                seen.push((value, node.place));
            }
        }
    }
}

/// Names of hosts become `user@address:port`; cycles and chains are refused.
fn resolve_jumps(reader: &mut Reader<'_>, hosts: &mut [PlacedHost], jumps: &[Jump]) {
    let names: Vec<String> = hosts.iter().map(|host| host.host.name.clone()).collect();
    let index_of = |text: &str| names.iter().position(|name| name == text);
    let mut in_cycle: Vec<usize> = Vec::new();
    for (index, jump) in jumps.iter().enumerate() {
        let Some((text, place, own)) = jump else { continue };
        let mut inherited = None;
        let resolved = if let Some(target) = index_of(text) {
            if target == index {
                if *own {
                    reader.error(
                        *place,
                        format!("the jump of `{text}` leads through itself"),
                        "name another host, or `user@host:port`",
                    );
                }
                continue; // a jump for all does not hold for the jump host itself
            }
            // Follow the chain by name, to tell a cycle from a chain.
            let mut path = vec![index, target];
            while let Some(next) = path
                .last()
                .and_then(|last| jumps[*last].as_ref())
                .filter(|(next, _, own)| *own || index_of(next) != path.last().copied())
                .and_then(|(next, _, _)| index_of(next))
            {
                let closed = path.contains(&next);
                path.push(next);
                if closed {
                    break;
                }
            }
            if path.len() > 2 {
                // A cycle is told once, at the first of its hosts.
                let told = path.iter().any(|at| *at < index && in_cycle.contains(at));
                in_cycle.extend(path.iter().copied());
                if told {
                    continue;
                }
                let shown: Vec<&str> = path.iter().map(|at| names[*at].as_str()).collect();
                let cycle = path.last().is_some_and(|last| path[..path.len() - 1].contains(last));
                let (message, hint) = if cycle {
                    (
                        format!("the jump hosts form a cycle: {}", shown.join(" → ")),
                        "one of them must be reached directly",
                    )
                } else {
                    (
                        format!("a jump over a jump: {}", shown.join(" → ")),
                        "one jump host is supported; use one that is reached directly",
                    )
                };
                reader.error(*place, message, hint);
                continue;
            }
            match &hosts[target].host.connection {
                Connection::Ssh(ssh) => {
                    inherited = Some((ssh.key.clone(), ssh.password_file.clone()));
                    let address = &hosts[target].host.address;
                    if address.contains(':') {
                        format!("{}@[{address}]:{}", ssh.user, ssh.port)
                    } else {
                        format!("{}@{address}:{}", ssh.user, ssh.port)
                    }
                }
                Connection::Local => continue, // this machine: no jump is needed
            }
        } else {
            match parse_jump(text) {
                Ok(jump) => jump,
                Err(why) => {
                    let hint = match nearest(text, names.iter().map(String::as_str)) {
                        Some(near) => format!("did you mean the host `{near}`?"),
                        None => "the name of a host of this topology, or `user@host:port`".to_owned(),
                    };
                    reader.error(*place, format!("{} is not a jump host: {why}", quoted(text)), hint);
                    continue;
                }
            }
        };
        if let Connection::Ssh(ssh) = &mut hosts[index].host.connection {
            ssh.jump = resolved;
            if let Some((key, password_file)) = inherited {
                if ssh.jump_key.is_empty() {
                    ssh.jump_key = key;
                }
                if ssh.jump_password_file.is_empty() {
                    ssh.jump_password_file = password_file;
                }
            }
        }
    }
}

/// `user@host[:port]`, made whole.
fn parse_jump(text: &str) -> Result<String, String> {
    let Some((user, server)) = text.rsplit_once('@') else {
        return Err("it has no user, and no host of that name is in the topology".to_owned());
    };
    if user.contains(':') {
        return Err("a password does not belong here".to_owned());
    }
    values::user(user).map_err(|wrong| wrong.message)?;
    let (host, port) = match server.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((host, after)) => (host, after.strip_prefix(':')),
        None => server.split_once(':').map_or((server, None), |(host, port)| (host, Some(port))),
    };
    values::address(host).map_err(|wrong| wrong.message)?;
    let port = match port {
        None => 22,
        Some(port) => {
            port.parse::<u16>().ok().filter(|port| *port > 0).ok_or("its port is not 1 to 65535")?
        }
    };
    Ok(if host.contains(':') { format!("{user}@[{host}]:{port}") } else { format!("{user}@{host}:{port}") })
}
