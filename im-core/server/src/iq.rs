//! Requests and answers (RFC 6120 §8.2.3): passed on to the session they name, or answered by a feature.

use std::sync::Arc;

use bytes::Bytes;
use im_proto::stanza::{self, Rewrite, StanzaKind};
use im_proto::xml::{Element, escape};
use im_proto::{Address, StanzaError, ns};

use crate::connection::End;
use crate::core::Core;
use crate::features::{self, Answer, Request, Target};
use crate::inbound::{Inbound, Received, bounce, queue_behind};
use crate::messages::{Kind, Outgoing};
use crate::routing::{self, Resource};
use crate::session::Urgency;

/// Deals with an iq from a client.
///
/// # Errors
/// When the stream must end.
pub async fn receive(state: &mut Inbound, received: &Received<'_>) -> Result<(), End> {
    let core = Arc::clone(&state.core);
    let session = Arc::clone(&state.session);
    let kind = received.kind();
    if !matches!(kind, "get" | "set" | "result" | "error") || received.head.id.is_none() {
        bounce(&session, received, StanzaError::BAD_REQUEST, "");
        return Ok(());
    }
    let request = matches!(kind, "get" | "set");
    if request && received.head.children.len() != 1 {
        bounce(&session, received, StanzaError::BAD_REQUEST, "");
        return Ok(());
    }
    let to = received.to.clone().unwrap_or_else(|| session.address.to_bare());
    let Some(target) = target(&core, &session.address, &to) else {
        bounce(&session, received, StanzaError::REMOTE_SERVER_NOT_FOUND, "");
        return Ok(());
    };
    if let Some(refusal) = refusal(&core, state, &to).await {
        if request {
            let blocked = format!("<blocked xmlns='{}'/>", ns::BLOCKING_ERRORS);
            let extra = if refusal == StanzaError::NOT_ACCEPTABLE { blocked.as_str() } else { "" };
            bounce(&session, received, refusal, extra);
        }
        return Ok(());
    }
    if to.resource().is_some() && to.local().is_some() {
        pass_on(state, received, to);
        return Ok(());
    }
    if !request {
        return Ok(());
    }
    let element = received.element()?;
    let Some(payload) = element.first_child() else {
        bounce(&session, received, StanzaError::BAD_REQUEST, "");
        return Ok(());
    };
    let request =
        Request { core: &core, session: &session, payload, set: kind == "set", target, iq: &element };
    let answer = features::answer(request).await;
    let from = received.head.to.map(|_| to.as_str());
    match answer {
        Ok(Answer::Done) => {}
        Ok(Answer::Empty) => {
            session.push(&result(&session.address, from, &received.id(), ""), None, Urgency::Now);
        }
        Ok(Answer::Xml(xml)) => {
            session.push(&result(&session.address, from, &received.id(), &xml), None, Urgency::Now);
        }
        Err(error) => bounce(&session, received, error, features::error_detail(&error, payload)),
    }
    Ok(())
}

fn target(core: &Core, own: &Address, to: &Address) -> Option<Target> {
    if !core.is_local(to) {
        return None;
    }
    Some(if to.local().is_none() {
        Target::Server
    } else if to.bare() == own.bare() {
        Target::Own
    } else {
        Target::Other(to.to_bare())
    })
}

/// Why an iq to this address is refused: a block list on either side.
async fn refusal(core: &Core, state: &Inbound, to: &Address) -> Option<StanzaError> {
    if to.local().is_none() || to.bare() == state.session.address.bare() {
        return None;
    }
    let peer = core.users.get(to);
    let profiles = tokio::try_join!(state.session.user.profile(&core.store), peer.profile(&core.store));
    match profiles {
        Ok((ours, _)) if ours.blocks(to) => Some(StanzaError::NOT_ACCEPTABLE),
        Ok((ours, theirs))
            if theirs.blocks(&state.session.address) || ours.canary != theirs.canary || !theirs.exists =>
        {
            Some(StanzaError::SERVICE_UNAVAILABLE)
        }
        Ok(_) => None,
        Err(error) => {
            core.report("cannot read an account", &error);
            Some(StanzaError::RESOURCE_CONSTRAINT)
        }
    }
}

/// Writes a result.
fn result(to: &Address, from: Option<&str>, id: &str, xml: &str) -> Bytes {
    let mut out = String::with_capacity(xml.len() + 160);
    out.push_str("<iq type='result'");
    stanza::push_attr(&mut out, "id", id);
    if let Some(from) = from {
        stanza::push_attr(&mut out, "from", from);
    }
    stanza::push_attr(&mut out, "to", to.as_str());
    out.push('>');
    out.push_str(xml);
    out.push_str("</iq>");
    Bytes::from(out)
}

/// Sends an iq on to a session, behind messages to the same account that wait for their commit.
fn pass_on(state: &mut Inbound, received: &Received<'_>, to: Address) {
    let rewrite = Rewrite {
        from: Some(state.session.address.as_str()),
        to: Some(to.as_str()),
        lang: None,
        without: &[],
    };
    let (text, end) = stanza::rewrite(received.raw, received.head, received.framer, &rewrite);
    let request = matches!(received.kind(), "get" | "set");
    let outgoing = Outgoing {
        stanza: Bytes::from(text),
        end,
        from: state.session.address.clone(),
        to,
        kind: Kind::Other(StanzaKind::Iq),
        // Only requests are answered by an error.
        id: request.then(|| received.id()),
        sender: state.session.token,
        carbons: false,
        archived: false,
        archived_by_sender: false,
        storable: false,
        quiet: state.session.quiet,
    };
    if state.waits_for(outgoing.to.bare()) {
        queue_behind(state, outgoing);
    } else {
        let all = routing::sessions(&state.core, outgoing.to.bare());
        deliver(&state.core, &outgoing, StanzaKind::Iq, &all);
    }
}

/// Gives an iq (or directed presence) to the session it names.
pub fn deliver(core: &Arc<Core>, outgoing: &Outgoing, kind: StanzaKind, all: &[Resource]) {
    let wanted = outgoing.to.resource();
    let found = all.iter().filter(|r| wanted.is_none_or(|w| w == r.resource()));
    let mut delivered = false;
    for resource in found {
        if kind == StanzaKind::Presence && wanted.is_none() && resource.priority().is_none() {
            continue;
        }
        delivered |= !resource.send(core, &outgoing.stanza, None, Urgency::Now).is_gone();
    }
    if !delivered
        && kind == StanzaKind::Iq
        && let Some(id) = &outgoing.id
        && let Some(sender) = routing::session(core, &outgoing.from)
    {
        let mut text = String::from("<iq type='error'");
        stanza::push_attr(&mut text, "from", outgoing.to.as_str());
        stanza::push_attr(&mut text, "to", outgoing.from.as_str());
        text.push_str(&format!(" id='{}'>", escape(id)));
        StanzaError::SERVICE_UNAVAILABLE.write(&mut text, "");
        text.push_str("</iq>");
        sender.send(core, &text.into(), None, Urgency::Now);
    }
}

/// Writes a request of the server's own to a client, such as a push.
pub fn push(to: &Address, id: &str, payload: &Element) -> Bytes {
    let mut out = String::from("<iq type='set'");
    stanza::push_attr(&mut out, "id", id);
    stanza::push_attr(&mut out, "to", to.as_str());
    out.push('>');
    payload.write(&mut out, ns::CLIENT);
    out.push_str("</iq>");
    Bytes::from(out)
}
