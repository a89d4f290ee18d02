//! What is wrong with a topology, and where: rendered with the line and a caret, as compilers do.
//!
//! A secret that somebody wrote into a topology never reaches the rendering: the value after a key that names a
//! secret, and a password in a URL, are hidden in every line that is shown.

use std::fmt;

/// A place in a text, or in no text (`line` 0).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// From 1; 0: no place in a file (a flag, or the whole file).
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Characters to underline, on that line.
    pub length: usize,
    /// 0: in the text; otherwise the number of the `--set` flag, from 1.
    pub flag: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyError {
    /// File, or the flag that it came from, as `--set ports.xmpp=0`.
    pub file: String,
    /// From 1; 0 when `file` is a flag.
    pub line: usize,
    /// From 1, in characters; 0 when `file` is a flag.
    pub column: usize,
    /// Characters concerned, at least 1.
    pub length: usize,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl TopologyError {
    /// An error at a place.
    pub(super) fn new(file: &str, place: Place, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: place.line,
            column: place.column,
            length: place.length.max(1),
            message: message.into(),
            hint: String::new(),
        }
    }

    /// Adds what to do.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// `file:line:column`, or the flag.
    pub fn location(&self) -> String {
        if self.line == 0 {
            self.file.clone()
        } else {
            format!("{}:{}:{}", self.file, self.line, self.column)
        }
    }
}

/// All that is wrong, in the order of the text, with the text for rendering.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TopologyErrors {
    /// At least one.
    pub errors: Vec<TopologyError>,
    /// The text that the places are in.
    text: String,
}

impl TopologyErrors {
    /// Errors of a text.
    pub(super) fn new(mut errors: Vec<TopologyError>, text: &str) -> Self {
        errors.sort_by_key(|error| (error.line == 0, error.line, error.column));
        errors.dedup();
        Self { errors, text: text.to_owned() }
    }

    /// Only the first `count`, when there are more; how many were left out.
    pub fn truncate(&mut self, count: usize) -> usize {
        let more = self.errors.len().saturating_sub(count);
        self.errors.truncate(count);
        more
    }
}

impl fmt::Display for TopologyErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<&str> = self.text.lines().collect();
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            write_error(formatter, error, &lines)?;
        }
        Ok(())
    }
}

/// One error with its line and caret.
fn write_error(formatter: &mut fmt::Formatter<'_>, error: &TopologyError, lines: &[&str]) -> fmt::Result {
    writeln!(formatter, "error: {}", error.message)?;
    let number = error.line.to_string();
    let margin = " ".repeat(number.len());
    let source = error.line.checked_sub(1).and_then(|line| lines.get(line));
    writeln!(formatter, "{margin}--> {}", error.location())?;
    if let Some(source) = source {
        let shown = visible(&mask(source));
        let width = shown.chars().count();
        // A caret that would point behind something hidden says nothing: the line alone is shown then.
        if error.column <= width + 1 {
            let start = error.column - 1;
            let length = error.length.min((width + 1).saturating_sub(start)).max(1);
            let (view, start) = window(&shown, start, length);
            writeln!(formatter, "{margin} |")?;
            writeln!(formatter, "{number} | {view}")?;
            writeln!(formatter, "{margin} | {}{}", " ".repeat(start), "^".repeat(length))?;
        } else {
            writeln!(formatter, "{margin} |")?;
            writeln!(formatter, "{number} | {shown}")?;
        }
    }
    if !error.hint.is_empty() {
        writeln!(formatter, "{margin} = hint: {}", error.hint)?;
    }
    Ok(())
}

/// At most 110 characters of a line, around what is underlined; the start of the underline in it.
fn window(line: &str, start: usize, length: usize) -> (String, usize) {
    const WIDTH: usize = 110;
    let characters: Vec<char> = line.chars().collect();
    if characters.len() <= WIDTH {
        return (line.to_owned(), start);
    }
    let from = start.saturating_sub(WIDTH.saturating_sub(length.min(WIDTH - 10)) / 2);
    let from = from.min(characters.len().saturating_sub(WIDTH));
    let to = (from + WIDTH).min(characters.len());
    let mut view: String = characters[from..to].iter().collect();
    let mut at = start - from;
    if from > 0 {
        view.insert_str(0, "… ");
        at += 2;
    }
    if to < characters.len() {
        view.push_str(" …");
    }
    (view, at)
}

