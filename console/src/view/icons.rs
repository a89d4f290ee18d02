//! Icons, inlined into pages so that they take the colour of their text (Lucide, ISC; see `assets/icons/LICENSE`).
//!
//! Every icon stands beside a word that says the same, so all are hidden from screen readers.

/// The SVG element of an icon.
pub const fn svg(icon: Icon) -> &'static str {
    match icon {
        Icon::Overview => include_str!("../../assets/icons/house.svg"),
        Icon::Hosts => include_str!("../../assets/icons/server.svg"),
        Icon::Components => include_str!("../../assets/icons/boxes.svg"),
        Icon::Settings => include_str!("../../assets/icons/settings.svg"),
        Icon::Well => include_str!("../../assets/icons/circle-check.svg"),
        Icon::Attention => include_str!("../../assets/icons/triangle-alert.svg"),
        Icon::Broken => include_str!("../../assets/icons/octagon-x.svg"),
        Icon::Unknown => include_str!("../../assets/icons/circle-question-mark.svg"),
        Icon::Working => include_str!("../../assets/icons/loader.svg"),
        Icon::SignOut => include_str!("../../assets/icons/log-out.svg"),
        Icon::Language => include_str!("../../assets/icons/languages.svg"),
    }
}

/// What an icon stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icon {
    /// Navigation: overview.
    Overview,
    /// Navigation: hosts.
    Hosts,
    /// Navigation: components.
    Components,
    /// Navigation: settings.
    Settings,
    /// State: well.
    Well,
    /// State: wants attention.
    Attention,
    /// State: broken.
    Broken,
    /// State: unknown.
    Unknown,
    /// State: working.
    Working,
    /// Sign out.
    SignOut,
    /// Choose the language.
    Language,
}

#[cfg(test)]
mod tests {
    use super::{Icon, svg};

    #[test]
    fn every_icon_is_inert_and_hidden_from_screen_readers() {
        for icon in [Icon::Overview, Icon::Hosts, Icon::Well, Icon::Broken, Icon::Language, Icon::SignOut] {
            let text = svg(icon);
            assert!(text.starts_with("<svg ") && text.contains("aria-hidden=\"true\""), "{text}");
            assert!(!text.contains("style") && !text.contains("script") && !text.contains(" on"), "{text}");
        }
    }
}
