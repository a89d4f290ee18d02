//! Live state: who is connected where, messages between nodes, rate limits.
//!
//! Every node holds a **replica** of the whole directory of sessions, so that finding out where somebody is
//! never leaves the process. [`Memory`](LiveConfig::Memory) is that replica alone, for a single node.
//! [`Redis`](LiveConfig::Redis) keeps the replicas of several nodes equal.
//!
//! What is guaranteed:
//!
//! * A node always sees its own sessions as they are. It sees a change made on another node once that change
//!   arrived, ordinarily within a millisecond or two; never two changes of one session in the wrong order.
//! * [`Live::register`] and [`Live::update`] return only after the change is in Redis, and
//!   [`Live::sessions_now`] reads Redis. So when a session is registered *before* its offline messages are
//!   fetched, and a message is stored as offline *before* `sessions_now` is asked again, no message is
//!   overlooked: one of the two sees the other.
//! * [`Live::send`] succeeds only after the other node took the payload over. When that node died, was
//!   restarted, or cannot be reached, it fails within five seconds, and the caller keeps the message.
//! * The sessions of a node that died vanish within [`LEASE`] plus a heartbeat; each other node is told by
//!   [`LiveEvent::SessionsLost`].
//! * When Redis restarts, even empty, every node puts back its own sessions. Until then local routing goes on.
//!
//! Nothing here must last: no message is only in live state.

mod directory;
mod memory;
mod redis;

use bytes::Bytes;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long a node that says nothing is believed to be alive.
pub const LEASE: Duration = Duration::from_secs(12);

/// One run of one node. A node that is restarted is another one, so that nothing meant for the run before is
/// taken for the present.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A fresh identifier for a node of this name; the name is only for people to read.
    pub fn fresh(name: &str) -> Self {
        // A bar separates the parts of what is stored in Redis.
        Self(format!("{}#{:016x}", name.replace('|', "-"), rand::random::<u64>()).into())
    }

    pub(crate) fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name people read.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('#').map_or(&*self.0, |(name, _)| name)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A bound session. Cloning copies pointers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Bare JID.
    pub bare: Arc<str>,
    /// Resource.
    pub resource: Arc<str>,
    /// The node that holds its connection.
    pub node: NodeId,
    /// Tells this session from an earlier one of the same resource.
    pub token: u64,
    /// Priority of its last available presence; nothing while it is not available.
    pub priority: Option<i8>,
    /// Its last available presence, as the server stamped it.
    pub presence: Option<Bytes>,
    /// It asked for message carbons (XEP-0280).
    pub carbons: bool,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Which one.
    pub node: NodeId,
    /// How many sessions it holds, as far as is known here.
    pub sessions: u64,
}

/// What comes from the other nodes.
#[derive(Debug)]
pub enum LiveEvent {
    /// A payload that another node sent to this one.
    Payload(Delivery),
    /// A node died or left; these sessions (none, perhaps) were on it and are gone from the directory.
    SessionsLost(Vec<Session>),
}

/// A payload from another node. Say [`accept`](Delivery::accept) once it is taken over; dropping it refuses it,
/// and the sender keeps the message.
#[derive(Debug)]
pub struct Delivery {
    /// Who sent it.
    pub from: NodeId,
    /// What was sent.
    pub payload: Bytes,
    receipt: Option<oneshot::Sender<()>>,
}

impl Delivery {
    /// This node answers for the payload from now on.
    pub fn accept(mut self) {
        if let Some(receipt) = self.receipt.take() {
            // A sender that waits no longer has already treated it as undelivered.
            let _ = receipt.send(());
        }
    }
}

/// What can go wrong with live state. None of it loses a message.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LiveError {
    /// Redis cannot be reached or refused.
    #[error("redis: {step} failed")]
    Redis {
        /// What was being done.
        step: &'static str,
        /// What the driver said.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// Redis did not answer in time.
    #[error("redis: {step} took longer than {seconds} s; check that Redis is up and not overloaded")]
    Timeout {
        /// What was being done.
        step: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// The node is not there, or did not take the payload over.
    #[error("node {0} cannot be reached")]
    NodeUnreachable(NodeId),
    /// The configuration cannot be used.
    #[error("live state configuration: {0}")]
    Configuration(String),
}

/// Where live state is kept.
#[derive(Debug, Clone)]
pub enum LiveConfig {
    /// In this process: a single node.
    Memory {
        /// Name of the node, for people to read.
        node: String,
    },
    /// In Redis: any number of nodes.
    Redis(RedisConfig),
}

/// How Redis is reached.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// Name of the node, for people to read.
    pub node: String,
    /// Host name or address; ignored when `socket` is set.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Unix socket, instead of host and port.
    pub socket: Option<PathBuf>,
    /// Password, with an ACL user's name if it is not the default user's.
    pub password: Option<crate::Secret>,
    /// Name of the ACL user.
    pub user: Option<String>,
    /// PEM file of the authority that signed the server's certificate: TLS is used when it is given.
    pub ca_file: Option<PathBuf>,
    /// What every key begins with, so that several clusters can share a Redis.
    pub prefix: String,
}

