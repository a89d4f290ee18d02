//! What was acknowledged survives SIGKILL: of the writing process, and of the database server. Nothing is there
//! twice, and nothing is there that was never sent.

use super::message;
use crate::servers::{Kind, Scratch, Server};
use im_store::{Archive, ArchiveQuery, Secret, ServerAddress, ServerConfig, Store, StoreConfig};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Set for the child process that writes until it is killed.
const CHILD: &str = "MAXIM_STORE_TEST_CHILD";

mod sqlite {
    #[test]
    fn what_was_acknowledged_survives_the_death_of_its_writer() {
        super::writer_dies(super::Kind::Sqlite);
    }
}

mod mariadb {
    #[test]
    fn what_was_acknowledged_survives_the_death_of_its_writer() {
        super::writer_dies(super::Kind::Mariadb);
    }
    #[test]
    fn what_was_acknowledged_survives_the_death_of_the_server() {
        super::server_dies(super::Kind::Mariadb);
    }
}

mod postgresql {
    #[test]
    fn what_was_acknowledged_survives_the_death_of_its_writer() {
        super::writer_dies(super::Kind::Postgresql);
    }
    #[test]
    fn what_was_acknowledged_survives_the_death_of_the_server() {
        super::server_dies(super::Kind::Postgresql);
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Every number that is stored, each once.
async fn stored(store: &Store) -> HashSet<u32> {
    let query = ArchiveQuery { max: 1_000_000, ..ArchiveQuery::default() };
    let mut numbers = HashSet::new();
    for owner in ["ann@x", "bob@x"] {
        let mut seen = HashSet::new();
        for message in store.query_archive(owner, &query).await.unwrap().messages {
            let text = String::from_utf8(message.stanza.to_vec()).unwrap();
            let number = text.split("<body>").nth(1).unwrap().split('<').next().unwrap().parse().unwrap();
            assert!(seen.insert(number), "message {number} is stored twice for {owner}");
        }
        assert!(numbers.is_empty() || numbers == seen, "the two archives differ");
        numbers = seen;
    }
    numbers
}

fn writer_dies(kind: Kind) {
    if !kind.is_wanted() {
        return;
    }
    let scratch = runtime().block_on(Scratch::new(kind));
    let acknowledged = kill_a_writer(&scratch.config(), 1500);
    runtime().block_on(async {
        let store = scratch.open().await;
        let stored = stored(&store).await;
        let lost: Vec<_> = acknowledged.iter().filter(|number| !stored.contains(number)).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        assert!(acknowledged.len() >= 1500, "{}", acknowledged.len());
        scratch.assert_messages_stored(stored.len() as i64).await;
        // The next writer's messages come after all of those.
        let last = store.archive_bounds("ann@x").await.unwrap().unwrap().1;
        assert!(super::append(&store, message("ann@x", "bob@x", "1000000")).await > last);
    });
}

/// Starts this test program once more as a writer, and kills it after `count` acknowledgements.
fn kill_a_writer(config: &StoreConfig, count: usize) -> Vec<u32> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "conformance::durability::writer_until_killed", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(describe(config).as_bytes()).unwrap();
    drop(stdin);
    let mut acknowledged = Vec::new();
    let mut killed = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if let Some(number) = line.unwrap().strip_prefix("acknowledged ") {
            acknowledged.push(number.parse().unwrap());
        }
        if acknowledged.len() >= count && !killed {
            // What it still says was said before it died, and counts.
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    acknowledged
}

fn describe(config: &StoreConfig) -> String {
    match config {
        StoreConfig::Sqlite { path } => format!("sqlite\n{}\n", path.display()),
        StoreConfig::Mariadb(server) | StoreConfig::Postgresql(server) => {
            let kind = if matches!(config, StoreConfig::Mariadb(_)) { "mariadb" } else { "postgresql" };
            let ServerAddress::Socket(socket) = &server.address else { panic!("the suite uses sockets") };
            let password = server.password.as_ref().unwrap().expose();
            format!("{kind}\n{}\n{}\n{}\n{password}\n", socket.display(), server.database, server.user)
        }
    }
}

fn read_description(text: &str) -> StoreConfig {
    let lines: Vec<&str> = text.lines().collect();
    if lines[0] == "sqlite" {
        return StoreConfig::Sqlite { path: lines[1].into() };
    }
    let server = ServerConfig {
        address: ServerAddress::Socket(lines[1].into()),
        database: lines[2].into(),
        user: lines[3].into(),
        password: Some(Secret::new(lines[4])),
        ca_file: None,
        connections: 2,
    };
    if lines[0] == "mariadb" { StoreConfig::Mariadb(server) } else { StoreConfig::Postgresql(server) }
}

/// The child of the tests above; does nothing in an ordinary run.
#[test]
fn writer_until_killed() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let config = read_description(&std::io::read_to_string(std::io::stdin()).unwrap());
    runtime().block_on(async {
        let store = Store::open(&config).await.unwrap();
        // The parent kills this long before; the bound is for a parent that died.
        let mut acks = std::collections::VecDeque::new();
        for number in 0..200_000 {
            acks.push_back(store.append(message("ann@x", "bob@x", &number.to_string())).await.unwrap());
            if acks.len() > 64 {
                acks.pop_front().unwrap().await.unwrap();
                println!("acknowledged {}", number - 64);
            }
        }
    });
}

fn server_dies(kind: Kind) {
    if !kind.is_wanted() {
        return;
    }
    let mut server = Server::start(kind);
    let runtime = runtime();
    let scratch = runtime.block_on(Scratch::on(&server));
    let store = runtime.block_on(scratch.open());
    let progress = Arc::new(AtomicU32::new(0));
    let (seen, writing) = (Arc::clone(&progress), store.clone());
    let writer = runtime.spawn(async move {
        let mut acknowledged = Vec::new();
        for round in 0..200_u32 {
            let mut acks = Vec::new();
            for number in round * 50..(round + 1) * 50 {
                acks.push((
                    number,
                    writing.append(message("ann@x", "bob@x", &number.to_string())).await.unwrap(),
                ));
            }
            for (number, ack) in acks {
                if ack.await.is_ok() {
                    acknowledged.push(number);
                }
            }
            seen.store(round, Ordering::Relaxed);
        }
        acknowledged
    });
    for crash in 1..=2_u32 {
        let end = std::time::Instant::now() + Duration::from_mins(1);
        while progress.load(Ordering::Relaxed) < crash * 40 && !writer.is_finished() {
            assert!(std::time::Instant::now() < end, "the writer makes no progress");
            std::thread::sleep(Duration::from_millis(1));
        }
        server.crash_and_restart();
    }
    let acknowledged = runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(90), writer).await.expect("the writer recovers").unwrap()
    });
    runtime.block_on(async {
        let stored = stored(&store).await;
        let lost: Vec<_> = acknowledged.iter().filter(|number| !stored.contains(number)).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        // The writer rides out a restart: nothing had to be refused.
        assert_eq!(acknowledged.len(), 10_000);
        scratch.assert_messages_stored(10_000).await;
    });
}
