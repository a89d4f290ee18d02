//! The engine's own words in the language of the person.
//!
//! Engine, model and agent say what they measured, what is wrong and what to do in English, in results and events that
//! programs read too. `messages/zh-CN/phrases.ftl` has a translation of each, with the English as its attribute `en`:
//! `held by { $a }`. A text is looked up by its shape; what stands in the holes is looked up in turn. What has no
//! translation is shown as it is.

use super::Messages;
use fluent_bundle::{FluentArgs, FluentValue};

/// Phrases within phrases: `about 12,000 (memory of the IM core …)`.
const DEPTH: usize = 4;
/// A phrase with a letter and fewer than these (`{ $a } to { $b }`) stands around single words or what is translated itself.
const FEW: usize = 4;
/// Marks a hole while a pattern is taken apart; no text of ours has it.
const MARK: char = '\u{1}';
/// The names that holes may have.
const HOLES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// The shape of an English text and the key of its translation.
#[derive(Debug)]
pub(super) struct Phrase {
    key: String,
    /// What stands before, between and behind the holes; one more than there are holes.
    literals: Vec<String>,
    /// Names of the holes in their order.
    holes: Vec<String>,
    /// Characters of all literals.
    weight: usize,
    /// Letters in the literals. None: the shape alone says nothing. Few: it may stand in any sentence.
    letters: usize,
}

/// The phrases of a source, the most telling first.
pub(super) fn read(messages: &Messages, source: &str) -> Vec<Phrase> {
    let keys = source.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key);
    let mut all: Vec<Phrase> =
        keys.filter(|key| key.starts_with("phrase-")).filter_map(|key| phrase(messages, key)).collect();
    all.sort_by_key(|phrase| std::cmp::Reverse(phrase.weight));
    all
}

fn phrase(messages: &Messages, key: &str) -> Option<Phrase> {
    let message = messages.bundle.get_message(key)?;
    let pattern = message.get_attribute("en")?.value();
    let mut arguments = FluentArgs::new();
    for name in HOLES {
        arguments.set(name, FluentValue::from(format!("{MARK}{name}")));
    }
    let mut errors = Vec::new();
    let text = messages.bundle.format_pattern(pattern, Some(&arguments), &mut errors).into_owned();
    let mut parts = text.split(MARK);
    let mut literals = vec![parts.next()?.to_owned()];
    let mut holes = Vec::new();
    for part in parts {
        let (name, literal) = part.split_at_checked(1)?;
        holes.push(name.to_owned());
        literals.push(literal.to_owned());
    }
    let weight = literals.iter().map(|literal| literal.chars().count()).sum();
    let letters = literals.iter().flat_map(|literal| literal.chars()).filter(|c| c.is_alphabetic()).count();
    Some(Phrase { key: key.to_owned(), literals, holes, weight, letters })
}

impl Phrase {
    /// What stands in the holes when a text has this shape. Holes are as short as can be, and never empty.
    fn holes_of<'t>(&self, text: &'t str) -> Option<Vec<&'t str>> {
        let (first, rest) = self.literals.split_first()?;
        let mut left = text.strip_prefix(first.as_str())?;
        let Some((last, between)) = rest.split_last() else { return left.is_empty().then(Vec::new) };
        let mut found = Vec::with_capacity(self.holes.len());
        for literal in between {
            // From the second character on: a hole has at least one.
            let from = left.chars().next()?.len_utf8();
            let at = from + left[from..].find(literal.as_str())?;
            found.push(&left[..at]);
            left = &left[at + literal.len()..];
        }
        let hole = left.strip_suffix(last.as_str()).filter(|hole| !hole.is_empty())?;
        found.push(hole);
        Some(found)
    }
}

/// The translation; none: there is none.
pub(super) fn translate(messages: &Messages, phrases: &[Phrase], text: &str) -> Option<String> {
    translate_at(messages, phrases, text, DEPTH)
}

