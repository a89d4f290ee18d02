//! What nodes ask each other before they hand out what waits, and what follows from a node's death.
//!
//! A message that waits may be held by a session on another node, which will confirm it. Before a node hands out to
//! an account that has sessions elsewhere, it asks those nodes what they hold ([`Cluster::held_elsewhere`]). One that
//! is just handing out to the same account says that it is busy; when two ask each other at once, the one whose
//! name comes first goes on. A node that is gone is not waited for.
//!
//! A node that is lost leaves sessions that nobody may see any more, messages that its sessions held, and perhaps
//! some that it had stored and not yet handed over: each other node looks after its own accounts ([`lost`]).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use im_proto::Address;
use im_store::live::{self, NodeId};
use im_store::{Accounts as _, MessageId};
use tokio::sync::oneshot;

use crate::cluster::{Cluster, Message};
use crate::core::Core;
use crate::offline;
use crate::presence::{addressed, unavailable_from};
use crate::routing;
use crate::session::{Close, Urgency};

/// How long one answer may take, and how long a node that does not answer is asked.
const ANSWER: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
/// What a dead node stored and did not hand over is younger than this: its lease, and how long commits are tried.
const UNSENT: Duration = Duration::from_mins(5);
/// Accounts looked up in one query.
const ACCOUNTS: usize = 500;

/// What other nodes hold of what waits for an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Elsewhere {
    /// These messages.
    Holds(Vec<MessageId>),
    /// One of them is handing out.
    Busy,
}

/// Whether a node is handing out, and what it holds.
type Answer = (bool, Vec<i64>);

/// Questions that wait for their answer.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    next: AtomicU64,
    open: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    /// Accounts that this node is asking about.
    about: Mutex<HashSet<Box<str>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half changed by a panic while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Questions {
    /// Gives an answer to whoever waits for it.
    pub(crate) fn answered(&self, number: u64, busy: bool, ids: Vec<i64>) {
        if let Some(asker) = lock(&self.open).remove(&number) {
            // It may have stopped waiting.
            let _ = asker.send((busy, ids));
        }
    }
}

/// Takes an account off the list of those that are asked about.
struct Asking<'a>(&'a Questions, &'a str);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        lock(&self.0.about).remove(self.1);
    }
}

impl Cluster {
    /// What sessions of an account on other nodes hold. Takes as long as the slowest of them; half a minute at most.
    pub(crate) async fn held_elsewhere(&self, core: &Arc<Core>, bare: &str) -> Elsewhere {
        let all = match core.live.sessions_now(bare).await {
            Ok(all) => all,
            // Our copy is the best there is.
            Err(_) => core.live.sessions(bare),
        };
        let mut nodes: Vec<NodeId> = all.into_iter().map(|session| session.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.retain(|node| node != core.live.node());
        if nodes.is_empty() {
            return Elsewhere::Holds(Vec::new());
        }
        lock(&self.questions.about).insert(bare.into());
        let _asking = Asking(&self.questions, bare);
        let mut held = Vec::new();
        for node in nodes {
            match self.ask(core, &node, bare).await {
                Some((true, _)) => return Elsewhere::Busy,
                Some((false, ids)) => held.extend(ids.into_iter().map(MessageId::from_i64)),
                // Gone, and what it held with it.
                None => {}
            }
        }
        Elsewhere::Holds(held)
    }

    async fn ask(&self, core: &Arc<Core>, node: &NodeId, bare: &str) -> Option<Answer> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE && core.live.nodes().iter().any(|status| status.node == *node) {
            let number = self.questions.next.fetch_add(1, Ordering::Relaxed);
            let (sender, answer) = oneshot::channel();
            lock(&self.questions.open).insert(number, sender);
            self.enqueue(core, node, Message::AskHeld { bare: bare.to_owned(), number });
            let answer = tokio::time::timeout(ANSWER, answer).await;
            lock(&self.questions.open).remove(&number);
            if let Ok(Ok(answer)) = answer {
                return Some(answer);
            }
        }
        None
    }
}

/// Answers another node's question.
pub(crate) fn answer(core: &Arc<Core>, from: &NodeId, bare: &str, number: u64) {
    let serving = core.users.find(bare).is_some_and(|user| user.offline.try_lock().is_err());
    // Who only asks yet gives way to who comes first by name.
    let gives_way = lock(&core.cluster.questions.about).contains(bare) && from < core.live.node();
    let busy = serving && !gives_way;
    let ids = if busy { Vec::new() } else { offline::held_here(core, bare) };
    let ids = ids.into_iter().map(MessageId::as_i64).collect();
    core.cluster.enqueue(core, from, Message::Held { number, busy, ids });
}

/// A node died or left: tells the clients here that its sessions are gone, and looks after what it left.
pub(crate) async fn lost(core: &Arc<Core>, sessions: Vec<live::Session>) {
    tell(core, &sessions).await;
    let mut owners: Vec<&str> = sessions.iter().map(|session| &*session.bare).collect();
    owners.sort_unstable();
    owners.dedup();
    for bare in owners {
        let here = core.users.find(bare).is_some_and(|user| user.with_sessions(|s| !s.is_empty()));
        if here {
            offline::wake(core, bare, None).await;
        }
    }
    let age = i64::try_from(UNSENT.as_millis()).unwrap_or(i64::MAX);
    offline::wake_all_since(core, crate::now_ms().saturating_sub(age)).await;
}

async fn tell(core: &Arc<Core>, sessions: &[live::Session]) {
    for lost in sessions.iter().filter(|s| s.priority.is_some()) {
        let Ok(owner) = Address::parse(&lost.bare) else { continue };
        let user = core.users.get(&owner);
        let gone = unavailable_from(&format!("{}/{}", lost.bare, lost.resource));
        let mut told = vec![owner];
        match user.contacts(&core.store).await {
            Ok(contacts) => {
                told.extend(contacts.iter().filter(|c| c.seen_by_contact).map(|c| c.address.clone()));
            }
            Err(error) => core.report("cannot read a roster", &error),
        }
        for address in told {
            for resource in routing::sessions(core, address.as_str()) {
                if let routing::Resource::Here(session) = resource
                    && session.priority().is_some()
                {
                    session.push(&addressed(&gone, address.as_str()), None, Urgency::Later);
                }
            }
        }
    }
}

/// Ends sessions of accounts that were disabled or removed through another node, should its word not have come
/// through. Called now and then where there are other nodes.
pub(crate) async fn end_refused(core: &Arc<Core>) {
    let mut online: Vec<String> =
        core.users.all_sessions().iter().map(|session| session.address.bare().to_owned()).collect();
    online.sort_unstable();
    online.dedup();
    for some in online.chunks(ACCOUNTS) {
        match core.store.refused_accounts(some).await {
            Ok(refused) => {
                for bare in refused {
                    core.close_sessions(&bare, Close::Revoked);
                }
            }
            Err(error) => {
                core.report("cannot look for accounts that were disabled", &error);
                return;
            }
        }
    }
}
