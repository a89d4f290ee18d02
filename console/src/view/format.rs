//! Numbers, sizes, durations and times as people read them.

use crate::i18n::Language;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A size in binary units with three significant digits: `1.46 GiB`.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = size as f64;
    let mut unit = 0;
    // 999.5 and more would be shown with four digits.
    while value >= 999.5 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        small if small < 9.995 => 2,
        middle if middle < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A whole number with thousands separated: `12,345`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration in its largest sensible unit: `4 s`, `12 min`, `3 h`, `5 d`.
pub fn duration(language: Language, seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (key, value) = match seconds {
        0..120 => ("duration-seconds", seconds),
        120..7200 => ("duration-minutes", seconds / 60),
        7200..172_800 => ("duration-hours", seconds / 3600),
        _ => ("duration-days", seconds / 86_400),
    };
    language.say(key, &[("value", grouped(value.unsigned_abs()).into())])
}

/// A moment, as a `<time>` element needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// RFC 3339, for machines.
    pub exact: String,
    /// `2026-11-21 03:05:11 UTC`, for people; the script turns it into the viewer's zone.
    pub shown: String,
}

/// A moment from Unix seconds.
pub fn moment(unix: i64) -> Moment {
    let time = OffsetDateTime::from_unix_timestamp(unix).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let exact = time.format(&Rfc3339).unwrap_or_default();
    let shown = format!("{} {} UTC", time.date(), exact.get(11..19).unwrap_or_default());
    Moment { exact, shown }
}

#[cfg(test)]
mod tests {
    use super::{bytes, duration, grouped, moment};
    use crate::i18n::Language;

    #[test]
    fn sizes_have_three_digits_and_binary_units() {
        for (size, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (1024, "1.00 KiB"),
            (1_572_864, "1.50 MiB"),
            (10_737_418_240, "10.0 GiB"),
            (107_374_182_400, "100 GiB"),
            (1_073_741_823, "1.00 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(size), shown);
        }
    }

    #[test]
    fn thousands_are_separated() {
        for (number, shown) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), shown);
        }
    }

    #[test]
    fn durations_use_the_largest_sensible_unit() {
        for (seconds, shown) in [
            (-5, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7200, "2 h"),
            (172_800, "2 d"),
            (400_000_000, "4,629 d"),
        ] {
            assert_eq!(duration(Language::English, seconds), shown);
        }
        assert_eq!(duration(Language::Chinese, 7200), "2 小时");
    }

    #[test]
    fn moments_are_exact_and_readable() {
        let moment = moment(1_795_230_311);
        assert_eq!(moment.exact, "2026-11-21T03:05:11Z");
        assert_eq!(moment.shown, "2026-11-21 03:05:11 UTC");
    }
}
