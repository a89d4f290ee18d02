//! Rosters, presence and subscriptions, blocking.

use im_proto::{Element, ns};

use crate::client::{Client, condition};
use crate::server::Server;

const GET: &str = "<query xmlns='jabber:iq:roster'/>";

fn item<'a>(iq: &'a Element, contact: &str) -> Option<&'a Element> {
    iq.child("query", ns::ROSTER)?.children().find(|i| i.attr("jid") == Some(contact))
}

#[tokio::test]
async fn two_people_subscribe_to_each_other_and_see_each_other() {
    let server = Server::start("").await;
    server.users(["alice", "bob"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    let mut bob = Client::online(&server, "bob", "b").await;
    alice.iq("get", None, GET).await;
    bob.iq("get", None, GET).await;

    alice.send("<presence type='subscribe' to='bob@im.example'/>").await;
    let push = alice.until(|e| e.name == "iq").await;
    assert_eq!(item(&push, "bob@im.example").unwrap().attr("ask"), Some("subscribe"));
    let request = bob.until(|e| e.attr("type") == Some("subscribe")).await;
    assert_eq!(request.attr("from"), Some("alice@im.example"));

    bob.send("<presence type='subscribed' to='alice@im.example'/>").await;
    let push = bob.until(|e| e.name == "iq").await;
    assert_eq!(item(&push, "alice@im.example").unwrap().attr("subscription"), Some("from"));
    // First the push, then the stanza, then presence.
    let push = alice.next().await;
    assert_eq!(item(&push, "bob@im.example").unwrap().attr("subscription"), Some("to"));
    assert_eq!(alice.next().await.attr("type"), Some("subscribed"));
    let presence = alice.next().await;
    assert_eq!((presence.attr("from"), presence.attr("type")), (Some("bob@im.example/b"), None));

    bob.send("<presence type='subscribe' to='alice@im.example'/>").await;
    alice.until(|e| e.attr("type") == Some("subscribe")).await;
    alice.send("<presence type='subscribed' to='bob@im.example'/>").await;
    let presence = bob.until(|e| e.name == "presence" && e.attr("type").is_none()).await;
    assert_eq!(presence.attr("from"), Some("alice@im.example/a"));

    // A change of presence, and going away.
    alice.send("<presence><show>away</show><priority>5</priority></presence>").await;
    let presence = bob.until(|e| e.name == "presence").await;
    assert_eq!(presence.child("show", ns::CLIENT).unwrap().text(), "away");
    drop(alice);
    let gone = bob.until(|e| e.attr("type") == Some("unavailable")).await;
    assert_eq!(gone.attr("from"), Some("alice@im.example/a"));

    // Back again: each gets the other's presence without asking.
    let mut alice = Client::bound(&server, "alice", "a2").await;
    alice.send("<presence/>").await;
    alice.until(|e| e.attr("from") == Some("bob@im.example/b")).await;
    bob.until(|e| e.attr("from") == Some("alice@im.example/a2")).await;

    // Removing the contact ends both directions.
    alice.iq("get", None, GET).await;
    let remove = "<query xmlns='jabber:iq:roster'><item jid='bob@im.example' subscription='remove'/></query>";
    assert_eq!(alice.iq("set", None, remove).await.attr("type"), Some("result"));
    bob.until(|e| e.attr("type") == Some("unsubscribed")).await;
    let roster = bob.iq("get", None, GET).await;
    assert_eq!(item(&roster, "alice@im.example").unwrap().attr("subscription"), Some("none"));
    assert!(item(&alice.iq("get", None, GET).await, "bob@im.example").is_none());
}

#[tokio::test]
async fn a_request_waits_until_its_receiver_comes() {
    let server = Server::start("").await;
    server.users(["alice", "bob"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    alice.send("<presence type='subscribe' to='bob@im.example'><status>it's me</status></presence>").await;
    alice.ping().await;
    for _ in 0..2 {
        let mut bob = Client::bound(&server, "bob", "b").await;
        bob.send("<presence/>").await;
        let request = bob.until(|e| e.attr("type") == Some("subscribe")).await;
        assert_eq!(request.child("status", ns::CLIENT).unwrap().text(), "it's me");
    }
    // Approved in advance, nobody has to wait.
    let mut bob = Client::online(&server, "bob", "b").await;
    bob.send("<presence type='subscribed' to='carol@im.example'/>").await;
    bob.ping().await;
    server.users(["carol"]).await;
    let mut carol = Client::online(&server, "carol", "c").await;
    carol.send("<presence type='subscribe' to='bob@im.example'/>").await;
    carol.until(|e| e.attr("type") == Some("subscribed")).await;
}

#[tokio::test]
async fn versions_spare_the_roster_and_pushes_reach_those_who_asked() {
    let server = Server::start("").await;
    server.users(["alice"]).await;
    let mut one = Client::online(&server, "alice", "1").await;
    let mut two = Client::online(&server, "alice", "2").await;
    one.iq("get", None, GET).await;
    let set = "<query xmlns='jabber:iq:roster'><item jid='Bob@im.example' name='Bob'><group>Friends</group></item></query>";
    let (before, answer) = one.iq_with("set", None, set).await;
    assert_eq!(answer.attr("type"), Some("result"));
    let push = before.iter().find(|e| e.name == "iq").expect("no push");
    let found = item(push, "bob@im.example").unwrap();
    assert_eq!((found.attr("name"), found.attr("subscription")), (Some("Bob"), Some("none")));
    let version = push.child("query", ns::ROSTER).unwrap().attr("ver").unwrap().to_owned();
    let same = one.iq("get", None, &format!("<query xmlns='jabber:iq:roster' ver='{version}'/>")).await;
    assert!(same.first_child().is_none());
    let old = one.iq("get", None, "<query xmlns='jabber:iq:roster' ver='0'/>").await;
    assert!(item(&old, "bob@im.example").is_some());
    assert!(two.ping().await.iter().all(|e| e.name != "iq"), "a push to a client that did not ask");
    for bad in ["<item jid='a@b@c'/>", "<item jid='alice@im.example'/>", "<item/>", ""] {
        let answer = one.iq("set", None, &format!("<query xmlns='jabber:iq:roster'>{bad}</query>")).await;
        assert_eq!(answer.attr("type"), Some("error"), "{bad}");
    }
}

#[tokio::test]
async fn who_is_blocked_gets_nothing_and_learns_nothing() {
    let server = Server::start("").await;
    server.users(["alice", "bob"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    let mut bob = Client::online(&server, "bob", "b").await;
    let block =
        |name: &str| format!("<{name} xmlns='urn:xmpp:blocking'><item jid='bob@im.example'/></{name}>");
    alice.iq("set", None, &block("block")).await;
    // At once, while nothing is remembered of what changed.
    bob.send("<presence to='alice@im.example/a'/>").await;
    bob.ping().await;
    let got = alice.ping().await;
    assert!(got.iter().all(|e| e.name != "presence"), "{got:?}");
    bob.send("<message to='alice@im.example' type='chat' id='1'><body>hi</body></message>").await;
    assert_eq!(condition(&bob.message().await), "service-unavailable");
    alice.send("<message to='bob@im.example' type='chat' id='2'><body>hi</body></message>").await;
    assert_eq!(condition(&alice.message().await), "not-acceptable");
    let list = alice.iq("get", None, "<blocklist xmlns='urn:xmpp:blocking'/>").await;
    assert_eq!(list.first_child().unwrap().first_child().unwrap().attr("jid"), Some("bob@im.example"));
    alice.iq("set", None, &block("unblock")).await;
    bob.send("<message to='alice@im.example' type='chat'><body>again</body></message>").await;
    assert_eq!(crate::client::body(&alice.message().await), "again");
}
