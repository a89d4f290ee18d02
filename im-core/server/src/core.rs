//! What every part of the server shares: configuration, store, live state, accounts with their sessions,
//! metrics. Made once by [`crate::server`]; handed around as one `Arc`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use im_proto::Address;
use im_store::Store;
use im_store::live::Live;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::passwords::Passwords;
use crate::resume::Resumable;
use crate::session::{Close, Session};
use crate::tls::Tls;
use crate::users::Users;

/// Shared state of the server.
#[derive(Debug)]
pub struct Core {
    /// The configuration as it was read.
    pub config: Config,
    /// The served domain, as an address.
    pub domain: Address,
    /// What must last.
    pub store: Store,
    /// What is live.
    pub live: Live,
    /// Routing to other nodes.
    pub cluster: Cluster,
    /// Accounts and sessions on this node.
    pub users: Users,
    /// Sessions that can be resumed.
    pub resumable: Resumable,
    /// Counters.
    pub metrics: Metrics,
    /// Derivation of passwords.
    pub passwords: Passwords,
    /// Certificates.
    pub tls: Option<Tls>,
    /// Makes salts for names without account.
    pub salt_secret: Vec<u8>,
    /// When the server started.
    pub started: Instant,
    /// No new sessions are taken.
    pub draining: AtomicBool,
    /// The listeners are bound.
    pub listening: AtomicBool,
    /// Wakes what waits for the end.
    pub stop: tokio::sync::watch::Sender<bool>,
    /// The end of an upgrade of the schema.
    pub finalizing: crate::schema::Finalizing,
    /// Accounts and addresses that failed to sign in too often.
    pub throttled: Throttled,
    unfinished: AtomicU64,
    next_token: AtomicU64,
    recent_errors: Mutex<Option<(String, Instant)>>,
}

impl Core {
    /// Puts the parts together.
    pub fn new(
        config: Config,
        domain: Address,
        store: Store,
        live: Live,
        cluster: Cluster,
        tls: Option<Tls>,
        salt_secret: Vec<u8>,
    ) -> Self {
        let passwords = Passwords::new(&config.limits);
        Self {
            config,
            domain,
            store,
            live,
            cluster,
            users: Users::default(),
            resumable: Resumable::default(),
            metrics: Metrics::default(),
            passwords,
            tls,
            salt_secret,
            started: Instant::now(),
            draining: AtomicBool::new(false),
            listening: AtomicBool::new(false),
            stop: tokio::sync::watch::Sender::new(false),
            finalizing: crate::schema::Finalizing::default(),
            throttled: Throttled::default(),
            unfinished: AtomicU64::new(0),
            next_token: AtomicU64::new(rand::random::<u64>() >> 16),
            recent_errors: Mutex::default(),
        }
    }

    /// A number that no other session of this node has.
    pub fn token(&self) -> u64 {
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    /// True for an address on the served domain itself.
    pub fn is_local(&self, address: &Address) -> bool {
        address.domain() == self.domain.as_str()
    }

    /// True when no new sessions are to be taken.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Logs a failure of the store or live state, the same one at most once in a second: a database that is
    /// down fails thousands of operations with one cause.
    pub fn report(&self, doing: &str, error: &dyn std::error::Error) {
        self.metrics.store_errors.add(1);
        let text = format!("{doing}: {}", crate::chain(error));
        let mut recent = self.recent_errors.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.as_ref().is_none_or(|(last, at)| *last != text || at.elapsed().as_secs() >= 1) {
            tracing::error!("{text}");
            *recent = Some((text, Instant::now()));
        }
    }

    /// Counts work that needs the store and is not part of a session that is still there, until it is dropped.
    pub fn begin_work(self: &Arc<Self>) -> Unfinished {
        self.unfinished.fetch_add(1, Ordering::SeqCst);
        Unfinished(Arc::clone(self))
    }

    /// True while work from [`Core::begin_work`] goes on: the store must not be closed yet.
    pub fn has_unfinished_work(&self) -> bool {
        self.unfinished.load(Ordering::SeqCst) > 0
    }

    /// Closes all sessions of an account on this node.
    pub fn close_sessions(self: &Arc<Self>, bare: &str, reason: Close) {
        let Some(user) = self.users.find(bare) else { return };
        user.forget();
        user.closings.fetch_add(1, Ordering::SeqCst);
        for session in user.sessions() {
            self.close_session(&session, reason);
        }
    }

    /// Closes one session: by its connection, or at once when it has none.
    pub fn close_session(self: &Arc<Self>, session: &Arc<Session>, reason: Close) {
        session.close(reason);
        if !session.is_attached() {
            let (core, session) = (Arc::clone(self), Arc::clone(session));
            let work = self.begin_work();
            tokio::spawn(async move {
                crate::presence::session_ended(&core, &session).await;
                drop(work);
            });
        }
    }
}

/// Work that a stop waits for; made by [`Core::begin_work`].
#[derive(Debug)]
pub struct Unfinished(Arc<Core>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.unfinished.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Keys that are refused until a moment.
#[derive(Debug, Default)]
pub struct Throttled(Mutex<std::collections::HashMap<String, Instant>>);

impl Throttled {
    /// Refuses this key for `time`.
    pub fn enter(&self, key: String, time: std::time::Duration) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() > 10_000 {
            let now = Instant::now();
            keys.retain(|_, until| *until > now);
        }
        keys.insert(key, Instant::now() + time);
    }

    /// True while this key is refused.
    pub fn contains(&self, key: &str) -> bool {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !keys.is_empty() && keys.get(key).is_some_and(|until| *until > Instant::now())
    }
}
