//! Presence subscriptions (RFC 6121 §3 and appendix A): each step edits one item of the roster on each side,
//! pushes it to that side's clients, and passes the stanza on where the state machine says so.
//!
//! Both sides are on this server, so a step of one is followed at once by its effect on the other. Each edit is
//! atomic in the store; should the server stop between the two, the sender's client repeats the step.

use std::sync::Arc;

use bytes::Bytes;
use im_proto::stanza::push_attr;
use im_proto::{Address, StanzaError};
use im_store::{RosterChange, RosterEdit, RosterItem, RosterOutcome, Rosters as _, StoreError, Subscription};

use crate::core::Core;
use crate::features::roster::push_item;
use crate::presence::{addressed, send_presence_of};
use crate::routing::{self, Resource};
use crate::session::{Session, Urgency};

/// Bytes of a request up to which it is kept whole; of a larger one only that it was asked, for there may be
/// thousands.
pub(crate) const KEPT_REQUEST: usize = 1024;

/// What an edit of one item looks like.
type Edit = fn(&mut RosterItem);

async fn edit(
    core: &Arc<Core>,
    owner: &Address,
    contact: &Address,
    change: Edit,
) -> Result<RosterOutcome, StoreError> {
    let bare = contact.as_str().to_owned();
    edit_with(
        core,
        owner,
        contact,
        RosterEdit::new(move |item| {
            let mut new = item
                .cloned()
                .unwrap_or_else(|| RosterItem { contact: bare.clone(), ..RosterItem::default() });
            change(&mut new);
            settle(item, new)
        }),
    )
    .await
}

/// What becomes of an item: one that says nothing is removed.
fn settle(before: Option<&RosterItem>, after: RosterItem) -> RosterChange {
    let empty = !after.listed
        && after.subscription == Subscription::None
        && !after.ask
        && !after.approved
        && after.pending_in.is_none();
    match (before, empty) {
        (None, true) => RosterChange::Keep,
        (Some(_), true) => RosterChange::Remove,
        (Some(old), false) if *old == after => RosterChange::Keep,
        _ => RosterChange::Put(after),
    }
}

async fn edit_with(
    core: &Arc<Core>,
    owner: &Address,
    contact: &Address,
    change: RosterEdit,
) -> Result<RosterOutcome, StoreError> {
    let outcome = core.store.edit_roster(owner.bare(), contact.bare(), change).await?;
    if outcome.changed {
        core.users.get(owner).forget_contacts();
        core.cluster.forget(core, owner.bare());
        push_item(core, owner, &outcome);
    }
    Ok(outcome)
}

fn set(item: &mut RosterItem, sees_contact: bool, seen_by_contact: bool) {
    item.subscription = Subscription::from_directions(sees_contact, seen_by_contact);
}

/// Sends a stanza to the available sessions of an account.
fn to_available(core: &Arc<Core>, bare: &str, stanza: &Bytes) {
    for resource in routing::sessions(core, bare) {
        if resource.priority().is_some() {
            resource.send(core, stanza, None, Urgency::Now);
        }
    }
}

/// A subscription stanza of the server's own.
pub(crate) fn stanza_of(kind: &str, from: &Address, to: &Address) -> Bytes {
    let mut out = String::from("<presence");
    push_attr(&mut out, "type", kind);
    push_attr(&mut out, "from", from.bare());
    push_attr(&mut out, "to", to.bare());
    out.push_str("/>");
    Bytes::from(out)
}

/// Shows the sessions of `of` to those of `to`: as available, or as gone.
async fn show(core: &Arc<Core>, of: &Address, to: &Address, available: bool) {
    for receiver in routing::sessions(core, to.bare()) {
        if receiver.priority().is_none() {
            continue;
        }
        if available && let Resource::Here(session) = &receiver {
            send_presence_of(core, of, session).await;
            continue;
        }
        for resource in routing::sessions(core, of.bare()) {
            let Some(presence) = resource.presence() else { continue };
            let stanza = if available {
                addressed(&presence, &receiver.full())
            } else {
                let mut out = String::from("<presence type='unavailable'");
                push_attr(&mut out, "from", &resource.full());
                push_attr(&mut out, "to", &receiver.full());
                out.push_str("/>");
                Bytes::from(out)
            };
            receiver.send(core, &stanza, None, Urgency::Now);
        }
    }
}

