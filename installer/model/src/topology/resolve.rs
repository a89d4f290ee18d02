//! From the tree to the [`Topology`]: defaults filled in, every value and the whole checked.

use super::error::Place;
use super::hosts::{self, PlacedHost};
use super::read::Reader;
use super::tree::Node;
use super::{Capacity, Database, Paths, Ports, Redis, Tls, Topology, rules, settings, values};
use crate::names::{Profile, Role};

const KEYS: [&str; 16] = [
    "api_version",
    "name",
    "domain",
    "profile",
    "capacity",
    "ssh",
    "hosts",
    "tls",
    "database",
    "redis",
    "ports",
    "paths",
    "listen",
    "settings",
    "backup",
    "description",
];

/// Reads the whole document. `root` is where an embedded deployment lives.
pub(super) fn topology(reader: &mut Reader<'_>, root_node: &Node, root: &str) -> Option<Topology> {
    reader.mapping(root_node, "", &KEYS)?;
    let start = Place { line: root_node.place.line, column: root_node.place.column, length: 1, flag: 0 };
    let required = |reader: &mut Reader<'_>, key: &str, hint: &str| {
        if root_node.get(key).is_none() && !Reader::misspelt(root_node, key, &KEYS) {
            reader.error(start, format!("`{key}` is missing"), hint);
        }
    };
    required(reader, "api_version", "begin the file with `api_version: maxim/v1`");
    required(reader, "name", "give the cluster a name, as `name: acme`");
    required(reader, "hosts", "name at least one host: `hosts: [{name: app1, address: 10.77.0.11}]`");
    if let Some(node) = root_node.get("api_version") {
        reader.choice(node, "api_version", &[("maxim/v1", ())]);
    }
    if let Some(node) = root_node.get("description") {
        reader.text(node, "description");
    }
    let profile = root_node
        .get("profile")
        .and_then(|node| {
            let choices = [("standard", Profile::Standard), ("embedded", Profile::Embedded)];
            reader.choice(node, "profile", &choices)
        })
        .unwrap_or(Profile::Standard);
    if profile == Profile::Standard {
        required(reader, "domain", "what accounts end in, as `domain: im.acme.example`");
    }
    let name = root_node.get("name").and_then(|node| reader.checked(node, "name", values::cluster_name));
    let domain = match root_node.get("domain") {
        Some(node) => reader.checked(node, "domain", values::domain),
        None => Some("localhost".to_owned()),
    };
    let global = hosts::read_ssh(reader, root_node.get("ssh"), "ssh");
    let mut hosts = match root_node.get("hosts") {
        Some(node) => hosts::read_hosts(reader, node, &global, profile),
        None => Vec::new(),
    };
    let listen = match root_node.get("listen") {
        Some(node) => reader.checked(node, "listen", values::listen),
        None if profile == Profile::Embedded => Some("127.0.0.1".to_owned()),
        None => Some("0.0.0.0".to_owned()),
    };
    let ports = read_ports(reader, root_node.get("ports"), profile);
    let paths = read_paths(reader, root_node.get("paths"), profile, root);
    let overrides = root_node.get("settings").map(|node| settings::read(reader, node)).unwrap_or_default();
    let capacity = read_capacity(reader, root_node.get("capacity"), profile);
    let tls = read_tls(reader, root_node.get("tls"));
    let database = read_database(reader, root_node.get("database"), profile, &hosts);
    let redis = read_redis(reader, root_node.get("redis"), profile);
    let backup = super::backup::read(reader, root_node.get("backup"));
    let hosts_place = root_node.get("hosts").map_or(start, |node| node.place);
    if reader.errors.is_empty() {
        let places = rules::Places {
            hosts: hosts_place,
            ports: root_node.get("ports"),
            listen: root_node.get("listen").map_or(hosts_place, |node| node.place),
            domain: root_node.get("domain").map_or(start, |node| node.place),
        };
        rules::roles(reader, &mut hosts, &database, &redis, profile, &places);
        rules::ports(reader, &hosts, &ports, &places);
        if profile == Profile::Standard {
            rules::reach(
                reader,
                &hosts,
                domain.as_deref().unwrap_or_default(),
                listen.as_deref().unwrap_or_default(),
                &places,
            );
        }
    }
    Some(Topology {
        name: name?,
        domain: domain?,
        profile,
        capacity,
        hosts: hosts.into_iter().map(|placed| placed.host).collect(),
        tls,
        database,
        redis,
        ports,
        paths,
        listen: listen?,
        settings: overrides,
        backup,
    })
}

