//! One conformance suite over live state in memory and in Redis, and what only several nodes can get wrong.
//!
//! Each case on Redis has a private server on a Unix socket, without data and with a password, kept by a shell that
//! kills it when the suite ends (see `servers`).

use bytes::Bytes;
use im_store::Secret;
use im_store::live::{Live, LiveConfig, LiveError, LiveEvent, RedisConfig, Session};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Receiver;

const PASSWORD: &str = "a secret of the test";
/// A busy machine must not make a node that lives miss so much.
const LEASE: Duration = Duration::from_secs(5);

pub struct RedisServer {
    pub folder: PathBuf,
    keeper: Option<Child>,
}

impl RedisServer {
    fn start() -> Self {
        Self::start_with("port 0")
    }

    /// With these settings of listening by TCP; the folder has certificates.
    pub fn start_with(listening: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("mxr-").tempdir_in("/tmp").unwrap().keep();
        let settings = format!(
            "{1}\nunixsocket {0}/socket\ndir {0}\nsave \"\"\nappendonly no\nrequirepass \"{PASSWORD}\"\n\
             logfile {0}/log\n",
            folder.display(),
            listening.replace("FOLDER", &folder.display().to_string())
        );
        crate::servers::write_certificates(&folder);
        fs::write(folder.join("redis.conf"), settings).unwrap();
        let mut server = Self { folder, keeper: None };
        server.run();
        server
    }

    fn run(&mut self) {
        let _ = fs::remove_file(self.folder.join("socket"));
        let server = "/usr/bin/redis-server";
        assert!(
            fs::exists(server).unwrap(),
            "{server} is missing on this machine: install the Debian package redis-server (tests/setup does), or \
             leave it out by MAXIM_TEST_STORES"
        );
        let script = "folder=$1; shift; \"$@\" </dev/null >/dev/null 2>&1 & pid=$!; read -r _; \
                      kill -9 $pid 2>/dev/null; wait $pid; [ -e \"$folder/keep\" ] || rm -rf \"$folder\"";
        let keeper = Command::new("sh")
            .args(["-c", script, "keeper"])
            .arg(&self.folder)
            .arg(server)
            .arg(self.folder.join("redis.conf"))
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.keeper = Some(keeper);
        let end = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(self.folder.join("socket")).is_err() {
            assert!(
                Instant::now() < end,
                "{}",
                fs::read_to_string(self.folder.join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn kill(&mut self) {
        fs::write(self.folder.join("keep"), "").unwrap();
        let mut keeper = self.keeper.take().unwrap();
        drop(keeper.stdin.take());
        keeper.wait().unwrap();
        fs::remove_file(self.folder.join("keep")).unwrap();
    }

    pub fn config(&self, node: &str) -> RedisConfig {
        RedisConfig {
            node: node.into(),
            host: String::new(),
            port: 0,
            socket: Some(self.folder.join("socket")),
            password: Some(Secret::new(PASSWORD)),
            user: None,
            ca_file: None,
            prefix: "test:".into(),
        }
    }

    async fn node(&self, name: &str) -> (Live, Receiver<LiveEvent>) {
        Live::open_with_lease(&LiveConfig::Redis(self.config(name)), LEASE).await.unwrap()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

fn session(live: &Live, bare: &str, resource: &str, token: u64) -> Session {
    Session {
        bare: bare.into(),
        resource: resource.into(),
        node: live.node().clone(),
        token,
        priority: None,
        presence: None,
        carbons: false,
    }
}

/// Waits until `holds`; the replica follows at its own pace.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn with_redis<F: Future<Output = ()>>(case: impl FnOnce(RedisServer) -> F) {
    if std::env::var("MAXIM_TEST_STORES")
        .is_ok_and(|list| !list.split(',').any(|name| name.trim() == "redis"))
    {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_mins(1), case(RedisServer::start()))
            .await
            .expect("over a minute");
    });
}

fn with_memory<F: Future<Output = ()>>(case: impl FnOnce(Live, Receiver<LiveEvent>) -> F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let (live, events) = Live::open(&LiveConfig::Memory { node: "one".into() }).await.unwrap();
        tokio::time::timeout(Duration::from_mins(1), case(live, events)).await.expect("over a minute");
    });
}

macro_rules! live_cases {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $( #[test] fn $case() { super::with_memory(|live, events| super::$case(live, events)); } )*
        }
        mod redis {
            $(
                #[test]
                fn $case() {
                    super::with_redis(|server| async move {
                        let (live, events) = server.node("one").await;
                        super::$case(live, events).await;
                    });
                }
            )*
        }
    };
}

