//! Service discovery (XEP-0030), answered from the list of features.

use im_proto::ext::disco::{self, Identity};
use im_proto::{StanzaError, ns};

use super::{ALL, Answer, Feature, Request, Target};
use crate::routing;

/// disco#info
pub const INFO: Feature = Feature {
    payloads: &[("query", ns::DISCO_INFO)],
    server: &[ns::DISCO_INFO],
    account: &[ns::DISCO_INFO],
    stream_features: "",
    handle: |request| Box::pin(info(request)),
};

/// disco#items
pub const ITEMS: Feature = Feature {
    payloads: &[("query", ns::DISCO_ITEMS)],
    server: &[ns::DISCO_ITEMS],
    account: &[ns::DISCO_ITEMS],
    stream_features: "",
    handle: |request| Box::pin(items(request)),
};

async fn info(request: Request<'_>) -> Result<Answer, StanzaError> {
    if request.set {
        return Err(StanzaError::NOT_ALLOWED);
    }
    let node = request.payload.attr("node").filter(|n| !n.is_empty());
    if node.is_some() {
        return Err(StanzaError::ITEM_NOT_FOUND);
    }
    let server = Identity { category: "server", kind: "im", name: "Maxim" };
    let account = Identity { category: "account", kind: "registered", name: "" };
    let (identities, features): (&[Identity], Vec<&str>) = match &request.target {
        Target::Server => (&[server], ALL.iter().flat_map(|f| f.server).copied().collect()),
        Target::Own => (&[account], ALL.iter().flat_map(|f| f.account).copied().collect()),
        Target::Other(contact) => {
            if !request.sees(contact).await? {
                return Err(StanzaError::SERVICE_UNAVAILABLE);
            }
            (&[account], vec![ns::DISCO_INFO, ns::DISCO_ITEMS, ns::VCARD])
        }
    };
    Ok(Answer::Xml(disco::info(node, identities, &features, "")))
}

async fn items(request: Request<'_>) -> Result<Answer, StanzaError> {
    if request.set {
        return Err(StanzaError::NOT_ALLOWED);
    }
    let node = request.payload.attr("node").filter(|n| !n.is_empty());
    match &request.target {
        Target::Server => Ok(Answer::Xml(disco::items(node, []))),
        Target::Own => {
            let own = request.session.address.bare();
            let sessions: Vec<String> = routing::sessions(request.core, own)
                .iter()
                .filter(|r| r.priority().is_some())
                .map(routing::Resource::full)
                .collect();
            Ok(Answer::Xml(disco::items(node, sessions.iter().map(|s| (s.as_str(), "", "")))))
        }
        Target::Other(contact) if request.sees(contact).await? => Ok(Answer::Xml(disco::items(node, []))),
        Target::Other(_) => Err(StanzaError::SERVICE_UNAVAILABLE),
    }
}
