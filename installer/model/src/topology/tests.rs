//! Good topologies: defaults, inference, overrides, jumps, and the text that is kept. (Wrong ones are snapshots of
//! the command line's tests.)

use super::generate;
use super::*;
use std::path::Path;

const THREE: &str = "\
api_version: maxim/v1
name: acme
domain: im.acme.example
hosts:
  - {name: app1, address: 10.77.0.11, roles: [im, console]}
  - {name: db1, address: 10.77.0.12, roles: [mariadb]}
  - {name: cache1, address: 10.77.0.13, roles: [redis]}
";

fn load_with(text: &str, sets: &[&str]) -> Result<Loaded, TopologyErrors> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    load(&Source {
        file: "cluster.yaml",
        text,
        sets: &sets,
        environment: &|name| match name {
            "HOME" => Some("/home/ann".to_owned()),
            "DOMAIN" => Some("chat.example".to_owned()),
            _ => None,
        },
        base: Path::new("/srv/deploy"),
        root: "/home/ann/.local/share/maxim",
    })
}

fn good(text: &str, sets: &[&str]) -> Loaded {
    match load_with(text, sets) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{errors}"),
    }
}

fn wrong(text: &str, sets: &[&str]) -> String {
    load_with(text, sets).expect_err("a mistake").to_string()
}

#[test]
fn defaults_of_the_contract() {
    let topology = good(THREE, &[]).topology;
    assert_eq!(topology.profile, Profile::Standard);
    assert_eq!((topology.ports.xmpp, topology.ports.xmpp_tls, topology.ports.https), (5222, 5223, 443));
    assert_eq!((topology.ports.console, topology.ports.metrics), (9443, 9280));
    assert_eq!(topology.database, Database::Mariadb);
    assert_eq!(topology.redis, Redis::Own);
    assert_eq!(topology.tls, Tls::PrivateCa);
    assert_eq!(topology.listen, "0.0.0.0");
    assert_eq!(topology.paths.data, "/var/lib/maxim");
    let Connection::Ssh(ssh) = &topology.hosts[0].connection else { panic!("by SSH") };
    assert_eq!((ssh.user.as_str(), ssh.port, ssh.known_hosts), ("root", 22, KnownHosts::Strict));
    assert!(ssh.key.is_empty() && !ssh.sudo && ssh.jump.is_empty());
}

#[test]
fn the_example_of_the_contract_is_good() {
    let text = r#"api_version: maxim/v1
name: acme
domain: im.acme.example            # what accounts end in, and the web host
capacity: {users: 5000, messages_per_second: 1000}
ssh: {user: root, port: 22, key: ~/.ssh/id_ed25519, sudo: false, known_hosts: strict}
hosts:
  - {name: app1,   address: 10.77.0.11, roles: [im, console]}
  - {name: db1,    address: 10.77.0.12, roles: [mariadb]}
  - {name: cache1, address: 10.77.0.13, roles: [redis]}
tls: {mode: private-ca}
database: {engine: mariadb}
redis: {}
settings: {}
backup: {schedule: "0 3 * * *", repository: {type: local, path: /var/backups/maxim}, retention: {daily: 7, weekly: 4, monthly: 6}}
"#;
    let loaded = good(text, &[]);
    assert_eq!(loaded.text, text.replace("~/.ssh", "/home/ann/.ssh"));
    let Connection::Ssh(ssh) = &loaded.topology.hosts[0].connection else { panic!("by SSH") };
    assert_eq!(ssh.key, "/home/ann/.ssh/id_ed25519");
    assert_eq!(loaded.topology.backup.schedule, "0 3 * * *");
    assert_eq!(loaded.topology.backup.retention, (7, 4, 6));
}

