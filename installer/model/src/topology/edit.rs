//! Changing a topology's text in place, so that comments and order stay; and writing one anew from the tree.

use super::load::find_item;
use super::read::Rewrite;
use super::tree::{self, Node, Value};

/// Sets the value at a dotted path in a text (`ports.xmpp`, `hosts.app1.address`). None when that cannot be done
/// without writing the text anew; whether the result is a valid topology is for [`super::load`] to say.
pub fn set_value(text: &str, key: &str, value: &str) -> Option<String> {
    let root = tree::build("", text).ok()?;
    let segments: Vec<&str> = key.split('.').collect();
    let mut node = &root;
    for (index, segment) in segments.iter().enumerate() {
        let next = match &node.value {
            Value::Mapping { entries, .. } => {
                entries.iter().find(|entry| entry.key == *segment).map(|entry| &entry.node)
            }
            Value::Sequence(items) => Some(&items[find_item(items, segment).ok()?]),
            Value::Scalar { .. } => return None,
        };
        match next {
            Some(next) => node = next,
            None => return insert(text, node, &segments[index..], value, index == 0),
        }
    }
    match &node.value {
        Value::Scalar { text: old, .. } if !old.is_empty() && !old.contains('\n') => {
            replace(text, node.place.line, node.place.column, node.place.length, &scalar(value))
        }
        _ => None,
    }
}

/// Replaces the scalars of all rewrites.
pub(super) fn rewrite(text: &str, rewrites: &[Rewrite]) -> Option<String> {
    let mut ordered: Vec<&Rewrite> = rewrites.iter().filter(|rewrite| rewrite.place.flag == 0).collect();
    ordered.sort_by_key(|rewrite| std::cmp::Reverse((rewrite.place.line, rewrite.place.column)));
    ordered.iter().try_fold(text.to_owned(), |text, rewrite| {
        replace(
            &text,
            rewrite.place.line,
            rewrite.place.column,
            rewrite.place.length,
            &scalar(&rewrite.value),
        )
    })
}

/// Inserts `a: {b: value}` into a mapping.
fn insert(text: &str, parent: &Node, segments: &[&str], value: &str, top: bool) -> Option<String> {
    let Value::Mapping { entries, flow } = &parent.value else { return None };
    let (first, rest) = segments.split_first()?;
    let inner = rest.iter().rev().fold(scalar(value), |inner, segment| format!("{{{segment}: {inner}}}"));
    let pair = format!("{first}: {inner}");
    if *flow {
        let comma = if entries.is_empty() { "" } else { ", " };
        return replace(text, parent.place.line, parent.place.column + 1, 0, &format!("{pair}{comma}"));
    }
    if top {
        let newline = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
        return Some(format!("{text}{newline}{pair}\n"));
    }
    let place = entries.first()?.place;
    let indent = " ".repeat(place.column - 1);
    replace(text, place.line, place.column, 0, &format!("{pair}\n{indent}"))
}

/// Replaces `length` characters at a place.
fn replace(text: &str, line: usize, column: usize, length: usize, with: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len() + with.len());
    let mut done = false;
    for (index, current) in text.split_inclusive('\n').enumerate() {
        if index + 1 != line {
            out.push_str(current);
            continue;
        }
        let characters: Vec<char> = current.chars().collect();
        let start = column.checked_sub(1)?;
        let before = characters.get(..start)?;
        let after = characters.get(start + length..)?;
        out.extend(before);
        out.push_str(with);
        out.extend(after);
        done = true;
    }
    done.then_some(out)
}

/// A scalar as YAML: plain where that is safe, a flow list or mapping as it is, else in double quotes.
pub(super) fn scalar(value: &str) -> String {
    if value.starts_with(['[', '{']) {
        return value.to_owned();
    }
    let safe = !value.is_empty()
        && value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && !value.ends_with(':')
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '@' | ':' | '+'));
    if safe {
        return value.to_owned();
    }
    let mut quoted = String::from("\"");
    for character in value.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Writes a tree as block YAML, with rewritten scalars in their new form.
pub(super) fn emit(root: &Node, rewrites: &[Rewrite]) -> String {
    let mut out = String::new();
    write_node(&mut out, root, rewrites, 0);
    out
}

fn write_node(out: &mut String, node: &Node, rewrites: &[Rewrite], depth: usize) {
    let indent = "  ".repeat(depth);
    match &node.value {
        Value::Mapping { entries, .. } => {
            for entry in entries {
                out.push_str(&format!("{indent}{}:", scalar(&entry.key)));
                write_child(out, &entry.node, rewrites, depth);
            }
        }
        Value::Sequence(items) => {
            for item in items {
                out.push_str(&format!("{indent}-"));
                write_child(out, item, rewrites, depth);
            }
        }
        Value::Scalar { .. } => out.push_str(&format!("{indent}{}\n", leaf(node, rewrites))),
    }
}

fn write_child(out: &mut String, node: &Node, rewrites: &[Rewrite], depth: usize) {
    match &node.value {
        Value::Mapping { entries, .. } if entries.is_empty() => out.push_str(" {}\n"),
        Value::Sequence(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Mapping { .. } | Value::Sequence(_) => {
            out.push('\n');
            write_node(out, node, rewrites, depth + 1);
        }
        Value::Scalar { .. } => out.push_str(&format!(" {}\n", leaf(node, rewrites))),
    }
}

fn leaf(node: &Node, rewrites: &[Rewrite]) -> String {
    let Value::Scalar { text, plain } = &node.value else { return String::new() };
    if node.is_null() {
        return "null".to_owned();
    }
    let value = rewrites
        .iter()
        .find(|rewrite| rewrite.place == node.place)
        .map_or(text.as_str(), |rewrite| rewrite.value.as_str());
    let written = scalar(value);
    // A quoted `null` or `~` is a text, and must stay one.
    if !plain && matches!(written.as_str(), "null") { "\"null\"".to_owned() } else { written }
}

#[cfg(test)]
mod tests {
    use super::set_value;

    const TEXT: &str =
        "# ours\nname: acme # the name\nports: {xmpp: 5222}\nhosts:\n  - name: app1\n    address: 10.0.0.1\n";

    #[test]
    fn an_existing_value_is_replaced_and_comments_stay() {
        assert_eq!(set_value(TEXT, "name", "beta").as_deref(), Some(TEXT.replace("acme", "beta").as_str()));
        assert_eq!(
            set_value(TEXT, "ports.xmpp", "15222").as_deref(),
            Some(TEXT.replace("5222", "15222").as_str())
        );
        let edited = set_value(TEXT, "hosts.app1.address", "10.0.0.9").expect("editable");
        assert_eq!(edited, TEXT.replace("10.0.0.1", "10.0.0.9"));
    }

    #[test]
    fn a_new_value_is_inserted_where_it_belongs() {
        let edited = set_value(TEXT, "ports.https", "8443").expect("editable");
        assert!(edited.contains("ports: {https: 8443, xmpp: 5222}"), "{edited}");
        let edited = set_value(TEXT, "hosts.app1.ssh.port", "2222").expect("editable");
        assert!(edited.contains("  - ssh: {port: 2222}\n    name: app1\n"), "{edited}");
        let edited = set_value(TEXT, "settings.im.registration.in_band", "true").expect("editable");
        assert!(edited.ends_with("settings: {im: {registration: {in_band: true}}}\n"), "{edited}");
        assert!(set_value(TEXT, "hosts.app1.address", "a b: #c").expect("editable").contains("\"a b: #c\""));
    }
}
