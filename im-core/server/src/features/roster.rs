//! Roster (RFC 6121 §2) with versions: reading, changing and removing items, and pushes.
//!
//! A client that shows the version it has gets nothing but an empty result when that is the current one, and the
//! whole roster otherwise. Subscriptions are in [`crate::subscriptions`].

use std::sync::Arc;

use im_proto::xml::Element;
use im_proto::{Address, StanzaError, ns};
use im_store::{RosterChange, RosterEdit, RosterItem, RosterOutcome, Rosters as _};

use super::{Answer, Feature, Request, store_failed};
use crate::core::Core;
use crate::session::Urgency;
use crate::{iq, subscriptions};

/// The feature.
pub const FEATURE: Feature = Feature {
    payloads: &[("query", ns::ROSTER)],
    server: &[ns::ROSTER],
    account: &[],
    stream_features: "<ver xmlns='urn:xmpp:features:rosterver'/><sub xmlns='urn:xmpp:features:pre-approval'/>",
    handle: |request| Box::pin(answer(request)),
};

/// An item as clients see it.
fn item_element(item: &RosterItem) -> Element {
    let mut element = Element::new("item", ns::ROSTER)
        .with_attr("jid", &item.contact)
        .with_attr("subscription", item.subscription.as_str());
    if let Some(name) = item.name.as_deref().filter(|n| !n.is_empty()) {
        element.set_attr("name", name);
    }
    if item.ask {
        element.set_attr("ask", "subscribe");
    }
    if item.approved {
        element.set_attr("approved", "true");
    }
    for group in &item.groups {
        element = element.with_child(Element::new("group", ns::ROSTER).with_text(group));
    }
    element
}

async fn answer(request: Request<'_>) -> Result<Answer, StanzaError> {
    request.own_account()?;
    if request.set { change(request).await } else { read(request).await }
}

async fn read(request: Request<'_>) -> Result<Answer, StanzaError> {
    let (core, session) = (request.core, request.session);
    let owner = session.address.bare();
    session.set_interested();
    let known = request.payload.attr("ver");
    if let Some(known) = known {
        let version = core.store.roster_version(owner).await;
        let version = version.map_err(|e| store_failed(core, "cannot read a roster", &e))?;
        if known == version.to_string() {
            return Ok(Answer::Empty);
        }
    }
    let roster =
        core.store.roster(owner).await.map_err(|e| store_failed(core, "cannot read a roster", &e))?;
    let mut query = Element::new("query", ns::ROSTER).with_attr("ver", &roster.version.to_string());
    for item in roster.items.iter().filter(|i| i.listed) {
        query = query.with_child(item_element(item));
    }
    Ok(Answer::Xml(query.to_xml(ns::CLIENT)))
}

async fn change(request: Request<'_>) -> Result<Answer, StanzaError> {
    let (core, session) = (request.core, request.session);
    let mut items = request.payload.children().filter(|c| c.is("item", ns::ROSTER));
    let (Some(item), None) = (items.next(), items.next()) else { return Err(StanzaError::BAD_REQUEST) };
    let contact = item.attr("jid").ok_or(StanzaError::BAD_REQUEST)?;
    let contact = Address::parse(contact).map_err(|_| StanzaError::JID_MALFORMED)?.to_bare();
    let own = session.address.to_bare();
    if contact == own {
        return Err(StanzaError::NOT_ALLOWED);
    }
    let failed = |e| store_failed(core, "cannot change a roster", &e);
    if item.attr("subscription") == Some("remove") {
        let removed = subscriptions::remove(core, &own, &contact).await.map_err(failed)?;
        return if removed { Ok(Answer::Empty) } else { Err(StanzaError::ITEM_NOT_FOUND) };
    }
    let name = item.attr("name").map(ToOwned::to_owned).filter(|n| !n.is_empty());
    let mut groups: Vec<String> = Vec::new();
    for group in item.children().filter(|g| g.is("group", ns::ROSTER)) {
        let text = group.text();
        if text.is_empty() {
            return Err(StanzaError::NOT_ACCEPTABLE);
        }
        if groups.contains(&text) {
            return Err(StanzaError::BAD_REQUEST);
        }
        groups.push(text);
    }
    if name.as_ref().is_some_and(|n| n.len() > 1023)
        || groups.iter().any(|g| g.len() > 1023)
        || groups.len() > 100
    {
        return Err(StanzaError::NOT_ACCEPTABLE);
    }
    let fresh = core.store.roster_item(own.as_str(), contact.as_str()).await.map_err(failed)?.is_none();
    if fresh
        && session.user.contacts(&core.store).await.map_err(failed)?.len() as u64
            >= core.config.limits.roster_items
    {
        return Err(StanzaError::RESOURCE_CONSTRAINT.with_text("the roster is full"));
    }
    let bare = contact.as_str().to_owned();
    let edit = RosterEdit::new(move |old| {
        let mut new =
            old.cloned().unwrap_or_else(|| RosterItem { contact: bare.clone(), ..RosterItem::default() });
        new.name.clone_from(&name);
        new.groups.clone_from(&groups);
        new.listed = true;
        RosterChange::Put(new)
    });
    let outcome = core.store.edit_roster(own.as_str(), contact.as_str(), edit).await.map_err(failed)?;
    session.user.forget_contacts();
    core.cluster.forget(core, own.as_str());
    push_item(core, &own, &outcome);
    Ok(Answer::Empty)
}

/// Tells all clients of an account that asked for the roster what became of an item.
pub fn push_item(core: &Arc<Core>, owner: &Address, outcome: &RosterOutcome) {
    let listed = |item: &Option<RosterItem>| item.as_ref().is_some_and(|i| i.listed);
    let element = match (&outcome.after, &outcome.before) {
        (Some(item), _) if item.listed => item_element(item),
        (_, Some(before)) if listed(&outcome.before) => Element::new("item", ns::ROSTER)
            .with_attr("jid", &before.contact)
            .with_attr("subscription", "remove"),
        _ => return,
    };
    let query =
        Element::new("query", ns::ROSTER).with_attr("ver", &outcome.version.to_string()).with_child(element);
    push_here(core, owner.as_str(), &query, &outcome.version.to_string());
    core.cluster.roster_push(core, owner.as_str(), &query.to_xml(ns::CLIENT), outcome.version);
}

/// Sends a push to the clients on this node.
pub fn push_here(core: &Arc<Core>, owner: &str, query: &Element, version: &str) {
    let Some(user) = core.users.find(owner) else { return };
    for session in user.sessions().iter().filter(|s| s.interested()) {
        let id = format!("roster-{version}-{:x}", core.token());
        session.push(&iq::push(&session.address, &id, query), None, Urgency::Now);
    }
}
