//! The schedules of an embedded deployment, kept by a service of our supervisor: what was missed is made up for, every
//! job is done in its turn, and a clock that was set back stops nothing.

use crate::backup_hosts::{SHANGHAI, hour_in};
use crate::embedded::Deployment;
use crate::product::delivered;
use maxim_tests::hosts::wait_for;
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// Three days and, in the other direction, three days ahead.
const DAYS: i64 = 3 * 86_400;

fn record(deployment: &Deployment) -> Value {
    let path = deployment.root.join("data/backup/record.json");
    fs::read_to_string(path).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Moves the time of what was done last.
fn shift(deployment: &Deployment, job: &str, seconds: i64) {
    let mut value = record(deployment);
    value[job]["at_unix"] = (value[job]["at_unix"].as_i64().unwrap() + seconds).into();
    fs::write(deployment.root.join("data/backup/record.json"), value.to_string()).unwrap();
}

#[test]
fn the_supervisor_keeps_the_schedules_and_makes_up_for_what_was_missed() {
    let deployment = Deployment::install();
    let run = |arguments: &[&str]| deployment.person.run(&deployment.with_root(arguments));
    let repository = deployment.person.home().join("repository");
    let value = format!("{{type: local, path: {}}}", repository.display());
    run(&["config", "set", "backup.repository", &value]).ok();
    // restic comes along from the bundle once; the service then has it.
    run(&delivered(&["backup", "create", "--yes"])).ok();
    let first = record(&deployment)["backup"]["set"].clone();
    run(&["config", "set", "backup.time_zone", "Asia/Shanghai"]).ok();
    for (key, hours) in [("schedule", 6), ("verify", 7), ("drill", 8)] {
        let schedule = format!("0 {} * * *", hour_in(hours, SHANGHAI));
        run(&["config", "set", &format!("backup.{key}"), &schedule]).ok();
    }
    // Nobody was there for three days.
    shift(&deployment, "backup", -DAYS);
    run(&["install", "--yes"]).ok();
    let done = wait_for("everything that is owed to be done", Duration::from_mins(3), || {
        let now = record(&deployment);
        let set = now["backup"]["set"].clone();
        (set != first && now["verify"]["set"] == set && now["drill"]["set"] == set).then_some(set)
    });
    let second = done.unwrap_or_else(|error| panic!("{error}: {:#}", record(&deployment)));
    let shown = run(&["backup", "schedule", "--output", "json"]).ok().result();
    let jobs = shown["jobs"].as_array().unwrap();
    assert!(jobs.len() == 3 && jobs.iter().all(|job| job["owed"] == false), "{shown}");
    run(&["status"]).ok().says(&["verified:", "proven restore:"]);

    // What was done last lies ahead: the clock was set back since.
    shift(&deployment, "backup", DAYS);
    wait_for("a set after the clock was set back", Duration::from_mins(2), || {
        (record(&deployment)["backup"]["set"] != second).then_some(())
    })
    .unwrap();
    // Retention is applied after the set, and whoever works on a cluster is not disturbed.
    wait_for("the last job to end", Duration::from_mins(1), || {
        let outcome = run(&["uninstall", "--purge", "--yes"]);
        (outcome.code != 5).then(|| outcome.ok())
    })
    .unwrap();
}
