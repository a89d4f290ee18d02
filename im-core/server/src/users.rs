//! Accounts that matter at the moment: those with sessions on this node, and those that were just looked up.
//!
//! Each has one shared [`User`] with its sessions here and what routing needs to know of the account (does it
//! exist, whom does it block, what does it archive, who sees its presence), read from the store once and kept
//! until it is told that it changed, or for [`FRESH`] at most when the change may come from another node.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use im_proto::Address;
use im_store::{
    AccountKind, Accounts as _, ArchivePreferences, DefaultPolicy, Profiles as _, Rosters as _, Store,
    StoreError,
};

use crate::session::Session;

/// For how long what is known of an account is believed without asking again.
pub const FRESH: Duration = Duration::from_secs(30);
const SHARDS: usize = 64;

/// What routing needs to know of an account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// There is such an account.
    pub exists: bool,
    /// It is a canary (may exchange messages only with canaries, is counted nowhere).
    pub canary: bool,
    /// Nobody may sign in to it.
    pub disabled: bool,
    /// Addresses it blocks: bare, full or domain.
    pub blocked: Vec<Address>,
    /// What it archives.
    pub archive: ArchivePreferences,
}

impl Profile {
    /// True when `other` is blocked: its full address, its bare address, or its domain (XEP-0191 §3).
    pub fn blocks(&self, other: &Address) -> bool {
        self.blocked.iter().any(|b| {
            b == other || b.as_str() == other.bare() || (b.local().is_none() && b.as_str() == other.domain())
        })
    }
}

/// A contact, as far as presence needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Bare address.
    pub address: Address,
    /// The owner sees the contact.
    pub sees_contact: bool,
    /// The contact sees the owner.
    pub seen_by_contact: bool,
    /// It is in the roster that clients see.
    pub listed: bool,
}

/// An account with its sessions on this node.
#[derive(Debug)]
pub struct User {
    /// Bare address.
    pub address: Address,
    sessions: Mutex<Vec<Arc<Session>>>,
    profile: Mutex<Option<(Arc<Profile>, Instant)>>,
    contacts: Mutex<Option<(Arc<[Contact]>, Instant)>>,
    /// How often what is known was forgotten: an answer that was asked for before is not kept.
    changes: AtomicU64,
    /// How often all its sessions were closed: one that is being made meanwhile has to notice.
    pub closings: AtomicU64,
    /// Held while messages that wait are handed out, so that none goes out twice.
    pub offline: Arc<tokio::sync::Mutex<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half changed by a panic while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl User {
    /// An account without sessions of which nothing is known yet.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            sessions: Mutex::default(),
            profile: Mutex::default(),
            contacts: Mutex::default(),
            closings: AtomicU64::new(0),
            offline: Arc::default(),
            changes: AtomicU64::new(0),
        }
    }

    /// Bare address as text.
    pub fn bare(&self) -> &str {
        self.address.as_str()
    }

    /// Its sessions on this node.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        lock(&self.sessions).clone()
    }

    /// Calls `f` with its sessions on this node, without copying them. `f` must not ask for sessions again.
    pub fn with_sessions<R>(&self, f: impl FnOnce(&[Arc<Session>]) -> R) -> R {
        f(&lock(&self.sessions))
    }

    /// Adds a session and returns the one of the same resource that it replaces.
    pub fn add(&self, session: Arc<Session>) -> Option<Arc<Session>> {
        let mut sessions = lock(&self.sessions);
        match sessions.iter_mut().find(|s| s.resource() == session.resource()) {
            Some(old) => Some(std::mem::replace(old, session)),
            None => {
                sessions.reserve_exact(1);
                sessions.push(session);
                None
            }
        }
    }

    /// Removes a session, unless another has taken its place. True when it was there.
    pub fn remove(&self, token: u64) -> bool {
        let mut sessions = lock(&self.sessions);
        let before = sessions.len();
        sessions.retain(|s| s.token != token);
        sessions.len() < before
    }

    /// What is known, when it is fresh.
    pub fn known_profile(&self) -> Option<Arc<Profile>> {
        lock(&self.profile).as_ref().filter(|(_, at)| at.elapsed() < FRESH).map(|(p, _)| Arc::clone(p))
    }

    /// What routing needs to know, from memory or the store.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn profile(&self, store: &Store) -> Result<Arc<Profile>, StoreError> {
        match self.known_profile() {
            Some(profile) => Ok(profile),
            None => self.fresh_profile(store).await,
        }
    }

    /// What routing needs to know, as it is in the store now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn fresh_profile(&self, store: &Store) -> Result<Arc<Profile>, StoreError> {
        let changes = self.changes.load(Ordering::SeqCst);
        let account = store.account(self.bare()).await?;
        let mut profile = Profile::default();
        if let Some(account) = account {
            profile.exists = true;
            profile.canary = account.kind == AccountKind::Canary;
            profile.disabled = account.disabled;
            let blocked = store.blocked(self.bare()).await?;
            profile.blocked = blocked.iter().filter_map(|b| Address::parse(b).ok()).collect();
            profile.archive = store.archive_preferences(self.bare()).await?;
        }
        let profile = Arc::new(profile);
        self.keep(changes, &self.profile, &profile);
        Ok(profile)
    }

    /// Who sees whom, from memory or the store.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn contacts(&self, store: &Store) -> Result<Arc<[Contact]>, StoreError> {
        if let Some((contacts, at)) = &*lock(&self.contacts)
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(contacts));
        }
        let changes = self.changes.load(Ordering::SeqCst);
        let roster = store.roster(self.bare()).await?;
        let contacts: Arc<[Contact]> = roster
            .items
            .iter()
            .filter_map(|item| {
                Some(Contact {
                    address: Address::parse(&item.contact).ok()?,
                    sees_contact: item.subscription.sees_contact(),
                    seen_by_contact: item.subscription.seen_by_contact(),
                    listed: item.listed,
                })
            })
            .collect();
        self.keep(changes, &self.contacts, &contacts);
        Ok(contacts)
    }

    /// Keeps what was read, unless it was to be forgotten since.
    fn keep<T: ?Sized>(&self, changes: u64, place: &Mutex<Option<(Arc<T>, Instant)>>, read: &Arc<T>) {
        let mut place = lock(place);
        if self.changes.load(Ordering::SeqCst) == changes {
            *place = Some((Arc::clone(read), Instant::now()));
        }
    }

    /// Whether messages with `peer` belong into this account's archive (XEP-0441).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn archives(
        &self,
        store: &Store,
        profile: &Profile,
        peer: &Address,
    ) -> Result<bool, StoreError> {
        let preferences = &profile.archive;
        let named = |list: &[String]| list.iter().any(|a| a == peer.as_str() || a == peer.bare());
        if named(&preferences.never) {
            return Ok(false);
        }
        if named(&preferences.always) {
            return Ok(true);
        }
        Ok(match preferences.default {
            DefaultPolicy::Always => true,
            DefaultPolicy::Never => false,
            DefaultPolicy::Roster => {
                self.contacts(store).await?.iter().any(|c| c.listed && c.address.as_str() == peer.bare())
            }
        })
    }

    /// Forgets what was read from the store.
    pub fn forget(&self) {
        // Counted first: whoever keeps an answer does so under the lock that is taken next.
        self.changes.fetch_add(1, Ordering::SeqCst);
        *lock(&self.profile) = None;
        *lock(&self.contacts) = None;
    }

    /// Forgets who sees whom.
    pub fn forget_contacts(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        *lock(&self.contacts) = None;
    }
}

