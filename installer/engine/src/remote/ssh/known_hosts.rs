//! Host keys: what `known_hosts` files say about a host, and which keys the cluster has pinned.
//!
//! Entries are those of OpenSSH (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT): plain names, patterns with `*`, `?` and `!`,
//! hashed names, `[host]:port`, `@revoked`. `@cert-authority` lines are passed over: host certificates are not used.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::hmac;
use sha2::{Digest, Sha256};

/// What is known about the key that a host showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It is the known one.
    Known,
    /// Nothing is known about the host, or only keys of other kinds.
    Unknown,
    /// Another key of this kind is known; its fingerprint.
    Changed(String),
    /// It is marked as revoked.
    Revoked,
}

/// One line that says something about hosts.
#[derive(Debug, Clone)]
struct Entry {
    revoked: bool,
    names: String,
    kind: String,
    key: Vec<u8>,
}

/// The entries of one or more files.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts {
    entries: Vec<Entry>,
}

impl KnownHosts {
    /// Adds the entries of a file's text. Lines that are not understood are passed over, as OpenSSH does.
    pub fn add_text(&mut self, text: &str) {
        self.entries.extend(text.lines().filter_map(entry));
    }

    /// Judges the key of a host at a port.
    pub fn judge(&self, host: &str, port: u16, key: &[u8]) -> Judgement {
        let mut found = Judgement::Unknown;
        for entry in self.entries.iter().filter(|entry| matches(&entry.names, host, port)) {
            if entry.key == key {
                if entry.revoked {
                    return Judgement::Revoked;
                }
                found = Judgement::Known;
            } else if !entry.revoked
                && found != Judgement::Known
                && Some(entry.kind.as_str()) == key_kind(key)
            {
                found = Judgement::Changed(fingerprint(&entry.key));
            }
        }
        found
    }

    /// Kinds of the keys that are known for a host, to ask the host for one of those.
    pub fn kinds(&self, host: &str, port: u16) -> Vec<&str> {
        let mut kinds: Vec<&str> = self
            .entries
            .iter()
            .filter(|entry| !entry.revoked && matches(&entry.names, host, port))
            .map(|entry| entry.kind.as_str())
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

/// The line that pins a key.
pub fn line(host: &str, port: u16, key: &[u8]) -> String {
    format!("{} {} {}\n", name_at_port(host, port), key_kind(key).unwrap_or("unknown"), STANDARD.encode(key))
}

/// `SHA256:…` as OpenSSH shows it.
pub fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(key)))
}

/// The kind that a key blob begins with (RFC 4253 section 6.6).
fn key_kind(key: &[u8]) -> Option<&str> {
    let length = usize::try_from(u32::from_be_bytes(key.get(..4)?.try_into().ok()?)).ok()?;
    std::str::from_utf8(key.get(4..4 + length)?).ok()
}

/// What a host at a port is called: `HOST`, or `[HOST]:PORT` when that is not 22.
pub fn name_at_port(host: &str, port: u16) -> String {
    if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") }
}

fn entry(line: &str) -> Option<Entry> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let mut words = line.split_ascii_whitespace();
    let mut names = words.next()?;
    let revoked = names == "@revoked";
    if names.starts_with('@') {
        if !revoked {
            return None;
        }
        names = words.next()?;
    }
    let kind = words.next()?;
    let key = STANDARD.decode(words.next()?).ok()?;
    (key_kind(&key) == Some(kind)).then(|| Entry {
        revoked,
        names: names.to_owned(),
        kind: kind.to_owned(),
        key,
    })
}

