//! Every sentence of the command line in the language of the person: `messages/LANGUAGE/*.ftl` (Fluent).
//!
//! The language comes from `LC_ALL`, `LC_MESSAGES`, `LANG`, the first that is set: Chinese for `zh…`, else English.
//! A missing key is shown by its name, and a test sees to it that there is none.

mod phrases;

use fluent_bundle::concurrent::FluentBundle;
use fluent_bundle::{FluentArgs, FluentResource, FluentValue};
use phrases::Phrase;
use std::sync::OnceLock;

const ENGLISH: [&str; 2] = [include_str!("../messages/en/main.ftl"), include_str!("../messages/en/help.ftl")];
const CHINESE: [&str; 2] =
    [include_str!("../messages/zh-CN/main.ftl"), include_str!("../messages/zh-CN/help.ftl")];

/// Texts of checks by their id. The engine's own are English and stand in its results; a language without an entry shows
/// those.
const CHINESE_CHECKS: &str = include_str!("../messages/zh-CN/checks.ftl");

/// The engine's own words; see [`phrases`].
const CHINESE_PHRASES: &str = include_str!("../messages/zh-CN/phrases.ftl");

/// Sentences of one language.
pub(crate) struct Messages {
    bundle: FluentBundle<FluentResource>,
    /// Where the phrases stand; empty in English.
    phrase_source: &'static str,
    /// Read when the first is asked for.
    phrases: OnceLock<Vec<Phrase>>,
}

impl Messages {
    /// By the environment.
    pub fn from_environment() -> Self {
        let language = ["LC_ALL", "LC_MESSAGES", "LANG"]
            .into_iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.is_empty())
            .unwrap_or_default();
        if language.to_ascii_lowercase().starts_with("zh") { Self::chinese() } else { Self::english() }
    }

    /// English.
    pub fn english() -> Self {
        Self::build("en", &ENGLISH, "")
    }

    /// Chinese.
    pub fn chinese() -> Self {
        let [main, help] = CHINESE;
        Self::build("zh-CN", &[main, help, CHINESE_CHECKS, CHINESE_PHRASES], CHINESE_PHRASES)
    }

    fn build(language: &str, sources: &[&str], phrase_source: &'static str) -> Self {
        let languages = language.parse().map(|language| vec![language]).unwrap_or_default();
        let mut bundle = FluentBundle::new_concurrent(languages);
        // Terminals show the isolation marks as boxes.
        bundle.set_use_isolating(false);
        for source in sources {
            let resource = match FluentResource::try_new((*source).to_owned()) {
                Ok(resource) | Err((resource, _)) => resource,
            };
            bundle.add_resource_overriding(resource);
        }
        Self { bundle, phrase_source, phrases: OnceLock::new() }
    }

    /// A sentence without values.
    pub fn text(&self, key: &str) -> String {
        self.format(key, &FluentArgs::new())
    }

    /// A sentence with values.
    pub fn with(&self, key: &str, values: &[(&str, Value)]) -> String {
        let mut arguments = FluentArgs::new();
        for (name, value) in values {
            match value {
                Value::Text(text) => arguments.set(*name, FluentValue::from(text.as_str())),
                Value::Number(number) => arguments.set(*name, FluentValue::from(*number)),
            }
        }
        self.format(key, &arguments)
    }

    /// Title and reason of a check, from its id and the engine's own words.
    pub fn check(&self, id: &str, title: &str, why: &str) -> (String, String) {
        let key = if id.starts_with("access.") && id != "access.privileges" { "access" } else { id };
        let key = key.replace('.', "-");
        let subject = title.rsplit(' ').next().unwrap_or_default();
        let text = |part: &str, own: &str| {
            let key = format!("check-{part}-{key}");
            if self.bundle.has_message(&key) {
                self.with(&key, &[("subject", Value::from(subject))])
            } else {
                self.own(own)
            }
        };
        // A reason that the engine does not give is none.
        (text("title", title), if why.is_empty() { String::new() } else { text("why", why) })
    }

    /// Words of the engine, the model or an agent in this language; as they are where there is no translation.
    pub fn own(&self, text: &str) -> String {
        phrases::translate(self, self.phrases(), text).unwrap_or_else(|| text.to_owned())
    }

    /// The same for several things, in one line.
    pub fn list(&self, texts: &[String]) -> String {
        texts.iter().map(|text| self.own(text)).collect::<Vec<_>>().join(", ")
    }

    fn phrases(&self) -> &[Phrase] {
        self.phrases.get_or_init(|| phrases::read(self, self.phrase_source))
    }

    fn format(&self, key: &str, arguments: &FluentArgs<'_>) -> String {
        let Some(pattern) = self.bundle.get_message(key).and_then(|message| message.value()) else {
            return key.to_owned();
        };
        let mut errors = Vec::new();
        self.bundle.format_pattern(pattern, Some(arguments), &mut errors).into_owned()
    }
}

