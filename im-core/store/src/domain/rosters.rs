//! Rosters (RFC 6121 section 2) with the state of subscriptions and the requests that wait for an answer.

use std::fmt;

/// Who sees whose presence (RFC 6121 section 2.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Subscription {
    /// Neither sees the other.
    #[default]
    None,
    /// The owner sees the contact.
    To,
    /// The contact sees the owner.
    From,
    /// Each sees the other.
    Both,
}

impl Subscription {
    /// The attribute's value on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::To => "to",
            Self::From => "from",
            Self::Both => "both",
        }
    }

    /// The subscription of that name; unknown names mean none.
    pub fn from_name(name: &str) -> Self {
        match name {
            "to" => Self::To,
            "from" => Self::From,
            "both" => Self::Both,
            _ => Self::None,
        }
    }

    /// Whether the owner sees the contact's presence.
    pub const fn sees_contact(self) -> bool {
        matches!(self, Self::To | Self::Both)
    }

    /// Whether the contact sees the owner's presence.
    pub const fn seen_by_contact(self) -> bool {
        matches!(self, Self::From | Self::Both)
    }

    /// Put together from the two directions.
    pub const fn from_directions(sees_contact: bool, seen_by_contact: bool) -> Self {
        match (sees_contact, seen_by_contact) {
            (false, false) => Self::None,
            (true, false) => Self::To,
            (false, true) => Self::From,
            (true, true) => Self::Both,
        }
    }
}

/// All that one owner's roster knows about one contact, so that every step of the subscription state machine
/// (RFC 6121 appendix A) is one edit of one item.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RosterItem {
    /// The contact's bare JID.
    pub contact: String,
    /// The name the owner gave.
    pub name: Option<String>,
    /// Groups, without duplicates, in the owner's order.
    pub groups: Vec<String>,
    /// Who sees whom.
    pub subscription: Subscription,
    /// The owner asked to see the contact and waits ("pending out", `ask='subscribe'`).
    pub ask: bool,
    /// The owner approved the contact in advance (RFC 6121 section 3.4).
    pub approved: bool,
    /// The contact asked to see the owner and waits ("pending in"): the request as it came.
    pub pending_in: Option<String>,
    /// Part of the roster that the owner's clients see. Not so for a contact known only by a request.
    pub listed: bool,
}

/// A roster at one version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roster {
    /// Grows by one with each change; 0 when there never was one (RFC 6121 section 2.6).
    pub version: u64,
    /// Every item, unlisted ones included, in order of contact.
    pub items: Vec<RosterItem>,
}

/// What an edit makes of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RosterChange {
    /// Leave it as it is; the version stays.
    Keep,
    /// This is the item from now on. Its `contact` must be the one that was asked for.
    Put(RosterItem),
    /// There is no item from now on.
    Remove,
}

type EditFunction = dyn Fn(Option<&RosterItem>) -> RosterChange + Send + Sync;

/// Decides what becomes of an item, given what it is. It may be run again when the store has to retry, so it
/// must depend on nothing but its argument.
pub struct RosterEdit(Box<EditFunction>);

impl RosterEdit {
    /// An edit by this function.
    pub fn new(edit: impl Fn(Option<&RosterItem>) -> RosterChange + Send + Sync + 'static) -> Self {
        Self(Box::new(edit))
    }

    /// What the edit makes of this item.
    pub fn apply(&self, item: Option<&RosterItem>) -> RosterChange {
        (self.0)(item)
    }
}

impl fmt::Debug for RosterEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RosterEdit")
    }
}

/// What an edit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterOutcome {
    /// The item before.
    pub before: Option<RosterItem>,
    /// The item now.
    pub after: Option<RosterItem>,
    /// The roster's version now.
    pub version: u64,
    /// Whether anything was changed.
    pub changed: bool,
}

domain! {
    /// Rosters. Owners are bare JIDs.
    pub trait Rosters {
        /// The whole roster of `owner`.
        fn roster(&self, owner: &str) -> Roster;
        /// The roster's version alone, to answer a client that already has it.
        fn roster_version(&self, owner: &str) -> u64;
        /// One item of a roster.
        fn roster_item(&self, owner: &str, contact: &str) -> Option<RosterItem>;
        /// Changes one item, atomically: edits of one owner's roster happen one after the other, whichever node
        /// they come from.
        fn edit_roster(&self, owner: &str, contact: &str, edit: RosterEdit) -> RosterOutcome;
    }
}

/// Groups as they are stored: a JSON array, which keeps their order and is only ever read whole.
pub(crate) fn groups_to_text(groups: &[String]) -> String {
    serde_json::Value::from(groups.to_vec()).to_string()
}

/// Groups from what was stored.
pub(crate) fn groups_from_text(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_default()
}
