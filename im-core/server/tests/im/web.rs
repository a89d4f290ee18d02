//! HTTPS: the web chat's files, host-meta, and XMPP over WebSocket.

use im_proto::xml::Element;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{Client, PATIENCE, body, tls_to};
use crate::server::{DOMAIN, Server};

async fn get(server: &Server, path: &str) -> String {
    let mut stream = tls_to(server, server.port("https")).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: chat.example:1234\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    // The server may end without a TLS goodbye.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn serves_the_chat_and_nothing_else() {
    let server = Server::start("").await;
    let page = get(&server, "/").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("<title>chat</title>"), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'; script-src 'self';"), "{page}");
    assert!(get(&server, "/ca.crt").await.contains("BEGIN CERTIFICATE"));
    assert!(get(&server, "/client.json").await.contains("\"domain\":\"im.example\""));
    let meta = get(&server, "/.well-known/host-meta").await;
    assert!(meta.contains("href='wss://chat.example:1234/xmpp-websocket'"), "{meta}");
    assert!(
        get(&server, "/.well-known/host-meta.json").await.contains("wss://chat.example:1234/xmpp-websocket")
    );
    for path in ["/../key.pem", "/im.db", "/%2e%2e/key.pem", "/xmpp-websocket"] {
        let answer = get(&server, path).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{path}: {answer}");
    }
}

/// A WebSocket, just enough of it.
struct WebSocket(tokio_rustls::client::TlsStream<tokio::net::TcpStream>);

impl WebSocket {
    async fn connect(server: &Server) -> Self {
        let mut stream = tls_to(server, server.port("https")).await;
        let request = "GET /xmpp-websocket HTTP/1.1\r\nHost: im.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        // The example of RFC 6455 §1.3
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        Self(stream)
    }

    async fn send(&mut self, xml: &str) {
        let mut frame = vec![0x81, 0x80 | 0x7e];
        frame.extend_from_slice(&(xml.len() as u16).to_be_bytes());
        frame.extend_from_slice(&[9, 8, 7, 6]);
        frame.extend(xml.bytes().enumerate().map(|(i, b)| b ^ [9, 8, 7, 6][i & 3]));
        self.0.write_all(&frame).await.unwrap();
        self.0.flush().await.unwrap();
    }

    async fn next(&mut self) -> Element {
        let read = async {
            assert_eq!(self.0.read_u8().await.unwrap(), 0x81);
            let len = match self.0.read_u8().await.unwrap() {
                126 => self.0.read_u16().await.unwrap() as usize,
                len => len as usize,
            };
            let mut payload = vec![0; len];
            self.0.read_exact(&mut payload).await.unwrap();
            String::from_utf8(payload).unwrap()
        };
        let text = tokio::time::timeout(PATIENCE, read).await.expect("nothing came in time");
        Element::parse(&text, "", &[]).unwrap()
    }
}

#[tokio::test]
async fn xmpp_over_websocket() {
    use base64::Engine as _;
    let server = Server::start("").await;
    server.users(["alice", "bob"]).await;
    let mut web = WebSocket::connect(&server).await;
    let open = format!("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='{DOMAIN}' version='1.0'/>");
    web.send(&open).await;
    assert_eq!(web.next().await.name, "open");
    assert!(web.next().await.is("features", im_proto::ns::STREAM));
    let data = base64::engine::general_purpose::STANDARD.encode("\0alice\0pw-alice");
    web.send(&format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{data}</auth>"))
        .await;
    assert_eq!(web.next().await.name, "success");
    web.send(&open).await;
    assert_eq!(web.next().await.name, "open");
    web.next().await;
    web.send("<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>web</resource></bind></iq>").await;
    assert!(web.next().await.is("iq", im_proto::ns::CLIENT));
    web.send("<presence xmlns='jabber:client'/>").await;
    assert!(web.next().await.is("presence", im_proto::ns::CLIENT));
    let mut bob = Client::online(&server, "bob", "b").await;
    web.send(
        "<message xmlns='jabber:client' to='bob@im.example' type='chat'><body>from the web</body></message>",
    )
    .await;
    let message = bob.message().await;
    assert_eq!(body(&message), "from the web");
    bob.send("<message to='alice@im.example' type='chat'><body>from tcp</body></message>").await;
    let message = web.next().await;
    assert!(message.is("message", im_proto::ns::CLIENT));
    assert_eq!(body(&message), "from tcp");
    web.send("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>").await;
    assert_eq!(web.next().await.name, "close");
}
