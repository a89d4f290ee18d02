//! The launcher of a checkout as a stranger meets it: a fresh clone, an ordinary user, `./maxim.ctl install`, a chat in
//! clients that others wrote; and what it says where something is missing.
//!
//! Compiling takes minutes and is the same for every clone, so the clone is given the programs of this checkout, byte
//! for byte, in the place where the launcher keeps those it has built; that it then builds nothing is seen by taking
//! the compiler away. With `MAXIM_TEST_ALL` a clone is really built from nothing, and its programs are compared with
//! those of this checkout.

use crate::people::terminal_and_browser;
use crate::product::{Outcome, Person, checkout, first_account, free_ports, programs, signal};
use maxim_tests::hosts::cache;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::cell::Cell;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An ordinary user of this machine: `nobody`, who may write in no place but his own.
const USER: &str = "65534";
/// What builds: a machine without these has no toolchain.
const TOOLCHAIN: [&str; 4] = ["cargo", "rustc", "rustup", "npm"];

/// Somebody with a clone and a home, who is not root.
struct Stranger {
    person: Person,
    clone: PathBuf,
    /// Where the launcher of the clone keeps what it has built.
    place: PathBuf,
    toolboxes: Cell<usize>,
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A fresh clone of this checkout as it is now, committed or not.
fn cloned(to: &Path) {
    run(Command::new("git").args(["clone", "-q", "--no-hardlinks"]).arg(checkout()).arg(to));
    let git = |arguments: &[&str]| run(Command::new("git").arg("-C").arg(checkout()).args(arguments));
    for path in
        git(&["ls-files", "-z", "--modified", "--others", "--exclude-standard"]).split_terminator('\0')
    {
        let (from, to) = (checkout().join(path), to.join(path));
        if from.is_file() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        } else {
            fs::remove_file(to).ok();
        }
    }
}

/// Where a launcher at this place keeps what it has built, below a cache.
fn place_of(clone: &Path, cache: &Path) -> PathBuf {
    let path = clone.canonicalize().unwrap();
    let hash = ring::digest::digest(&ring::digest::SHA256, path.as_os_str().as_encoded_bytes());
    cache.join("checkouts").join(&hex::encode(hash.as_ref())[..16])
}

impl Stranger {
    fn new() -> Self {
        let person = Person::new();
        let clone = person.home().join("maxim-checkout");
        cloned(&clone);
        let place = place_of(&clone, &person.home().join(".cache/maxim"));
        fs::create_dir_all(&place).unwrap();
        let built = programs().parent().unwrap();
        run(Command::new("cp").arg("-R").arg(programs()).arg(place.join("bin")));
        if built.join("web/index.html").exists() {
            run(Command::new("cp").arg("-R").arg(built.join("web")).arg(&place));
            fs::write(place.join("web-tried"), "").unwrap();
        }
        // As the launcher dates it: what is older was built.
        fs::write(place.join("stamp"), "").unwrap();
        run(Command::new("chown").args(["-R", &format!("{USER}:{USER}")]).arg(person.home()));
        Self { person, clone, place, toolboxes: Cell::new(0) }
    }

    /// A folder with all programs of this machine but those that are `lacking`.
    fn tools(&self, lacking: &[&str]) -> PathBuf {
        self.toolboxes.set(self.toolboxes.get() + 1);
        let folder = self.person.home().join(format!("tools-{}", self.toolboxes.get()));
        fs::create_dir(&folder).unwrap();
        for place in ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"] {
            for entry in fs::read_dir(place).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if !lacking.iter().any(|one| name == *one) {
                    symlink(entry.path(), folder.join(name)).ok();
                }
            }
        }
        folder
    }

    /// `./maxim.ctl` in the clone, as this user and with these tools only.
    fn command(&self, tools: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/setpriv");
        command
            .args(["--reuid", USER, "--regid", USER, "--clear-groups", "--", "./maxim.ctl"])
            .args(arguments);
        command.env_clear().current_dir(&self.clone).env("PATH", tools).env("HOME", self.person.home());
        command.env("LANG", "C.UTF-8");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, tools: &Path, arguments: &[&str], input: &str) -> Outcome {
        let mut child = self.command(tools, arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
        let output = child.wait_with_output().unwrap();
        Outcome {
            command: format!("./maxim.ctl {}", arguments.join(" ")),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Begins an install, sends it a signal when it has begun to change things, and gives exit code and result. The
    /// process that was started must have become the program by then.
    fn interrupted(&self, tools: &Path, arguments: &[&str]) -> (i32, Value) {
        let mut child = self.command(tools, arguments).spawn().unwrap();
        let link = format!("/proc/{}/exe", child.id());
        let mut last = Value::Null;
        let mut sent = false;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            last = serde_json::from_str(&line.unwrap()).unwrap();
            if !sent && last["event"] == "task_started" {
                let program = fs::read_link(&link);
                // At once: the install goes on, and must not be over by then.
                signal(&child, Signal::SIGINT);
                sent = true;
                let program = program.unwrap();
                assert_eq!(program, self.place.join("bin/maxim-ctl"), "the launcher became the program");
            }
        }
        assert!(sent, "the install ended before it changed anything: {last}");
        (child.wait().unwrap().code().unwrap_or(-1), last)
    }
}

/// What stands behind a word at the beginning of a line.
fn printed<'a>(text: &'a str, word: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    line.unwrap_or_else(|| panic!("no line begins with '{word}':\n{text}")).trim()
}

