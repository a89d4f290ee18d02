//! Block lists (XEP-0191): reading, changing, pushes, and presence that goes with a change. Routing consults the
//! list itself.

use im_proto::xml::Element;
use im_proto::{Address, StanzaError, ns};
use im_store::{Profiles as _, StoreError};

use super::{Answer, Feature, Request, store_failed};
use crate::routing;
use crate::session::Urgency;
use crate::{iq, presence};

/// The feature.
pub const FEATURE: Feature = Feature {
    payloads: &[("blocklist", ns::BLOCKING), ("block", ns::BLOCKING), ("unblock", ns::BLOCKING)],
    server: &[ns::BLOCKING],
    account: &[],
    stream_features: "",
    handle: |request| Box::pin(answer(request)),
};

/// Addresses on one list, at most.
const MAX_BLOCKED: usize = 2_000;

async fn answer(request: Request<'_>) -> Result<Answer, StanzaError> {
    let owner = request.own_account()?;
    let (core, session) = (request.core, request.session);
    let failed = |e: StoreError| store_failed(core, "cannot read or change a block list", &e);
    match (request.payload.name.as_str(), request.set) {
        ("blocklist", false) => {
            session.set_block_interested();
            let mut list = Element::new("blocklist", ns::BLOCKING);
            for address in core.store.blocked(owner).await.map_err(failed)? {
                list = list.with_child(Element::new("item", ns::BLOCKING).with_attr("jid", &address));
            }
            Ok(Answer::Xml(list.to_xml(ns::CLIENT)))
        }
        (name @ ("block" | "unblock"), true) => {
            let mut addresses = Vec::new();
            for item in request.payload.children().filter(|c| c.is("item", ns::BLOCKING)) {
                let jid = item.attr("jid").ok_or(StanzaError::BAD_REQUEST)?;
                addresses.push(Address::parse(jid).map_err(|_| StanzaError::JID_MALFORMED)?);
            }
            let before = session.user.profile(&core.store).await.map_err(failed)?;
            if name == "block" {
                if addresses.is_empty() {
                    return Err(StanzaError::BAD_REQUEST);
                }
                if before.blocked.len() + addresses.len() > MAX_BLOCKED {
                    return Err(StanzaError::RESOURCE_CONSTRAINT.with_text("the block list is full"));
                }
                // Contacts see the account leave before they see nothing more of it.
                show_to(&request, &addresses, false).await;
                let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                core.store.block(owner, &texts).await.map_err(failed)?;
                session.user.forget();
            } else {
                let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                core.store.unblock(owner, &texts).await.map_err(failed)?;
                session.user.forget();
                let gone = if addresses.is_empty() { before.blocked.clone() } else { addresses.clone() };
                show_to(&request, &gone, true).await;
            }
            // Routing reads what is known without waiting, so it is made known at once.
            session.user.profile(&core.store).await.map_err(failed)?;
            core.cluster.forget(core, owner);
            let mut payload = Element::new(name, ns::BLOCKING);
            for address in &addresses {
                payload =
                    payload.with_child(Element::new("item", ns::BLOCKING).with_attr("jid", address.as_str()));
            }
            for other in session.user.sessions().iter().filter(|s| s.block_interested()) {
                let id = format!("block-{:x}", core.token());
                other.push(&iq::push(&other.address, &id, &payload), None, Urgency::Now);
            }
            Ok(Answer::Empty)
        }
        _ => Err(StanzaError::BAD_REQUEST),
    }
}

/// Shows the account's sessions to contacts that are (un)blocked: as gone, or as they are.
async fn show_to(request: &Request<'_>, addresses: &[Address], available: bool) {
    let core = request.core;
    let Ok(contacts) = request.session.user.contacts(&core.store).await else { return };
    let covers = |a: &Address, c: &Address| {
        a.bare() == c.as_str() || (a.local().is_none() && a.domain() == c.domain())
    };
    for contact in
        contacts.iter().filter(|c| c.seen_by_contact && addresses.iter().any(|a| covers(a, &c.address)))
    {
        for own in routing::sessions(core, request.session.address.bare()) {
            let Some(shown) = own.presence() else { continue };
            for receiver in routing::sessions(core, contact.address.as_str()) {
                if receiver.priority().is_none() {
                    continue;
                }
                let stanza = if available {
                    presence::addressed(&shown, &receiver.full())
                } else {
                    presence::addressed(&presence::unavailable_from(&own.full()), &receiver.full())
                };
                receiver.send(core, &stanza, None, Urgency::Now);
            }
        }
    }
}
