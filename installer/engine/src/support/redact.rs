//! What must not be shown, and how it is taken out of a text.
//!
//! Two nets, one behind the other. What is known to be secret (everything that the cluster's state holds, the files
//! that the topology names, passwords given for reaching hosts) is taken out wherever it stands, also as JSON, in an
//! address or in base64. What only looks like a secret (private keys, `password = …`, the password in an address) is
//! taken out by its form, because a person may have put another one there by hand.

use crate::context::Context;
use crate::error::EngineError;
use crate::secrets::Secrets;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use maxim_model::topology::{Connection, Database, Redis, Tls};
use serde_json::Value;
use std::collections::BTreeSet;
use zeroize::Zeroize;

/// What stands where a secret stood.
pub(super) const REDACTED: &str = "[redacted]";
/// Shorter ones would take half of every text with them.
const SHORTEST: usize = 4;
/// Lines of keys that are shorter say nothing.
const SHORTEST_KEY_LINE: usize = 16;
/// A file with a secret is far smaller.
const FILE_LIMIT: u64 = 1 << 20;
/// What a name that stands before a secret has in it.
const NAMES: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "requirepass",
    "masterauth",
    "private_key",
    "api_key",
    "apikey",
    "authorization",
    "cookie",
];
/// What a line of a file that holds secrets begins with to be shown: what we write into redis.conf. What somebody added
/// may hold one (`user ann on >x`), or be the rest of one.
const SHOWN: &str = "appendonly bind daemonize databases dir maxclients maxmemory maxmemory-policy port save \
    supervised tls-auth-clients tls-ca-cert-file tls-cert-file tls-key-file tls-port tls-protocols \
    unixsocket unixsocketperm";

/// Takes secrets out of texts.
pub(super) struct Redactor {
    /// Longest first, so that none is left in half because a shorter one is part of it.
    known: Vec<String>,
}

impl Drop for Redactor {
    fn drop(&mut self) {
        self.known.zeroize();
    }
}

impl Redactor {
    /// One that knows these.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut known = BTreeSet::new();
        for secret in secrets {
            for form in forms(secret.trim()) {
                if form.chars().count() >= SHORTEST {
                    known.insert(form);
                }
            }
        }
        let mut known: Vec<String> = known.into_iter().collect();
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { known }
    }

    /// One that knows what a cluster's control host knows.
    pub fn of(context: &Context) -> Result<Self, EngineError> {
        let mut found: Vec<String> = Secrets::load(&context.state.file("secrets.json"))?
            .iter()
            .map(|(_, secret)| secret.expose().to_owned())
            .collect();
        let access = &context.access;
        found.extend(access.sudo.values().chain(access.ssh.values()).map(|one| one.expose().to_owned()));
        let state = |name: &str| context.state.file(name).display().to_string();
        for name in ["ca.key", "certificates/index.json", "repository-key", "repository-credentials"] {
            found.extend(of_file(&state(name)));
        }
        // One line that `console passwd` made, which need not look like a key.
        found.extend(std::fs::read_to_string(context.state.file("console-password")).ok());
        let accounts = std::fs::read_to_string(context.state.file("initial-account")).unwrap_or_default();
        found.extend(
            accounts
                .lines()
                .filter_map(|line| line.split_once("password: "))
                .map(|(_, word)| word.to_owned()),
        );
        for path in named_files(context) {
            found.extend(of_file(&path));
        }
        Ok(Self::new(found))
    }

    /// A text without secrets.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.known {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), REDACTED);
            }
        }
        let text = without_keys(&text);
        let mut result = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            result.push_str(&without_url_passwords(&without_named(line)));
        }
        result
    }

    /// The text of a file that is known to hold secrets: what is not known to hold none goes, line by line.
    pub fn sensitive(&self, text: &str) -> String {
        let text = self.text(text);
        let is_comment = |line: &str| line.trim_start().starts_with("# ");
        let is_empty = |line: &str| line.trim().is_empty();
        // One line alone is the secret, whatever it looks like.
        let alone = text.lines().filter(|line| !is_empty(line) && !is_comment(line)).count() < 2;
        let mut result = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            if is_empty(line) || !alone && is_shown(line) {
                result.push_str(line);
                continue;
            }
            // A comment may be what was valid before.
            result.push_str(if is_comment(line) { "# " } else { "" });
            result.push_str(REDACTED);
            result.push_str(if line.ends_with('\n') { "\n" } else { "" });
        }
        result
    }
}

