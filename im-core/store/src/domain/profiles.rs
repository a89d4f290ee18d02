//! What an account keeps beside its roster: vCard, private XML, block list, archive preferences, last activity.

/// What is archived when no rule names the peer (XEP-0441).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DefaultPolicy {
    /// Everything.
    #[default]
    Always,
    /// Nothing.
    Never,
    /// What is exchanged with contacts of the roster.
    Roster,
}

impl DefaultPolicy {
    /// The value on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Never => "never",
            Self::Roster => "roster",
        }
    }

    /// The policy of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "always" => Some(Self::Always),
            "never" => Some(Self::Never),
            "roster" => Some(Self::Roster),
            _ => None,
        }
    }
}

/// What a rule says of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveRule {
    /// Archive.
    Always,
    /// Do not archive.
    Never,
}

/// Preferences of an archive (XEP-0441).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArchivePreferences {
    /// Without a rule.
    pub default: DefaultPolicy,
    /// JIDs whose messages are archived in any case.
    pub always: Vec<String>,
    /// JIDs whose messages are never archived.
    pub never: Vec<String>,
}

impl ArchiveRule {
    /// The name under which the rule is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

impl ArchivePreferences {
    /// Whether a message exchanged with this peer is archived. A rule for the full JID goes before one for the
    /// bare JID; `in_roster` says whether the peer is a contact.
    pub fn archives(&self, peer_full: &str, peer_bare: &str, in_roster: bool) -> bool {
        for peer in [peer_full, peer_bare] {
            if self.always.iter().any(|jid| jid == peer) {
                return true;
            }
            if self.never.iter().any(|jid| jid == peer) {
                return false;
            }
        }
        match self.default {
            DefaultPolicy::Always => true,
            DefaultPolicy::Never => false,
            DefaultPolicy::Roster => in_roster,
        }
    }

    pub(crate) fn from_rows(default: Option<&str>, rules: Vec<(String, String)>) -> Self {
        let (always, never) = rules.into_iter().partition::<Vec<_>, _>(|(_, rule)| rule == "always");
        let peers = |rules: Vec<(String, String)>| rules.into_iter().map(|(peer, _)| peer).collect();
        Self {
            default: default.and_then(DefaultPolicy::from_name).unwrap_or_default(),
            always: peers(always),
            never: peers(never),
        }
    }

    pub(crate) fn rules(&self) -> Vec<(String, ArchiveRule)> {
        let rules =
            |peers: &[String], rule| peers.iter().map(move |peer| (peer.clone(), rule)).collect::<Vec<_>>();
        let mut all = rules(&self.always, ArchiveRule::Always);
        all.extend(rules(&self.never, ArchiveRule::Never));
        all
    }
}

/// When an account was last online (XEP-0012).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastActivity {
    /// When its last session ended, in milliseconds since 1970-01-01 UTC.
    pub at: i64,
    /// The status text of its last unavailable presence.
    pub status: String,
}

domain! {
    /// Profiles. Owners are bare JIDs.
    pub trait Profiles {
        /// The vCard (XEP-0054) as XML.
        fn vcard(&self, owner: &str) -> Option<String>;
        /// Replaces the vCard.
        fn set_vcard(&self, owner: &str, xml: &str) -> ();
        /// What is stored under an element's name and namespace (XEP-0049), as XML.
        fn private_xml(&self, owner: &str, element: &str, namespace: &str) -> Option<String>;
        /// How many elements are stored.
        fn private_xml_count(&self, owner: &str) -> u64;
        /// Stores an element, replacing the one of the same name and namespace.
        fn set_private_xml(&self, owner: &str, element: &str, namespace: &str, xml: &str) -> ();
        /// The block list (XEP-0191), in order.
        fn blocked(&self, owner: &str) -> Vec<String>;
        /// Adds to the block list; those already on it stay.
        fn block(&self, owner: &str, addresses: &[String]) -> ();
        /// Takes off the block list; an empty list takes off everything.
        fn unblock(&self, owner: &str, addresses: &[String]) -> ();
        /// Archive preferences; the defaults when none were set.
        fn archive_preferences(&self, owner: &str) -> ArchivePreferences;
        /// Replaces the archive preferences.
        fn set_archive_preferences(&self, owner: &str, preferences: &ArchivePreferences) -> ();
        /// When the account was last online.
        fn last_activity(&self, owner: &str) -> Option<LastActivity>;
        /// Notes that the account went offline.
        fn set_last_activity(&self, owner: &str, activity: &LastActivity) -> ();
    }
}
