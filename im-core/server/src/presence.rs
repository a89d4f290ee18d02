//! Presence (RFC 6121 §4): who is there, told to those who may know, and the end of sessions.
//!
//! A session's presence is kept with the session as the server stamped it, so that a probe is answered from
//! memory. Contacts come from the account's roster. Subscription requests are in [`crate::subscriptions`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use im_proto::stanza::{self, Rewrite, StanzaKind};
use im_proto::{Address, StanzaError, ns};
use im_store::{LastActivity, Offline as _, Profiles as _, Rosters as _};

use crate::connection::End;
use crate::core::Core;
use crate::inbound::{Inbound, Received, bounce, queue_behind};
use crate::messages::{Kind, Outgoing};
use crate::routing::{self, Resource};
use crate::session::{Close, Session, Urgency};
use crate::{binding, offline, subscriptions};

/// Deals with presence from a client.
///
/// # Errors
/// When the stream must end.
pub async fn receive(state: &mut Inbound, received: &Received<'_>) -> Result<(), End> {
    let kind = received.kind();
    match kind {
        "subscribe" | "subscribed" | "unsubscribe" | "unsubscribed" => {
            let Some(to) = received.to.as_ref().map(Address::to_bare) else {
                bounce(&state.session, received, StanzaError::BAD_REQUEST, "");
                return Ok(());
            };
            if !state.core.is_local(&to) || to.local().is_none() {
                bounce(&state.session, received, StanzaError::REMOTE_SERVER_NOT_FOUND, "");
                return Ok(());
            }
            let (stanza, _) = stamped(state, received, Some(to.as_str()), true);
            if let Err(error) = subscriptions::outbound(&state.core, &state.session, &to, kind, &stanza).await
            {
                bounce(&state.session, received, error, "");
            }
        }
        "" | "unavailable" => match received.to.clone() {
            Some(to) => directed(state, received, to).await,
            None => broadcast(state, received).await,
        },
        "probe" => {
            if let Some(to) = received.to.clone().filter(|to| state.core.is_local(to)) {
                probe(&state.core, &state.session, &to.to_bare()).await;
            }
        }
        "error" => {
            if let Some(to) = received.to.clone().filter(|to| to.resource().is_some()) {
                directed(state, received, to).await;
            }
        }
        _ => bounce(&state.session, received, StanzaError::BAD_REQUEST, ""),
    }
    Ok(())
}

/// The stanza with the sender's address.
fn stamped(state: &Inbound, received: &Received<'_>, to: Option<&str>, bare: bool) -> (String, usize) {
    let own = &state.session.address;
    let from = if bare { own.bare() } else { own.as_str() };
    let rewrite = Rewrite { from: Some(from), to, lang: received.lang, without: &[] };
    stanza::rewrite(received.raw, received.head, received.framer, &rewrite)
}

/// Directed presence (RFC 6121 §4.6).
async fn directed(state: &mut Inbound, received: &Received<'_>, to: Address) {
    if !state.core.is_local(&to) {
        bounce(&state.session, received, StanzaError::REMOTE_SERVER_NOT_FOUND, "");
        return;
    }
    if to.local().is_none() {
        return;
    }
    if received.kind() != "error" {
        state.session.note_directed(&to, received.kind().is_empty());
    }
    let (text, end) = stamped(state, received, Some(to.as_str()), false);
    let outgoing = Outgoing {
        stanza: Bytes::from(text),
        end,
        from: state.session.address.clone(),
        to,
        kind: Kind::Other(StanzaKind::Presence),
        id: None,
        sender: state.session.token,
        carbons: false,
        archived: false,
        archived_by_sender: false,
        storable: false,
        quiet: state.session.quiet,
    };
    if blocked_between(&state.core, &outgoing.from, &outgoing.to).await {
        return;
    }
    if state.waits_for(outgoing.to.bare()) {
        queue_behind(state, outgoing);
    } else {
        let all = routing::sessions(&state.core, outgoing.to.bare());
        crate::iq::deliver(&state.core, &outgoing, StanzaKind::Presence, &all);
    }
}

