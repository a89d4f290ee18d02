//! What the server answers itself: one module per feature, all entered in [`ALL`].
//!
//! A feature names the payloads it answers, the features it adds to discovery (XEP-0030) and to the stream, and
//! a handler. Discovery, the stream features and dispatch are made from this list alone, so that what is said to
//! be supported is what is there. Groups, uploads, push and the HTTP API will be further entries.

use std::pin::Pin;
use std::sync::Arc;

use im_proto::xml::Element;
use im_proto::{Address, StanzaError, ns};
use im_store::StoreError;

use crate::core::Core;
use crate::session::Session;

pub mod archive;
pub mod blocking;
pub mod carbons;
pub mod disco;
pub mod last_activity;
pub mod ping;
pub mod private_storage;
pub mod registration;
pub mod roster;
pub mod session_establishment;
pub mod time;
pub mod vcard;
pub mod version;

/// Whom a request is addressed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The server: the domain.
    Server,
    /// The sender's own account.
    Own,
    /// Somebody else's account; the server answers for it.
    Other(Address),
}

/// A request of a client.
pub struct Request<'a> {
    /// Shared state.
    pub core: &'a Arc<Core>,
    /// Who asks.
    pub session: &'a Arc<Session>,
    /// The whole iq.
    pub iq: &'a Element,
    /// Its payload.
    pub payload: &'a Element,
    /// True for `set`, false for `get`.
    pub set: bool,
    /// Whom it is addressed to.
    pub target: Target,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A result without payload.
    Empty,
    /// A result with this payload.
    Xml(String),
    /// The feature has answered already.
    Done,
}

/// A handler's future.
pub type Handling<'a> = Pin<Box<dyn Future<Output = Result<Answer, StanzaError>> + Send + 'a>>;

/// A feature of the server.
pub struct Feature {
    /// Payloads it answers, as `(element, namespace)`.
    pub payloads: &'static [(&'static str, &'static str)],
    /// What it adds to discovery of the server.
    pub server: &'static [&'static str],
    /// What it adds to discovery of an account.
    pub account: &'static [&'static str],
    /// What it adds to the features of a signed-in stream, as XML.
    pub stream_features: &'static str,
    /// Answers a request.
    pub handle: for<'a> fn(Request<'a>) -> Handling<'a>,
}

/// Every feature.
pub const ALL: &[Feature] = &[
    session_establishment::FEATURE,
    ping::FEATURE,
    disco::INFO,
    disco::ITEMS,
    roster::FEATURE,
    carbons::FEATURE,
    archive::FEATURE,
    blocking::FEATURE,
    vcard::FEATURE,
    private_storage::FEATURE,
    last_activity::FEATURE,
    version::FEATURE,
    time::FEATURE,
    registration::FEATURE,
    STREAM_MANAGEMENT,
    CLIENT_STATE,
    OFFLINE,
];

/// A handler for features that answer no iq.
fn unanswered(_: Request<'_>) -> Handling<'_> {
    Box::pin(async { Err(StanzaError::SERVICE_UNAVAILABLE) })
}

/// XEP-0198: dealt with by the stream itself.
const STREAM_MANAGEMENT: Feature = Feature {
    payloads: &[],
    server: &[],
    account: &[],
    stream_features: "<sm xmlns='urn:xmpp:sm:3'/>",
    handle: unanswered,
};

/// XEP-0352: dealt with by the stream itself.
const CLIENT_STATE: Feature = Feature {
    payloads: &[],
    server: &[],
    account: &[],
    stream_features: "<csi xmlns='urn:xmpp:csi:0'/>",
    handle: unanswered,
};

/// XEP-0160: dealt with by messages and presence.
const OFFLINE: Feature = Feature {
    payloads: &[],
    server: &[ns::OFFLINE_FEATURE],
    account: &[],
    stream_features: "",
    handle: unanswered,
};

/// Finds the feature and lets it answer.
///
/// # Errors
/// What the client is told.
pub async fn answer(request: Request<'_>) -> Result<Answer, StanzaError> {
    let (name, namespace) = (request.payload.name.as_str(), request.payload.ns.as_str());
    match ALL.iter().find(|f| f.payloads.contains(&(name, namespace))) {
        Some(feature) => (feature.handle)(request).await,
        None => Err(StanzaError::SERVICE_UNAVAILABLE),
    }
}

/// What is put beside the condition of an error.
pub fn error_detail(_error: &StanzaError, _payload: &Element) -> &'static str {
    ""
}

/// Reports a failed store and says what the client is told.
pub fn store_failed(core: &Core, doing: &str, error: &StoreError) -> StanzaError {
    core.report(doing, error);
    match error {
        StoreError::Invalid { .. } => StanzaError::NOT_ACCEPTABLE,
        _ => StanzaError::INTERNAL_SERVER_ERROR,
    }
}

impl Request<'_> {
    /// The account that the request is about, when it is the sender's own.
    ///
    /// # Errors
    /// `forbidden` for anything else.
    pub fn own_account(&self) -> Result<&str, StanzaError> {
        match self.target {
            Target::Own => Ok(self.session.address.bare()),
            _ => Err(StanzaError::FORBIDDEN),
        }
    }

    /// True when the sender may see the presence of `contact`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sees(&self, contact: &Address) -> Result<bool, StanzaError> {
        let contacts = self.session.user.contacts(&self.core.store).await;
        let contacts = contacts.map_err(|e| store_failed(self.core, "cannot read a roster", &e))?;
        Ok(contacts.iter().any(|c| c.sees_contact && c.address == *contact))
    }
}
