//! A small XMPP client: text in, elements out. It knows no more of the protocol than the tests need.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use im_proto::xml::Element;
use im_proto::xml::frame::Mode;
use im_proto::{Framer, Item, Limits, ns};
use ring::{digest, hmac, pbkdf2};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::server::{DOMAIN, Server};

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A connection, signed in or not.
pub struct Client {
    pub io: Box<dyn Io>,
    framer: Framer,
    buffer: Vec<u8>,
    pub exporter: Option<Vec<u8>>,
    pub features: Element,
    pub jid: String,
}

fn tls(server: &Server) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(server.path("cert.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

pub async fn tls_to(server: &Server, address: std::net::SocketAddr) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    tls(server).connect(DOMAIN.try_into().unwrap(), stream).await.unwrap()
}

fn exporter(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    let (_, connection) = stream.get_ref();
    connection.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", Some(b"")).unwrap()
}

impl Client {
    fn over(io: Box<dyn Io>) -> Self {
        Self {
            io,
            framer: Framer::new(Mode::Stream, Limits::default()),
            buffer: Vec::new(),
            exporter: None,
            features: Element::new("features", ns::STREAM),
            jid: String::new(),
        }
    }

    /// A plain connection with its stream open.
    pub async fn plain(server: &Server) -> Self {
        let mut client = Self::over(Box::new(TcpStream::connect(server.port("xmpp")).await.unwrap()));
        client.open().await;
        client
    }

    /// A connection by STARTTLS with its stream open.
    pub async fn starttls(server: &Server) -> Self {
        let mut plain = TcpStream::connect(server.port("xmpp")).await.unwrap();
        let open = format!(
            "<stream:stream to='{DOMAIN}' version='1.0' xmlns='{}' xmlns:stream='{}'><starttls xmlns='{}'/>",
            ns::CLIENT,
            ns::STREAM,
            ns::TLS
        );
        // In two steps: whatever follows <starttls/> at once is refused.
        plain.write_all(open.as_bytes()).await.unwrap();
        let mut text = String::new();
        while !text.contains("<proceed") {
            let mut bytes = [0; 4096];
            let n = plain.read(&mut bytes).await.unwrap();
            assert!(n > 0, "closed before TLS: {text}");
            text.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
        }
        let stream = tls(server).connect(DOMAIN.try_into().unwrap(), plain).await.unwrap();
        let exporter = exporter(&stream);
        let mut client = Self::over(Box::new(stream));
        client.exporter = Some(exporter);
        client.open().await;
        client
    }

    /// A connection by direct TLS with its stream open.
    pub async fn direct(server: &Server) -> Self {
        let stream = tls_to(server, server.port("xmpp_tls")).await;
        let exporter = exporter(&stream);
        let mut client = Self::over(Box::new(stream));
        client.exporter = Some(exporter);
        client.open().await;
        client
    }

    /// Signs in by SCRAM-SHA-256 over direct TLS and binds, without presence.
    pub async fn bound(server: &Server, name: &str, resource: &str) -> Self {
        let mut client = Self::direct(server).await;
        client.scram("SCRAM-SHA-256", name, &format!("pw-{name}")).await.unwrap();
        client.bind(resource).await;
        client
    }

    /// As [`Client::bound`], and available.
    pub async fn online(server: &Server, name: &str, resource: &str) -> Self {
        let mut client = Self::bound(server, name, resource).await;
        client.send("<presence/>").await;
        let own = client.jid.clone();
        client.until(|e| e.name == "presence" && e.attr("from") == Some(own.as_str())).await;
        client
    }

    pub async fn send(&mut self, xml: &str) {
        self.io.write_all(xml.as_bytes()).await.unwrap();
        self.io.flush().await.unwrap();
    }

    /// Opens a stream and reads its features.
    pub async fn open(&mut self) {
        self.framer.restart();
        let header = format!(
            "<?xml version='1.0'?><stream:stream to='{DOMAIN}' version='1.0' xml:lang='en' xmlns='{}' xmlns:stream='{}'>",
            ns::CLIENT,
            ns::STREAM
        );
        self.send(&header).await;
        self.features = self.next().await;
        assert!(self.features.is("features", ns::STREAM), "{:?}", self.features);
    }

    /// The next element; `None` at the end of the stream.
    pub async fn read(&mut self) -> Option<Element> {
        let mut attrs = Vec::new();
        loop {
            if let Some((item, used)) = self.framer.next(&self.buffer, &mut attrs).unwrap() {
                let raw = String::from_utf8(self.buffer.drain(..used).collect()).unwrap();
                match item {
                    Item::Open(_) => continue,
                    Item::Close => return None,
                    Item::Stanza(_) => {
                        return Some(Element::parse(raw.trim(), ns::CLIENT, self.framer.prefixes()).unwrap());
                    }
                }
            }
            let mut bytes = [0; 8192];
            let n = self.io.read(&mut bytes).await.unwrap_or(0);
            if n == 0 {
                return None;
            }
            self.buffer.extend_from_slice(&bytes[..n]);
        }
    }

    pub async fn next(&mut self) -> Element {
        let next = tokio::time::timeout(PATIENCE, self.read()).await;
        next.expect("nothing came in time").expect("the stream ended")
    }

    /// Reads until an element fits; the others are dropped.
    pub async fn until(&mut self, fits: impl Fn(&Element) -> bool) -> Element {
        loop {
            let element = self.next().await;
            if fits(&element) {
                return element;
            }
        }
    }

    /// The next message.
    pub async fn message(&mut self) -> Element {
        self.until(|e| e.name == "message").await
    }

    /// True when the stream ends without another element, or with a stream error.
    pub async fn ended(&mut self) -> Option<String> {
        let read = async {
            loop {
                match self.read().await {
                    None => return None,
                    Some(e) if e.is("error", ns::STREAM) => return e.first_child().map(|c| c.name.clone()),
                    Some(_) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("the stream did not end")
    }

    /// Sends an iq and waits for its answer; other elements in between are dropped.
    pub async fn iq(&mut self, kind: &str, to: Option<&str>, payload: &str) -> Element {
        self.iq_with(kind, to, payload).await.1
    }

    /// Sends an iq; returns what came before its answer, and the answer.
    pub async fn iq_with(&mut self, kind: &str, to: Option<&str>, payload: &str) -> (Vec<Element>, Element) {
        let id = format!("{:x}", rand::random::<u64>());
        let to = to.map(|to| format!(" to='{to}'")).unwrap_or_default();
        self.send(&format!("<iq type='{kind}' id='{id}'{to}>{payload}</iq>")).await;
        let mut before = Vec::new();
        loop {
            let element = self.next().await;
            if element.name == "iq" && element.attr("id") == Some(id.as_str()) {
                return (before, element);
            }
            before.push(element);
        }
    }

    /// A round trip: whatever was sent before is dealt with (messages that need a commit aside).
    pub async fn ping(&mut self) -> Vec<Element> {
        let (before, answer) = self.iq_with("get", None, "<ping xmlns='urn:xmpp:ping'/>").await;
        assert_eq!(answer.attr("type"), Some("result"));
        before
    }

    pub async fn bind(&mut self, resource: &str) {
        self.open().await;
        let answer = self
            .iq("set", None, &format!("<bind xmlns='{}'><resource>{resource}</resource></bind>", ns::BIND))
            .await;
        let bind = answer.child("bind", ns::BIND).unwrap_or_else(|| panic!("{answer:?}"));
        self.jid = bind.child("jid", ns::BIND).unwrap().text();
    }

    /// SASL PLAIN; the condition when it failed.
    pub async fn plain_sasl(&mut self, name: &str, password: &str) -> Result<(), String> {
        let data = BASE64.encode(format!("\0{name}\0{password}"));
        self.send(&format!("<auth xmlns='{}' mechanism='PLAIN'>{data}</auth>", ns::SASL)).await;
        verdict(&self.next().await).map(drop)
    }

    /// A SCRAM mechanism, with the server's signature checked; the condition when it failed.
    pub async fn scram(&mut self, mechanism: &str, name: &str, password: &str) -> Result<(), String> {
        let plus = mechanism.ends_with("-PLUS");
        let header = if plus { "p=tls-exporter,," } else { "n,," };
        let first = format!("n={name},r=clientnonce");
        let data = BASE64.encode(format!("{header}{first}"));
        self.send(&format!("<auth xmlns='{}' mechanism='{mechanism}'>{data}</auth>", ns::SASL)).await;
        let challenge = self.next().await;
        if challenge.name != "challenge" {
            return verdict(&challenge).map(drop);
        }
        let challenge = String::from_utf8(BASE64.decode(challenge.text()).unwrap()).unwrap();
        let field = |name: char| {
            challenge.split(',').find_map(|f| f.strip_prefix(&format!("{name}="))).unwrap().to_owned()
        };
        let (nonce, salt, rounds) = (field('r'), BASE64.decode(field('s')).unwrap(), field('i'));
        let mut binding = header.as_bytes().to_vec();
        if plus {
            binding.extend_from_slice(self.exporter.as_ref().unwrap());
        }
        let last = format!("c={},r={nonce}", BASE64.encode(binding));
        let message = format!("{first},{challenge},{last}");
        let (pbkdf, mac, hash, len) = if mechanism.starts_with("SCRAM-SHA-1") {
            let mac = hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
            (pbkdf2::PBKDF2_HMAC_SHA1, mac, &digest::SHA1_FOR_LEGACY_USE_ONLY, 20)
        } else {
            (pbkdf2::PBKDF2_HMAC_SHA256, hmac::HMAC_SHA256, &digest::SHA256, 32)
        };
        let mut salted = vec![0; len];
        let rounds = rounds.parse::<u32>().unwrap().try_into().unwrap();
        pbkdf2::derive(pbkdf, rounds, &salt, password.as_bytes(), &mut salted);
        let sign = |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(mac, key), data).as_ref().to_vec();
        let client_key = sign(&salted, b"Client Key");
        let stored = digest::digest(hash, &client_key);
        let signature = sign(stored.as_ref(), message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let data = BASE64.encode(format!("{last},p={}", BASE64.encode(proof)));
        self.send(&format!("<response xmlns='{}'>{data}</response>", ns::SASL)).await;
        let success = verdict(&self.next().await)?;
        let expected = sign(&sign(&salted, b"Server Key"), message.as_bytes());
        assert_eq!(
            String::from_utf8(BASE64.decode(success).unwrap()).unwrap(),
            format!("v={}", BASE64.encode(expected))
        );
        Ok(())
    }
}

fn verdict(element: &Element) -> Result<String, String> {
    match element.name.as_str() {
        "success" => Ok(element.text()),
        "failure" => Err(element.first_child().unwrap().name.clone()),
        other => panic!("neither success nor failure but {other}"),
    }
}

/// The body of a message.
pub fn body(message: &Element) -> String {
    message.child("body", ns::CLIENT).map(Element::text).unwrap_or_default()
}

/// The defined condition of a stanza error.
pub fn condition(stanza: &Element) -> String {
    let error = stanza.child("error", ns::CLIENT).unwrap_or_else(|| panic!("no error: {stanza:?}"));
    error.first_child().unwrap().name.clone()
}

impl Client {
    /// Binds on a stream whose header was sent by hand.
    pub async fn bind_on_open_stream(&mut self, resource: &str) {
        self.framer.restart();
        self.features = self.next().await;
        let bind = format!("<bind xmlns='{}'><resource>{resource}</resource></bind>", ns::BIND);
        let answer = self.iq("set", None, &bind).await;
        self.jid = answer.child("bind", ns::BIND).unwrap().child("jid", ns::BIND).unwrap().text();
    }
}