#[test]
fn one_host_gets_the_stores_it_needs() {
    let text =
        "api_version: maxim/v1\nname: one\ndomain: im.example\nhosts: [{name: a, address: 10.0.0.1}]\n";
    assert_eq!(
        good(text, &[]).topology.hosts[0].roles,
        [Role::Im, Role::Console, Role::Mariadb, Role::Redis]
    );
    let text = text.replace("10.0.0.1}", "10.0.0.1, roles: [im, postgresql]}");
    let topology = good(&text, &[]).topology;
    assert_eq!(topology.database, Database::Postgresql);
    assert_eq!(topology.hosts[0].roles, [Role::Im, Role::Postgresql, Role::Redis]);
}

#[test]
fn embedded_lives_under_its_root() {
    let text = generate::local(Profile::Embedded, "maxim", "laptop", "127.0.0.1", "localhost");
    let topology = good(&text, &[]).topology;
    assert_eq!(topology.database, Database::Sqlite);
    assert_eq!(topology.redis, Redis::Memory);
    assert_eq!(topology.hosts[0].connection, Connection::Local);
    assert_eq!((topology.listen.as_str(), topology.ports.https), ("127.0.0.1", 8443));
    assert_eq!(topology.paths.data, "/home/ann/.local/share/maxim/data");
}

#[test]
fn overrides_are_checked_and_written_into_the_text() {
    let sets = [
        "ports.xmpp=15222",
        "domain=chat.example",
        "hosts.db1.ssh.port=2222",
        "settings.im.registration.in_band=true",
    ];
    let loaded = good(THREE, &sets);
    assert_eq!(loaded.topology.ports.xmpp, 15222);
    assert_eq!(loaded.topology.domain, "chat.example");
    let Connection::Ssh(ssh) = &loaded.topology.hosts[1].connection else { panic!("by SSH") };
    assert_eq!(ssh.port, 2222);
    assert_eq!(good(&loaded.text, &[]).topology, loaded.topology);
    let error = wrong(THREE, &["ports.xmpp=0"]);
    assert!(error.contains("--set ports.xmpp=0") && error.contains("1 to 65535"), "{error}");
    let error = wrong(THREE, &["hosts.db2.address=10.0.0.1"]);
    assert!(error.contains("did you mean `db1`?"), "{error}");
    let error = wrong(THREE, &["redis.password=planted-9"]);
    assert!(!error.contains("planted"), "{error}");
    let error = wrong(THREE, &["ssh.jump.x.y=1", "prots.xmpp=1", "nonsense"]);
    assert!(error.contains("`ports`") && error.contains("KEY=VALUE"), "{error}");
}

#[test]
fn a_flag_is_expanded_too() {
    let loaded = good(THREE, &["ssh.key=~/keys/id", "domain=im.${DOMAIN}"]);
    assert!(
        loaded.text.contains("/home/ann/keys/id") && loaded.text.contains("domain: im.chat.example"),
        "{}",
        loaded.text
    );
    assert_eq!(load_stored(&loaded.text, "/home/ann/.local/share/maxim").ok(), Some(loaded.topology));
}

#[test]
fn lists_can_be_set_and_the_text_means_the_same() {
    let loaded = good(
        THREE,
        &[
            "hosts.app1.roles=[im]",
            "backup={schedule: \"0 4 * * *\", repository: {type: local, path: /srv/b}}",
        ],
    );
    assert_eq!(loaded.topology.hosts[0].roles, [Role::Im]);
    assert_eq!(good(&loaded.text, &[]).topology, loaded.topology);
}

#[test]
fn the_environment_is_expanded_and_kept_out_of_the_stored_text() {
    let text =
        THREE.replace("im.acme.example", "\"im.${DOMAIN}\"").replace("hosts:", "ssh: {key: keys/id}\nhosts:");
    let loaded = good(&text, &[]);
    assert_eq!(loaded.topology.domain, "im.chat.example");
    let Connection::Ssh(ssh) = &loaded.topology.hosts[0].connection else { panic!("by SSH") };
    assert_eq!(ssh.key, "/srv/deploy/keys/id");
    assert!(loaded.text.contains("domain: im.chat.example") && loaded.text.contains("/srv/deploy/keys/id"));
}

