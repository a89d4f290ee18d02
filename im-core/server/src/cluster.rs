//! Between nodes: stanzas for sessions elsewhere, and news that concern what other nodes keep in memory.
//!
//! Each other node has a queue and a task that sends what queued up as one payload, so that order is kept and a
//! busy pair of nodes needs few round trips. What a node does not take over comes back: stored messages are
//! marked as awaiting delivery again, the rest is presence and iqs, whose senders time out by themselves.
//! On a single node none of this runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use im_proto::xml::Element;
use im_proto::{Address, ns};
use im_store::live::{self, Delivery, LiveEvent, NodeId};
use im_store::{MessageId, Offline as _};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::core::Core;
use crate::features::roster;
use crate::presence::{addressed, unavailable_from};
use crate::session::{Close, Session, Urgency};
use crate::{offline, routing};

/// What nodes tell each other.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Message {
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
}

/// Messages that wait for one node, at most. A node that is so far behind is treated as gone.
const QUEUE: usize = 50_000;
/// Messages in one payload, at most.
const BATCH: usize = 256;

/// Queues to the other nodes.
#[derive(Debug, Default)]
pub struct Cluster {
    queues: Mutex<HashMap<NodeId, mpsc::Sender<Message>>>,
}

impl Cluster {
    fn enqueue(&self, core: &Arc<Core>, node: &NodeId, message: Message) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(node.clone()).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(send_all(Arc::clone(core), node.clone(), receiver));
            sender
        });
        let refused = match queue.try_send(message) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(message) | mpsc::error::TrySendError::Closed(message)) => {
                message
            }
        };
        if queue.is_closed() {
            queues.remove(node);
        }
        drop(queues);
        let core = Arc::clone(core);
        tokio::spawn(async move { put_back(&core, vec![refused]).await });
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
async fn send_all(core: Arc<Core>, node: NodeId, mut queue: mpsc::Receiver<Message>) {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let payload = match serde_json::to_vec(&batch) {
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
                while let Ok(message) = queue.try_recv() {
                    batch.push(message);
                }
                put_back(&core, batch).await;
                return;
            }
        }
    }
}

/// Keeps messages that could not be handed over: they await delivery again, and go to who is there.
async fn put_back(core: &Arc<Core>, messages: Vec<Message>) {
    let mut lost: HashMap<String, Vec<MessageId>> = HashMap::new();
    for message in messages {
        if let Message::Stanza { bare, id: Some(id), .. } = message {
            lost.entry(bare).or_default().push(MessageId::from_i64(id));
        }
    }
    for (bare, ids) in lost {
        if let Err(error) = core.store.postpone(&bare, &ids).await {
            core.report("cannot keep messages for later", &error);
            continue;
        }
        flush_if_here(core, &bare).await;
    }
}

async fn flush_if_here(core: &Arc<Core>, bare: &str) {
    let Some(user) = core.users.find(bare) else { return };
    let session = user.with_sessions(|s| s.iter().find(|s| s.priority().is_some_and(|p| p >= 0)).cloned());
    if let Some(session) = session {
        offline::flush(core, &session).await;
    }
}

/// Takes what other nodes send, until live state is closed.
pub async fn run(core: Arc<Core>, mut events: mpsc::Receiver<LiveEvent>) {
    while let Some(event) = events.recv().await {
        match event {
            LiveEvent::Payload(delivery) => receive(&core, delivery),
            LiveEvent::SessionsLost(sessions) => {
                let core = Arc::clone(&core);
                tokio::spawn(async move { sessions_lost(&core, sessions).await });
            }
        }
    }
}

fn find(core: &Core, bare: &str, resource: &str, token: u64) -> Option<Arc<Session>> {
    let user = core.users.find(bare)?;
    user.with_sessions(|s| s.iter().find(|s| s.resource() == resource && s.token == token).cloned())
}

fn receive(core: &Arc<Core>, delivery: Delivery) {
    let messages: Vec<Message> = match serde_json::from_slice(&delivery.payload) {
        Ok(messages) => messages,
        Err(error) => {
            // Refused, so that the sender keeps what it holds.
            core.report(&format!("cannot read what node {} sent", delivery.from), &error);
            return;
        }
    };
    let mut undelivered = Vec::new();
    for message in messages {
        match message {
            Message::Stanza { ref bare, ref resource, token, ref stanza, id, later } => {
                let urgency = if later { Urgency::Later } else { Urgency::Now };
                let stanza = Bytes::copy_from_slice(stanza.as_bytes());
                let taken = find(core, bare, resource, token)
                    .is_some_and(|s| s.push(&stanza, id.map(MessageId::from_i64), urgency));
                if !taken && id.is_some() {
                    undelivered.push(message);
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
                if let Some(session) = find(core, &bare, &resource, token) {
                    let core = Arc::clone(core);
                    tokio::spawn(async move { offline::flush(&core, &session).await });
                }
            }
        }
    }
    delivery.accept();
    if !undelivered.is_empty() {
        let core = Arc::clone(core);
        tokio::spawn(async move { put_back(&core, undelivered).await });
    }
}

/// Tells the clients here that sessions of a dead node are gone.
async fn sessions_lost(core: &Arc<Core>, sessions: Vec<live::Session>) {
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