/// A value in a sentence.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Text.
    Text(String),
    /// A count.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// `values!["name" => value, …]` for [`Messages::with`].
macro_rules! values {
    ($($name:literal => $value:expr),* $(,)?) => {
        &[$(($name, $crate::messages::Value::from($value))),*]
    };
}
pub(crate) use values;

#[cfg(test)]
mod tests {
    use super::{CHINESE, ENGLISH, Messages};
    use std::collections::BTreeSet;

    #[test]
    fn a_check_is_told_in_the_language_of_the_person() {
        let (title, why) =
            Messages::chinese().check("disk.space", "free space on /opt", "images are unpacked");
        assert!(
            title.starts_with("/opt") && title.contains("可用空间") && why.contains("镜像"),
            "{title} {why}"
        );
        let (title, why) = Messages::chinese().check("access.sign_in", "access to the host", "every host");
        assert!(title.contains("主机") && why.contains("主机"), "{title} {why}");
        let own = ("some other title".to_owned(), "some other reason".to_owned());
        assert_eq!(Messages::english().check("disk.space", &own.0, &own.1), own);
        assert_eq!(Messages::chinese().check("no.such", &own.0, &own.1), own);
    }

    fn keys(sources: &[&str]) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        for source in sources {
            for line in source.lines() {
                let begins = line.starts_with(|c: char| c.is_ascii_lowercase());
                if let (true, Some((key, _))) = (begins, line.split_once('=')) {
                    assert!(keys.insert(key.trim().to_owned()), "the key {key} stands twice");
                }
            }
        }
        keys
    }

    /// Placeables of a message, so that a translation loses no value.
    fn placeables(messages: &Messages, key: &str) -> BTreeSet<String> {
        let pattern = messages.bundle.get_message(key).and_then(|message| message.value());
        let text = format!("{pattern:?}");
        text.split("VariableReference")
            .skip(1)
            .filter_map(|rest| rest.split('"').nth(1))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn every_key_is_in_both_languages_with_the_same_values() {
        let (english, chinese) = (keys(&ENGLISH), keys(&CHINESE));
        let missing: Vec<_> = english.symmetric_difference(&chinese).collect();
        assert!(missing.is_empty(), "in one language only: {missing:?}");
        let (en, zh) = (Messages::english(), Messages::chinese());
        for key in &english {
            assert!(en.bundle.has_message(key), "{key} does not parse in English");
            assert!(zh.bundle.has_message(key), "{key} does not parse in Chinese");
            assert_eq!(placeables(&en, key), placeables(&zh, key), "{key}");
        }
    }

    #[test]
    fn every_key_of_the_source_exists_and_every_key_is_used() {
        let english = keys(&ENGLISH);
        let mut source = String::new();
        collect(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path(), &mut source);
        // Calls broken over lines become one line.
        let source: String = source.split_whitespace().collect();
        let mut used = BTreeSet::new();
        for part in source.split(".text(\"").skip(1).chain(source.split(".with(\"").skip(1)) {
            used.insert(part.split('"').next().unwrap_or_default().to_owned());
        }
        let unknown: Vec<_> = used.iter().filter(|key| !english.contains(*key)).collect();
        assert!(unknown.is_empty(), "used and not in the message files: {unknown:?}");
        // Help texts are found by the names of commands and flags: see `every_command_has_its_help`.
        let unused: Vec<_> = english
            .iter()
            .filter(|key| {
                !["command-", "flag-", "argument-", "example-"].iter().any(|part| key.starts_with(part))
            })
            .filter(|key| !source.contains(&format!("\"{key}\"")))
            .collect();
        assert!(unused.is_empty(), "in the message files and not used: {unused:?}");
    }

    fn collect(folder: &std::path::Path, source: &mut String) {
        for entry in std::fs::read_dir(folder).expect("src can be read").flatten() {
            if entry.path().is_dir() {
                collect(&entry.path(), source);
            } else if entry.path().file_name().is_some_and(|name| name != "messages.rs") {
                source.push_str(&std::fs::read_to_string(entry.path()).expect("UTF-8"));
            }
        }
    }

    #[test]
    fn every_command_has_its_help() {
        fn check(command: &clap::Command, wanted: &BTreeSet<String>) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && !wanted.contains(&about), "{}", command.get_name());
            let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(example.contains("maxim.ctl"), "{} has no example", command.get_name());
            for argument in command.get_arguments() {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                let unknown = help.starts_with("argument-") || help.starts_with("flag-") || help.is_empty();
                assert!(!unknown, "{} {} has no help: {help}", command.get_name(), argument.get_id());
            }
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
                assert!(!about.starts_with("command-"), "{} has no help", sub.get_name());
                check(sub, wanted);
            }
        }
        check(&crate::command(), &BTreeSet::new());
    }
}