fn matches(names: &str, host: &str, port: u16) -> bool {
    let name = name_at_port(host, port);
    if let Some(hashed) = names.strip_prefix("|1|") {
        let Some((salt, hash)) = hashed.split_once('|') else { return false };
        let (Ok(salt), Ok(hash)) = (STANDARD.decode(salt), STANDARD.decode(hash)) else { return false };
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
        return hmac::verify(&key, name.as_bytes(), &hash).is_ok();
    }
    let mut found = false;
    for pattern in names.split(',') {
        match pattern.strip_prefix('!') {
            Some(not) if fits(not.as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => found |= fits(pattern.as_bytes(), name.as_bytes()),
        }
    }
    found
}

/// Whether a name fits a pattern with `*` and `?`; letters of either case are the same.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.first(), name.first()) {
        (None, None) => true,
        (Some(b'*'), _) => fits(&pattern[1..], name) || (!name.is_empty() && fits(pattern, &name[1..])),
        (Some(b'?'), Some(_)) => fits(&pattern[1..], &name[1..]),
        (Some(letter), Some(other)) => letter.eq_ignore_ascii_case(other) && fits(&pattern[1..], &name[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Judgement, KnownHosts, fingerprint, fits, line};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use ring::hmac;

    fn key(kind: &str, seed: u8) -> Vec<u8> {
        let mut blob = u32::try_from(kind.len()).unwrap().to_be_bytes().to_vec();
        blob.extend_from_slice(kind.as_bytes());
        blob.extend_from_slice(&[0, 0, 0, 4, seed, seed, seed, seed]);
        blob
    }

    fn known(text: &str) -> KnownHosts {
        let mut known = KnownHosts::default();
        known.add_text(text);
        known
    }

    #[test]
    fn known_unknown_changed_and_revoked() {
        let (old, new) = (key("ssh-ed25519", 1), key("ssh-ed25519", 2));
        let text = format!("# comment\nnonsense\n{}", line("10.77.0.11", 22, &old));
        let hosts = known(&text);
        assert_eq!(hosts.judge("10.77.0.11", 22, &old), Judgement::Known);
        assert_eq!(hosts.judge("10.77.0.11", 22, &new), Judgement::Changed(fingerprint(&old)));
        assert_eq!(hosts.judge("10.77.0.11", 2222, &old), Judgement::Unknown, "another port is another host");
        assert_eq!(
            hosts.judge("10.77.0.11", 22, &key("ssh-rsa", 1)),
            Judgement::Unknown,
            "another kind says nothing"
        );
        assert_eq!(hosts.kinds("10.77.0.11", 22), ["ssh-ed25519"]);
        let revoked = known(&format!("@revoked * ssh-ed25519 {}\n{text}", STANDARD.encode(&old)));
        assert_eq!(revoked.judge("10.77.0.11", 22, &old), Judgement::Revoked);
    }

    #[test]
    fn hashed_names_and_ports() {
        let (blob, salt) = (key("ssh-ed25519", 7), [5_u8; 20]);
        let hash = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt),
            b"[db1.acme.example]:2222",
        );
        let text = format!(
            "|1|{}|{} ssh-ed25519 {}",
            STANDARD.encode(salt),
            STANDARD.encode(hash),
            STANDARD.encode(&blob)
        );
        let hosts = known(&text);
        assert_eq!(hosts.judge("db1.acme.example", 2222, &blob), Judgement::Known);
        assert_eq!(hosts.judge("db1.acme.example", 22, &blob), Judgement::Unknown);
        assert_eq!(hosts.judge("db2.acme.example", 2222, &blob), Judgement::Unknown);
    }

    #[test]
    fn patterns() {
        let blob = key("ssh-ed25519", 3);
        let hosts =
            known(&format!("*.acme.example,!bad.acme.example ssh-ed25519 {}", STANDARD.encode(&blob)));
        assert_eq!(hosts.judge("DB1.acme.example", 22, &blob), Judgement::Known);
        assert_eq!(hosts.judge("bad.acme.example", 22, &blob), Judgement::Unknown);
        assert!(fits(b"a?c*", b"abcdef") && !fits(b"a?c", b"ac") && fits(b"*", b""));
    }
}
