//! Live state of several nodes, kept equal by way of Redis.
//!
//! What is in Redis, each key under the configured prefix:
//!
//! | key | kind | holds |
//! |---|---|---|
//! | `nodes` | set | every node that entered and was not cleaned up |
//! | `lease:NODE` | string, expires | that the node is alive and has entered all its sessions |
//! | `sessions:NODE` | hash | the node's sessions, to fill a replica from |
//! | `user:BARE` | hash | the sessions of one bare JID, to be asked for one |
//! | `rate:KEY` | counter, expires | events in the current window |
//!
//! and two kinds of channels: `directory`, on which every change of a session and every heartbeat is told, and
//! `to:NODE` for payloads and receipts. Changes go through scripts ([`scripts`]), so that a session and its
//! announcement are one step.
//!
//! Two tasks run: one [listens](listener) and keeps the replica, the other [beats](heart): renews the lease,
//! notices dead nodes and cleans up after them, and puts everything back when Redis lost it or could not be
//! told of a change. Local sessions never wait for either.

mod heart;
mod listener;
mod scripts;
mod wire;

use super::directory::Directory;
use super::{LiveError, LiveEvent, NodeId, NodeStatus, RedisConfig, Session};
use bytes::Bytes;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError, TlsCertificates};
use scripts::Scripts;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(2);
/// How long the first connection may take.
const OPEN: Duration = Duration::from_secs(10);
/// How long another node may take to take a payload over.
const RECEIPT: Duration = Duration::from_secs(5);

/// A node's live state.
#[derive(Debug)]
pub(super) struct Redis {
    shared: Arc<Shared>,
    tasks: [tokio::task::AbortHandle; 2],
}

/// What both tasks and the callers use.
struct Shared {
    node: NodeId,
    keys: Keys,
    lease: Duration,
    client: Client,
    commands: ConnectionManager,
    scripts: Scripts,
    directory: Directory,
    /// When each other node was last heard of.
    heard: Mutex<HashMap<NodeId, Instant>>,
    /// Payloads that wait for their receipt.
    awaited: Mutex<HashMap<u64, oneshot::Sender<bool>>>,
    next_payload: AtomicU64,
    /// The subscription stands and the replica has been filled.
    listening: watch::Sender<bool>,
    /// Redis missed a change of a session of this node.
    behind: AtomicBool,
    events: mpsc::Sender<LiveEvent>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Names of keys and channels.
#[derive(Debug)]
struct Keys {
    prefix: String,
}

impl Keys {
    fn nodes(&self) -> String {
        format!("{}nodes", self.prefix)
    }

    fn lease(&self, node: &NodeId) -> String {
        format!("{}lease:{node}", self.prefix)
    }

    fn sessions(&self, node: &NodeId) -> String {
        format!("{}sessions:{node}", self.prefix)
    }

    fn user(&self, bare: &str) -> String {
        format!("{}user:{bare}", self.prefix)
    }

    fn rate(&self, key: &str) -> String {
        format!("{}rate:{key}", self.prefix)
    }

    fn directory(&self) -> String {
        format!("{}directory", self.prefix)
    }

    fn to(&self, node: &NodeId) -> String {
        format!("{}to:{node}", self.prefix)
    }
}

fn failed(step: &'static str) -> impl Fn(RedisError) -> LiveError {
    move |source| LiveError::Redis { step, source: Arc::new(source) }
}

/// Runs a command within its deadline.
async fn command<T>(
    step: &'static str,
    command: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, LiveError> {
    timeout(COMMAND, command)
        .await
        .map_err(|_| LiveError::Timeout { step, seconds: COMMAND.as_secs() })?
        .map_err(failed(step))
}

impl Redis {
    /// Enters the cluster.
    pub(super) async fn open(
        config: &RedisConfig,
        lease: Duration,
        events: mpsc::Sender<LiveEvent>,
    ) -> Result<Self, LiveError> {
        let client = client(config)?;
        let manager = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(COMMAND))
            .set_response_timeout(Some(COMMAND))
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_secs(2));
        let step = "connecting";
        let commands = timeout(OPEN, ConnectionManager::new_with_config(client.clone(), manager))
            .await
            .map_err(|_| LiveError::Timeout { step, seconds: OPEN.as_secs() })?
            .map_err(failed(step))?;
        let shared = Arc::new(Shared {
            node: NodeId::fresh(&config.node),
            keys: Keys { prefix: config.prefix.clone() },
            lease,
            client,
            commands,
            scripts: Scripts::new(),
            directory: Directory::new(),
            heard: Mutex::default(),
            awaited: Mutex::default(),
            next_payload: AtomicU64::new(1),
            listening: watch::Sender::new(false),
            behind: AtomicBool::new(false),
            events,
        });
        let mut listening = shared.listening.subscribe();
        let listener = tokio::spawn(listener::run(Arc::clone(&shared)));
        let opened = timeout(OPEN, listening.wait_for(|listening| *listening)).await;
        if opened.is_err() {
            listener.abort();
            return Err(LiveError::Timeout { step: "subscribing", seconds: OPEN.as_secs() });
        }
        if let Err(error) = heart::beat(&shared, true).await {
            listener.abort();
            return Err(error);
        }
        let heart = tokio::spawn(heart::run(Arc::clone(&shared)));
        Ok(Self { shared, tasks: [listener.abort_handle(), heart.abort_handle()] })
    }

