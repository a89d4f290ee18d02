//! SIGKILL at moments spread over the time that a command takes: backups, their pruning, restores and drills of an
//! embedded deployment, upgrades of hosts. Run again, it completes; the repository passes Debian's own restic; nothing
//! half restored is ever served; hosts that were done are not touched again.
//!
//! Ten moments each with `tests/run --all`, two seeded ones otherwise (`MAXIM_TEST_SEED` gives the seed). A moment is a
//! time, not an event: a command spends most of its time between events.

use crate::backup::{BOB, Backed, bob_reads};
use crate::cluster::{ALL, Cluster};
use crate::product::{Outcome, Person};
use crate::upgrade::{FILES, number, version};
use maxim_tests::hosts::{HostSpec, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const MOMENTS: u32 = 10;
/// So often a command is to be killed at a moment before that counts as failed.
const TRIES: u32 = 5;
/// So many of the ten upgrades are killed at least; the last ones may have ended. Of two, one.
const KILLED: usize = 8;
/// Of the thousandths of an upgrade, those in which nothing is switched yet.
const PREPARES: u32 = 300;

fn is_long() -> bool {
    std::env::var_os("MAXIM_TEST_ALL").is_some()
}

/// Parts of the time of a reference run, in thousandths: all ten, or a seeded one of each half.
fn moments() -> Vec<u32> {
    let seed: u32 = std::env::var("MAXIM_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().subsec_micros());
    let moments: Vec<u32> = if is_long() {
        (0..MOMENTS).map(|number| number * 100 + seed % 100).collect()
    } else {
        vec![seed % 500, 500 + seed / 500 % 450]
    };
    println!("seed {seed}: moments {moments:?} in thousandths");
    moments
}

/// Runs a command and kills it when so much time has gone by, since its start or since this phase of it began; whether it
/// was killed before its end.
fn killed_after(person: &Person, arguments: &[String], phase: Option<&'static str>, time: Duration) -> bool {
    let mut child = person.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (says, said) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut last = None;
        for line in lines.map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event["event"] == "phase_started" && event["step"].as_str() == phase {
                // Nobody listens any more once it was killed.
                says.send(()).ok();
            }
            last = Some(line);
        }
        last
    });
    // Its end is the end of the channel.
    let begun = phase.is_none() || said.recv_timeout(Duration::from_mins(5)).is_ok();
    let killed = begun && said.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout);
    child.kill().ok();
    child.wait().unwrap();
    let last = reader.join().unwrap().unwrap_or_default();
    killed && !last.contains("\"event\":\"result\"")
}

/// A command of the series on backups.
struct Victim {
    arguments: &'static [&'static str],
    /// How long it takes when nobody kills it.
    takes: Duration,
}

impl Victim {
    /// Measures a reference run.
    fn measured(backed: &Backed, arguments: &'static [&'static str]) -> Self {
        let started = Instant::now();
        backed.run(arguments).ok();
        let takes = started.elapsed();
        println!("{} takes {takes:?}", arguments.join(" "));
        Self { arguments, takes }
    }

    /// Kills it at a moment. When it had ended by then it takes less time than was measured, and it is tried again, each
    /// time a little earlier. Nothing is shown by one that was never killed.
    fn dies(&mut self, backed: &Backed, moment: u32) {
        for earlier in 0..TRIES {
            let (time, started) = (self.takes * moment / 1000 * (20 - earlier) / 20, Instant::now());
            let arguments = backed.arguments(self.arguments);
            let killed = killed_after(&backed.deployment.person, &arguments, None, time);
            let how = if killed { "killed" } else { "had ended" };
            println!("  {} after {time:?}: {how}", self.arguments.join(" "));
            if killed {
                return;
            }
            self.takes = self.takes.min(started.elapsed());
        }
        panic!(
            "{} had ended {TRIES} times before moment {moment}: nothing was killed",
            self.arguments.join(" ")
        );
    }
}

/// Accounts, when the IM core answers.
fn accounts(backed: &Backed) -> Option<String> {
    let listed = backed.run(&["user", "list", "--output", "json"]);
    (listed.code == 0).then_some(listed.stdout)
}

