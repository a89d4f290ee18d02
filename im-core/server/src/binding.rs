//! Resource binding (RFC 6120 §7): a session is made, entered in the directory, and replaces another one of the
//! same resource.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use im_proto::xml::Element;
use im_proto::{Address, StanzaError, ns};
use im_store::live;

use crate::connection::{Bound, Connection};
use crate::core::Core;
use crate::passwords::random_bytes;
use crate::routing;
use crate::session::{Close, Session};

/// The resource that a client asks for, or a random one.
///
/// # Errors
/// `bad-request` for a resource that is none.
pub fn resource_of(bind: &Element) -> Result<String, StanzaError> {
    let wanted = bind.child("resource", ns::BIND).map(Element::text).unwrap_or_default();
    Ok(if wanted.trim().is_empty() { URL_SAFE_NO_PAD.encode(random_bytes(9)) } else { wanted })
}

/// Makes the session.
///
/// # Errors
/// What the client is told when there can be none.
pub async fn bind(
    connection: &mut Connection,
    account: &Address,
    resource: &str,
) -> Result<Bound, StanzaError> {
    let core = Arc::clone(&connection.core);
    let core = &core;
    let address = account.with_resource(resource).map_err(|_| StanzaError::BAD_REQUEST)?;
    if core.is_draining() {
        return Err(StanzaError::RESOURCE_CONSTRAINT.with_text("the server is going down"));
    }
    let user = core.users.get(account);
    let limits = &core.config.limits;
    let resource = address.resource().unwrap_or_default();
    let others = routing::sessions(core, account.bare()).iter().filter(|s| s.resource() != resource).count();
    if others as u64 >= limits.sessions_per_account {
        return Err(StanzaError::RESOURCE_CONSTRAINT.with_text("the account has too many sessions"));
    }
    // The account may have been disabled or removed since it signed in, and may be at any moment.
    let closings = user.closings.load(Ordering::SeqCst);
    let profile = user.fresh_profile(&core.store).await.map_err(|error| {
        core.report("cannot read an account that signs in", &error);
        StanzaError::INTERNAL_SERVER_ERROR
    })?;
    if !profile.exists || profile.disabled {
        return Err(StanzaError::NOT_ALLOWED.with_text("the account was disabled or removed"));
    }
    let session = Arc::new(Session::new(
        address,
        Arc::clone(&user),
        core.token(),
        profile.canary,
        connection.link.framing,
        limits.outgoing_bytes as usize,
        limits.unacknowledged_stanzas as usize,
    ));
    let inbound = Arc::clone(&session.inbound).lock_owned().await;
    if let Some(old) = user.add(Arc::clone(&session)) {
        core.close_session(&old, Close::Conflict);
    }
    if user.closings.load(Ordering::SeqCst) != closings {
        // Whoever closed the account's sessions may have looked before this one was there.
        session.close(Close::Revoked);
    }
    if !profile.canary {
        core.metrics.sessions.add(1);
    }
    publish(core, &session, true).await;
    Ok(Bound { session, generation: 0, inbound })
}

/// Tells the other nodes, if there are any, what this session is now.
pub async fn publish(core: &Arc<Core>, session: &Arc<Session>, fresh: bool) {
    if core.live.is_single_node() {
        return;
    }
    let entry = live::Session {
        bare: session.address.bare().into(),
        resource: session.resource().into(),
        node: core.live.node().clone(),
        token: session.token,
        priority: session.priority(),
        presence: session.presence().map(|p| Bytes::copy_from_slice(&p)),
        carbons: session.carbons(),
    };
    let result = if fresh {
        core.live.register(entry).await.map(|replaced| {
            if let Some(other) = replaced.filter(|o| o.node != *core.live.node()) {
                core.cluster.close(core, &other);
            }
        })
    } else {
        core.live.update(entry).await
    };
    if let Err(error) = result {
        core.report("cannot tell the other nodes of a session", &error);
    }
}
