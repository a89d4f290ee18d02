//! What happens in the middle of an install: killed at any moment, a host dies, somebody else installs too.

use crate::cluster::{Cluster, is_well};
use crate::product::{Outcome, Person, install_arguments};
use maxim_tests::hosts::wait_for;
use maxim_tests::hosts::watch::agents;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command};
use std::time::{Duration, Instant};

/// How many moments are looked at when all are: spread evenly over the events of an install.
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

/// Kills an install after its event number `moment`, and proves that the next one completes it.
fn killed_and_completed(moment: usize) {
    let cluster = Cluster::of_one();
    let mut running = Running::install(&cluster.person, &cluster.file);
    if !running.until(|seen| seen.len() > moment) {
        let outcome = running.end();
        panic!("the install had ended before event {moment}: {}\n{}", outcome.stdout, outcome.stderr);
    }
    let before = running.kill();
    let outcome = install_when_free(&cluster).ok();
    assert!(is_well(&outcome.result()), "killed after event {moment}: {}", outcome.stdout);
    let twice: Vec<_> = changed(&before).intersection(&changed(&outcome.events())).cloned().collect();
    assert!(twice.is_empty(), "killed after event {moment}, done twice: {twice:?}");
    assert_eq!(cluster.install().ok().changes(), 0);
    cluster.chat(&outcome.result(), "phoenix");
}

#[test]
fn an_install_killed_at_any_moment_is_completed_by_the_next() {
    let whole = Cluster::of_one().install().ok().events().len();
    let all = std::env::var_os("MAXIM_TEST_ALL").is_some();
    let seed = std::env::var("MAXIM_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| usize::try_from(std::process::id()).unwrap());
    for number in 0..MOMENTS {
        // Three of them, well apart; the seed moves them.
        if all || number % 7 == seed % 6 {
            // The last events come after the work: the whole is a little more than what can be hit.
            let moment = (number * 2 + 1) * whole / (2 * MOMENTS) * 9 / 10;
            println!("seed {seed}: killed after event {moment} of {whole}");
            killed_and_completed(moment);
        }
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
    assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
    let errors = outcome.result()["errors"].clone();
    let named = errors.as_array().unwrap().iter().any(|error| error["host"] == "db1" && error["step"] != "");
    assert!(named, "{errors:#}");
    cluster.testbed.host("db1").boot().unwrap();
    let outcome = install_when_free(&cluster).ok();
    assert!(is_well(&outcome.result()));
    assert_eq!(cluster.install().ok().changes(), 0);
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
    assert!(started.elapsed() < Duration::from_mins(3), "{:?}", started.elapsed());
    assert!(outcome.result()["errors"].as_array().unwrap().iter().any(|error| error["host"] == "db1"));
    cluster.testbed.host("db1").reconnect().unwrap();
    assert!(is_well(&install_when_free(&cluster).ok().result()));
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
    // From the same control host, and from another one.
    for (person, target) in [(&cluster.person, &cluster.file), (&somebody, &file)] {
        let second = Running::install(person, target).end().exits(5);
        let owner = format!("{}", first.child.id());
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
        assert!(Command::new("kill").args(["-KILL", &agent.to_string()]).status().unwrap().success());
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
