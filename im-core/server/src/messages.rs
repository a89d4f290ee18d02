//! Messages between accounts of the served domain (RFC 6121 §5 and §8.5), with archive (XEP-0313), offline
//! storage (XEP-0160), carbons (XEP-0280), and the server's identifiers (XEP-0359).
//!
//! Steps for each message:
//! 1. checks: domain, block lists (XEP-0191), canaries;
//! 2. the start tag is written anew with the sender's full address; forged stanza identifiers are dropped;
//! 3. when it is worth keeping it is handed to the store, where it awaits delivery from its commit on, and everything
//!    further waits for that commit;
//! 4. [`deliver`]: to the right sessions, with carbons for the others. Until a client of the receiver has it, it stays
//!    in the store ([`crate::offline`]).
//!
//! Nothing is parsed into a tree on this path.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use im_proto::stanza::{self, Rewrite, StanzaKind, insert_before_end};
use im_proto::xml::scan::{Attr, Token, scan};
use im_proto::xml::{Head, Limits};
use im_proto::{Address, StanzaError, ns};
use im_store::{Archive as _, ArchiveCopy, MessageId, NewMessage};

use crate::connection::{End, Pending};
use crate::core::Core;
use crate::inbound::{Inbound, Received, bounce, error_stanza};
use crate::routing::{self, Resource};
use crate::session::{Pushed, Session, Urgency};
use crate::users::User;

/// What a message is, by its `type` (RFC 6121 §5.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One-to-one conversation.
    Chat,
    /// No type, or an unknown one.
    Normal,
    /// An alert, never kept.
    Headline,
    /// Only within groups.
    Groupchat,
    /// An answer to a message that could not be dealt with.
    Error,
    /// Not a message: an iq or presence that waits behind one.
    Other(StanzaKind),
}

/// A stanza on its way.
#[derive(Debug)]
pub struct Outgoing {
    /// The stanza with its new start tag.
    pub stanza: Bytes,
    /// Where its end tag begins.
    pub end: usize,
    /// The sender's full address.
    pub from: Address,
    /// Where it goes.
    pub to: Address,
    /// What it is.
    pub kind: Kind,
    /// Identifier the client gave, for errors.
    pub id: Option<String>,
    /// The sender's token, so that it gets no copy of its own message.
    pub sender: u64,
    /// May be copied to other sessions of both sides.
    pub carbons: bool,
    /// It is kept in the receiver's archive.
    pub archived: bool,
    /// It is kept in the sender's archive.
    pub archived_by_sender: bool,
    /// It waits in the store until a client of the receiver has it.
    pub storable: bool,
    /// Between canaries: counted nowhere.
    pub quiet: bool,
}

/// What the content of a message says about how to treat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Content {
    body: bool,
    /// Worth keeping though it has no body: receipts, markers, corrections, encrypted content.
    notable: bool,
    no_store: bool,
    no_copy: bool,
    store: bool,
}

const NOTABLE: &[(&str, &str)] = &[
    ("encrypted", "eu.siacs.conversations.axolotl"),
    ("encrypted", "urn:xmpp:omemo:2"),
    ("openpgp", "urn:xmpp:openpgp:0"),
    ("received", ns::RECEIPTS),
    ("received", "urn:xmpp:chat-markers:0"),
    ("displayed", "urn:xmpp:chat-markers:0"),
    ("acknowledged", "urn:xmpp:chat-markers:0"),
    ("reactions", "urn:xmpp:reactions:0"),
    ("retract", "urn:xmpp:message-retract:1"),
    ("apply-to", "urn:xmpp:fasten:0"),
    ("propose", "urn:xmpp:jingle-message:0"),
    ("accept", "urn:xmpp:jingle-message:0"),
    ("reject", "urn:xmpp:jingle-message:0"),
    ("retract", "urn:xmpp:jingle-message:0"),
    ("proceed", "urn:xmpp:jingle-message:0"),
    ("finish", "urn:xmpp:jingle-message:0"),
    ("x", "jabber:x:conference"),
    ("invite", "urn:xmpp:call-invites:0"),
];

/// Reads the direct children; returns also those that are not to be passed on.
fn content(raw: &str, head: &Head, domain: &str) -> (Content, Vec<usize>) {
    let mut content = Content::default();
    let mut without = Vec::new();
    for (index, child) in head.children.iter().enumerate() {
        let name = child.name.str(raw);
        match (name, head.child_ns(child, raw)) {
            ("body", ns::CLIENT) => content.body = true,
            ("no-store" | "no-permanent-store" | "no-storage" | "no-permanent-storage", ns::HINTS) => {
                content.no_store = true;
            }
            ("no-copy", ns::HINTS) => content.no_copy = true,
            ("store", ns::HINTS) => content.store = true,
            ("private", ns::CARBONS) => {
                content.no_copy = true;
                without.push(index);
            }
            // Only this server speaks for addresses on its domain (XEP-0359 §5).
            ("stanza-id", ns::STANZA_ID) if is_by(child.tag.str(raw), domain) => without.push(index),
            (name, ns) if NOTABLE.contains(&(name, ns)) => content.notable = true,
            _ => {}
        }
    }
    (content, without)
}

