//! Databases for the suite: a temporary file, or private servers on Unix sockets.
//!
//! A server is started from the programs on this machine with data of its own in a temporary folder, as `nobody`
//! when the suite runs as root. A small shell keeps it: when its standard input closes, however the suite ended,
//! it kills the server and removes the folder. So nothing is left behind after a panic or a SIGKILL either.

use im_store::{Secret, ServerAddress, ServerConfig, Store, StoreConfig};
use sqlx::{Connection, Executor, MySqlConnection, PgConnection};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const PASSWORD: &str = "a secret of the test";
const LOG_SIZE: &str = "--innodb-log-file-size=16M";
const NOBODY: &str = "65534";
const START_DEADLINE: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Mariadb,
    Postgresql,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Mariadb => "mariadb",
            Self::Postgresql => "postgresql",
        }
    }

    /// Whether `MAXIM_TEST_STORES` leaves it in.
    pub fn is_wanted(self) -> bool {
        std::env::var("MAXIM_TEST_STORES")
            .map_or(true, |list| list.split(',').any(|name| name.trim() == self.name()))
    }
}

/// A fresh database.
pub struct Scratch {
    kind: Kind,
    config: StoreConfig,
    _folder: Option<tempfile::TempDir>,
}

impl Scratch {
    pub async fn new(kind: Kind) -> Self {
        if kind == Kind::Sqlite {
            let folder = tempfile::tempdir().unwrap();
            let config = StoreConfig::Sqlite { path: folder.path().join("store.db") };
            return Self { kind, config, _folder: Some(folder) };
        }
        Self::on(Server::shared(kind)).await
    }

    /// A fresh database on this server.
    pub async fn on(server: &Server) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("case_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let config = server.config(&name);
        server.create_database(&name).await;
        Self { kind: server.kind, config, _folder: None }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn config(&self) -> StoreConfig {
        self.config.clone()
    }

    /// Another node's view of the database.
    pub async fn open(&self) -> Store {
        Store::open(&self.config).await.unwrap()
    }

    /// Fails unless exactly so many messages are stored, whoever they belong to: orphans would be a leak.
    pub async fn assert_messages_stored(&self, expected: i64) {
        assert_eq!(self.number("SELECT count(*) FROM message").await, expected);
    }

    /// Makes the database look as if a newer program had migrated it.
    pub async fn record_migration(&self, number: u32, compatible_from: u32) {
        self.execute(&format!(
            "INSERT INTO schema_migration (number, name, class, compatible_from, checksum, applied_at)
             VALUES ({number}, 'later', 'expand', {compatible_from}, 'x', 0)"
        ))
        .await;
    }

    async fn number(&self, sql: &'static str) -> i64 {
        match &self.config {
            StoreConfig::Sqlite { path } => {
                rusqlite::Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
            }
            StoreConfig::Mariadb(config) => {
                sqlx::query_scalar(sql).fetch_one(&mut mysql(config).await).await.unwrap()
            }
            StoreConfig::Postgresql(config) => {
                sqlx::query_scalar(sql).fetch_one(&mut postgres(config).await).await.unwrap()
            }
        }
    }

    async fn execute(&self, sql: &str) {
        let safe = sqlx::AssertSqlSafe(sql.to_owned());
        match &self.config {
            StoreConfig::Sqlite { path } => {
                rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
            }
            StoreConfig::Mariadb(config) => {
                mysql(config).await.execute(safe).await.unwrap();
            }
            StoreConfig::Postgresql(config) => {
                postgres(config).await.execute(safe).await.unwrap();
            }
        }
    }
}

fn socket(config: &ServerConfig) -> &Path {
    match &config.address {
        ServerAddress::Socket(path) => path,
        ServerAddress::Tcp { .. } => panic!("the suite uses sockets"),
    }
}

async fn mysql(config: &ServerConfig) -> MySqlConnection {
    let options = sqlx::mysql::MySqlConnectOptions::new()
        .socket(socket(config))
        .username(&config.user)
        .password(PASSWORD)
        .database(&config.database);
    MySqlConnection::connect_with(&options).await.unwrap()
}

async fn postgres(config: &ServerConfig) -> PgConnection {
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
        .socket(socket(config))
        .port(5432)
        .username(&config.user)
        .password(PASSWORD)
        .database(&config.database);
    PgConnection::connect_with(&options).await.unwrap()
}

/// A private database server.
pub struct Server {
    kind: Kind,
    folder: PathBuf,
    keeper: Child,
    /// The port, when it listens by TCP, where it refuses whoever does not use TLS.
    tls_port: Option<u16>,
}

impl Server {
    /// The one that all cases share.
    pub fn shared(kind: Kind) -> &'static Self {
        static MARIADB: OnceLock<Server> = OnceLock::new();
        static POSTGRESQL: OnceLock<Server> = OnceLock::new();
        match kind {
            Kind::Mariadb => MARIADB.get_or_init(|| Self::start(kind)),
            Kind::Postgresql => POSTGRESQL.get_or_init(|| Self::start(kind)),
            Kind::Sqlite => panic!("SQLite has no server"),
        }
    }

