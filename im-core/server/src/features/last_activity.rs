//! Last activity (XEP-0012): how long the server runs, or how long a contact has been away.

use im_proto::xml::escape;
use im_proto::{StanzaError, ns};
use im_store::Profiles as _;

use super::{Answer, Feature, Request, Target, store_failed};
use crate::routing;

/// The feature.
pub const FEATURE: Feature = Feature {
    payloads: &[("query", ns::LAST)],
    server: &[ns::LAST],
    account: &[ns::LAST],
    stream_features: "",
    handle: |request| Box::pin(answer(request)),
};

async fn answer(request: Request<'_>) -> Result<Answer, StanzaError> {
    if request.set {
        return Err(StanzaError::NOT_ALLOWED);
    }
    let bare = match &request.target {
        Target::Server => {
            let seconds = request.core.started.elapsed().as_secs();
            return Ok(Answer::Xml(format!("<query xmlns='{}' seconds='{seconds}'/>", ns::LAST)));
        }
        Target::Own => request.session.address.bare().to_owned(),
        Target::Other(contact) if request.sees(contact).await? => contact.to_string(),
        Target::Other(_) => return Err(StanzaError::FORBIDDEN),
    };
    let there = routing::sessions(request.core, &bare).iter().any(|r| r.priority().is_some());
    if there {
        return Ok(Answer::Xml(format!("<query xmlns='{}' seconds='0'/>", ns::LAST)));
    }
    let last = request.core.store.last_activity(&bare).await;
    let last =
        last.map_err(|e| store_failed(request.core, "cannot read when an account was last there", &e))?;
    let last = last.ok_or(StanzaError::ITEM_NOT_FOUND)?;
    let seconds = (crate::now_ms() - last.at).max(0) / 1000;
    Ok(Answer::Xml(format!(
        "<query xmlns='{}' seconds='{seconds}'>{}</query>",
        ns::LAST,
        escape(&last.status)
    )))
}
