//! Reading typed values out of the tree, with every mistake collected rather than the first one thrown.
//!
//! Given: the tree, the environment, the folder that relative paths count from. What was expanded or made absolute
//! is remembered as a rewrite of the text, so that the topology that is kept with the cluster says what was applied.

use super::error::{Place, TopologyError, is_secret_key, quoted};
use super::suggest::nearest;
use super::tree::{Entry, Node, Value, is_unreadable};
use super::values::Wrong;
use std::path::Path;

/// A scalar of the text that is to be replaced by another.
#[derive(Debug, Clone)]
pub(super) struct Rewrite {
    /// Where the scalar stands.
    pub place: Place,
    /// What to write instead (not yet quoted).
    pub value: String,
}

/// Collects errors while values are read.
pub(super) struct Reader<'a> {
    /// Name of the file, for errors.
    pub file: &'a str,
    /// Environment.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Folder of the file.
    pub base: &'a Path,
    /// The `--set` flags as given, for errors.
    pub sets: &'a [String],
    /// What was wrong.
    pub errors: Vec<TopologyError>,
    /// What was expanded.
    pub rewrites: Vec<Rewrite>,
}

/// A `--set` flag for messages; a value that may be secret is hidden.
pub(super) fn set_label(set: &str) -> String {
    let (key, value) = set.split_once('=').unwrap_or((set, ""));
    let last = key.rsplit('.').next().unwrap_or(key);
    if is_secret_key(last) {
        return format!("--set {key}=[hidden]");
    }
    let shown = quoted(value);
    format!("--set {key}={}", shown.trim_matches('`'))
}

