//! A server that vanishes without a word in the middle of a query, as a host that loses its power does: the connection is
//! given up, and its place in the pool is free again.

use crate::servers::{Kind, Scratch};
use im_store::{Housekeeping as _, ServerAddress, Store, StoreConfig};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// Carries bytes between clients and a server. Connections that were there at a [`Between::hush`] carry nothing any more,
/// and are not closed.
struct Between {
    folder: tempfile::TempDir,
    hushed: watch::Sender<u32>,
}

impl Between {
    /// Listens in a folder of its own, by the name that the server's socket has.
    fn before(server: PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(server.file_name().unwrap())).unwrap();
        let (hushed, hears) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let made = *hears.borrow();
                let (from, to) = client.into_split();
                let (back, on) = UnixStream::connect(&server).await.unwrap().into_split();
                tokio::spawn(carry(from, on, made, hears.clone()));
                tokio::spawn(carry(back, to, made, hears.clone()));
            }
        });
        Self { folder, hushed }
    }

    fn hush(&self) {
        self.hushed.send_modify(|times| *times += 1);
    }
}

async fn later(hushed: &mut watch::Receiver<u32>, made: u32) {
    // An end of the test is no sign of life either.
    drop(hushed.wait_for(|times| *times > made).await);
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, made: u32, mut hushed: watch::Receiver<u32>) {
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
    }
}

/// The same store by another socket, through one connection.
fn through(config: StoreConfig, place: impl FnOnce(&Path) -> PathBuf) -> (StoreConfig, Between) {
    let changed = |mut config: im_store::ServerConfig| {
        let ServerAddress::Socket(socket) = &config.address else { panic!("the suite uses sockets") };
        let between = Between::before(place(socket));
        let own = between.folder.path();
        let file = own.join(socket.file_name().unwrap());
        config.address = ServerAddress::Socket(if file.exists() { file } else { own.to_owned() });
        config.connections = 1;
        (config, between)
    };
    match config {
        StoreConfig::Mariadb(config) => {
            let (config, between) = changed(config);
            (StoreConfig::Mariadb(config), between)
        }
        StoreConfig::Postgresql(config) => {
            let (config, between) = changed(config);
            (StoreConfig::Postgresql(config), between)
        }
        StoreConfig::Sqlite { .. } => panic!("SQLite has no server"),
    }
}

fn vanishes(kind: Kind) {
    if !kind.is_wanted() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let scratch = Scratch::new(kind).await;
        let place = |socket: &Path| match kind {
            Kind::Postgresql => socket.join(".s.PGSQL.5432"),
            _ => socket.to_owned(),
        };
        let (config, between) = through(scratch.config(), place);
        let store = Store::open(&config).await.unwrap();
        store.ping().await.unwrap();
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
