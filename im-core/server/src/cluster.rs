//! Between nodes: stanzas for sessions elsewhere, and news that concern what other nodes keep in memory.
//!
//! Each other node has a queue and a task that sends what queued up as one payload, so that order is kept and a
//! busy pair of nodes needs few round trips. What a node does not take over comes back: messages wait in the store
//! anyway and go to another session, what ends sessions is tried again, the rest is presence and iqs, whose
//! senders time out by themselves. What follows from a node's death is in [`crate::nodes`]. On a single node none
//! of this runs.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use im_proto::ns;
use im_proto::xml::Element;
use im_store::MessageId;
use im_store::live::{self, Delivery, LiveEvent, NodeId};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::core::{Core, Unfinished};
use crate::features::roster;
use crate::nodes::{self, Questions};
use crate::session::{Close, Pushed, Room, Session, Urgency};
use crate::{offline, routing};

/// What nodes tell each other. A node that is older than the sender leaves out the kinds it does not know, and takes
/// the rest: so each kind is a hint that may be lost. What must not be lost waits in the store, and is found there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Message {
    /// A stanza for a session.
    Stanza {
        bare: String,
        resource: String,
        token: u64,
        stanza: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<i64>,
        #[serde(default)]
        later: bool,
    },
    /// A roster item changed.
    RosterPush { bare: String, query: String, version: u64 },
    /// What is known of an account is no longer true.
    Forget { bare: String },
    /// Another session took this one's resource.
    Close { bare: String, resource: String, token: u64 },
    /// An account was disabled, removed, or has a new password.
    CloseAccount { bare: String },
    /// Hand out what waits for an account.
    FlushOffline { bare: String, resource: String, token: u64 },
    /// Which messages that wait are held by sessions of an account?
    AskHeld { bare: String, number: u64 },
    /// These; or `busy`: they are being handed out.
    Held { number: u64, busy: bool, ids: Vec<i64> },
}

/// Messages that wait for one node, at most. A node that is so far behind is treated as gone.
const QUEUE: usize = 50_000;
/// Messages in one payload, at most.
const BATCH: usize = 256;

/// What could not be told and is tried again, at most.
const AGAIN: usize = 10_000;

/// A message in a queue; a stop waits until it is sent.
struct Queued {
    message: Message,
    _work: Unfinished,
}

