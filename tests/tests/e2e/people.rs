//! People's own clients: profanity in a terminal, and the web chat and the console in a real browser.
//!
//! Each is driven as a person drives it: by what it shows and by keys. They know nothing of the product but an
//! address, a name and a password.

use maxim_tests::browser::Browser;
use maxim_tests::hosts::wait_for;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// For anything that a person waits for.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A terminal that a test types into and reads.
pub struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Runs a program with a home of its own.
    pub fn run(home: &Path, program: &str) -> Self {
        fs::create_dir_all(home).unwrap();
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

    /// Types a line.
    pub fn enter(&self, text: &str) {
        assert!(self.tmux().args(["send-keys", "-l", text]).status().unwrap().success());
        assert!(self.tmux().args(["send-keys", "Enter"]).status().unwrap().success());
    }

    fn screen(&self) -> String {
        let output = self.tmux().args(["capture-pane", "-p", "-S", "-200"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until it shows this.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        let seen = wait_for(text, PATIENCE, || self.screen().contains(text).then_some(()));
        assert!(seen.is_ok(), "the terminal does not show '{text}':\n{}", self.screen());
    }

    /// Profanity with a home of its own, signed in at `at` (`host:port`).
    pub fn profanity(home: &Path, at: &str, address: &str, password: &str) -> Self {
        let terminal = Self::run(home, "profanity");
        terminal.shows("Profanity");
        let (host, port) = at.rsplit_once(':').unwrap();
        terminal.enter(&format!("/connect {address} server {host} port {port} tls trust"));
        terminal.shows("Enter password");
        terminal.enter(password);
        terminal.shows("logged in successfully");
        terminal
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux().args(["kill-server"]).status().ok();
    }
}

/// The web chat in a browser, signed in.
pub struct WebChat {
    browser: Browser,
}

impl WebChat {
    /// Opens the page and signs in.
    pub fn sign_in(url: &str, address: &str, password: &str) -> Self {
        let browser = Browser::start().unwrap();
        browser.open(url).unwrap();
        browser.wait_for("input[name=jid]", PATIENCE).unwrap();
        browser.type_into("input[name=jid]", address).unwrap();
        browser.type_into("input[name=password]", password).unwrap();
        browser.click("form#converse-login [type=submit]").unwrap();
        browser.wait_for("converse-roster, #converse-roster", PATIENCE).unwrap();
        Self { browser }
    }

    /// Waits for a message of somebody and reads it in the conversation.
    pub fn reads(&self, from: &str, text: &str) {
        // The roster shows who wrote; a click opens the conversation.
        self.browser.wait_for(&format!("a.open-chat.unread-msgs[data-jid='{from}']"), PATIENCE).unwrap();
        self.browser.click(&format!("a.open-chat[data-jid='{from}']")).unwrap();
        self.browser.wait_for_text(text, PATIENCE).unwrap();
    }

    /// Answers in the conversation that is open.
    pub fn answers(&self, text: &str) {
        self.browser.wait_for("textarea.chat-textarea", PATIENCE).unwrap();
        self.browser.type_into("textarea.chat-textarea", &format!("{text}\n")).unwrap();
        self.browser.wait_for_text(text, PATIENCE).unwrap();
    }

    /// Keeps a picture with the logs of the run.
    pub fn picture(&self, name: &str) {
        picture(&self.browser, name);
    }
}

/// Keeps a picture with the logs of the run, when there is a place for them.
pub fn picture(browser: &Browser, name: &str) {
    if let Some(folder) = std::env::var_os("MAXIM_TEST_LOGS") {
        browser.screenshot(&PathBuf::from(folder).join(format!("{name}.png"))).unwrap();
    }
}

/// What somebody in a terminal at one place and somebody in a browser at another say to each other.
pub fn terminal_and_browser(
    home: &Path,
    terminal: (&str, &str, &str),
    browser: (&str, &str, &str),
    name: &str,
) {
    let (at, member, password) = terminal;
    let (url, address, secret) = browser;
    let web = WebChat::sign_in(url, address, secret);
    let terminal = Terminal::profanity(&home.join(name), at, member, password);
    terminal.enter(&format!("/msg {address} good morning from a terminal"));
    web.reads(member, "good morning from a terminal");
    web.answers("good morning from a browser");
    terminal.shows("good morning from a browser");
    web.picture(name);
}

/// Signs in to the console as its first administrator, looks at every page at the width of a desk and of a phone, and
/// sees that `words` (hosts, versions) are there.
pub fn look_at_console(url: &str, user: &str, password: &str, words: &[&str], name: &str) {
    let browser = Browser::start().unwrap();
    browser.resize(1440, 900).unwrap();
    browser.open(url).unwrap();
    browser.wait_for("input[name=account]", PATIENCE).unwrap();
    browser.type_into("input[name=account]", user).unwrap();
    browser.type_into("input[name=password]", &format!("not-{password}\n")).unwrap();
    browser.wait_for("[role=alert]", PATIENCE).unwrap();
    browser.evaluate("document.querySelector('input[name=account]').value = ''").unwrap();
    browser.type_into("input[name=account]", user).unwrap();
    browser.type_into("input[name=password]", &format!("{password}\n")).unwrap();
    browser.wait_for("nav.sections", PATIENCE).unwrap();
    let pages = browser
        .evaluate("return [...document.querySelectorAll('nav.sections a')].map(a => a.getAttribute('href'))")
        .unwrap();
    let pages: Vec<_> = pages.as_array().unwrap().iter().map(|page| page.as_str().unwrap()).collect();
    assert!(pages.contains(&"/"), "{pages:?}");
    let mut all = String::new();
    let base = url.trim_end_matches('/');
    for page in pages {
        for (width, height) in [(1440, 900), (360, 780)] {
            browser.resize(width, height).unwrap();
            browser.open(&format!("{base}{page}")).unwrap();
            browser.wait_for("main h1", PATIENCE).unwrap();
            let wide = browser.evaluate("return document.documentElement.scrollWidth").unwrap();
            assert!(
                wide.as_u64().unwrap() <= u64::from(width),
                "{page} is {wide} wide on a screen of {width}"
            );
            let place = page.trim_matches('/').replace('/', "-");
            picture(
                &browser,
                &format!("{name}-{}-{width}", if place.is_empty() { "overview" } else { &place }),
            );
        }
        all.push_str(&browser.text().unwrap());
    }
    for word in words {
        assert!(all.contains(word), "no page of the console shows '{word}':\n{all}");
    }
}
