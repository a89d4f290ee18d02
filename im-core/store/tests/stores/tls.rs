//! TLS to the servers: used when an authority is given, and refused when another one signed the certificate.
//!
//! The servers refuse whoever comes without TLS, so that a success proves that it was used.

use crate::live::RedisServer;
use crate::servers::{Kind, Server, free_port};
use im_store::live::{Live, LiveConfig, RedisConfig};
use im_store::{Housekeeping, Store};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn whole_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

fn database(kind: Kind) {
    if !kind.is_wanted() {
        return;
    }
    let server = Server::start_with_tls(kind);
    // The databases that are there after the installation serve here.
    let name = if kind == Kind::Mariadb { "mysql" } else { "postgres" };
    runtime().block_on(async {
        let authority = |file: &str| Some(server.folder().join(file));
        let store = Store::open(&server.tcp_config(name, authority("ca.pem"))).await.unwrap();
        store.ping().await.unwrap();
        let error = Store::open(&server.tcp_config(name, authority("other-ca.pem"))).await.unwrap_err();
        let text = whole_chain(&error);
        assert!(text.contains("certificate"), "{text}");
        let plain = Store::open(&server.tcp_config(name, None)).await;
        assert!(plain.is_err(), "the server lets somebody in without TLS, so this proves nothing");
    });
}

#[test]
fn mariadb() {
    database(Kind::Mariadb);
}

#[test]
fn postgresql() {
    database(Kind::Postgresql);
}

#[test]
fn redis() {
    let port = free_port();
    let server = RedisServer::start_with(&format!(
        "port 0\ntls-port {port}\nbind 127.0.0.1\ntls-auth-clients no\ntls-ca-cert-file FOLDER/ca.pem\n\
         tls-cert-file FOLDER/cert.pem\ntls-key-file FOLDER/key.pem"
    ));
    let config = |file: &str| {
        let tcp = RedisConfig { host: "127.0.0.1".into(), port, socket: None, ..server.config("a") };
        LiveConfig::Redis(RedisConfig { ca_file: Some(server.folder.join(file)), ..tcp })
    };
    runtime().block_on(async {
        let (live, _events) = Live::open(&config("ca.pem")).await.unwrap();
        live.ping().await.unwrap();
        let error = Live::open(&config("other-ca.pem")).await.unwrap_err();
        let text = whole_chain(&error);
        assert!(text.contains("certificate") || text.contains("took longer"), "{text}");
    });
}
