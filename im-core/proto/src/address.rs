//! XMPP addresses (RFC 7622): local part, domain, resource.
//!
//! An [`Address`] is one string and two offsets, always in prepared form, so that comparing bytes compares
//! addresses. Nearly all addresses that a server sees are plain lower-case ASCII already; those are recognised
//! by a table and copied. All others go through the preparation of the `jid` crate.
//!
//! It does not know which domains are local.

use std::fmt;
use std::hash::{Hash, Hasher};

/// Why a string is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an XMPP address: {reason}")]
pub struct AddressError {
    /// The refused text, cut to 80 characters.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl AddressError {
    fn new(text: &str, reason: impl fmt::Display) -> Self {
        Self { text: text.chars().take(80).collect(), reason: reason.to_string() }
    }
}

/// Longest part of an address in bytes (RFC 7622 §3.1).
pub const MAX_PART: usize = 1023;

/// A prepared address: `local@domain/resource`, where local part and resource may be absent.
#[derive(Clone)]
pub struct Address {
    text: Box<str>,
    /// Length of the local part; 0 when there is none.
    local_len: u16,
    /// Offset of the slash, or the length of the text when there is none.
    bare_len: u16,
}

/// True for bytes that preparation of a local part leaves as they are.
const fn plain_local(b: u8) -> bool {
    matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'%' | b'('..=b'.' | b';' | b'=' | b'?' | b'['..=b'`' | b'{'..=b'~')
}

const fn plain_domain(b: u8) -> bool {
    matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')
}