    /// Makes a data folder and starts a server on it.
    pub fn start(kind: Kind) -> Self {
        Self::start_on(kind, None)
    }

    /// One that also listens by TCP, with TLS only. The authority of its certificate is `ca.pem` in its folder.
    pub fn start_with_tls(kind: Kind) -> Self {
        Self::start_on(kind, Some(free_port()))
    }

    fn start_on(kind: Kind, tls_port: Option<u16>) -> Self {
        // Short, because a socket's path must fit into 108 bytes. In memory where that is possible: the suite makes
        // a hundred databases, and what it kills are processes, which lose nothing that they wrote.
        let temporary = tempfile::Builder::new().prefix("mxs-").tempdir_in("/dev/shm");
        let folder =
            temporary.or_else(|_| tempfile::Builder::new().prefix("mxs-").tempdir_in("/tmp")).unwrap().keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        if tls_port.is_some() {
            write_certificates(&folder);
        }
        if is_root() {
            run(Command::new("chown").arg("-R").arg(NOBODY).arg(&folder));
        }
        match kind {
            Kind::Mariadb => {
                let init = program(&["mariadb-install-db"], "mariadb-server-core");
                run(as_nobody(&init)
                    .args([
                        "--no-defaults",
                        "--auth-root-authentication-method=normal",
                        "--skip-test-db",
                        LOG_SIZE,
                    ])
                    .arg(format!("--datadir={}", folder.join("data").display())));
            }
            Kind::Postgresql => {
                let password = folder.join("password");
                fs::write(&password, PASSWORD).unwrap();
                run(as_nobody(&postgres_program("initdb"))
                    .args(["--no-sync", "--username=maxim", "--auth=scram-sha-256", "--encoding=UTF8"])
                    .arg("--locale=C")
                    .arg(format!("--pwfile={}", password.display()))
                    .arg(folder.join("data")));
                if tls_port.is_some() {
                    let rules = "local all all scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
                    fs::write(folder.join("data/pg_hba.conf"), rules).unwrap();
                }
            }
            Kind::Sqlite => panic!("SQLite has no server"),
        }
        let keeper = keep(kind, &folder, tls_port);
        let server = Self { kind, folder, keeper, tls_port };
        if kind == Kind::Mariadb {
            server.wait_for_socket();
            let sql = format!(
                "CREATE USER maxim@localhost IDENTIFIED BY '{PASSWORD}'; \
                 GRANT ALL ON *.* TO maxim@localhost WITH GRANT OPTION; \
                 CREATE USER maxim@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'; \
                 GRANT ALL ON *.* TO maxim@'127.0.0.1';"
            );
            let mut client = Command::new(program(&["mariadb", "mysql"], "mariadb-client-core"))
                .args(["--no-defaults", "--user=root"])
                .arg(format!("--socket={}", server.folder.join("socket").display()))
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            std::io::Write::write_all(&mut client.stdin.take().unwrap(), sql.as_bytes()).unwrap();
            assert!(client.wait().unwrap().success());
        }
        server.wait_until_ready();
        server
    }