/// True when a start tag's `by` is on this domain (or cannot be read, which is not passed on either).
fn is_by(tag: &str, domain: &str) -> bool {
    // Only the attribute itself counts, not what looks like one inside another's value or name.
    let mut attributes: Vec<Attr> = Vec::new();
    let Ok(Some(Token::Open { .. })) = scan(tag.as_bytes(), 0, &Limits::default(), &mut attributes) else {
        return true;
    };
    let by = attributes.iter().find(|attribute| attribute.name.str(tag) == "by");
    by.and_then(|by| Address::parse(&im_proto::xml::unescape(by.value.str(tag))).ok())
        .is_none_or(|by| by.domain() == domain)
}

fn kind_of(attribute: &str) -> Kind {
    match attribute {
        "chat" => Kind::Chat,
        "headline" => Kind::Headline,
        "groupchat" => Kind::Groupchat,
        "error" => Kind::Error,
        _ => Kind::Normal,
    }
}

/// Deals with a message from a client.
///
/// # Errors
/// When the stream must end.
pub async fn receive(state: &mut Inbound, received: &Received<'_>) -> Result<(), End> {
    let core = Arc::clone(&state.core);
    let session = Arc::clone(&state.session);
    let to = received.to.clone().unwrap_or_else(|| session.address.to_bare());
    if !core.is_local(&to) {
        bounce(&session, received, StanzaError::REMOTE_SERVER_NOT_FOUND, "");
        return Ok(());
    }
    if to.local().is_none() {
        // To the server itself: nothing listens there.
        bounce(&session, received, StanzaError::SERVICE_UNAVAILABLE, "");
        return Ok(());
    }
    let peer = core.users.get(&to);
    let (ours, theirs) = match tokio::try_join!(session.user.profile(&core.store), peer.profile(&core.store))
    {
        Ok(profiles) => profiles,
        Err(error) => {
            core.report("cannot read an account", &error);
            bounce(&session, received, StanzaError::RESOURCE_CONSTRAINT, "");
            return Ok(());
        }
    };
    if ours.blocks(&to) {
        let blocked = format!("<blocked xmlns='{}'/>", ns::BLOCKING_ERRORS);
        bounce(&session, received, StanzaError::NOT_ACCEPTABLE, &blocked);
        return Ok(());
    }
    if !theirs.exists || theirs.blocks(&session.address) || ours.canary != theirs.canary {
        bounce(&session, received, StanzaError::SERVICE_UNAVAILABLE, "");
        return Ok(());
    }
    let kind = kind_of(received.kind());
    if kind == Kind::Groupchat && to.resource().is_none() {
        bounce(&session, received, StanzaError::SERVICE_UNAVAILABLE, "");
        return Ok(());
    }

    let (content, without) = content(received.raw, received.head, core.domain.as_str());
    let rewrite = Rewrite {
        from: Some(session.address.as_str()),
        to: Some(to.as_str()),
        lang: received.lang,
        without: &without,
    };
    let (text, end) = stanza::rewrite(received.raw, received.head, received.framer, &rewrite);
    let talk = matches!(kind, Kind::Chat | Kind::Normal);
    let storable = talk && !content.no_store && (content.body || content.notable || content.store);
    let own = to.bare() == session.address.bare();
    let (mut archived, mut archived_by_sender) = (false, false);
    if storable && core.config.archive.enabled {
        let decided = async {
            let receiver = peer.archives(&core.store, &theirs, &session.address).await?;
            let sender = session.user.archives(&core.store, &ours, &to).await?;
            Ok::<_, im_store::StoreError>((receiver, sender && !own))
        };
        (archived, archived_by_sender) = decided.await.unwrap_or((true, !own));
    }
    let outgoing = Outgoing {
        stanza: Bytes::from(text),
        end,
        from: session.address.clone(),
        to,
        kind,
        id: received.head.id.map(|_| received.id()),
        sender: session.token,
        carbons: !content.no_copy && (kind == Kind::Chat || (talk && (content.body || content.notable))),
        archived,
        archived_by_sender,
        storable,
        quiet: session.quiet,
    };
    if storable {
        store(state, outgoing, &peer).await;
    } else if state.waits_for(outgoing.to.bare()) {
        crate::inbound::queue_behind(state, outgoing);
    } else {
        deliver(&core, &outgoing, None).await;
    }
    Ok(())
}

