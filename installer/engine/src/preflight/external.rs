//! External services: a database or Redis that somebody else runs is used from every IM host as the IM core would use it:
//! TLS, sign-in, version, rights. That it can be reached at all is told by the checks of the network.

use super::Check;
use crate::fleet;
use crate::phases::plan::read_password;
use crate::render::context::external;
use crate::run::{Run, Session};
use maxim_model::Secret;
use maxim_model::check::{CheckResult, Verdict};
use maxim_model::names::Role;
use maxim_model::topology::{Database, Redis, Topology};
use maxim_model::wire::{ExternalKind, ExternalResult, ExternalServer, Reply, Request};
use std::time::Duration;

/// For each server.
const PATIENCE_MILLIS: u64 = 8_000;

/// Uses every external server from every IM host that was reached.
pub(super) fn probe(run: &Run<'_>, sessions: &mut [Session<'_>]) -> Vec<CheckResult> {
    let servers = match servers(&run.context.topology) {
        Ok(servers) if servers.is_empty() => return Vec::new(),
        Ok(servers) => servers,
        Err((what, cause)) => {
            return vec![
                Check::new("external.credentials", "", &what)
                    .measured(cause)
                    .why("the IM core signs in with it")
                    .fix("name readable files with `password_file` and `ca_file`")
                    .verdict(Verdict::Block),
            ];
        }
    };
    let found = fleet::for_each(sessions.iter_mut(), run.context.concurrency, |session| {
        if session.error.is_some() || !session.host.roles.contains(&Role::Im) {
            return Vec::new();
        }
        let request = Request::Externals { servers: servers.clone(), timeout_ms: PATIENCE_MILLIS };
        let wait = Duration::from_millis(PATIENCE_MILLIS * servers.len() as u64) + Duration::from_secs(5);
        let results = session.reader.as_mut().and_then(|agent| {
            agent
                .ask("external", &request, wait, |reply| match reply {
                    Reply::Externals { results } => Some(results),
                    _ => None,
                })
                .ok()
        });
        let results = results.unwrap_or_default();
        servers
            .iter()
            .enumerate()
            .map(|(place, server)| judge(&session.host.name, server, results.get(place)))
            .collect()
    });
    found.into_iter().flatten().collect()
}

/// The external servers of a topology; what is wrong with the files that belong to one.
fn servers(topology: &Topology) -> Result<Vec<ExternalServer>, (String, String)> {
    let mut all = Vec::new();
    if let Database::External { url, password_file, ca_file } = &topology.database {
        let kind = if url.starts_with("postgres") { ExternalKind::Postgresql } else { ExternalKind::Mariadb };
        all.push(server(kind, url, password_file, ca_file)?);
    }
    if let Redis::External { url, password_file, ca_file } = &topology.redis {
        all.push(server(ExternalKind::Redis, url, password_file, ca_file)?);
    }
    Ok(all)
}

fn server(
    kind: ExternalKind,
    url: &str,
    password_file: &str,
    ca_file: &str,
) -> Result<ExternalServer, (String, String)> {
    let wrong = |cause: String| (format!("files for the external {}", name(kind)), cause);
    let parts = external(url);
    let text = |key: &str| parts[key].as_str().unwrap_or_default().to_owned();
    let password = match password_file {
        "" => Secret::default(),
        file => read_password(file).map_err(|error| wrong(error.cause))?,
    };
    let authority = match ca_file {
        "" => String::new(),
        file => std::fs::read_to_string(file).map_err(|error| wrong(format!("{file}: {error}")))?,
    };
    Ok(ExternalServer {
        kind,
        host: text("address"),
        port: parts["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_default(),
        user: text("user"),
        password,
        database: text("name"),
        authority,
    })
}

const fn name(kind: ExternalKind) -> &'static str {
    match kind {
        ExternalKind::Mariadb => "MariaDB or MySQL",
        ExternalKind::Postgresql => "PostgreSQL",
        ExternalKind::Redis => "Redis",
    }
}

/// The oldest version that the IM core is made for.
fn oldest(kind: ExternalKind, version: &str) -> (u32, u32) {
    match kind {
        ExternalKind::Mariadb if version.to_ascii_lowercase().contains("mariadb") => (10, 5),
        ExternalKind::Mariadb => (8, 0),
        ExternalKind::Postgresql => (13, 0),
        ExternalKind::Redis => (6, 2),
    }
}

