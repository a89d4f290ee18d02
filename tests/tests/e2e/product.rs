//! The product as a person has it: the release programs, a home of one's own, commands and their outcomes.
//!
//! [`Person`] is somebody at a control host with an empty home folder; [`Outcome`] is what a command said.
//! [`cluster_file`] writes a topology for test hosts. Programs are built by the launcher when `tests/run` has
//! not done it (`MAXIM_TEST_PROGRAMS` names a folder with others); the bundle likewise (`MAXIM_TEST_BUNDLE`).

use maxim_tests::chat::{Chat, Server, Tls};
use maxim_tests::hosts::{Testbed, cache};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The folder with `maxim-ctl`, `maxim-im` and `maxim-console`, built now when they are not.
pub fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os("MAXIM_TEST_PROGRAMS") {
            return folder.into();
        }
        let built = Command::new(checkout().join("maxim.ctl")).arg("--version").output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let path = checkout().canonicalize().unwrap();
        let hash = ring::digest::digest(&ring::digest::SHA256, path.as_os_str().as_encoded_bytes());
        cache().join("checkouts").join(&hex::encode(hash.as_ref())[..16]).join("bin")
    })
}

/// A bundle of this checkout, and the public key beside it.
pub fn bundle() -> &'static Path {
    static BUNDLE: OnceLock<PathBuf> = OnceLock::new();
    BUNDLE.get_or_init(|| {
        if let Some(bundle) = std::env::var_os("MAXIM_TEST_BUNDLE") {
            return bundle.into();
        }
        let path = cache().join("tests/maxim.bundle");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let built = Command::new(checkout().join("maxim.ctl"))
            .args(["bundle", "build", "-o"])
            .arg(&path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        path
    })
}

/// The public key of a bundle, as `bundle build` left it.
pub fn key_of(bundle: &Path) -> PathBuf {
    let mut path = bundle.as_os_str().to_owned();
    path.push(".pub");
    path.into()
}

/// Somebody at a control host.
pub struct Person {
    home: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// The arguments, for messages.
    pub command: String,
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Asserts the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "{}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.stdout, self.stderr
        );
        self
    }

    /// Asserts success.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Asserts that it says all of `words`, on either stream.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(
                self.stdout.contains(word) || self.stderr.contains(word),
                "{} does not say '{word}'\n--- stdout\n{}\n--- stderr\n{}",
                self.command,
                self.stdout,
                self.stderr
            );
        }
        self
    }

    /// The events of a command with `--output json`, the result last.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in: {line}")))
            .collect()
    }

    /// The result line of a command with `--output json`.
    #[track_caller]
    pub fn result(&self) -> Value {
        let last = self
            .events()
            .pop()
            .unwrap_or_else(|| panic!("{} printed nothing: {}", self.command, self.stderr));
        assert_eq!(last["event"], "result", "{last}");
        last
    }

    /// How many things were changed.
    #[track_caller]
    pub fn changes(&self) -> u64 {
        self.result()["changes"].as_u64().unwrap_or_else(|| panic!("no changes in {}", self.result()))
    }
}

impl Person {
    /// With an empty home.
    pub fn new() -> Self {
        let home = tempfile::Builder::new().prefix("maxim-e2e-").tempdir().unwrap();
        Self { home }
    }

    /// A place of one's own for files.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// `maxim.ctl` with these arguments, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs().join("maxim-ctl"));
        command.args(arguments).env_clear().current_dir(self.home());
        command.env("HOME", self.home()).env("PATH", std::env::var_os("PATH").unwrap());
        command.env("LANG", "C.UTF-8").env("MAXIM_BIN_DIR", programs()).env("MAXIM_CHECKOUT", checkout());
        let web = programs().parent().unwrap().join("web");
        if web.join("index.html").exists() {
            command.env("MAXIM_WEB_ROOT", web);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `maxim.ctl` to its end.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_with(arguments, "")
    }

