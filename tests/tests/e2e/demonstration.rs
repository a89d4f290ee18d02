//! What the product is shown with: bare, air-gapped hosts, one bundle, one command; then people chat through it with
//! clients that others wrote, somebody signs in to the console, and a second install changes nothing.
//!
//! The figures that do not depend on how busy the machine is are held here too: bytes sent, memory of the agent,
//! and how exposed each service is.

use crate::cluster::{Cluster, endpoint, is_well};
use crate::delivery::{Load, kill};
use crate::people::{look_at_console, terminal_and_browser};
use crate::product::{checkout, console_account, first_account, install_arguments};
use maxim_tests::hosts::watch::Watch;
use maxim_tests::hosts::{Host, HostSpec};
use serde_json::Value;
use std::time::Instant;

/// Most that an agent may need, in kB.
const AGENT_MEMORY_KB: u64 = 64 * 1024;
/// Most that a host that has everything may be sent, the conversation itself included.
const BYTES_TO_A_HOST: u64 = 1_000_000;

/// Two people chat through a cluster, one in a terminal at one node, one in a browser at another.
pub fn people_chat(cluster: &Cluster, result: &Value, terminal: usize, browser: usize, name: &str) {
    let (admin, password) = first_account(result);
    let member = cluster.add_user(name, "correct-horse");
    terminal_and_browser(
        cluster.person.home(),
        (&endpoint(result, "xmpp", terminal), &member, "correct-horse"),
        (&endpoint(result, "web", browser), &admin, &password),
        name,
    );
}

/// Installs again: nothing is changed, and next to nothing is sent.
fn second_install(cluster: &Cluster) {
    let hosts = cluster.testbed.hosts();
    let before: Vec<_> = hosts.iter().map(|host| host.received_bytes().unwrap()).collect();
    let started = Instant::now();
    let again = cluster.install().ok();
    println!("second install: {:?}", started.elapsed());
    assert_eq!(again.changes(), 0, "{}", again.stdout);
    for (host, before) in hosts.iter().zip(before) {
        let sent = host.received_bytes().unwrap() - before;
        println!("second install: {sent} bytes to {}", host.name());
        assert!(sent > 0 && sent < BYTES_TO_A_HOST, "{sent} bytes were sent to {}", host.name());
    }
    let agents: u64 = again.events().iter().filter_map(|event| event["agent_bytes_sent"].as_u64()).sum();
    assert_eq!(agents, 0, "the agent is not sent to a host that has it");
}

#[test]
fn three_bare_hosts_serve_people_and_a_second_install_changes_nothing() {
    let cluster = Cluster::of_three();
    let watch = Watch::start(cluster.testbed.folder());
    let outcome = cluster.install().ok();
    let seen = watch.end();
    for host in cluster.testbed.hosts() {
        let peak = seen.agent_peak_kb.get(host.name()).copied().unwrap_or_default();
        println!("agent on {}: {peak} kB at most", host.name());
        assert!(peak > 1024 && peak <= AGENT_MEMORY_KB, "the agent of {} had {peak} kB", host.name());
    }
    let result = outcome.result();
    assert!(outcome.changes() > 0);
    assert!(is_well(&result), "{result:#}");
    assert!(outcome.events().iter().any(|event| event["event"] == "canary"), "proven by a message");
    cluster.chat(&result, "ada");
    people_chat(&cluster, &result, 0, 0, "three-hosts-chat");

    let status = cluster.wait_well();
    let (url, user, password) = console_account(&result);
    let running: Vec<_> =
        status["components"].as_array().unwrap().iter().map(|one| &one["running"]).collect();
    let mut words: Vec<_> = running.iter().map(|version| version.as_str().unwrap()).collect();
    words.extend(["app1", "db1", "cache1", "acme"]);
    look_at_console(&url, &user, &password, &words, "console");
    second_install(&cluster);

    // Only what a role needs is on its host.
    let units = |host: &str| {
        cluster.testbed.host(host).sh("systemctl list-unit-files 'maxim-*' --no-legend --plain").unwrap()
    };
    assert!(units("db1").contains("maxim-mariadb.service") && !units("db1").contains("maxim-im.service"));
    assert!(!cluster.testbed.host("app1").sh("find /opt/maxim").unwrap().contains("mariadbd"));
    for host in cluster.testbed.hosts() {
        services_are_sandboxed(host, 1);
    }
}

/// What the bundle's page says that `systemd-analyze security` finds: the values of the first or second row about it.
fn documented(row: usize) -> Vec<f64> {
    let text = std::fs::read_to_string(checkout().join("docs/reference/bundle.md")).unwrap();
    let from =
        text.lines().position(|line| line.contains("systemd-analyze security")).expect("a row about it");
    let line = text.lines().nth(from + row).unwrap();
    let cell = line.trim_end_matches([' ', '|']).rsplit('|').next().unwrap();
    cell.split('/').map(|value| value.trim().parse().unwrap()).collect()
}

