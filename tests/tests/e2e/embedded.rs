//! The embedded profile: what a stranger with a checkout gets from `./maxim.ctl install`.

use crate::product::{Person, first_account, free_ports, sign_in};
use maxim_tests::chat::Tls;
use maxim_tests::hosts::wait_for;
use serde_json::Value;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// An embedded deployment in a folder of its own, on ports of its own.
pub struct Deployment {
    /// Who installed it.
    pub person: Person,
    /// Where it lives.
    pub root: PathBuf,
    /// What the install said.
    pub result: Value,
}

impl Deployment {
    /// Installs one.
    pub fn install() -> Self {
        Self::install_with(Person::new(), &[])
    }

    /// Installs one for somebody, with more arguments.
    pub fn install_with(person: Person, more: &[&str]) -> Self {
        let root = person.home().join("maxim");
        let started = Instant::now();
        let ports = free_ports();
        let mut arguments = vec!["install", "--yes", "--output", "json", "--profile", "embedded"];
        for port in &ports {
            arguments.extend(["--set", port]);
        }
        let root_text = root.display().to_string();
        arguments.extend(["--root", &root_text]);
        arguments.extend(more);
        let outcome = person.run(&arguments).ok();
        println!("embedded: delivered after {:?}", started.elapsed());
        assert!(outcome.events().iter().any(|event| event["event"] == "canary"), "proven by a message");
        let result = outcome.result();
        Self { person, root, result }
    }

    /// Arguments with `--root`.
    pub fn with_root<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        [arguments, &["--root", self.root.to_str().unwrap()]].concat()
    }

    /// The first endpoint of a kind.
    pub fn endpoint(&self, name: &str) -> String {
        self.result["endpoints"][name][0].as_str().unwrap_or_else(|| panic!("{}", self.result)).to_owned()
    }

    fn health(&self) -> Vec<(String, String)> {
        let result = self.person.run(&self.with_root(&["status", "--output", "json"])).result();
        result["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                (one["component"].as_str().unwrap().to_owned(), one["health"].as_str().unwrap().to_owned())
            })
            .collect()
    }

    /// Waits until nothing of it runs: the supervisor's socket is gone a moment before its process.
    #[track_caller]
    fn ends(&self) {
        let mut left = Vec::new();
        let gone = wait_for("the processes to end", Duration::from_secs(10), || {
            left = self.processes();
            left.is_empty().then_some(())
        });
        assert!(gone.is_ok(), "{left:#?}");
    }

    /// Processes whose command line names the deployment.
    fn processes(&self) -> Vec<String> {
        let root = self.root.display().to_string();
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let command = fs::read(entry.path().join("cmdline")).ok()?;
                let shown = String::from_utf8_lossy(&command).replace('\0', " ");
                shown.contains(&root).then(|| format!("{} {shown}", entry.file_name().to_string_lossy()))
            })
            .collect()
    }
}

#[test]
fn a_stranger_installs_chats_and_leaves_nothing() {
    let deployment = Deployment::install();
    let person = &deployment.person;
    assert_eq!(deployment.result["domain"], "localhost");
    let (admin, password) = first_account(&deployment.result);
    assert_eq!(admin, "admin@localhost");

    let add = deployment.with_root(&["user", "add", "bob@localhost", "--password-stdin"]);
    person.run_with(&add, "correct horse battery\n").ok();
    let root = ["--root", deployment.root.to_str().unwrap()];
    let mut first = sign_in(person, &deployment.endpoint("xmpp"), Tls::Start, &admin, &password, &root);
    let at = deployment.endpoint("xmpp_tls");
    let mut second = sign_in(person, &at, Tls::Direct, "bob@localhost", "correct horse battery", &root);
    first.ping().unwrap();
    second.say(&admin, "hello from bob").unwrap();
    let from = first.hear("hello from bob", Duration::from_secs(10)).unwrap();
    assert_eq!(from, second.address);
    first.say("bob@localhost", "hello from admin").unwrap();
    second.hear("hello from admin", Duration::from_secs(10)).unwrap();

    // Offline: it waits for him.
    second.leave().unwrap();
    first.say("bob@localhost", "for later").unwrap();
    first.ping().unwrap();
    let mut again = sign_in(person, &at, Tls::Direct, "bob@localhost", "correct horse battery", &root);
    again.hear("for later", Duration::from_secs(10)).unwrap();

    assert!(deployment.health().iter().all(|(_, health)| health == "well"), "{:?}", deployment.health());
    // No password in any command line, nor anywhere readable by others.
    assert!(deployment.processes().iter().all(|line| !line.contains(&password)));

    person.run(&deployment.with_root(&["uninstall", "--purge", "--yes"])).ok();
    deployment.ends();
    assert!(!deployment.root.exists(), "the folder is gone");
    assert!(TcpStream::connect(deployment.endpoint("xmpp")).is_err(), "nobody listens any more");
}

