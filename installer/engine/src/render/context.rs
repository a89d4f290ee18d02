//! The values that playbooks and templates see; see the module documentation of [`crate::render`] for the list.

use super::console;
use crate::authority::{Authority, Leaf};
use crate::delivery::Artefacts;
use crate::error::EngineError;
use crate::secrets::Secrets;
use crate::sizing;
use maxim_model::facts::Facts;
use maxim_model::names::{Profile, Role};
use maxim_model::task::ServiceManager;
use maxim_model::topology::settings::SETTINGS;
use maxim_model::topology::{Connection, Database, Host, Redis, Tls, Topology};
use serde_json::{Map, Value, json};
use std::path::Path;

/// What is the same for every host of a run.
pub struct RenderInput<'a> {
    /// The cluster.
    pub topology: &'a Topology,
    /// Root folder of an embedded deployment; none: standard.
    pub root: Option<&'a Path>,
    /// What can be put on hosts.
    pub artefacts: &'a Artefacts,
    /// Names of secrets to have ready.
    pub secret_names: &'a [String],
    /// Uninstall: remove data too.
    pub purge: bool,
    /// Folder below which the states of clusters lie (`XDG_DATA_HOME`), for runs by a schedule.
    pub state_home: &'a str,
    /// Host keys that are pinned, for the console (`known_hosts` text).
    pub known_hosts: &'a str,
}

/// What differs from host to host.
pub struct HostInput<'a> {
    /// The host.
    pub host: &'a Host,
    /// What was measured on it.
    pub facts: &'a Facts,
}

/// Name of the database and of its account.
const DATABASE_NAME: &str = "maxim";

/// User of the services and of their data (standard profile).
pub(crate) const SERVICE_USER: &str = "maxim";
/// User of the console alone: its key and its way to the agent are nothing for the other services.
pub(crate) const CONSOLE_USER: &str = "maxim-console";

/// File on a host that remembers which users, files and folders were made by us.
pub(crate) fn made(topology: &Topology) -> String {
    format!("{}/made-by-maxim", topology.paths.data)
}

/// Builds the context of one host. Secrets and certificates that do not exist yet are made (in memory: the caller
/// saves them before anything is sent).
pub fn context_for(
    input: &RenderInput<'_>,
    host: &HostInput<'_>,
    secrets: &mut Secrets,
    authority: &mut Authority,
) -> Result<Value, EngineError> {
    let topology = input.topology;
    let embedded = topology.profile == Profile::Embedded;
    let root = input.root.map(|path| path.display().to_string()).unwrap_or_default();
    let user = if embedded { "" } else { SERVICE_USER };
    let manager =
        if embedded { ServiceManager::Supervisor { root: root.clone() } } else { ServiceManager::Systemd };
    console::ensure_key(topology, secrets)?;
    crate::backup::ensure_key(topology, secrets)?;
    let secret_values: Map<String, Value> = input
        .secret_names
        .iter()
        .map(|name| (name.clone(), Value::String(secrets.get_or_make(name).expose().to_owned())))
        .collect();
    let run = &topology.paths.run;
    let context = json!({
        "cluster": {
            "name": topology.name,
            "domain": topology.domain,
            "profile": topology.profile,
            "version": env!("CARGO_PKG_VERSION"),
        },
        "host": {
            "name": host.host.name,
            "address": host.host.address,
            "roles": host.host.roles,
            "local": matches!(host.host.connection, Connection::Local),
            "facts": facts_value(host.facts)?,
        },
        "hosts": topology.hosts.iter().map(short).collect::<Vec<_>>(),
        "topology": topology,
        "paths": topology.paths,
        "root": root,
        "ports": topology.ports,
        "listen": topology.listen,
        "listen_host": bracketed(&topology.listen),
        "capacity": topology.capacity,
        "settings": settings(topology),
        "sizing": sizing::sizing(topology, host.host, host.facts),
        "manager": manager,
        "user": user,
        "group": user,
        "console_user": if embedded { "" } else { CONSOLE_USER },
        "made": made(topology),
        "artefacts": input.artefacts,
        "endpoints": endpoints(topology, host.host)?,
        "sockets": {
            "im_admin": format!("{run}/im/admin.sock"),
            "mariadb": format!("{run}/mariadb/mariadb.sock"),
            "postgresql": format!("{run}/postgresql"),
            "redis": format!("{run}/redis/redis.sock"),
        },
        "secrets": secret_values,
        "certificates": certificates(topology, host.host, authority)?,
        "ca_certificate": authority.certificate(),
        "console": console::value(topology, host.host, input.artefacts, input.known_hosts, secrets)?,
        "peers": topology.hosts.iter().filter(|other| other.name != host.host.name)
            .map(|other| other.address.clone()).collect::<Vec<_>>(),
        "backup": backup(input, host.host, secrets)?,
        "purge": input.purge,
    });
    Ok(context)
}

