//! SIGKILL at moments spread over the time that a command takes: backups, their pruning, restores and drills of an
//! embedded deployment (with database servers: see `kills_servers`), upgrades of hosts. Run again, it completes; the
//! repository passes Debian's own restic; nothing half restored is ever served; hosts that were done are not touched again.
//!
//! Ten moments each with `tests/run --all`, two seeded ones otherwise (`MAXIM_TEST_SEED` gives the seed). A moment is a
//! time, not an event: a command spends most of its time between events.

use crate::backup::{Backed, Backups, bob_reads};
use crate::backup_hosts::long;
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
/// Of the thousandths of a command with a phase that counts most, those that are not in that phase.
const HALF: u32 = 500;

/// Parts of the time of a reference run, in thousandths: all ten, or a seeded one of each half.
pub fn moments() -> Vec<u32> {
    let seed: u32 = std::env::var("MAXIM_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().subsec_micros());
    let moments: Vec<u32> = if long() {
        (0..MOMENTS).map(|number| number * 100 + seed % 100).collect()
    } else {
        vec![seed % 500, 500 + seed / 500 % 450]
    };
    println!("seed {seed}: moments {moments:?} in thousandths");
    moments
}

/// How long a phase took.
fn took(events: &[Value], phase: &str) -> Duration {
    let found = events.iter().find(|event| event["event"] == "phase_finished" && event["step"] == phase);
    Duration::from_millis(found.unwrap()["duration_ms"].as_u64().unwrap())
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

/// What the series on backups is done to.
pub trait Ground: Backups {
    /// What accounts end in.
    const DOMAIN: &'static str;

    /// Accounts, when the IM core answers.
    fn accounts(&self) -> Option<String> {
        let listed = self.run(&["user", "list", "--output", "json"]);
        (listed.code == 0).then_some(listed.stdout)
    }

    /// Those that are served after a restore was killed, when somebody is served.
    fn served(&self) -> Option<String> {
        self.accounts()
    }

    /// Sees that nothing of a drill or a restore is left beside what serves.
    fn is_tidy(&self);
}

impl Ground for Backed {
    const DOMAIN: &'static str = "localhost";

    fn is_tidy(&self) {
        for left in ["drill", "im/im.sqlite.restoring", "im/im.sqlite.before-restore"] {
            assert!(!self.deployment.root.join("data").join(left).exists(), "{left} is left");
        }
    }
}

/// A command of the series on backups.
pub struct Victim {
    arguments: &'static [&'static str],
    /// How long it takes when nobody kills it.
    takes: Duration,
    /// The phase in which the later half of the moments lies, and how long that takes.
    phase: Option<(&'static str, Duration)>,
}

impl Victim {
    /// Measures a reference run.
    pub fn measured(
        ground: &impl Ground,
        arguments: &'static [&'static str],
        phase: Option<&'static str>,
    ) -> Self {
        let started = Instant::now();
        let outcome = ground.run(arguments).ok();
        let takes = started.elapsed();
        let phase = phase.map(|phase| (phase, took(&outcome.events(), phase)));
        println!("{} takes {takes:?}, of it {phase:?}", arguments.join(" "));
        Self { arguments, takes, phase }
    }

    /// A moment as a time since its start or since a phase of it began.
    fn at(&self, moment: u32) -> (Option<&'static str>, Duration) {
        match self.phase {
            Some((phase, takes)) if moment >= HALF => (Some(phase), takes * (moment - HALF) / (1000 - HALF)),
            Some(_) => (None, self.takes * moment / HALF),
            None => (None, self.takes * moment / 1000),
        }
    }

    /// Kills it at a moment. When it had ended by then it takes less time than was measured, and it is tried again, each
    /// time a little earlier. Nothing is shown by one that was never killed.
    pub fn dies(&mut self, ground: &impl Ground, moment: u32) {
        for earlier in 0..TRIES {
            let (phase, time) = self.at(moment);
            let (time, started) = (time * (20 - earlier) / 20, Instant::now());
            let killed = killed_after(ground.person(), &ground.arguments(self.arguments), phase, time);
            let how = if killed { "killed" } else { "had ended" };
            println!("  {} after {time:?} of {}: {how}", self.arguments.join(" "), phase.unwrap_or("it"));
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

    /// Runs it again to its end.
    pub fn is_completed(&self, ground: &impl Ground) -> Outcome {
        ground.run_when_free(self.arguments).ok()
    }
}

/// `backup create`, killed and run again.
pub fn create_dies(ground: &impl Ground, create: &mut Victim, moment: u32) {
    let before = ground.sets().len();
    create.dies(ground, moment);
    create.is_completed(ground);
    assert!(ground.sets().len() > before, "the next one makes a set");
    ground.stock(&["check"]);
}

/// `backup drill`, killed and run again.
pub fn drill_dies(ground: &impl Ground, drill: &mut Victim, moment: u32) {
    drill.dies(ground, moment);
    drill.is_completed(ground);
    ground.is_tidy();
}

/// `backup restore`, killed and run again, with somebody who is not in the set: what is served is the one or the other,
/// never a part of either. Bob is in both.
pub fn restore_dies<G: Ground>(ground: &G, restore: &mut Victim, moment: u32) {
    let at = format!("@{}", G::DOMAIN);
    let (bob, late) = (format!("bob{at}"), format!("late{at}"));
    let add = ground.arguments(&["user", "add", &late, "--password-stdin"]);
    let add: Vec<_> = add.iter().map(String::as_str).collect();
    ground.person().run_with(&add, "correct horse battery").ok();
    let with = ground.accounts().unwrap();
    restore.dies(ground, moment);
    let seen = ground.served();
    assert_eq!(restore.is_completed(ground).result()["applied"], true);
    let without = ground.accounts().unwrap();
    assert!(without.contains(&bob) && !without.contains(&late) && with.contains(&late));
    if let Some(seen) = seen {
        let names = |text: &str| text.matches(&at).count();
        assert!(seen.contains(&bob), "half of a database was served: {seen}");
        assert!(names(&seen) == names(&with) || names(&seen) == names(&without), "{seen}");
    }
    ground.is_tidy();
    ground.stock(&["check"]);
}

/// The end of a series: every set that is listed is whole, each by itself, and so is the repository.
pub fn every_set_is_whole(ground: &impl Ground) {
    let sets = ground.sets();
    println!("{} sets", sets.len());
    for set in &sets {
        let name = set["set"].as_str().unwrap();
        let verified = ground.run(&["backup", "verify", name, "--deep", "--share", "0"]).ok().result();
        assert!(verified["set"] == name && verified["compared"].as_u64() > Some(0), "{verified}");
    }
    ground.run(&["backup", "verify", "--share", "100"]).ok();
    ground.stock(&["check", "--read-data"]);
}

#[test]
fn backups_killed_at_any_moment_leave_a_sound_repository_and_nothing_half_restored() {
    let backed = Backed::up();
    backed.say("survives");
    let mut create = Victim::measured(&backed, &["backup", "create"], None);
    let set = backed.sets()[0]["set"].as_str().unwrap().to_owned();
    backed.run(&["backup", "verify", "--share", "100"]).ok();
    let mut prune = Victim::measured(&backed, &["backup", "prune"], None);
    let mut drill = Victim::measured(&backed, &["backup", "drill"], None);
    let mut restore = Victim::measured(&backed, &["backup", "restore", "--overwrite"], None);
    for moment in moments() {
        create_dies(&backed, &mut create, moment);
        prune.dies(&backed, moment);
        prune.is_completed(&backed);
        backed.stock(&["check"]);
        assert!(backed.sets().iter().any(|one| one["set"] == set.as_str()), "the verified one stays");
        drill_dies(&backed, &mut drill, moment);
        restore_dies(&backed, &mut restore, moment);
    }
    every_set_is_whole(&backed);
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
    let cluster = if long() {
        Cluster::bare(&[(HostSpec::new("app1"), ALL), (HostSpec::new("app2"), "im")], "")
    } else {
        Cluster::of_one()
    };
    let result = cluster.install().ok().result();
    let new = number(&cluster.person, &version("next"));
    let started = Instant::now();
    let events = cluster.upgrade("next").ok().events();
    // What is staged once stays: later runs do not take that time.
    let (staged, switch) = (took(&events, "apply"), took(&events, "switch"));
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
    let wanted = if long() { KILLED } else { 1 };
    assert!(kills >= wanted, "only {kills} upgrades were killed before their end, of {wanted} at least");
    cluster.chat(&result, "killed");
    assert_eq!(cluster.upgrade("next").ok().changes(), 0);
}
