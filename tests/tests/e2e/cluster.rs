//! The standard profile on bare, air-gapped hosts: install from one bundle, prove it by a message, change
//! nothing twice, survive restarts, leave nothing.

use crate::delivery::{restarts_gracefully, survives_kills};
use crate::demonstration::{people_chat, services_are_sandboxed};
use crate::product::{
    FORCED, Outcome, Person, authority, cluster_file, delivered, first_account, install_arguments, sign_in,
};
use crate::stores::{plain_text_is_refused, postgresql_refuses_plain_text};
use maxim_tests::chat::{Chat, Server, Tls};
use maxim_tests::hosts::{
    Host, HostSpec, Release, SUDO_PASSWORD, Snapshot, Testbed, USER_SUDO_FREE, USER_SUDO_PASSWORD, wait_for,
};
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

/// A person, hosts, and the topology for them.
pub struct Cluster {
    /// Dropped first: hosts outlive nobody who works on them.
    pub person: Person,
    /// The hosts.
    pub testbed: Testbed,
    /// The topology.
    pub file: String,
}

impl Cluster {
    /// Bare hosts with these names and roles, and a topology.
    pub fn bare(hosts: &[(HostSpec, &str)], extra: &str) -> Self {
        Self::with_spares(hosts, &[], extra)
    }

    /// The same with bare hosts beside them that the topology does not know.
    pub fn with_spares(hosts: &[(HostSpec, &str)], spares: &[&str], extra: &str) -> Self {
        let specs = hosts.iter().map(|(spec, _)| spec.clone());
        let specs: Vec<_> = specs.chain(spares.iter().map(|name| HostSpec::new(name))).collect();
        let roles: Vec<_> = hosts.iter().map(|(_, roles)| *roles).collect();
        let testbed = Testbed::up(&specs).unwrap();
        let person = Person::new();
        let file = cluster_file(&person, &testbed, &roles, extra);
        Self { person, testbed, file }
    }

    /// The cluster of the contract: application, database and cache on three hosts.
    pub fn of_three() -> Self {
        Self::bare(
            &[
                (HostSpec::new("app1"), "im+console"),
                (HostSpec::new("db1"), "mariadb"),
                (HostSpec::new("cache1"), "redis"),
            ],
            "",
        )
    }

    /// Everything on one host.
    pub fn of_one() -> Self {
        Self::bare(&[(HostSpec::new("solo"), ALL)], "")
    }

    /// Runs the install.
    pub fn install(&self) -> Outcome {
        let arguments = install_arguments(&self.file);
        let started = Instant::now();
        let outcome = self.person.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        println!("install on {} hosts: {:?}", self.testbed.hosts().len(), started.elapsed());
        outcome
    }

    /// Runs another command on the cluster, with events.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.person.run(&[arguments, &["-f", &self.file, "--output", "json"]].concat())
    }

    /// Waits until every component is well, as `status` measures it, and gives what it said.
    #[track_caller]
    pub fn wait_well(&self) -> Value {
        until_well(|| self.run(&["status"]))
    }

    /// Makes an account through the command line.
    #[track_caller]
    pub fn add_user(&self, name: &str, password: &str) -> String {
        let address = format!("{name}@{DOMAIN}");
        let add = ["user", "add", &address, "--password-stdin", "-f", &self.file];
        self.person.run_with(&add, &format!("{password}\n")).ok();
        address
    }

    /// Signs in at an address of this cluster; the error is the server's.
    pub fn try_sign_in(&self, at: &str, address: &str, password: &str) -> anyhow::Result<Chat> {
        let authority = authority(&self.person, &["-f", &self.file]);
        let (user, domain) = address.split_once('@').unwrap();
        Chat::sign_in(&Server { at, tls: Tls::Start, domain, authority: &authority }, user, password)
    }

    /// Adds an account, signs in with it and the first one, and exchanges messages through the deployed path.
    pub fn chat(&self, result: &Value, word: &str) {
        let (admin, password) = first_account(result);
        let other = self.add_user(word, "quite a secret");
        let here = ["-f", self.file.as_str()];
        let mut first =
            sign_in(&self.person, &endpoint(result, "xmpp", 0), Tls::Start, &admin, &password, &here);
        // On another node, where there is one.
        let at = endpoint(result, "xmpp_tls", 1);
        let mut second = sign_in(&self.person, &at, Tls::Direct, &other, "quite a secret", &here);
        first.ping().unwrap();
        second.ping().unwrap();
        second.say(&admin, &format!("{word} says hello")).unwrap();
        first.hear(&format!("{word} says hello"), Duration::from_secs(10)).unwrap();
        first.say(&other, &format!("welcome {word}")).unwrap();
        second.hear(&format!("welcome {word}"), Duration::from_secs(10)).unwrap();
    }
}

