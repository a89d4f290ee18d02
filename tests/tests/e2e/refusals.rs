//! What preflight must refuse, each on a host that has exactly this fault: its own message, a remedy, the right
//! exit code, and nothing changed on the host.

use crate::cluster::{ALL, Cluster, beside_the_agent};
use crate::product::{FORCED, Outcome};
use maxim_tests::hosts::{HostSpec, SUDO_PASSWORD, USER_SUDO_PASSWORD};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// Installs and asserts a refusal by the check `id` on `host` and by no other, whose message says `words` and whose every
/// error says what to do (and where, when it is the topology's); and that every host is as it was.
#[track_caller]
fn refused(cluster: &Cluster, code: i32, (id, host): (&str, &str), words: &[&str]) -> Outcome {
    let hosts = cluster.testbed.hosts();
    let before: Vec<_> = hosts.iter().map(|host| host.snapshot().unwrap()).collect();
    let outcome = cluster.install().exits(code);
    let errors = outcome.result()["errors"].clone();
    let errors = errors.as_array().unwrap();
    assert!(!errors.is_empty());
    for error in errors {
        assert_eq!((&error["step"], &error["host"]), (&id.into(), &host.into()), "{errors:#?}");
        assert!(error["hint"].as_str().unwrap().len() > 10, "what to do: {errors:#?}");
        let place = error["place"].as_str().unwrap();
        let numbers = place.rsplit(':').take(2).filter(|number| number.parse::<u32>().is_ok()).count();
        assert_eq!(numbers, if code == 2 { 2 } else { 0 }, "line and column: {errors:#?}");
    }
    for word in words {
        let said = errors.iter().any(|error| error["message"].as_str().unwrap().contains(word));
        assert!(said, "no error says '{word}': {errors:#?}");
    }
    for (host, before) in hosts.iter().zip(before) {
        let changes = before.changes_to(&host.snapshot().unwrap());
        let shown: Vec<_> = changes.iter().map(ToString::to_string).collect();
        assert!(shown.is_empty(), "{} was changed:\n{}", host.name(), shown.join("\n"));
    }
    outcome
}

fn rewrite(cluster: &Cluster, from: &str, to: &str) {
    let text = fs::read_to_string(&cluster.file).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(&cluster.file, text.replace(from, to)).unwrap();
}

#[test]
fn a_full_disk_is_refused() {
    let cluster = Cluster::bare(&[(HostSpec::new("full").small_disk("/opt", 48), ALL)], "");
    refused(&cluster, 3, ("disk.space", "full"), &["/opt"]);
}

#[test]
fn a_port_of_a_foreign_process_is_refused() {
    let cluster = Cluster::of_one();
    let name = cluster.testbed.host("solo").occupy_port(5222).unwrap();
    refused(&cluster, 3, ("ports.free", "solo"), &["5222", &name]);
}

#[test]
fn a_clock_that_is_ten_seconds_off_is_refused() {
    let cluster = Cluster::of_three();
    cluster.testbed.host("db1").skew_clock(10).unwrap();
    refused(&cluster, 3, ("clock.offset", "db1"), &["10.", "ahead of the median"]);
}

#[test]
fn too_little_memory_is_refused() {
    let cluster = Cluster::bare(&[(HostSpec::new("poor").memory_mib(300), ALL)], "");
    refused(&cluster, 3, ("memory.available", "poor"), &["150 MiB"]);
}

#[test]
fn a_wrong_key_is_refused() {
    let cluster = Cluster::of_one();
    let other = cluster.person.home().join("other-key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&other).status();
    assert!(made.unwrap().success());
    let right = cluster.testbed.key().display().to_string();
    rewrite(&cluster, &right, &other.display().to_string());
    refused(&cluster, 3, ("access.sign_in", "solo"), &["root"]);
}

#[test]
fn a_wrong_sudo_password_is_refused_and_not_shown() {
    let cluster = Cluster::of_one();
    let user = format!("user: {USER_SUDO_PASSWORD}, sudo: true, sudo_password_file: sudo-password");
    rewrite(&cluster, "user: root", &user);
    let wrong = format!("not-{SUDO_PASSWORD}");
    let path = cluster.person.file("sudo-password", &format!("{wrong}\n"));
    assert!(Command::new("chmod").args(["0600", &path]).status().unwrap().success());
    let outcome = refused(&cluster, 3, ("access.sudo_password", "solo"), &[USER_SUDO_PASSWORD]);
    assert!(!outcome.stdout.contains(&wrong) && !outcome.stderr.contains(&wrong), "the password is shown");
}

#[test]
fn a_changed_host_key_is_refused() {
    let cluster = Cluster::of_one();
    // Another real key under this address.
    let other = cluster.person.home().join("other-host");
    assert!(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&other)
            .status()
            .unwrap()
            .success()
    );
    let public = fs::read_to_string(other.with_extension("pub")).unwrap();
    let line = format!("{} {public}", cluster.testbed.host("solo").address());
    fs::write(cluster.person.home().join(".ssh/known_hosts"), line).unwrap();
    refused(&cluster, 3, ("access.host_key_changed", "solo"), &["key"]);
}

#[test]
fn an_unknown_host_key_is_refused_when_strict() {
    let cluster = Cluster::of_one();
    fs::write(cluster.person.home().join(".ssh/known_hosts"), "").unwrap();
    refused(&cluster, 3, ("access.host_key_unknown", "solo"), &["key"]);
    rewrite(&cluster, "known_hosts: strict", "known_hosts: accept-new");
    cluster.run(&[&["check"], &FORCED[..]].concat()).ok();
}

#[test]
fn an_unreachable_address_is_refused_within_the_deadline() {
    let cluster = Cluster::of_three();
    let address = cluster.testbed.host("cache1").address();
    let (network, _) = address.rsplit_once('.').unwrap();
    let nowhere = format!("{network}.250");
    rewrite(&cluster, &address, &nowhere);
    let started = Instant::now();
    refused(&cluster, 3, ("access.unreachable", "cache1"), &[&nowhere]);
    assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
}

#[test]
fn a_host_of_another_cluster_is_refused() {
    let cluster = Cluster::of_one();
    cluster.install().ok();
    // Running services write to their data.
    cluster.run(&["stop"]).ok();
    rewrite(&cluster, "name: acme\n", "name: other\n");
    refused(&cluster, 3, ("identity.cluster", "solo"), &["acme"]);
}

#[test]
fn two_names_of_one_host_are_refused() {
    let cluster = Cluster::of_one();
    let text = fs::read_to_string(&cluster.file).unwrap();
    let line = text.lines().find(|line| line.contains("name: solo")).unwrap().to_owned();
    let twice = format!("{line}\n{}", line.replace("solo", "twin").replace(&ALL.replace('+', ", "), "im"));
    rewrite(&cluster, &line, &twice);
    refused(&cluster, 2, ("topology", ""), &["address"]);
}

#[test]
fn a_check_reads_and_leaves_nothing() {
    let cluster = Cluster::of_three();
    let before: Vec<_> = cluster.testbed.hosts().iter().map(|host| host.snapshot().unwrap()).collect();
    let started = Instant::now();
    let outcome = cluster.run(&[&["check"], &FORCED[..]].concat()).ok();
    println!("check of three hosts: {:?}", started.elapsed());
    assert!(outcome.events().iter().filter(|event| event["event"] == "checked").count() > 20);
    for (host, before) in cluster.testbed.hosts().iter().zip(before) {
        let other = beside_the_agent(&before, &host.snapshot().unwrap());
        assert!(other.is_empty(), "{other:?}");
    }
}
