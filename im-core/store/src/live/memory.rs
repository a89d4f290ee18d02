//! Live state of a single node: the replica, and counters of rate limits.

use super::directory::Directory;
use super::{Delivery, LiveError, LiveEvent, NodeId};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Above this many counters those whose window is over are dropped.
const COUNTERS_BEFORE_CLEANING: usize = 10_000;

#[derive(Debug)]
pub(super) struct Memory {
    node: NodeId,
    directory: Directory,
    events: mpsc::Sender<LiveEvent>,
    counters: Mutex<HashMap<String, Counter>>,
}

#[derive(Debug)]
struct Counter {
    ends: Instant,
    count: u64,
}

impl Memory {
    pub(super) fn new(name: &str, events: mpsc::Sender<LiveEvent>) -> Self {
        Self { node: NodeId::fresh(name), directory: Directory::new(), events, counters: Mutex::default() }
    }

    pub(super) fn node(&self) -> &NodeId {
        &self.node
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The only node there is, is this one.
    pub(super) async fn send(&self, node: &NodeId, payload: Bytes) -> Result<(), LiveError> {
        if *node != self.node {
            return Err(LiveError::NodeUnreachable(node.clone()));
        }
        let (receipt, taken) = oneshot::channel();
        let delivery = Delivery { from: self.node.clone(), payload, receipt: Some(receipt) };
        let unreachable = || LiveError::NodeUnreachable(node.clone());
        self.events.send(LiveEvent::Payload(delivery)).await.map_err(|_| unreachable())?;
        taken.await.map_err(|_| unreachable())
    }

    pub(super) fn allow(&self, key: &str, limit: u64, window: Duration) -> bool {
        let now = Instant::now();
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if counters.len() > COUNTERS_BEFORE_CLEANING {
            counters.retain(|_, counter| counter.ends > now);
        }
        let counter = match counters.get_mut(key) {
            Some(counter) if counter.ends > now => counter,
            _ => counters
                .entry(key.to_owned())
                .insert_entry(Counter { ends: now + window, count: 0 })
                .into_mut(),
        };
        counter.count += 1;
        counter.count <= limit
    }
}