    pub(super) fn node(&self) -> &NodeId {
        &self.shared.node
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.shared.directory
    }

    pub(super) async fn sessions_now(&self, bare: &str) -> Result<Vec<Session>, LiveError> {
        let shared = &self.shared;
        let step = "looking for sessions";
        let found: HashMap<String, String> = command(step, async {
            redis::cmd("HGETALL").arg(shared.keys.user(bare)).query_async(&mut shared.commands.clone()).await
        })
        .await?;
        // Of its own sessions this node knows best.
        let mut sessions = shared.directory.sessions(bare);
        sessions.retain(|session| session.node == shared.node);
        for record in found.values().filter_map(|value| wire::read_record(value)) {
            if record.node == shared.node || sessions.iter().any(|known| known.resource == record.resource) {
                continue;
            }
            if shared.is_alive(&record.node).await? {
                sessions.push(record);
            }
        }
        Ok(sessions)
    }

    pub(super) async fn register(&self, session: Session) -> Result<Option<Session>, LiveError> {
        let shared = &self.shared;
        let replaced = shared.directory.put(session.clone());
        let stored = shared.enter(&session).await.inspect_err(|_| shared.fall_behind())?;
        let replaced = match stored.as_deref().and_then(wire::read_record) {
            // Redis may know of one that the replica has not heard of yet.
            Some(record) if record.node != shared.node && replaced.is_none() => {
                shared.is_alive(&record.node).await?.then_some(record)
            }
            _ => replaced,
        };
        Ok(replaced)
    }

    pub(super) async fn update(&self, session: Session) -> Result<(), LiveError> {
        let shared = &self.shared;
        if !shared.directory.update(session.clone()) {
            return Ok(());
        }
        let change = wire::Change::Update(&session);
        let mut connection = shared.commands.clone();
        let update = shared.scripts.update(&shared.keys, &session, &change.encode());
        command("announcing a session", update.run(&mut connection))
            .await
            .inspect_err(|_| shared.fall_behind())
    }

    pub(super) async fn unregister(&self, bare: &str, resource: &str, token: u64) -> Result<(), LiveError> {
        let shared = &self.shared;
        let Some(session) = shared.directory.remove(bare, resource, token) else { return Ok(()) };
        shared.withdraw(&session).await.inspect_err(|_| shared.fall_behind())
    }

    pub(super) async fn send(&self, node: &NodeId, payload: Bytes) -> Result<(), LiveError> {
        let shared = &self.shared;
        let unreachable = || LiveError::NodeUnreachable(node.clone());
        if *node != shared.node && !shared.heard().contains_key(node) {
            return Err(unreachable());
        }
        let number = shared.next_payload.fetch_add(1, Ordering::Relaxed);
        let (receipt, received) = oneshot::channel();
        shared.awaited().insert(number, receipt);
        // Also when the caller gives up waiting.
        let _forget = Forget { shared, number };
        let frame = wire::payload_frame(number, &shared.node, &payload);
        let receivers: i64 = command("sending to a node", async {
            redis::cmd("PUBLISH")
                .arg(shared.keys.to(node))
                .arg(frame)
                .query_async(&mut shared.commands.clone())
                .await
        })
        .await?;
        if receivers == 0 {
            return Err(unreachable());
        }
        match timeout(RECEIPT, received).await {
            Ok(Ok(true)) => Ok(()),
            _ => Err(unreachable()),
        }
    }

    pub(super) async fn allow(&self, key: &str, limit: u64, window: Duration) -> bool {
        let shared = &self.shared;
        let mut connection = shared.commands.clone();
        let counted =
            command("counting", shared.scripts.count(&shared.keys, key, window).run::<u64>(&mut connection));
        // Whoever cannot count must not lock everybody out.
        counted.await.map_or(true, |count| count <= limit)
    }