/// True when either side blocks the other, when only one is a canary, or when that cannot be found out.
async fn blocked_between(core: &Core, from: &Address, to: &Address) -> bool {
    let (sender, receiver) = (core.users.get(from), core.users.get(to));
    match tokio::try_join!(sender.profile(&core.store), receiver.profile(&core.store)) {
        Ok((ours, theirs)) => ours.blocks(to) || theirs.blocks(from) || ours.canary != theirs.canary,
        Err(error) => {
            core.report("cannot read who blocks whom", &error);
            true
        }
    }
}

/// A presence stanza without `to`, given one. Stanzas are kept without, because every receiver gets its own.
pub fn addressed(presence: &Bytes, to: &str) -> Bytes {
    let text = std::str::from_utf8(presence).unwrap_or_default();
    let rest = text.strip_prefix("<presence").unwrap_or_default();
    let mut out = String::with_capacity(text.len() + to.len() + 8);
    out.push_str("<presence");
    stanza::push_attr(&mut out, "to", to);
    out.push_str(rest);
    Bytes::from(out)
}

/// `<presence type='unavailable'/>` from this session, without `to`.
pub fn unavailable_from(full: &str) -> Bytes {
    let mut out = String::from("<presence type='unavailable'");
    stanza::push_attr(&mut out, "from", full);
    out.push_str("/>");
    Bytes::from(out)
}

fn priority_of(received: &Received<'_>) -> i8 {
    let Some(child) = received.head.child(received.raw, "priority", ns::CLIENT) else { return 0 };
    let whole = child.whole.str(received.raw);
    let text = whole.split_once('>').map_or("", |(_, rest)| rest);
    let text = text.split('<').next().unwrap_or_default().trim();
    text.parse::<i32>().unwrap_or(0).clamp(-128, 127) as i8
}

/// Presence to everybody who may know (RFC 6121 §4.2, §4.4, §4.5).
async fn broadcast(state: &mut Inbound, received: &Received<'_>) {
    let core = Arc::clone(&state.core);
    let session = Arc::clone(&state.session);
    let (text, _) = stamped(state, received, None, false);
    let presence = Bytes::from(text);
    if received.kind() == "unavailable" {
        if session.set_presence(None).is_some() {
            binding::publish(&core, &session, false).await;
            tell_all(&core, &session, &presence, true).await;
            leave_directed(&core, &session, &presence);
        }
        note_last_activity(&core, &session, received).await;
        return;
    }
    let priority = priority_of(received);
    let begins = priority >= 0 && session.priority().is_none_or(|before| before < 0);
    // Before it is available: what waits comes before what is sent to it from then on.
    let turn = begins.then(|| offline::turn(&session)).flatten();
    let before = session.set_presence(Some((presence.clone(), priority)));
    // Whoever had the turn a moment ago did not find this session when it ended, perhaps.
    let turn = turn.or_else(|| begins.then(|| offline::turn(&session)).flatten());
    binding::publish(&core, &session, false).await;
    tell_all(&core, &session, &presence, false).await;
    if before.is_none() {
        greet(&core, &session).await;
    }
    if turn.is_some() {
        offline::begin(&core, &session, turn);
    }
}