fn translate_at(messages: &Messages, phrases: &[Phrase], text: &str, depth: usize) -> Option<String> {
    if depth == 0 || text.trim().is_empty() {
        return None;
    }
    phrases.iter().find_map(|phrase| {
        let holes = phrase.holes_of(text)?;
        let mut arguments = FluentArgs::new();
        let mut any = phrase.letters > 0;
        for (name, hole) in phrase.holes.iter().zip(holes) {
            let inner = translate_at(messages, phrases, hole, depth - 1);
            any |= inner.is_some();
            if inner.is_none() && (1..FEW).contains(&phrase.letters) && hole.contains(' ') {
                // `unable to open the file` is no range.
                return None;
            }
            arguments.set(name.clone(), FluentValue::from(inner.unwrap_or_else(|| hole.to_owned())));
        }
        any.then(|| messages.format(&phrase.key, &arguments))
    })
}

#[cfg(test)]
mod tests {
    use super::super::Messages;
    use std::path::{Path, PathBuf};

    fn is_chinese(text: &str) -> bool {
        text.chars().any(|letter| ('\u{4e00}'..='\u{9fff}').contains(&letter))
    }

    #[test]
    fn what_stands_in_the_holes_is_kept_and_translated_in_turn() {
        let chinese = Messages::chinese();
        let say = |text: &str| chinese.own(text);
        assert_eq!(say("held by nginx (812)"), "被 nginx (812) 占用");
        let nested = say("about 12,000 (memory of the IM core, 24 KiB for each user)");
        assert!(nested.contains("12,000") && nested.contains("IM 核心的内存"), "{nested}");
        assert_eq!(say("port 443: held by another process"), "port 443：被 其他进程 占用");
        assert_eq!(say("no such words"), "no such words");
        assert_eq!(say("12: 34"), "12: 34", "a shape without words says nothing");
        assert_eq!(say("1.5 to 2.0"), "1.5 到 2.0");
        assert_eq!(say("unable to open the file"), "unable to open the file");
        assert_eq!(say(""), "");
        let english = Messages::english();
        assert_eq!(english.own("held by nginx (812)"), "held by nginx (812)");
    }

    #[test]
    fn every_phrase_is_found_by_its_own_english() {
        let chinese = Messages::chinese();
        assert!(chinese.phrases().len() > 400, "{}", chinese.phrases().len());
        for phrase in chinese.phrases() {
            let mut text = phrase.literals[0].clone();
            for (hole, literal) in phrase.holes.iter().zip(&phrase.literals[1..]) {
                text.push_str(&format!("7{hole}{literal}"));
            }
            if phrase.letters > 0 {
                assert!(is_chinese(&chinese.own(&text)), "{}: {text}", phrase.key);
            }
        }
    }

