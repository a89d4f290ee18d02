//! What was done last: one small file on the host that keeps the repository, read by `status` and the console.

use serde::{Deserialize, Serialize};

/// Where it lies below the data folder.
pub const RECORD_FILE: &str = "backup/record.json";

/// See the module. What went well ends the failures of its own kind, and of no other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupRecord {
    /// The newest set that was finished.
    pub backup: Option<Done>,
    /// The newest verification that found nothing wrong.
    pub verify: Option<Done>,
    /// The newest restore that was proven by starting it.
    pub drill: Option<Drilled>,
    /// Sets that could not be made since the last one that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_fails: Option<Failing>,
    /// Sets that retention does not keep could not be removed since they last were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune_fails: Option<Failing>,
    /// Verifications that failed since the last one that went well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify_fails: Option<Failing>,
    /// Drills that failed since the last one that went well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill_fails: Option<Failing>,
}

impl BackupRecord {
    /// A set was made at `now`, in Unix seconds, or could not be for this cause. One that is none of the schedule's (a
    /// safety set) shows that sets can be made, and is not noted as the newest.
    pub fn backed_up(&mut self, ended: Result<Option<Done>, String>, now: i64) {
        match ended {
            Ok(done) => {
                self.backup_fails = None;
                if done.is_some() {
                    self.backup = done;
                }
            }
            Err(cause) => self.backup_fails = Some(Failing::once_more(self.backup_fails.take(), now, cause)),
        }
    }

    /// Sets were removed at `now`, in Unix seconds, or could not be for this cause.
    pub fn pruned(&mut self, ended: Result<(), String>, now: i64) {
        self.prune_fails = ended.err().map(|cause| Failing::once_more(self.prune_fails.take(), now, cause));
    }

    /// A verification ended at `now`, in Unix seconds: well, or for this cause not.
    pub fn verified(&mut self, ended: Result<Done, String>, now: i64) {
        match ended {
            Ok(done) => (self.verify, self.verify_fails) = (Some(done), None),
            Err(cause) => self.verify_fails = Some(Failing::once_more(self.verify_fails.take(), now, cause)),
        }
    }

    /// A drill ended at `now`, in Unix seconds: well, or for this cause not.
    pub fn drilled(&mut self, ended: Result<Drilled, String>, now: i64) {
        match ended {
            Ok(done) => (self.drill, self.drill_fails) = (Some(done), None),
            Err(cause) => self.drill_fails = Some(Failing::once_more(self.drill_fails.take(), now, cause)),
        }
    }

    /// What fails at present.
    pub fn failing(&self) -> impl Iterator<Item = &Failing> {
        [&self.backup_fails, &self.prune_fails, &self.verify_fails, &self.drill_fails].into_iter().flatten()
    }
}

/// Something that failed again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// So often.
    pub times: u32,
    /// Unix seconds of the last time.
    pub at_unix: i64,
    /// Why, the last time.
    #[serde(default)]
    pub cause: String,
}

impl Failing {
    /// One failure more.
    fn once_more(before: Option<Self>, now: i64, cause: String) -> Self {
        let times = before.map_or(0, |before| before.times).saturating_add(1);
        Self { times, at_unix: now, cause }
    }

    /// Whether a schedule leaves it alone yet. Tried again when it is next looked (ten minutes) after the first failure,
    /// then after twice as long each time, a day at most: a drill loads the whole database, and a verification reads a
    /// share of a repository that may be paid for by the byte. A failure that lies ahead, before the clock was set back,
    /// keeps nothing waiting.
    #[must_use]
    pub fn waits(&self, now: i64) -> bool {
        const FIRST: i64 = 600;
        const LONGEST: i64 = 86_400;
        let Some(doublings) = self.times.checked_sub(1).filter(|doublings| *doublings > 0) else {
            return false;
        };
        let wait = (FIRST << doublings.min(16)).min(LONGEST);
        (self.at_unix..self.at_unix.saturating_add(wait)).contains(&now)
    }
}

/// Something that was finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The set.
    pub set: String,
    /// Unix seconds at its end.
    pub at_unix: i64,
    /// Milliseconds it took.
    pub duration_ms: u64,
    /// Bytes of the set, or bytes that were read anew.
    pub bytes: u64,
    /// Bytes that the repository grew by.
    #[serde(default)]
    pub added: u64,
}

/// A drill that went well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drilled {
    /// The set.
    pub set: String,
    /// Unix seconds at its end.
    pub at_unix: i64,
    /// Milliseconds from the first byte to the message that was read.
    pub recovery_ms: u64,
    /// Seconds between the point of the set and the drill: what would be lost.
    pub lost_seconds: i64,
    /// Rows compared.
    pub rows: u64,
}

#[cfg(test)]
mod tests {
    use super::{BackupRecord, Done, Drilled, Failing};

    #[test]
    fn what_fails_again_and_again_is_tried_less_and_less_but_once_a_day() {
        let mut failing = None;
        let mut waited = Vec::new();
        for _ in 0..30 {
            let now = Failing::once_more(failing, 1000, "full".into());
            let left = (0..200_000).step_by(600).find(|seconds| !now.waits(1000 + seconds));
            waited.push(left.unwrap() / 60);
            failing = Some(now);
        }
        assert_eq!(waited[..6], [0, 20, 40, 80, 160, 320]);
        assert!(waited[9..].iter().all(|minutes| *minutes == 24 * 60), "{waited:?}");
        assert!(!failing.unwrap().waits(999), "the clock was set back");
    }

    #[test]
    fn failures_are_counted_until_one_of_the_kind_goes_well() {
        let mut record = BackupRecord::default();
        for now in [5, 6] {
            record.verified(Err("damaged".into()), now);
        }
        record.drilled(Err("no room".into()), 7);
        record.backed_up(Err("away".into()), 7);
        record.pruned(Err("locked".into()), 8);
        let failing = |times, at_unix, cause: &str| Some(Failing { times, at_unix, cause: cause.into() });
        assert_eq!(record.verify_fails, failing(2, 6, "damaged"));
        assert_eq!(record.failing().count(), 4);
        let done = Done { set: "a".into(), at_unix: 8, duration_ms: 1, bytes: 1, added: 0 };
        record.backed_up(Ok(None), 8);
        assert_eq!((&record.backup, record.failing().count()), (&None, 3), "a safety set");
        record.backed_up(Ok(Some(done.clone())), 8);
        assert_eq!(record.verify_fails, failing(2, 6, "damaged"), "a new set mends no flipped bit");
        record.verified(Ok(done.clone()), 8);
        assert_eq!(
            (record.drill_fails.clone(), record.prune_fails.clone()),
            (failing(1, 7, "no room"), failing(1, 8, "locked"))
        );
        let drilled = Drilled { set: "a".into(), at_unix: 9, recovery_ms: 1, lost_seconds: 1, rows: 1 };
        record.drilled(Ok(drilled.clone()), 9);
        record.pruned(Ok(()), 9);
        assert_eq!(record.failing().next(), None);
        assert_eq!(
            (record.backup, record.verify, record.drill),
            (Some(done.clone()), Some(done), Some(drilled))
        );
    }

    #[test]
    fn a_record_of_before_is_understood() {
        let text = r#"{"trouble": "a", "trouble_unix": 1, "verify_fails": {"times": 1, "at_unix": 2}}"#;
        let record: BackupRecord = serde_json::from_str(text).unwrap();
        assert_eq!((record.verify_fails.unwrap().times, record.drill_fails), (1, None));
        assert!(!serde_json::to_string(&BackupRecord::default()).unwrap().contains("fails"));
    }
}
