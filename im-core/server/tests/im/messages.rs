//! Messages: routing by priority, offline, carbons, archive.

use im_proto::{Element, ns};

use crate::client::{Client, body, condition};
use crate::server::Server;

fn chat(to: &str, text: &str) -> String {
    format!("<message to='{to}' type='chat' id='m'><body>{text}</body></message>")
}

#[tokio::test]
async fn a_message_goes_to_the_most_available_session() {
    let server = Server::start("").await;
    server.users(["alice", "bob"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    let mut low = Client::online(&server, "bob", "low").await;
    let mut high = Client::online(&server, "bob", "high").await;
    let mut never = Client::online(&server, "bob", "never").await;
    low.send("<presence><priority>1</priority></presence>").await;
    high.send("<presence><priority>7</priority></presence>").await;
    never.send("<presence><priority>-1</priority></presence>").await;
    for c in [&mut low, &mut high, &mut never] {
        c.ping().await;
    }
    alice.send(&chat("bob@im.example", "to the best")).await;
    let message = high.message().await;
    assert_eq!((body(&message).as_str(), message.attr("from")), ("to the best", Some("alice@im.example/a")));
    let id = message.child("stanza-id", ns::STANZA_ID).unwrap();
    assert_eq!(id.attr("by"), Some("bob@im.example"));
    alice.send(&chat("bob@im.example/never", "to that one")).await;
    assert_eq!(body(&never.message().await), "to that one");
    alice.send(&chat("bob@im.example/gone", "to nobody there")).await;
    assert_eq!(body(&high.message().await), "to nobody there");
    alice.send("<message to='bob@im.example' type='headline'><body>news</body></message>").await;
    assert_eq!(body(&high.message().await), "news");
    assert_eq!(body(&low.message().await), "news");
    alice.send(&chat("nobody@im.example", "hello?")).await;
    assert_eq!(condition(&alice.message().await), "service-unavailable");
    alice.send(&chat("bob@elsewhere.example", "hello?")).await;
    assert_eq!(condition(&alice.message().await), "remote-server-not-found");
}

#[tokio::test]
async fn what_comes_while_nobody_is_there_waits_in_order_and_comes_once() {
    let server = Server::start("").await;
    server.users(["alice", "bob"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    for n in 0..250 {
        alice.send(&chat("bob@im.example", &n.to_string())).await;
    }
    alice.send("<message to='bob@im.example' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>").await;
    alice.send("<message to='bob@im.example' type='chat'><body>not kept</body><no-store xmlns='urn:xmpp:hints'/></message>").await;
    // The last commit is awaited by a message to oneself.
    alice.send(&chat("alice@im.example", "done")).await;
    alice.until(|e| e.name == "message" && body(e) == "done").await;
    let mut bob = Client::bound(&server, "bob", "b").await;
    bob.send("<presence/>").await;
    for n in 0..250 {
        let message = bob.message().await;
        assert_eq!(body(&message), n.to_string());
        assert!(message.child("delay", ns::DELAY).is_some());
    }
    assert!(bob.ping().await.iter().all(|e| e.name != "message"));
    let mut again = Client::online(&server, "bob", "c").await;
    assert!(again.ping().await.iter().all(|e| e.name != "message"), "delivered twice");
}

#[tokio::test]
async fn carbons_show_both_sides_to_every_session() {
    let server = Server::start("").await;
    server.users(["alice", "bob"]).await;
    let mut one = Client::online(&server, "alice", "1").await;
    let mut two = Client::online(&server, "alice", "2").await;
    let mut bob = Client::online(&server, "bob", "b").await;
    assert_eq!(
        two.iq("set", None, "<enable xmlns='urn:xmpp:carbons:2'/>").await.attr("type"),
        Some("result")
    );
    let inner = |carbon: &Element, direction: &str| {
        let wrapped = carbon.child(direction, ns::CARBONS).unwrap_or_else(|| panic!("{carbon:?}"));
        let message = wrapped.child("forwarded", ns::FORWARD).unwrap().child("message", ns::CLIENT).unwrap();
        body(message)
    };
    one.send(&chat("bob@im.example", "hi bob")).await;
    assert_eq!(body(&bob.message().await), "hi bob");
    let carbon = two.message().await;
    assert_eq!(inner(&carbon, "sent"), "hi bob");
    assert_eq!(carbon.attr("from"), Some("alice@im.example"));
    bob.send(&chat("alice@im.example/1", "hi alice")).await;
    assert_eq!(body(&one.message().await), "hi alice");
    assert_eq!(inner(&two.message().await, "received"), "hi alice");
    one.send("<message to='bob@im.example' type='chat'><body>secret</body><private xmlns='urn:xmpp:carbons:2'/></message>").await;
    let message = bob.message().await;
    assert_eq!(body(&message), "secret");
    assert!(message.child("private", ns::CARBONS).is_none());
    one.send(&chat("bob@im.example", "open again")).await;
    assert_eq!(inner(&two.message().await, "sent"), "open again");
}

fn results(elements: &[Element]) -> Vec<(String, String)> {
    elements
        .iter()
        .filter_map(|e| {
            let result = e.child("result", ns::MAM)?;
            let message = result.child("forwarded", ns::FORWARD)?.child("message", ns::CLIENT)?;
            Some((result.attr("id")?.to_owned(), body(message)))
        })
        .collect()
}

#[tokio::test]
async fn the_archive_is_read_in_pages_by_both_sides() {
    let server = Server::start("").await;
    server.users(["alice", "bob", "carol"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    let mut bob = Client::online(&server, "bob", "b").await;
    let forged = "<stanza-id xmlns='urn:xmpp:sid:0' by='bob@im.example' id='forged'/>";
    alice.send(&format!("<message to='bob@im.example' type='chat'><body>0</body>{forged}</message>")).await;
    let first = bob.message().await;
    let ids: Vec<_> = first.children().filter(|c| c.is("stanza-id", ns::STANZA_ID)).collect();
    assert_eq!(ids.len(), 1);
    let first_id = ids[0].attr("id").unwrap().to_owned();
    assert_ne!(first_id, "forged");
    for n in 1..5 {
        alice.send(&chat("bob@im.example", &n.to_string())).await;
        bob.message().await;
    }
    alice.send(&chat("carol@im.example", "other")).await;
    alice.send(&chat("alice@im.example", "sync")).await;
    alice.until(|e| body(e) == "sync").await;

    let query = |inner: &str| format!("<query xmlns='urn:xmpp:mam:2' queryid='q'>{inner}</query>");
    let set = |inner: &str| query(&format!("<set xmlns='http://jabber.org/protocol/rsm'>{inner}</set>"));
    let (page, fin) = bob.iq_with("set", None, &set("<max>2</max>")).await;
    let page = results(&page);
    assert_eq!(page.iter().map(|p| p.1.as_str()).collect::<Vec<_>>(), ["0", "1"]);
    assert_eq!(page[0].0, first_id, "the archive's identifier is the stanza's");
    let fin = fin.child("fin", ns::MAM).unwrap();
    assert_eq!(fin.attr("complete"), None);
    let rsm = fin.child("set", ns::RSM).unwrap();
    assert_eq!(rsm.child("count", ns::RSM).unwrap().text(), "5");
    let last = rsm.child("last", ns::RSM).unwrap().text();
    let (page, fin) = bob.iq_with("set", None, &set(&format!("<max>10</max><after>{last}</after>"))).await;
    assert_eq!(results(&page).len(), 3);
    assert_eq!(fin.child("fin", ns::MAM).unwrap().attr("complete"), Some("true"));
    let (page, _) = bob.iq_with("set", None, &set("<max>1</max><before/>")).await;
    assert_eq!(results(&page)[0].1, "4");

    let with = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field><field var='with'><value>carol@im.example</value></field></x>";
    let (page, _) = alice.iq_with("set", None, &query(with)).await;
    assert_eq!(results(&page).iter().map(|p| p.1.as_str()).collect::<Vec<_>>(), ["other"]);
    let missing = set("<after>0000000000000001</after>");
    assert_eq!(condition(&bob.iq("set", None, &missing).await), "item-not-found");
    assert_eq!(condition(&bob.iq("set", Some("alice@im.example"), &query("")).await), "forbidden");

    // Preferences: nothing more with bob.
    let prefs = "<prefs xmlns='urn:xmpp:mam:2' default='always'><always/><never><jid>bob@im.example</jid></never></prefs>";
    assert_eq!(alice.iq("set", None, prefs).await.attr("type"), Some("result"));
    alice.send(&chat("bob@im.example", "unkept")).await;
    let message = bob.message().await;
    assert!(message.child("stanza-id", ns::STANZA_ID).is_some(), "bob keeps it all the same");
    let (page, _) = alice.iq_with("set", None, &set("<max>1</max><before/>")).await;
    assert_ne!(results(&page)[0].1, "unkept");
}

#[tokio::test]
async fn features_that_are_announced_answer() {
    let server = Server::start("").await;
    server.users(["alice", "bob"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    let info =
        alice.iq("get", Some("im.example"), "<query xmlns='http://jabber.org/protocol/disco#info'/>").await;
    let query = info.child("query", ns::DISCO_INFO).unwrap();
    let features: Vec<_> =
        query.children().filter(|c| c.name == "feature").filter_map(|f| f.attr("var")).collect();
    for feature in
        [ns::PING, ns::CARBONS, ns::BLOCKING, ns::VCARD, ns::PRIVATE, ns::LAST, ns::VERSION, ns::TIME]
    {
        assert!(features.contains(&feature), "{feature}");
    }
    let server_jid = Some("im.example");
    for (to, payload) in [
        (server_jid, "<ping xmlns='urn:xmpp:ping'/>"),
        (server_jid, "<query xmlns='jabber:iq:version'/>"),
        (server_jid, "<time xmlns='urn:xmpp:time'/>"),
        (server_jid, "<query xmlns='jabber:iq:last'/>"),
        (server_jid, "<query xmlns='http://jabber.org/protocol/disco#items'/>"),
        (None, "<query xmlns='http://jabber.org/protocol/disco#info'/>"),
        (None, "<metadata xmlns='urn:xmpp:mam:2'/>"),
        (None, "<query xmlns='urn:xmpp:mam:2'/>"),
        (None, "<vCard xmlns='vcard-temp'/>"),
    ] {
        let answer = alice.iq("get", to, payload).await;
        assert_eq!(answer.attr("type"), Some("result"), "{payload}");
        assert_eq!(answer.attr("from"), to, "{payload}");
    }
    let card = "<vCard xmlns='vcard-temp'><FN>Alice &amp; co</FN></vCard>";
    alice.iq("set", None, card).await;
    let mut bob = Client::online(&server, "bob", "b").await;
    let read = bob.iq("get", Some("alice@im.example"), "<vCard xmlns='vcard-temp'/>").await;
    assert_eq!(read.child("vCard", ns::VCARD).unwrap().child("FN", ns::VCARD).unwrap().text(), "Alice & co");
    let notes = "<query xmlns='jabber:iq:private'><n xmlns='urn:notes'><p>x</p></n></query>";
    alice.iq("set", None, notes).await;
    let read = alice.iq("get", None, "<query xmlns='jabber:iq:private'><n xmlns='urn:notes'/></query>").await;
    assert_eq!(read.child("query", ns::PRIVATE).unwrap().child("n", "urn:notes").unwrap().nodes.len(), 1);
    let unknown = alice.iq("get", Some("im.example"), "<x xmlns='urn:unknown'/>").await;
    assert_eq!(condition(&unknown), "service-unavailable");
    // From session to session.
    alice.send("<iq type='get' id='p1' to='bob@im.example/b'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    let asked = bob.until(|e| e.name == "iq").await;
    assert_eq!((asked.attr("from"), asked.attr("id")), (Some("alice@im.example/a"), Some("p1")));
    bob.send("<iq type='result' id='p1' to='alice@im.example/a'/>").await;
    assert_eq!(alice.until(|e| e.attr("id") == Some("p1")).await.attr("from"), Some("bob@im.example/b"));
    alice.send("<iq type='get' id='p2' to='bob@im.example/gone'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    assert_eq!(condition(&alice.until(|e| e.attr("id") == Some("p2")).await), "service-unavailable");
}