impl Address {
    /// Parses and prepares an address.
    ///
    /// # Errors
    /// When a part is empty, longer than [`MAX_PART`] or holds characters that preparation forbids.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(address) = Self::parse_plain(text) {
            return Ok(address);
        }
        let jid = jid::Jid::new(text).map_err(|e| AddressError::new(text, e))?;
        let local_len = jid.node().map_or(0, |n| n.as_str().len());
        let domain_len = jid.domain().as_str().len();
        if domain_len == 0 || domain_len > MAX_PART {
            return Err(AddressError::new(text, "the domain must have 1 to 1023 bytes"));
        }
        let bare_len = domain_len + if local_len > 0 { local_len + 1 } else { 0 };
        Ok(Self { text: jid.into_inner().into(), local_len: local_len as u16, bare_len: bare_len as u16 })
    }

    /// The fast path: an address whose preparation is known to change nothing.
    fn parse_plain(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() > MAX_PART {
            return None;
        }
        let slash = bytes.iter().position(|&b| b == b'/').unwrap_or(bytes.len());
        let (bare, rest) = bytes.split_at(slash);
        let (local_len, domain) = match bare.iter().position(|&b| b == b'@') {
            Some(0) => return None,
            Some(at) => (at, &bare[at + 1..]),
            None => (0, bare),
        };
        let domain_ok = domain.first().is_some_and(|&b| b != b'.' && b != b'-')
            && domain.last().is_some_and(|&b| b != b'.' && b != b'-')
            && domain.iter().all(|&b| plain_domain(b))
            // Punycode and doubled dots are for the full preparation to judge.
            && !domain.windows(4).any(|w| w == b"xn--")
            && !domain.windows(2).any(|w| w == b"..")
            && domain.split(|&b| b == b'.').all(|label| label.len() <= 63 && !label.starts_with(b"-") && !label.ends_with(b"-"));
        let local_ok = bare[..local_len].iter().all(|&b| plain_local(b));
        let resource_ok =
            rest.is_empty() || (rest.len() > 1 && rest[1..].iter().all(|&b| (0x20..0x7f).contains(&b)));
        (domain_ok && local_ok && resource_ok).then(|| Self {
            text: text.into(),
            local_len: local_len as u16,
            bare_len: slash as u16,
        })
    }

    /// Makes the address `local@domain` from parts that are prepared here.
    ///
    /// # Errors
    /// As [`Address::parse`]; also when `local` holds a separator.
    pub fn from_local(local: &str, domain: &str) -> Result<Self, AddressError> {
        if local.is_empty() || local.contains(['@', '/']) {
            return Err(AddressError::new(
                local,
                "a local part has at least one character and none of @ and /",
            ));
        }
        Self::parse(&format!("{local}@{domain}"))
    }

    /// The same account with this resource.
    ///
    /// # Errors
    /// When the resource is empty, too long or fails preparation.
    pub fn with_resource(&self, resource: &str) -> Result<Self, AddressError> {
        Self::parse(&format!("{}/{resource}", self.bare()))
    }

    /// Without the resource.
    pub fn to_bare(&self) -> Self {
        Self { text: self.bare().into(), local_len: self.local_len, bare_len: self.bare_len }
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `local@domain`, or the domain alone.
    pub fn bare(&self) -> &str {
        &self.text[..self.bare_len as usize]
    }

    /// The local part.
    pub fn local(&self) -> Option<&str> {
        (self.local_len > 0).then(|| &self.text[..self.local_len as usize])
    }

    /// The domain.
    pub fn domain(&self) -> &str {
        let start = if self.local_len > 0 { self.local_len as usize + 1 } else { 0 };
        &self.text[start..self.bare_len as usize]
    }

    /// The resource.
    pub fn resource(&self) -> Option<&str> {
        self.text.get(self.bare_len as usize + 1..)
    }

    /// True when there is no resource.
    pub fn is_bare(&self) -> bool {
        self.bare_len as usize == self.text.len()
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for Address {}
impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_an_address_apart() {
        let a = Address::parse("alice@im.example/phone @home/1").unwrap();
        assert_eq!(
            (a.local(), a.domain(), a.resource()),
            (Some("alice"), "im.example", Some("phone @home/1"))
        );
        assert_eq!(a.bare(), "alice@im.example");
        assert_eq!(a.to_bare().as_str(), "alice@im.example");
        assert!(a.to_bare().is_bare());
        let d = Address::parse("im.example").unwrap();
        assert_eq!((d.local(), d.domain(), d.resource()), (None, "im.example", None));
    }

    #[test]
    fn prepares_what_needs_it() {
        assert_eq!(Address::parse("Alice@IM.Example/Phone").unwrap().as_str(), "alice@im.example/Phone");
        assert_eq!(Address::parse("JÜRGEN@im.example").unwrap().as_str(), "jürgen@im.example");
        assert_eq!(Address::parse("张伟@im.example/手机").unwrap().local(), Some("张伟"));
    }

    #[test]
    fn refuses_what_is_no_address() {
        let long = format!("{}@im.example", "a".repeat(1024));
        for bad in [
            "",
            "@im.example",
            "alice@",
            "alice@im.example/",
            "a b@im.example",
            "a\"b@x",
            "a@b@c",
            "/x",
            &long,
        ] {
            assert!(Address::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(Address::from_local("a/b", "im.example").is_err());
    }

    /// Everything that the fast path takes must come out of the full preparation unchanged.
    #[test]
    fn fast_path_agrees_with_full_preparation() {
        use rand::{RngExt as _, SeedableRng as _};
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        let mut fast = 0;
        for _ in 0..20_000 {
            let mut text = String::new();
            for part in 0..3 {
                if part > 0 {
                    text.push(if part == 1 { '@' } else { '/' });
                }
                for _ in 0..rng.random_range(1..6) {
                    text.push(char::from(rng.random_range(0x20..0x7f_u8)));
                }
            }
            if let Some(address) = Address::parse_plain(&text) {
                fast += 1;
                let full = jid::Jid::new(&text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
                assert_eq!(address.as_str(), full.as_str());
                assert_eq!(address.resource(), full.resource().map(|r| r.as_str()));
            }
        }
        assert!(fast > 50, "the fast path was hardly tried: {fast}");
    }
}