/// What accounts of the test clusters end in.
pub const DOMAIN: &str = "im.acme.example";

/// The endpoint of a kind with this number; with fewer of them it starts again from the first.
#[track_caller]
pub fn endpoint(result: &Value, kind: &str, number: usize) -> String {
    let list = result["endpoints"][kind].as_array().unwrap();
    list[number % list.len()].as_str().unwrap().to_owned()
}

/// Every role on one host.
pub const ALL: &str = "im+console+mariadb+redis";

/// What changed on a host apart from the agent's own copy in its private folder, which a run may leave.
pub fn beside_the_agent(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    before
        .changes_to(after)
        .iter()
        .filter(|change| change.path != "/opt/maxim" && !change.path.starts_with("/opt/maxim/agent"))
        .map(ToString::to_string)
        .collect()
}

/// Asks for the status until every component is well, and gives what it said. On a busy machine one may not answer in time.
#[track_caller]
pub fn until_well(status: impl Fn() -> Outcome) -> Value {
    let mut last = Value::Null;
    let well = wait_for("every component to be well", Duration::from_mins(3), || {
        last = status().result();
        is_well(&last).then_some(())
    });
    assert!(well.is_ok(), "{last:#}");
    last
}

/// Whether a result says that every component is there and well.
pub fn is_well(result: &Value) -> bool {
    result["components"].as_array().is_some_and(|components| {
        !components.is_empty() && components.iter().all(|one| one["health"] == "well" && one["running"] != "")
    })
}

#[test]
fn services_hosts_and_everything_restart_without_help() {
    let cluster = Cluster::of_three();
    let result = cluster.install().ok().result();
    let at = endpoint(&result, "xmpp", 0);
    restarts_gracefully(&cluster, &at);
    survives_kills(&cluster, &at, &[("app1", "maxim-im"), ("db1", "maxim-mariadb")], "three");
    for (host, service) in [
        ("cache1", "maxim-redis"),
        ("db1", "maxim-mariadb"),
        ("app1", "maxim-im"),
        ("app1", "maxim-console"),
        ("app1", "maxim.target"),
    ] {
        cluster.testbed.host(host).sh(&format!("systemctl restart {service}")).unwrap();
        cluster.wait_well();
    }
    for host in cluster.testbed.hosts() {
        host.reboot().unwrap();
        cluster.wait_well();
    }
    cluster.chat(&result, "grace");
    // All at once, without warning.
    cluster.testbed.each(|host| host.power_off_hard()).unwrap();
    cluster.testbed.each(|host| host.boot()).unwrap();
    cluster.wait_well();
    cluster.chat(&result, "edsger");

    cluster.run(&["stop"]).ok();
    let status = cluster.run(&["status"]).result();
    assert!(status["components"].as_array().unwrap().iter().all(|one| one["health"] != "well"), "{status:#}");
    cluster.run(&["start"]).ok();
    cluster.wait_well();
    cluster.run(&["restart"]).ok();
    cluster.wait_well();
}

/// What hosts were before anything was installed.
pub struct Before(Vec<(Snapshot, String)>);

impl Before {
    /// What these hosts are now.
    pub fn of(hosts: &[Host]) -> Self {
        Self(hosts.iter().map(|host| (host.snapshot().unwrap(), host.live_state().unwrap())).collect())
    }

    /// Purges, and sees that files, units, users, groups, kernel settings and firewall are as they were.
    #[track_caller]
    fn is_back_after_a_purge(&self, cluster: &Cluster) {
        self.is_back_after(cluster.testbed.hosts(), || {
            cluster.run(&["uninstall", "--purge", "--yes"]).ok();
        });
    }

    /// The same by whatever purges these hosts.
    #[track_caller]
    pub fn is_back_after(&self, hosts: &[Host], purge: impl FnOnce()) {
        for (host, (before, _)) in hosts.iter().zip(&self.0) {
            assert!(!before.changes_to(&host.snapshot().unwrap()).is_empty());
        }
        purge();
        for (host, (before, live)) in hosts.iter().zip(&self.0) {
            let changes = before.changes_to(&host.snapshot().unwrap());
            let shown: Vec<_> = changes.iter().map(ToString::to_string).collect();
            assert!(shown.is_empty(), "left on {}:\n{}", host.name(), shown.join("\n"));
            let now = host.live_state().unwrap();
            assert!(now.contains("sysctl /proc/sys/net/core/somaxconn:") && now.contains("user root:"));
            let both = |one: &str, other: &str| {
                one.lines()
                    .filter(|line| !other.lines().any(|same| same == *line))
                    .map(str::to_owned)
                    .collect()
            };
            let (new, gone): (Vec<String>, Vec<String>) = (both(&now, live), both(live, &now));
            assert!(new.is_empty() && gone.is_empty(), "{}: new {new:#?}, gone {gone:#?}", host.name());
        }
    }
}

