//! What the schedules say: when sets are made, read again, and tried, and what of it is owed now.

use super::repository_host;
use super::sets::record;
use crate::context::Context;
use crate::error::EngineError;
use maxim_model::backup::BackupRecord;
use maxim_model::backup::record::Failing;
use maxim_model::backup::schedule::Schedule;
use maxim_model::names::Role;
use maxim_model::topology::Topology;
use serde::Serialize;
use time::OffsetDateTime;

/// What is done by a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Job {
    /// A set is made, and retention applied.
    Backup,
    /// Retention is applied, which failed after the last set.
    Prune,
    /// A share of the repository is read again.
    Verify,
    /// The newest set is restored into scratch and started.
    Drill,
}

/// One of them, by its schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DueJob {
    /// Which.
    pub job: Job,
    /// Its schedule.
    pub schedule: String,
    /// Whether it is owed: it was due since it was done last, or was never done, and what failed has waited
    /// ([`Failing`]).
    pub owed: bool,
    /// Unix seconds of the next one; none: there is none within reach.
    pub next_unix: Option<i64>,
}

/// What the schedules say now.
#[derive(Debug, Clone, Serialize)]
pub struct Due {
    /// Those that have a schedule, in the order in which they are done.
    pub jobs: Vec<DueJob>,
    /// What was done last.
    #[serde(skip)]
    pub record: BackupRecord,
}

impl Due {
    /// The schedule of a job.
    pub fn job(&self, job: Job) -> Option<&DueJob> {
        self.jobs.iter().find(|due| due.job == job)
    }
}

/// What is owed by the schedules.
pub fn due(context: &Context) -> Result<Due, EngineError> {
    let record = record(context)?;
    let jobs = judge(&context.topology, &record, OffsetDateTime::now_utc().unix_timestamp())?;
    Ok(Due { jobs, record })
}

/// The same for a record and a time.
fn judge(topology: &Topology, record: &BackupRecord, now: i64) -> Result<Vec<DueJob>, EngineError> {
    let backup_by_schedule = !topology.backup.schedule.is_empty();
    let mut jobs = Vec::new();
    for (job, schedule) in schedules(topology)? {
        let (last, failing) = match job {
            // As soon as it can be: whoever has no new set loses more with every hour.
            Job::Backup | Job::Prune => (record.backup.as_ref().map(|done| done.at_unix), None),
            Job::Verify => (record.verify.as_ref().map(|done| done.at_unix), record.verify_fails.as_ref()),
            Job::Drill => (record.drill.as_ref().map(|done| done.at_unix), record.drill_fails.as_ref()),
        };
        let waits = |failing: Option<&Failing>| failing.is_some_and(|failing| failing.waits(now));
        // Without a set there is nothing to read or to try, unless one is made before it in the same run.
        let possible = job == Job::Backup || backup_by_schedule || record.backup.is_some();
        let due = DueJob {
            job,
            schedule: schedule.text().to_owned(),
            owed: possible && !waits(failing) && schedule.is_owed(last, now),
            next_unix: schedule.next_after(now),
        };
        // The next set brings it with it; until then it is tried again by itself.
        if job == Job::Backup && !due.owed && record.prune_fails.is_some() {
            jobs.push(due.clone());
            jobs.push(DueJob { job: Job::Prune, owed: !waits(record.prune_fails.as_ref()), ..due });
        } else {
            jobs.push(due);
        }
    }
    Ok(jobs)
}

/// Whether the newest set can be tried without a control host: the host of the repository has the IM core, for it may
/// start programs nowhere else. Databases elsewhere take a dump from it that they have made themselves.
pub fn drills_by_itself(topology: &Topology) -> bool {
    repository_host(topology).is_some_and(|keeper| keeper.roles.contains(&Role::Im))
}

/// The schedules of a topology.
pub(crate) fn schedules(topology: &Topology) -> Result<Vec<(Job, Schedule)>, EngineError> {
    let backup = &topology.backup;
    let mut all = Vec::new();
    for (job, text) in
        [(Job::Backup, &backup.schedule), (Job::Verify, &backup.verify), (Job::Drill, &backup.drill)]
    {
        if !text.is_empty() && (job != Job::Drill || drills_by_itself(topology)) {
            let schedule = Schedule::parse(text, &backup.time_zone)
                .map_err(|error| EngineError::usage("schedule", format!("`{text}`: {error}")))?;
            all.push((job, schedule));
        }
    }
    Ok(all)
}

