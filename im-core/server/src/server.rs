//! Starting, running and stopping the server.
//!
//! [`start`] opens store and live state, sweeps leftovers, binds every listener, and only then takes
//! connections; it returns a [`Running`] server with the ports that were bound. [`Running::stop`] drains it:
//! no new connections, every session is told `system-shutdown`, commits are awaited, the store is closed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use im_proto::Address;
use im_store::live::{Live, LiveError};
use im_store::{Archive as _, Housekeeping as _, Offline as _, Store, StoreError};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::accounts;
use crate::cluster::{self, Cluster};
use crate::config::{Config, ConfigError};
use crate::connection;
use crate::core::Core;
use crate::framing::Framing;
use crate::http::assets::Assets;
use crate::http::monitoring;
use crate::http::public::{self, Site};
use crate::link::Transport;
use crate::nodes;
use crate::passwords::{hex, random_bytes};
use crate::session::Close;
use crate::tls::{Tls, TlsError};

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A secret of the configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store cannot be opened.
    #[error("cannot open the store")]
    Store(#[from] StoreError),
    /// Live state cannot be reached.
    #[error("cannot reach live state")]
    Live(#[from] LiveError),
    /// A port or socket is taken, or may not be used.
    #[error("cannot listen on {what}: check that nothing else uses it and that this user may")]
    Listen {
        /// Address or path.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file that is served or written.
    #[error("cannot read or write {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Canaries of a killed run cannot be removed.
    #[error("cannot remove old canary accounts")]
    Canaries(#[from] accounts::AccountError),
}

/// Ports that were bound.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Ports {
    /// XMPP with STARTTLS.
    pub xmpp: Vec<SocketAddr>,
    /// XMPP with direct TLS.
    pub xmpp_tls: Vec<SocketAddr>,
    /// HTTPS.
    pub https: Vec<SocketAddr>,
    /// Metrics and health.
    pub metrics: Option<SocketAddr>,
}

/// A running server.
#[derive(Debug)]
pub struct Running {
    /// Shared state.
    pub core: Arc<Core>,
    /// Ports that were bound.
    pub ports: Ports,
    listeners: Vec<tokio::task::JoinHandle<()>>,
}

/// The setting that holds the secret of made-up salts, shared by all nodes.
const SALT_SETTING: &str = "unknown-account-salt-key";

/// Starts the server.
///
/// # Errors
/// [`StartError`]; nothing stays bound or open then.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let domain = Address::parse(&config.domain).map_err(|e| ConfigError::Value {
        path: PathBuf::new(),
        key: "domain",
        reason: e.to_string(),
    })?;
    let tls = config.tls.as_ref().map(Tls::load).transpose()?;
    let site = Arc::new(load_site(&config)?);
    let bound = Bound::bind(&config)?;
    let store = Store::open(&config.store_config()?).await?;
    let fresh = hex(&random_bytes(32));
    let salt = store.setting_or_insert(SALT_SETTING, &fresh).await?;
    let (live, events) = Live::open(&config.live_config()?).await?;
    let core = Arc::new(Core::new(config, domain, store, live, Cluster::default(), tls, salt.into_bytes()));
    tokio::spawn(cluster::run(Arc::clone(&core), events));
    accounts::sweep_canaries(&core, accounts::STALE_CANARY, &[]).await?;
    accounts::resume_removals(&core).await?;
    tokio::spawn(housekeeping(Arc::clone(&core)));

    let ports = bound.ports()?;
    if let Some(path) = &core.config.ports_file {
        let json = serde_json::to_vec(&ports).unwrap_or_default();
        write_atomic(path, &json).map_err(|source| StartError::File { path: path.clone(), source })?;
    }
    let listeners = bound.serve(&core, &site);
    core.listening.store(true, Ordering::Relaxed);
    Ok(Running { core, ports, listeners })
}

fn load_site(config: &Config) -> Result<Site, StartError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| StartError::File { path: path.clone(), source }
    };
    let assets = match &config.web.root {
        Some(root) => Assets::load(root).map_err(file(root))?,
        None => Assets::default(),
    };
    let ca = match &config.web.ca_certificate {
        Some(path) => Some(Bytes::from(std::fs::read(path).map_err(file(path))?)),
        None => None,
    };
    Ok(Site { assets, ca })
}

fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

struct Bound {
    xmpp: Vec<TcpListener>,
    xmpp_tls: Vec<TcpListener>,
    https: Vec<TcpListener>,
    metrics: Option<TcpListener>,
    admin: Option<UnixListener>,
}

fn bind_tcp(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|source| StartError::Listen { what: address.to_string(), source })
}

/// Binds the socket with mode 0600. One that a killed run left is replaced, one that is in use is not.
fn bind_unix(path: &Path) -> Result<UnixListener, StartError> {
    let error = |source| StartError::Listen { what: path.display().to_string(), source };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(error(io::Error::new(io::ErrorKind::AddrInUse, "another server answers there")));
    }
    let temporary = path.with_extension(format!("new{}", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary).map_err(error)?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600)).map_err(error)?;
    std::fs::rename(&temporary, path).map_err(error)?;
    Ok(listener)
}

