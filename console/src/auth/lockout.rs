//! The rule of the lock-out: whose failures are counted, after how many the door closes, and for how long.
//!
//! Failures count against the address they come from (IPv6: its /64, which one customer holds whole) and against the
//! account they aim at. The limit of the account is higher, so that a stranger cannot lock the administrator out with
//! ten guesses; many strangers together still meet a closed door.

use std::net::IpAddr;

/// Failures that one address has before it is locked.
pub const ADDRESS_LIMIT: i64 = 10;
/// Failures that one account has, from all addresses, before it is locked.
pub const ACCOUNT_LIMIT: i64 = 50;
/// The first lock, seconds; each failure after it doubles the lock.
pub const FIRST_DELAY: i64 = 30;
/// The longest lock, seconds.
pub const LONGEST_DELAY: i64 = 15 * 60;
/// Failures are forgotten when there was none for so long, seconds.
pub const FORGET_AFTER: i64 = 24 * 3600;

/// Whose failures are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Where the attempt came from, in canonical form.
    Address(String),
    /// What it aimed at.
    Account(String),
}

impl Subject {
    /// The subjects of one attempt. Names are cut, so that a long one cannot fill the database.
    pub fn of(account: &str, address: IpAddr) -> [Self; 2] {
        [Self::Address(network_of(address)), Self::Account(account.chars().take(64).collect())]
    }

    /// Key in the database.
    pub fn key(&self) -> String {
        match self {
            Self::Address(network) => format!("address {network}"),
            Self::Account(name) => format!("account {name}"),
        }
    }

    /// Failures before it is locked.
    pub const fn limit(&self) -> i64 {
        match self {
            Self::Address(_) => ADDRESS_LIMIT,
            Self::Account(_) => ACCOUNT_LIMIT,
        }
    }
}

/// Seconds of lock that follow the `failures`th failure.
pub fn delay_after(failures: i64, limit: i64) -> i64 {
    if failures < limit {
        return 0;
    }
    let doublings = u32::try_from(failures - limit).unwrap_or(u32::MAX).min(16);
    (FIRST_DELAY << doublings).min(LONGEST_DELAY)
}

fn network_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST_DELAY, LONGEST_DELAY, Subject, delay_after};

    #[test]
    fn grows_up_to_a_longest_delay() {
        assert_eq!(delay_after(9, 10), 0);
        assert_eq!(delay_after(10, 10), FIRST_DELAY);
        assert_eq!(delay_after(11, 10), 2 * FIRST_DELAY);
        assert_eq!(delay_after(15, 10), LONGEST_DELAY);
        assert_eq!(delay_after(i64::MAX, 10), LONGEST_DELAY);
    }

    #[test]
    fn one_customer_is_one_subject() {
        let of = |text: &str| Subject::of("admin", text.parse().unwrap())[0].key();
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        let long = Subject::of(&"x".repeat(100_000), "192.0.2.1".parse().unwrap());
        assert!(long[1].key().len() < 100);
    }
}