/// Deals with a subscription stanza from a client; `stanza` is already stamped with bare addresses.
///
/// # Errors
/// What the client is told.
pub async fn outbound(
    core: &Arc<Core>,
    session: &Arc<Session>,
    contact: &Address,
    kind: &str,
    stanza: &str,
) -> Result<(), StanzaError> {
    let own = session.address.to_bare();
    if *contact == own {
        return Err(StanzaError::NOT_ALLOWED);
    }
    let failed = |error: StoreError| {
        core.report("cannot change a subscription", &error);
        StanzaError::INTERNAL_SERVER_ERROR
    };
    let peer = core.users.get(contact);
    let (ours, theirs) =
        tokio::try_join!(session.user.profile(&core.store), peer.profile(&core.store)).map_err(failed)?;
    if kind == "subscribe" {
        if !theirs.exists || ours.canary != theirs.canary || theirs.blocks(&own) {
            return Err(StanzaError::SERVICE_UNAVAILABLE);
        }
        let full = core.store.roster_item(own.as_str(), contact.as_str()).await.map_err(failed)?.is_none()
            && session.user.contacts(&core.store).await.map_err(failed)?.len() as u64
                >= core.config.limits.roster_items;
        if full {
            return Err(StanzaError::RESOURCE_CONSTRAINT.with_text("the roster is full"));
        }
        // The request that waits takes a place in the contact's roster.
        let theirs = core.store.roster_item(contact.as_str(), own.as_str()).await.map_err(failed)?;
        if theirs.is_none()
            && peer.contacts(&core.store).await.map_err(failed)?.len() as u64
                >= core.config.limits.roster_items
        {
            return Err(StanzaError::RESOURCE_CONSTRAINT.with_text("the contact takes no more requests"));
        }
    }
    let stanza = Bytes::copy_from_slice(stanza.as_bytes());
    let done = match kind {
        "subscribe" => subscribe(core, &own, contact, &stanza).await,
        "subscribed" => approve(core, &own, contact, &stanza).await,
        "unsubscribe" => unsubscribe(core, &own, contact, &stanza).await,
        _ => cancel(core, &own, contact, &stanza).await,
    };
    done.map_err(failed)
}

async fn subscribe(
    core: &Arc<Core>,
    own: &Address,
    contact: &Address,
    stanza: &Bytes,
) -> Result<(), StoreError> {
    edit(core, own, contact, |item| {
        item.listed = true;
        item.ask = !item.subscription.sees_contact();
    })
    .await?;
    // The contact's side: a request that waits, unless it is approved already.
    let request = if stanza.len() <= KEPT_REQUEST {
        String::from_utf8_lossy(stanza).into_owned()
    } else {
        String::from_utf8_lossy(&stanza_of("subscribe", own, contact)).into_owned()
    };
    let bare = own.as_str().to_owned();
    let outcome = edit_with(
        core,
        contact,
        own,
        RosterEdit::new(move |item| {
            let mut new = item
                .cloned()
                .unwrap_or_else(|| RosterItem { contact: bare.clone(), ..RosterItem::default() });
            if new.subscription.seen_by_contact() {
                return RosterChange::Keep;
            }
            if new.approved {
                let sees = new.subscription.sees_contact();
                set(&mut new, sees, true);
                new.pending_in = None;
            } else if new.pending_in.is_none() {
                new.pending_in = Some(request.clone());
            }
            settle(item, new)
        }),
    )
    .await?;
    let approved = outcome.after.as_ref().is_some_and(|i| i.subscription.seen_by_contact());
    if approved {
        return approved_by(core, own, contact, &stanza_of("subscribed", contact, own)).await;
    }
    if outcome.changed {
        to_available(core, contact.as_str(), stanza);
    }
    Ok(())
}