#[test]
fn a_jump_may_be_a_host_of_the_topology() {
    let text = THREE.replace("hosts:", "ssh: {user: deploy, jump: app1}\nhosts:");
    let topology = good(&text, &[]).topology;
    let jumps: Vec<&str> = topology
        .hosts
        .iter()
        .map(|host| match &host.connection {
            Connection::Ssh(ssh) => ssh.jump.as_str(),
            Connection::Local => "local",
        })
        .collect();
    assert_eq!(jumps, ["", "deploy@10.77.0.11:22", "deploy@10.77.0.11:22"]);
}

#[test]
fn a_jump_has_credentials_of_its_own() {
    let read = |jump: &str| {
        let ssh =
            format!("ssh: {{user: deploy, key: /k/hosts, password_file: /k/password, jump: {jump}}}\nhosts:");
        let topology = good(&THREE.replace("hosts:", &ssh), &[]);
        match &topology.topology.hosts[1].connection {
            Connection::Ssh(ssh) => (ssh.jump.clone(), ssh.jump_key.clone(), ssh.jump_password_file.clone()),
            Connection::Local => panic!("by SSH"),
        }
    };
    let own =
        read("{host: gate.example, user: ann, port: 2222, key: /k/gate, password_file: /k/gate-password}");
    assert_eq!(own, ("ann@gate.example:2222".into(), "/k/gate".into(), "/k/gate-password".into()));
    assert_eq!(read("ann@gate.example"), ("ann@gate.example:22".into(), String::new(), String::new()));
    // A host of the topology is reached as it always is.
    let named = read("app1");
    assert_eq!(named, ("deploy@10.77.0.11:22".into(), "/k/hosts".into(), "/k/password".into()));
    let error = wrong(&THREE.replace("hosts:", "ssh: {jump: {user: ann}}\nhosts:"), &[]);
    assert!(error.contains("has no `host`"), "{error}");
}

#[test]
fn addresses_alone_make_a_topology() {
    for (count, roles) in
        [(1, "im console mariadb redis"), (2, "im console"), (3, "im console"), (10, "im console")]
    {
        let addresses: Vec<String> = (1..=count).map(|n| format!("10.77.0.{n}")).collect();
        let text = generate::nodelist(&addresses).unwrap_or_else(|errors| panic!("{errors}"));
        let topology = good(&text, &[]).topology;
        let first: Vec<&str> = topology.hosts[0].roles.iter().map(|role| role.name()).collect();
        assert_eq!(first.join(" "), roles);
        assert_eq!(topology.with_role(Role::Mariadb).count(), 1);
    }
    assert!(generate::nodelist(&["10.0.0.1".into(), "10.0.0.1".into()]).is_err());
}

#[test]
fn bombs_and_depth_are_refused_without_exhausting_anything() {
    let bomb = "a: &a [x, x]\nb: &b [*a, *a]\n";
    assert!(wrong(bomb, &[]).contains("anchors"));
    let deep = format!("a: {}", "[".repeat(200_000));
    let error = wrong(&deep, &[]);
    assert!(error.contains("levels deep"), "{error}");
    let long = format!("name: {}", "x".repeat(2_000_000));
    assert!(wrong(&long, &[]).contains("too many"));
}

#[test]
fn a_secret_in_the_file_is_refused_and_never_shown() {
    for line in [
        "ssh: {password: planted-5}",
        "database: {engine: external, url: \"mysql://im:planted-5@db/im\"}",
        "redis:\n  password: planted-5",
    ] {
        let error = wrong(&format!("{THREE}{line}\n"), &[]);
        assert!(!error.contains("planted"), "{error}");
        assert!(error.contains("_file"), "{error}");
    }
}

#[test]
fn redis_by_tls_wants_an_authority() {
    let three = THREE.replace("  - {name: cache1, address: 10.77.0.13, roles: [redis]}\n", "");
    let of =
        |rest: &str| format!("{three}redis: {{external: {{url: 'rediss://cache.example:6379'{rest}}}}}\n");
    assert!(wrong(&of(""), &[]).contains("ca_file"));
    good(&of(", ca_file: ca.pem"), &[]);
}