#[test]
fn a_second_install_changes_nothing_and_stop_start_restart_work() {
    let deployment = Deployment::install();
    let person = &deployment.person;
    let again = person.run(&deployment.with_root(&["install", "--yes", "--output", "json"])).ok();
    assert_eq!(again.changes(), 0, "{}", again.stdout);

    person.run(&deployment.with_root(&["stop"])).ok();
    assert!(TcpStream::connect(deployment.endpoint("xmpp")).is_err());
    assert!(deployment.health().iter().all(|(_, health)| health != "well"), "{:?}", deployment.health());
    person.run(&deployment.with_root(&["start"])).ok();
    TcpStream::connect(deployment.endpoint("xmpp")).unwrap();
    person.run(&deployment.with_root(&["restart"])).ok();
    assert!(deployment.health().iter().all(|(_, health)| health == "well"), "{:?}", deployment.health());

    // Without --purge the data stays, and another install finds it.
    let (admin, password) = first_account(&deployment.result);
    person.run(&deployment.with_root(&["uninstall", "--yes"])).ok();
    deployment.ends();
    let back = person.run(&deployment.with_root(&["install", "--yes", "--output", "json"])).ok();
    let at = back.result()["endpoints"]["xmpp"][0].as_str().unwrap().to_owned();
    let root = ["--root", deployment.root.to_str().unwrap()];
    sign_in(person, &at, Tls::Start, &admin, &password, &root).ping().unwrap();
    person.run(&deployment.with_root(&["uninstall", "--purge", "--yes"])).ok();
}

#[test]
fn a_service_that_dies_is_started_again_and_keeps_what_it_acknowledged() {
    let deployment = Deployment::install();
    let person = &deployment.person;
    let root = ["--root", deployment.root.to_str().unwrap()];
    let (admin, password) = first_account(&deployment.result);
    person
        .run_with(
            &deployment.with_root(&["user", "add", "bob@localhost", "--password-stdin"]),
            "correct horse\n",
        )
        .ok();
    let at = deployment.endpoint("xmpp");
    let mut first = sign_in(person, &at, Tls::Start, &admin, &password, &root);
    first.say("bob@localhost", "before the crash").unwrap();
    first.ping().unwrap();
    let server = deployment
        .processes()
        .into_iter()
        .find(|line| line.contains("maxim-im"))
        .expect("the IM core's process names its configuration");
    let pid = server.split(' ').next().unwrap().to_owned();
    assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    wait_for("the supervisor to start it again", Duration::from_secs(30), || {
        deployment.health().iter().all(|(_, health)| health == "well").then_some(())
    })
    .unwrap();
    let mut second = sign_in(person, &at, Tls::Start, "bob@localhost", "correct horse", &root);
    second.hear("before the crash", Duration::from_secs(10)).unwrap();
    person.run(&deployment.with_root(&["uninstall", "--purge", "--yes"])).ok();
}
