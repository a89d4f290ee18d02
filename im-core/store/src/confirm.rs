//! Messages that reached a client and whose marks ("awaits delivery") are still to be removed.
//!
//! Sessions say so many thousand times a second and never wait for it: identifiers gather here, and the archive
//! writer takes them along with its next transaction, or in one of their own after [`DELAY`] when nothing else is
//! written. A process that dies in between hands those messages out again; none is lost by it.
//!
//! Until the removal is committed an identifier counts as delivered already: what reads marks asks
//! [`Confirmations::of`] first and leaves those out. First, because what is no longer here by then is no longer
//! in the database either.

use crate::MessageId;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How long marks may wait for something else to be written.
pub(crate) const DELAY: Duration = Duration::from_millis(250);
/// Most marks that one transaction removes.
pub(crate) const MOST: usize = 4096;

/// Identifiers by owner.
pub(crate) type Marks = HashMap<Arc<str>, Vec<i64>>;

/// What waits, and what is being removed.
#[derive(Debug, Default)]
pub(crate) struct Confirmations {
    inner: Mutex<Inner>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    queued: Marks,
    writing: VecDeque<Arc<Marks>>,
    /// Somebody sees to it that the queue is taken.
    scheduled: bool,
    /// A transaction with some of them failed: until one succeeds they are not put together with messages.
    suspect: bool,
}

impl Confirmations {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing is left half changed by a panic while this is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues identifiers. True when the caller is to see to it that the queue is taken: it then calls
    /// [`Confirmations::is_done`] until that says so.
    pub(crate) fn add(&self, owner: &str, ids: &[MessageId]) -> bool {
        if ids.is_empty() {
            return false;
        }
        let mut inner = self.lock();
        let numbers = ids.iter().map(|id| id.as_i64());
        match inner.queued.get_mut(owner) {
            Some(queue) => queue.extend(numbers),
            None => {
                inner.queued.insert(owner.into(), numbers.collect());
            }
        }
        !std::mem::replace(&mut inner.scheduled, true)
    }

    /// True when nothing is left, and the duty to see to it is over.
    pub(crate) fn is_done(&self) -> bool {
        let mut inner = self.lock();
        inner.scheduled = !(inner.queued.is_empty() && inner.writing.is_empty());
        !inner.scheduled
    }

    /// Takes what is queued, [`MOST`] at a time; give it back to [`Confirmations::finish`]. `alone`: nothing else is
    /// written with it.
    pub(crate) fn take(&self, alone: bool) -> Option<Arc<Marks>> {
        let mut inner = self.lock();
        if inner.queued.is_empty() || (inner.suspect && !alone) {
            return None;
        }
        let total: usize = inner.queued.values().map(Vec::len).sum();
        let taken = if total <= MOST {
            std::mem::take(&mut inner.queued)
        } else {
            let mut taken = Marks::new();
            let mut room = MOST;
            let owners: Vec<Arc<str>> = inner.queued.keys().cloned().collect();
            for owner in owners {
                let Some(queue) = inner.queued.get_mut(&owner) else { continue };
                let ids: Vec<i64> = queue.drain(..queue.len().min(room)).collect();
                room -= ids.len();
                if queue.is_empty() {
                    inner.queued.remove(&owner);
                }
                taken.insert(owner, ids);
                if room == 0 {
                    break;
                }
            }
            taken
        };
        let taken = Arc::new(taken);
        inner.writing.push_back(Arc::clone(&taken));
        Some(taken)
    }

    /// Says what became of what was taken. What was not removed is queued again.
    pub(crate) fn finish(&self, taken: &Arc<Marks>, removed: bool) {
        let mut inner = self.lock();
        inner.writing.retain(|other| !Arc::ptr_eq(other, taken));
        inner.suspect = !removed;
        if !removed {
            for (owner, ids) in &**taken {
                inner.queued.entry(Arc::clone(owner)).or_default().extend(ids);
            }
        }
        drop(inner);
        self.settled.notify_waiters();
    }

    /// True when the last transaction with some of them failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().suspect
    }

    /// What of `owner` reached a client and is marked still.
    pub(crate) fn of(&self, owner: &str) -> HashSet<i64> {
        let inner = self.lock();
        let queued = inner.queued.get(owner);
        let writing = inner.writing.iter().filter_map(|marks| marks.get(owner));
        queued.into_iter().chain(writing).flatten().copied().collect()
    }

    /// True when every mark is removed.
    fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.queued.is_empty() && inner.writing.is_empty()
    }

    /// Waits until every mark is removed, or those that `owner` has now; `wake` has the writer take what is queued.
    pub(crate) async fn settle<F: Future<Output = ()>>(&self, owner: Option<&str>, wake: impl Fn() -> F) {
        let ids = owner.map(|owner| self.of(owner)).unwrap_or_default();
        let is_settled = || match owner {
            Some(owner) => ids.is_empty() || self.of(owner).is_disjoint(&ids),
            None => self.is_empty(),
        };
        loop {
            let settled = self.settled.notified();
            let mut settled = std::pin::pin!(settled);
            settled.as_mut().enable();
            if is_settled() {
                return;
            }
            wake().await;
            // A batch that failed is told too, and tried again at once: its caller has a deadline.
            settled.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<i64>) -> Vec<MessageId> {
        range.map(MessageId::from_i64).collect()
    }

    #[test]
    fn a_mark_counts_until_its_removal_is_committed() {
        let all = Confirmations::default();
        assert!(all.add("a@x", &ids(0..3)), "the first has to be seen to");
        assert!(!all.add("b@x", &ids(3..4)));
        let taken = all.take(false).unwrap();
        assert!(all.take(true).is_none());
        assert_eq!(all.of("a@x"), HashSet::from([0, 1, 2]));
        all.finish(&taken, false);
        assert_eq!(all.of("b@x"), HashSet::from([3]));
        assert!(!all.is_done());
        assert!(all.take(false).is_none(), "what failed once spoils no messages");
        let taken = all.take(true).unwrap();
        all.finish(&taken, true);
        assert!(all.of("a@x").is_empty() && all.is_empty() && all.is_done());
        assert!(all.add("a@x", &ids(5..6)), "the duty was over");
    }

    #[test]
    fn a_transaction_removes_a_bounded_number() {
        let all = Confirmations::default();
        all.add("a@x", &ids(0..MOST as i64 - 1));
        all.add("b@x", &ids(0..3));
        let count = |marks: &Marks| marks.values().map(Vec::len).sum::<usize>();
        let first = all.take(false).unwrap();
        let second = all.take(false).unwrap();
        assert_eq!((count(&first), count(&second)), (MOST, 2));
        assert_eq!(all.of("a@x").len(), MOST - 1);
    }
}
