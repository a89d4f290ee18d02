//! A server process for one test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use im_admin_api::{Client as Admin, CreateUser, Password};
use serde_json::Value;

/// A running server with its folder.
pub struct Server {
    folder: tempfile::TempDir,
    process: Option<Child>,
    pub ports: Value,
}

/// The domain of every test.
pub const DOMAIN: &str = "im.example";

impl Server {
    /// Starts a server on a SQLite file; `more` is put at the end of its configuration.
    pub async fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("store: {{sqlite: {{path: {}/im.db}}}}\n{more}", folder.path().display());
        Self::start_in(folder, &store).await
    }

    /// Starts a server; `more` names its store.
    pub async fn start_on(more: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), more).await
    }

    async fn start_in(folder: tempfile::TempDir, more: &str) -> Self {
        let names = vec![DOMAIN.to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let web = folder.path().join("web");
        std::fs::create_dir(&web).unwrap();
        std::fs::write(web.join("index.html"), "<!doctype html><title>chat</title>").unwrap();
        let path = folder.path().display();
        let config = format!(
            "domain: {DOMAIN}\nlisten:\n  xmpp: ['127.0.0.1:0']\n  xmpp_tls: ['127.0.0.1:0']\n  https: ['127.0.0.1:0']\n  \
             metrics: '127.0.0.1:0'\n  admin_socket: {path}/admin.sock\n\
             tls: {{certificate: {path}/cert.pem, key: {path}/key.pem}}\nweb: {{root: {path}/web, ca_certificate: {path}/cert.pem}}\n\
             ports_file: {path}/ports.json\n{more}\n"
        );
        std::fs::write(folder.path().join("im.yaml"), config).unwrap();
        let mut server = Self { folder, process: None, ports: Value::Null };
        server.run().await;
        server
    }

    /// Runs the process, and waits until it is ready.
    pub async fn run(&mut self) {
        let ports = self.path("ports.json");
        let _ = std::fs::remove_file(&ports);
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.path("im.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_maxim-im"))
            .arg("--config")
            .arg(self.path("im.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.process.as_mut().unwrap().try_wait().unwrap() {
                panic!("the server ended with {status}: {}", self.log());
            }
            if let Ok(text) = std::fs::read(&ports)
                && Admin::new(self.path("admin.sock")).readiness().await.is_ok_and(|r| r.ready)
            {
                self.ports = serde_json::from_slice(&text).unwrap();
                return;
            }
            assert!(Instant::now() < deadline, "the server is not ready: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("im.log")).unwrap_or_default()
    }

    pub fn admin(&self) -> Admin {
        Admin::new(self.path("admin.sock"))
    }

    /// The first address of a listener.
    pub fn port(&self, name: &str) -> SocketAddr {
        let value = &self.ports[name];
        value.get(0).unwrap_or(value).as_str().unwrap().parse().unwrap()
    }

    /// Makes accounts whose passwords are `pw-NAME`.
    pub async fn users<const N: usize>(&self, names: [&str; N]) {
        for name in names {
            let user = CreateUser {
                address: name.into(),
                password: Password::new(format!("pw-{name}")),
                name: None,
            };
            self.admin().create_user(&user).await.unwrap();
        }
    }

    /// Pulls the plug.
    pub fn kill(&mut self) {
        let mut child = self.process.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// Waits until the process has ended by itself.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.process.take().unwrap().wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            println!("--- the server's log\n{}", &log[log.len().saturating_sub(4000)..]);
        }
    }
}
