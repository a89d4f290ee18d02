//! Messages in English and Chinese, side by side in `messages/*.ftl` (Fluent).
//!
//! Given: a language and a key with arguments. The language is the visitor's choice (a cookie), else what the browser
//! asks for. A test finds keys that are missing in either file, unused, or used and absent, so that a page never
//! shows a key instead of a sentence.

use fluent_bundle::concurrent::FluentBundle;
use fluent_bundle::{FluentArgs, FluentResource, FluentValue};
use std::sync::LazyLock;

/// A language of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// Simplified Chinese.
    Chinese,
}

type Catalogue = FluentBundle<FluentResource>;

static ENGLISH: LazyLock<Catalogue> = LazyLock::new(|| catalogue("en", include_str!("../messages/en.ftl")));
static CHINESE: LazyLock<Catalogue> =
    LazyLock::new(|| catalogue("zh-CN", include_str!("../messages/zh-CN.ftl")));

fn catalogue(tag: &str, text: &str) -> Catalogue {
    let language = tag.parse().expect("the tags are constants of this file, and a test loads both");
    let mut bundle = FluentBundle::new_concurrent(vec![language]);
    // Isolating marks are invisible characters around arguments; they break copying of names and addresses.
    bundle.set_use_isolating(false);
    // Entries that do not parse are left out here and found by the test.
    let resource = FluentResource::try_new(text.to_owned()).unwrap_or_else(|(resource, _)| resource);
    bundle.add_resource_overriding(resource);
    bundle
}

impl Language {
    /// Both, in the order in which they are offered.
    pub const ALL: [Self; 2] = [Self::English, Self::Chinese];

    /// BCP 47 tag.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh-CN",
        }
    }

    /// The language's own name for itself.
    pub const fn endonym(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::Chinese => "中文",
        }
    }

    /// By tag; none for anything that [`Language::tag`] does not say.
    pub fn from_tag(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.tag() == tag)
    }

    /// The best match for an `Accept-Language` header (RFC 9110 section 12.5.4); English when nothing matches.
    pub fn accepted(header: &str) -> Self {
        header
            .split(',')
            .filter_map(|range| {
                let mut parts = range.split(';');
                let tag = parts.next()?.trim().to_ascii_lowercase();
                let quality = parts
                    .find_map(|part| part.trim().strip_prefix("q=").map(str::parse::<f32>))
                    .unwrap_or(Ok(1.0))
                    .ok()?;
                let language = match tag.split('-').next()? {
                    "zh" => Self::Chinese,
                    "en" | "*" => Self::English,
                    _ => return None,
                };
                (quality > 0.0).then_some((quality, language))
            })
            // The first of equals wins: browsers list the preferred one first.
            .fold(None, |best: Option<(f32, Self)>, found| match best {
                Some(best) if best.0 >= found.0 => Some(best),
                _ => Some(found),
            })
            .map_or(Self::English, |(_, language)| language)
    }

    /// The sentence for a key.
    pub fn say(self, key: &str, arguments: &[(&'static str, FluentValue<'_>)]) -> String {
        let catalogue: &Catalogue = match self {
            Self::English => &ENGLISH,
            Self::Chinese => &CHINESE,
        };
        let Some(pattern) = catalogue.get_message(key).and_then(|message| message.value()) else {
            tracing::error!(key, language = self.tag(), "a message is missing");
            return key.to_owned();
        };
        let mut named = FluentArgs::with_capacity(arguments.len());
        for (name, value) in arguments {
            named.set(*name, value.clone());
        }
        let mut errors = Vec::new();
        let text = catalogue.format_pattern(pattern, Some(&named), &mut errors).into_owned();
        if !errors.is_empty() {
            tracing::error!(key, language = self.tag(), ?errors, "a message lacks an argument");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Language;
    use fluent_bundle::FluentResource;
    use std::collections::BTreeSet;
    use std::path::Path;

    const EN: &str = include_str!("../messages/en.ftl");
    const ZH: &str = include_str!("../messages/zh-CN.ftl");

    /// Keys with the arguments that each uses.
    fn keys(text: &str) -> BTreeSet<(String, Vec<String>)> {
        let resource = FluentResource::try_new(text.to_owned()).expect("every entry parses");
        assert!(resource.entries().count() > 50);
        let mut found = BTreeSet::new();
        let mut key = String::new();
        let mut arguments = BTreeSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')).chain(["end ="]) {
            if !line.starts_with([' ', '}', '[']) && line.contains(" =") {
                if !key.is_empty() {
                    found.insert((key, std::mem::take(&mut arguments).into_iter().collect()));
                }
                key = line.split(" =").next().unwrap().to_owned();
            }
            for part in line.split('$').skip(1) {
                arguments.insert(part.chars().take_while(char::is_ascii_lowercase).collect::<String>());
            }
        }
        found
    }

    #[test]
    fn both_languages_have_the_same_keys_and_arguments() {
        let (english, chinese) = (keys(EN), keys(ZH));
        assert_eq!(english.difference(&chinese).collect::<Vec<_>>(), Vec::<&(String, Vec<String>)>::new());
        assert_eq!(chinese.difference(&english).collect::<Vec<_>>(), Vec::<&(String, Vec<String>)>::new());
    }

    /// Every text of this crate that may name a key.
    fn sources(folder: &Path, into: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, into);
            } else if path.extension().is_some_and(|end| end == "rs" || end == "html") {
                into.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn every_key_is_used_and_every_used_key_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut text = String::new();
        sources(&root.join("src"), &mut text);
        sources(&root.join("templates"), &mut text);
        let known: BTreeSet<String> = keys(EN).into_iter().map(|(key, _)| key).collect();
        let unused: Vec<_> = known.iter().filter(|key| !text.contains(&format!("\"{key}\""))).collect();
        assert!(unused.is_empty(), "unused: {unused:?}");
        let mut missing = BTreeSet::new();
        for call in [".t(\"", ".say(\"", ".t1(\""] {
            for rest in text.split(call).skip(1) {
                let key = rest.split('"').next().unwrap();
                if !known.contains(key) {
                    missing.insert(key.to_owned());
                }
            }
        }
        assert!(missing.is_empty(), "missing: {missing:?}");
    }

    #[test]
    fn follows_the_browser() {
        for (header, language) in [
            ("", Language::English),
            ("zh-CN,zh;q=0.9,en;q=0.8", Language::Chinese),
            ("en-GB,en;q=0.9,zh;q=0.8", Language::English),
            ("de,zh-TW;q=0.5", Language::Chinese),
            ("en;q=0.1, zh;q=0.2", Language::Chinese),
            ("zh;q=0, en", Language::English),
            ("fr, *;q=0.5", Language::English),
            ("zh;q=x", Language::English),
        ] {
            assert_eq!(Language::accepted(header), language, "{header}");
        }
    }

    #[test]
    fn says_a_sentence_with_arguments() {
        assert_eq!(Language::English.say("duration-seconds", &[("value", "4".into())]), "4 s");
        assert_eq!(Language::Chinese.say("duration-seconds", &[("value", "4".into())]), "4 秒");
        assert_eq!(Language::from_tag("zh-CN"), Some(Language::Chinese));
        assert_eq!(Language::from_tag("zh"), None);
    }
}