/// Queues to the other nodes.
#[derive(Default)]
pub struct Cluster {
    queues: Mutex<HashMap<NodeId, mpsc::Sender<Queued>>>,
    /// Accounts for whom something waits and perhaps nobody who can have it knows.
    waiting: Mutex<HashSet<Box<str>>>,
    /// What other nodes have to know and could not be told.
    again: Mutex<Vec<(NodeId, Message)>>,
    /// Questions to other nodes.
    pub(crate) questions: Questions,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing is left half changed by a panic while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    pub(crate) fn enqueue(&self, core: &Arc<Core>, node: &NodeId, message: Message) {
        let mut queues = lock(&self.queues);
        let queue = queues.entry(node.clone()).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(send_all(Arc::clone(core), node.clone(), receiver));
            sender
        });
        let refused = match queue.try_send(Queued { message, _work: core.begin_work() }) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(queued) | mpsc::error::TrySendError::Closed(queued)) => {
                queued
            }
        };
        if queue.is_closed() {
            queues.remove(node);
        }
        drop(queues);
        let (core, node) = (Arc::clone(core), node.clone());
        tokio::spawn(async move { put_back(&core, &node, vec![refused]).await });
    }

    /// Has somebody look for a session for what waits for this account, in a while.
    pub fn look_again_for(&self, bare: &str) {
        lock(&self.waiting).insert(bare.into());
    }

    /// Tries again what could not be done before. Called now and then.
    pub async fn retry(&self, core: &Arc<Core>) {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        for bare in waiting {
            offline::wake(core, &bare, None).await;
        }
        let again = std::mem::take(&mut *lock(&self.again));
        if !again.is_empty() {
            let nodes: HashSet<NodeId> = core.live.nodes().into_iter().map(|status| status.node).collect();
            // Who is gone has no sessions and remembers nothing.
            for (node, message) in again.into_iter().filter(|(node, _)| nodes.contains(node)) {
                self.enqueue(core, &node, message);
            }
        }
    }

    fn to_others(&self, core: &Arc<Core>, message: &Message) {
        if core.live.is_single_node() {
            return;
        }
        for node in core.live.nodes() {
            if node.node != *core.live.node() {
                self.enqueue(core, &node.node, message.clone());
            }
        }
    }

    /// Sends a stanza to a session on another node.
    pub fn stanza(
        &self,
        core: &Arc<Core>,
        to: &live::Session,
        stanza: &Bytes,
        id: Option<MessageId>,
        urgency: Urgency,
    ) {
        let message = Message::Stanza {
            bare: to.bare.to_string(),
            resource: to.resource.to_string(),
            token: to.token,
            stanza: String::from_utf8_lossy(stanza).into_owned(),
            id: id.map(MessageId::as_i64),
            later: urgency == Urgency::Later,
        };
        self.enqueue(core, &to.node, message);
    }

    /// Has another node hand out what waits for an account.
    pub fn flush_offline(&self, core: &Arc<Core>, to: &live::Session) {
        let message = Message::FlushOffline {
            bare: to.bare.to_string(),
            resource: to.resource.to_string(),
            token: to.token,
        };
        self.enqueue(core, &to.node, message);
    }

    /// Closes a session on another node whose resource was taken here.
    pub fn close(&self, core: &Arc<Core>, session: &live::Session) {
        let message = Message::Close {
            bare: session.bare.to_string(),
            resource: session.resource.to_string(),
            token: session.token,
        };
        self.enqueue(core, &session.node, message);
    }

    /// Ends the sessions of an account on the other nodes.
    pub fn close_account(&self, core: &Arc<Core>, bare: &str) {
        self.to_others(core, &Message::CloseAccount { bare: bare.to_owned() });
    }

    /// Has the other nodes forget what they know of an account.
    pub fn forget(&self, core: &Arc<Core>, bare: &str) {
        self.to_others(core, &Message::Forget { bare: bare.to_owned() });
    }

    /// Pushes a roster item to an account's clients on other nodes.
    pub fn roster_push(&self, core: &Arc<Core>, bare: &str, query: &str, version: u64) {
        if core.live.is_single_node() {
            return;
        }
        let mut nodes: Vec<NodeId> = core.live.sessions(bare).into_iter().map(|s| s.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes.iter().filter(|n| *n != core.live.node()) {
            let message = Message::RosterPush { bare: bare.to_owned(), query: query.to_owned(), version };
            self.enqueue(core, node, message);
        }
    }
}

/// Sends what queues up for one node, until it is gone.
async fn send_all(core: Arc<Core>, node: NodeId, mut queue: mpsc::Receiver<Queued>) {
    let mut batch: Vec<Queued> = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let messages: Vec<&Message> = batch.iter().map(|queued| &queued.message).collect();
        let payload = match serde_json::to_vec(&messages) {
            Ok(payload) => Bytes::from(payload),
            Err(error) => {
                core.report("cannot write a payload for another node", &error);
                batch.clear();
                continue;
            }
        };
        match core.live.send(&node, payload).await {
            Ok(()) => batch.clear(),
            Err(error) => {
                core.report("another node did not take over what was sent to it", &error);
                queue.close();
                while let Ok(queued) = queue.try_recv() {
                    batch.push(queued);
                }
                put_back(&core, &node, batch).await;
                return;
            }
        }
    }
}

/// What could not be handed over to `node`: messages go to who else is there, what ends sessions is kept.
async fn put_back(core: &Arc<Core>, node: &NodeId, queued: Vec<Queued>) {
    let mut waiting: HashSet<String> = HashSet::new();
    for Queued { message, .. } in &queued {
        match message {
            Message::Stanza { bare, id: Some(_), .. } | Message::FlushOffline { bare, .. } => {
                waiting.insert(bare.clone());
            }
            Message::Forget { .. } | Message::Close { .. } | Message::CloseAccount { .. } => {
                let mut again = lock(&core.cluster.again);
                if again.len() < AGAIN {
                    again.push((node.clone(), message.clone()));
                }
            }
            Message::Stanza { id: None, .. }
            | Message::RosterPush { .. }
            | Message::AskHeld { .. }
            | Message::Held { .. } => {}
        }
    }
    for bare in waiting {
        offline::wake(core, &bare, Some(node)).await;
    }
}

/// Takes what other nodes send, until live state is closed.
pub async fn run(core: Arc<Core>, mut events: mpsc::Receiver<LiveEvent>) {
    while let Some(event) = events.recv().await {
        match event {
            LiveEvent::Payload(delivery) => receive(&core, delivery),
            LiveEvent::SessionsLost(sessions) => {
                let core = Arc::clone(&core);
                tokio::spawn(async move { nodes::lost(&core, sessions).await });
            }
        }
    }
}