    pub(super) async fn ping(&self) -> Result<(), LiveError> {
        let shared = &self.shared;
        let step = "checking health";
        let mut connection = shared.commands.clone();
        command(step, async { redis::cmd("PING").query_async::<String>(&mut connection).await }).await?;
        if !*shared.listening.borrow() {
            return Err(LiveError::Timeout {
                step: "listening to the other nodes",
                seconds: COMMAND.as_secs(),
            });
        }
        Ok(())
    }

    pub(super) fn nodes(&self) -> Vec<NodeStatus> {
        let shared = &self.shared;
        let mut nodes: Vec<NodeId> = shared.heard().keys().cloned().collect();
        nodes.push(shared.node.clone());
        nodes.sort();
        nodes
            .into_iter()
            .map(|node| NodeStatus { sessions: shared.directory.of_node(&node).len() as u64, node })
            .collect()
    }

    pub(super) async fn close(&self) -> Result<(), LiveError> {
        for task in &self.tasks {
            task.abort();
        }
        heart::leave(&self.shared).await
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Takes a payload off the list of awaited receipts.
struct Forget<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.awaited().remove(&self.number);
    }
}

impl Shared {
    fn heard(&self) -> MutexGuard<'_, HashMap<NodeId, Instant>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn awaited(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<bool>>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next heartbeat puts everything right.
    fn fall_behind(&self) {
        self.behind.store(true, Ordering::Relaxed);
    }

    /// Enters a session of this node into Redis and tells the others; returns what was there.
    async fn enter(&self, session: &Session) -> Result<Option<String>, LiveError> {
        let change = wire::Change::Put(session);
        let mut connection = self.commands.clone();
        let put = self.scripts.put(&self.keys, session, &change.encode());
        command("entering a session", put.run(&mut connection)).await
    }

    /// Removes a session of this node from Redis and tells the others.
    async fn withdraw(&self, session: &Session) -> Result<(), LiveError> {
        let change = wire::Change::Remove(session);
        let mut connection = self.commands.clone();
        let remove = self.scripts.remove(&self.keys, session, &change.encode());
        command("removing a session", remove.run(&mut connection)).await
    }

    /// Whether a node is alive: heard of lately, or with a lease.
    async fn is_alive(&self, node: &NodeId) -> Result<bool, LiveError> {
        if *node == self.node || self.heard().contains_key(node) {
            return Ok(true);
        }
        command("looking for a node", async {
            redis::cmd("EXISTS").arg(self.keys.lease(node)).query_async(&mut self.commands.clone()).await
        })
        .await
    }
}

/// A host that lost its power says nothing: the driver makes a new connection only once the kernel ends the old one, which
/// takes it a quarter of an hour by itself.
fn vanishing() -> TcpSettings {
    let probes = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(4))
        .with_interval(Duration::from_secs(2))
        .with_retries(3);
    TcpSettings::default().set_nodelay(true).set_keepalive(probes).set_user_timeout(Duration::from_secs(6))
}

fn client(config: &RedisConfig) -> Result<Client, LiveError> {
    let wrong = |what: String| LiveError::Configuration(what);
    let mut identity = RedisConnectionInfo::default();
    if let Some(user) = &config.user {
        identity = identity.set_username(user);
    }
    if let Some(password) = &config.password {
        identity = identity.set_password(password.expose());
    }
    let address = match (&config.socket, &config.ca_file) {
        (Some(socket), _) => ConnectionAddr::Unix(socket.clone()),
        (None, None) => ConnectionAddr::Tcp(config.host.clone(), config.port),
        (None, Some(_)) => ConnectionAddr::TcpTls {
            host: config.host.clone(),
            port: config.port,
            insecure: false,
            tls_params: None,
        },
    };
    let uses_tls = matches!(address, ConnectionAddr::TcpTls { .. });
    let info = address
        .into_connection_info()
        .map_err(|error| wrong(format!("redis: {error}")))?
        .set_tcp_settings(vanishing())
        .set_redis_settings(identity);
    let client = match &config.ca_file {
        Some(ca_file) if uses_tls => {
            let root_cert = std::fs::read(ca_file).map_err(|error| {
                wrong(format!("redis: cannot read ca_file {}: {error}", ca_file.display()))
            })?;
            // The driver takes the process's provider; whoever set one before meant it.
            let _ = rustls::crypto::ring::default_provider().install_default();
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
        }
        _ => Client::open(info),
    };
    client.map_err(|error| wrong(format!("redis: {error}")))
}
