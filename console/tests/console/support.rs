//! A server to test and a browser to test it with.

#![expect(clippy::unwrap_used, reason = "what a test needs and cannot have fails the test here")]

use hyper::header::{self, HeaderMap, HeaderName};
use hyper_util::rt::TokioIo;
use maxim_console::auth::token;
use maxim_console::clock::{Clock, ManualClock};
use maxim_console::config::{ClusterConfig, Config};
use maxim_console::server::{Server, StartError};
use maxim_console::status::source::{MeasureError, StatusSource};
use maxim_console::status::watcher::{Pace, Watcher};
use maxim_console::store::Store;
use maxim_engine::CancelFlag;
use maxim_model::status::{ClusterStatus, ComponentStatus, Endpoints, Health, HostStatus};
use rustls::pki_types::{CertificateDer, ServerName};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// The first administrator's password.
pub const PASSWORD: &str = "plum kettle orbit 7431";
/// Its hash, ready made: hashing is slow by intent, and slower without optimisation. (One test of `sign_in`
/// begins with the password itself.)
const HASH: &str = "pbkdf2-sha256$600000$ZGVmZ2hpamtsbW5vcHFycw$V/H5nS7GyCE64p3Jr5uurPBxrAsBmkaMzo4owH/JoA0";
/// When the tests happen.
pub const START: i64 = 1_795_230_000;
/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the scripted measurement answers next.
pub type Answer = Result<ClusterStatus, MeasureError>;

struct Scripted(Arc<Mutex<Answer>>);

impl StatusSource for Scripted {
    fn measure(&self, _cancel: &CancelFlag) -> Answer {
        self.0.lock().unwrap().clone()
    }
}

/// A running console.
pub struct Console {
    pub address: SocketAddr,
    pub clock: Arc<ManualClock>,
    pub watcher: Watcher,
    answer: Arc<Mutex<Answer>>,
    certificate: CertificateDer<'static>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), StartError>>,
    pub folder: tempfile::TempDir,
}

impl Console {
    pub async fn start() -> Self {
        Self::start_with(Ok(cluster(Health::Well))).await
    }

    pub async fn start_with(answer: Answer) -> Self {
        Self::start_from(answer, HASH).await
    }

    /// Starts with this text in the setup password file.
    pub async fn start_from(answer: Answer, setup: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(path("tls.crt"), pair.cert.pem()).unwrap();
        std::fs::write(path("tls.key"), pair.signing_key.serialize_pem()).unwrap();
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path("setup")).unwrap();
        std::io::Write::write_all(&mut file, setup.as_bytes()).unwrap();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            ports_file: Some(path("ports.json")),
            certificate: path("tls.crt"),
            key: path("tls.key"),
            data: path("data"),
            setup_password_file: Some(path("setup")),
            idle: Duration::from_mins(30),
            absolute: Duration::from_hours(12),
            cluster: ClusterConfig { state: path("cluster"), program: path("maxim-ctl"), agent_socket: None },
        };
        let clock = Arc::new(ManualClock::at(START));
        let answer = Arc::new(Mutex::new(answer));
        let pace =
            Pace { looked_at: Duration::from_millis(1), idle: Duration::from_millis(20), ..Pace::default() };
        let source = Arc::new(Scripted(Arc::clone(&answer)));
        let server = Server::bind(&config, clock.clone(), source, pace).await.unwrap();
        let (address, watcher, mut ready) = (server.address(), server.watcher(), server.ready());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        let certificate = pair.cert.der().clone();
        let console = Self { address, clock, watcher, answer, certificate, stop: Some(stop), task, folder };
        tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready)).await.unwrap().unwrap();
        console.measured().await;
        console
    }

    /// Changes what is measured, and waits until it was.
    pub async fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
        self.measured().await;
    }

    /// Waits for two rounds: the one in hand may have begun before.
    pub async fn measured(&self) {
        for _ in 0..2 {
            tokio::time::timeout(PATIENCE, self.watcher.next_round()).await.unwrap();
        }
    }

    /// A browser that has visited nothing yet.
    pub fn browser(&self) -> Browser {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Browser {
            address: self.address,
            connector: TlsConnector::from(Arc::new(config)),
            host: "console.acme.example".into(),
            cookies: BTreeMap::new(),
            language: String::new(),
        }
    }

    /// A browser that is signed in, by a session put into the database: only tests of signing in need the slow hash.
    pub fn signed_in(&self) -> Browser {
        let mut browser = self.browser();
        let store = Store::open(&self.folder.path().join("data")).unwrap();
        let administrator = store.administrator("admin").unwrap().unwrap();
        let cookie = token::new_token().unwrap();
        let digest = token::digest_of(&cookie);
        store.open_session(&digest, administrator.id, self.clock.now(), "127.0.0.1", "test browser").unwrap();
        browser.cookies.insert(token::SESSION_COOKIE.into(), cookie.expose().into());
        browser
    }

    /// Tells it to stop and waits for its end.
    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(PATIENCE, &mut self.task).await.unwrap().unwrap().unwrap();
    }
}