/// Whether a line of a file that holds secrets holds none (any more).
fn is_shown(line: &str) -> bool {
    let line = line.trim();
    let end = line.find(|letter: char| !is_of_name(letter)).unwrap_or(line.len());
    let (name, value) = line.split_at(end);
    if SHOWN.split(' ').any(|one| one == name) {
        return value.starts_with([' ', '\t', '=', ':']);
    }
    let name = name.to_ascii_lowercase();
    let value = value.trim_matches([' ', '\t', '=', ':', '"', '\'']);
    value == REDACTED && NAMES.iter().any(|one| name.contains(one))
}

const fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.')
}

/// A secret as it may stand in a text.
fn forms(secret: &str) -> Vec<String> {
    let json = Value::String(secret.to_owned()).to_string();
    let percent: String = secret
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect();
    let mut all = vec![secret.to_owned(), json[1..json.len() - 1].to_owned(), percent];
    if secret.len() >= 8 {
        all.push(STANDARD.encode(secret));
        all.push(STANDARD_NO_PAD.encode(secret));
        all.push(URL_SAFE_NO_PAD.encode(secret));
    }
    all
}

/// Files of the control host that the topology names and that hold secrets.
fn named_files(context: &Context) -> Vec<String> {
    let topology = &context.topology;
    let mut files = Vec::new();
    if let Tls::Files { key, .. } = &topology.tls {
        files.push(key.clone());
    }
    if let Database::External { password_file, .. } = &topology.database {
        files.push(password_file.clone());
    }
    if let Redis::External { password_file, .. } = &topology.redis {
        files.push(password_file.clone());
    }
    for host in &topology.hosts {
        if let Connection::Ssh(ssh) = &host.connection {
            files.extend(
                [
                    &ssh.key,
                    &ssh.sudo_password_file,
                    &ssh.password_file,
                    &ssh.jump_key,
                    &ssh.jump_password_file,
                ]
                .map(Clone::clone),
            );
        }
    }
    if let Some(repository) = topology.backup.repository.as_object() {
        files.extend(
            ["key", "credentials_file"]
                .iter()
                .filter_map(|name| repository.get(*name)?.as_str().map(str::to_owned)),
        );
    }
    files.retain(|file| !file.is_empty());
    files.sort();
    files.dedup();
    files
}

/// The secrets of a file: the lines of private keys, else what stands behind a `=`, else each line. What cannot be
/// read has nothing that could be known here.
fn of_file(path: &str) -> Vec<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut bytes));
    if read.is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&bytes).replace("\\n", "\n");
    bytes.zeroize();
    if text.contains("PRIVATE KEY-----") {
        let mut inside = false;
        let mut lines = Vec::new();
        for line in text.lines() {
            if line.contains("-----BEGIN") {
                inside = line.contains("PRIVATE KEY-----");
            } else if line.contains("-----END") {
                inside = false;
            } else if inside && line.trim().len() >= SHORTEST_KEY_LINE {
                lines.push(line.trim().trim_matches('"').to_owned());
            }
        }
        return lines;
    }
    text.lines()
        .map(|line| line.split_once('=').map_or(line, |(_, value)| value).trim().to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with(['#', '[']))
        .collect()
}

/// Takes out private keys, in lines of their own or within a line of JSON.
fn without_keys(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN ";
    const KIND: &str = "PRIVATE KEY-----";
    const END: &str = "-----END ";
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(BEGIN) {
        let head = &rest[start + BEGIN.len()..];
        let is_private = head.find("-----").is_some_and(|end| head[..end + 5].ends_with(KIND));
        if !is_private {
            result.push_str(&rest[..start + BEGIN.len()]);
            rest = head;
            continue;
        }
        result.push_str(&rest[..start]);
        result.push_str(REDACTED);
        // Without an end all that follows counts as the key.
        rest = head.find(END).map_or("", |end| {
            let tail = &head[end + END.len()..];
            tail.find("-----").map_or("", |dashes| &tail[dashes + 5..])
        });
    }
    result.push_str(rest);
    result
}

/// Takes out what stands behind a name of a secret in a line: `password = x`, `"token": "x"`, `requirepass x`. Of a
/// value in quotes that is all of it; behind a name that begins the line, as in a configuration, the rest of the line.
fn without_named(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let mut result = String::with_capacity(line.len());
    let mut done = 0;
    while let Some(value) = next_value(&lower, done) {
        result.push_str(&line[done..value.start]);
        result.push_str(REDACTED);
        done = value.end;
    }
    result.push_str(&line[done..]);
    result
}

