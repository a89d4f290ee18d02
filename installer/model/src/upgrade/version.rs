//! Versions of Maxim and of its components, and their order.

use std::fmt;
use std::str::FromStr;

/// `MAJOR.MINOR.PATCH`. Nothing may stand behind it: a release has three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Changes of the contract.
    pub major: u32,
    /// Additions.
    pub minor: u32,
    /// Repairs.
    pub patch: u32,
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` is not a version like 1.2.3", text.escape_debug());
        let mut numbers = text.split('.').map(number);
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => {
                Ok(Self { major, minor, patch })
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    /// Whether it belongs to a series as `0.1` (every patch of it) or is exactly `0.1.3`.
    pub fn is_in(self, series: &str) -> bool {
        let mut own = [self.major, self.minor, self.patch].into_iter();
        let mut count = 0;
        series.split('.').all(|part| {
            count += 1;
            number(part).is_some_and(|wanted| own.next() == Some(wanted))
        }) && count >= 1
    }
}

/// A number without sign, space or leading zero.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn versions_are_ordered_by_number_and_belong_to_series() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("0.10.0") > version("0.9.9"));
        assert!(version("1.0.0") > version("0.99.99"));
        assert_eq!(version("0.1.0").to_string(), "0.1.0");
        assert!(
            version("0.1.7").is_in("0.1") && version("0.1.7").is_in("0.1.7") && version("0.1.7").is_in("0")
        );
        assert!(!version("0.1.7").is_in("0.10") && !version("0.1.7").is_in("0.1.8"));
        assert!(!version("0.1.7").is_in("") && !version("0.1.7").is_in("0.1.7.0"));
        for wrong in
            ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.x", "01.2.3", "1.2.-3", "1..3", "1.2.99999999999"]
        {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }
}
