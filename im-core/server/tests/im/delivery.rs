//! Delivery: every message that was acknowledged to its sender reaches a client of its receiver, whatever dies, and
//! once unless something was killed; a backlog of any size is handed out.

use std::collections::BTreeSet;
use std::time::Duration;

use im_proto::ns;

use crate::client::{Client, PATIENCE, body};
use crate::server::Server;

/// Longer than a debug build takes for the largest of these on a busy machine.
const LONG: Duration = Duration::from_mins(4);

fn chat(to: &str, text: &str) -> String {
    format!("<message to='{to}@im.example' type='chat'><body>{text}</body></message>")
}

/// Switches stream management on.
async fn manage(client: &mut Client, resume: bool) {
    client.send(&format!("<enable xmlns='{}' resume='{resume}'/>", ns::SM)).await;
    client.until(|e| e.is("enabled", ns::SM)).await;
}

/// What a client got, acknowledging whenever it is asked.
#[derive(Default)]
struct Seen {
    /// Bodies in order.
    bodies: Vec<String>,
    /// How many of the bodies the server was told of.
    acknowledged: usize,
    stanzas: u32,
}

impl Seen {
    /// Reads until `enough` bodies came; false when the stream ended before.
    async fn read(&mut self, client: &mut Client, enough: usize) -> bool {
        while self.bodies.len() < enough {
            let Some(element) = client.read().await else { return false };
            if element.is("r", ns::SM) {
                let answer = format!("<a xmlns='{}' h='{}'/>", ns::SM, self.stanzas);
                use tokio::io::AsyncWriteExt as _;
                if client.io.write_all(answer.as_bytes()).await.is_err() || client.io.flush().await.is_err() {
                    return false;
                }
                self.acknowledged = self.bodies.len();
            } else if matches!(element.name.as_str(), "message" | "presence" | "iq") {
                self.stanzas += 1;
                if element.name == "message" {
                    self.bodies.push(body(&element));
                }
            }
        }
        true
    }
}

/// Has messages wait for somebody who is away: `count` with bodies `0 …`, `1 …`, padded to `size` bytes.
async fn store(server: &Server, from: &str, to: &str, count: usize, size: usize) {
    let mut sender = Client::online(server, from, "store").await;
    let padding = "x".repeat(size);
    for n in 0..count {
        sender.send(&chat(to, &format!("{n} {padding}"))).await;
    }
    // The last commit is awaited by a message to oneself.
    sender.send(&chat(from, "done")).await;
    let done = async { sender.until(|e| body(e) == "done").await };
    tokio::time::timeout(LONG, done).await.expect("the messages are not stored");
}

fn number(text: &str) -> usize {
    text.split(' ').next().unwrap().parse().unwrap()
}

fn numbers(bodies: &[String]) -> Vec<usize> {
    bodies.iter().map(|text| number(text)).collect()
}

/// Sends numbered messages with requests for acknowledgement until the stream ends; how many were sent, and how
/// many of them the server says it handled.
async fn send_until_the_end(sender: &mut Client, to: &[&str]) -> (usize, usize) {
    use tokio::io::AsyncWriteExt as _;
    let (mut sent, mut acknowledged) = (0, 0);
    loop {
        let mut batch = String::new();
        for _ in 0..10 {
            batch.push_str(&chat(to[sent % to.len()], &format!("{sent} -")));
            sent += 1;
        }
        batch.push_str("<r xmlns='urn:xmpp:sm:3'/>");
        if sender.io.write_all(batch.as_bytes()).await.is_err() || sender.io.flush().await.is_err() {
            // What the server still said counts.
            while let Some(element) = sender.read().await {
                if element.is("a", ns::SM) {
                    acknowledged = element.attr("h").unwrap().parse().unwrap();
                }
            }
            return (sent, acknowledged);
        }
        loop {
            match sender.read().await {
                Some(e) if e.is("a", ns::SM) => {
                    acknowledged = e.attr("h").unwrap().parse().unwrap();
                    break;
                }
                Some(_) => {}
                None => return (sent, acknowledged),
            }
        }
    }
}