#[test]
fn a_stranger_clones_installs_and_chats() {
    let stranger = Stranger::new();
    let home = stranger.person.home();
    // Nothing is stale, so nothing is built: there is no compiler to build with, and not a word about it.
    let tools = stranger.tools(&TOOLCHAIN);
    let version = stranger.run(&tools, &["--version"], "").ok();
    assert!(version.stdout.contains(env!("CARGO_PKG_VERSION")) && version.stderr.is_empty(), "{version:?}");

    let root = home.join("chat").display().to_string();
    let ports = free_ports();
    let mut install = vec!["install", "--yes", "--root", &root];
    for port in &ports {
        install.extend(["--set", port]);
    }
    // Ctrl-C in the middle; the next run completes it.
    let (code, result) = stranger.interrupted(&tools, &[&install[..], &["--output", "json"]].concat());
    assert_eq!((code, &result["code"]), (130, &Value::from(130)), "{result}");
    let installed = stranger.run(&tools, &install, "").ok();

    // From here on only what was printed is known.
    let url = printed(&installed.stdout, "Web chat").split(',').next().unwrap();
    let xmpp = printed(&installed.stdout, "XMPP").split(' ').next().unwrap();
    let account = installed.stdout.split_whitespace().find(|word| word.ends_with("/initial-account"));
    let account = account.unwrap_or_else(|| panic!("no file of the account: {}", installed.stdout));
    let (admin, password) = first_account(&json!({"account": {"path": account}}));
    let add = ["user", "add", "bob@localhost", "--password-stdin", "--root", &root];
    stranger.run(&tools, &add, "correct-horse\n").ok();
    terminal_and_browser(
        home,
        (xmpp, "bob@localhost", "correct-horse"),
        (url, &admin, &password),
        "fresh-clone-chat",
    );

    let again = stranger.run(&tools, &["install", "--yes", "--output", "json", "--root", &root], "").ok();
    assert_eq!(again.changes(), 0, "{}", again.stdout);
    stranger.run(&tools, &["uninstall", "--purge", "--yes", "--root", &root], "").ok();
    assert!(!Path::new(&root).exists(), "the folder is gone");
}

#[test]
fn a_launcher_says_what_is_missing() {
    let stranger = Stranger::new();
    // No npm and nothing of the client in the cache: everything else is installed.
    fs::remove_dir_all(stranger.place.join("web")).ok();
    fs::remove_file(stranger.place.join("web-tried")).ok();
    let tools = stranger.tools(&TOOLCHAIN);
    let root = stranger.person.home().join("chat").display().to_string();
    let ports = free_ports();
    let mut install = vec!["install", "--yes", "--output", "json", "--root", &root];
    for port in &ports {
        install.extend(["--set", port]);
    }
    let installed = stranger.run(&tools, &install, "").ok().says(&["no npm", "the web chat is absent"]);
    assert!(installed.events().iter().any(|event| event["event"] == "canary"), "{}", installed.stdout);
    stranger.run(&tools, &["uninstall", "--purge", "--yes", "--root", &root], "").ok();

    // A source that was edited is built; where that cannot be, what is missing is named, and what was built before
    // stays as it was.
    fs::write(stranger.clone.join("playbooks/new"), "").unwrap();
    let before = fs::read(stranger.place.join("bin/maxim-ctl")).unwrap();
    let needed = fs::read_to_string(checkout().join("Cargo.toml")).unwrap();
    let needed =
        needed.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    let rust = format!("Rust >= {needed}");
    let with = |more: &[&'static str]| [&TOOLCHAIN[..], more].concat();
    for (lacking, words) in [
        // Debian, but not root.
        (with(&[]), vec![rust.as_str(), "as root: apt-get install"]),
        (with(&["cc"]), vec!["needs root to install", "gcc"]),
        // Another distribution.
        (with(&["apt-get"]), vec![rust.as_str(), "your distribution's packages"]),
        (with(&["apt-get", "cc"]), vec!["no apt", "by its own means", "gcc"]),
    ] {
        let tools = stranger.tools(&lacking);
        stranger.run(&tools, &["--version"], "").exits(1).says(&words);
    }
    assert!(fs::read(stranger.place.join("bin/maxim-ctl")).unwrap() == before, "the last good build stays");
}

/// Lets the launcher of a fresh clone compile everything from nothing (some minutes), and sees that the programs are
/// those of this checkout, byte for byte.
pub fn a_clone_built_from_nothing_is_the_same_bytes() {
    let person = Person::new();
    let clone = person.home().join("maxim-checkout");
    cloned(&clone);
    // The same tools, and an empty folder of compiled things in the place of the shared one: what compilers write
    // down of their place is the same then, and nothing compiled is there.
    let shared = cache().join("target-portable");
    fs::create_dir_all(&shared).unwrap();
    let empty = tempfile::Builder::new().prefix("maxim-e2e-target-").tempdir_in(cache()).unwrap();
    let place = place_of(&clone, &cache());
    let built = Command::new("unshare")
        .args([
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            "mount --bind \"$0\" \"$1\" && exec \"$2\" --version",
        ])
        .arg(empty.path())
        .arg(&shared)
        .arg(clone.join("maxim.ctl"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    let programs_of = |folder: &Path| {
        ["maxim-ctl", "maxim-im", "maxim-console"].map(|name| fs::read(folder.join(name)).ok())
    };
    let (theirs, ours) = (programs_of(&place.join("bin")), programs_of(programs()));
    fs::remove_dir_all(&place).ok();
    assert!(built.status.success(), "{said}");
    assert!(said.contains("Building Maxim from") && said.contains("Built in"), "{said}");
    for ((name, theirs), ours) in ["maxim-ctl", "maxim-im", "maxim-console"].iter().zip(theirs).zip(ours) {
        assert!(theirs.is_some() && theirs == ours, "{name} differs from one build to the next");
    }
}