/// Tabs and invisible characters as something that has a width of one.
fn visible(line: &str) -> String {
    line.chars()
        .map(|character| match character {
            '\t' => ' ',
            other if super::tree::is_unreadable(other) => '\u{fffd}',
            other => other,
        })
        .collect()
}

/// Names of keys that hold a secret, when they do not end in `_file`.
const SECRET_WORDS: [&str; 7] =
    ["password", "passphrase", "secret", "token", "private_key", "api_key", "credential"];

/// Whether a key holds a secret by its name.
pub fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    // `passwd` and `pwd` are what people write; `_file` points to a secret, and is the way to do it.
    !key.ends_with("_file")
        && (SECRET_WORDS.iter().any(|word| key.contains(word))
            || key.contains("passwd")
            || key == "pwd"
            || key == "pass")
}

/// Hides what follows a key that names a secret, and a password in a URL.
pub(super) fn mask(line: &str) -> String {
    let mut cut = line.len();
    for (position, character) in line.char_indices() {
        if character != ':' && character != '=' {
            continue;
        }
        let before = line[..position].trim_end_matches(|c: char| c == '"' || c == '\'' || c.is_whitespace());
        let start = before
            .rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-'))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let value = line[position + 1..].trim();
        if is_secret_key(&before[start..]) && !value.is_empty() {
            cut = cut.min(position + 1);
        }
    }
    let shown = if cut < line.len() { format!("{} [hidden]", &line[..cut]) } else { line.to_owned() };
    if shown.contains("-----BEGIN") || shown.contains("PRIVATE KEY") {
        return "[hidden]".to_owned();
    }
    mask_url(&shown)
}

/// `scheme://user:password@host` → `scheme://user:[hidden]@host`.
pub(super) fn mask_url(text: &str) -> String {
    let Some(scheme) = text.find("://") else { return text.to_owned() };
    let authority = &text[scheme + 3..];
    let end = authority.find(|c: char| c.is_whitespace() || c == '"' || c == '\'').unwrap_or(authority.len());
    // A password may itself hold `@`, a slash or a space: the last `@` counts.
    let at = authority[..end].rfind('@').or_else(|| authority.rfind('@'));
    let (Some(at), Some(colon)) = (at, authority.find(':')) else { return text.to_owned() };
    if colon >= at {
        return text.to_owned();
    }
    format!("{}{}:[hidden]{}", &text[..scheme + 3], &authority[..colon], &authority[at..])
}

/// A value for a message: quoted, invisible characters escaped, at most 60 characters.
pub(super) fn quoted(value: &str) -> String {
    let escaped: String = mask_url(value)
        .chars()
        .take(61)
        .flat_map(|character| {
            if super::tree::is_unreadable(character) || character == '\t' {
                character.escape_unicode().collect::<Vec<_>>()
            } else {
                vec![character]
            }
        })
        .collect();
    if escaped.chars().count() > 60 {
        format!("`{}…`", escaped.chars().take(57).collect::<String>())
    } else {
        format!("`{escaped}`")
    }
}

#[cfg(test)]
mod tests {
    use super::{is_secret_key, mask, mask_url, quoted};

    #[test]
    fn secrets_are_hidden_in_lines() {
        assert_eq!(mask("  password: hunter2"), "  password: [hidden]");
        assert_eq!(
            mask("- {name: a, sudo_password: 'x y', roles: [im]}"),
            "- {name: a, sudo_password: [hidden]"
        );
        assert_eq!(mask("  sudo_password_file: /root/x"), "  sudo_password_file: /root/x");
        assert_eq!(mask_url("mysql://im:p@ss/w@db/im"), "mysql://im:[hidden]@db/im");
        assert_eq!(mask_url("mysql://im@db:3306/im"), "mysql://im@db:3306/im");
        assert_eq!(mask("key: |-----BEGIN OPENSSH PRIVATE KEY-----"), "[hidden]");
    }

    #[test]
    fn keys_that_name_a_secret() {
        for key in ["password", "sudo_password", "api-key", "Token", "passwd"] {
            assert!(is_secret_key(key), "{key}");
        }
        for key in ["password_file", "key", "cert", "users", "sudo_password_file"] {
            assert!(!is_secret_key(key), "{key}");
        }
    }

    #[test]
    fn values_are_quoted_short_and_visible() {
        assert_eq!(quoted("a\u{7}b"), "`a\\u{7}b`");
        assert!(quoted(&"x".repeat(500)).chars().count() < 64);
    }
}