/// Three hosts that are known by their addresses only, and whose kernel takes settings.
#[test]
fn a_list_of_addresses_is_enough_and_a_purge_leaves_hosts_as_they_were() {
    let specs = ["one", "two", "three"].map(|name| HostSpec::new(name).kernel_settings());
    let testbed = Testbed::up(&specs).unwrap();
    let (hosts, person) = (testbed.hosts(), Person::new());
    fs::create_dir_all(person.home().join(".ssh")).unwrap();
    fs::copy(testbed.known_hosts(), person.home().join(".ssh/known_hosts")).unwrap();
    let before = Before::of(hosts);
    let addresses: Vec<_> = hosts.iter().map(Host::address).collect();
    let key = format!("ssh.key={}", testbed.key().display());
    let mut install = vec!["install", "--yes", "--output", "json", "--nodelist"];
    install.extend(addresses.iter().map(String::as_str));
    install.extend(["--set", "domain=im.acme.example", "--set", "ssh.known_hosts=strict", "--set", &key]);
    install.extend(["--set", "capacity.users=200", "--set", "capacity.messages_per_second=100"]);
    install.extend(FORCED);
    let install = || person.run(&delivered(&install));

    let outcome = install().ok();
    let result = outcome.result();
    assert!(is_well(&result), "{result:#}");
    assert_eq!(result["domain"], "im.acme.example");
    assert!(outcome.events().iter().any(|event| event["event"] == "canary"), "proven by a message");
    for (host, services) in hosts.iter().zip([&["im", "console"][..], &["mariadb"], &["redis"]]) {
        for service in services {
            host.sh(&format!("systemctl is-active maxim-{service}")).unwrap();
        }
    }
    // Of this cluster alone nothing has to be said.
    until_well(|| person.run(&["status", "--output", "json"]));
    kernel_settings_are_made(&hosts[0], &hosts[2]);
    plain_text_is_refused(&person, &testbed, ("one", "two", "three"));
    let again = install().ok();
    assert_eq!(again.changes(), 0, "{}", again.stdout);
    before.is_back_after(hosts, || {
        person.run(&["uninstall", "--purge", "--yes"]).ok();
    });
}

/// What the drop-ins say is so in the kernel, where it was otherwise before.
fn kernel_settings_are_made(app: &Host, cache: &Host) {
    let value = |host: &Host, name: &str| {
        host.sh(&format!("cat /proc/sys/{}", name.replace('.', "/"))).unwrap().trim().to_owned()
    };
    let mut made = 0;
    for host in [app, cache] {
        let written = host.sh("cat /etc/sysctl.d/90-maxim*.conf").unwrap();
        for line in written.lines().filter(|line| !line.starts_with('#')) {
            let (name, wanted) = line.split_once(" = ").unwrap();
            assert_eq!(value(host, name), wanted, "{name} on {}", host.name());
            let before = format!("# before: {name} = ");
            let before = written.lines().find_map(|line| line.strip_prefix(&before));
            made += usize::from(before.is_some_and(|before| before != wanted));
        }
    }
    assert!(made >= 2, "{made} settings were another before");
}