fn read_capacity(reader: &mut Reader<'_>, node: Option<&Node>, profile: Profile) -> Capacity {
    let mut capacity = match profile {
        Profile::Embedded => Capacity { users: 100, messages_per_second: 50 },
        Profile::Standard => Capacity { users: 500, messages_per_second: 100 },
    };
    let Some(node) = node else { return capacity };
    if reader.mapping(node, "capacity", &["users", "messages_per_second"]).is_none() {
        return capacity;
    }
    for (key, slot) in
        [("users", &mut capacity.users), ("messages_per_second", &mut capacity.messages_per_second)]
    {
        if let Some(node) = node.get(key)
            && let Some(value) = reader.integer(node, &format!("capacity.{key}"), 1, 1_000_000)
        {
            *slot = u32::try_from(value).unwrap_or(*slot);
        }
    }
    capacity
}

fn read_ports(reader: &mut Reader<'_>, node: Option<&Node>, profile: Profile) -> Ports {
    let mut ports = Ports {
        xmpp: 5222,
        xmpp_tls: 5223,
        https: if profile == Profile::Embedded { 8443 } else { 443 },
        console: 9443,
        metrics: 9280,
        mariadb: 3306,
        postgresql: 5432,
        redis: 6379,
    };
    let Some(node) = node else { return ports };
    let names = ["xmpp", "xmpp_tls", "https", "console", "metrics", "mariadb", "postgresql", "redis"];
    if reader.mapping(node, "ports", &names).is_none() {
        return ports;
    }
    for (key, slot) in [
        ("xmpp", &mut ports.xmpp),
        ("xmpp_tls", &mut ports.xmpp_tls),
        ("https", &mut ports.https),
        ("console", &mut ports.console),
        ("metrics", &mut ports.metrics),
        ("mariadb", &mut ports.mariadb),
        ("postgresql", &mut ports.postgresql),
        ("redis", &mut ports.redis),
    ] {
        if let Some(port) = node.get(key).and_then(|node| hosts::port(reader, node, &format!("ports.{key}")))
        {
            *slot = port;
        }
    }
    ports
}

fn read_paths(reader: &mut Reader<'_>, node: Option<&Node>, profile: Profile, root: &str) -> Paths {
    let root = root.trim_end_matches('/');
    let mut paths = match profile {
        Profile::Standard => Paths {
            software: "/opt/maxim".to_owned(),
            configuration: "/etc/maxim".to_owned(),
            data: "/var/lib/maxim".to_owned(),
            logs: "/var/log/maxim".to_owned(),
            run: "/run/maxim".to_owned(),
        },
        Profile::Embedded => Paths {
            software: root.to_owned(),
            configuration: format!("{root}/etc"),
            data: format!("{root}/data"),
            logs: format!("{root}/log"),
            run: format!("{root}/run"),
        },
    };
    let Some(node) = node else { return paths };
    let names = ["software", "configuration", "data", "logs", "run"];
    let Some(entries) = reader.mapping(node, "paths", &names) else { return paths };
    if profile == Profile::Embedded && !entries.is_empty() {
        reader.error(
            node.place,
            "`paths` cannot be set in the embedded profile",
            "everything lies under one folder there: name it with `--root DIR`",
        );
        return paths;
    }
    let mut set: Vec<(&str, String, Place)> = Vec::new();
    for (key, slot) in [
        ("software", &mut paths.software),
        ("configuration", &mut paths.configuration),
        ("data", &mut paths.data),
        ("logs", &mut paths.logs),
        ("run", &mut paths.run),
    ] {
        let given = node.get(key);
        if let Some(path) =
            given.and_then(|node| reader.checked(node, &format!("paths.{key}"), values::host_path))
        {
            *slot = path;
        }
        let place = given.map_or(node.place, |node| node.place);
        if let Some((other, _, _)) = set.iter().find(|(_, path, _)| {
            *path == *slot || slot.starts_with(&format!("{path}/")) || path.starts_with(&format!("{slot}/"))
        }) {
            reader.error(
                place,
                format!("`paths.{key}` and `paths.{other}` are the same or one in the other"),
                "each has a folder of its own, so that one can be removed without the other",
            );
        }
        set.push((key, slot.clone(), place));
    }
    paths
}