/// `backup` for one host: whether it keeps the repository, when backups are made from there, and who may come for them.
fn backup(input: &RenderInput<'_>, host: &Host, secrets: &Secrets) -> Result<Value, EngineError> {
    let topology = input.topology;
    let here = crate::backup::repository_host(topology).is_some_and(|keeper| keeper.name == host.name);
    let calendars = crate::backup::calendars(topology)?;
    // The control host has the cluster's state itself; another is handed what it needs.
    let own = input.root.is_some() || matches!(host.connection, Connection::Local);
    Ok(json!({
        "here": here,
        "scheduled": here && !calendars.is_empty(),
        "handed_over": here && !own && !calendars.is_empty(),
        "calendars": calendars,
        "state_home": if own { input.state_home.to_owned() } else { crate::backup::home(topology) },
        "state_folder": crate::backup::home(topology),
        "authorized_key": crate::backup::authorized_line(topology, host, input.artefacts, secrets)?,
        "marker": crate::backup::marker(topology),
    }))
}

/// Facts hold a number of nanoseconds that JSON numbers of templates cannot; they need it as text.
fn facts_value(facts: &Facts) -> Result<Value, EngineError> {
    let mut facts = facts.clone();
    facts.clock_unix_nanos = 0;
    serde_json::to_value(&facts).map_err(|error| EngineError::failed("render", error.to_string()))
}

fn short(host: &Host) -> Value {
    json!({"name": host.name, "address": host.address, "roles": host.roles})
}

/// Every setting by its dotted name: the override, else the default of the table.
fn settings(topology: &Topology) -> Value {
    let mut all: Map<String, Value> =
        SETTINGS.iter().map(|setting| (setting.name.to_owned(), setting.default_value())).collect();
    all.extend(topology.settings.iter().map(|(name, value)| (name.clone(), value.clone())));
    Value::Object(all)
}

/// An address as it stands before `:port`.
fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

fn endpoints(topology: &Topology, host: &Host) -> Result<Value, EngineError> {
    let im_elsewhere = |server: Option<&Host>| {
        topology.with_role(Role::Im).any(|im| server.is_some_and(|server| server.name != im.name))
    };
    let own = |role: Role, port: u16| {
        let server = topology.with_role(role).next();
        json!({
            "host": server.map(|server| server.name.clone()).unwrap_or_default(),
            "address": server.map(|server| server.address.clone()).unwrap_or_default(),
            "port": port,
            "local": server.is_some_and(|server| server.name == host.name),
            "remote_clients": im_elsewhere(server),
        })
    };
    let mut database = match &topology.database {
        Database::Mariadb => own(Role::Mariadb, topology.ports.mariadb),
        Database::Postgresql => own(Role::Postgresql, topology.ports.postgresql),
        Database::Sqlite => {
            json!({"host": "", "address": "", "port": 0, "local": true, "remote_clients": false})
        }
        Database::External { url, ca_file, .. } => with_authority(external(url), ca_file)?,
    };
    if let Some(database) = database.as_object_mut() {
        let engine = match &topology.database {
            Database::Mariadb => "mariadb",
            Database::Postgresql => "postgresql",
            Database::Sqlite => "sqlite",
            Database::External { url, .. } if url.starts_with("mysql") || url.starts_with("mariadb") => {
                "mariadb"
            }
            Database::External { .. } => "postgresql",
        };
        database.insert("engine".into(), engine.into());
        database.entry("name").or_insert_with(|| DATABASE_NAME.into());
        database.entry("user").or_insert_with(|| DATABASE_NAME.into());
        database.insert("external".into(), matches!(topology.database, Database::External { .. }).into());
    }
    let mut redis = match &topology.redis {
        Redis::Own => own(Role::Redis, topology.ports.redis),
        Redis::Memory => {
            json!({"host": "", "address": "", "port": 0, "local": true, "remote_clients": false})
        }
        Redis::External { url, ca_file, .. } => with_authority(external(url), ca_file)?,
    };
    if let Some(redis) = redis.as_object_mut() {
        let kind = match &topology.redis {
            Redis::Own => "own",
            Redis::Memory => "memory",
            Redis::External { .. } => "external",
        };
        redis.insert("kind".into(), kind.into());
        redis.insert("external".into(), matches!(topology.redis, Redis::External { .. }).into());
    }
    // Our own servers have certificates of the cluster's authority, which lies on every IM host anyhow.
    for server in [&mut database, &mut redis] {
        if let Some(server) = server.as_object_mut() {
            server.entry("authority").or_insert_with(|| "".into());
            server.entry("user").or_insert_with(|| "".into());
        }
    }
    Ok(json!({
        "database": database,
        "redis": redis,
        "im": topology.with_role(Role::Im).map(|im| im.address.clone()).collect::<Vec<_>>(),
        "im_hosts": topology.with_role(Role::Im).map(|im| json!({"name": im.name, "address": im.address})).collect::<Vec<_>>(),
    }))
}

