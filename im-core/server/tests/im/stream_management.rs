//! Stream management (XEP-0198): acknowledgements, resumption, what becomes of what was not acknowledged.

use std::time::Duration;

use im_proto::ns;

use crate::client::{Client, PATIENCE, body};
use crate::server::Server;

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

async fn enable(client: &mut Client) -> String {
    client.send(ENABLE).await;
    let enabled = client.until(|e| e.is("enabled", ns::SM)).await;
    enabled.attr("id").unwrap().to_owned()
}

/// Asks how many stanzas were handled.
async fn handled(client: &mut Client) -> u32 {
    client.send("<r xmlns='urn:xmpp:sm:3'/>").await;
    client.until(|e| e.is("a", ns::SM)).await.attr("h").unwrap().parse().unwrap()
}

async fn sign_in(server: &Server, name: &str) -> Client {
    let mut client = Client::direct(server).await;
    client.scram("SCRAM-SHA-256", name, &format!("pw-{name}")).await.unwrap();
    client.open().await;
    client
}

#[tokio::test]
async fn a_session_goes_on_after_its_socket_died() {
    let server = Server::start("").await;
    server.users(["alice", "bob"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    let mut bob = Client::online(&server, "bob", "b").await;
    let id = enable(&mut bob).await;
    alice.send("<message to='bob@im.example/b' type='chat'><body>one</body></message>").await;
    assert_eq!(body(&bob.message().await), "one");
    bob.send("<a xmlns='urn:xmpp:sm:3' h='1'/>").await;
    bob.send("<message to='alice@im.example' type='chat'><body>from bob</body></message>").await;
    assert_eq!(handled(&mut bob).await, 1);
    drop(bob);
    for text in ["two", "three"] {
        alice.send(&format!("<message to='bob@im.example' type='chat'><body>{text}</body></message>")).await;
    }
    let mut bob = sign_in(&server, "bob").await;
    bob.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>")).await;
    let resumed = bob.next().await;
    assert!(resumed.is("resumed", ns::SM), "{resumed:?}");
    assert_eq!(resumed.attr("h"), Some("1"));
    assert_eq!(body(&bob.message().await), "two");
    assert_eq!(body(&bob.message().await), "three");
    // The session is the same: alice reaches it by its full address, and bob never became unavailable.
    alice.send("<message to='bob@im.example/b' type='chat'><body>four</body></message>").await;
    assert_eq!(body(&bob.message().await), "four");
    // A socket that is only half dead is replaced too.
    let mut again = sign_in(&server, "bob").await;
    again.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='4'/>")).await;
    assert!(again.next().await.is("resumed", ns::SM));
    assert_eq!(bob.ended().await, None);
    // Nobody else can resume it.
    let mut thief = sign_in(&server, "alice").await;
    thief.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='4'/>")).await;
    assert!(thief.next().await.is("failed", ns::SM));
    // The stream is open still: the client goes on with binding.
    let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>";
    assert_eq!(thief.iq("set", None, bind).await.attr("type"), Some("result"));
}

#[tokio::test]
async fn what_was_not_acknowledged_waits_for_the_next_session() {
    let server = Server::start("limits: {resume_seconds: 1}").await;
    server.users(["alice", "bob"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    let mut bob = Client::online(&server, "bob", "b").await;
    enable(&mut bob).await;
    alice.send("<message to='bob@im.example' type='chat'><body>seen</body></message>").await;
    bob.message().await;
    bob.send("<a xmlns='urn:xmpp:sm:3' h='1'/>").await;
    bob.ping().await;
    alice.send("<message to='bob@im.example' type='chat'><body>unseen</body></message>").await;
    bob.message().await;
    drop(bob);
    let waits = async {
        loop {
            if server.admin().stats().await.unwrap().messages_offline == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.expect("the message does not wait");
    let mut bob = Client::bound(&server, "bob", "b2").await;
    bob.send("<presence/>").await;
    let message = bob.message().await;
    assert_eq!(body(&message), "unseen");
    assert!(message.child("delay", ns::DELAY).is_some());
    assert!(bob.ping().await.iter().all(|e| e.name != "message"));
}

#[tokio::test]
async fn counters_that_cannot_be_end_the_stream() {
    let server = Server::start("").await;
    server.users(["alice"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    enable(&mut alice).await;
    alice.send("<a xmlns='urn:xmpp:sm:3' h='7'/>").await;
    assert_eq!(alice.ended().await.as_deref(), Some("undefined-condition"));
}

#[tokio::test]
async fn an_inactive_client_is_spared_presence() {
    let server = Server::start("").await;
    server.users(["alice"]).await;
    let mut phone = Client::online(&server, "alice", "phone").await;
    phone.send("<inactive xmlns='urn:xmpp:csi:0'/>").await;
    phone.ping().await;
    let mut desk = Client::online(&server, "alice", "desk").await;
    desk.ping().await;
    desk.send("<message to='alice@im.example/phone' type='chat'><body>wake up</body></message>").await;
    // What was held comes before what woke it.
    let first = phone.next().await;
    assert_eq!((first.name.as_str(), first.attr("from")), ("presence", Some("alice@im.example/desk")));
    assert_eq!(body(&phone.next().await), "wake up");
}

/// Of two sessions one is slow: what it has no room for comes when it has, though the other confirmed it long before.
#[tokio::test]
async fn a_slow_client_gets_what_a_quick_one_has_confirmed() {
    for archive in ["", "archive: {enabled: false}"] {
        let server = Server::start(&format!("limits: {{unacknowledged_stanzas: 100}}\n{archive}")).await;
        server.users(["alice", "bob"]).await;
        let mut alice = Client::online(&server, "alice", "a").await;
        let mut slow = Client::online(&server, "bob", "slow").await;
        enable(&mut slow).await;
        let mut quick = Client::online(&server, "bob", "quick").await;
        for n in 0..90 {
            let to = "bob@im.example";
            alice.send(&format!("<message to='{to}' type='chat'><body>{n}</body></message>")).await;
            assert_eq!(body(&quick.message().await), n.to_string());
        }
        // Nothing waits any more: the quick one has all of it.
        let confirmed = async {
            while server.admin().stats().await.unwrap().messages_offline > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, confirmed).await.expect("messages wait");
        let (mut next, mut stanzas) = (0, 0);
        while next < 90 {
            let element = slow.next().await;
            if element.is("r", ns::SM) {
                slow.send(&format!("<a xmlns='{}' h='{stanzas}'/>", ns::SM)).await;
                continue;
            }
            stanzas += 1;
            if element.name == "message" {
                assert_eq!(body(&element), next.to_string());
                next += 1;
            }
        }
        assert!(slow.ping().await.iter().all(|e| e.name != "message"), "each comes once");
        // It takes messages directly again.
        alice.send("<message to='bob@im.example' type='chat'><body>more</body></message>").await;
        assert_eq!(body(&slow.message().await), "more");
    }
}
