//! Where stanzas go: to sessions on this node directly, to those on other nodes through [`crate::cluster`].

use std::sync::Arc;

use bytes::Bytes;
use im_proto::Address;
use im_store::MessageId;
use im_store::live;

use crate::core::Core;
use crate::offline;
use crate::session::{Close, Pushed, Session, Urgency};

/// A session, wherever it is.
#[derive(Debug, Clone)]
pub enum Resource {
    /// On this node.
    Here(Arc<Session>),
    /// On another one.
    Elsewhere(live::Session),
}

impl Resource {
    /// Its resource.
    pub fn resource(&self) -> &str {
        match self {
            Self::Here(session) => session.resource(),
            Self::Elsewhere(session) => &session.resource,
        }
    }

    /// Full JID.
    pub fn full(&self) -> String {
        match self {
            Self::Here(session) => session.address.to_string(),
            Self::Elsewhere(session) => format!("{}/{}", session.bare, session.resource),
        }
    }

    /// Priority while it is available.
    pub fn priority(&self) -> Option<i8> {
        match self {
            Self::Here(session) => session.priority(),
            Self::Elsewhere(session) => session.priority,
        }
    }

    /// Wants copies of messages.
    pub fn carbons(&self) -> bool {
        match self {
            Self::Here(session) => session.carbons(),
            Self::Elsewhere(session) => session.carbons,
        }
    }

    /// Its available presence, without `to`.
    pub fn presence(&self) -> Option<Bytes> {
        match self {
            Self::Here(session) => session.presence(),
            Self::Elsewhere(session) => session.presence.clone(),
        }
    }

    /// Gives it a stanza. `id` is its identifier when it waits in the store: it stays there until the client has
    /// it, however this goes. What another node does with it is not known here: it counts as taken.
    pub fn send(&self, core: &Arc<Core>, stanza: &Bytes, id: Option<MessageId>, urgency: Urgency) -> Pushed {
        match self {
            Self::Here(session) => give(core, session, stanza, id, urgency),
            Self::Elsewhere(session) => {
                core.cluster.stanza(core, session, stanza, id, urgency);
                Pushed::Taken
            }
        }
    }
}

/// Gives a stanza to a session on this node, and sees to it that one that waits is handed out.
pub fn give(
    core: &Arc<Core>,
    session: &Arc<Session>,
    stanza: &Bytes,
    id: Option<MessageId>,
    urgency: Urgency,
) -> Pushed {
    let pushed = session.push(stanza, id, urgency);
    match pushed {
        Pushed::Taken | Pushed::Waits { begin: false } => {}
        Pushed::Waits { begin: true } => offline::begin(core, session, None),
        Pushed::Gone => {
            // Too much for a session without connection: nobody else would end it before its time.
            if session.closing() == Some(Close::Overflow) && !session.is_attached() {
                core.close_session(session, Close::Overflow);
            }
        }
    }
    pushed
}

/// All sessions of an account, available or not.
pub fn sessions(core: &Core, bare: &str) -> Vec<Resource> {
    let here = core.users.find(bare);
    let mut found: Vec<Resource> = here
        .map(|user| user.with_sessions(|s| s.iter().cloned().map(Resource::Here).collect()))
        .unwrap_or_default();
    if !core.live.is_single_node() {
        let node = core.live.node();
        let others = core.live.sessions(bare).into_iter().filter(|s| s.node != *node);
        found.extend(others.map(Resource::Elsewhere));
    }
    found
}

/// The session with exactly this address.
pub fn session(core: &Core, address: &Address) -> Option<Resource> {
    let resource = address.resource()?;
    if let Some(user) = core.users.find(address.bare()) {
        let found = user.with_sessions(|s| s.iter().find(|s| s.resource() == resource).cloned());
        if let Some(session) = found {
            return Some(Resource::Here(session));
        }
    }
    if core.live.is_single_node() {
        return None;
    }
    let mut others = core.live.sessions(address.bare()).into_iter();
    others.find(|s| &*s.resource == resource && s.node != *core.live.node()).map(Resource::Elsewhere)
}