/// Keeps cookies and sends what a browser sends.
pub struct Browser {
    address: SocketAddr,
    connector: TlsConnector,
    pub host: String,
    pub cookies: BTreeMap<String, String>,
    pub language: String,
}

/// What came back.
pub struct Page {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Page {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The token in the page's first form.
    pub fn token(&self) -> String {
        let (_, rest) = self.text().split_once("name=\"form_token\" value=\"").expect("the page has a form");
        rest.split('"').next().unwrap().to_owned()
    }

    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.text().contains(text), "{text:?} is not in:\n{}", self.text());
        self
    }

    #[track_caller]
    pub fn says_not(&self, text: &str) -> &Self {
        assert!(!self.text().contains(text), "{text:?} is in:\n{}", self.text());
        self
    }
}

impl Browser {
    pub async fn get(&mut self, path: &str) -> Page {
        self.send("GET", path, &[], String::new()).await
    }

    /// Sends a form with a token as from a page of the console.
    pub async fn post(&mut self, path: &str, token: &str, fields: &[(&str, &str)]) -> Page {
        let origin = format!("https://{}", self.host);
        let mut all = vec![("form_token", token)];
        all.extend_from_slice(fields);
        self.send("POST", path, &[("origin", &origin)], form(&all)).await
    }

    /// Opens the sign-in page and sends its form.
    pub async fn sign_in(&mut self, account: &str, password: &str) -> Page {
        let token = self.get("/sign-in").await.token();
        self.post("/sign-in", &token, &[("account", account), ("password", password)]).await
    }

    pub async fn send(&mut self, method: &str, path: &str, more: &[(&str, &str)], body: String) -> Page {
        tokio::time::timeout(PATIENCE, self.exchange(method, path, more, body)).await.unwrap()
    }

    async fn exchange(&mut self, method: &str, path: &str, more: &[(&str, &str)], body: String) -> Page {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = self.connector.connect(name, stream).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::USER_AGENT, "test browser");
        if !self.language.is_empty() {
            request = request.header(header::ACCEPT_LANGUAGE, &self.language);
        }
        if !self.cookies.is_empty() {
            let cookies: Vec<String> =
                self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header(header::COOKIE, cookies.join("; "));
        }
        if method == "POST" {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        for (name, value) in more {
            request = request.header(HeaderName::try_from(*name).unwrap(), *value);
        }
        let answer = sender.send_request(request.body(axum::body::Body::from(body)).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = axum::body::to_bytes(axum::body::Body::new(body), 1 << 20).await.unwrap().to_vec();
        drop(sender);
        connection.abort();
        for cookie in head.headers.get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            if cookie.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        Page { status: head.status.as_u16(), headers: head.headers, body }
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| {
        text.bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect::<String>()
    };
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.join("&")
}

/// A cluster of three hosts whose IM core has the given health.
pub fn cluster(im: Health) -> ClusterStatus {
    const GIB: u64 = 1 << 30;
    let host = |name: &str, address: &str| HostStatus {
        host: name.into(),
        address: address.into(),
        reached: true,
        error: String::new(),
        distribution: "Debian GNU/Linux 12 (bookworm)".into(),
        cpus: 4,
        memory_total: 8 * GIB,
        memory_available: 5 * GIB,
        disk_available: 30 * GIB,
        disk_total: 40 * GIB,
    };
    let component = |host: &str, component: &str, version: &str, health| ComponentStatus {
        host: host.into(),
        component: component.into(),
        wanted: version.into(),
        running: version.into(),
        health,
        detail: if health == Health::Well { String::new() } else { "exit code 1 <b>twice</b>".into() },
        memory: 64 << 20,
        since_seconds: 7300,
        restarts: 2,
    };
    ClusterStatus {
        cluster: "acme".into(),
        domain: "im.acme.example".into(),
        profile: "standard".into(),
        hosts: vec![host("app1", "192.0.2.1"), host("db1", "192.0.2.2"), host("cache1", "192.0.2.3")],
        components: vec![
            component("app1", "im", "0.1.0", im),
            component("app1", "console", "0.1.0", Health::Well),
            component("db1", "mariadb", "11.8.6", Health::Well),
            component("cache1", "redis", "8.0.2", Health::Well),
        ],
        endpoints: Endpoints {
            xmpp: vec!["im.acme.example:5222".into()],
            xmpp_tls: vec!["im.acme.example:5223".into()],
            web: vec!["https://im.acme.example/".into()],
            console: vec!["https://im.acme.example:9443/".into()],
        },
        upgrade: None,
        backup: maxim_model::backup::BackupRecord::default(),
        measured_at: "2026-11-21T03:00:00Z".into(),
    }
}