/// The first two numbers of a version.
fn numbers(version: &str) -> (u32, u32) {
    // A prefix by which MariaDB hides its version from old replicas.
    let version = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut parts =
        version.split(|letter: char| !letter.is_ascii_digit()).map(|part| part.parse().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

fn judge(host: &str, server: &ExternalServer, found: Option<&ExternalResult>) -> CheckResult {
    let kind = name(server.kind);
    let place = crate::phases::verify::with_port(&server.host, server.port);
    let (major, minor) = oldest(server.kind, found.map_or("", |found| found.version.as_str()));
    let check = |id: &str| {
        Check::new(id, host, &format!("external {kind} at {place}"))
            .threshold(format!("sign-in, version {major}.{minor} or newer, all rights in its database"))
            .why("the IM core keeps everything there, and starts only when it can")
    };
    let user =
        if server.user.is_empty() { "without a user".to_owned() } else { format!("as {}", server.user) };
    let Some(found) = found else {
        return check("external.service").measured("could not be tried").verdict(Verdict::Block);
    };
    match found.failed.as_str() {
        "" if numbers(&found.version) < (major, minor) => check("external.version")
            .measured(format!("version {}", found.version))
            .fix("upgrade that server, or let Maxim run its own: leave `external` out")
            .verdict(Verdict::Block),
        "" if server.authority.is_empty() => check("external.tls")
            .measured(format!("version {}, {user}, without TLS", found.version))
            .fix("let that server speak TLS, and name the authority of its certificate with `ca_file`")
            .verdict(Verdict::Warn),
        "" => check("external.service")
            .measured(format!("version {}, {user}, in {} ms", found.version, found.millis))
            .verdict(Verdict::Pass),
        "rights" => check("external.rights")
            .measured(format!("{user}: {}", found.cause))
            .fix(match server.kind {
                ExternalKind::Redis => "allow this user SET, DEL, EVAL and PUBLISH on all keys and channels".to_owned(),
                _ => format!("grant {} all rights in the database {}", server.user, server.database),
            })
            .verdict(Verdict::Block),
        _ => check("external.credentials")
            .measured(format!("{user}: {}", found.cause))
            .fix("compare user, `password_file`, database and `ca_file` with what that server has; and may this host sign in there?")
            .verdict(Verdict::Block),
    }
}

#[cfg(test)]
mod tests {
    use super::{judge, numbers, servers};
    use crate::sample;
    use maxim_model::check::Verdict;
    use maxim_model::topology::{Database, Redis};
    use maxim_model::wire::ExternalResult;

    #[test]
    fn each_outcome_has_its_own_check_and_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "planted-7431\n").unwrap();
            path.display().to_string()
        };
        let mut topology = sample::three_hosts();
        topology.database = Database::External {
            url: "postgresql://chat@db.acme.example/im".into(),
            password_file: file("password"),
            ca_file: String::new(),
        };
        topology.redis = Redis::External {
            url: "redis://10.0.0.9:6390".into(),
            password_file: String::new(),
            ca_file: file("ca"),
        };
        let servers = servers(&topology).unwrap();
        assert_eq!(
            (servers[0].port, servers[0].user.as_str(), servers[0].database.as_str()),
            (5432, "chat", "im")
        );
        assert_eq!((servers[1].port, servers[1].host.as_str()), (6390, "10.0.0.9"));
        let outcome = |place: usize, version: &str, failed: &str| {
            let found = ExternalResult {
                version: version.into(),
                failed: failed.into(),
                cause: "no".into(),
                millis: 3,
            };
            let result = judge("app1", &servers[place], Some(&found));
            assert!(!format!("{result:?}").contains("planted"), "{result:?}");
            (result.id, result.verdict)
        };
        assert_eq!(outcome(0, "17.2", ""), ("external.tls".into(), Verdict::Warn));
        assert_eq!(outcome(1, "8.0.2", ""), ("external.service".into(), Verdict::Pass));
        assert_eq!(outcome(1, "6.0.16", ""), ("external.version".into(), Verdict::Block));
        assert_eq!(outcome(0, "17.2", "rights"), ("external.rights".into(), Verdict::Block));
        assert_eq!(outcome(0, "", "connect"), ("external.credentials".into(), Verdict::Block));
        assert_eq!(judge("app1", &servers[0], None).verdict, Verdict::Block);
        topology.redis = Redis::External {
            url: "redis://x".into(),
            password_file: "/nonexistent".into(),
            ca_file: String::new(),
        };
        assert!(super::servers(&topology).unwrap_err().1.contains("/nonexistent"));
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert_eq!(numbers("11.8.6-MariaDB-1"), (11, 8));
        assert_eq!(numbers("5.5.5-10.11.2-MariaDB"), (10, 11));
        assert_eq!(numbers("8.0.36"), (8, 0));
        assert_eq!(numbers("15.6 (Debian 15.6-0+deb12u1)"), (15, 6));
    }
}
