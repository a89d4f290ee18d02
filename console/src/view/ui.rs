//! The frame around every page: language, navigation, form token, assets.

use super::assets::Assets;
use super::icons::{self, Icon};
use crate::auth::form;
use crate::i18n::Language;
use maxim_model::Secret;
use std::sync::Arc;

/// A part of the console that has an entry in the navigation. Only what exists is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// The state in one sentence, then figures.
    Overview,
    /// Hosts.
    Hosts,
    /// Components.
    Components,
    /// The administrator's own settings.
    Settings,
    /// None of them (sign-in, errors).
    None,
}

/// An entry of the navigation.
pub struct Entry {
    /// Address.
    pub path: &'static str,
    /// Icon, as markup.
    pub icon: &'static str,
    /// Name.
    pub name: String,
    /// Whether the page is in this section.
    pub current: bool,
}

/// What every template needs.
pub struct Ui {
    /// Language of the page.
    pub language: Language,
    /// Section of the page.
    pub section: Section,
    /// Path and query of the page, to come back to.
    pub here: String,
    /// Who is signed in.
    pub administrator: Option<String>,
    /// Token for forms; none where no form can be sent.
    pub form_token: Option<String>,
    /// Name of the cluster; empty until it is known.
    pub cluster: String,
    /// Whether the page shows figures that refresh.
    pub live: bool,
    /// Assets.
    pub assets: Arc<Assets>,
}

impl Ui {
    /// The sentence for a key.
    pub fn t(&self, key: &str) -> String {
        self.language.say(key, &[])
    }

    /// The sentence for a key with one argument.
    pub fn t1(&self, key: &str, name: &'static str, value: &str) -> String {
        self.language.say(key, &[(name, value.into())])
    }

    /// The token for forms of the holder of a cookie.
    pub fn token_for(cookie: Option<&Secret>) -> Option<String> {
        cookie.map(form::token)
    }

    /// The navigation.
    pub fn navigation(&self) -> Vec<Entry> {
        [
            (Section::Overview, "/", Icon::Overview, self.t("nav-overview")),
            (Section::Hosts, "/hosts", Icon::Hosts, self.t("nav-hosts")),
            (Section::Components, "/components", Icon::Components, self.t("nav-components")),
            (Section::Settings, "/settings", Icon::Settings, self.t("nav-settings")),
        ]
        .into_iter()
        .map(|(section, path, icon, name)| Entry {
            path,
            icon: icons::svg(icon),
            name,
            current: section == self.section,
        })
        .collect()
    }

    /// The other languages.
    pub fn other_languages(&self) -> Vec<Language> {
        Language::ALL.into_iter().filter(|language| *language != self.language).collect()
    }

    /// Icon of signing out, as markup.
    pub const fn sign_out_icon(&self) -> &'static str {
        icons::svg(Icon::SignOut)
    }

    /// Icon of the languages, as markup.
    pub const fn language_icon(&self) -> &'static str {
        icons::svg(Icon::Language)
    }
}
