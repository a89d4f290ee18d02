//! Clients that other people wrote, against the embedded profile: slixmpp, profanity in a terminal, and the web
//! chat in a real browser.

use crate::embedded::Deployment;
use crate::people::{PATIENCE, terminal_and_browser};
use crate::product::{checkout, first_account, sign_in};
use maxim_tests::chat::{Chat, Tls};
use maxim_tests::hosts::cache;
use std::process::{Command, Stdio};

/// A second account, and the first one signed in.
fn admin_and_bob(deployment: &Deployment) -> (Chat, String) {
    let person = &deployment.person;
    let (admin, password) = first_account(&deployment.result);
    let add = deployment.with_root(&["user", "add", "bob@localhost", "--password-stdin"]);
    person.run_with(&add, "correct-horse\n").ok();
    let root = ["--root", deployment.root.to_str().unwrap()];
    let chat = sign_in(person, &deployment.endpoint("xmpp"), Tls::Start, &admin, &password, &root);
    (chat, admin)
}

#[test]
fn slixmpp_chats() {
    let deployment = Deployment::install();
    let (mut admin, address) = admin_and_bob(&deployment);
    let authority = deployment.person.home().join("ca.pem");
    let at = deployment.endpoint("xmpp");
    let (host, port) = at.rsplit_once(':').unwrap();
    let mut client = Command::new(cache().join("venv/bin/python"))
        .arg(checkout().join("tests/tests/e2e/slixmpp_client.py"))
        .args([host, port, "bob@localhost", &address])
        .arg(&authority)
        .env("XMPP_PASSWORD", "correct-horse")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let from = match admin.hear("hello from slixmpp", PATIENCE) {
        Ok(from) => from,
        Err(error) => {
            client.kill().ok();
            let output = client.wait_with_output().unwrap();
            panic!("{error:#}: {}", String::from_utf8_lossy(&output.stderr));
        }
    };
    assert!(from.starts_with("bob@localhost/"));
    admin.say(&from, "hello slixmpp").unwrap();
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    // What it measured: features it found, archived messages it read back, the ping's answer.
    for line in ["features: ok", "archive: 2", "ping: ok", "carbons: ok"] {
        assert!(said.contains(line), "{line} is missing in {said}");
    }
    deployment.person.run(&deployment.with_root(&["uninstall", "--purge", "--yes"])).ok();
}

#[test]
fn profanity_and_a_browser_chat_with_each_other() {
    let deployment = Deployment::install();
    let (admin, address) = admin_and_bob(&deployment);
    admin.leave().unwrap();
    let (_, password) = first_account(&deployment.result);
    terminal_and_browser(
        deployment.person.home(),
        (&deployment.endpoint("xmpp"), "bob@localhost", "correct-horse"),
        (&deployment.endpoint("web"), &address, &password),
        "embedded-chat",
    );
    deployment.person.run(&deployment.with_root(&["uninstall", "--purge", "--yes"])).ok();
}