#[test]
fn backups_killed_at_any_moment_leave_a_sound_repository_and_nothing_half_restored() {
    const LATE: &str = "late@localhost";
    let backed = Backed::up();
    let add = backed.deployment.with_root(&["user", "add", LATE, "--password-stdin"]);
    backed.say("survives");
    let mut create = Victim::measured(&backed, &["backup", "create"]);
    let set = backed.sets()[0]["set"].as_str().unwrap().to_owned();
    backed.run(&["backup", "verify", "--share", "100"]).ok();
    let mut prune = Victim::measured(&backed, &["backup", "prune"]);
    let mut drill = Victim::measured(&backed, &["backup", "drill"]);
    let mut restore = Victim::measured(&backed, &["backup", "restore", "--overwrite"]);
    for moment in moments() {
        let before = backed.sets().len();
        create.dies(&backed, moment);
        backed.run_when_free(&["backup", "create"]).ok();
        assert!(backed.sets().len() > before, "the next one makes a set");
        backed.stock(&["check"]);

        prune.dies(&backed, moment);
        backed.run_when_free(&["backup", "prune"]).ok();
        backed.stock(&["check"]);
        assert!(backed.sets().iter().any(|one| one["set"] == set.as_str()), "the verified one stays");

        drill.dies(&backed, moment);
        backed.run_when_free(&["backup", "drill"]).ok();
        assert!(!backed.deployment.root.join("data/drill").exists(), "the scratch is gone");

        // Somebody who is not in the set: what is served is the one or the other, never a part of either.
        backed.deployment.person.run_with(&add, "correct horse battery").ok();
        let with = accounts(&backed).unwrap();
        restore.dies(&backed, moment);
        let seen = accounts(&backed);
        let restored = backed.run_when_free(&["backup", "restore", "--overwrite"]).ok().result();
        assert_eq!(restored["applied"], true);
        let without = accounts(&backed).unwrap();
        assert!(without.contains(BOB) && !without.contains(LATE) && with.contains(LATE));
        if let Some(seen) = seen {
            let names = |text: &str| text.matches("@localhost").count();
            assert!(seen.contains(BOB), "half of a database was served: {seen}");
            assert!(names(&seen) == names(&with) || names(&seen) == names(&without), "{seen}");
        }
        assert!(!backed.deployment.root.join("data/im/im.sqlite.restoring").exists());
        backed.stock(&["check"]);
    }
    // Every set that is listed is whole.
    backed.run(&["backup", "verify", "--share", "100"]).ok();
    backed.stock(&["check", "--read-data"]);
    bob_reads(&backed.deployment.person, &backed.deployment.result, &backed.deployment.root, "survives");
    backed.deployment.person.run(&backed.deployment.with_root(&["uninstall", "--purge", "--yes"])).ok();
}

/// What runs on a host, and what lies on it: the same when nothing was done to it.
fn trace(cluster: &Cluster, host: &str) -> String {
    let pids = "systemctl show -p Id -p MainPID -p ExecMainStartTimestampMonotonic 'maxim-*.service'";
    cluster.testbed.host(host).sh(&format!("{FILES}; {pids}")).unwrap()
}

fn upgrade_when_free(cluster: &Cluster) -> Outcome {
    wait_for("the lock to be free", Duration::from_mins(2), || {
        let outcome = cluster.upgrade("next");
        (outcome.code != 5).then_some(outcome)
    })
    .unwrap()
}

#[test]
fn an_upgrade_killed_at_any_moment_is_completed_and_done_hosts_stay_untouched() {
    let cluster = if is_long() {
        Cluster::bare(&[(HostSpec::new("app1"), ALL), (HostSpec::new("app2"), "im")], "")
    } else {
        Cluster::of_one()
    };
    let result = cluster.install().ok().result();
    let new = number(&cluster.person, &version("next"));
    let started = Instant::now();
    let events = cluster.upgrade("next").ok().events();
    let took = |phase: &str| {
        let found = events.iter().find(|event| event["event"] == "phase_finished" && event["step"] == phase);
        Duration::from_millis(found.unwrap()["duration_ms"].as_u64().unwrap())
    };
    // What is staged once stays: later runs do not take that time.
    let (staged, switch) = (took("apply"), took("switch"));
    let before = started.elapsed().saturating_sub(staged + switch);
    println!("an upgrade takes {before:?}, {staged:?} of staging, and {switch:?} of switching");
    let nodes = cluster.im_versions().len();
    let mut kills = 0;
    for moment in moments() {
        cluster.run(&["rollback", "--yes"]).ok();
        // Most of them where hosts are changed.
        let (phase, time) = match moment.checked_sub(PREPARES) {
            Some(moment) => (Some("switch"), switch * moment / (1000 - PREPARES)),
            None => (None, before * moment / PREPARES),
        };
        let killed = killed_after(&cluster.person, &cluster.to("next"), phase, time);
        kills += usize::from(killed);
        let status = cluster.run(&["status"]).result();
        let turns = status["upgrade"]["hosts"].as_array().cloned().unwrap_or_default();
        println!("  moment {moment}, killed: {killed}, it stood at {} {turns:?}", status["upgrade"]["phase"]);
        let under_way = status["upgrade"]["phase"] == "switching";
        let done: BTreeMap<String, String> = turns
            .iter()
            .filter(|turn| under_way && turn[1] == "done")
            .map(|turn| turn[0].as_str().unwrap().to_owned())
            .map(|host| (host.clone(), trace(&cluster, &host)))
            .collect();
        upgrade_when_free(&cluster).ok();
        assert_eq!(cluster.im_versions(), vec![new.clone(); nodes]);
        for (host, before) in done {
            assert_eq!(trace(&cluster, &host), before, "{host} was done");
        }
        cluster.wait_well();
    }
    let wanted = if is_long() { KILLED } else { 1 };
    assert!(kills >= wanted, "only {kills} upgrades were killed before their end, of {wanted} at least");
    cluster.chat(&result, "killed");
    assert_eq!(cluster.upgrade("next").ok().changes(), 0);
}
