//! The administration socket, canaries, health.

use im_admin_api::{CreateUser, ErrorCode, ListUsers, Password, SetPassword, SweepCanaries};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{Client, body, condition};
use crate::server::Server;

async fn http_get(server: &Server, path: &str) -> String {
    let mut stream = TcpStream::connect(server.port("metrics")).await.unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn accounts_are_made_changed_and_removed() {
    let server = Server::start("").await;
    let admin = server.admin();
    server.users(["alice", "bob"]).await;
    let code = |error| match error {
        im_admin_api::ClientError::Decode(answer) => answer.code().unwrap(),
        other => panic!("{other}"),
    };
    let new = |address: &str, password: &str| CreateUser {
        address: address.into(),
        password: Password::new(password),
        name: Some("N".into()),
    };
    assert_eq!(
        code(admin.create_user(&new("alice@im.example", "x")).await.unwrap_err()),
        ErrorCode::UserExists
    );
    assert_eq!(
        code(admin.create_user(&new("a@other.example", "x")).await.unwrap_err()),
        ErrorCode::InvalidAddress
    );
    assert_eq!(
        code(admin.create_user(&new("carol", "\u{1}")).await.unwrap_err()),
        ErrorCode::InvalidPassword
    );
    assert_eq!(
        code(admin.create_user(&new("maxim-canary-1", "x")).await.unwrap_err()),
        ErrorCode::AddressReserved
    );
    let list = admin.list_users(&ListUsers { limit: Some(1), ..ListUsers::default() }).await.unwrap();
    assert_eq!((list.users.len(), list.next.as_deref()), (1, Some("alice@im.example")));

    let mut alice = Client::online(&server, "alice", "a").await;
    admin
        .set_password(&SetPassword { address: "alice".into(), password: Password::new("new") })
        .await
        .unwrap();
    assert_eq!(alice.ended().await.as_deref(), Some("not-authorized"));
    let mut client = Client::direct(&server).await;
    assert_eq!(client.plain_sasl("alice", "pw-alice").await.unwrap_err(), "not-authorized");
    client.plain_sasl("alice", "new").await.unwrap();

    assert!(admin.disable_user("bob").await.unwrap().disabled);
    let mut client = Client::direct(&server).await;
    assert_eq!(client.plain_sasl("bob", "pw-bob").await.unwrap_err(), "account-disabled");
    admin.enable_user("bob").await.unwrap();
    client.plain_sasl("bob", "pw-bob").await.unwrap();
    let mut other = Client::direct(&server).await;
    other.plain_sasl("bob", "pw-bob").await.unwrap();
    // What became of the account since it signed in is seen when the session is made.
    admin.disable_user("bob").await.unwrap();
    client.open().await;
    let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>";
    assert_eq!(condition(&client.iq("set", None, bind).await), "not-allowed");
    admin.enable_user("bob").await.unwrap();
    admin.remove_user("bob").await.unwrap();
    other.open().await;
    assert_eq!(condition(&other.iq("set", None, bind).await), "not-allowed");
    assert_eq!(code(admin.remove_user("bob").await.unwrap_err()), ErrorCode::UserNotFound);
    let log = server.log();
    assert!(!log.contains("pw-alice"), "a password is in the log");
}

#[tokio::test]
async fn canaries_talk_to_each_other_and_are_seen_by_nobody() {
    let server = Server::start("").await;
    server.users(["alice"]).await;
    let admin = server.admin();
    let made = admin.create_canaries().await.unwrap();
    let mut clients = Vec::new();
    for account in &made.accounts {
        let name = account.address.split('@').next().unwrap();
        let mut client = Client::direct(&server).await;
        client.scram("SCRAM-SHA-256", name, account.password.expose()).await.unwrap();
        client.bind("c").await;
        client.send("<presence/>").await;
        client.until(|e| e.name == "presence").await;
        clients.push(client);
    }
    let send = |to: &str, text: &str| format!("<message to='{to}' type='chat'><body>{text}</body></message>");
    clients[0].send(&send(&made.accounts[1].address, "alive")).await;
    assert_eq!(body(&clients[1].message().await), "alive");
    clients[0].send(&send("alice@im.example", "hello")).await;
    assert_eq!(condition(&clients[0].message().await), "service-unavailable");
    let mut alice = Client::online(&server, "alice", "a").await;
    alice.send(&send(&made.accounts[0].address, "hello")).await;
    assert_eq!(condition(&alice.message().await), "service-unavailable");
    let stats = admin.stats().await.unwrap();
    assert_eq!((stats.accounts, stats.sessions, stats.messages_delivered), (1, 1, 0));
    assert_eq!(admin.list_users(&ListUsers::default()).await.unwrap().users.len(), 1);
    let sweep = SweepCanaries { older_than_seconds: 0, addresses: vec![] };
    assert_eq!(admin.sweep_canaries(&sweep).await.unwrap().removed, 2);
    assert_eq!(clients[0].ended().await.as_deref(), Some("not-authorized"));
}

#[tokio::test]
async fn health_and_metrics_tell_how_it_is() {
    let server = Server::start("").await;
    server.users(["alice"]).await;
    let _alice: Client = Client::online(&server, "alice", "a").await;
    assert!(http_get(&server, "/healthz").await.starts_with("HTTP/1.1 200"));
    let ready = http_get(&server, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("\"store\""), "{ready}");
    let metrics = http_get(&server, "/metrics").await;
    assert!(metrics.contains("\nmaxim_im_sessions 1\n"), "{metrics}");
    assert!(http_get(&server, "/other").await.starts_with("HTTP/1.1 404"));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(server.path("admin.sock")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("im.yaml");
    std::fs::write(
        &config,
        "domain: x\nlisten: {xmpp: ['127.0.0.1:0']}\nstore: {sqlite: {path: /nowhere}}\ntsl: {}\n",
    )
    .unwrap();
    for arguments in [&["--check-config"][..], &[]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_maxim-im"))
            .arg("--config")
            .arg(&config)
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text.contains("tsl") && text.contains("line 4"), "{text}");
    }
}