async fn kill_while_online(archive: bool, after: usize) {
    let mut server = Server::start(&format!("archive: {{enabled: {archive}}}")).await;
    server.users(["alice", "bob"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    manage(&mut alice, false).await;
    let mut bob = Client::online(&server, "bob", "b").await;
    manage(&mut bob, true).await;
    let sending = tokio::spawn(async move { send_until_the_end(&mut alice, &["bob"]).await });
    let mut before = Seen::default();
    assert!(before.read(&mut bob, after).await);
    server.kill();
    // Nothing that bob got from now on is acknowledged.
    let (sent, acknowledged) = tokio::time::timeout(LONG, sending).await.unwrap().unwrap();
    assert!(acknowledged > 0, "killed too early to tell anything");
    server.run().await;
    let mut bob = Client::bound(&server, "bob", "b").await;
    bob.send("<presence/>").await;
    let mut alice = Client::online(&server, "alice", "a").await;
    alice.send(&chat("bob", &format!("{sent} -"))).await;
    let mut after = Seen::default();
    while after.bodies.last().is_none_or(|last| number(last) != sent) {
        let more = after.bodies.len() + 1;
        assert!(
            tokio::time::timeout(PATIENCE, after.read(&mut bob, more)).await.expect("the last does not come")
        );
    }
    let confirmed = numbers(&before.bodies[..before.acknowledged]);
    let again = numbers(&after.bodies);
    assert!(again.is_sorted_by(|a, b| a < b), "disorder or doubles: {again:?}");
    let all: BTreeSet<usize> = confirmed.iter().chain(&again).copied().collect();
    let lost: Vec<_> = (0..acknowledged).filter(|n| !all.contains(n)).collect();
    assert!(lost.is_empty(), "of {acknowledged} acknowledged these are lost: {lost:?}");
}

#[tokio::test]
async fn a_kill_while_the_receiver_is_online_loses_nothing() {
    kill_while_online(true, 150).await;
}

#[tokio::test]
async fn a_kill_loses_nothing_of_what_nobody_archives() {
    kill_while_online(false, 230).await;
}

#[tokio::test]
async fn a_kill_while_a_backlog_is_handed_out_loses_nothing() {
    let mut server = Server::start("archive: {enabled: false}").await;
    server.users(["alice", "bob"]).await;
    store(&server, "alice", "bob", 3000, 10).await;
    let mut bob = Client::bound(&server, "bob", "b").await;
    manage(&mut bob, true).await;
    bob.send("<presence/>").await;
    let mut before = Seen::default();
    assert!(tokio::time::timeout(LONG, before.read(&mut bob, 700)).await.unwrap());
    server.kill();
    server.run().await;
    // Without stream management this time: what was written counts.
    let mut bob = Client::bound(&server, "bob", "b").await;
    bob.send("<presence/>").await;
    let mut after = Seen::default();
    while after.bodies.last().is_none_or(|last| number(last) != 2999) {
        let more = after.bodies.len() + 1;
        assert!(
            tokio::time::timeout(PATIENCE, after.read(&mut bob, more)).await.expect("the last does not come")
        );
    }
    let again = numbers(&after.bodies);
    assert!(
        again[0] <= before.acknowledged,
        "{} acknowledged, {} comes first",
        before.acknowledged,
        again[0]
    );
    assert_eq!(again, (again[0]..3000).collect::<Vec<_>>());
}

/// What a socket that died had in the memory of the server is not lost: only what the system had taken may be.
#[tokio::test]
async fn a_socket_that_dies_takes_only_what_was_written_to_it() {
    const COUNT: usize = 400;
    const SIZE: usize = 100_000;
    /// Send and receive buffers of the system grow to about ten megabytes.
    const SYSTEM: usize = 14_000_000;
    let server = Server::start("archive: {enabled: false}").await;
    server.users(["alice", "bob"]).await;
    let deaf = Client::online(&server, "bob", "deaf").await;
    store(&server, "alice", "bob", COUNT, SIZE).await;
    drop(deaf);
    let mut bob = Client::bound(&server, "bob", "b").await;
    bob.send("<presence/>").await;
    let mut seen = Seen::default();
    while seen.bodies.last().is_none_or(|last| number(last) != COUNT - 1) {
        let more = seen.bodies.len() + 1;
        assert!(
            tokio::time::timeout(PATIENCE, seen.read(&mut bob, more)).await.expect("the last does not come")
        );
    }
    let seen = numbers(&seen.bodies);
    assert_eq!(seen, (seen[0]..COUNT).collect::<Vec<_>>());
    assert!(seen[0] * SIZE < SYSTEM, "the first {} are lost", seen[0]);
}

#[tokio::test]
async fn twenty_thousand_waiting_messages_fit_through_a_small_window() {
    const COUNT: usize = 20_000;
    let server = Server::start("limits: {unacknowledged_stanzas: 100}").await;
    server.users(["alice", "bob"]).await;
    store(&server, "alice", "bob", COUNT, 10).await;
    let mut bob = Client::bound(&server, "bob", "b").await;
    manage(&mut bob, true).await;
    bob.send("<presence/>").await;
    let mut seen = Seen::default();
    assert!(tokio::time::timeout(LONG, seen.read(&mut bob, 1000)).await.unwrap());
    // What comes meanwhile comes after all that waits.
    let mut alice = Client::online(&server, "alice", "a").await;
    for n in COUNT..COUNT + 50 {
        alice.send(&chat("bob", &format!("{n} -"))).await;
    }
    assert!(tokio::time::timeout(LONG, seen.read(&mut bob, COUNT + 50)).await.expect("not all came"));
    assert_eq!(numbers(&seen.bodies), (0..COUNT + 50).collect::<Vec<_>>());
    // And directly again.
    alice.send(&chat("bob", "last")).await;
    assert!(tokio::time::timeout(PATIENCE, seen.read(&mut bob, COUNT + 51)).await.unwrap());
    let h = format!("<a xmlns='{}' h='{}'/>", ns::SM, seen.stanzas);
    bob.send(&h).await;
    bob.ping().await;
    drop(bob);
    let mut again = Client::online(&server, "bob", "c").await;
    assert!(again.ping().await.iter().all(|e| e.name != "message"), "handed out twice");
}

#[tokio::test]
async fn sixty_megabytes_of_waiting_messages_are_handed_out() {
    const COUNT: usize = 300;
    let server = Server::start("").await;
    server.users(["alice", "bob"]).await;
    store(&server, "alice", "bob", COUNT, 200_000).await;
    let mut bob = Client::bound(&server, "bob", "b").await;
    manage(&mut bob, false).await;
    bob.send("<presence/>").await;
    let mut seen = Seen::default();
    assert!(tokio::time::timeout(LONG, seen.read(&mut bob, COUNT / 2)).await.unwrap());
    let h = format!("<a xmlns='{}' h='{}'/>", ns::SM, seen.stanzas);
    bob.send(&format!("{h}</stream:stream>")).await;
    while tokio::time::timeout(LONG, bob.read()).await.unwrap().is_some() {}
    // The rest to a client without stream management.
    let mut rest = Seen::default();
    let mut bob = Client::bound(&server, "bob", "b").await;
    bob.send("<presence/>").await;
    assert!(tokio::time::timeout(LONG, rest.read(&mut bob, COUNT / 2)).await.expect("not all came"));
    let all: Vec<usize> = numbers(&seen.bodies).into_iter().chain(numbers(&rest.bodies)).collect();
    assert_eq!(all, (0..COUNT).collect::<Vec<_>>());
    assert!(bob.ping().await.iter().all(|e| e.name != "message"), "more than there was");

    // The archive hands them out in pages that end for their bytes.
    let (mut found, mut pages, mut after) = (0, 0, String::new());
    loop {
        let set = format!("<set xmlns='{}'><max>250</max>{after}</set>", ns::RSM);
        let (page, fin) =
            bob.iq_with("set", None, &format!("<query xmlns='{}'>{set}</query>", ns::MAM)).await;
        let results = page.iter().filter(|e| e.child("result", ns::MAM).is_some()).count();
        assert!(results > 0, "{fin:?}");
        (found, pages) = (found + results, pages + 1);
        let fin = fin.child("fin", ns::MAM).unwrap();
        let set = fin.child("set", ns::RSM).unwrap();
        assert_eq!(set.child("count", ns::RSM).unwrap().text(), COUNT.to_string());
        if fin.attr("complete") == Some("true") {
            break;
        }
        after = format!("<after>{}</after>", set.child("last", ns::RSM).unwrap().text());
    }
    assert_eq!(found, COUNT);
    assert!(pages > COUNT / 20, "{pages} pages hold sixty megabytes");
}

/// Several sessions of an account: what one holds another does not get, until the first is gone.
#[tokio::test]
async fn what_a_session_holds_goes_to_another_only_when_it_ends() {
    let server = Server::start("limits: {resume_seconds: 1}").await;
    server.users(["alice", "bob"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    let mut first = Client::online(&server, "bob", "first").await;
    manage(&mut first, true).await;
    for n in 0..10 {
        alice.send(&chat("bob", &n.to_string())).await;
        assert_eq!(body(&first.message().await), n.to_string());
    }
    first.send("<a xmlns='urn:xmpp:sm:3' h='4'/>").await;
    first.ping().await;
    let mut second = Client::online(&server, "bob", "second").await;
    second
        .send("<presence><priority>-1</priority></presence><presence><priority>3</priority></presence>")
        .await;
    assert!(second.ping().await.iter().all(|e| e.name != "message"));
    drop(first);
    for n in 4..10 {
        assert_eq!(body(&second.message().await), n.to_string());
    }
    assert!(second.ping().await.iter().all(|e| e.name != "message"));
}

/// A client that never acknowledges keeps what it was sent, and not the rest, from the account's other devices; what it
/// kept is handed out when it is gone.
#[tokio::test]
async fn a_client_that_confirms_nothing_does_not_keep_a_backlog_from_another() {
    const COUNT: usize = 300;
    let server = Server::start("limits: {unacknowledged_stanzas: 100, resume_seconds: 1}").await;
    server.users(["alice", "bob"]).await;
    store(&server, "alice", "bob", COUNT, 0).await;
    let mut silent = Client::bound(&server, "bob", "silent").await;
    manage(&mut silent, true).await;
    silent.send("<presence/>").await;
    let mut first = BTreeSet::from([number(&body(&silent.until(|e| e.name == "message").await))]);
    let mut second = Client::online(&server, "bob", "second").await;
    let mut rest = BTreeSet::new();
    rest.insert(number(&body(&second.message().await)));
    // Now the first one is sent nothing more: what it was sent comes before the answer to a ping.
    let sent = silent.ping().await;
    first.extend(sent.iter().filter(|e| e.name == "message").map(|e| number(&body(e))));
    while first.len() + rest.len() < COUNT {
        rest.insert(number(&body(&second.message().await)));
    }
    assert!(first.is_disjoint(&rest));
    assert_eq!(&first | &rest, (0..COUNT).collect());
    drop(silent);
    let mut again = BTreeSet::new();
    while again.len() < first.len() {
        again.insert(number(&body(&second.message().await)));
    }
    assert_eq!(again, first, "what nobody confirmed comes again");
}

/// Of two clients that confirm nothing, the one that does at last gets the rest, though the other has the turn.
#[tokio::test]
async fn of_two_that_confirm_nothing_the_first_that_does_is_handed_the_rest() {
    const COUNT: usize = 300;
    let server = Server::start("limits: {unacknowledged_stanzas: 100}").await;
    server.users(["alice", "bob"]).await;
    store(&server, "alice", "bob", COUNT, 0).await;
    let mut clients = Vec::new();
    // The second is handed something when the first has confirmed nothing for a while: then it has the turn.
    for resource in ["first", "second"] {
        let mut client = Client::bound(&server, "bob", resource).await;
        manage(&mut client, true).await;
        client.send("<presence/>").await;
        let one = tokio::time::timeout(LONG, client.until(|e| e.name == "message")).await;
        clients.push((client, BTreeSet::from([number(&body(&one.expect("it is handed nothing")))])));
    }
    let (second, mut kept) = clients.pop().unwrap();
    let (mut first, mut had) = clients.pop().unwrap();
    let mut second = second;
    kept.extend(second.ping().await.iter().filter(|e| e.name == "message").map(|e| number(&body(e))));
    had.extend(first.ping().await.iter().filter(|e| e.name == "message").map(|e| number(&body(e))));
    let mut seen = Seen { stanzas: u32::try_from(had.len()).unwrap(), ..Seen::default() };
    first.send(&format!("<a xmlns='{}' h='{}'/>", ns::SM, seen.stanzas)).await;
    let rest = COUNT - had.len() - kept.len();
    assert!(rest > 0, "there is no rest: {had:?} {kept:?}");
    let all = tokio::time::timeout(LONG, seen.read(&mut first, rest)).await;
    assert!(all.is_ok_and(|all| all), "{} of {rest} came", seen.bodies.len());
    had.extend(numbers(&seen.bodies));
    assert!(had.is_disjoint(&kept));
    assert_eq!(&had | &kept, (0..COUNT).collect());
}

/// A client that was away for a while within one session gets what came meanwhile.
#[tokio::test]
async fn what_comes_while_a_session_is_unavailable_comes_when_it_is_back() {
    let server = Server::start("").await;
    server.users(["alice", "bob"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    let mut bob = Client::online(&server, "bob", "b").await;
    bob.send("<presence type='unavailable'/>").await;
    bob.ping().await;
    alice.send(&chat("bob", "while away")).await;
    alice.send(&chat("alice", "done")).await;
    alice.until(|e| body(e) == "done").await;
    bob.send("<presence/>").await;
    assert_eq!(body(&bob.message().await), "while away");
}

/// A client may answer, while the server stops, what it was asked before the last messages came.
#[tokio::test]
async fn a_stop_asks_again_when_the_answer_does_not_count_all() {
    let mut server = Server::start("").await;
    server.users(["alice", "bob"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    let mut bob = Client::online(&server, "bob", "b").await;
    manage(&mut bob, true).await;
    alice.send(&chat("bob", "first")).await;
    assert_eq!(body(&bob.message().await), "first");
    bob.until(|e| e.is("r", ns::SM)).await;
    alice.send(&chat("bob", "second")).await;
    assert_eq!(body(&bob.message().await), "second");
    let stopped = std::process::Command::new("kill").arg(server.pid().to_string()).status().unwrap();
    assert!(stopped.success());
    // It is heard when the session is closing: alice, who asks for nothing, is told at once that it is.
    assert_eq!(alice.ended().await.as_deref(), Some("system-shutdown"));
    bob.send(&format!("<a xmlns='{}' h='1'/>", ns::SM)).await;
    bob.until(|e| e.is("r", ns::SM)).await;
    bob.send(&format!("<a xmlns='{}' h='2'/>", ns::SM)).await;
    while bob.read().await.is_some() {}
    assert!(server.wait().success());
    server.run().await;
    let mut alice = Client::online(&server, "alice", "a").await;
    let mut bob = Client::online(&server, "bob", "again").await;
    alice.send(&chat("bob", "third")).await;
    assert_eq!(body(&bob.message().await), "third", "what was confirmed came again");
}

#[tokio::test]
async fn a_stop_under_load_loses_nothing_and_doubles_nothing() {
    let mut server = Server::start("").await;
    server.users(["alice", "bob", "carol"]).await;
    let mut alice = Client::online(&server, "alice", "a").await;
    manage(&mut alice, false).await;
    let mut bob = Client::online(&server, "bob", "b").await;
    manage(&mut bob, true).await;
    let mut carol = Client::online(&server, "carol", "c").await;
    let pid = server.pid();
    let sending = tokio::spawn(async move { send_until_the_end(&mut alice, &["bob", "carol"]).await });
    let (mut to_bob, mut to_carol) = (Seen::default(), Seen::default());
    let bob_reads = async {
        assert!(to_bob.read(&mut bob, 200).await);
        let stopped = std::process::Command::new("kill").arg(pid.to_string()).status().unwrap();
        assert!(stopped.success());
        to_bob.read(&mut bob, usize::MAX).await
    };
    let both = Box::pin(async { tokio::join!(bob_reads, to_carol.read(&mut carol, usize::MAX)) });
    assert_eq!(tokio::time::timeout(LONG, both).await.expect("the server does not end"), (false, false));
    let (_, acknowledged) = tokio::time::timeout(LONG, sending).await.unwrap().unwrap();
    assert!(server.wait().success());
    server.run().await;
    let mut alice = Client::online(&server, "alice", "a").await;
    let mut all = Vec::new();
    for (name, mut seen) in [("bob", to_bob), ("carol", to_carol)] {
        let mut again = Client::online(&server, name, "again").await;
        alice.send(&chat(name, "1000000000 -")).await;
        while seen.bodies.last().is_none_or(|last| number(last) != 1_000_000_000) {
            let more = seen.bodies.len() + 1;
            let read = tokio::time::timeout(PATIENCE, seen.read(&mut again, more)).await;
            assert!(read.expect("the last does not come"));
        }
        seen.bodies.pop();
        all.extend(numbers(&seen.bodies));
    }
    let distinct: BTreeSet<usize> = all.iter().copied().collect();
    assert_eq!(distinct.len(), all.len(), "some came twice");
    let lost: Vec<_> = (0..acknowledged).filter(|n| !distinct.contains(n)).collect();
    assert!(lost.is_empty(), "of {acknowledged} acknowledged these are lost: {lost:?}");
}

#[tokio::test]
async fn requests_that_wait_are_short_and_private_storage_is_bounded() {
    let server = Server::start("limits: {unacknowledged_stanzas: 100, roster_items: 60}").await;
    server.users(["bob"]).await;
    let names: Vec<String> = (0..62).map(|n| format!("u{n}")).collect();
    let mut refused = 0;
    for name in &names {
        server.users([name.as_str()]).await;
        let mut one = Client::online(&server, name, "r").await;
        let status = "s".repeat(100_000);
        one.send(&format!(
            "<presence type='subscribe' to='bob@im.example'><status>{status}</status></presence>"
        ))
        .await;
        refused += one.ping().await.iter().filter(|e| e.attr("type") == Some("error")).count();
    }
    assert_eq!(refused, 2, "the roster of bob has 60 places");
    let mut bob = Client::bound(&server, "bob", "b").await;
    manage(&mut bob, true).await;
    bob.send("<presence/>").await;
    let mut requests = 0;
    while requests < 25 {
        let element = bob.until(|e| e.attr("type") == Some("subscribe")).await;
        assert!(element.child("status", ns::CLIENT).is_none());
        requests += 1;
    }
    bob.ping().await;
    let mut bob = Client::bound(&server, "bob", "other").await;
    for n in 0..101 {
        let set = format!("<query xmlns='jabber:iq:private'><n xmlns='urn:notes:{n}'/></query>");
        let answer = bob.iq("set", None, &set).await;
        assert_eq!(answer.attr("type"), Some(if n < 100 { "result" } else { "error" }), "{n}");
    }
}
