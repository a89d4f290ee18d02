//! Signing in: mechanisms, channel binding, what is refused and how.

use im_proto::ns;

use crate::client::Client;
use crate::server::Server;

fn mechanisms(client: &Client) -> Vec<String> {
    let list = client.features.child("mechanisms", ns::SASL);
    list.map(|l| l.children().map(im_proto::Element::text).collect()).unwrap_or_default()
}

#[tokio::test]
async fn every_mechanism_signs_in_by_starttls_and_direct_tls() {
    let server = Server::start("").await;
    server.users(["alice"]).await;
    for mechanism in ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"] {
        for direct in [false, true] {
            let mut client =
                if direct { Client::direct(&server).await } else { Client::starttls(&server).await };
            assert!(mechanisms(&client).iter().any(|m| m == mechanism), "{mechanism}");
            client.scram(mechanism, "alice", "pw-alice").await.unwrap();
            client.bind("r").await;
            assert_eq!(client.jid, "alice@im.example/r");
        }
    }
    let mut client = Client::starttls(&server).await;
    client.plain_sasl("alice", "pw-alice").await.unwrap();
    client.bind("r").await;
}

#[tokio::test]
async fn nothing_is_offered_without_tls() {
    let server = Server::start("").await;
    server.users(["alice"]).await;
    let mut client = Client::plain(&server).await;
    assert!(mechanisms(&client).is_empty());
    assert!(client.features.child("starttls", ns::TLS).unwrap().child("required", ns::TLS).is_some());
    assert_eq!(client.plain_sasl("alice", "pw-alice").await.unwrap_err(), "encryption-required");
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_look_the_same() {
    let server = Server::start("limits: {sign_in_attempts: 3}").await;
    server.users(["alice"]).await;
    let mut client = Client::direct(&server).await;
    assert_eq!(client.scram("SCRAM-SHA-256", "alice", "wrong").await.unwrap_err(), "not-authorized");
    assert_eq!(client.scram("SCRAM-SHA-256", "nobody", "wrong").await.unwrap_err(), "not-authorized");
    assert_eq!(client.plain_sasl("nobody", "x").await.unwrap_err(), "not-authorized");
    assert_eq!(client.ended().await.as_deref(), Some("policy-violation"));
}

#[tokio::test]
async fn too_many_failures_shut_an_account_for_an_address_for_a_while() {
    let server = Server::start("limits: {sign_in_failures_per_minute: 2}").await;
    server.users(["alice", "bob"]).await;
    let mut client = Client::direct(&server).await;
    for _ in 0..2 {
        assert_eq!(client.scram("SCRAM-SHA-256", "alice", "wrong").await.unwrap_err(), "not-authorized");
    }
    // Another spelling of the same name is no other account.
    assert_eq!(client.plain_sasl("aLiCe", "wrong").await.unwrap_err(), "temporary-auth-failure");
    assert_eq!(client.plain_sasl("alice", "pw-alice").await.unwrap_err(), "temporary-auth-failure");
    client.plain_sasl("bob", "pw-bob").await.unwrap();
}

#[tokio::test]
async fn a_resource_is_taken_over_by_the_newer_session() {
    let server = Server::start("").await;
    server.users(["alice"]).await;
    let mut first = Client::online(&server, "alice", "same").await;
    let mut second = Client::online(&server, "alice", "same").await;
    assert_eq!(first.ended().await.as_deref(), Some("conflict"));
    second.ping().await;
}

#[tokio::test]
async fn registration_in_band_only_where_it_is_allowed() {
    let register =
        "<query xmlns='jabber:iq:register'><username>Carol</username><password>s3cret</password></query>";
    let closed = Server::start("").await;
    let mut client = Client::direct(&closed).await;
    client.send(&format!("<iq type='set' id='1'>{register}</iq>")).await;
    assert_eq!(client.ended().await.as_deref(), Some("not-authorized"));

    let open = Server::start("registration: {in_band: true}").await;
    let mut client = Client::direct(&open).await;
    assert!(client.features.child("register", ns::REGISTER_FEATURE).is_some());
    assert_eq!(client.iq("set", None, register).await.attr("type"), Some("result"));
    assert_eq!(crate::client::condition(&client.iq("set", None, register).await), "conflict");
    client.scram("SCRAM-SHA-1", "carol", "s3cret").await.unwrap();
}