impl Bound {
    fn bind(config: &Config) -> Result<Self, StartError> {
        let all = |addresses: &[SocketAddr]| {
            addresses.iter().map(|a| bind_tcp(*a)).collect::<Result<Vec<_>, StartError>>()
        };
        Ok(Self {
            xmpp: all(&config.listen.xmpp)?,
            xmpp_tls: all(&config.listen.xmpp_tls)?,
            https: all(&config.listen.https)?,
            metrics: config.listen.metrics.map(bind_tcp).transpose()?,
            admin: config.listen.admin_socket.as_deref().map(bind_unix).transpose()?,
        })
    }

    fn ports(&self) -> Result<Ports, StartError> {
        let local = |listener: &TcpListener| {
            listener.local_addr().map_err(|source| StartError::Listen { what: "a port".into(), source })
        };
        let all = |listeners: &[TcpListener]| listeners.iter().map(local).collect::<Result<Vec<_>, _>>();
        Ok(Ports {
            xmpp: all(&self.xmpp)?,
            xmpp_tls: all(&self.xmpp_tls)?,
            https: all(&self.https)?,
            metrics: self.metrics.as_ref().map(local).transpose()?,
        })
    }

    fn serve(self, core: &Arc<Core>, site: &Arc<Site>) -> Vec<tokio::task::JoinHandle<()>> {
        let mut tasks = Vec::new();
        for listener in self.xmpp {
            tasks.push(tokio::spawn(accept(listener, Arc::clone(core), |core, stream, peer| async move {
                connection::serve(core, Transport::Tcp(stream), Framing::Stream, peer).await;
            })));
        }
        for listener in self.xmpp_tls {
            tasks.push(tokio::spawn(accept(listener, Arc::clone(core), |core, stream, peer| async move {
                let Some(tls) = &core.tls else { return };
                let accepted =
                    tokio::time::timeout(core.config.sign_in_deadline(), tls.xmpp().0.accept(stream)).await;
                if let Ok(Ok(stream)) = accepted {
                    let transport = Transport::Tls(Box::new(stream));
                    connection::serve(Arc::clone(&core), transport, Framing::Stream, peer).await;
                }
            })));
        }
        for listener in self.https {
            let site = Arc::clone(site);
            tasks.push(tokio::spawn(accept(listener, Arc::clone(core), move |core, stream, peer| {
                serve_https(core, Arc::clone(&site), stream, peer)
            })));
        }
        if let Some(listener) = self.metrics {
            tasks.push(tokio::spawn(accept(listener, Arc::clone(core), |core, stream, _| async move {
                let service = service_fn(move |request| {
                    let core = Arc::clone(&core);
                    async move { Ok::<_, std::convert::Infallible>(monitoring::answer(core, request).await) }
                });
                let _ = http().serve_connection(TokioIo::new(stream), service).await;
            })));
        }
        if let Some(listener) = self.admin {
            tasks.push(tokio::spawn(accept_admin(listener, Arc::clone(core))));
        }
        tasks
    }
}

/// HTTP with a deadline for request heads, against clients that trickle.
fn http() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(20)).max_buf_size(64 * 1024);
    builder
}

async fn serve_https(core: Arc<Core>, site: Arc<Site>, stream: TcpStream, peer: IpAddr) {
    let Some(tls) = &core.tls else { return };
    let accepted = tokio::time::timeout(core.config.sign_in_deadline(), tls.https().accept(stream)).await;
    let Ok(Ok(stream)) = accepted else { return };
    let service = service_fn(move |request| {
        let (core, site) = (Arc::clone(&core), Arc::clone(&site));
        async move { Ok::<_, std::convert::Infallible>(public::answer(core, &site, peer, request)) }
    });
    let _ = http().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

async fn accept_admin(listener: UnixListener, core: Arc<Core>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let core = Arc::clone(&core);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let core = Arc::clone(&core);
                        async move { Ok::<_, std::convert::Infallible>(crate::admin::answer(core, request).await) }
                    });
                    let _ = http().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Err(error) => accept_failed(&error).await,
        }
    }
}