/// The schedules as systemd has them, each expression once.
pub(crate) fn calendars(topology: &Topology) -> Result<Vec<String>, EngineError> {
    let mut all = Vec::new();
    for (_, schedule) in schedules(topology)? {
        for calendar in
            schedule.on_calendar().map_err(|error| EngineError::usage("schedule", error.to_string()))?
        {
            if !all.contains(&calendar) {
                all.push(calendar);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::{Job, calendars, judge};
    use crate::sample;
    use maxim_model::backup::BackupRecord;
    use maxim_model::backup::record::{Done, Drilled, Failing};
    use maxim_model::names::Role;
    use maxim_model::topology::Topology;

    const DAY: i64 = 86_400;
    /// A midnight.
    const NOW: i64 = 20_000 * DAY;

    fn owed(record: &BackupRecord, now: i64) -> Vec<Job> {
        let mut topology = sample::single_host();
        topology.backup.schedule = "0 3 * * *".into();
        topology.backup.verify = "0 5 * * *".into();
        topology.backup.drill = "0 6 * * *".into();
        let jobs = judge(&topology, record, now).unwrap();
        jobs.iter().filter(|due| due.owed).map(|due| due.job).collect()
    }

    fn done(at_unix: i64) -> Done {
        Done { set: "a".into(), at_unix, duration_ms: 1, bytes: 1, added: 1 }
    }

    #[test]
    fn each_is_owed_by_its_own_schedule() {
        assert_eq!(owed(&BackupRecord::default(), NOW), [Job::Backup, Job::Verify, Job::Drill]);
        let record = BackupRecord {
            backup: Some(done(NOW)),
            verify: Some(done(NOW - DAY)),
            ..BackupRecord::default()
        };
        assert_eq!(owed(&record, NOW + 60), [Job::Verify, Job::Drill]);
        assert_eq!(
            owed(&record, NOW + 3 * 3600),
            [Job::Backup, Job::Verify, Job::Drill],
            "at the very second"
        );
    }

    #[test]
    fn what_fails_for_a_lasting_reason_waits_longer_each_time_and_a_backup_never() {
        let failing = |times| Some(Failing { times, at_unix: NOW, cause: "full".into() });
        let record = |times| BackupRecord {
            verify_fails: failing(times),
            drill_fails: failing(times),
            ..BackupRecord::default()
        };
        let all = [Job::Backup, Job::Verify, Job::Drill];
        assert_eq!(owed(&record(1), NOW + 600), all);
        assert_eq!(owed(&record(4), NOW + 600), [Job::Backup]);
        assert_eq!(owed(&record(4), NOW + 5 * 3600), all);
        let other = BackupRecord { drill_fails: failing(9), ..BackupRecord::default() };
        assert_eq!(owed(&other, NOW + 600), [Job::Backup, Job::Verify]);
    }

    #[test]
    fn what_could_not_be_removed_is_tried_again_until_the_next_set_brings_it_with_it() {
        let record = |times| BackupRecord {
            backup: Some(done(NOW)),
            verify: Some(done(NOW)),
            prune_fails: Some(Failing { times, at_unix: NOW, cause: "locked".into() }),
            drill: Some(Drilled { set: "a".into(), at_unix: NOW, recovery_ms: 1, lost_seconds: 1, rows: 1 }),
            ..BackupRecord::default()
        };
        assert_eq!(owed(&record(1), NOW + 600), [Job::Prune]);
        assert_eq!(owed(&record(4), NOW + 600), []);
        assert_eq!(owed(&record(1), NOW + 3 * 3600), [Job::Backup]);
    }

    #[test]
    fn a_clock_that_was_set_back_stops_nothing() {
        let record = BackupRecord { backup: Some(done(NOW + 30 * DAY)), ..BackupRecord::default() };
        assert!(owed(&record, NOW).contains(&Job::Backup));
    }

    #[test]
    fn without_a_set_nothing_is_read_or_tried() {
        let mut topology = sample::single_host();
        topology.backup.drill = "0 6 * * *".into();
        let drills = |record: &BackupRecord| judge(&topology, record, NOW).unwrap()[0].owed;
        assert!(!drills(&BackupRecord::default()));
        assert!(drills(&BackupRecord { backup: Some(done(NOW)), ..BackupRecord::default() }));
    }

    #[test]
    fn drills_are_scheduled_where_the_host_of_the_repository_has_the_im_core() {
        let mut topology = sample::three_hosts();
        topology.backup.schedule = "0 3 * * *".into();
        topology.backup.drill = "0 6 * * *".into();
        let jobs = |topology: &Topology| -> Vec<Job> {
            let all = judge(topology, &BackupRecord::default(), NOW).unwrap();
            all.iter().map(|due| due.job).collect()
        };
        assert_eq!(jobs(&topology), [Job::Backup, Job::Drill]);
        // A console apart from the IM core keeps the repository.
        let app = topology.hosts.iter_mut().find(|host| host.roles.contains(&Role::Console)).unwrap();
        app.roles.retain(|role| *role != Role::Im);
        let mut other = app.clone();
        (other.name, other.roles) = ("app2".into(), vec![Role::Im]);
        topology.hosts.push(other);
        assert_eq!(jobs(&topology), [Job::Backup]);
    }

    #[test]
    fn one_timer_for_all_of_them() {
        let mut topology = sample::single_host();
        topology.backup.schedule = "0 3 * * *".into();
        topology.backup.verify = "0 3 * * *".into();
        topology.backup.drill = "30 4 * * 0".into();
        assert_eq!(calendars(&topology).unwrap().len(), 2);
    }
}
