//! Times as XMPP writes them (XEP-0082) and delayed delivery (XEP-0203).

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ns;

/// Milliseconds since 1970 as `2026-01-31T12:00:00.123Z`.
pub fn stamp(millis: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

/// Reads a time with zone; milliseconds since 1970.
pub fn parse_stamp(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text.trim(), &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

/// `<delay/>` of this server.
pub fn delay(from: &str, millis: i64) -> String {
    format!("<delay xmlns='{}' from='{from}' stamp='{}'/>", ns::DELAY, stamp(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        assert_eq!(stamp(1_767_225_600_123), "2026-01-01T00:00:00.123Z");
        assert_eq!(parse_stamp("2026-01-01T01:00:00.123+01:00"), Some(1_767_225_600_123));
        assert_eq!(parse_stamp("2026-01-01T00:00:00Z"), Some(1_767_225_600_000));
        assert_eq!(parse_stamp("yesterday"), None);
    }
}
