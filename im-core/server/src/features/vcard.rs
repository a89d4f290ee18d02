//! vCard (XEP-0054): one's own to change, everybody's to read.

use im_proto::xml::Element;
use im_proto::{StanzaError, ns};
use im_store::Profiles as _;

use super::{Answer, Feature, Request, Target, store_failed};

/// The feature.
pub const FEATURE: Feature = Feature {
    payloads: &[("vCard", ns::VCARD)],
    server: &[ns::VCARD],
    account: &[ns::VCARD],
    stream_features: "",
    handle: |request| Box::pin(answer(request)),
};

async fn answer(request: Request<'_>) -> Result<Answer, StanzaError> {
    let core = request.core;
    if request.set {
        let owner = request.own_account()?;
        let xml = request.payload.to_xml("");
        if xml.len() as u64 > core.config.limits.profile_bytes {
            return Err(StanzaError::POLICY_VIOLATION.with_text("the vCard is too large"));
        }
        let stored = core.store.set_vcard(owner, &xml).await;
        stored.map_err(|e| store_failed(core, "cannot store a vCard", &e))?;
        return Ok(Answer::Empty);
    }
    let owner = match &request.target {
        Target::Server => {
            let card = Element::new("vCard", ns::VCARD)
                .with_child(Element::new("FN", ns::VCARD).with_text("Maxim IM server"));
            return Ok(Answer::Xml(card.to_xml(ns::CLIENT)));
        }
        Target::Own => request.session.address.bare(),
        Target::Other(other) => other.as_str(),
    };
    let card = core.store.vcard(owner).await.map_err(|e| store_failed(core, "cannot read a vCard", &e))?;
    match (card, &request.target) {
        (Some(xml), _) => Ok(Answer::Xml(xml)),
        (None, Target::Own) => Ok(Answer::Xml(format!("<vCard xmlns='{}'/>", ns::VCARD))),
        (None, _) => Err(StanzaError::ITEM_NOT_FOUND),
    }
}
