//! What happens in the middle of an install: killed at any moment, a host dies, somebody else installs too.

use crate::cluster::{Cluster, is_well};
use crate::product::{Outcome, Person, install_arguments, signal};
use maxim_tests::hosts::watch::agents;
use maxim_tests::hosts::{Host, HostSpec, Snapshot, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command};
use std::time::{Duration, Instant};

/// How many moments are looked at when all are: spread evenly over an install, its verification included.
const MOMENTS: usize = 20;

/// A running install whose events are read as they come.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    seen: Vec<Value>,
}

impl Running {
    fn install(person: &Person, file: &str) -> Self {
        let arguments = install_arguments(file);
        let mut child = person.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, seen: Vec::new() }
    }

    /// Reads events until one is as wanted; `false` when the install ended before.
    fn until(&mut self, mut wanted: impl FnMut(&[Value]) -> bool) -> bool {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return false;
            }
            self.seen.push(serde_json::from_str(&line).unwrap());
            if wanted(&self.seen) {
                return true;
            }
        }
    }

    fn kill(mut self) -> Vec<Value> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // What it had said before it died counts as said.
        while self.until(|_| false) {}
        self.seen
    }

    fn end(mut self) -> Outcome {
        while self.until(|_| false) {}
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        let lines: Vec<_> = self.seen.iter().map(ToString::to_string).collect();
        Outcome { command: "maxim.ctl install".to_owned(), code, stdout: lines.join("\n"), stderr }
    }
}

/// Which tasks changed something, by host and step.
fn changed(events: &[Value]) -> BTreeSet<(String, String)> {
    events
        .iter()
        .filter(|event| event["event"] == "task_finished" && event["changed"] == true)
        .map(|event| (event["host"].as_str().unwrap().to_owned(), event["step"].as_str().unwrap().to_owned()))
        .collect()
}

/// Installs again until the lease of a dead owner has run out.
fn install_when_free(cluster: &Cluster) -> Outcome {
    wait_for("the lease of the dead owner to run out", Duration::from_mins(2), || {
        let outcome = cluster.install();
        (outcome.code != 5).then_some(outcome)
    })
    .unwrap()
}

/// How far an install has come by what it said: 0 at its start, 1 at its result. Half of it and more is applying.
fn progress(seen: &[Value]) -> f64 {
    let count = |wanted: &dyn Fn(&Value) -> bool| seen.iter().filter(|event| wanted(event)).count();
    let phase = |kind: &str, step: &str| count(&|event| event["event"] == kind && event["step"] == step) > 0;
    if phase("phase_finished", "verify") {
        return 0.98;
    }
    if count(&|event| event["event"] == "canary") > 0 {
        return 0.94;
    }
    if phase("phase_started", "verify") {
        return 0.91;
    }
    if phase("phase_finished", "apply") {
        return 0.87;
    }
    if phase("phase_started", "apply") {
        let planned = count(&|event| event["event"] == "planned").max(1);
        let ended = count(&|event| event["event"] == "task_finished");
        return 0.2 + 0.65 * (ended.min(planned) as f64 / planned as f64);
    }
    let phases = ["connect", "probe", "preflight", "plan"];
    0.05 * phases.iter().filter(|step| phase("phase_finished", step)).count() as f64
}

/// Kills an install of three hosts when it has come so far, and proves that the next one completes it.
fn killed_and_completed(moment: f64) {
    let cluster = Cluster::of_three();
    let mut running = Running::install(&cluster.person, &cluster.file);
    if !running.until(|seen| progress(seen) >= moment) {
        let outcome = running.end();
        panic!("the install had ended before {moment}: {}\n{}", outcome.stdout, outcome.stderr);
    }
    let before = running.kill();
    let last = before.iter().rev().find(|event| event["step"] != Value::Null).cloned().unwrap_or_default();
    println!("killed at {moment:.3}, after {} events: {} {}", before.len(), last["event"], last["step"]);
    let outcome = install_when_free(&cluster).ok();
    assert!(is_well(&outcome.result()), "killed at {moment}: {}", outcome.stdout);
    let twice: Vec<_> = changed(&before).intersection(&changed(&outcome.events())).cloned().collect();
    assert!(twice.is_empty(), "killed at {moment}, done twice: {twice:?}");
    assert_eq!(cluster.install().ok().changes(), 0);
    cluster.chat(&outcome.result(), "phoenix");
}

