//! The heartbeat: keeps this node's lease, notices nodes that died, and puts right what Redis missed.

use super::super::{NodeId, Session};
use super::{Shared, command, listener, wire};
use crate::live::LiveError;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::time::{MissedTickBehavior, interval};

/// Beats in one lease: two may be lost.
const BEATS: u32 = 4;

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut ticks = interval(shared.lease / BEATS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut beats = 0_u32;
    loop {
        ticks.tick().await;
        beats = beats.wrapping_add(1);
        if let Err(error) = beat(&shared, beats.is_multiple_of(BEATS)).await {
            tracing::warn!(
                error = &error as &(dyn std::error::Error + 'static),
                "no heartbeat; sessions of other nodes are not known until Redis is back"
            );
            shared.fall_behind();
        }
        bury(&shared).await;
    }
}

/// One beat. `clean`: also clean up in Redis after nodes without a lease.
pub(super) async fn beat(shared: &Shared, clean: bool) -> Result<(), LiveError> {
    let step = "renewing the lease";
    let mut connection = shared.commands.clone();
    let entered: u64 = command(step, async {
        redis::cmd("SADD")
            .arg(shared.keys.nodes())
            .arg(shared.node.as_str())
            .query_async(&mut connection)
            .await
    })
    .await?;
    // Entered anew: Redis was emptied, or this node was so long silent that another one cleaned up after it.
    if shared.behind.swap(false, Ordering::Relaxed) || entered > 0 {
        reconcile(shared).await.inspect_err(|_| shared.fall_behind())?;
    }
    let lease = u64::try_from(shared.lease.as_millis()).unwrap_or(u64::MAX);
    command(step, async {
        redis::pipe()
            .cmd("SET")
            .arg(shared.keys.lease(&shared.node))
            .arg(1)
            .arg("PX")
            .arg(lease)
            .ignore()
            .cmd("PUBLISH")
            .arg(shared.keys.directory())
            .arg(wire::Change::Beat(&shared.node).encode())
            .ignore()
            .query_async::<()>(&mut connection)
            .await
    })
    .await?;
    if clean {
        clean_up(shared).await?;
    }
    Ok(())
}

/// Makes Redis hold exactly this node's sessions, and tells the others.
async fn reconcile(shared: &Shared) -> Result<(), LiveError> {
    let step = "putting sessions back";
    let own = shared.directory.of_node(&shared.node);
    let mut connection = shared.commands.clone();
    let stored: HashMap<String, String> = command(step, async {
        redis::cmd("HGETALL").arg(shared.keys.sessions(&shared.node)).query_async(&mut connection).await
    })
    .await?;
    let present: HashSet<String> = own.iter().map(wire::field).collect();
    for (_, record) in stored.iter().filter(|(field, _)| !present.contains(*field)) {
        if let Some(session) = wire::read_record(record) {
            shared.withdraw(&session).await?;
        }
    }
    for session in own {
        // It may have ended in the meantime: then its removal comes after this and undoes it.
        if is_current(shared, &session) {
            shared.enter(&session).await?;
        }
    }
    Ok(())
}

fn is_current(shared: &Shared, session: &Session) -> bool {
    shared.directory.sessions(&session.bare).contains(session)
}

/// Notices nodes that were silent for a lease. A deaf node notices nobody.
async fn bury(shared: &Shared) {
    if !*shared.listening.borrow() {
        return;
    }
    let now = Instant::now();
    let silent: Vec<NodeId> = {
        let heard = shared.heard();
        heard
            .iter()
            .filter(|(_, at)| now.duration_since(**at) > shared.lease)
            .map(|(node, _)| node.clone())
            .collect()
    };
    for node in silent {
        listener::lose(shared, &node).await;
    }
}

/// Removes from Redis what nodes without a lease left there. Several nodes may do so at once.
async fn clean_up(shared: &Shared) -> Result<(), LiveError> {
    let step = "cleaning up after dead nodes";
    let mut connection = shared.commands.clone();
    let nodes: Vec<String> = command(step, async {
        redis::cmd("SMEMBERS").arg(shared.keys.nodes()).query_async(&mut connection).await
    })
    .await?;
    for node in nodes.iter().map(|node| NodeId::from_text(node)) {
        let known = node == shared.node || shared.heard().contains_key(&node);
        if known || shared.is_alive(&node).await? {
            continue;
        }
        erase(shared, &node).await?;
        tracing::info!(%node, "cleaned up after a dead node");
    }
    Ok(())
}

/// Removes everything of a node from Redis.
async fn erase(shared: &Shared, node: &NodeId) -> Result<(), LiveError> {
    let step = "cleaning up after a node";
    let mut connection = shared.commands.clone();
    let fields: Vec<String> = command(step, async {
        redis::cmd("HKEYS").arg(shared.keys.sessions(node)).query_async(&mut connection).await
    })
    .await?;
    for field in &fields {
        if let Some((bare, resource)) = wire::read_field(field) {
            let clean = shared.scripts.clean(&shared.keys, node, bare, resource, field);
            command(step, clean.run::<i64>(&mut connection)).await?;
        }
    }
    command(step, async {
        redis::pipe()
            .del(shared.keys.sessions(node))
            .ignore()
            .del(shared.keys.lease(node))
            .ignore()
            .srem(shared.keys.nodes(), node.as_str())
            .ignore()
            .query_async::<()>(&mut connection)
            .await
    })
    .await
}

/// Takes this node out of Redis and tells the others.
pub(super) async fn leave(shared: &Shared) -> Result<(), LiveError> {
    erase(shared, &shared.node).await?;
    command("leaving", async {
        redis::cmd("PUBLISH")
            .arg(shared.keys.directory())
            .arg(wire::Change::Leave(&shared.node).encode())
            .query_async::<i64>(&mut shared.commands.clone())
            .await
    })
    .await?;
    Ok(())
}
