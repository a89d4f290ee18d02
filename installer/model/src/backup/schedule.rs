//! When backups are made: cron syntax (minute, hour, day of month, month, day of week) in a time zone.
//!
//! The time zone database is part of the program, so that hosts need none. An hour that is skipped in spring runs at
//! the next minute there is; one that comes twice in autumn runs once. The time is passed in.

use chrono::{DateTime, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use std::str::FromStr;
use thiserror::Error;

/// A schedule that was checked.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    cron: Cron,
    zone: Tz,
}

/// A schedule that cannot be used; columns count characters from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("column {column}: {problem}")]
pub struct ScheduleError {
    /// Where in the text.
    pub column: usize,
    /// What is wrong there.
    pub problem: String,
}

/// What each field may hold.
const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of month", 1, 31, &[]),
    ("month", 1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    ("day of week", 0, 7, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

impl Schedule {
    /// Reads five fields and the name of a time zone (`Asia/Shanghai`; empty: UTC).
    ///
    /// # Errors
    /// With the column of the first mistake.
    pub fn parse(text: &str, zone: &str) -> Result<Self, ScheduleError> {
        let zone = if zone.is_empty() { Tz::UTC } else { parse_zone(zone)? };
        if !text.trim().starts_with('@') {
            check_fields(text)?;
        }
        let cron = Cron::from_str(text.trim())
            .map_err(|error| ScheduleError { column: 1, problem: error.to_string() })?;
        Ok(Self { text: text.trim().to_owned(), cron, zone })
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Name of the time zone.
    pub fn zone(&self) -> &'static str {
        self.zone.name()
    }

    /// The first moment after `unix` seconds at which it is due; none when there is none within reach.
    pub fn next_after(&self, unix: i64) -> Option<i64> {
        let now: DateTime<Tz> = Utc.timestamp_opt(unix, 0).single()?.with_timezone(&self.zone);
        self.cron.find_next_occurrence(&now, false).ok().map(|next| next.timestamp())
    }

    /// Whether a run is owed: it was due since the last one (or was never made), or the last one lies in the future
    /// because the clock was set back.
    pub fn is_owed(&self, last_unix: Option<i64>, now: i64) -> bool {
        match last_unix {
            None => true,
            Some(last) if last > now + 300 => true,
            Some(last) => self.next_after(last).is_some_and(|next| next <= now),
        }
    }

    /// `OnCalendar=` expressions of systemd that mean the same. Two when both day fields are restricted, because
    /// cron is due when either matches.
    ///
    /// # Errors
    /// When a field cannot be listed (`L`, `#`, `W`).
    pub fn on_calendar(&self) -> Result<Vec<String>, ScheduleError> {
        let text = match self.text.as_str() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other => other,
        };
        let parts: Vec<&str> = text.split_whitespace().collect();
        let mut lists = Vec::new();
        for (part, field) in parts.iter().zip(FIELDS) {
            lists.push(list(part, field).map_err(|problem| ScheduleError { column: 1, problem })?);
        }
        let [minutes, hours, days, months, weekdays] = lists.as_slice() else {
            return Err(ScheduleError { column: 1, problem: "it has not five fields".into() });
        };
        let numbers = |values: &Option<Vec<u32>>| {
            values.as_ref().map_or_else(
                || "*".to_owned(),
                |values| values.iter().map(|value| format!("{value:02}")).collect::<Vec<_>>().join(","),
            )
        };
        let time = format!("{}:{}:00 {}", numbers(hours), numbers(minutes), self.zone.name());
        let date = |days: &Option<Vec<u32>>| format!("*-{}-{}", numbers(months), numbers(days));
        let names = weekdays.as_ref().map(|values| {
            let mut values: Vec<u32> = values.iter().map(|value| value % 7).collect();
            values.sort_unstable();
            values.dedup();
            let names = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
            values
                .iter()
                .filter_map(|value| names.get(*value as usize).copied())
                .collect::<Vec<_>>()
                .join(",")
        });
        Ok(match (names, days) {
            (None, days) => vec![format!("{} {time}", date(days))],
            (Some(names), None) => vec![format!("{names} {} {time}", date(&None))],
            (Some(names), days) => {
                vec![format!("{} {time}", date(days)), format!("{names} {} {time}", date(&None))]
            }
        })
    }
}

/// A time zone by its name.
///
/// # Errors
/// When the database has no such zone.
pub fn parse_zone(name: &str) -> Result<Tz, ScheduleError> {
    Tz::from_str(name).map_err(|_| ScheduleError {
        column: 1,
        problem: format!(
            "`{}` is no time zone; one is named as `Asia/Shanghai` or `UTC`",
            name.escape_debug()
        ),
    })
}

/// The first field that is wrong, with its column.
fn check_fields(text: &str) -> Result<(), ScheduleError> {
    let mut fields = Vec::new();
    let mut start = None;
    for (place, letter) in text.chars().chain([' ']).enumerate() {
        match (letter.is_whitespace(), start) {
            (false, None) => start = Some(place),
            (true, Some(from)) => {
                let field: String = text.chars().skip(from).take(place - from).collect();
                fields.push((from + 1, field));
                start = None;
            }
            _ => {}
        }
    }
    if fields.len() != FIELDS.len() {
        let column = fields.get(FIELDS.len()).map_or(text.chars().count() + 1, |(column, _)| *column);
        return Err(ScheduleError {
            column,
            problem: format!(
                "it has {} fields where five belong: minute, hour, day of month, month, day of week",
                fields.len()
            ),
        });
    }
    for ((column, field), known) in fields.iter().zip(FIELDS) {
        let special = field.chars().any(|letter| matches!(letter, 'L' | 'W' | '#' | '?'));
        if !special {
            list(field, known).map_err(|problem| ScheduleError { column: *column, problem })?;
        }
    }
    Ok(())
}

/// The values of a field; none: every one.
fn list(
    field: &str,
    (name, low, high, names): (&str, u32, u32, &[&str]),
) -> Result<Option<Vec<u32>>, String> {
    let wrong = |part: &str| format!("`{}` is no {name} ({low} to {high})", part.escape_debug());
    let number = |part: &str| -> Result<u32, String> {
        let offset = u32::from(name == "month");
        if let Some(at) = names.iter().position(|known| part.eq_ignore_ascii_case(known)) {
            return Ok(at as u32 + offset);
        }
        part.parse::<u32>().ok().filter(|value| (low..=high).contains(value)).ok_or_else(|| wrong(part))
    };
    if field == "*" {
        return Ok(None);
    }
    let mut values = Vec::new();
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step: u32 = step.parse().ok().filter(|step| *step > 0).ok_or_else(|| wrong(part))?;
                (range, step)
            }
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (low, high),
            Some((from, to)) => (number(from)?, number(to)?),
            None => (number(range)?, if part.contains('/') { high } else { number(range)? }),
        };
        if from > to {
            return Err(wrong(part));
        }
        values.extend((from..=to).step_by(step as usize));
    }
    values.sort_unstable();
    values.dedup();
    Ok(Some(values))
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    fn unix(text: &str) -> i64 {
        chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp()
    }

    #[test]
    fn it_is_due_in_its_own_time_zone() {
        let schedule = Schedule::parse("0 3 * * *", "Asia/Shanghai").unwrap();
        assert_eq!(schedule.next_after(unix("2026-11-21T00:00:00Z")), Some(unix("2026-11-21T19:00:00Z")));
        let utc = Schedule::parse("0 3 * * *", "").unwrap();
        assert_eq!(utc.next_after(unix("2026-11-21T03:00:00Z")), Some(unix("2026-11-22T03:00:00Z")));
    }

    #[test]
    fn an_hour_that_is_skipped_or_comes_twice_gives_one_run() {
        let schedule = Schedule::parse("30 2 * * *", "Europe/Berlin").unwrap();
        let mut at = unix("2026-03-28T12:00:00Z");
        let mut runs = Vec::new();
        while at < unix("2026-03-31T12:00:00Z") {
            at = schedule.next_after(at).unwrap();
            runs.push(at);
        }
        assert!(runs.windows(2).all(|pair| pair[1] - pair[0] >= 22 * 3600), "{runs:?}");
        let mut at = unix("2026-10-24T12:00:00Z");
        let mut runs = Vec::new();
        while at < unix("2026-10-26T12:00:00Z") {
            at = schedule.next_after(at).unwrap();
            runs.push(at);
        }
        assert!(runs.windows(2).all(|pair| pair[1] - pair[0] >= 23 * 3600), "{runs:?}");
    }

    #[test]
    fn missed_runs_and_a_clock_that_was_set_back_are_owed() {
        let schedule = Schedule::parse("0 3 * * *", "").unwrap();
        let now = unix("2026-11-21T06:00:00Z");
        assert!(schedule.is_owed(None, now));
        assert!(schedule.is_owed(Some(unix("2026-11-20T03:00:10Z")), now));
        assert!(!schedule.is_owed(Some(unix("2026-11-21T03:00:10Z")), now));
        assert!(schedule.is_owed(Some(unix("2027-01-01T00:00:00Z")), now));
    }

    #[test]
    fn mistakes_have_a_column() {
        for (text, column) in [
            ("61 3 * * *", 1),
            ("0 24 * * *", 3),
            ("0 3 * 13 *", 7),
            ("0 3 * * FOO", 9),
            ("0 3 * *", 8),
            ("0 3 * * * *", 11),
            ("*/0 3 * * *", 1),
        ] {
            let error = Schedule::parse(text, "").unwrap_err();
            assert_eq!(error.column, column, "{text}: {error}");
        }
        assert!(Schedule::parse("0 3 * * *", "Mars/Olympus").unwrap_err().problem.contains("time zone"));
    }

    #[test]
    fn systemd_is_told_the_same() {
        let calendar = |text: &str| Schedule::parse(text, "UTC").unwrap().on_calendar().unwrap();
        assert_eq!(calendar("0 3 * * *"), ["*-*-* 03:00:00 UTC"]);
        assert_eq!(calendar("*/20 1-3 * jan,2 *"), ["*-01,02-* 01,02,03:00,20,40:00 UTC"]);
        assert_eq!(calendar("0 3 * * 1-5"), ["Mon,Tue,Wed,Thu,Fri *-*-* 03:00:00 UTC"]);
        assert_eq!(calendar("0 3 1 * sun"), ["*-*-01 03:00:00 UTC", "Sun *-*-* 03:00:00 UTC"]);
        assert_eq!(calendar("@daily"), ["*-*-* 00:00:00 UTC"]);
    }
}