#[test]
fn an_uninstall_keeps_the_data_and_an_install_finds_it() {
    let cluster = Cluster::of_one();
    let solo = cluster.testbed.host("solo");
    let (before, live) = (solo.snapshot().unwrap(), solo.live_state().unwrap());
    let result = cluster.install().ok().result();
    services_are_sandboxed(solo, 0);
    let (admin, password) = first_account(&result);
    cluster.run(&["uninstall", "--yes"]).ok();
    // The data, who owns it, and nothing else.
    let left = before.changes_to(&solo.snapshot().unwrap());
    let accounts = ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/subuid", "/etc/subgid"];
    let other: Vec<_> = left
        .iter()
        .filter(|change| {
            let data = change.path == "/var/lib/maxim" || change.path.starts_with("/var/lib/maxim/");
            !data && !accounts.contains(&change.path.as_str())
        })
        .collect();
    assert!(other.is_empty(), "left beside the data: {other:#?}");
    assert!(
        left.iter().any(|change| change.path.starts_with("/var/lib/maxim/mariadb/data/")),
        "the data stays"
    );
    let now = solo.live_state().unwrap();
    let new: Vec<_> = now.lines().filter(|line| !live.lines().any(|one| one == *line)).collect();
    let owner =
        |line: &&str| ["user maxim", "group maxim", "shadow maxim"].iter().any(|one| line.starts_with(one));
    assert!(new.iter().all(owner), "left alive or set: {new:#?}");
    assert_eq!(solo.sh("systemctl list-units 'maxim-*' --all --no-legend --plain").unwrap(), "");
    let back = cluster.install().ok().result();
    let at = back["endpoints"]["xmpp"][0].as_str().unwrap().to_owned();
    let here = ["-f", cluster.file.as_str()];
    sign_in(&cluster.person, &at, Tls::Start, &admin, &password, &here).ping().unwrap();
}

#[test]
fn a_user_with_sudo_installs_as_root_does() {
    for (user, extra) in [(USER_SUDO_FREE, ""), (USER_SUDO_PASSWORD, ", sudo_password_file: sudo-password")] {
        let cluster = Cluster::of_one();
        let text = std::fs::read_to_string(&cluster.file).unwrap();
        let text = text.replace("ssh: {user: root,", &format!("ssh: {{user: {user}, sudo: true{extra},"));
        cluster.person.file("cluster.yaml", &text);
        let secret = cluster.person.file("sudo-password", &format!("{SUDO_PASSWORD}\n"));
        std::process::Command::new("chmod").args(["0600", &secret]).status().unwrap();
        let outcome = cluster.install().ok();
        assert!(is_well(&outcome.result()));
        assert!(!outcome.stdout.contains(SUDO_PASSWORD) && !outcome.stderr.contains(SUDO_PASSWORD));
        assert_eq!(cluster.install().ok().changes(), 0);
    }
}

#[test]
fn postgresql_serves_as_well() {
    // One node reaches it by TLS, the other by its socket.
    let cluster = Cluster::bare(
        &[(HostSpec::new("app1"), "im+console+redis"), (HostSpec::new("db1"), "im+postgresql")],
        "",
    );
    let before = Before::of(cluster.testbed.hosts());
    let result = cluster.install().ok().result();
    cluster.chat(&result, "barbara");
    let (app, db) = (cluster.testbed.host("app1"), cluster.testbed.host("db1"));
    postgresql_refuses_plain_text(&cluster.person, app, &db.address());
    services_are_sandboxed(cluster.testbed.host("db1"), 1);
    assert_eq!(cluster.install().ok().changes(), 0);
    let at = endpoint(&result, "xmpp", 0);
    survives_kills(&cluster, &at, &[("db1", "maxim-postgresql")], "two");
    before.is_back_after_a_purge(&cluster);
}

#[test]
fn other_debians_are_hosts_too() {
    for release in [Release::Bullseye, Release::Trixie] {
        if let Err(error) = maxim_tests::hosts::base::base(release) {
            assert!(release == Release::Bullseye, "{error:#}");
            crate::skip("other_debians_are_hosts_too", &format!("Debian 11 is not served: {error:#}"));
            continue;
        }
        let one = |name: &str| HostSpec::new(name).release(release);
        // Every component on each release; on three hosts, too, when all is asked for.
        let mut layouts = vec![vec![(one("solo"), ALL)]];
        if std::env::var_os("MAXIM_TEST_ALL").is_some() {
            layouts.push(vec![
                (one("app1"), "im+console"),
                (one("db1"), "mariadb"),
                (one("cache1"), "redis"),
            ]);
            layouts.push(vec![(one("app1"), "im+console+redis"), (one("db1"), "postgresql")]);
        }
        for layout in layouts {
            let name = format!("{}-{}-chat", release.name(), layout.len());
            chats_and_changes_nothing_twice(&Cluster::bare(&layout, ""), &name);
        }
    }
}

/// Installs, chats with our client and with people's, looks at it, sees the sandboxes, and installs again.
fn chats_and_changes_nothing_twice(cluster: &Cluster, name: &str) {
    let result = cluster.install().ok().result();
    cluster.chat(&result, "radia");
    people_chat(cluster, &result, 0, 0, name);
    cluster.wait_well();
    for host in cluster.testbed.hosts() {
        services_are_sandboxed(host, usize::from(cluster.testbed.hosts().len() > 1));
    }
    assert_eq!(cluster.install().ok().changes(), 0);
}
