//! Message carbons (XEP-0280): switching them. The copies are made by [`crate::messages`].

use im_proto::{StanzaError, ns};

use super::{Answer, Feature, Request};
use crate::binding;

/// The feature.
pub const FEATURE: Feature = Feature {
    payloads: &[("enable", ns::CARBONS), ("disable", ns::CARBONS)],
    server: &[ns::CARBONS, ns::CARBONS_RULES],
    account: &[ns::CARBONS, ns::CARBONS_RULES],
    stream_features: "",
    handle: |request| Box::pin(answer(request)),
};

async fn answer(request: Request<'_>) -> Result<Answer, StanzaError> {
    if !request.set {
        return Err(StanzaError::BAD_REQUEST);
    }
    request.session.set_carbons(request.payload.name == "enable");
    binding::publish(request.core, request.session, false).await;
    Ok(Answer::Empty)
}