fn read_tls(reader: &mut Reader<'_>, node: Option<&Node>) -> Tls {
    let Some(node) = node else { return Tls::PrivateCa };
    if reader.mapping(node, "tls", &["mode", "cert", "key", "files"]).is_none() {
        return Tls::PrivateCa;
    }
    let nested = node.get("files");
    if let Some(files) = nested {
        reader.mapping(files, "tls.files", &["cert", "key"]);
    }
    let files = match node.get("mode") {
        Some(mode) => {
            reader.choice(mode, "tls.mode", &[("private-ca", false), ("files", true)]).unwrap_or(false)
        }
        None => nested.is_some(),
    };
    let place = |key: &str| node.get(key).or_else(|| nested.and_then(|files| files.get(key)));
    if !files {
        if let Some(extra) = place("cert").or_else(|| place("key")) {
            reader.error(
                extra.place,
                "`tls` names files, and its mode is `private-ca`",
                "write `mode: files`, or remove `cert` and `key`",
            );
        }
        return Tls::PrivateCa;
    }
    let mut read = |key: &str| match place(key) {
        Some(file) => reader.control_file(file, &format!("tls.{key}")),
        None => {
            reader.error(
                node.place,
                format!("`tls` has the mode `files` and no `{key}`"),
                "name two PEM files: `cert:` (the chain) and `key:`",
            );
            None
        }
    };
    let (cert, key) = (read("cert"), read("key"));
    Tls::Files { cert: cert.unwrap_or_default(), key: key.unwrap_or_default() }
}

/// What stands for the engine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Engine {
    Sqlite,
    Mariadb,
    Postgresql,
    External,
}

fn read_database(
    reader: &mut Reader<'_>,
    node: Option<&Node>,
    profile: Profile,
    hosts: &[PlacedHost],
) -> Database {
    let has = |role: Role| hosts.iter().any(|host| host.host.roles.contains(&role));
    let implied = match profile {
        Profile::Embedded => Engine::Sqlite,
        // The role on a host says which engine is meant when `database` does not.
        Profile::Standard if has(Role::Postgresql) && !has(Role::Mariadb) => Engine::Postgresql,
        Profile::Standard => Engine::Mariadb,
    };
    let mut engine = implied;
    let mut external = None;
    if let Some(node) = node
        && reader
            .mapping(node, "database", &["engine", "url", "password_file", "ca_file", "external"])
            .is_some()
    {
        external = node.get("external").or(node.get("url").map(|_| node));
        if let Some(name) = node.get("engine") {
            let choices = [
                ("mariadb", Engine::Mariadb),
                ("postgresql", Engine::Postgresql),
                ("external", Engine::External),
                ("sqlite", Engine::Sqlite),
            ];
            if let Some(chosen) = reader.choice(name, "database.engine", &choices) {
                engine = chosen;
            }
            let fits = match profile {
                Profile::Embedded => engine == Engine::Sqlite,
                Profile::Standard => engine != Engine::Sqlite,
            };
            if !fits {
                let (message, hint) = match profile {
                    Profile::Embedded => (
                        "the embedded profile keeps its data in SQLite",
                        "leave `database` out, or use `profile: standard`",
                    ),
                    Profile::Standard => {
                        ("SQLite serves the embedded profile only", "mariadb, postgresql or external")
                    }
                };
                reader.error(name.place, format!("`database.engine`: {message}"), hint);
            }
        } else if external.is_some() {
            engine = Engine::External;
        }
        match (engine, external) {
            (Engine::External, None) => {
                reader.error(
                    node.place,
                    "`database` is external and has no `url`",
                    "as `url: mysql://im@db.example:3306/im`",
                );
            }
            (Engine::External, Some(_)) | (_, None) => {}
            (_, Some(extra)) => reader.error(
                extra.place,
                "`database` has a `url`, and its engine is not `external`",
                "write `engine: external`, or remove the URL",
            ),
        }
    }
    match (engine, external) {
        (Engine::External, Some(node)) => {
            let (url, password_file, ca_file) = read_external(
                reader,
                node,
                "database",
                &["mysql", "mariadb", "postgresql", "postgres"],
                true,
            );
            Database::External { url, password_file, ca_file }
        }
        (Engine::Sqlite, _) => Database::Sqlite,
        (Engine::Postgresql, _) => Database::Postgresql,
        _ => Database::Mariadb,
    }
}

