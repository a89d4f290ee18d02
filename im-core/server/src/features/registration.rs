//! In-band registration (XEP-0077): making an account before signing in, where the configuration allows it, and
//! changing one's own password after.
//!
//! Removing an account in band is left to the administration: a stolen session must not be able to erase an
//! archive.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use im_proto::stanza::push_attr;
use im_proto::xml::Element;
use im_proto::{StanzaError, ns};
use im_store::{AccountKind, Accounts as _, NewAccount};

use super::{Answer, Feature, Request, Target, store_failed};
use crate::accounts;
use crate::core::Core;

/// The feature.
pub const FEATURE: Feature = Feature {
    payloads: &[("query", ns::REGISTER)],
    server: &[ns::REGISTER],
    account: &[],
    stream_features: "",
    handle: |request| Box::pin(answer(request)),
};

/// Attempts to register from one address in a minute; far above what a load test needs.
const ATTEMPTS_PER_MINUTE: u64 = 60_000;

async fn answer(request: Request<'_>) -> Result<Answer, StanzaError> {
    let own = request.session.address.to_bare();
    if matches!(request.target, Target::Other(_)) {
        return Err(StanzaError::SERVICE_UNAVAILABLE);
    }
    if !request.set {
        let username = own.local().unwrap_or_default();
        return Ok(Answer::Xml(format!(
            "<query xmlns='{}'><registered/><username>{}</username><password/></query>",
            ns::REGISTER,
            im_proto::xml::escape(username)
        )));
    }
    if request.payload.child("remove", ns::REGISTER).is_some() {
        return Err(StanzaError::NOT_ALLOWED);
    }
    let (username, password) = fields(request.payload)?;
    if accounts::address(request.core, &username).ok().as_ref() != Some(&own) {
        return Err(StanzaError::NOT_ALLOWED);
    }
    accounts::set_password(request.core, &own, &password).await.map_err(|error| error.stanza_error())?;
    Ok(Answer::Empty)
}

fn fields(query: &Element) -> Result<(String, String), StanzaError> {
    let field = |name| query.child(name, ns::REGISTER).map(Element::text).filter(|t| !t.is_empty());
    field("username").zip(field("password")).ok_or(StanzaError::NOT_ACCEPTABLE)
}

/// Answers an iq of a client that has not signed in.
pub async fn before_sign_in(core: &Arc<Core>, iq: &Element, peer: IpAddr) -> String {
    let id = iq.attr("id").unwrap_or_default();
    let mut out = String::from("<iq");
    push_attr(&mut out, "id", id);
    push_attr(&mut out, "from", core.domain.as_str());
    match register(core, iq, peer).await {
        Ok(payload) => {
            push_attr(&mut out, "type", "result");
            out.push('>');
            out.push_str(&payload);
        }
        Err(error) => {
            push_attr(&mut out, "type", "error");
            out.push('>');
            error.write(&mut out, "");
        }
    }
    out.push_str("</iq>");
    out
}

async fn register(core: &Arc<Core>, iq: &Element, peer: IpAddr) -> Result<String, StanzaError> {
    let query = iq.child("query", ns::REGISTER).ok_or(StanzaError::BAD_REQUEST)?;
    if iq.attr("type") == Some("get") {
        return Ok(format!(
            "<query xmlns='{}'><instructions>Choose a name and a password.</instructions><username/><password/></query>",
            ns::REGISTER
        ));
    }
    if !core.live.allow(&format!("register:{peer}"), ATTEMPTS_PER_MINUTE, Duration::from_mins(1)).await {
        return Err(StanzaError::RESOURCE_CONSTRAINT);
    }
    let (username, password) = fields(query)?;
    let address = accounts::address(core, &username).map_err(|error| error.stanza_error())?;
    if accounts::is_reserved(&address) {
        return Err(StanzaError::CONFLICT);
    }
    let credentials = core.passwords.derive(&password).await.map_err(|_| StanzaError::RESOURCE_CONSTRAINT)?;
    let account = NewAccount {
        address: address.to_string(),
        credentials: credentials.ok_or(StanzaError::NOT_ACCEPTABLE)?,
        kind: AccountKind::Person,
        display_name: None,
    };
    let made = core.store.create_account(&account).await;
    if !made.map_err(|e| store_failed(core, "cannot make an account", &e))? {
        return Err(StanzaError::CONFLICT);
    }
    core.users.get(&address).forget();
    Ok(String::new())
}
