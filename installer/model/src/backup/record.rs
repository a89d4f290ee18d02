//! What was done last: one small file on the host that keeps the repository, read by `status` and the console.

use serde::{Deserialize, Serialize};

/// Where it lies below the data folder.
pub const RECORD_FILE: &str = "backup/record.json";

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupRecord {
    /// The newest set that was finished.
    pub backup: Option<Done>,
    /// The newest verification that found nothing wrong.
    pub verify: Option<Done>,
    /// The newest restore that was proven by starting it.
    pub drill: Option<Drilled>,
    /// The last failure since then; empty when the last run went well.
    pub trouble: String,
    /// Unix seconds of that failure.
    pub trouble_unix: i64,
    /// Verifications that failed since the last one that went well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify_fails: Option<Failing>,
    /// Drills that failed since the last one that went well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill_fails: Option<Failing>,
}

impl BackupRecord {
    /// A verification ended at `now`, in Unix seconds: well, or with this trouble.
    pub fn verified(&mut self, ended: Result<Done, String>, now: i64) {
        match ended {
            Ok(done) => (self.verify, self.verify_fails) = (Some(done), None),
            Err(trouble) => {
                self.verify_fails = Some(Failing::once_more(self.verify_fails, now));
                (self.trouble, self.trouble_unix) = (trouble, now);
            }
        }
    }

    /// A drill ended at `now`, in Unix seconds: well, or with this trouble.
    pub fn drilled(&mut self, ended: Result<Drilled, String>, now: i64) {
        match ended {
            Ok(done) => (self.drill, self.drill_fails) = (Some(done), None),
            Err(trouble) => {
                self.drill_fails = Some(Failing::once_more(self.drill_fails, now));
                (self.trouble, self.trouble_unix) = (trouble, now);
            }
        }
    }
}

/// Something that failed again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// So often.
    pub times: u32,
    /// Unix seconds of the last time.
    pub at_unix: i64,
}

impl Failing {
    /// One failure more.
    fn once_more(before: Option<Self>, now: i64) -> Self {
        Self { times: before.map_or(0, |before| before.times).saturating_add(1), at_unix: now }
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
            let now = Failing::once_more(failing, 1000);
            let left = (0..200_000).step_by(600).find(|seconds| !now.waits(1000 + seconds));
            waited.push(left.unwrap() / 60);
            failing = Some(now);
        }
        assert_eq!(waited[..6], [0, 20, 40, 80, 160, 320]);
        assert!(waited[9..].iter().all(|minutes| *minutes == 24 * 60), "{waited:?}");
        assert!(!failing.unwrap().waits(999), "the clock was set back");
    }

    #[test]
    fn failures_are_counted_until_one_goes_well() {
        let mut record = BackupRecord::default();
        for now in [5, 6] {
            record.verified(Err("damaged".into()), now);
        }
        record.drilled(Err("no room".into()), 7);
        assert_eq!(record.verify_fails, Some(Failing { times: 2, at_unix: 6 }));
        assert_eq!(record.drill_fails, Some(Failing { times: 1, at_unix: 7 }));
        assert_eq!((record.trouble.as_str(), record.trouble_unix), ("no room", 7));
        let done = Done { set: "a".into(), at_unix: 8, duration_ms: 1, bytes: 1, added: 0 };
        record.verified(Ok(done.clone()), 8);
        let drilled = Drilled { set: "a".into(), at_unix: 9, recovery_ms: 1, lost_seconds: 1, rows: 1 };
        record.drilled(Ok(drilled.clone()), 9);
        assert_eq!((record.verify, record.drill), (Some(done), Some(drilled)));
        assert_eq!((record.verify_fails, record.drill_fails), (None, None));
    }

    #[test]
    fn a_record_of_before_is_understood() {
        let record: BackupRecord = serde_json::from_str(r#"{"trouble": "a", "trouble_unix": 1}"#).unwrap();
        assert_eq!((record.verify_fails, record.drill_fails), (None, None));
        assert!(!serde_json::to_string(&record).unwrap().contains("fails"));
    }
}
