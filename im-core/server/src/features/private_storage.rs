//! Private XML storage (XEP-0049), where older clients keep bookmarks and notes.

use im_proto::{StanzaError, ns};
use im_store::Profiles as _;

use super::{Answer, Feature, Request, store_failed};

/// The feature.
pub const FEATURE: Feature = Feature {
    payloads: &[("query", ns::PRIVATE)],
    server: &[ns::PRIVATE],
    account: &[],
    stream_features: "",
    handle: |request| Box::pin(answer(request)),
};

/// Elements that one account can keep.
const MAX_ELEMENTS: u64 = 100;

async fn answer(request: Request<'_>) -> Result<Answer, StanzaError> {
    let owner = request.own_account()?;
    let core = request.core;
    let mut children = request.payload.children();
    let element = children.next().ok_or(StanzaError::BAD_REQUEST)?;
    if element.ns.is_empty() || element.ns == ns::PRIVATE || element.ns == ns::CLIENT {
        return Err(StanzaError::NOT_ACCEPTABLE);
    }
    if request.set {
        for element in request.payload.children() {
            let xml = element.to_xml("");
            if xml.len() as u64 > core.config.limits.profile_bytes {
                return Err(StanzaError::POLICY_VIOLATION.with_text("the element is too large"));
            }
            let fresh = core.store.private_xml(owner, &element.name, &element.ns).await;
            if fresh.map_err(|e| store_failed(core, "cannot read private data", &e))?.is_none() {
                let count = core.store.private_xml_count(owner).await;
                if count.map_err(|e| store_failed(core, "cannot read private data", &e))? >= MAX_ELEMENTS {
                    return Err(StanzaError::RESOURCE_CONSTRAINT.with_text("the private storage is full"));
                }
            }
            let stored = core.store.set_private_xml(owner, &element.name, &element.ns, &xml).await;
            stored.map_err(|e| store_failed(core, "cannot store private data", &e))?;
        }
        return Ok(Answer::Empty);
    }
    if children.next().is_some() {
        return Err(StanzaError::BAD_REQUEST);
    }
    let found = core.store.private_xml(owner, &element.name, &element.ns).await;
    let found = found.map_err(|e| store_failed(core, "cannot read private data", &e))?;
    let xml = found.unwrap_or_else(|| element.to_xml(ns::PRIVATE));
    Ok(Answer::Xml(format!("<query xmlns='{}'>{xml}</query>", ns::PRIVATE)))
}
