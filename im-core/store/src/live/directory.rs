//! The replica of the directory of sessions: bare JID to sessions, in shards so that lookups from many threads
//! do not wait for each other. No I/O, no waiting.

use super::{NodeId, Session};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const SHARDS: usize = 32;

type Shard = HashMap<Arc<str>, Vec<Session>>;

/// All sessions that are known here.
#[derive(Debug)]
pub(super) struct Directory {
    shards: Vec<RwLock<Shard>>,
    hasher: RandomState,
    count: AtomicU64,
}

impl Directory {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            count: AtomicU64::new(0),
        }
    }

    fn shard(&self, bare: &str) -> &RwLock<Shard> {
        &self.shards[self.hasher.hash_one(bare) as usize % SHARDS]
    }

    // A shard is never left half changed, so a panic elsewhere while it was held spoils nothing.
    fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
        shard.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
        shard.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sessions there are.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The sessions of a bare JID.
    pub(super) fn sessions(&self, bare: &str) -> Vec<Session> {
        Self::read(self.shard(bare)).get(bare).cloned().unwrap_or_default()
    }

    /// Enters a session and returns the one of the same resource before it.
    pub(super) fn put(&self, session: Session) -> Option<Session> {
        let mut shard = Self::write(self.shard(&session.bare));
        let sessions = shard.entry(Arc::clone(&session.bare)).or_default();
        match sessions.iter_mut().find(|known| known.resource == session.resource) {
            Some(known) => Some(std::mem::replace(known, session)),
            None => {
                // Most accounts have one session: a vector that grows by doubling would waste three slots each.
                sessions.reserve_exact(1);
                sessions.push(session);
                self.count.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Replaces a session if it is the same one still. Says whether it was.
    pub(super) fn update(&self, session: Session) -> bool {
        let mut shard = Self::write(self.shard(&session.bare));
        let Some(sessions) = shard.get_mut(&session.bare) else { return false };
        let same = |known: &&mut Session| known.resource == session.resource && known.token == session.token;
        match sessions.iter_mut().find(same) {
            Some(known) => {
                *known = session;
                true
            }
            None => false,
        }
    }

    /// Removes a session if it is the same one still, and returns it.
    pub(super) fn remove(&self, bare: &str, resource: &str, token: u64) -> Option<Session> {
        let mut shard = Self::write(self.shard(bare));
        let sessions = shard.get_mut(bare)?;
        let at = sessions.iter().position(|known| &*known.resource == resource && known.token == token)?;
        let gone = sessions.swap_remove(at);
        if sessions.is_empty() {
            shard.remove(bare);
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(gone)
    }

    /// Removes and returns the sessions that `gone` picks.
    pub(super) fn remove_where(&self, gone: impl Fn(&Session) -> bool) -> Vec<Session> {
        let mut removed = Vec::new();
        for shard in &self.shards {
            let mut shard = Self::write(shard);
            shard.retain(|_, sessions| {
                removed.extend(sessions.extract_if(.., |session| gone(session)));
                !sessions.is_empty()
            });
        }
        self.count.fetch_sub(removed.len() as u64, Ordering::Relaxed);
        removed
    }

    /// The sessions that a node holds.
    pub(super) fn of_node(&self, node: &NodeId) -> Vec<Session> {
        let mut found = Vec::new();
        for shard in &self.shards {
            found.extend(
                Self::read(shard).values().flatten().filter(|session| session.node == *node).cloned(),
            );
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(bare: &str, resource: &str, token: u64) -> Session {
        Session {
            bare: bare.into(),
            resource: resource.into(),
            node: NodeId::from_text("n#1"),
            token,
            priority: None,
            presence: None,
            carbons: false,
        }
    }

    #[test]
    fn an_old_session_cannot_remove_or_change_its_successor() {
        let directory = Directory::new();
        assert_eq!(directory.put(session("a@x", "r", 1)), None);
        assert_eq!(directory.put(session("a@x", "r", 2)).map(|old| old.token), Some(1));
        assert_eq!(directory.remove("a@x", "r", 1), None);
        assert!(!directory.update(Session { priority: Some(5), ..session("a@x", "r", 1) }));
        assert_eq!(directory.sessions("a@x"), vec![session("a@x", "r", 2)]);
        assert_eq!(directory.count(), 1);
        assert!(directory.remove("a@x", "r", 2).is_some());
        assert_eq!(directory.count(), 0);
        assert!(directory.sessions("a@x").is_empty());
    }

    #[test]
    fn a_node_is_removed_whole() {
        let directory = Directory::new();
        for number in 0..100 {
            let mut entry = session(&format!("u{number}@x"), "r", number);
            if number % 2 == 0 {
                entry.node = NodeId::from_text("n#2");
            }
            directory.put(entry);
        }
        let other = NodeId::from_text("n#2");
        assert_eq!(directory.of_node(&other).len(), 50);
        assert_eq!(directory.remove_where(|session| session.node == other).len(), 50);
        assert_eq!((directory.of_node(&other).len(), directory.count()), (0, 50));
    }
}
