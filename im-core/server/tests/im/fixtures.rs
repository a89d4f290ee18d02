//! A private MariaDB and a private Redis for a cluster of two nodes, on unix sockets in a temporary folder.
//!
//! A small shell keeps both: when its standard input closes, however the test ended, it kills them and removes
//! the folder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NOBODY: &str = "65534";
const PASSWORD: &str = "a secret of the test";

/// Both servers.
pub struct Services {
    pub folder: PathBuf,
    keeper: Child,
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; run tests/setup"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a program as nobody: the servers refuse to run as root.
fn as_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", program]);
    command
}

impl Services {
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("mxi-").tempdir_in("/dev/shm").unwrap().keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        run(Command::new("chown").arg(NOBODY).arg(&folder));
        let path = folder.display();
        run(as_nobody("mariadb-install-db").args([
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--innodb-log-file-size=16M",
            &format!("--datadir={path}/data"),
        ]));
        let script = format!(
            "setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups mariadbd --no-defaults --datadir={path}/data \
             --socket={path}/db.sock --skip-networking --innodb-log-file-size=16M --innodb-buffer-pool-size=64M \
             >{path}/db.log 2>&1 & db=$!\n\
             setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups redis-server --port 0 --unixsocket {path}/redis.sock \
             --unixsocketperm 777 --save '' --dir {path} >{path}/redis.log 2>&1 & redis=$!\n\
             read -r line\nkill -9 $db $redis\nwait\nrm -rf {path}\n"
        );
        let keeper = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let services = Self { folder, keeper };
        services.wait_for("db.sock");
        services.wait_for("redis.sock");
        let sql = format!(
            "CREATE DATABASE maxim; CREATE USER maxim@localhost IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON maxim.* TO maxim@localhost;"
        );
        let deadline = Instant::now() + Duration::from_secs(30);
        while !services.client(&sql).stderr(Stdio::null()).status().unwrap().success() {
            assert!(Instant::now() < deadline, "MariaDB does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        fs::write(services.folder.join("password"), PASSWORD).unwrap();
        services
    }

    /// The client of MariaDB with a statement of its administrator.
    fn client(&self, sql: &str) -> Command {
        let mut command = Command::new("mariadb");
        let socket = format!("--socket={}/db.sock", self.folder.display());
        command.args(["--no-defaults", "--user=root", "--skip-column-names", &socket, "-e", sql]);
        command
    }

    /// What MariaDB answers its administrator.
    pub fn sql(&self, sql: &str) -> String {
        let output = self.client(sql).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn wait_for(&self, socket: &str) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while !self.folder.join(socket).exists() {
            assert!(Instant::now() < deadline, "{socket} does not appear in {}", self.folder.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The part of a configuration that names both, in place of the SQLite store.
    pub fn config(&self) -> String {
        let path = self.folder.display();
        format!(
            "store: {{mariadb: {{socket: {path}/db.sock, database: maxim, user: maxim, password_file: {path}/password}}}}\n\
             live: {{redis: {{socket: {path}/redis.sock}}}}"
        )
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