/// Where the next value lies that has the name of a secret.
fn next_value(lower: &str, from: usize) -> Option<std::ops::Range<usize>> {
    let bytes = lower.as_bytes();
    let skip = |mut at: usize, set: &[u8]| {
        while at < bytes.len() && set.contains(&bytes[at]) {
            at += 1;
        }
        at
    };
    let mut search = from;
    loop {
        let (start, name) = NAMES
            .iter()
            .filter_map(|name| lower[search..].find(name).map(|at| (search + at, *name)))
            .min_by_key(|(at, _)| *at)?;
        let mut end = start + name.len();
        while end < bytes.len() && (bytes[end].is_ascii_alphanumeric() || b"_-".contains(&bytes[end])) {
            end += 1;
        }
        search = end;
        let rest = &lower[start..end];
        // A path to a secret is none.
        if rest.ends_with("file") || rest.ends_with("path") || rest.ends_with("stdin") {
            continue;
        }
        let mut at = skip(end, b"\"'\\");
        let spaces = skip(at, b" \t");
        let directive = matches!(rest, "requirepass" | "masterauth");
        if spaces < bytes.len() && matches!(bytes[spaces], b':' | b'=') {
            at = skip(spaces + 1, b" \t:=");
        } else if directive && spaces > at {
            at = spaces;
        } else {
            continue;
        }
        let opening = skip(at, b"\\");
        let length = if let Some(quote @ (b'"' | b'\'')) = bytes.get(opening) {
            let escapes = opening - at;
            at = opening + 1;
            quoted(&bytes[at..], *quote, escapes)
        } else {
            let begins = begins_line(&lower[..start]);
            let whole_line = directive || rest.starts_with("authorization") || rest.starts_with("cookie");
            let stop: &[u8] = match (begins, whole_line) {
                (true, _) => b"\r\n",
                (_, true) => b"\"\r\n",
                _ => b"\"'\\ \t,;}])&\r\n",
            };
            at = if begins { at } else { opening };
            // `[` and the like begin a structure that has names of its own.
            let known = if lower[at..].starts_with(REDACTED) { REDACTED.len() } else { 0 };
            if !begins && known == 0 && matches!(bytes.get(at), Some(b'{' | b'[')) {
                continue;
            }
            let value = &bytes[at + known..];
            known + value.iter().position(|byte| stop.contains(byte)).unwrap_or(value.len())
        };
        // What was taken out already, or nothing.
        search = at + length;
        if matches!(lower[at..search].trim_end(), "" | REDACTED) {
            continue;
        }
        return Some(at..search);
    }
}

/// Whether only what belongs to a name stands before this in the line, in a list or commented out at most.
fn begins_line(before: &str) -> bool {
    before.trim_start_matches([' ', '\t', '#', ';', '-']).chars().all(is_of_name)
}

/// How long a value in quotes is: to the one that closes, else to the end of the line. `escapes` backslashes stand
/// before the opening quote; one with more of them belongs to the value, as does one within a word (`it's`) or doubled.
/// One with fewer ends what all of it stands in.
fn quoted(value: &[u8], quote: u8, escapes: usize) -> usize {
    let value = value.trim_ascii_end();
    let mut backslashes = 0;
    for (at, byte) in value.iter().enumerate() {
        if *byte == b'\\' {
            backslashes += 1;
            continue;
        }
        let goes_on = match &value[at + 1..] {
            [next, ..] if next.is_ascii_alphanumeric() || !next.is_ascii() || *next == b'_' => true,
            [next, ..] | [b'\\', next, ..] if escapes == 0 && *next == quote => true,
            _ => false,
        };
        let closes = backslashes % (2 * (escapes + 1)) == escapes && !goes_on;
        if *byte == quote && (closes || backslashes < escapes) {
            return at - backslashes.min(escapes);
        }
        backslashes = 0;
    }
    value.len()
}

/// Takes out the password of `scheme://user:password@host`.
fn without_url_passwords(line: &str) -> String {
    let mut result = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        result.push_str(head);
        let end = tail
            .find(|letter: char| letter.is_whitespace() || "/\"'<>\\".contains(letter))
            .unwrap_or(tail.len());
        let authority = &tail[..end];
        match authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host))) {
            Some((user, host)) => result.push_str(&format!("{user}:{REDACTED}@{host}")),
            None => result.push_str(authority),
        }
        rest = &tail[end..];
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests;
