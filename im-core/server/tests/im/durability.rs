//! What was acknowledged survives the end of the process, whatever ended it.

use std::sync::Arc;
use std::time::Duration;

use im_proto::{Element, ns};
use tokio::sync::Notify;

use crate::client::{Client, body};
use crate::server::Server;

/// All bodies of an account's archive, in order.
async fn archive(client: &mut Client) -> Vec<String> {
    let mut bodies = Vec::new();
    let mut after = String::new();
    loop {
        let set = format!("<set xmlns='{}'><max>200</max>{after}</set>", ns::RSM);
        let (page, fin) =
            client.iq_with("set", None, &format!("<query xmlns='{}'>{set}</query>", ns::MAM)).await;
        let message = |e: &Element| {
            let forwarded = e.child("result", ns::MAM)?.child("forwarded", ns::FORWARD)?;
            forwarded.child("message", ns::CLIENT).map(body)
        };
        bodies.extend(page.iter().filter_map(message));
        let fin = fin.child("fin", ns::MAM).unwrap().clone();
        if fin.attr("complete").is_some() {
            return bodies;
        }
        let last = fin.child("set", ns::RSM).unwrap().child("last", ns::RSM).unwrap().text();
        after = format!("<after>{last}</after>");
    }
}

#[tokio::test]
async fn acknowledged_messages_survive_a_kill() {
    let mut server = Server::start("").await;
    server.users(["alice", "bob"]).await;
    for round in 0..3_u64 {
        let mut alice = Client::online(&server, "alice", "a").await;
        alice.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
        alice.until(|e| e.is("enabled", ns::SM)).await;
        let before = archive(&mut alice).await.len();
        // The archive queries before are counted too.
        alice.send("<r xmlns='urn:xmpp:sm:3'/>").await;
        let base: u32 = alice.until(|e| e.is("a", ns::SM)).await.attr("h").unwrap().parse().unwrap();
        let pid = server.pid();
        let first = Arc::new(Notify::new());
        let begun = Arc::clone(&first);
        let killer = tokio::spawn(async move {
            // On a busy machine the first acknowledgement takes its time.
            tokio::time::timeout(Duration::from_secs(20), begun.notified()).await.ok();
            tokio::time::sleep(Duration::from_millis(60 + 70 * round)).await;
            std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        });
        let mut acknowledged = 0;
        let mut sent = 0;
        let traffic = async {
            use tokio::io::AsyncWriteExt as _;
            loop {
                let mut batch = String::new();
                for _ in 0..10 {
                    batch.push_str(&format!(
                        "<message to='bob@im.example' type='chat'><body>{round}-{sent}</body></message>"
                    ));
                    sent += 1;
                }
                batch.push_str("<r xmlns='urn:xmpp:sm:3'/>");
                if alice.io.write_all(batch.as_bytes()).await.is_err() || alice.io.flush().await.is_err() {
                    return;
                }
                loop {
                    match alice.read().await {
                        Some(e) if e.is("a", ns::SM) => {
                            acknowledged = e.attr("h").unwrap().parse::<u32>().unwrap() - base;
                            if acknowledged > 0 {
                                first.notify_one();
                            }
                            break;
                        }
                        Some(_) => {}
                        None => return,
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), traffic).await.expect("the server was not killed");
        killer.await.unwrap();
        server.kill();
        server.run().await;
        assert!(acknowledged > 0, "killed too early to tell anything");

        let mut alice = Client::online(&server, "alice", "b").await;
        let kept = archive(&mut alice).await.split_off(before);
        assert!(kept.len() >= acknowledged as usize, "{acknowledged} acknowledged, {} kept", kept.len());
        let expected: Vec<_> = (0..kept.len()).map(|n| format!("{round}-{n}")).collect();
        assert_eq!(kept, expected, "gaps, doubles or disorder");
        // And bob, who was away, gets every one of them once.
        let mut bob = Client::bound(&server, "bob", "b").await;
        bob.send("<presence/>").await;
        for n in 0..kept.len() {
            assert_eq!(body(&bob.message().await), format!("{round}-{n}"));
        }
    }
}

#[tokio::test]
async fn a_stop_is_announced_and_loses_nothing() {
    let mut server = Server::start("").await;
    server.users(["alice", "bob"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    let mut all = String::new();
    for n in 0..200 {
        all.push_str(&format!("<message to='bob@im.example' type='chat'><body>{n}</body></message>"));
    }
    alice.send(&all).await;
    alice.ping().await;
    // Many sessions that got a message each, acknowledged none, and have an end to note.
    let names = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
    server.users(names).await;
    let mut others = Vec::new();
    for name in names {
        let mut client = Client::online(&server, name, "r").await;
        client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
        client.until(|e| e.name == "enabled").await;
        alice
            .send(&format!("<message to='{name}@im.example' type='chat'><body>{name}</body></message>"))
            .await;
        assert_eq!(body(&client.message().await), name);
        others.push(client);
    }
    // Half of them without a connection.
    others.truncate(names.len() / 2);
    let status = std::process::Command::new("kill").arg(server.pid().to_string()).status().unwrap();
    assert!(status.success());
    assert_eq!(alice.ended().await.as_deref(), Some("system-shutdown"));
    assert!(server.wait().success());
    let log = server.log();
    assert!(!log.contains("the store is closed"), "{log}");
    server.run().await;
    let mut bob = Client::bound(&server, "bob", "b").await;
    bob.send("<presence/>").await;
    for n in 0..200 {
        assert_eq!(body(&bob.message().await), n.to_string());
    }
    for name in names {
        let mut client = Client::bound(&server, name, "r").await;
        client.send("<presence/>").await;
        assert_eq!(body(&client.message().await), name);
    }
}
