//! Clients that other people wrote, against the embedded profile: slixmpp, profanity in a terminal, and the web
//! chat in a real browser.

use crate::embedded::Deployment;
use crate::product::{checkout, first_account, sign_in};
use maxim_tests::browser::Browser;
use maxim_tests::chat::{Chat, Tls};
use maxim_tests::hosts::{cache, wait_for};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(1);

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

/// A terminal that a test types into and reads.
struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    fn run(deployment: &Deployment, program: &str) -> Self {
        let home = deployment.person.home();
        let terminal = Self { socket: home.join("tmux") };
        let status = terminal
            .tmux()
            .args(["-f", "/dev/null", "new-session", "-d", "-x", "160", "-y", "50", program])
            .env("HOME", home)
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm-256color")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            .status()
            .unwrap();
        assert!(status.success());
        terminal
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket);
        command
    }

    fn enter(&self, text: &str) {
        assert!(self.tmux().args(["send-keys", "-l", text]).status().unwrap().success());
        assert!(self.tmux().args(["send-keys", "Enter"]).status().unwrap().success());
    }

    fn screen(&self) -> String {
        let output = self.tmux().args(["capture-pane", "-p", "-S", "-200"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        let seen = wait_for(text, PATIENCE, || self.screen().contains(text).then_some(()));
        assert!(seen.is_ok(), "the terminal does not show '{text}':\n{}", self.screen());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux().args(["kill-server"]).status().ok();
    }
}

/// Profanity, signed in as bob.
fn profanity(deployment: &Deployment) -> Terminal {
    let terminal = Terminal::run(deployment, "profanity");
    terminal.shows("Profanity");
    let at = deployment.endpoint("xmpp");
    let (host, port) = at.rsplit_once(':').unwrap();
    terminal.enter(&format!("/connect bob@localhost server {host} port {port} tls trust"));
    terminal.shows("Enter password");
    terminal.enter("correct-horse");
    terminal.shows("logged in successfully");
    terminal
}

#[test]
fn profanity_and_a_browser_chat_with_each_other() {
    let deployment = Deployment::install();
    let (admin, address) = admin_and_bob(&deployment);
    admin.leave().unwrap();
    let (_, password) = first_account(&deployment.result);

    let browser = Browser::start().unwrap();
    browser.open(&deployment.endpoint("web")).unwrap();
    browser.wait_for("input[name=jid]", PATIENCE).unwrap();
    browser.type_into("input[name=jid]", &address).unwrap();
    browser.type_into("input[name=password]", &password).unwrap();
    browser.click("form#converse-login [type=submit]").unwrap();
    browser.wait_for("converse-roster, #converse-roster", PATIENCE).unwrap();

    let terminal = profanity(&deployment);
    terminal.enter(&format!("/msg {address} good morning from a terminal"));
    // The roster shows who wrote; a click opens the conversation.
    browser.wait_for("a.open-chat.unread-msgs[data-jid='bob@localhost']", PATIENCE).unwrap();
    browser.click("a.open-chat[data-jid='bob@localhost']").unwrap();
    browser.wait_for_text("good morning from a terminal", PATIENCE).unwrap();
    browser.wait_for("textarea.chat-textarea", PATIENCE).unwrap();
    browser.type_into("textarea.chat-textarea", "good morning from a browser\n").unwrap();
    terminal.shows("good morning from a browser");
    if let Some(folder) = std::env::var_os("MAXIM_TEST_LOGS") {
        browser.screenshot(&PathBuf::from(folder).join("chat.png")).unwrap();
    }
    drop(terminal);
    drop(browser);
    deployment.person.run(&deployment.with_root(&["uninstall", "--purge", "--yes"])).ok();
}
