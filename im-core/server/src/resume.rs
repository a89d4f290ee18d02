//! Sessions that can be resumed on this node, by their resumption identifier (XEP-0198 §5).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::passwords::random_bytes;
use crate::session::Session;

/// The sessions.
#[derive(Debug, Default)]
pub struct Resumable(Mutex<HashMap<Box<str>, Weak<Session>>>);

impl Resumable {
    /// An identifier that cannot be guessed.
    pub fn fresh_id() -> String {
        URL_SAFE_NO_PAD.encode(random_bytes(18))
    }

    /// Enters a session.
    pub fn insert(&self, id: &str, session: &Arc<Session>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.into(), Arc::downgrade(session));
    }

    /// Finds a session.
    pub fn find(&self, id: &str) -> Option<Arc<Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).and_then(Weak::upgrade)
    }

    /// Forgets sessions that are gone.
    pub fn tidy(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, session| session.strong_count() > 0);
    }
}
