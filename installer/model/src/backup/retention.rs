//! Which sets stay: daily, weekly and monthly, counted in sets and in the schedule's time zone.
//!
//! For each of the last N days (weeks, months) that have a set, the newest set of that day stays. Beyond that, always:
//! the newest set, the newest verified and the newest proven one, every set of a point in the future (a clock was
//! wrong somewhere; nothing is lost for that), and safety sets of the last seven days.

use super::manifest::SetKind;
use chrono::{DateTime, Datelike, TimeZone, Utc};
use chrono_tz::Tz;
use serde::Serialize;

/// Days for which a safety set is kept.
const SAFETY_DAYS: i64 = 7;

/// How many are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Days.
    pub daily: u32,
    /// ISO weeks.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
}

/// What is known of a set without opening it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetInfo {
    /// Identifier.
    pub set: String,
    /// Unix seconds of its point.
    pub point_unix: i64,
    /// Why it was made.
    pub kind: SetKind,
    /// Unix seconds of its last verification; 0: never.
    pub verified_unix: i64,
    /// Unix seconds of its last drill; 0: never.
    pub proven_unix: i64,
}

/// What becomes of a set, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The set.
    pub set: SetInfo,
    /// Reasons to keep it; empty: it goes.
    pub reasons: Vec<String>,
}

impl Verdict {
    /// Whether it stays.
    pub const fn stays(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// Judges all sets, newest first.
pub fn judge(sets: &[SetInfo], policy: Policy, zone: Tz, now_unix: i64) -> Vec<Verdict> {
    let mut sets = sets.to_vec();
    sets.sort_by(|a, b| (b.point_unix, &b.set).cmp(&(a.point_unix, &a.set)));
    let mut verdicts: Vec<Verdict> =
        sets.into_iter().map(|set| Verdict { set, reasons: Vec::new() }).collect();
    let regular =
        |verdict: &Verdict| verdict.set.kind != SetKind::Safety && verdict.set.point_unix <= now_unix;
    let at = |unix: i64| -> DateTime<Tz> {
        Utc.timestamp_opt(unix, 0).single().unwrap_or_default().with_timezone(&zone)
    };
    type Period = fn(&DateTime<Tz>) -> (i32, u32);
    let periods: [(&str, u32, Period); 3] = [
        ("daily", policy.daily, |time| (time.year(), time.ordinal())),
        ("weekly", policy.weekly, |time| (time.iso_week().year(), time.iso_week().week())),
        ("monthly", policy.monthly, |time| (time.year(), time.month())),
    ];
    for (name, count, period) in periods {
        let mut seen = Vec::new();
        for verdict in verdicts.iter_mut().filter(|verdict| regular(verdict)) {
            let this = period(&at(verdict.set.point_unix));
            if seen.len() < count as usize && !seen.contains(&this) {
                seen.push(this);
                verdict.reasons.push(format!("{name} {}", seen.len()));
            }
        }
    }
    if let Some(newest) = verdicts.iter_mut().find(|verdict| regular(verdict)) {
        newest.reasons.push("newest".into());
    }
    let mark = |verdicts: &mut Vec<Verdict>, reason: &str, when: fn(&SetInfo) -> i64| {
        // The newest set among those that were looked at, not the one that was looked at last.
        if let Some(found) = verdicts.iter_mut().find(|verdict| when(&verdict.set) > 0) {
            found.reasons.push(reason.into());
        }
    };
    mark(&mut verdicts, "newest verified", |set| set.verified_unix);
    mark(&mut verdicts, "newest proven", |set| set.proven_unix);
    for verdict in &mut verdicts {
        if verdict.set.point_unix > now_unix {
            verdict.reasons.push("its point lies in the future".into());
        }
        if verdict.set.kind == SetKind::Safety && now_unix - verdict.set.point_unix < SAFETY_DAYS * 86_400 {
            verdict.reasons.push("safety".into());
        }
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::{Policy, SetInfo, judge};
    use crate::backup::manifest::SetKind;
    use chrono_tz::Tz;

    const DAY: i64 = 86_400;
    const NOW: i64 = 20_000 * DAY + 43_200;

    fn set(days_ago: i64, name: &str) -> SetInfo {
        SetInfo {
            set: name.into(),
            point_unix: NOW - days_ago * DAY,
            kind: SetKind::Scheduled,
            verified_unix: 0,
            proven_unix: 0,
        }
    }

    fn kept(sets: &[SetInfo], policy: Policy) -> Vec<String> {
        judge(sets, policy, Tz::UTC, NOW)
            .into_iter()
            .filter(super::Verdict::stays)
            .map(|verdict| verdict.set.set)
            .collect()
    }

    #[test]
    fn days_weeks_and_months_are_counted_in_sets() {
        let sets: Vec<SetInfo> = (0..200).map(|day| set(day, &format!("d{day}"))).collect();
        let policy = Policy { daily: 7, weekly: 4, monthly: 6 };
        let kept = kept(&sets, policy);
        assert_eq!(&kept[..7], ["d0", "d1", "d2", "d3", "d4", "d5", "d6"]);
        assert!(kept.len() >= 7 + 2 + 4 && kept.len() <= 17, "{kept:?}");
    }

    #[test]
    fn two_sets_of_one_day_count_once_and_the_newer_stays() {
        let mut older = set(1, "older");
        older.point_unix -= 3600;
        let sets = [set(0, "today"), set(1, "newer"), older];
        assert_eq!(kept(&sets, Policy { daily: 7, weekly: 0, monthly: 0 }), ["today", "newer"]);
    }

    #[test]
    fn the_last_verified_and_the_last_proven_set_stay_whatever_the_policy() {
        let mut sets: Vec<SetInfo> = (0..40).map(|day| set(day, &format!("d{day}"))).collect();
        sets[30].verified_unix = NOW;
        sets[35].verified_unix = NOW;
        sets[33].proven_unix = NOW;
        assert_eq!(kept(&sets, Policy { daily: 1, weekly: 0, monthly: 0 }), ["d0", "d30", "d33"]);
    }

    #[test]
    fn a_clock_that_was_wrong_loses_nothing_and_safety_sets_expire() {
        let mut old_safety = set(8, "old-safety");
        old_safety.kind = SetKind::Safety;
        let mut safety = set(2, "safety");
        safety.kind = SetKind::Safety;
        let sets = [set(-5, "future"), set(1, "yesterday"), old_safety, safety];
        assert_eq!(
            kept(&sets, Policy { daily: 1, weekly: 0, monthly: 0 }),
            ["future", "yesterday", "safety"]
        );
    }

    #[test]
    fn days_are_those_of_the_time_zone() {
        // 23:30 and 00:30 of the next day in Shanghai are one day in UTC.
        let midnight = 20_000 * DAY - 8 * 3600;
        let mut late = set(0, "late");
        late.point_unix = midnight - 1800;
        let mut early = set(0, "early");
        early.point_unix = midnight + 1800;
        let policy = Policy { daily: 2, weekly: 0, monthly: 0 };
        let judged = judge(&[late, early], policy, Tz::Asia__Shanghai, NOW);
        assert!(judged.iter().all(super::Verdict::stays));
    }
}
