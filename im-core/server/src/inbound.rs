//! What a bound client sends: each stanza is stamped with its sender, checked, and given to who deals with it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use im_proto::stanza::{self, StanzaKind};
use im_proto::xml::{Element, Head};
use im_proto::{Address, Framer, StanzaError, ns};
use im_store::{MessageId, StoreError};

use crate::connection::{Connection, End, Pending};
use crate::core::Core;
use crate::framing::Framing;
use crate::messages::{self, Outgoing};
use crate::resume::Resumable;
use crate::session::{Session, Urgency};
use crate::{iq, presence};

/// What the task of a session keeps of its client's stanzas.
pub struct Inbound {
    /// Shared state.
    pub core: Arc<Core>,
    /// The session.
    pub session: Arc<Session>,
    /// What waits for its turn.
    pub pending: VecDeque<Pending>,
    /// Stanzas received, modulo 2^32.
    pub received: u32,
}

/// A stanza from a client, with what is needed to pass it on.
pub struct Received<'a> {
    /// Its text.
    pub raw: &'a str,
    /// Its head.
    pub head: &'a Head,
    /// Knows the namespaces of the stream.
    pub framer: &'a Framer,
    /// Language of the stream.
    pub lang: Option<&'a str>,
    /// Where it is to go; the sender's own bare address when it says nothing.
    pub to: Option<Address>,
}

impl Received<'_> {
    /// The `type` attribute.
    pub fn kind(&self) -> &str {
        self.head.kind_attr.map_or("", |span| span.str(self.raw))
    }

    /// The `id` attribute as it stands, references replaced.
    pub fn id(&self) -> String {
        stanza::value(self.head.id, self.raw).unwrap_or_default().into_owned()
    }

    /// The stanza as a tree.
    pub fn element(&self) -> Result<Element, End> {
        let default = if self.head.ns.is_some() { "" } else { ns::CLIENT };
        Ok(Element::parse(self.raw.trim_start(), default, self.framer.prefixes())?)
    }
}

impl Inbound {
    /// Notes how many stanzas are dealt with: all before the first that waits.
    pub fn update_handled(&self) {
        let waiting = self.pending.iter().find_map(|p| match p {
            Pending::Commit(.., seq) | Pending::Ready(_, seq) => Some(seq.wrapping_sub(1)),
            Pending::AckRequest => None,
        });
        self.session.handled.store(waiting.unwrap_or(self.received), Ordering::Relaxed);
    }

    /// Answers what waits at the front for nothing any more.
    async fn settle(&mut self) {
        loop {
            match self.pending.front() {
                Some(Pending::AckRequest) => {
                    self.pending.pop_front();
                    self.update_handled();
                    acknowledge(&self.session);
                }
                Some(Pending::Ready(..)) => {
                    if let Some(Pending::Ready(outgoing, _)) = self.pending.pop_front() {
                        messages::deliver(&self.core, &outgoing, None).await;
                    }
                }
                Some(Pending::Commit(..)) => break,
                None => {
                    self.pending = VecDeque::new();
                    break;
                }
            }
        }
        self.update_handled();
    }

    /// True when a message to this account waits for its commit.
    pub fn waits_for(&self, bare: &str) -> bool {
        self.pending.iter().any(|p| match p {
            Pending::Commit(_, outgoing, ..) | Pending::Ready(outgoing, _) => outgoing.to.bare() == bare,
            Pending::AckRequest => false,
        })
    }
}

fn acknowledge(session: &Session) {
    session.push_element(&acknowledgement(session));
}

/// `<a/>`: how many stanzas of the client were handled.
pub fn acknowledgement(session: &Session) -> String {
    format!("<a xmlns='{}' h='{}'/>", ns::SM, session.handled.load(Ordering::Relaxed))
}

/// Goes on after the commit of the first waiting message.
pub async fn committed(state: &mut Inbound, result: Result<MessageId, StoreError>) {
    if let Some(Pending::Commit(_, outgoing, since, _)) = state.pending.pop_front() {
        state.core.metrics.commit_time.observe(since.elapsed());
        match result {
            Ok(id) => {
                if !state.session.quiet {
                    state.core.metrics.messages_stored.add(1);
                }
                messages::deliver(&state.core, &outgoing, Some(id)).await;
            }
            Err(error) => {
                state.core.report("cannot store a message", &error);
                messages::refuse(&state.session, &outgoing, StanzaError::RESOURCE_CONSTRAINT);
            }
        }
    }
    state.settle().await;
}