/// Out of descriptors, usually: waits a little, so that the loop does not spin.
async fn accept_failed(error: &io::Error) {
    tracing::warn!("cannot accept a connection: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Connections by address, to bound what one address can hold.
type PerAddress = Mutex<std::collections::HashMap<IpAddr, u64>>;

static PER_ADDRESS: std::sync::LazyLock<PerAddress> = std::sync::LazyLock::new(Mutex::default);

/// Counts a connection as long as it lives.
pub(crate) struct Counted {
    core: Arc<Core>,
    peer: IpAddr,
}

impl Counted {
    /// Counts a connection, unless there are too many.
    pub(crate) fn enter(core: &Arc<Core>, peer: IpAddr) -> Option<Self> {
        let limits = &core.config.limits;
        let mut counts = PER_ADDRESS.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&peer).copied().unwrap_or_default();
        let total = u64::try_from(core.metrics.connections.get()).unwrap_or(0);
        if count >= limits.connections_per_address || total >= limits.connections {
            return None;
        }
        counts.insert(peer, count + 1);
        core.metrics.connections.add(1);
        core.metrics.connections_total.add(1);
        Some(Self { core: Arc::clone(core), peer })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.core.metrics.connections.add(-1);
        let mut counts = PER_ADDRESS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

async fn accept<F, Fut>(listener: TcpListener, core: Arc<Core>, serve: F)
where
    F: Fn(Arc<Core>, TcpStream, IpAddr) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let peer = peer.ip();
                // Over a limit the connection is dropped: the peer sees it closed at once.
                let Some(counted) = Counted::enter(&core, peer) else { continue };
                let _ = stream.set_nodelay(true);
                keep_alive(&stream);
                let serving = serve(Arc::clone(&core), stream, peer);
                tokio::spawn(async move {
                    serving.await;
                    drop(counted);
                });
            }
            Err(error) => accept_failed(&error).await,
        }
    }
}

/// Finds out about peers that vanished: after three minutes without a sign of life, whether something is on its way to them
/// or not.
fn keep_alive(stream: &TcpStream) {
    let options = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(90))
        .with_interval(Duration::from_secs(30))
        .with_retries(3);
    let socket = socket2::SockRef::from(stream);
    let _ = socket.set_tcp_keepalive(&options);
    let _ = socket.set_tcp_user_timeout(Some(Duration::from_mins(3)));
}

/// What is done now and then: memory tidied, the archive's old messages removed.
async fn housekeeping(core: Arc<Core>) {
    let mut tick = tokio::time::interval(Duration::from_secs(10));
    let mut stop = core.stop.subscribe();
    let mut rounds = 0_u32;
    let mut expired: Option<Instant> = None;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        core.users.tidy();
        core.resumable.tidy();
        if rounds % 6 == 5 {
            let now = crate::now_ms();
            for session in core.users.all_sessions() {
                session.forget_recent(now);
            }
        }
        core.cluster.retry(&core).await;
        if !core.live.is_single_node() && rounds % 3 == 2 {
            nodes::end_refused(&core).await;
        }
        rounds = rounds.wrapping_add(1);
        let days = core.config.archive.expire_days;
        // The first time soon after the start: a server may be restarted more often than every hour.
        if days > 0 && rounds > 1 && expired.is_none_or(|last| last.elapsed() > Duration::from_hours(1)) {
            expired = Some(Instant::now());
            let before = crate::now_ms() - i64::from(days) * 86_400_000;
            if let Err(error) = core.store.expire_archive(None, before).await {
                core.report("cannot remove old messages from the archive", &error);
            }
        }
    }
}

/// What clients have confirmed is written within this, also when the sessions took all the time of a drain.
const SETTLING: Duration = Duration::from_secs(2);

/// Takes no new sessions, and ends those there are with what they still have to do, within a deadline.
pub async fn drain(core: &Arc<Core>, deadline: Duration) {
    core.draining.store(true, Ordering::Relaxed);
    for session in core.users.all_sessions() {
        core.close_session(&session, Close::Shutdown);
    }
    let until = Instant::now() + deadline;
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let busy = || !core.users.all_sessions().is_empty() || core.has_unfinished_work();
    while busy() && Instant::now() < until {
        look.tick().await;
    }
    // Other nodes ask this one what its clients have confirmed for as long as it is there: once it has gone, marks that
    // are left would hand those messages out again.
    let rest = until.saturating_duration_since(Instant::now()).max(SETTLING);
    match tokio::time::timeout(rest, core.store.settle()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => core.report("cannot write what clients have confirmed", &error),
        // Some of it may come again.
        Err(_) => tracing::warn!("what clients have confirmed was not written in time"),
    }
}

impl Running {
    /// Reads certificate and key again.
    ///
    /// # Errors
    /// When they cannot be used; the old ones stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.core.tls.as_ref().map_or(Ok(()), Tls::reload)
    }

    /// Drains and closes everything.
    pub async fn stop(self) {
        let core = self.core;
        for listener in self.listeners {
            listener.abort();
        }
        drain(&core, Duration::from_secs(core.config.limits.shutdown_seconds)).await;
        core.stop.send_replace(true);
        if let Some(socket) = &core.config.listen.admin_socket {
            let _ = std::fs::remove_file(socket);
        }
        if let Err(error) = core.live.close().await {
            core.report("cannot leave the cluster", &error);
        }
        if let Err(error) = core.store.close().await {
            core.report("cannot close the store", &error);
        }
    }
}