fn find(core: &Core, bare: &str, resource: &str, token: u64) -> Option<Arc<Session>> {
    let user = core.users.find(bare)?;
    user.with_sessions(|s| s.iter().find(|s| s.resource() == resource && s.token == token).cloned())
}

/// The messages of a payload. Those that this version cannot read are left out; the reason of the last one comes too.
fn read(payload: &[u8]) -> serde_json::Result<(Vec<Message>, Option<serde_json::Error>)> {
    if let Ok(messages) = serde_json::from_slice(payload) {
        return Ok((messages, None));
    }
    let values: Vec<serde_json::Value> = serde_json::from_slice(payload)?;
    let (mut messages, mut unknown) = (Vec::with_capacity(values.len()), None);
    for value in values {
        match serde_json::from_value(value) {
            Ok(message) => messages.push(message),
            Err(error) => unknown = Some(error),
        }
    }
    Ok((messages, unknown))
}

fn receive(core: &Arc<Core>, delivery: Delivery) {
    let messages = match read(&delivery.payload) {
        Ok((messages, unknown)) => {
            if let Some(error) = unknown {
                // A newer node's; the rest of what it says is understood.
                core.report(&format!("left out a message of node {}", delivery.from), &error);
            }
            messages
        }
        Err(error) => {
            // Refused, so that the sender keeps what it holds.
            core.report(&format!("cannot read what node {} sent", delivery.from), &error);
            return;
        }
    };
    let mut undelivered: HashSet<String> = HashSet::new();
    for message in messages {
        match message {
            Message::Stanza { ref bare, ref resource, token, ref stanza, id, later } => {
                let urgency = if later { Urgency::Later } else { Urgency::Now };
                let stanza = Bytes::copy_from_slice(stanza.as_bytes());
                let pushed = find(core, bare, resource, token).map_or(Pushed::Gone, |s| {
                    routing::give(core, &s, &stanza, id.map(MessageId::from_i64), urgency)
                });
                if pushed.is_gone() && id.is_some() {
                    undelivered.insert(bare.clone());
                }
            }
            Message::RosterPush { bare, query, version } => {
                if let Some(user) = core.users.find(&bare) {
                    user.forget_contacts();
                }
                if let Ok(query) = Element::parse(&query, ns::CLIENT, &[]) {
                    roster::push_here(core, &bare, &query, &version.to_string());
                }
            }
            Message::Forget { bare } => {
                if let Some(user) = core.users.find(&bare) {
                    user.forget();
                }
            }
            Message::Close { bare, resource, token } => {
                if let Some(session) = find(core, &bare, &resource, token) {
                    core.close_session(&session, Close::Conflict);
                }
            }
            Message::CloseAccount { bare } => core.close_sessions(&bare, Close::Revoked),
            Message::FlushOffline { bare, resource, token } => {
                match find(core, &bare, &resource, token).filter(|s| s.room() != Room::Closed) {
                    // Two nodes with a stalled session each would send each other to and fro.
                    Some(session) if session.is_stalled() => core.cluster.look_again_for(&bare),
                    Some(session) => offline::begin(core, &session, None),
                    None => {
                        undelivered.insert(bare);
                    }
                }
            }
            Message::AskHeld { bare, number } => nodes::answer(core, &delivery.from, &bare, number),
            Message::Held { number, busy, ids } => core.cluster.questions.answered(number, busy, ids),
        }
    }
    delivery.accept();
    if !undelivered.is_empty() {
        let core = Arc::clone(core);
        tokio::spawn(async move {
            for bare in undelivered {
                offline::wake(&core, &bare, None).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_of_a_newer_node_is_read_but_for_what_is_new() {
        let known = serde_json::to_value([Message::Forget { bare: "a@x".to_owned() }]).unwrap();
        let mut all = known.as_array().unwrap().clone();
        all.insert(0, serde_json::json!({"kind": "of_tomorrow", "bare": "a@x"}));
        all.push(known[0].clone());
        let (messages, unknown) = read(&serde_json::to_vec(&all).unwrap()).unwrap();
        assert_eq!(messages.len(), 2);
        assert!(unknown.unwrap().to_string().contains("of_tomorrow"));
        assert!(read(b"[{\"kind\":\"forget\"").is_err(), "half a payload is none");
        assert!(read(b"{}").is_err());
    }
}
