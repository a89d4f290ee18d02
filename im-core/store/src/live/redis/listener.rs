//! Listens to the other nodes and keeps the replica.
//!
//! Subscribes first, then fills the replica from Redis, then applies what was told meanwhile and from then on: no
//! change is missed in between. A connection on which nothing comes for a lease is dead, for this node hears its
//! own heartbeat too. While there is none, nobody is taken for dead: it is this node that is deaf.

use super::super::{Delivery, LiveEvent, NodeId, Session};
use super::{Shared, command, wire};
use crate::live::LiveError;
use bytes::Bytes;
use futures_util::StreamExt;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Pause after a failure; doubles up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    loop {
        if let Err(error) = listen(&shared, &mut pause).await {
            tracing::warn!(
                error = &error as &(dyn std::error::Error + 'static),
                "not listening to the other nodes; trying again"
            );
        }
        shared.listening.send_replace(false);
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn listen(shared: &Arc<Shared>, pause: &mut Duration) -> Result<(), LiveError> {
    let directory_channel = shared.keys.directory();
    let own_channel = shared.keys.to(&shared.node);
    let subscription = command("subscribing", async {
        let mut subscription = shared.client.get_async_pubsub().await?;
        subscription.subscribe(&directory_channel).await?;
        subscription.subscribe(&own_channel).await?;
        Ok(subscription)
    })
    .await?;
    // Whoever was silent while this node was deaf gets a whole lease to be heard again.
    for heard in shared.heard().values_mut() {
        *heard = Instant::now();
    }
    fill(shared).await?;
    shared.listening.send_replace(true);
    *pause = FIRST_PAUSE;
    let mut messages = subscription.into_on_message();
    loop {
        let message = match timeout(shared.lease, messages.next()).await {
            Ok(Some(message)) => message,
            Ok(None) | Err(_) => {
                return Err(LiveError::Timeout { step: "listening", seconds: shared.lease.as_secs() });
            }
        };
        let payload = Bytes::copy_from_slice(message.get_payload_bytes());
        if message.get_channel_name() == own_channel {
            if let Some(frame) = wire::read_frame(payload) {
                take(shared, frame);
            }
        } else if let Some(told) = std::str::from_utf8(&payload).ok().and_then(wire::read_change) {
            apply(shared, told).await;
        }
    }
}

/// Fills the replica with what Redis knows of the other nodes.
async fn fill(shared: &Shared) -> Result<(), LiveError> {
    let step = "reading the directory";
    let mut connection = shared.commands.clone();
    let nodes: Vec<String> = command(step, async {
        redis::cmd("SMEMBERS").arg(shared.keys.nodes()).query_async(&mut connection).await
    })
    .await?;
    for node in nodes.iter().map(|node| NodeId::from_text(node)).filter(|node| *node != shared.node) {
        // Without a lease it is dead, or has not yet put everything back into an emptied Redis: its sessions, as
        // far as they are known, stay until it is heard of or not.
        let (alive, sessions): (bool, HashMap<String, String>) = command(step, async {
            redis::pipe()
                .exists(shared.keys.lease(&node))
                .hgetall(shared.keys.sessions(&node))
                .query_async(&mut connection)
                .await
        })
        .await?;
        if !alive {
            continue;
        }
        let sessions: Vec<Session> =
            sessions.values().filter_map(|record| wire::read_record(record)).collect();
        let present: HashSet<(&str, &str)> =
            sessions.iter().map(|session| (&*session.bare, &*session.resource)).collect();
        shared
            .directory
            .remove_where(|known| known.node == node && !present.contains(&(&*known.bare, &*known.resource)));
        shared.heard().insert(node, Instant::now());
        for session in sessions {
            enter_remote(shared, session);
        }
    }
    Ok(())
}

/// Enters a session of another node, unless this node has that resource: of its own it knows best.
fn enter_remote(shared: &Shared, session: Session) {
    let own = shared
        .directory
        .sessions(&session.bare)
        .into_iter()
        .any(|known| known.resource == session.resource && known.node == shared.node);
    if !own {
        shared.directory.put(session);
    }
}

async fn apply(shared: &Shared, told: wire::Told) {
    let from = match &told {
        wire::Told::Put(session) | wire::Told::Update(session) | wire::Told::Remove(session) => &session.node,
        wire::Told::Beat(node) | wire::Told::Leave(node) => node,
    };
    if *from == shared.node {
        hear_oneself(shared, told);
        return;
    }
    if !matches!(told, wire::Told::Leave(_)) {
        shared.heard().insert(from.clone(), Instant::now());
    }
    match told {
        wire::Told::Put(session) => {
            // A newer session of a resource takes its place, this node's own included: the server is asked to
            // end that one by the node that replaced it.
            shared.directory.put(session);
        }
        wire::Told::Update(session) => {
            if !shared.directory.update(session.clone()) {
                // Its beginning was missed; its present is as good. But it is no successor of anything.
                let taken = shared
                    .directory
                    .sessions(&session.bare)
                    .iter()
                    .any(|known| known.resource == session.resource);
                if !taken {
                    shared.directory.put(session);
                }
            }
        }
        wire::Told::Remove(session) => {
            shared.directory.remove(&session.bare, &session.resource, session.token);
        }
        wire::Told::Beat(_) => {}
        wire::Told::Leave(node) => lose(shared, &node).await,
    }
}

/// A change that this node told comes back in its place among those of others: when two nodes register one
/// resource at once, that order decides for everybody which of them it is.
fn hear_oneself(shared: &Shared, told: wire::Told) {
    match told {
        wire::Told::Put(session) => {
            let overtaken = shared
                .directory
                .sessions(&session.bare)
                .into_iter()
                .any(|known| known.resource == session.resource && known.node != shared.node);
            if overtaken {
                shared.directory.put(session);
            }
        }
        wire::Told::Remove(session) => {
            shared.directory.remove(&session.bare, &session.resource, session.token);
        }
        wire::Told::Update(_) | wire::Told::Beat(_) | wire::Told::Leave(_) => {}
    }
}

/// Takes a node out of the replica and tells the server what was on it.
pub(super) async fn lose(shared: &Shared, node: &NodeId) {
    shared.heard().remove(node);
    let lost = shared.directory.remove_where(|session| session.node == *node);
    tracing::info!(%node, sessions = lost.len(), "a node is gone");
    // Told even without sessions: what it had stored and not handed over concerns others. A server that does not
    // take events any more is shutting down.
    let _ = shared.events.send(LiveEvent::SessionsLost(lost)).await;
}

/// Hands a payload to the server, or a receipt to whoever waits for it.
fn take(shared: &Arc<Shared>, frame: wire::Frame) {
    match frame {
        wire::Frame::Receipt { number, taken } => {
            if let Some(awaiting) = shared.awaited().remove(&number) {
                // It may have stopped waiting.
                let _ = awaiting.send(taken);
            }
        }
        wire::Frame::Payload { number, from, payload } => {
            let (receipt, taken) = oneshot::channel();
            let delivery = Delivery { from: from.clone(), payload, receipt: Some(receipt) };
            // Waiting here would keep receipts from being read, and two full nodes would wait for each other: a
            // full queue refuses, which drops the receipt.
            let _ = shared.events.try_send(LiveEvent::Payload(delivery));
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                let frame = wire::receipt_frame(number, taken.await.is_ok());
                let answer = command("sending a receipt", async {
                    redis::cmd("PUBLISH")
                        .arg(shared.keys.to(&from))
                        .arg(frame)
                        .query_async::<i64>(&mut shared.commands.clone())
                        .await
                });
                if let Err(error) = answer.await {
                    tracing::debug!(%from, error = &error as &(dyn std::error::Error + 'static), "no receipt sent");
                }
            });
        }
    }
}