/// Tells contacts and the account's own sessions.
async fn tell_all(core: &Arc<Core>, session: &Arc<Session>, presence: &Bytes, also_self: bool) {
    let contacts = match session.user.contacts(&core.store).await {
        Ok(contacts) => contacts,
        Err(error) => {
            core.report("cannot read a roster", &error);
            Arc::from([])
        }
    };
    let blocks = match session.user.profile(&core.store).await {
        Ok(profile) => Some(profile),
        Err(error) => {
            // Its own sessions are told all the same.
            core.report("cannot read whom an account blocks", &error);
            None
        }
    };
    for contact in contacts.iter().filter(|c| c.seen_by_contact) {
        if blocks.as_ref().is_none_or(|p| p.blocks(&contact.address)) {
            continue;
        }
        let mut stanza = None;
        for resource in routing::sessions(core, contact.address.as_str()) {
            if resource.priority().is_some() {
                let stanza = stanza.get_or_insert_with(|| addressed(presence, contact.address.as_str()));
                resource.send(core, stanza, None, Urgency::Later);
            }
        }
    }
    // Its own sessions, this one included: clients wait for the echo (RFC 6121 §4.2.2).
    for resource in routing::sessions(core, session.address.bare()) {
        let this = matches!(&resource, Resource::Here(s) if s.token == session.token);
        if this || resource.priority().is_some() {
            let urgency = if this { Urgency::Now } else { Urgency::Later };
            if !this || also_self || session.priority().is_some() {
                resource.send(core, &addressed(presence, &resource.full()), None, urgency);
            }
        }
    }
}

/// What a session gets when it becomes available: presence of others, and requests that wait.
async fn greet(core: &Arc<Core>, session: &Arc<Session>) {
    for resource in routing::sessions(core, session.address.bare()) {
        let this = matches!(&resource, Resource::Here(s) if s.token == session.token);
        if let Some(presence) = resource.presence().filter(|_| !this) {
            session.push(&addressed(&presence, session.address.as_str()), None, Urgency::Later);
        }
    }
    let roster = match session.user.contacts(&core.store).await {
        Ok(contacts) => contacts,
        Err(error) => {
            core.report("cannot read a roster", &error);
            return;
        }
    };
    for contact in roster.iter().filter(|c| c.sees_contact) {
        send_presence_of(core, &contact.address, session).await;
    }
    // An unlisted item is a request that waits; a listed one may have one too, so all are looked at.
    if !roster.is_empty() {
        match core.store.roster(session.address.bare()).await {
            Ok(roster) => {
                // As many as leave room for other things; the rest comes once these are answered.
                let most = core.config.limits.unacknowledged_stanzas as usize / 4;
                let waiting =
                    roster.items.into_iter().filter_map(|item| Some((item.pending_in?, item.contact)));
                for (request, from) in waiting.take(most) {
                    let request = if request.len() <= subscriptions::KEPT_REQUEST {
                        Bytes::from(request)
                    } else if let Ok(from) = Address::parse(&from) {
                        subscriptions::stanza_of("subscribe", &from, &session.user.address)
                    } else {
                        continue;
                    };
                    session.push(&request, None, Urgency::Now);
                }
            }
            Err(error) => core.report("cannot read a roster", &error),
        }
    }
}

/// Sends a session the presence of all available sessions of a contact, unless the contact blocks it.
pub async fn send_presence_of(core: &Arc<Core>, contact: &Address, session: &Arc<Session>) {
    let all = routing::sessions(core, contact.bare());
    if all.iter().all(|resource| resource.priority().is_none()) {
        return;
    }
    match core.users.get(contact).profile(&core.store).await {
        Ok(profile) if !profile.blocks(&session.address) => {}
        Ok(_) => return,
        Err(error) => {
            core.report("cannot read whom an account blocks", &error);
            return;
        }
    }
    for resource in all {
        if let Some(presence) = resource.presence() {
            session.push(&addressed(&presence, session.address.as_str()), None, Urgency::Later);
        }
    }
}

/// Answers a probe from a client, when the contact lets it (RFC 6121 §4.3).
async fn probe(core: &Arc<Core>, session: &Arc<Session>, contact: &Address) {
    let allowed = match session.user.contacts(&core.store).await {
        Ok(contacts) => contacts.iter().any(|c| c.sees_contact && c.address == *contact),
        Err(_) => false,
    };
    if allowed || contact.as_str() == session.address.bare() {
        send_presence_of(core, contact, session).await;
    }
}