/// Holds every service of ours on a host to what the documents say, and our own to less than 3. `by` is 0 where the
/// stores serve by socket only, 1 where they serve other hosts.
pub fn services_are_sandboxed(host: &Host, by: usize) {
    let listed = host.sh("systemctl list-unit-files 'maxim-*.service' --no-legend --plain").unwrap();
    let units: Vec<_> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(!units.is_empty());
    for unit in units {
        let stores = ["mariadb", "postgresql", "redis"].iter().any(|store| unit.contains(store));
        let own = ["maxim-im.service", "maxim-console.service", "maxim-agent@.service"];
        let most = match own.iter().position(|name| *name == unit) {
            Some(at) => documented(1)[at].min(2.9),
            None if stores => documented(0)[by],
            None => panic!("{unit} is a service that nobody has described"),
        };
        let analysed = unit.replace("@.", "@1.");
        let said = host.exec(&format!("systemd-analyze security --no-pager {analysed}")).unwrap();
        let level =
            said.stdout.lines().find_map(|line| line.split_once("exposure level for")?.1.split_once(": "));
        let found = level.and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
        let found = found.unwrap_or_else(|| panic!("{unit}: {}{}", said.stdout, said.stderr));
        println!("{} {unit}: exposure {found}", host.name());
        assert!(
            found <= most,
            "{unit} on {} is exposed {found}, at most {most}:\n{}",
            host.name(),
            said.stdout
        );
    }
}

#[test]
fn two_nodes_serve_people_across_and_one_can_go() {
    // The first has all stores by socket, the second reaches them by TLS.
    let cluster = Cluster::bare(
        &[(HostSpec::new("app1"), "im+console+mariadb+redis"), (HostSpec::new("app2"), "im")],
        "",
    );
    let result = cluster.install().ok().result();
    assert_eq!(result["endpoints"]["xmpp"].as_array().unwrap().len(), 2, "{result}");
    people_chat(&cluster, &result, 1, 0, "across-nodes");
    people_chat(&cluster, &result, 0, 1, "back-across-nodes");

    // Both ways between the nodes, while one loses its power.
    let (first, second) = (endpoint(&result, "xmpp", 0), endpoint(&result, "xmpp", 1));
    let there = Load::start(&cluster, "there", true, &[&first], &[&second, &first]);
    let back = Load::start(&cluster, "back", true, &[&second, &first], &[&first]);
    for load in [&there, &back] {
        load.goes_on(200);
    }
    cluster.testbed.host("app2").power_off_hard().unwrap();
    for load in [&there, &back] {
        load.goes_on(400);
    }
    cluster.testbed.host("app2").boot().unwrap();
    cluster.wait_well();
    for load in [there, back] {
        load.end_with_nothing_lost(&first);
    }
    redis_dies_between_two_nodes(&cluster, &first, &second);
    people_chat(&cluster, &result, 1, 0, "after-a-loss");
}

/// Redis knows who is where and carries what goes from node to node. Killed with messages on their way, both ways, to
/// receivers that acknowledge and one that does not: what was acknowledged to the sender arrives all the same.
fn redis_dies_between_two_nodes(cluster: &Cluster, first: &str, second: &str) {
    let loads = [
        Load::start(cluster, "redis-there", true, &[first], &[second]),
        Load::start(cluster, "redis-back", true, &[second], &[first]),
        Load::start(cluster, "redis-plain", false, &[first], &[second]),
    ];
    for _ in 0..3 {
        for load in &loads {
            load.goes_on(rand::random_range(50..250));
        }
        kill(cluster, "app1", "maxim-redis");
    }
    for load in &loads {
        load.goes_on(100);
    }
    for (load, at) in loads.into_iter().zip([second, first, second]) {
        load.end_with_nothing_lost(at);
    }
    // A service that came back by itself so often wants attention until somebody restarts it.
    cluster.run(&["restart", "redis"]).ok();
    cluster.wait_well();
}

#[test]
fn ten_hosts_with_eight_nodes_chat_across() {
    let mut hosts: Vec<(HostSpec, &str)> = (1..=8)
        .map(|number| (HostSpec::new(&format!("im{number}")), if number == 1 { "im+console" } else { "im" }))
        .collect();
    hosts.push((HostSpec::new("db1"), "mariadb"));
    hosts.push((HostSpec::new("cache1"), "redis"));
    let cluster = Cluster::bare(&hosts, "");
    let mut arguments = install_arguments(&cluster.file);
    arguments.push("--timings".to_owned());
    let started = Instant::now();
    let outcome = cluster.person.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    println!("install on 10 hosts: {:?}", started.elapsed());
    let result = outcome.result();
    for timing in result["timings"].as_array().unwrap() {
        println!("  {} {}: {} ms", timing["phase"], timing["host"], timing["duration_ms"]);
    }
    // Phase by phase, and host by host where hosts work.
    for phase in ["connect", "probe", "plan", "apply", "verify", "total"] {
        assert!(outcome.stderr.contains(phase), "{phase} is not in the table:\n{}", outcome.stderr);
    }
    for host in cluster.testbed.hosts() {
        assert!(outcome.stderr.contains(host.name()), "{} is not in the table", host.name());
    }
    assert_eq!(result["endpoints"]["xmpp"].as_array().unwrap().len(), 8, "{result}");
    let canaries = outcome.events().iter().filter(|event| event["event"] == "canary").count();
    assert_eq!(canaries, 8, "a message through each node");
    cluster.chat(&result, "anita");
    cluster.wait_well();
}