/// Hands a message to the store and queues it up for its commit.
async fn store(state: &mut Inbound, outgoing: Outgoing, peer: &User) {
    let receiver = peer.bare();
    let sender = outgoing.from.bare();
    let mut copies = Vec::with_capacity(2);
    copies.push(ArchiveCopy {
        owner: receiver.to_owned(),
        peer: sender.to_owned(),
        archive: outgoing.archived,
        offline: true,
    });
    if outgoing.archived_by_sender {
        copies.push(ArchiveCopy {
            owner: sender.to_owned(),
            peer: receiver.to_owned(),
            archive: true,
            offline: false,
        });
    }
    let message = NewMessage { stanza: outgoing.stanza.clone(), copies };
    let since = Instant::now();
    match state.core.store.append(message).await {
        Ok(ack) => {
            state.pending.push_back(Pending::Commit(ack, Box::new(outgoing), since, state.received));
        }
        Err(error) => {
            state.core.report("cannot store a message", &error);
            refuse(&state.session, &outgoing, StanzaError::RESOURCE_CONSTRAINT);
        }
    }
}

/// Tells the sender that a message could not be dealt with.
pub fn refuse(session: &Session, outgoing: &Outgoing, error: StanzaError) {
    if outgoing.kind != Kind::Error {
        let text = error_stanza(
            StanzaKind::Message,
            session.address.as_str(),
            Some(&im_proto::xml::escape(outgoing.to.as_str())),
            outgoing.id.as_deref(),
            error,
            "",
        );
        session.push(&text.into(), None, Urgency::Now);
    }
}

/// The message with the identifier that `owner`'s archive gave it.
fn with_id(outgoing: &Outgoing, archived: bool, owner: &str, id: Option<MessageId>) -> Bytes {
    match id.filter(|_| archived) {
        Some(id) => {
            let element = format!(
                "<stanza-id xmlns='{}' by='{}' id='{id}'/>",
                ns::STANZA_ID,
                im_proto::xml::escape(owner)
            );
            // The stanza was made from checked text.
            let text = std::str::from_utf8(&outgoing.stanza).unwrap_or_default();
            Bytes::from(insert_before_end(text, outgoing.end, &element))
        }
        None => outgoing.stanza.clone(),
    }
}

/// Sends a stanza to the sessions that are to have it. `id` is its identifier when it is stored.
pub async fn deliver(core: &Arc<Core>, outgoing: &Outgoing, id: Option<MessageId>) {
    let bare = outgoing.to.bare();
    let all = routing::sessions(core, bare);
    if let Kind::Other(kind) = outgoing.kind {
        crate::iq::deliver(core, outgoing, kind, &all);
        return;
    }
    let chosen = choose(outgoing, &all);
    let (mut delivered, mut taken_care_of) = (0, false);
    if !chosen.is_empty() {
        let stanza = with_id(outgoing, outgoing.archived, bare, id);
        for &index in &chosen {
            let pushed = all[index].send(core, &stanza, id, Urgency::Now);
            delivered += u64::from(pushed == Pushed::Taken);
            taken_care_of |= !pushed.is_gone();
        }
        if !outgoing.quiet {
            core.metrics.messages_delivered.add(delivered);
        }
        if outgoing.carbons {
            carbons_for_receiver(core, outgoing, &all, &chosen, &stanza);
        }
    }
    if outgoing.carbons {
        carbons_for_sender(core, outgoing, id);
    }
    if taken_care_of {
        return;
    }
    if id.is_none() {
        undelivered(core, outgoing);
    } else if !crate::offline::wake(core, bare, None).await {
        // It waits in the store. Whoever came just now was told.
        core.metrics.messages_offline.add(u64::from(!outgoing.quiet));
    }
}

/// Indices of the sessions that get a message (RFC 6121 §8.5).
fn choose(outgoing: &Outgoing, all: &[Resource]) -> Vec<usize> {
    if let Some(resource) = outgoing.to.resource() {
        if let Some(index) = all.iter().position(|r| r.resource() == resource) {
            return vec![index];
        }
        let like_bare = outgoing.kind == Kind::Chat || (outgoing.kind == Kind::Normal && outgoing.storable);
        if !like_bare {
            return Vec::new();
        }
    }
    let able = all.iter().enumerate().filter_map(|(i, r)| r.priority().filter(|p| *p >= 0).map(|p| (i, p)));
    match outgoing.kind {
        Kind::Headline => able.map(|(i, _)| i).collect(),
        Kind::Chat | Kind::Normal => {
            let best = able.clone().map(|(_, p)| p).max();
            able.filter(|(_, p)| Some(*p) == best).map(|(i, _)| i).collect()
        }
        Kind::Groupchat | Kind::Error | Kind::Other(_) => Vec::new(),
    }
}