    /// Texts of a Rust source that people may read: those with a blank between words, out of tests and comments. Holes of
    /// `format!` become words that nothing translates.
    fn texts(source: &str) -> Vec<String> {
        let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let mut all = Vec::new();
        let lines: Vec<&str> = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//") && !line.contains("tracing::"))
            .collect();
        let code = lines.join("\n");
        let mut letters = code.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                // A character, or a lifetime.
                '\'' => {
                    let mut ahead = letters.clone();
                    let first = ahead.next();
                    let end = if first == Some('\\') { ahead.nth(1) } else { ahead.next() };
                    if end == Some('\'') {
                        letters = ahead;
                    }
                }
                '"' => {
                    let mut text = String::new();
                    while let Some(letter) = letters.next() {
                        match letter {
                            '"' => break,
                            '\\' => match letters.next() {
                                Some('\n') => while letters.next_if(|next| next.is_whitespace()).is_some() {},
                                Some('n') => text.push('\n'),
                                Some(other) => text.push(other),
                                None => {}
                            },
                            other => text.push(other),
                        }
                    }
                    all.push(text);
                }
                _ => {}
            }
        }
        all.retain(|text| {
            let words = text.split(' ').filter(|word| word.chars().any(|c| c.is_ascii_lowercase())).count();
            words > 1 && !text.contains('\n') && !text.contains("sh -c") && !text.contains("/proc/self/fd")
        });
        all.into_iter().map(|text| filled(&text)).filter(|text| says_something(text)).collect()
    }

    /// Whether there are words beside holes and what stands in backticks: a shape alone needs no translation.
    fn says_something(text: &str) -> bool {
        let plain: String = text.split('`').step_by(2).collect::<String>().replace("7x", "");
        // A message of a library that is recognised; the place of a mistake that stands in a flag.
        text != "recursion limit" && !text.starts_with("--set ") && plain.chars().any(char::is_alphabetic)
    }

    /// `{}` and `{name:.1}` as `7x`; `{{` as a brace.
    fn filled(text: &str) -> String {
        let mut out = String::new();
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '{' if letters.next_if_eq(&'{').is_some() => out.push('{'),
                '}' if letters.next_if_eq(&'}').is_some() => out.push('}'),
                // A brace with a blank in it is one of YAML in a text that is not formatted.
                // So is `${NAME}`.
                '{' if !out.ends_with('$') && {
                    let inner: String = letters.clone().take_while(|c| *c != '}').collect();
                    !inner.contains([' ', ',', '/']) && !inner.contains("FILE")
                } =>
                {
                    for inner in letters.by_ref() {
                        if inner == '}' {
                            break;
                        }
                    }
                    out.push_str("7x");
                }
                other => out.push(other),
            }
        }
        out
    }

    fn sources(folder: &str, names: &[&str]) -> Vec<(PathBuf, String)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&folder).expect("the sources are there").flatten() {
            let path = entry.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() || name == "tests.rs" {
                continue;
            }
            if names.is_empty() || names.contains(&name.as_str()) {
                all.push((path.clone(), std::fs::read_to_string(&path).expect("UTF-8")));
            }
        }
        assert!(!all.is_empty());
        all
    }

    /// What the engine does, as locks and steps name it; and pieces of texts that are translated whole.
    const PIECES: [&str; 8] = [
        "back up",
        "host replace",
        "upgrade --finalize",
        "both ends of a stream, and what it is called",
        "the agent asked for it",
        "7x bytes, 7x tables compared",
        ", about 7x rows",
        "7x on 7x (7x bytes7x)",
    ];

    fn is_piece(text: &str) -> bool {
        let action = ["create", "verify", "prune", "drill", "restore", "7x"];
        PIECES.contains(&text)
            || text.starts_with("restrict,from=")
            || text.strip_prefix("backup ").is_some_and(|rest| action.contains(&rest))
    }

    #[test]
    fn what_the_engine_says_lacks_no_language() {
        let chinese = Messages::chinese();
        let mut all = sources("../engine/src/preflight", &[]);
        for folder in ["backup", "backup/restore", "upgrade", "replace"] {
            all.extend(sources(&format!("../engine/src/{folder}"), &[]));
        }
        all.extend(sources(
            "../model/src/topology",
            &["backup.rs", "hosts.rs", "read.rs", "resolve.rs", "rules.rs", "tree.rs", "values.rs"],
        ));
        let mut count = 0;
        let mut missing = Vec::new();
        for (path, source) in all {
            for text in texts(&source).into_iter().filter(|text| !is_piece(text)) {
                count += 1;
                // Not a sentence of its own, but a piece of one, or what is sent to a host.
                if !is_chinese(&chinese.own(&text)) {
                    missing
                        .push(format!("{}: {text}", path.file_name().unwrap_or_default().to_string_lossy()));
                }
            }
        }
        assert!(count > 500, "{count} texts were found");
        assert!(missing.is_empty(), "without a translation: {missing:#?}");
    }
}
