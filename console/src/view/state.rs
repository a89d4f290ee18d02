//! States as people see them: always a word and an icon, and a colour that carries nothing alone.

use super::icons::{Icon, svg};
use crate::i18n::Language;
use maxim_model::status::Health;

/// A state ready for a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Badge {
    /// Class of the style sheet.
    pub class: &'static str,
    /// The word.
    pub word: String,
    /// The icon, as markup.
    pub icon: &'static str,
}

/// The badge of a state.
pub fn badge(language: Language, health: Health) -> Badge {
    let (class, word, icon) = match health {
        Health::Well => ("well", language.say("state-well", &[]), Icon::Well),
        Health::Attention => ("attention", language.say("state-attention", &[]), Icon::Attention),
        Health::Broken => ("broken", language.say("state-broken", &[]), Icon::Broken),
        Health::Unknown => ("unknown", language.say("state-unknown", &[]), Icon::Unknown),
        Health::Working => ("working", language.say("state-working", &[]), Icon::Working),
    };
    Badge { class, word, icon: svg(icon) }
}

/// The name of a component for people.
pub fn component_name(language: Language, component: &str) -> String {
    match component {
        "im" => language.say("component-im", &[]),
        "console" => language.say("component-console", &[]),
        "mariadb" => "MariaDB".into(),
        "postgresql" => "PostgreSQL".into(),
        "redis" => "Redis".into(),
        other => other.into(),
    }
}
