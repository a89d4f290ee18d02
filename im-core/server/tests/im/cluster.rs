//! Two nodes on one MariaDB and one Redis: to a client they are one server.

use std::time::Duration;

use im_admin_api::Drain;
use im_proto::ns;

use crate::client::{Client, PATIENCE, body};
use crate::fixtures::Services;
use crate::server::Server;

fn chat(to: &str, text: &str) -> String {
    format!("<message to='{to}' type='chat' id='m'><body>{text}</body></message>")
}

/// Waits until both nodes know of each other.
async fn meet(nodes: [&Server; 2]) {
    let both = async {
        for node in nodes {
            while node.admin().stats().await.unwrap().nodes.len() < 2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, both).await.expect("the nodes do not see each other");
}

#[tokio::test]
async fn two_nodes_are_one_server() {
    let services = Services::start();
    let one = Server::start_on(&format!("node: one\n{}", services.config())).await;
    let mut two = Server::start_on(&format!("node: two\n{}", services.config())).await;
    meet([&one, &two]).await;
    one.users(["alice", "bob", "carol"]).await;
    let mut alice = Client::online(&one, "alice", "a").await;
    let mut phone = Client::online(&two, "alice", "phone").await;
    phone.iq("set", None, "<enable xmlns='urn:xmpp:carbons:2'/>").await;
    let mut bob = Client::online(&two, "bob", "b").await;
    bob.iq("get", None, "<query xmlns='jabber:iq:roster'/>").await;
    // Of the other's sessions a node hears in their order: where the last one is known, bob is known to be there.
    let _carol = Client::bound(&two, "carol", "c").await;
    let known = async {
        while !one.admin().stats().await.unwrap().nodes.iter().any(|n| n.name == "two" && n.sessions == 3) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.expect("one node does not hear of the other's sessions");

    // Messages both ways, in order, with carbons on the other node.
    for n in 0..50 {
        alice.send(&chat("bob@im.example", &n.to_string())).await;
    }
    for n in 0..50 {
        let message = bob.message().await;
        assert_eq!(body(&message), n.to_string());
        assert!(message.child("delay", ns::DELAY).is_none(), "bob was there");
    }
    let carbon = phone.message().await;
    assert!(carbon.child("sent", ns::CARBONS).is_some(), "{carbon:?}");
    bob.send(&chat("alice@im.example/a", "hi")).await;
    assert_eq!(body(&alice.message().await), "hi");
    bob.send("<iq type='get' id='p' to='alice@im.example/a'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    let asked = alice.until(|e| e.name == "iq").await;
    alice.send(&format!("<iq type='result' id='p' to='{}'/>", asked.attr("from").unwrap())).await;
    bob.until(|e| e.attr("id") == Some("p")).await;

    // Subscriptions: pushes and presence cross over.
    alice.send("<presence type='subscribe' to='bob@im.example'/>").await;
    bob.until(|e| e.attr("type") == Some("subscribe")).await;
    bob.send("<presence type='subscribed' to='alice@im.example'/>").await;
    alice.until(|e| e.name == "presence" && e.attr("from") == Some("bob@im.example/b")).await;

    // The same resource on the other node: the older session goes.
    let mut newer = Client::online(&one, "bob", "b").await;
    assert_eq!(bob.ended().await.as_deref(), Some("conflict"));
    alice.send(&chat("bob@im.example", "to the newer")).await;
    assert_eq!(body(&newer.message().await), "to the newer");

    // A node dies: who was on it is gone, and what is sent to it waits for the next session.
    let mut last = Client::online(&two, "bob", "on two").await;
    last.send("<presence><priority>10</priority></presence>").await;
    alice
        .until(|e| {
            e.attr("from") == Some("bob@im.example/on two") && e.child("priority", ns::CLIENT).is_some()
        })
        .await;
    drop(newer);
    alice
        .until(|e| e.attr("from") == Some("bob@im.example/b") && e.attr("type") == Some("unavailable"))
        .await;
    two.kill();
    alice.send(&chat("bob@im.example", "after the death")).await;
    let gone = tokio::time::timeout(Duration::from_mins(1), async {
        loop {
            let element = alice.read().await.expect("the stream ended");
            if element.attr("from") == Some("bob@im.example/on two")
                && element.attr("type") == Some("unavailable")
            {
                return;
            }
        }
    });
    gone.await.expect("nobody says that bob is gone");
    let mut bob = Client::bound(&one, "bob", "again").await;
    bob.send("<presence/>").await;
    assert_eq!(body(&bob.message().await), "after the death");
}

/// Bodies of messages until one says `last`.
async fn bodies_until(client: &mut Client, last: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    let all = async {
        loop {
            let text = body(&client.message().await);
            if text == last {
                return;
            }
            bodies.push(text);
        }
    };
    tokio::time::timeout(Duration::from_mins(1), all).await.expect("the last message does not come");
    bodies
}

/// A message that a client of one node has confirmed is not handed out by another, wherever the client goes then.
#[tokio::test]
async fn what_was_confirmed_at_one_node_comes_from_no_other() {
    let services = Services::start();
    let one = Server::start_on(&format!("node: one\n{}", services.config())).await;
    let two = Server::start_on(&format!("node: two\n{}", services.config())).await;
    meet([&one, &two]).await;
    one.users(["alice", "bob"]).await;
    let mut alice = Client::online(&one, "alice", "a").await;
    let waiting = || services.sql("SELECT COUNT(*) FROM maxim.offline_message");
    for (how, text) in [("it leaves", "first"), ("its node is drained", "second")] {
        let mut bob = Client::online(&two, "bob", "b").await;
        bob.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
        bob.until(|e| e.is("enabled", ns::SM)).await;
        alice.send(&chat("bob@im.example", text)).await;
        assert_eq!(body(&bob.message().await), text);
        assert_eq!(waiting(), "1");
        bob.send("<a xmlns='urn:xmpp:sm:3' h='1'/>").await;
        let (admin, drain) = (two.admin(), Drain { deadline_seconds: 10 });
        if text == "first" {
            bob.send("</stream:stream>").await;
            assert_eq!(bob.ended().await, None);
        } else {
            // Nobody lingers for a client that ends its stream as well.
            let (drained, reason) = tokio::join!(admin.drain(drain), async {
                let reason = bob.ended().await;
                drop(bob);
                reason
            });
            drained.unwrap();
            assert_eq!(reason.as_deref(), Some("system-shutdown"));
        }
        assert_eq!(waiting(), "0", "{how}");
    }
}

/// What a session of another node holds is left to it; what a dead node's session held goes to one that lives, and
/// so does what a sender's node had stored and not handed over.
#[tokio::test]
async fn what_a_dead_node_held_goes_to_living_sessions_once() {
    let services = Services::start();
    let one = Server::start_on(&format!("node: one\n{}", services.config())).await;
    let mut two = Server::start_on(&format!("node: two\n{}", services.config())).await;
    meet([&one, &two]).await;
    one.users(["alice", "bob", "carol", "dave"]).await;
    let mut alice = Client::online(&one, "alice", "a").await;
    let mut dave = Client::online(&two, "dave", "d").await;
    // Both receivers manage their streams and acknowledge nothing: bob on the node that dies, carol on the other.
    let mut bob = Client::online(&two, "bob", "two").await;
    let mut carol = Client::online(&one, "carol", "c").await;
    for client in [&mut bob, &mut carol] {
        client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
        client.until(|e| e.is("enabled", ns::SM)).await;
    }
    let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for text in &expected {
        alice.send(&chat("bob@im.example", text)).await;
        dave.send(&chat("carol@im.example", text)).await;
    }
    for text in &expected {
        assert_eq!(body(&bob.message().await), *text);
        assert_eq!(body(&carol.message().await), *text);
    }
    // Another session of bob, on the other node: the first one holds everything.
    let mut other = Client::online(&one, "bob", "one").await;
    other
        .send("<presence><priority>-1</priority></presence><presence><priority>1</priority></presence>")
        .await;
    let seen = other.ping().await;
    assert!(seen.iter().all(|e| e.name != "message"), "{seen:?}");
    bob.send("<presence><priority>5</priority></presence>").await;
    bob.ping().await;
    two.kill();
    assert_eq!(bodies_until(&mut other, "19").await, expected[..19]);
    alice.send(&chat("bob@im.example", "new")).await;
    assert!(bodies_until(&mut other, "new").await.is_empty(), "handed out twice");
    alice.send(&chat("carol@im.example", "new")).await;
    assert!(bodies_until(&mut carol, "new").await.is_empty(), "what a living session holds came again");
}
