//! How many messages a second the archive alone takes, and whether it slows down as it grows.
//!
//! `append_rate SECONDS sqlite FILE` or `append_rate SECONDS mariadb|postgresql SOCKET DATABASE USER PASSWORD_FILE`:
//! 200 pairs with 8 messages under way each, 250 bytes a message, as the load generator's flood; prints the rate
//! of every second. The database is left as it is then: run it again to see a larger one.

use im_store::{Archive, ArchiveCopy, NewMessage, Secret, ServerAddress, ServerConfig, Store, StoreConfig};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const PAIRS: usize = 200;
const WINDOW: usize = 8;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]
#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (seconds, config) = match words[..] {
        [seconds, "sqlite", file] => (seconds, StoreConfig::Sqlite { path: file.into() }),
        [seconds, kind @ ("mariadb" | "postgresql"), socket, database, user, password_file] => {
            let password = std::fs::read_to_string(password_file)?;
            let server = ServerConfig {
                address: ServerAddress::Socket(socket.into()),
                database: database.into(),
                user: user.into(),
                password: Some(Secret::new(password.trim_end())),
                ca_file: None,
                connections: 2,
            };
            let config = if kind == "mariadb" {
                StoreConfig::Mariadb(server)
            } else {
                StoreConfig::Postgresql(server)
            };
            (seconds, config)
        }
        _ => {
            eprintln!(
                "append_rate SECONDS sqlite FILE | SECONDS mariadb|postgresql SOCKET DATABASE USER PASSWORD_FILE"
            );
            std::process::exit(2);
        }
    };
    let seconds: u64 = seconds.parse()?;
    let store = Store::open(&config).await?;
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let stanza = format!("<message type='chat' id='x'><body>{}</body></message>", "x".repeat(200));
    let mut tasks = Vec::new();
    for pair in 0..PAIRS {
        for _ in 0..WINDOW {
            let (store, done, stop) = (store.clone(), Arc::clone(&done), Arc::clone(&stop));
            let stanza = bytes::Bytes::from(stanza.clone());
            tasks.push(tokio::spawn(async move {
                let (from, to) = (format!("u{}@localhost", pair * 2), format!("u{}@localhost", pair * 2 + 1));
                while !stop.load(Relaxed) {
                    let copy = |owner: &str, peer: &str| ArchiveCopy {
                        owner: owner.into(),
                        peer: peer.into(),
                        archive: true,
                        offline: false,
                    };
                    let copies = vec![copy(&from, &to), copy(&to, &from)];
                    store.append(NewMessage { stanza: stanza.clone(), copies }).await?.await?;
                    done.fetch_add(1, Relaxed);
                }
                Ok::<_, im_store::StoreError>(())
            }));
        }
    }
    let mut last = 0;
    for second in 1..=seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = done.load(Relaxed);
        println!("{second} {}", now - last);
        last = now;
    }
    stop.store(true, Relaxed);
    for task in tasks {
        task.await??;
    }
    println!("mean {}", last / seconds.max(1));
    Ok(())
}