/// Answers for a message that nobody took and nobody keeps.
fn undelivered(core: &Arc<Core>, outgoing: &Outgoing) {
    let answers = match outgoing.kind {
        Kind::Groupchat => true,
        Kind::Normal | Kind::Headline => outgoing.to.resource().is_some(),
        Kind::Chat | Kind::Error | Kind::Other(_) => false,
    };
    if answers && let Some(Resource::Here(session)) = routing::session(core, &outgoing.from) {
        refuse(&session, outgoing, StanzaError::SERVICE_UNAVAILABLE);
    }
}

/// Wraps a message into a carbon (XEP-0280 §7, XEP-0297).
fn carbon(direction: &str, owner: &str, to: &str, stanza: &Bytes) -> Bytes {
    let inner = std::str::from_utf8(stanza).unwrap_or_default();
    let inner = inner.strip_prefix("<message").unwrap_or(inner);
    let kind = if inner.contains(" type='chat'") { " type='chat'" } else { "" };
    let mut out = String::with_capacity(inner.len() + 320);
    out.push_str("<message");
    stanza::push_attr(&mut out, "from", owner);
    stanza::push_attr(&mut out, "to", to);
    out.push_str(kind);
    out.push_str(&format!(
        "><{direction} xmlns='{}'><forwarded xmlns='{}'><message xmlns='{}'",
        ns::CARBONS,
        ns::FORWARD,
        ns::CLIENT
    ));
    out.push_str(inner);
    out.push_str(&format!("</forwarded></{direction}></message>"));
    Bytes::from(out)
}

fn carbons_for_receiver(
    core: &Arc<Core>,
    outgoing: &Outgoing,
    all: &[Resource],
    chosen: &[usize],
    stanza: &Bytes,
) {
    for (index, resource) in all.iter().enumerate() {
        if resource.carbons() && !chosen.contains(&index) {
            // A message to oneself comes back to the sender as it is, if at all.
            if matches!(resource, Resource::Here(s) if s.token == outgoing.sender) {
                continue;
            }
            let copy = carbon("received", outgoing.to.bare(), &resource.full(), stanza);
            resource.send(core, &copy, None, Urgency::Now);
        }
    }
}

fn carbons_for_sender(core: &Arc<Core>, outgoing: &Outgoing, id: Option<MessageId>) {
    let bare = outgoing.from.bare();
    if bare == outgoing.to.bare() {
        return;
    }
    let others = |r: &Resource| r.carbons() && outgoing.from.resource() != Some(r.resource());
    if core.live.is_single_node() {
        // The usual case costs no allocation.
        let any = core.users.find(bare).is_some_and(|u| u.with_sessions(|s| s.len() > 1));
        if !any {
            return;
        }
    }
    let all: Vec<Resource> = routing::sessions(core, bare).into_iter().filter(others).collect();
    if all.is_empty() {
        return;
    }
    let stanza = with_id(outgoing, outgoing.archived_by_sender, bare, id);
    for resource in all {
        let copy = carbon("sent", bare, &resource.full(), &stanza);
        resource.send(core, &copy, None, Urgency::Now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_identifiers_are_recognised() {
        assert!(is_by("<stanza-id xmlns='urn:xmpp:sid:0' by='a@x' id='1'/>", "x"));
        assert!(is_by("<stanza-id by=\"X\" id='1'/>", "x"));
        assert!(is_by("<stanza-id id='1'/>", "x"));
        assert!(is_by("<stanza-id id='by=&quot;a@other&quot;' by='victim@x'/>", "x"));
        assert!(is_by("<stanza-id id='by=\"a@other\"' by='victim@x'/>", "x"));
        assert!(is_by("<stanza-id x-by='a@other' by = 'victim@x' id='1'/>", "x"));
        assert!(is_by("<stanza-id p:by='a@other' id='1'/>", "x"));
        assert!(!is_by("<stanza-id by='room@muc.y' id='1'/>", "x"));
        assert!(!is_by("<stanza-id id='by=victim@x' by='room@muc.y'>", "x"));
    }

    #[test]
    fn a_carbon_holds_the_whole_message() {
        let stanza =
            Bytes::from_static(b"<message from='a@x/r' to='b@x' type='chat'><body>hi</body></message>");
        let copy = carbon("sent", "a@x", "a@x/s", &stanza);
        assert_eq!(
            std::str::from_utf8(&copy).unwrap(),
            "<message from='a@x' to='a@x/s' type='chat'><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
             <message xmlns='jabber:client' from='a@x/r' to='b@x' type='chat'><body>hi</body></message></forwarded></sent></message>"
        );
    }
}
