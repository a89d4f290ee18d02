//! Peers that break the rules, or dawdle.

use im_proto::ns;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{Client, PATIENCE};
use crate::server::{DOMAIN, Server};

#[tokio::test]
async fn broken_streams_end_with_the_right_error() {
    let server = Server::start("").await;
    server.users(["alice"]).await;
    let header = format!(
        "<stream:stream to='{DOMAIN}' version='1.0' xmlns='{}' xmlns:stream='{}'>",
        ns::CLIENT,
        ns::STREAM
    );
    let huge = format!("{header}<auth>{}", "x".repeat(20_000));
    for (bytes, error) in [
        ("GET / HTTP/1.1\r\n\r\n", "not-well-formed"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>", "restricted-xml"),
        (
            "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams'>",
            "invalid-namespace",
        ),
        (&header.replace(DOMAIN, "other.example"), "host-unknown"),
        (&format!("{header}<message><body>hi</body></message>"), "not-authorized"),
        (&format!("{header}<p:x/>"), "bad-namespace-prefix"),
        (&huge, "policy-violation"),
    ] {
        let mut stream = TcpStream::connect(server.port("xmpp")).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut text = String::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await;
        // A peer that still sends may see a reset after the error.
        let _ = read.expect("the stream did not end");
        assert!(text.contains(&format!("<{error} ")), "{error}: {text}");
    }
    let mut alice = Client::online(&server, "alice", "a").await;
    alice.send("<message from='bob@im.example' to='alice@im.example'><body>forged</body></message>").await;
    assert_eq!(alice.ended().await.as_deref(), Some("invalid-from"));
}

#[tokio::test]
async fn who_dawdles_is_cut_off_and_disturbs_nobody() {
    let server = Server::start("limits: {sign_in_seconds: 6}").await;
    server.users(["alice"]).await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(server.port("xmpp")).await.unwrap();
        stream.write_all(b"<stream:str").await.unwrap();
        slow.push(stream);
    }
    let mut silent_tls = TcpStream::connect(server.port("xmpp_tls")).await.unwrap();
    let mut alice = Client::online(&server, "alice", "a").await;
    alice.ping().await;
    for stream in &mut slow {
        let mut text = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("not cut off").unwrap();
        assert!(text.contains("<connection-timeout "), "{text}");
    }
    let mut bytes = [0; 10];
    let read = tokio::time::timeout(PATIENCE, silent_tls.read(&mut bytes)).await.expect("not cut off");
    assert_eq!(read.unwrap_or(0), 0);
    // Who is signed in may be silent.
    alice.ping().await;
}

#[tokio::test]
async fn declarations_of_the_senders_stream_reach_the_receiver() {
    let server = Server::start("").await;
    server.users(["alice", "bob"]).await;
    let mut bob = Client::online(&server, "bob", "b").await;
    let mut alice = Client::direct(&server).await;
    alice.plain_sasl("alice", "pw-alice").await.unwrap();
    alice
        .send(&format!(
            "<stream:stream to='{DOMAIN}' version='1.0' xmlns='{}' xmlns:stream='{}' xmlns:x='urn:example:x'>",
            ns::CLIENT,
            ns::STREAM
        ))
        .await;
    // The client's own framer must forget the stream before.
    alice.bind_on_open_stream("a").await;
    alice
        .send("<message to='bob@im.example' type='chat'><body>hi</body><x:data x:kind='1'/></message>")
        .await;
    let message = bob.message().await;
    let data = message.child("data", "urn:example:x").unwrap_or_else(|| panic!("{message:?}"));
    assert_eq!(data.attributes[0].ns, "urn:example:x");
}