impl Reader<'_> {
    /// Notes a mistake.
    pub fn error(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        let error = match place.flag.checked_sub(1).and_then(|index| self.sets.get(index)) {
            Some(set) => TopologyError::new(&set_label(set), Place::default(), message),
            None => TopologyError::new(self.file, place, message),
        };
        self.errors.push(error.hint(hint));
    }

    /// The entries of a mapping; unknown keys, and keys that hold a secret, are mistakes.
    pub fn mapping<'t>(&mut self, node: &'t Node, path: &str, known: &[&str]) -> Option<&'t [Entry]> {
        let entries = self.entries(node, path)?;
        for entry in entries {
            if known.contains(&entry.key.as_str()) {
                continue;
            }
            let full = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            if is_secret_key(&entry.key) {
                self.secret(entry.place, &full, known.contains(&format!("{}_file", entry.key).as_str()));
                continue;
            }
            let place_name =
                if path.is_empty() { "in a topology".to_owned() } else { format!("in `{path}`") };
            let hint = match nearest(&entry.key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known {place_name}: {}", known.join(", ")),
            };
            self.error(entry.place, format!("unknown key {} {place_name}", quoted(&entry.key)), hint);
        }
        Some(entries)
    }

    /// Whether a missing key stands there with a typing mistake, which is told by itself.
    pub fn misspelt(node: &Node, key: &str, known: &[&str]) -> bool {
        let Value::Mapping { entries, .. } = &node.value else { return false };
        entries.iter().any(|entry| {
            !known.contains(&entry.key.as_str()) && nearest(&entry.key, known.iter().copied()) == Some(key)
        })
    }

    /// A secret stands in the topology.
    pub fn secret(&mut self, place: Place, full: &str, has_file: bool) {
        let hint = if has_file {
            format!("put it into a file of mode 0600 and name that file: `{full}_file:`")
        } else {
            "put it into a file of mode 0600; keys ending in `_file` name such files".to_owned()
        };
        self.error(place, format!("a secret stands in the topology (`{full}`)"), hint);
    }

    /// The entries of a mapping, whatever their keys.
    pub fn entries<'t>(&mut self, node: &'t Node, path: &str) -> Option<&'t [Entry]> {
        match &node.value {
            Value::Mapping { entries, .. } => Some(entries),
            _ if node.is_null() => Some(&[]),
            _ => {
                let what = if path.is_empty() { "the topology".to_owned() } else { format!("`{path}`") };
                self.error(
                    node.place,
                    format!("{what} must be a mapping, and is {}", node.kind()),
                    "write `key: value` pairs, one per line or in braces",
                );
                None
            }
        }
    }

    /// The items of a list.
    pub fn list<'t>(&mut self, node: &'t Node, path: &str) -> Option<&'t [Node]> {
        if let Value::Sequence(items) = &node.value {
            return Some(items);
        }
        self.error(
            node.place,
            format!("`{path}` must be a list, and is {}", node.kind()),
            "write items with `- ` before each, or in brackets",
        );
        None
    }

    /// A text with `${NAME}` expanded.
    pub fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        let Value::Scalar { text, .. } = &node.value else {
            self.error(
                node.place,
                format!("`{path}` must be a text, and is {}", node.kind()),
                "write one value",
            );
            return None;
        };
        if text.chars().count() > 4096 {
            self.error(
                node.place,
                format!("`{path}` has {} characters", text.chars().count()),
                "at most 4096",
            );
            return None;
        }
        if text.contains("-----BEGIN") {
            self.secret(node.place, path, false);
            return None;
        }
        let expanded = self.expand(node, text, path)?;
        if let Some(bad) = expanded.chars().find(|c| is_unreadable(*c) || *c == '\t') {
            self.error(
                node.place,
                format!("`{path}` has the invisible character U+{:04X} in it", u32::from(bad)),
                "remove it",
            );
            return None;
        }
        if expanded != *text {
            self.rewrites.push(Rewrite { place: node.place, value: expanded.clone() });
        }
        Some(expanded)
    }

    /// `${NAME}` by the environment; `$${NAME}` stays `${NAME}`.
    fn expand(&mut self, node: &Node, text: &str, path: &str) -> Option<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            if rest[..start].ends_with('$') {
                out.push_str(&rest[..start - 1]);
                out.push_str("${");
                rest = &rest[start + 2..];
                continue;
            }
            out.push_str(&rest[..start]);
            let Some(end) = rest[start..].find('}') else {
                self.error(
                    node.place,
                    format!("`${{` without `}}` in `{path}`"),
                    "write `${NAME}`, or `$${` for the text itself",
                );
                return None;
            };
            let name = &rest[start + 2..start + end];
            let good = !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !good {
                self.error(
                    node.place,
                    format!("{} is not the name of an environment variable", quoted(name)),
                    "letters, digits and `_`, as `${DOMAIN}`",
                );
                return None;
            }
            if is_secret_key(name) {
                self.error(
                    node.place,
                    format!("`${{{name}}}` looks like a secret, and secrets do not come by the environment"),
                    "put it into a file of mode 0600 and name that file in a key ending in `_file`",
                );
                return None;
            }
            let Some(value) = (self.environment)(name) else {
                self.error(
                    node.place,
                    format!("the environment variable `{name}` is not set"),
                    format!("set it (`export {name}=…`), or write the value here"),
                );
                return None;
            };
            out.push_str(&value);
            rest = &rest[start + end + 1..];
        }
        out.push_str(rest);
        Some(out)
    }

    /// A text that a check accepts.
    pub fn checked<T>(
        &mut self,
        node: &Node,
        path: &str,
        check: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let text = self.text(node, path)?;
        match check(&text) {
            Ok(value) => Some(value),
            Err(Wrong { message, hint }) => {
                self.error(node.place, format!("`{path}`: {message}"), hint);
                None
            }
        }
    }

    /// A whole number in a range.
    pub fn integer(&mut self, node: &Node, path: &str, low: i64, high: i64) -> Option<i64> {
        let text = self.text(node, path)?;
        let plain = matches!(node.value, Value::Scalar { plain: true, .. });
        let digits = text.replace('_', "");
        match digits.parse::<i128>() {
            Ok(value) if (i128::from(low)..=i128::from(high)).contains(&value) => i64::try_from(value).ok(),
            Ok(_) => {
                self.error(
                    node.place,
                    format!("`{path}` is out of range: {}", quoted(&text)),
                    format!("{low} to {high}"),
                );
                None
            }
            Err(_) => {
                let all_digits = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
                let message = if all_digits {
                    format!("`{path}` is out of range: {}", quoted(&text))
                } else {
                    format!("`{path}` must be a whole number, and is {}", quoted(&text))
                };
                let unquoted = if plain { "" } else { ", without quotes" };
                self.error(node.place, message, format!("{low} to {high}{unquoted}"));
                None
            }
        }
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, node: &Node, path: &str) -> Option<bool> {
        let text = self.text(node, path)?;
        match text.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            other => {
                let hint = match other.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "y" | "1" | "true" => "write `true`",
                    "no" | "off" | "n" | "0" | "false" => "write `false`",
                    _ => "`true` or `false`",
                };
                self.error(
                    node.place,
                    format!("`{path}` must be true or false, and is {}", quoted(other)),
                    hint,
                );
                None
            }
        }
    }

    /// One of some words.
    pub fn choice<T: Copy>(&mut self, node: &Node, path: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, path)?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        let all: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let hint = match nearest(&text, all.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? ({})", all.join(", ")),
            None => format!("one of {}", all.join(", ")),
        };
        self.error(node.place, format!("`{path}` cannot be {}", quoted(&text)), hint);
        None
    }

    /// A file on the control host: `~` stays for the user's home, a relative path counts from the topology's folder.
    pub fn control_file(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = self.text(node, path)?;
        if text.is_empty() {
            self.error(node.place, format!("`{path}` is empty"), "name a file, or leave the key out");
            return None;
        }
        if let Some(rest) = text.strip_prefix("~/") {
            let home = (self.environment)("HOME").unwrap_or_else(|| "/root".to_owned());
            let absolute = format!("{}/{rest}", home.trim_end_matches('/'));
            self.absolute(node, &absolute);
            return Some(absolute);
        }
        if text.starts_with('/') {
            return Some(text);
        }
        let absolute = self.base.join(text.trim_start_matches("./")).to_string_lossy().into_owned();
        self.absolute(node, &absolute);
        Some(absolute)
    }

    /// The stored text names the file so that it is found from anywhere, by anybody.
    fn absolute(&mut self, node: &Node, path: &str) {
        self.rewrites.retain(|rewrite| rewrite.place != node.place);
        self.rewrites.push(Rewrite { place: node.place, value: path.to_owned() });
    }
}
