//! Listens, speaks TLS, serves; ends cleanly.
//!
//! Given: a configuration, a clock and a source of status. Steps: [`Server::bind`] opens everything and fails early
//! (database, first administrator, certificate, port); [`Server::run`] serves until it is told to stop, then lets
//! requests in hand finish for [`GRACE`]. Limits: connections at once, time for the handshake and for the head of a
//! request, so that idle or slow peers cannot use up the server. A browser that speaks plain HTTP to the port is sent
//! to HTTPS.

use crate::auth::password::{HashError, Hasher};
use crate::auth::setup::{self, SetupError};
use crate::clock::Clock;
use crate::config::Config;
use crate::routes::{self, App, Peer};
use crate::status::source::StatusSource;
use crate::status::watcher::{Pace, Watcher};
use crate::store::{Store, StoreError};
use crate::tls::{self, TlsError};
use crate::view::assets::Assets;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// Connections served at the same time; more wait in the system's queue.
const CONNECTIONS: usize = 256;
/// Longest TLS handshake, first byte included.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest wait for the head of a request, also of the next one on a kept connection.
const HEAD: Duration = Duration::from_secs(30);
/// How long requests in hand may take once the server is told to stop.
const GRACE: Duration = Duration::from_secs(4);
/// Pause after a failure to accept (descriptors used up), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// First byte of a TLS handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Why the console does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be made.
    #[error("the data folder {path}: {cause}")]
    Data {
        /// The folder.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first administrator.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The port.
    #[error("cannot listen on {address}: {cause}; choose another port, or end what holds it")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// The ports file.
    #[error("cannot write the ports file {path}: {cause}")]
    PortsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
}

/// A console that listens and is ready to serve.
pub struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    router: Router,
    address: SocketAddr,
    watcher: Watcher,
    measuring: JoinHandle<()>,
    setup: Option<JoinHandle<Result<(), SetupError>>>,
    ready: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Opens everything. Blocks for the short time of opening the database.
    pub async fn bind(
        config: &Config,
        clock: Arc<dyn Clock>,
        source: Arc<dyn StatusSource>,
        pace: Pace,
    ) -> Result<Self, StartError> {
        let tls = tls::server_config(&config.certificate, &config.key)?;
        private_folder(&config.data)
            .map_err(|cause| StartError::Data { path: config.data.clone(), cause })?;
        let store = Store::open(&config.data)?;
        let first = setup::prepare(&store, config.setup_password_file.as_deref())?;
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|cause| StartError::Listen { address: config.listen, cause })?;
        let address =
            listener.local_addr().map_err(|cause| StartError::Listen { address: config.listen, cause })?;
        if let Some(path) = &config.ports_file {
            write_whole(path, &format!("{{\"console\":{}}}\n", address.port()))
                .map_err(|cause| StartError::PortsFile { path: path.clone(), cause })?;
        }
        let (stop, stopped) = watch::channel(false);
        let (watcher, measuring) = Watcher::start(source, Arc::clone(&clock), pace, stopped);
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        // The slow hash of the first password does not delay the listener; sign-ins wait for it.
        let (ready, is_ready) = watch::channel(first.is_none());
        let setup = first.map(|first| {
            let (store, now) = (store.clone(), clock.now());
            tokio::task::spawn_blocking(move || {
                first.complete(&store, now)?;
                tracing::info!("made the first administrator from the setup password file");
                ready.send_replace(true);
                Ok(())
            })
        });
        let app = App {
            store,
            ready: is_ready.clone(),
            watcher: watcher.clone(),
            clock,
            hasher: Hasher::default(),
            assets: Arc::new(Assets::default()),
            idle: seconds(config.idle),
            absolute: seconds(config.absolute),
        };
        Ok(Self {
            listener,
            acceptor: TlsAcceptor::from(tls),
            router: routes::router(Arc::new(app)),
            address,
            watcher,
            measuring,
            setup,
            ready: is_ready,
            stop,
        })
    }

    /// Address and port it listens on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Becomes true once the first administrator exists.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// The watcher of the cluster.
    pub fn watcher(&self) -> Watcher {
        self.watcher.clone()
    }

    /// Serves until `shutdown` resolves, or the first administrator could not be made.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
        let mut failure = Ok(());
        let setup = self.setup.take();
        // Resolves only when nobody will ever be able to sign in.
        let hopeless = async move {
            match setup {
                Some(setup) => match setup.await {
                    Ok(Err(error)) => StartError::Setup(error),
                    Ok(Ok(())) => std::future::pending().await,
                    Err(_) => StartError::Setup(SetupError::Hash(HashError::Failed)),
                },
                None => std::future::pending().await,
            }
        };
        tokio::pin!(hopeless);
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            let place = tokio::select! {
                () = &mut shutdown => break,
                place = Arc::clone(&places).acquire_owned() => place,
            };
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                error = &mut hopeless => {
                    failure = Err(error);
                    break;
                }
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let router = self.router.clone().layer(Extension(Peer(peer)));
                    let (acceptor, stop) = (self.acceptor.clone(), self.stop.subscribe());
                    connections.spawn(async move {
                        let _place = place;
                        serve(stream, acceptor, router, stop).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            // Finished ones are taken out, so that the set does not grow.
            while connections.try_join_next().is_some() {}
        }
        drop(self.listener);
        self.stop.send_replace(true);
        let finished = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, finished).await.is_err() {
            tracing::warn!("requests that did not finish in time were cut off");
            connections.abort_all();
        }
        self.measuring.abort();
        failure
    }
}

