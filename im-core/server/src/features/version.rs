//! Software version (XEP-0092) of the server.

use im_proto::{StanzaError, ns};

use super::{Answer, Feature, Request, Target};

/// The feature.
pub const FEATURE: Feature = Feature {
    payloads: &[("query", ns::VERSION)],
    server: &[ns::VERSION],
    account: &[],
    stream_features: "",
    handle: |request| Box::pin(async move { answer(&request) }),
};

fn answer(request: &Request<'_>) -> Result<Answer, StanzaError> {
    if request.target != Target::Server || request.set {
        return Err(StanzaError::SERVICE_UNAVAILABLE);
    }
    Ok(Answer::Xml(format!(
        "<query xmlns='{}'><name>maxim-im</name><version>{}</version></query>",
        ns::VERSION,
        env!("CARGO_PKG_VERSION")
    )))
}