    /// Runs `maxim.ctl` to its end with `input` on its standard input.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Outcome {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
        let output = child.wait_with_output().unwrap();
        Outcome {
            command: format!("maxim.ctl {}", arguments.join(" ")),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs `maxim.ctl` to its end at a terminal where somebody types this; what it said on either stream is in `stdout`.
    pub fn types(&self, arguments: &[&str], typed: &str) -> Outcome {
        let inner = self.command(arguments);
        let words = std::iter::once(inner.get_program()).chain(inner.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(self.home()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Outcome {
            command: format!("maxim.ctl {} (typed {typed:?})", arguments.join(" ")),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts `maxim.ctl`.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    /// Writes a file in the home.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.home().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

/// Sends a signal to a process that nobody has waited for yet.
#[track_caller]
pub fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

/// Address and password of the first account, from the file that the result names.
#[track_caller]
pub fn first_account(result: &Value) -> (String, String) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = Path::new(result["account"]["path"].as_str().unwrap());
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(path).unwrap();
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap().to_owned()
    };
    (field("address"), field("password"))
}

/// URL, user and first password of the console, from the same file.
#[track_caller]
pub fn console_account(result: &Value) -> (String, String, String) {
    let text = fs::read_to_string(result["account"]["path"].as_str().unwrap()).unwrap();
    let field = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        found.unwrap_or_else(|| panic!("the file of the first account has no '{name}'")).to_owned()
    };
    let urls = field("console");
    let url = urls.split(' ').next().unwrap().to_owned();
    assert!(result["endpoints"]["console"].as_array().unwrap().contains(&Value::from(url.as_str())));
    (url, field("console user"), field("console password"))
}

impl Drop for Person {
    /// An embedded deployment of a test that failed half way must not run on.
    fn drop(&mut self) {
        let home = self.home().display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if name.bytes().all(|byte| byte.is_ascii_digit())
                && String::from_utf8_lossy(&command).contains(&home)
            {
                Command::new("kill").args(["-KILL", &name]).status().ok();
            }
        }
    }
}

/// Ports that nobody had a moment ago, for an embedded deployment.
pub fn free_ports() -> Vec<String> {
    let listeners: Vec<_> = (0..5).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    ["xmpp", "xmpp_tls", "https", "console", "metrics"]
        .iter()
        .zip(&listeners)
        .map(|(name, listener)| format!("ports.{name}={}", listener.local_addr().unwrap().port()))
        .collect()
}

/// A topology for the hosts of a testbed: `roles` in their order, as `im+console`. `extra` is added as it is.
pub fn cluster_file(person: &Person, testbed: &Testbed, roles: &[&str], extra: &str) -> String {
    let known = person.home().join(".ssh/known_hosts");
    fs::create_dir_all(known.parent().unwrap()).unwrap();
    fs::copy(testbed.known_hosts(), known).unwrap();
    let mut text = format!(
        "api_version: maxim/v1\nname: acme\ndomain: im.acme.example\n\
         capacity: {{users: 200, messages_per_second: 100}}\n\
         ssh: {{user: root, key: {}, known_hosts: strict}}\nhosts:\n",
        testbed.key().display()
    );
    for (host, roles) in testbed.hosts().iter().zip(roles) {
        let roles = roles.replace('+', ", ");
        writeln!(text, "  - {{name: {}, address: {}, roles: [{roles}]}}", host.name(), host.address())
            .unwrap();
    }
    if !extra.contains("database:") {
        let engine =
            if roles.iter().any(|roles| roles.contains("postgresql")) { "postgresql" } else { "mariadb" };
        writeln!(text, "database: {{engine: {engine}}}").unwrap();
    }
    person.file("cluster.yaml", &(text + extra))
}

/// Lets a slow disk pass where a database is installed or checked. The disk is shared by all tests that run at once, and
/// with the machine: how fast it is says nothing about the product. Where the disk is fast, this changes nothing.
pub const FORCED: [&str; 2] = ["--force", "disk.sync"];

/// The arguments of an install of a topology from the bundle of this checkout.
pub fn install_arguments(file: &str) -> Vec<String> {
    let (bundle, key) = (bundle().display().to_string(), key_of(bundle()).display().to_string());
    let mut arguments = vec!["install", "-f", file, "--bundle", &bundle, "--trust-key", &key];
    arguments.extend(FORCED);
    arguments.extend(["--yes", "--output", "json"]);
    arguments.into_iter().map(str::to_owned).collect()
}

/// `--bundle` and `--trust-key` of the bundle of this checkout, after other arguments.
pub fn delivered<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    static PATHS: OnceLock<(String, String)> = OnceLock::new();
    let (path, key) = PATHS.get_or_init(|| {
        (bundle().to_str().unwrap().to_owned(), key_of(bundle()).to_str().unwrap().to_owned())
    });
    [arguments, &["--bundle", path, "--trust-key", key]].concat()
}

/// Writes the certificate authority of a cluster, as `ca export` gives it, into the home of a person.
#[track_caller]
pub fn authority(person: &Person, cluster: &[&str]) -> PathBuf {
    let authority = person.home().join("ca.pem");
    let mut arguments = vec!["ca", "export", "-o", authority.to_str().unwrap()];
    arguments.extend(cluster);
    person.run(&arguments).ok();
    authority
}

/// Signs in with the certificate authority that `ca export` gives.
#[track_caller]
pub fn sign_in(person: &Person, at: &str, tls: Tls, address: &str, password: &str, cluster: &[&str]) -> Chat {
    let authority = authority(person, cluster);
    let (user, domain) = address.split_once('@').unwrap();
    Chat::sign_in(&Server { at, tls, domain, authority: &authority }, user, password).unwrap()
}