/// One connection from its first byte to its end.
async fn serve(stream: TcpStream, acceptor: TlsAcceptor, router: Router, mut stop: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let handshake = async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
            redirect_to_https(stream).await?;
            return Ok(None);
        }
        acceptor.accept(stream).await.map(Some)
    };
    let stream = tokio::select! {
        done = tokio::time::timeout(HANDSHAKE, handshake) => match done {
            Ok(Ok(Some(stream))) => stream,
            // Scanners and browsers that do not trust the authority yet are no news.
            Ok(Ok(None) | Err(_)) | Err(_) => return,
        },
        () = stopped(&mut stop) => return,
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Resolves when the server is told to stop, also when it is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Answers plain HTTP with the same address over HTTPS.
async fn redirect_to_https(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = [0; 2048];
    let mut length = 0;
    while length < head.len() && !head[..length].windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut head[length..]).await? {
            0 => break,
            read => length += read,
        }
    }
    stream.write_all(answer_to_plain_http(&String::from_utf8_lossy(&head[..length])).as_bytes()).await?;
    stream.shutdown().await
}

fn answer_to_plain_http(head: &str) -> String {
    let safe = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let path = head.split(' ').nth(1).filter(safe).filter(|path| path.starts_with('/')).unwrap_or("/");
    let host = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map(|(_, value)| value.trim())
        .filter(safe)
        .filter(|host| !host.contains(['/', '@', '\\', '?', '#']));
    let text = "This port speaks HTTPS.\n";
    let (status, location) = match host {
        Some(host) => ("308 Permanent Redirect", format!("Location: https://{host}{path}\r\n")),
        None => ("400 Bad Request", String::new()),
    };
    format!(
        "HTTP/1.1 {status}\r\n{location}Content-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
}

/// Makes the folder for its owner only, when it is missing.
fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file whole: temporary name, sync, rename.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::answer_to_plain_http;

    #[test]
    fn plain_http_is_sent_to_https_and_nowhere_else() {
        let answer = answer_to_plain_http("GET /hosts HTTP/1.1\r\nHost: im.acme.example:9443\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 308 "));
        assert!(answer.contains("\r\nLocation: https://im.acme.example:9443/hosts\r\n"), "{answer}");
        for head in ["", "\u{1}\u{2}", "GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"] {
            assert!(answer_to_plain_http(head).starts_with("HTTP/1.1 400 "), "{head}");
        }
        let odd = answer_to_plain_http("GET http://evil/ HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(odd.contains("Location: https://a/\r\n"), "{odd}");
    }
}