/// All accounts that matter at the moment.
#[derive(Debug)]
pub struct Users {
    shards: Vec<RwLock<HashMap<Box<str>, Arc<User>>>>,
    hasher: RandomState,
}

impl Default for Users {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), hasher: RandomState::new() }
    }
}

impl Users {
    fn shard(&self, bare: &str) -> &RwLock<HashMap<Box<str>, Arc<User>>> {
        &self.shards[self.hasher.hash_one(bare) as usize % SHARDS]
    }

    /// The account at this bare address, if it matters already.
    pub fn find(&self, bare: &str) -> Option<Arc<User>> {
        self.shard(bare).read().unwrap_or_else(PoisonError::into_inner).get(bare).cloned()
    }

    /// The account at the bare part of this address; made when it is new here.
    pub fn get(&self, address: &Address) -> Arc<User> {
        if let Some(user) = self.find(address.bare()) {
            return user;
        }
        let mut shard = self.shard(address.bare()).write().unwrap_or_else(PoisonError::into_inner);
        let user =
            shard.entry(address.bare().into()).or_insert_with(|| Arc::new(User::new(address.to_bare())));
        Arc::clone(user)
    }

    /// All sessions on this node.
    pub fn all_sessions(&self) -> Vec<Arc<Session>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            for user in shard.read().unwrap_or_else(PoisonError::into_inner).values() {
                user.with_sessions(|sessions| all.extend(sessions.iter().cloned()));
            }
        }
        all
    }

    /// Drops accounts without sessions that nobody holds, and what is no longer fresh of the others.
    pub fn tidy(&self) {
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            // The map is locked, so a count of one means that nobody else can get hold of it.
            shard.retain(|_, user| {
                Arc::strong_count(user) > 1
                    || user.known_profile().is_some()
                    || !user.with_sessions(<[Arc<Session>]>::is_empty)
            });
            if shard.capacity() > 64 && shard.capacity() / 4 > shard.len() {
                shard.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocking_matches_full_bare_and_domain() {
        let a = |s: &str| Address::parse(s).unwrap();
        let profile = Profile { blocked: vec![a("x@d"), a("y@d/r"), a("bad.example")], ..Profile::default() };
        for (address, blocked) in [
            ("x@d", true),
            ("x@d/any", true),
            ("y@d", false),
            ("y@d/r", true),
            ("z@bad.example/r", true),
            ("z@d", false),
        ] {
            assert_eq!(profile.blocks(&a(address)), blocked, "{address}");
        }
    }
}