/// Deals with a message, presence or iq.
///
/// # Errors
/// When the stream must end.
pub async fn stanza(
    state: &mut Inbound,
    raw: String,
    head: Head,
    framer: &Framer,
    lang: Option<&str>,
) -> Result<(), End> {
    state.received = state.received.wrapping_add(1);
    let own = &state.session.address;
    if let Some(from) = stanza::value(head.from, &raw) {
        // RFC 6120 §8.1.2.1
        let from = Address::parse(&from).ok();
        if from.is_none_or(|f| f != *own && f.as_str() != own.bare()) {
            return Err(End::Stream("invalid-from", "from must be the address of this session"));
        }
    }
    let to = match stanza::value(head.to, &raw).map(|to| Address::parse(&to)) {
        Some(Ok(to)) => Some(to),
        None => None,
        Some(Err(_)) => {
            let received = Received { raw: &raw, head: &head, framer, lang, to: None };
            bounce(&state.session, &received, StanzaError::JID_MALFORMED, "");
            state.update_handled();
            return Ok(());
        }
    };
    let received = Received { raw: &raw, head: &head, framer, lang, to };
    match head.kind {
        StanzaKind::Message => {
            if !state.session.quiet {
                state.core.metrics.messages_received.add(1);
            }
            messages::receive(state, &received).await?;
        }
        StanzaKind::Presence => {
            if !state.session.quiet {
                state.core.metrics.presences_received.add(1);
            }
            Box::pin(presence::receive(state, &received)).await?;
        }
        StanzaKind::Iq | StanzaKind::Other => {
            if !state.session.quiet {
                state.core.metrics.iqs_received.add(1);
            }
            Box::pin(iq::receive(state, &received)).await?;
        }
    }
    state.update_handled();
    Ok(())
}

/// Sends an error back to the client, unless the stanza is itself an error, or an answer.
pub fn bounce(session: &Session, received: &Received<'_>, error: StanzaError, extra: &str) {
    if matches!(received.kind(), "error")
        || (received.head.kind == StanzaKind::Iq && received.kind() == "result")
    {
        return;
    }
    let to = received.head.to.map(|to| to.str(received.raw).to_owned());
    let id = received.head.id.map(|_| received.id());
    let text = error_stanza(
        received.head.kind,
        session.address.as_str(),
        to.as_deref(),
        id.as_deref(),
        error,
        extra,
    );
    session.push(&text.into(), None, Urgency::Now);
}

/// Writes an error stanza to `to`; `from` is raw text from an attribute of the stanza it answers.
pub fn error_stanza(
    kind: StanzaKind,
    to: &str,
    from: Option<&str>,
    id: Option<&str>,
    error: StanzaError,
    extra: &str,
) -> String {
    let mut out = format!("<{} type='error'", kind.name());
    if let Some(from) = from {
        stanza::push_attr(&mut out, "from", &im_proto::xml::unescape(from));
    }
    stanza::push_attr(&mut out, "to", to);
    if let Some(id) = id {
        stanza::push_attr(&mut out, "id", id);
    }
    out.push('>');
    error.write(&mut out, extra);
    out.push_str(&format!("</{}>", kind.name()));
    out
}

/// Deals with a top-level element that is no stanza.
///
/// # Errors
/// When the stream must end.
pub fn element(state: &mut Inbound, raw: &str, head: &Head, connection: &Connection) -> Result<(), End> {
    let default = if connection.link.framing == Framing::Stream { ns::CLIENT } else { "" };
    let element = Element::parse(raw.trim_start(), default, connection.framer.prefixes())?;
    let session = &state.session;
    match (element.name.as_str(), element.ns.as_str()) {
        ("r", ns::SM) => {
            if state.pending.is_empty() {
                state.update_handled();
                acknowledge(session);
            } else {
                state.pending.push_back(Pending::AckRequest);
            }
        }
        ("a", ns::SM) => {
            let handled = element.attr("h").and_then(|h| h.parse().ok());
            if session.is_managed() && !handled.is_some_and(|h| session.acknowledge(h, &state.core.store)) {
                return Err(End::Stream("undefined-condition", "h acknowledges what was never sent"));
            }
        }
        ("enable", ns::SM) => {
            let limit = state.core.config.limits.resume_seconds;
            let resume = matches!(element.attr("resume"), Some("true" | "1")) && limit > 0;
            let id = if resume { Resumable::fresh_id() } else { String::new() };
            if session.manage(&id) {
                state.received = 0;
                // What came before is not counted, but what comes after is not dealt with before it.
                for waiting in &mut state.pending {
                    if let Pending::Commit(.., seq) | Pending::Ready(_, seq) = waiting {
                        *seq = 1;
                    }
                }
                if resume {
                    state.core.resumable.insert(&id, session);
                    let max =
                        element.attr("max").and_then(|m| m.parse().ok()).map_or(limit, |m: u64| m.min(limit));
                    session.push_element(&format!(
                        "<enabled xmlns='{}' id='{id}' resume='true' max='{max}'/>",
                        ns::SM
                    ));
                } else {
                    session.push_element(&format!("<enabled xmlns='{}'/>", ns::SM));
                }
            } else {
                session.push_element(&format!(
                    "<failed xmlns='{}'><unexpected-request xmlns='{}'/></failed>",
                    ns::SM,
                    ns::STANZA_ERRORS
                ));
            }
        }
        ("active", ns::CSI) => session.set_inactive(false),
        ("inactive", ns::CSI) => session.set_inactive(true),
        ("close", ns::FRAMING) if connection.link.framing == Framing::Messages => return Err(End::Closed),
        ("error", ns::STREAM) => return Err(End::Closed),
        _ => {
            let _ = head;
            return Err(End::Stream("unsupported-stanza-type", ""));
        }
    }
    Ok(())
}

/// A message of this session that passes on a stanza as it is, for the queue.
pub fn queue_behind(state: &mut Inbound, outgoing: Outgoing) {
    let seq = state.received;
    state.pending.push_back(Pending::Ready(Box::new(outgoing), seq));
}