/// Says goodbye to those who got directed presence.
fn leave_directed(core: &Arc<Core>, session: &Arc<Session>, presence: &Bytes) {
    for to in session.take_directed() {
        let stanza = addressed(presence, to.as_str());
        let all = routing::sessions(core, to.bare());
        for resource in all.iter().filter(|r| to.resource().is_none_or(|w| w == r.resource())) {
            if to.resource().is_some() || resource.priority().is_some() {
                resource.send(core, &stanza, None, Urgency::Now);
            }
        }
    }
}

async fn note_last_activity(core: &Core, session: &Session, received: &Received<'_>) {
    let status = received
        .head
        .child(received.raw, "status", ns::CLIENT)
        .and_then(|c| {
            let whole = c.whole.str(received.raw);
            let (_, rest) = whole.split_once('>')?;
            Some(im_proto::xml::unescape(rest.split('<').next()?).into_owned())
        })
        .unwrap_or_default();
    set_last_activity(core, session, status).await;
}

async fn set_last_activity(core: &Core, session: &Session, status: String) {
    if session.quiet {
        return;
    }
    let activity = LastActivity { at: crate::now_ms(), status: status.chars().take(1000).collect() };
    if let Err(error) = core.store.set_last_activity(session.address.bare(), &activity).await {
        core.report("cannot note when an account was last there", &error);
    }
}

/// What clients have confirmed is written within this, or the session goes all the same.
const WRITTEN: Duration = Duration::from_secs(2);

/// Other nodes ask this one what an account was handed for as long as the directory has a session of it here. What its
/// client has confirmed is on disk before that ends: the client may be at another node a moment later, and be handed it
/// again.
async fn write_confirmed(core: &Core, session: &Session) {
    let bare = session.address.bare();
    if core.store.confirming(bare).is_empty() {
        return;
    }
    // One that takes too long costs nothing but that some of it comes again.
    if let Ok(Err(error)) = tokio::time::timeout(WRITTEN, core.store.settle_for(bare)).await {
        core.report("cannot write what a client has confirmed", &error);
    }
}

/// Ends a session for good: takes it out of the directory, tells those who saw it, and has what it did not confirm
/// handed to another one of the account. The second time nothing is done.
pub async fn session_ended(core: &Arc<Core>, session: &Arc<Session>) {
    if session.over.swap(true, Ordering::Relaxed) {
        return;
    }
    let _work = core.begin_work();
    let left = session.end();
    let was_available = session.set_presence(None).is_some();
    session.user.remove(session.token);
    if !session.quiet {
        core.metrics.sessions.add(-1);
    }
    if !core.live.is_single_node() {
        write_confirmed(core, session).await;
        let ended = core.live.unregister(session.address.bare(), session.resource(), session.token).await;
        if let Err(error) = ended {
            core.report("cannot tell the other nodes of the end of a session", &error);
        }
    }
    // Whoever took over the resource is there under the same address, and must not be said to be gone.
    let replaced = routing::session(core, &session.address).is_some_and(|other| other.priority().is_some());
    if was_available && !replaced {
        let gone = unavailable_from(session.address.as_str());
        tell_all(core, session, &gone, false).await;
        leave_directed(core, session, &gone);
        set_last_activity(core, session, String::new()).await;
    }
    if left {
        offline::wake(core, session.address.bare(), None).await;
    }
}

/// Lets a session without connection end after its time, unless it is resumed.
pub fn await_resumption(core: &Arc<Core>, session: &Arc<Session>, generation: u32) {
    let (core, session) = (Arc::clone(core), Arc::clone(session));
    tokio::spawn(async move {
        let time = Duration::from_secs(core.config.limits.resume_seconds);
        let mut stop = core.stop.subscribe();
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        let unresumed = session.detached_generation() == Some(generation);
        if unresumed || matches!(session.closing(), Some(Close::Conflict | Close::Revoked)) {
            session_ended(&core, &session).await;
        }
    });
}