live_cases!(
    sessions_come_change_and_go,
    a_resource_has_one_session,
    a_payload_to_oneself_arrives,
    rates_are_limited_per_window,
    a_live_state_is_well,
);

async fn sessions_come_change_and_go(live: Live, _events: Receiver<LiveEvent>) {
    assert!(live.sessions("ann@x").is_empty());
    let phone = session(&live, "ann@x", "phone", 1);
    let laptop = session(&live, "ann@x", "laptop", 2);
    assert_eq!(live.register(phone.clone()).await.unwrap(), None);
    assert_eq!(live.register(laptop.clone()).await.unwrap(), None);
    let present = Session {
        priority: Some(-3),
        presence: Some(Bytes::from_static("<presence><status>在</status></presence>".as_bytes())),
        carbons: true,
        ..phone.clone()
    };
    live.update(present.clone()).await.unwrap();
    for found in [live.sessions("ann@x"), live.sessions_now("ann@x").await.unwrap()] {
        assert_eq!(found.len(), 2);
        assert!(found.contains(&present) && found.contains(&laptop));
    }
    assert_eq!(live.nodes().iter().map(|node| node.sessions).sum::<u64>(), 2);
    live.unregister("ann@x", "phone", 1).await.unwrap();
    live.unregister("ann@x", "phone", 1).await.unwrap();
    assert_eq!(live.sessions("ann@x"), std::slice::from_ref(&laptop));
    assert_eq!(live.sessions_now("ann@x").await.unwrap(), [laptop]);
    assert!(live.sessions_now("nobody@x").await.unwrap().is_empty());
}

async fn a_resource_has_one_session(live: Live, _events: Receiver<LiveEvent>) {
    let first = session(&live, "ann@x", "phone", 1);
    let second = session(&live, "ann@x", "phone", 2);
    assert_eq!(live.register(first.clone()).await.unwrap(), None);
    assert_eq!(live.register(second.clone()).await.unwrap(), Some(first.clone()));
    live.update(Session { carbons: true, ..first }).await.unwrap();
    live.unregister("ann@x", "phone", 1).await.unwrap();
    assert_eq!(live.sessions("ann@x"), std::slice::from_ref(&second));
    assert_eq!(live.sessions_now("ann@x").await.unwrap(), [second]);
}

async fn a_payload_to_oneself_arrives(live: Live, mut events: Receiver<LiveEvent>) {
    let server = tokio::spawn(async move {
        for _ in 0..2 {
            let Some(LiveEvent::Payload(delivery)) = events.recv().await else { panic!("no payload") };
            if delivery.payload == "yes" {
                delivery.accept();
            }
        }
        events
    });
    let node = live.node().clone();
    live.send(&node, Bytes::from_static(b"yes")).await.unwrap();
    let refused = live.send(&node, Bytes::from_static(b"no")).await.unwrap_err();
    assert!(matches!(refused, LiveError::NodeUnreachable(_)), "{refused}");
    server.await.unwrap();
}