/// Live state of this node and what it knows of the others.
#[derive(Debug, Clone)]
pub struct Live {
    backend: Backend,
}

#[derive(Debug, Clone)]
enum Backend {
    Memory(Arc<memory::Memory>),
    Redis(Arc<redis::Redis>),
}

impl Live {
    /// Begins to keep live state. The receiver yields what other nodes send; it must be read all the time.
    /// With Redis it fails when Redis cannot be reached within ten seconds.
    pub async fn open(config: &LiveConfig) -> Result<(Self, mpsc::Receiver<LiveEvent>), LiveError> {
        Self::open_with_lease(config, LEASE).await
    }

    /// As [`open`](Self::open), with another lease than [`LEASE`], the same on all nodes: for tests that wait
    /// for a node to be found dead.
    pub async fn open_with_lease(
        config: &LiveConfig,
        lease: Duration,
    ) -> Result<(Self, mpsc::Receiver<LiveEvent>), LiveError> {
        let (sender, receiver) = mpsc::channel(4096);
        let backend = match config {
            LiveConfig::Memory { node } => Backend::Memory(Arc::new(memory::Memory::new(node, sender))),
            LiveConfig::Redis(config) => {
                Backend::Redis(Arc::new(redis::Redis::open(config, lease, sender).await?))
            }
        };
        Ok((Self { backend }, receiver))
    }

    /// This node.
    pub fn node(&self) -> &NodeId {
        match &self.backend {
            Backend::Memory(memory) => memory.node(),
            Backend::Redis(redis) => redis.node(),
        }
    }

    /// Whether there can be no other node.
    pub fn is_single_node(&self) -> bool {
        matches!(self.backend, Backend::Memory(_))
    }

    /// The sessions of a bare JID on all nodes, from the replica: at once, without leaving the process.
    pub fn sessions(&self, bare: &str) -> Vec<Session> {
        match &self.backend {
            Backend::Memory(memory) => memory.directory().sessions(bare),
            Backend::Redis(redis) => redis.directory().sessions(bare),
        }
    }

    /// The sessions of a bare JID on all nodes, as they are in Redis now. For the moment after a message was
    /// stored as offline, and for nothing frequent.
    pub async fn sessions_now(&self, bare: &str) -> Result<Vec<Session>, LiveError> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.directory().sessions(bare)),
            Backend::Redis(redis) => redis.sessions_now(bare).await,
        }
    }

    /// Enters a session of this node, and returns the one of the same resource that it replaces, which may be
    /// on another node. On an error the session is entered here all the same, and comes to the other nodes as
    /// soon as Redis is back.
    pub async fn register(&self, session: Session) -> Result<Option<Session>, LiveError> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.directory().put(session)),
            Backend::Redis(redis) => redis.register(session).await,
        }
    }

    /// Changes what is known of a session of this node: presence, priority, carbons. Ignored when its token is
    /// not the one that is registered.
    pub async fn update(&self, session: Session) -> Result<(), LiveError> {
        match &self.backend {
            Backend::Memory(memory) => {
                memory.directory().update(session);
                Ok(())
            }
            Backend::Redis(redis) => redis.update(session).await,
        }
    }

    /// Removes a session of this node, unless another one has taken its resource.
    pub async fn unregister(&self, bare: &str, resource: &str, token: u64) -> Result<(), LiveError> {
        match &self.backend {
            Backend::Memory(memory) => {
                memory.directory().remove(bare, resource, token);
                Ok(())
            }
            Backend::Redis(redis) => redis.unregister(bare, resource, token).await,
        }
    }

    /// Sends a payload to a node; succeeds when that node has taken it over.
    pub async fn send(&self, node: &NodeId, payload: Bytes) -> Result<(), LiveError> {
        match &self.backend {
            Backend::Memory(memory) => memory.send(node, payload).await,
            Backend::Redis(redis) => redis.send(node, payload).await,
        }
    }

    /// Counts an event under `key` in the current window of time and says whether it is within `limit`. When
    /// Redis cannot be reached it is.
    pub async fn allow(&self, key: &str, limit: u64, window: Duration) -> bool {
        match &self.backend {
            Backend::Memory(memory) => memory.allow(key, limit, window),
            Backend::Redis(redis) => redis.allow(key, limit, window).await,
        }
    }

    /// Succeeds when live state works.
    pub async fn ping(&self) -> Result<(), LiveError> {
        match &self.backend {
            Backend::Memory(_) => Ok(()),
            Backend::Redis(redis) => redis.ping().await,
        }
    }

    /// The nodes that are alive, this one included.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        match &self.backend {
            Backend::Memory(memory) => {
                vec![NodeStatus { node: memory.node().clone(), sessions: memory.directory().count() }]
            }
            Backend::Redis(redis) => redis.nodes(),
        }
    }

    /// Leaves the cluster: this node's sessions vanish for the others at once.
    pub async fn close(&self) -> Result<(), LiveError> {
        match &self.backend {
            Backend::Memory(_) => Ok(()),
            Backend::Redis(redis) => redis.close().await,
        }
    }
}