/// The requester's side of an approval: it sees the contact now.
async fn approved_by(
    core: &Arc<Core>,
    requester: &Address,
    contact: &Address,
    stanza: &Bytes,
) -> Result<(), StoreError> {
    let outcome = edit(core, requester, contact, |item| {
        if item.ask {
            item.ask = false;
            let seen = item.subscription.seen_by_contact();
            set(item, true, seen);
        }
    })
    .await?;
    if outcome.changed {
        to_available(core, requester.as_str(), stanza);
        show(core, contact, requester, true).await;
    }
    Ok(())
}

async fn approve(
    core: &Arc<Core>,
    own: &Address,
    contact: &Address,
    stanza: &Bytes,
) -> Result<(), StoreError> {
    let outcome = edit(core, own, contact, |item| {
        if item.pending_in.take().is_some() {
            let sees = item.subscription.sees_contact();
            set(item, sees, true);
            item.listed = true;
        } else if !item.subscription.seen_by_contact() {
            // Nobody asked yet: approved in advance (RFC 6121 §3.4).
            item.approved = true;
            item.listed = true;
        }
    })
    .await?;
    let newly = |i: &Option<RosterItem>| i.as_ref().is_some_and(|i| i.subscription.seen_by_contact());
    if newly(&outcome.after) && !newly(&outcome.before) {
        return approved_by(core, contact, own, stanza).await;
    }
    Ok(())
}

async fn unsubscribe(
    core: &Arc<Core>,
    own: &Address,
    contact: &Address,
    stanza: &Bytes,
) -> Result<(), StoreError> {
    edit(core, own, contact, |item| {
        item.ask = false;
        let seen = item.subscription.seen_by_contact();
        set(item, false, seen);
    })
    .await?;
    let outcome = edit(core, contact, own, |item| {
        item.pending_in = None;
        let sees = item.subscription.sees_contact();
        set(item, sees, false);
    })
    .await?;
    if outcome.changed {
        to_available(core, contact.as_str(), stanza);
        show(core, contact, own, false).await;
    }
    Ok(())
}

async fn cancel(
    core: &Arc<Core>,
    own: &Address,
    contact: &Address,
    stanza: &Bytes,
) -> Result<(), StoreError> {
    let outcome = edit(core, own, contact, |item| {
        item.pending_in = None;
        item.approved = false;
        let sees = item.subscription.sees_contact();
        set(item, sees, false);
    })
    .await?;
    if !outcome.changed {
        return Ok(());
    }
    if outcome.before.as_ref().is_some_and(|i| i.subscription.seen_by_contact()) {
        show(core, own, contact, false).await;
    }
    let theirs = edit(core, contact, own, |item| {
        item.ask = false;
        let seen = item.subscription.seen_by_contact();
        set(item, false, seen);
    })
    .await?;
    if theirs.changed {
        to_available(core, contact.as_str(), stanza);
    }
    Ok(())
}

/// Removes a contact from a roster and ends subscriptions both ways (RFC 6121 §2.5.2). False when there was none.
///
/// # Errors
/// When the store fails.
pub async fn remove(core: &Arc<Core>, own: &Address, contact: &Address) -> Result<bool, StoreError> {
    let before = core.store.roster_item(own.as_str(), contact.as_str()).await?;
    let Some(before) = before.filter(|i| i.listed) else { return Ok(false) };
    if before.subscription.seen_by_contact() {
        show(core, own, contact, false).await;
    }
    edit_with(core, own, contact, RosterEdit::new(|_| RosterChange::Remove)).await?;
    if before.subscription.sees_contact() || before.ask {
        unsubscribe(core, own, contact, &stanza_of("unsubscribe", own, contact)).await?;
    }
    if before.subscription.seen_by_contact() || before.approved {
        let theirs = edit(core, contact, own, |item| {
            item.ask = false;
            let seen = item.subscription.seen_by_contact();
            set(item, false, seen);
        })
        .await?;
        if theirs.changed {
            to_available(core, contact.as_str(), &stanza_of("unsubscribed", own, contact));
        }
    }
    Ok(true)
}
