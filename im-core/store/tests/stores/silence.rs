//! A server that vanishes without a word in the middle of a query, as a host that loses its power does: the connection is
//! given up, and its place in the pool is free again. Over TCP and TLS, as a server on another host is reached.

use crate::servers::{Kind, Server, free_port};
use im_store::{Housekeeping as _, ServerAddress, ServerConfig, Store, StoreConfig};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Carries bytes between clients and a server. Connections that were there at a [`Between::hush`] carry nothing any more,
/// and are not closed.
struct Between {
    port: u16,
    hushed: watch::Sender<u32>,
    /// Pieces that were carried.
    carried: Arc<AtomicU64>,
}

impl Between {
    async fn before(server: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (hushed, hears) = watch::channel(0);
        let carried = Arc::new(AtomicU64::new(0));
        let counts = Arc::clone(&carried);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let made = *hears.borrow();
                let (from, to) = client.into_split();
                let (back, on) = TcpStream::connect(("127.0.0.1", server)).await.unwrap().into_split();
                tokio::spawn(carry(from, on, made, hears.clone(), Arc::clone(&counts)));
                tokio::spawn(carry(back, to, made, hears.clone(), Arc::clone(&counts)));
            }
        });
        Self { port, hushed, carried }
    }

    /// Until nothing was carried for a second: a connection that goes back to its pool is asked twice on its way, the
    /// second time by the pool itself, which waits for as long as TCP does.
    async fn calm(&self) {
        let mut before = u64::MAX;
        while before != self.carried.load(Ordering::SeqCst) {
            before = self.carried.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn hush(&self) {
        self.hushed.send_modify(|times| *times += 1);
    }

    /// The same server by this way, through one connection.
    async fn to(config: ServerConfig) -> (ServerConfig, Self) {
        let ServerAddress::Tcp { host, port } = config.address else { panic!("it was asked for by TCP") };
        let between = Self::before(port).await;
        let address = ServerAddress::Tcp { host, port: between.port };
        (ServerConfig { address, connections: 1, ..config }, between)
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    made: u32,
    mut hushed: watch::Receiver<u32>,
    carried: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            biased;
            () = later(&mut hushed, made) => return std::future::pending().await,
            read = from.read(&mut buffer) => read,
        };
        match read {
            Ok(count) if count > 0 && to.write_all(&buffer[..count]).await.is_ok() => {}
            _ => return,
        }
        carried.fetch_add(1, Ordering::SeqCst);
    }
}

async fn later(hushed: &mut watch::Receiver<u32>, made: u32) {
    // An end of the test is no sign of life either.
    drop(hushed.wait_for(|times| *times > made).await);
}

fn vanishes(kind: Kind) {
    if !kind.is_wanted() {
        return;
    }
    let server = Server::start_with_tls(kind);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        // The databases that are there after the installation serve here.
        let name = if kind == Kind::Mariadb { "mysql" } else { "postgres" };
        let (config, between) = match server.tcp_config(name, Some(server.folder().join("ca.pem"))) {
            StoreConfig::Mariadb(config) => {
                let (config, between) = Between::to(config).await;
                (StoreConfig::Mariadb(config), between)
            }
            StoreConfig::Postgresql(config) => {
                let (config, between) = Between::to(config).await;
                (StoreConfig::Postgresql(config), between)
            }
            StoreConfig::Sqlite { .. } => panic!("SQLite has no server"),
        };
        let store = Store::open(&config).await.unwrap();
        store.ping().await.unwrap();
        between.calm().await;
        between.hush();
        assert!(store.ping().await.is_err(), "nobody answers on the connection that is there");
        let end = Instant::now() + Duration::from_secs(40);
        while store.ping().await.is_err() {
            assert!(Instant::now() < end, "the server answers new connections, and none is made");
        }
    });
}

#[test]
fn mariadb() {
    vanishes(Kind::Mariadb);
}

#[test]
fn postgresql() {
    vanishes(Kind::Postgresql);
}