    /// How `database` on this server is reached.
    pub fn config(&self, database: &str) -> StoreConfig {
        let (socket, config): (_, fn(ServerConfig) -> StoreConfig) = match self.kind {
            Kind::Mariadb => (self.folder.join("socket"), StoreConfig::Mariadb),
            _ => (self.folder.clone(), StoreConfig::Postgresql),
        };
        config(ServerConfig {
            address: ServerAddress::Socket(socket),
            database: database.into(),
            user: "maxim".into(),
            password: Some(Secret::new(PASSWORD)),
            ca_file: None,
            connections: 4,
        })
    }

    /// How `database` is reached by TCP, with the certificate of this authority.
    pub fn tcp_config(&self, database: &str, ca_file: Option<PathBuf>) -> StoreConfig {
        let port = self.tls_port.expect("a server that was started with TLS");
        match self.config(database) {
            StoreConfig::Mariadb(config) => StoreConfig::Mariadb(over_tcp(config, port, ca_file)),
            StoreConfig::Postgresql(config) => StoreConfig::Postgresql(over_tcp(config, port, ca_file)),
            StoreConfig::Sqlite { .. } => panic!("SQLite has no server"),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Kills the server with SIGKILL, as a crash would, and starts it again on the same data.
    pub fn crash_and_restart(&mut self) {
        let pid = fs::read_to_string(self.folder.join("pid")).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        fs::write(self.folder.join("keep"), "").unwrap();
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
        // PostgreSQL does not start while a process of the one before still has its shared memory.
        let data = self.folder.join("data");
        self.wait_for("the end of its processes", || !works_in(&data));
        for leftover in ["keep", "socket", "pid"] {
            let _ = fs::remove_file(self.folder.join(leftover));
        }
        self.keeper = keep(self.kind, &self.folder, self.tls_port);
        self.wait_until_ready();
    }

    pub async fn create_database(&self, name: &str) {
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        match self.config(if self.kind == Kind::Mariadb { "mysql" } else { "postgres" }) {
            StoreConfig::Mariadb(config) => {
                mysql(&config).await.execute(create).await.unwrap();
            }
            StoreConfig::Postgresql(config) => {
                postgres(&config).await.execute(create).await.unwrap();
            }
            StoreConfig::Sqlite { .. } => panic!("SQLite has no server"),
        }
    }

    fn wait_for_socket(&self) {
        let name = match (self.kind, self.tls_port) {
            (Kind::Mariadb, _) => "socket".to_owned(),
            (_, port) => format!(".s.PGSQL.{}", port.unwrap_or(5432)),
        };
        self.wait_for("its socket", || {
            std::os::unix::net::UnixStream::connect(self.folder.join(&name)).is_ok()
        });
    }

    fn wait_until_ready(&self) {
        self.wait_for_socket();
        if self.kind == Kind::Postgresql {
            let ready = postgres_program("pg_isready");
            let folder = self.folder.clone();
            let port = self.tls_port.unwrap_or(5432).to_string();
            self.wait_for("readiness", || {
                Command::new(&ready)
                    .args(["-q", "-p", &port, "-h"])
                    .arg(&folder)
                    .status()
                    .is_ok_and(|status| status.success())
            });
        }
    }

    fn wait_for(&self, what: &str, mut ready: impl FnMut() -> bool) {
        let end = Instant::now() + START_DEADLINE;
        while !ready() {
            if Instant::now() > end {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                panic!("{} did not reach {what} within {START_DEADLINE:?}:\n{log}", self.kind.name());
            }
            // Polling a condition, with the deadline above.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether a process has this folder as its own.
fn works_in(folder: &Path) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok()).any(|cwd| cwd == folder)
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn over_tcp(config: ServerConfig, port: u16, ca_file: Option<PathBuf>) -> ServerConfig {
    ServerConfig { address: ServerAddress::Tcp { host: "127.0.0.1".into(), port }, ca_file, ..config }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `ca.pem`, and `cert.pem` with `key.pem` for 127.0.0.1 that it signed; `other-ca.pem` signed nothing.
pub fn write_certificates(folder: &Path) {
    let authority = |name: &str| {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        (certificate, rcgen::Issuer::new(parameters, key))
    };
    let (ca, issuer) = authority("the suite's authority");
    let (other, _) = authority("another authority");
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    for (name, text) in [
        ("ca.pem", ca.pem()),
        ("other-ca.pem", other.pem()),
        ("cert.pem", certificate.pem()),
        ("key.pem", key.serialize_pem()),
    ] {
        fs::write(folder.join(name), text).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// Starts the shell that starts the server.
fn keep(kind: Kind, folder: &Path, tls_port: Option<u16>) -> Child {
    let file = |name: &str| folder.join(name).display().to_string();
    let data = folder.join("data");
    let (server, mut arguments) = match kind {
        Kind::Mariadb => (
            program(&["mariadbd"], "mariadb-server-core"),
            vec![
                "--no-defaults".into(),
                format!("--datadir={}", data.display()),
                format!("--socket={}", folder.join("socket").display()),
                format!("--pid-file={}", folder.join("mariadb.pid").display()),
                "--skip-log-bin".into(),
                "--max-connections=400".into(),
                "--innodb-buffer-pool-size=64M".into(),
                LOG_SIZE.into(),
            ],
        ),
        _ => (
            postgres_program("postgres"),
            vec![
                "-D".into(),
                data.display().to_string(),
                "-k".into(),
                folder.display().to_string(),
                "-c".into(),
                "max_connections=200".into(),
                // In its own folder, which goes with the test: one that is killed leaves what it had in `/dev/shm`.
                "-c".into(),
                "dynamic_shared_memory_type=mmap".into(),
            ],
        ),
    };
    arguments.extend(match (kind, tls_port) {
        (Kind::Mariadb, None) => vec!["--skip-networking".into()],
        (Kind::Mariadb, Some(port)) => vec![
            "--bind-address=127.0.0.1".into(),
            format!("--port={port}"),
            "--skip-name-resolve".into(),
            "--require-secure-transport=ON".into(),
            format!("--ssl-ca={}", file("ca.pem")),
            format!("--ssl-cert={}", file("cert.pem")),
            format!("--ssl-key={}", file("key.pem")),
        ],
        (_, None) => vec!["-c".into(), "listen_addresses=".into()],
        (_, Some(port)) => [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "ssl=on".into(),
            format!("ssl_cert_file={}", file("cert.pem")),
            format!("ssl_key_file={}", file("key.pem")),
        ]
        .into_iter()
        .flat_map(|setting| ["-c".to_owned(), setting])
        .collect(),
    });
    let setpriv =
        if is_root() { format!("setpriv --reuid={NOBODY} --clear-groups --") } else { String::new() };
    // $1 is the folder, the rest the server's command line.
    let script = format!(
        "folder=$1; shift; {setpriv} \"$@\" </dev/null >>\"$folder/log\" 2>&1 & pid=$!; \
         echo $pid >\"$folder/pid.new\"; mv \"$folder/pid.new\" \"$folder/pid\"; \
         read -r _; kill -9 $pid 2>/dev/null; wait $pid; [ -e \"$folder/keep\" ] || rm -rf \"$folder\""
    );
    fs::File::create(folder.join("log")).unwrap();
    Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg("keeper")
        .arg(folder)
        .arg(server)
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A command run as nobody where this is root: the servers refuse to be root.
fn as_nobody(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={NOBODY}")).args(["--clear-groups", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The first of these programs that is on this machine.
fn program(names: &[&str], package: &str) -> PathBuf {
    for folder in ["/usr/sbin", "/usr/bin", "/usr/local/bin"] {
        for name in names {
            let path = Path::new(folder).join(name);
            if path.exists() {
                return path;
            }
        }
    }
    panic!(
        "{} is missing on this machine: install the Debian package {package} (tests/setup does), or leave its store \
         out by MAXIM_TEST_STORES",
        names[0]
    );
}

fn postgres_program(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin").join(name)).collect())
        .unwrap_or_default();
    versions.retain(|path| path.exists());
    versions.sort();
    versions.pop().unwrap_or_else(|| program(&[name], "postgresql"))
}