async fn rates_are_limited_per_window(live: Live, _events: Receiver<LiveEvent>) {
    let window = Duration::from_secs(3);
    for _ in 0..3 {
        assert!(live.allow("login:ann", 3, window).await);
    }
    assert!(!live.allow("login:ann", 3, window).await);
    assert!(live.allow("login:bob", 3, window).await);
    let end = Instant::now() + Duration::from_secs(30);
    while !live.allow("login:ann", 3, window).await {
        assert!(Instant::now() < end, "the window never ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_live_state_is_well(live: Live, _events: Receiver<LiveEvent>) {
    live.ping().await.unwrap();
    assert_eq!(live.node().name(), "one");
    assert_eq!(live.nodes().len(), 1);
    live.close().await.unwrap();
}

mod cluster {
    use super::*;

    #[test]
    fn nodes_see_each_others_sessions() {
        with_redis(|server| async move {
            let (a, _events_a) = server.node("a").await;
            a.register(session(&a, "ann@x", "phone", 1)).await.unwrap();
            // One that comes later reads what is there, and is told of what comes.
            let (b, _events_b) = server.node("b").await;
            assert_eq!(b.sessions("ann@x"), a.sessions("ann@x"));
            let present = Session { priority: Some(1), ..session(&a, "ann@x", "phone", 1) };
            a.update(present.clone()).await.unwrap();
            eventually("the update arrives", || b.sessions("ann@x") == [present.clone()]).await;
            b.register(session(&b, "ann@x", "laptop", 2)).await.unwrap();
            assert_eq!(a.sessions_now("ann@x").await.unwrap().len(), 2);
            eventually("the new session arrives", || a.sessions("ann@x").len() == 2).await;
            a.unregister("ann@x", "phone", 1).await.unwrap();
            eventually("the end arrives", || b.sessions("ann@x").len() == 1).await;
            eventually("both are known", || a.nodes().len() == 2 && b.nodes().len() == 2).await;
        });
    }

    #[test]
    fn a_resource_moves_between_nodes() {
        with_redis(|server| async move {
            let ((a, _ea), (b, _eb)) = (server.node("a").await, server.node("b").await);
            let (old, new) = (session(&a, "ann@x", "phone", 1), session(&b, "ann@x", "phone", 2));
            a.register(old.clone()).await.unwrap();
            assert_eq!(b.register(new.clone()).await.unwrap(), Some(old.clone()));
            // What the old one does from now on changes nothing.
            eventually("a hears of it", || a.sessions("ann@x") == [new.clone()]).await;
            a.update(Session { carbons: true, ..old }).await.unwrap();
            a.unregister("ann@x", "phone", 1).await.unwrap();
            assert_eq!(a.sessions_now("ann@x").await.unwrap(), std::slice::from_ref(&new));
            assert_eq!(b.sessions_now("ann@x").await.unwrap(), [new]);
        });
    }

    #[test]
    fn nodes_that_register_one_resource_at_once_agree() {
        with_redis(|server| async move {
            let ((a, _ea), (b, _eb)) = (server.node("a").await, server.node("b").await);
            for round in 0..50_u64 {
                let bare = format!("user{round}@x");
                let (first, second) =
                    (session(&a, &bare, "r", round * 2), session(&b, &bare, "r", round * 2 + 1));
                let (one, two) = tokio::join!(a.register(first), b.register(second));
                one.unwrap();
                two.unwrap();
                eventually("both agree", || {
                    let (in_a, in_b) = (a.sessions(&bare), b.sessions(&bare));
                    in_a.len() == 1 && in_a == in_b
                })
                .await;
            }
        });
    }

    #[test]
    fn payloads_arrive_in_order_or_are_refused() {
        with_redis(|server| async move {
            let ((a, _ea), (b, mut events)) = (server.node("a").await, server.node("b").await);
            eventually("a knows b", || a.nodes().len() == 2).await;
            let receiver = tokio::spawn(async move {
                let mut seen = Vec::new();
                while seen.len() < 500 {
                    let Some(LiveEvent::Payload(delivery)) = events.recv().await else {
                        panic!("no payload")
                    };
                    seen.push(String::from_utf8(delivery.payload.to_vec()).unwrap());
                    delivery.accept();
                }
                (seen, events)
            });
            for number in 0..500 {
                a.send(b.node(), Bytes::from(number.to_string())).await.unwrap();
            }
            let (seen, events) = receiver.await.unwrap();
            assert_eq!(seen, (0..500).map(|number| number.to_string()).collect::<Vec<_>>());
            // A server that takes nothing any more refuses, and at once.
            drop(events);
            let began = Instant::now();
            let refused = a.send(b.node(), Bytes::from_static(b"late")).await.unwrap_err();
            assert!(matches!(refused, LiveError::NodeUnreachable(_)), "{refused}");
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
            let nobody = im_store::live::NodeId::fresh("nobody");
            assert!(a.send(&nobody, Bytes::new()).await.is_err());
        });
    }

    #[test]
    fn a_dead_node_loses_its_sessions() {
        with_redis(|server| async move {
            let ((a, mut events), (b, events_b)) = (server.node("a").await, server.node("b").await);
            b.register(session(&b, "bob@x", "phone", 1)).await.unwrap();
            b.register(session(&b, "ann@x", "tablet", 2)).await.unwrap();
            a.register(session(&a, "ann@x", "phone", 3)).await.unwrap();
            eventually("a knows all", || a.sessions("bob@x").len() == 1 && a.sessions("ann@x").len() == 2)
                .await;
            // Dropped without leaving, its tasks end at once: as dead as a killed process.
            let dead = b.node().clone();
            drop((b, events_b));
            let Some(LiveEvent::SessionsLost(mut lost)) = events.recv().await else { panic!("nothing lost") };
            lost.sort_by_key(|session| session.token);
            assert_eq!(lost.iter().map(|session| session.token).collect::<Vec<_>>(), [1, 2]);
            assert!(a.sessions("bob@x").is_empty());
            assert_eq!(a.sessions("ann@x").len(), 1);
            assert!(a.sessions_now("bob@x").await.unwrap().is_empty());
            assert!(a.send(&dead, Bytes::new()).await.is_err());
            // It is cleaned out of Redis too, in time.
            let client = ::redis::Client::open(format!(
                "redis+unix://{}?pass={}",
                server.folder.join("socket").display(),
                PASSWORD.replace(' ', "%20")
            ))
            .unwrap();
            let end = Instant::now() + Duration::from_secs(20);
            loop {
                let mut connection = client.get_multiplexed_async_connection().await.unwrap();
                let keys: Vec<String> =
                    ::redis::cmd("KEYS").arg("test:*").query_async(&mut connection).await.unwrap();
                if !keys.iter().any(|key| key.contains("bob@x") || key.contains(dead.as_str())) {
                    break;
                }
                assert!(Instant::now() < end, "{keys:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }

    #[test]
    fn a_node_that_leaves_is_gone_at_once() {
        with_redis(|server| async move {
            let ((a, mut events), (b, _eb)) = (server.node("a").await, server.node("b").await);
            b.register(session(&b, "bob@x", "phone", 1)).await.unwrap();
            eventually("a knows bob", || a.sessions("bob@x").len() == 1).await;
            let began = Instant::now();
            b.close().await.unwrap();
            assert!(matches!(events.recv().await, Some(LiveEvent::SessionsLost(lost)) if lost.len() == 1));
            // Before anybody could have missed its heartbeats.
            assert!(began.elapsed() < LEASE * 3 / 5, "{:?}", began.elapsed());
            assert!(a.sessions_now("bob@x").await.unwrap().is_empty());
        });
    }

    #[test]
    fn sessions_survive_an_emptied_redis() {
        with_redis(|mut server| async move {
            let ((a, mut events), (b, _eb)) = (server.node("a").await, server.node("b").await);
            a.register(session(&a, "ann@x", "phone", 1)).await.unwrap();
            b.register(session(&b, "bob@x", "phone", 2)).await.unwrap();
            b.register(session(&b, "bob@x", "tablet", 3)).await.unwrap();
            eventually("each knows the other's", || {
                a.sessions("bob@x").len() == 2 && b.sessions("ann@x").len() == 1
            })
            .await;
            server.kill();
            // Its own sessions a node knows without Redis, and changes to them are made up for later.
            assert_eq!(a.sessions("ann@x").len(), 1);
            assert!(a.sessions_now("bob@x").await.is_err());
            assert!(a.ping().await.is_err());
            assert!(a.register(session(&a, "ann@x", "laptop", 4)).await.is_err());
            assert_eq!(a.sessions("ann@x").len(), 2);
            let _ = b.unregister("bob@x", "tablet", 3).await;
            server.run();
            eventually("each knows what is now", || {
                b.sessions("ann@x").len() == 2 && a.sessions("bob@x").len() == 1
            })
            .await;
            let end = Instant::now() + Duration::from_secs(20);
            loop {
                let now = [a.sessions_now("bob@x").await, b.sessions_now("ann@x").await];
                let counts = now.map(|sessions| sessions.map_or(0, |sessions| sessions.len()));
                if counts == [1, 2] && a.ping().await.is_ok() {
                    break;
                }
                assert!(Instant::now() < end, "{counts:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // A new node learns all of it, and nobody was taken for dead.
            let (c, _ec) = server.node("c").await;
            assert_eq!((c.sessions("ann@x").len(), c.sessions("bob@x").len()), (2, 1));
            assert!(events.try_recv().is_err());
        });
    }

    #[test]
    fn a_wrong_password_is_refused_in_time() {
        with_redis(|server| async move {
            let config = RedisConfig { password: Some(Secret::new("wrong")), ..server.config("a") };
            let began = Instant::now();
            let error = Live::open(&LiveConfig::Redis(config.clone())).await.unwrap_err();
            assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
            let shown = format!("{error:?} {config:?}");
            assert!(!shown.contains("wrong\""), "{shown}");
        });
    }
}