/// The number that decides which moments are looked at; printed, so that a failure can be had again.
pub fn seed() -> usize {
    std::env::var("MAXIM_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| usize::try_from(std::process::id()).unwrap())
}

#[test]
fn an_install_killed_at_any_moment_completed_by_the_next() {
    let seed = seed();
    // Well apart: one of the first seven, one of the next seven, one of the last six.
    let chosen = [seed % 7, 7 + seed / 7 % 7, 14 + seed / 49 % 6];
    let all = std::env::var_os("MAXIM_TEST_ALL").is_some();
    let moments: Vec<_> = (0..MOMENTS).filter(|number| all || chosen.contains(number)).collect();
    assert_eq!(moments.len(), if all { MOMENTS } else { 3 });
    println!("seed {seed}: moments {moments:?} of {MOMENTS}");
    for number in moments {
        // The middle of the number's part of the whole.
        killed_and_completed((number * 2 + 1) as f64 / (2 * MOMENTS) as f64);
    }
}

#[test]
fn a_disk_that_fills_up_in_the_middle_is_named_and_an_install_goes_on_when_there_is_room() {
    let cluster = Cluster::bare(
        &[
            (HostSpec::new("app1"), "im+console"),
            (HostSpec::new("db1").small_disk("/opt", 340), "mariadb"),
            (HostSpec::new("cache1"), "redis"),
        ],
        "",
    );
    let host = cluster.testbed.host("db1");
    // Preflight sees the room; it goes in the moment in which the image of the database is being unpacked.
    host.write_file(
        "/usr/local/bin/fill-up",
        "#!/bin/sh\nuntil ls -d /opt/maxim/images/*mariadb* /opt/maxim/images/.*mariadb* 2>/dev/null | grep -q .; \
         do sleep 0.01; done\ncat /dev/zero >/opt/filler\n",
    )
    .unwrap();
    host.sh("chmod 755 /usr/local/bin/fill-up; systemd-run -q --unit=fill-up /usr/local/bin/fill-up")
        .unwrap();
    let outcome = cluster.install().exits(1);
    let errors = outcome.result()["errors"].clone();
    let named = errors.as_array().unwrap().iter().find(|error| error["host"] == "db1").expect("db1 is named");
    assert_eq!(named["step"], "mariadb/image", "{errors:#}");
    let message = named["message"].as_str().unwrap().to_lowercase();
    assert!(message.contains("no space left"), "{errors:#}");
    assert!(named["hint"] != "", "it says what to do: {errors:#}");
    // What is there as it is now is told before anything is done.
    cluster.install().exits(3).says(&["db1", "/opt"]);
    host.sh("rm /opt/filler").unwrap();
    let outcome = install_when_free(&cluster).ok();
    assert!(is_well(&outcome.result()));
    let twice = cluster.install().ok();
    assert_eq!(twice.changes(), 0);
    cluster.chat(&outcome.result(), "room");
}

/// A connection on which the other end does not answer is given up after so long (`remote/ssh/reach.rs` of the engine).
const NOTICED: Duration = Duration::from_secs(10);
/// What a host has begun it finishes; of the first stages nothing takes longer, on a busy machine either.
const FINISHED: Duration = Duration::from_mins(2);

/// Holds an install to the deadline by which it must have ended when a host was lost at `since`.
#[track_caller]
fn ended_in_time(since: Instant) {
    println!("ended {:?} after the loss", since.elapsed());
    assert!(since.elapsed() < NOTICED + FINISHED, "{:?}", since.elapsed());
}

/// What hosts other than the one that failed were left as.
struct Left<'a> {
    cluster: &'a Cluster,
    hosts: Vec<(&'a Host, Snapshot)>,
    changed: BTreeSet<(String, String)>,
}

impl<'a> Left<'a> {
    /// Sees that these hosts are consistent after a run that said `events` and failed on another: what was begun is
    /// finished, services that were started run, nothing has the name of something half written or half unpacked, no
    /// agent is left and nobody holds the lock.
    #[track_caller]
    fn consistent(cluster: &'a Cluster, events: &[Value], names: &[&str]) -> Self {
        let steps = |kind: &str, host: &str| -> BTreeSet<String> {
            let of_host = events.iter().filter(|event| event["event"] == kind && event["host"] == host);
            of_host.map(|event| event["step"].as_str().unwrap().to_owned()).collect()
        };
        let mut hosts = Vec::new();
        for name in names {
            let host = cluster.testbed.host(name);
            let finished = steps("task_finished", name);
            assert!(!finished.is_empty(), "nothing was done on {name}");
            assert_eq!(steps("task_started", name), finished, "begun and not finished on {name}");
            for component in finished.iter().filter_map(|step| step.strip_suffix("/service")) {
                host.sh(&format!("systemctl is-active maxim-{component}")).unwrap();
            }
            let half = host.sh("find /opt/maxim /etc/maxim /var/lib/maxim -name '.maxim-new-*'").unwrap();
            assert_eq!(half, "", "half written on {name}");
            wait_for("the agents to end", Duration::from_mins(1), || {
                agents(cluster.testbed.folder(), name).is_empty().then_some(())
            })
            .unwrap();
            assert_ne!(host.exec("test -e /run/maxim-lock.json").unwrap().code, 0, "{name} is still locked");
            hosts.push((host, host.snapshot().unwrap()));
        }
        Self { cluster, hosts, changed: changed(events) }
    }

    /// The next install, which completes it, finds every file that was there whole: it writes none of them again.
    #[track_caller]
    fn completed_by_the_next(self) {
        let outcome = install_when_free(self.cluster).ok();
        assert!(is_well(&outcome.result()));
        for (host, before) in &self.hosts {
            let ours = |path: &str| path.starts_with("/opt/maxim/") || path.starts_with("/etc/maxim/");
            let again: Vec<_> = before
                .changes_to(&host.snapshot().unwrap())
                .into_iter()
                .filter(|change| ours(&change.path) && !change.what.starts_with("appeared"))
                .collect();
            assert!(again.is_empty(), "written anew on {}: {again:#?}", host.name());
        }
        let others = |host: &str| self.hosts.iter().any(|(other, _)| other.name() == host);
        let next = changed(&outcome.events());
        let twice: Vec<_> = self.changed.intersection(&next).filter(|(host, _)| others(host)).collect();
        assert!(twice.is_empty(), "done twice: {twice:?}");
        assert_eq!(self.cluster.install().ok().changes(), 0);
    }
}

#[test]
fn a_host_that_dies_in_the_middle_is_named_and_comes_back() {
    let cluster = Cluster::of_three();
    let mut running = Running::install(&cluster.person, &cluster.file);
    let dies = running.until(|seen| {
        seen.last().is_some_and(|event| event["event"] == "task_finished" && event["host"] == "db1")
    });
    assert!(dies, "a task of db1 ended");
    cluster.testbed.host("db1").power_off_hard().unwrap();
    let started = Instant::now();
    let outcome = running.end().exits(1);
    ended_in_time(started);
    let errors = outcome.result()["errors"].clone();
    let named = errors.as_array().unwrap().iter().any(|error| error["host"] == "db1" && error["step"] != "");
    assert!(named, "{errors:#}");
    let left = Left::consistent(&cluster, &outcome.events(), &["app1", "cache1"]);
    cluster.testbed.host("db1").boot().unwrap();
    left.completed_by_the_next();
}

#[test]
fn a_host_that_is_cut_off_in_the_middle_ends_the_install_within_the_deadline() {
    let cluster = Cluster::of_three();
    let mut running = Running::install(&cluster.person, &cluster.file);
    assert!(running.until(|seen| {
        seen.last().is_some_and(|event| event["event"] == "task_started" && event["host"] == "db1")
    }));
    cluster.testbed.host("db1").cut_off().unwrap();
    let started = Instant::now();
    let outcome = running.end().exits(1).says(&["db1"]);
    ended_in_time(started);
    assert!(outcome.result()["errors"].as_array().unwrap().iter().any(|error| error["host"] == "db1"));
    let left = Left::consistent(&cluster, &outcome.events(), &["app1", "cache1"]);
    cluster.testbed.host("db1").reconnect().unwrap();
    left.completed_by_the_next();
}

#[test]
fn of_two_installs_at_once_the_second_names_the_first() {
    let cluster = Cluster::of_one();
    let somebody = Person::new();
    let file = somebody.file("cluster.yaml", &fs::read_to_string(&cluster.file).unwrap());
    fs::create_dir_all(somebody.home().join(".ssh")).unwrap();
    fs::copy(cluster.testbed.known_hosts(), somebody.home().join(".ssh/known_hosts")).unwrap();
    let mut first = Running::install(&cluster.person, &cluster.file);
    assert!(first.until(|seen| seen.last().is_some_and(|event| event["event"] == "task_started")));
    // From the same control host, and from another one. The first stands still meanwhile, so that it is not done before
    // they have tried; its agent goes on and renews the lock.
    signal(&first.child, Signal::SIGSTOP);
    let both = [(&cluster.person, &cluster.file), (&somebody, &file)]
        .map(|(person, target)| Running::install(person, target).end());
    signal(&first.child, Signal::SIGCONT);
    let owner = format!("{}", first.child.id());
    for second in both {
        let second = second.exits(5);
        assert!(second.stderr.contains(&owner), "the owner {owner} is not named: {}", second.stderr);
    }
    assert!(is_well(&first.end().ok().result()));
}

/// Leaves the lock of an install of which nothing is alive any more, neither here nor on the host. Gives the process
/// number of the owner.
pub fn leave_a_lock(cluster: &Cluster) -> String {
    let mut first = Running::install(&cluster.person, &cluster.file);
    // A task that takes its time.
    let begun = |event: &Value| event["event"] == "task_started" && event["step"] == "mariadb/service";
    assert!(first.until(|seen| seen.last().is_some_and(begun)));
    let owner = first.child.id().to_string();
    // The cable goes first, so that the agent does not see the owner's end and lets nothing go.
    cluster.testbed.host("solo").cut_off().unwrap();
    let agents = agents(cluster.testbed.folder(), "solo");
    assert!(!agents.is_empty(), "an agent works on the host");
    first.kill();
    for agent in agents {
        // One that has ended by itself a moment ago let nothing go either.
        let killed = Command::new("kill").args(["-KILL", &agent.to_string()]).status().unwrap();
        assert!(killed.success() || !Path::new(&format!("/proc/{agent}")).exists(), "agent {agent} lives");
    }
    cluster.testbed.host("solo").reconnect().unwrap();
    owner
}

#[test]
fn an_owner_that_died_is_taken_over_when_its_lease_expires() {
    let cluster = Cluster::of_one();
    leave_a_lock(&cluster);
    assert!(is_well(&install_when_free(&cluster).ok().result()));
}
