//! Differences of texts for people, as unified diffs without secrets and within bounds.

use similar::{Algorithm, TextDiff};
use std::time::Duration;

/// Lines of a diff that are shown.
const LINES: usize = 200;
/// Names whose values are never shown, when they end a key of a configuration line.
const SECRET_KEYS: &[&str] =
    &["password", "passwd", "secret", "token", "requirepass", "masterauth", "key", "auth"];

/// A unified diff of two texts; empty when they are equal.
pub fn unified(path: &str, old: &str, new: &str) -> String {
    if old == new {
        return String::new();
    }
    let (old, new) = (mask(old), mask(new));
    if old == new {
        return "(only values that are secret differ; they are not shown)\n".to_owned();
    }
    let diff = TextDiff::configure()
        .algorithm(Algorithm::Patience)
        .timeout(Duration::from_millis(200))
        .diff_lines(&old, &new);
    let text = diff
        .unified_diff()
        .context_radius(3)
        .header(&format!("{path} (now)"), &format!("{path} (wanted)"))
        .to_string();
    let mut lines: Vec<&str> = text.lines().collect();
    let hidden = lines.len().saturating_sub(LINES);
    lines.truncate(LINES);
    let mut shown = lines.join("\n");
    shown.push('\n');
    if hidden > 0 {
        shown.push_str(&format!("… {hidden} more lines\n"));
    }
    shown
}

/// Replaces what looks like a secret: a second line of defence, the first being that files with secrets are marked
/// `sensitive` and never shown at all. A line found on a host may hold one that no task of ours wrote.
fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        let bare = line.trim();
        if bare.starts_with("-----BEGIN ") && bare.contains("PRIVATE KEY") {
            in_key = true;
            masked.push_str("[redacted private key]\n");
            continue;
        }
        if in_key {
            in_key = !bare.starts_with("-----END ");
            continue;
        }
        match secret_value(line) {
            Some(at) => {
                masked.push_str(&line[..at]);
                masked.push_str("[redacted]");
                if line.ends_with('\n') {
                    masked.push('\n');
                }
            }
            None => masked.push_str(&mask_url(line)),
        }
    }
    masked
}

/// Where the value of a secret key begins in a line such as `password = x`, `password: x`, `requirepass x`.
fn secret_value(line: &str) -> Option<usize> {
    let start = line.len() - line.trim_start_matches([' ', '\t', '-', '"', '\'']).len();
    let name_length =
        line[start..].find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))).unwrap_or(0);
    let name = line[start..start + name_length].to_ascii_lowercase();
    let is_secret = SECRET_KEYS.iter().any(|key| {
        name == *key || name.strip_suffix(key).is_some_and(|rest| rest.ends_with(['_', '-', '.']))
    });
    if !is_secret {
        return None;
    }
    let after = start + name_length;
    let value = line[after..].find(|c: char| !matches!(c, ' ' | '\t' | '=' | ':' | '"' | '\''))? + after;
    // `key: /path/to/file` and the like name a place, not a secret.
    (!line[value..].starts_with('/') && !line[value..].starts_with(['\n', '\r'])).then_some(value)
}

/// Replaces the password of `scheme://user:password@host`.
fn mask_url(line: &str) -> String {
    let Some(scheme) = line.find("://") else { return line.to_owned() };
    let rest = &line[scheme + 3..];
    let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'')).unwrap_or(rest.len());
    let Some(at) = rest[..end].rfind('@') else { return line.to_owned() };
    let Some(colon) = rest[..at].find(':') else { return line.to_owned() };
    format!("{}{}[redacted]{}", &line[..scheme + 3], &rest[..=colon], &rest[at..])
}

#[cfg(test)]
mod tests {
    use super::unified;

    #[test]
    fn shows_what_changes() {
        let diff = unified("/etc/x", "a\nb\nc\n", "a\nB\nc\n");
        assert!(diff.contains("-b\n+B\n"), "{diff}");
        assert!(diff.starts_with("--- /etc/x (now)\n+++ /etc/x (wanted)\n"));
        assert_eq!(unified("/etc/x", "a", "a"), "");
    }

    #[test]
    fn secrets_are_never_shown() {
        let old = "user = im\npassword = planted-1\nurl = mysql://im:planted-2@db/im\nrequirepass planted-3\n\
                   database_password: \"planted-4\"\n-----BEGIN PRIVATE KEY-----\nplanted5\n-----END PRIVATE KEY-----\nend = 1\n";
        let new = "user = im2\npassword = planted-6\nend = 2\n";
        let diff = unified("/etc/x", old, new);
        assert!(!diff.contains("planted"), "{diff}");
        assert!(diff.contains("-user = im\n") && diff.contains("+end = 2"), "{diff}");
        let only = unified("/etc/x", "password = planted-1\n", "password = planted-2\n");
        assert!(only.contains("only values that are secret differ"), "{only}");
        let place = unified("/etc/x", "ssl_key = /a/key.pem\n", "ssl_key = /b/key.pem\n");
        assert!(place.contains("/b/key.pem"), "{place}");
    }

    #[test]
    fn long_diffs_are_cut() {
        let new: String = (0..5000).map(|n| n.to_string() + "\n").collect();
        let diff = unified("/etc/x", "", &new);
        assert!(diff.lines().count() < 210 && diff.contains("more lines"));
    }
}