/// An external server with the authority of its certificate (PEM; empty: no TLS).
fn with_authority(mut server: Value, ca_file: &str) -> Result<Value, EngineError> {
    if !ca_file.is_empty() {
        server["authority"] = read_pem(ca_file)?.into();
    }
    Ok(server)
}

/// Parts of `scheme://user@host:port/name`, which the topology parser has checked.
pub(crate) fn external(url: &str) -> Value {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (user, rest) = rest.split_once('@').unwrap_or(("", rest));
    let (place, name) = rest.split_once('/').unwrap_or((rest, ""));
    let (address, port) = match place.rsplit_once(':') {
        Some((address, port)) if port.chars().all(|digit| digit.is_ascii_digit()) => {
            (address, port.parse().unwrap_or(0_u16))
        }
        _ => (place, 0),
    };
    let port = match (port, scheme) {
        (0, "mysql" | "mariadb") => 3306,
        (0, "postgres" | "postgresql") => 5432,
        (0, _) => 6379,
        (port, _) => port,
    };
    let mut value = json!({
        "host": address, "address": address.trim_matches(['[', ']']), "port": port,
        "local": false, "remote_clients": true, "tls": scheme == "rediss",
    });
    if let Some(object) = value.as_object_mut() {
        if !user.is_empty() {
            object.insert("user".into(), user.into());
        }
        if !name.is_empty() {
            object.insert("name".into(), name.into());
        }
    }
    value
}

/// Certificates of the roles on a host. Clients meet those of `im` and `console`, so those can come from files.
fn certificates(topology: &Topology, host: &Host, authority: &mut Authority) -> Result<Value, EngineError> {
    let mut all = Map::new();
    for role in &host.roles {
        let public = matches!(role, Role::Im | Role::Console);
        let (certificate, key) = match &topology.tls {
            Tls::Files { cert, key } if public => (read_pem(cert)?, read_pem(key)?),
            _ => {
                let Leaf { certificate, key, .. } =
                    authority.leaf(&host.name, role.name(), &names(topology, host, *role))?;
                (certificate, key.expose().to_owned())
            }
        };
        all.insert(role.name().into(), json!({"certificate": certificate, "key": key}));
    }
    Ok(Value::Object(all))
}

fn names(topology: &Topology, host: &Host, role: Role) -> Vec<String> {
    let domain = &topology.domain;
    let mut names = match role {
        Role::Im => vec![domain.clone(), format!("conference.{domain}"), format!("upload.{domain}")],
        Role::Console => vec![domain.clone()],
        _ => Vec::new(),
    };
    names.push(host.name.clone());
    names.push(host.address.clone());
    if topology.profile == Profile::Embedded || matches!(host.connection, Connection::Local) {
        names.push("localhost".into());
        names.push("127.0.0.1".into());
    }
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// A certificate or key that the topology names.
pub(crate) fn read_pem(path: &str) -> Result<String, EngineError> {
    std::fs::read_to_string(path).map_err(|error| {
        EngineError::usage("certificates", format!("{path}: {error}"))
            .hint("`tls.cert`, `tls.key` and `ca_file` of the topology must name readable PEM files on this machine")
    })
}

#[cfg(test)]
mod tests {
    use super::external;

    #[test]
    fn an_external_url_is_taken_apart() {
        let database = external("postgresql://chat@db.acme.example/im");
        assert_eq!(
            (database["user"].as_str(), database["port"].as_u64(), database["name"].as_str()),
            (Some("chat"), Some(5432), Some("im"))
        );
        let redis = external("rediss://[fd00::5]:6390");
        assert_eq!(
            (redis["address"].as_str(), redis["port"].as_u64(), redis["tls"].as_bool()),
            (Some("fd00::5"), Some(6390), Some(true))
        );
    }
}
