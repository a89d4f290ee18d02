//! `backup schedule`: when sets are made, read again and tried; `--once` does what is owed now (what the timer starts),
//! `--run` keeps the schedules of an embedded deployment.
//!
//! Each job is a process of its own, so that one that fails takes nothing with it.

use super::super::{Call, Outcome};
use super::{moment, now, session};
use crate::failure::Failure;
use crate::messages::values;
use maxim_engine::backup::{self, Job};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Seconds after which what failed is tried again in an embedded deployment.
const AGAIN: i64 = 600;
/// Exit code of a command that was refused, as by a lock that is held.
const REFUSED: i32 = 5;
/// Between two looks at the schedules.
const LOOK: Duration = Duration::from_secs(20);

/// Shows the schedules, and what is owed.
pub(super) fn show(call: &Call<'_>) -> Outcome {
    let session = session(call)?;
    let due = backup::due(&session.context)?;
    let messages = call.printer.messages();
    let topology = &session.context.topology.backup;
    let zone = if topology.time_zone.is_empty() { "UTC" } else { topology.time_zone.as_str() };
    let mut text = String::new();
    for job in &due.jobs {
        let name = match job.job {
            Job::Backup => "schedule-backup",
            Job::Prune => "schedule-prune",
            Job::Verify => "schedule-verify",
            Job::Drill => "schedule-drill",
        };
        let next = job.next_unix.map_or_else(|| "-".to_owned(), moment);
        let said = messages.with(
            "schedule-next",
            values!["schedule" => job.schedule.as_str(), "zone" => zone, "next" => next],
        );
        text.push_str(&format!("{}: {said}", messages.text(name)));
        if job.owed {
            text.push_str(&format!(". {}", messages.text("schedule-owed")));
        }
        text.push('\n');
    }
    let by_hand = !topology.drill.is_empty() && due.job(Job::Drill).is_none();
    if by_hand {
        text.push_str(&format!("{}\n", messages.text("schedule-drill-by-hand")));
    }
    if due.jobs.is_empty() && !by_hand {
        text = format!("{}\n", messages.text("schedule-none"));
    }
    call.printer.human(&text);
    let main = due.job(Job::Backup);
    call.printer.result(
        0,
        json!({
            "changes": 0, "schedule": topology.schedule, "time_zone": zone,
            "next_unix": main.and_then(|job| job.next_unix), "owed": main.is_some_and(|job| job.owed),
            "jobs": due.jobs, "record": due.record,
        }),
    );
    Ok(0)
}

/// Does what is owed, one after the other; fails when one of them did, after the others were tried.
pub(super) fn once(call: &Call<'_>) -> Outcome {
    let owed = owed(call)?;
    let mut failed = Vec::new();
    for job in &owed {
        if run(call, *job)? != 0 {
            failed.push(*job);
        }
    }
    let code = u8::from(!failed.is_empty());
    call.printer.result(code, json!({"changes": owed.len() - failed.len(), "owed": owed, "failed": failed}));
    Ok(code)
}

/// The keeper of the schedules in an embedded deployment, a service of our supervisor: it looks whether something is owed
/// (what was missed is), and has a process of its own do it. It holds nothing itself.
pub(super) fn keep(call: &Call<'_>) -> Outcome {
    let mut failed_at: BTreeMap<&str, i64> = BTreeMap::new();
    loop {
        // A schedule that cannot be read now may be right in a minute: it is said, and looked at again.
        match owed(call) {
            Ok(owed) => {
                for job in owed {
                    let name = arguments(job)[0];
                    // A time that lies ahead was taken before the clock was set back.
                    let waits = failed_at.get(name).is_some_and(|at| (*at..*at + AGAIN).contains(&now()));
                    if waits {
                        continue;
                    }
                    failed_at.remove(name);
                    match run(call, job)? {
                        // Refused: somebody else is at work, as an install that has just started this service. Soon again.
                        0 | REFUSED => {}
                        code => {
                            let _ = writeln!(std::io::stderr(), "schedule: {name} failed (exit code {code})");
                            failed_at.insert(name, now());
                        }
                    }
                }
            }
            Err(failure) => {
                let words =
                    failure.problems.first().map(|problem| problem.message.clone()).unwrap_or_default();
                let _ = writeln!(std::io::stderr(), "schedule: {words}");
            }
        }
        std::thread::sleep(LOOK);
    }
}

fn owed(call: &Call<'_>) -> Result<Vec<Job>, Failure> {
    let session = session(call)?;
    let due = backup::due(&session.context)?;
    Ok(due.jobs.iter().filter(|job| job.owed).map(|job| job.job).collect())
}

const fn arguments(job: Job) -> &'static [&'static str] {
    match job {
        Job::Backup => &["create", "--scheduled"],
        Job::Prune => &["prune"],
        Job::Verify => &["verify"],
        Job::Drill => &["drill"],
    }
}

/// Does one job in a process of its own; its exit code, -1 when a signal ended it or it could not be started.
fn run(call: &Call<'_>, job: Job) -> Result<i32, Failure> {
    let program =
        std::env::current_exe().map_err(|error| Failure::failed(format!("own program: {error}"), ""))?;
    let mut command = Command::new(&program);
    if let Some(root) = &call.global.root {
        command.arg("--root").arg(root);
    }
    if let Some(cluster) = &call.global.cluster {
        command.args(["--cluster", cluster]);
    }
    command.arg("backup").args(arguments(job)).args(["--yes", "--quiet", "--no-color"]);
    let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    Ok(ended.ok().and_then(|status| status.code()).unwrap_or(-1))
}