fn read_redis(reader: &mut Reader<'_>, node: Option<&Node>, profile: Profile) -> Redis {
    let implied = if profile == Profile::Embedded { Redis::Memory } else { Redis::Own };
    let Some(node) = node else { return implied };
    if reader.mapping(node, "redis", &["url", "password_file", "ca_file", "external"]).is_none() {
        return implied;
    }
    let Some(external) = node.get("external").or(node.get("url").map(|_| node)) else {
        if let Some(file) = node.get("password_file") {
            reader.error(
                file.place,
                "`redis.password_file` without `redis.url`",
                "the password of our own Redis is made at install; remove it",
            );
        }
        return implied;
    };
    if profile == Profile::Embedded {
        reader.error(node.place, "the embedded profile keeps live state in memory", "leave `redis` out");
        return implied;
    }
    let (url, password_file, ca_file) = read_external(reader, external, "redis", &["redis", "rediss"], false);
    if url.starts_with("rediss:") && ca_file.is_empty() {
        reader.error(
            external.place,
            "`redis.url` asks for TLS, and there is no `redis.ca_file` to check the server by",
            "name the authority's certificate (PEM) in `ca_file`, or write `redis:` where the network is trusted",
        );
    }
    Redis::External { url, password_file, ca_file }
}

/// URL and password file of a server that somebody else runs.
fn read_external(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &str,
    schemes: &[&str],
    needs_name: bool,
) -> (String, String, String) {
    let inner = node.get("url").is_some();
    // `external: URL` and `external: {url: URL}` mean the same.
    let url_node = if inner { node.get("url") } else { Some(node) };
    if inner {
        reader.mapping(node, path, &["engine", "url", "password_file", "ca_file", "external"]);
    }
    let url = url_node.and_then(|url_node| {
        let full = format!("{path}.url");
        let text = reader.text(url_node, &full)?;
        match values::server_url(&text, schemes) {
            Ok(url) if needs_name && (url.path.is_empty() || url.user.is_empty()) => {
                reader.error(
                    url_node.place,
                    format!("`{full}` has no {}", if url.user.is_empty() { "user" } else { "database name" }),
                    "as `mysql://im@db.example:3306/im`",
                );
                None
            }
            Ok(_) => Some(text),
            Err(wrong) => {
                reader.error(url_node.place, format!("`{full}`: {}", wrong.message), wrong.hint);
                None
            }
        }
    });
    let mut file = |key: &str| {
        node.get(key).and_then(|file| reader.control_file(file, &format!("{path}.{key}"))).unwrap_or_default()
    };
    (url.unwrap_or_default(), file("password_file"), file("ca_file"))
}
