//! A real browser for scenarios: Chromium without a window, driven by WebDriver.
//!
//! Needs `tests/setup browser`. Steps: start `chromedriver` on a port of its own choosing, open a session with an
//! empty profile, and send it commands as JSON over HTTP on loopback. Dropping the browser ends both processes and
//! removes the profile.
//! It accepts certificates of unknown authorities: that they are right is what [`crate::chat`] checks.

use crate::hosts::wait_for;
use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// One answer of the driver; opening a page waits for it to load.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);
/// A page that is being drawn is ready for a click or a key within this time.
const DRAWN: Duration = Duration::from_secs(20);
/// The key under which WebDriver names an element (W3C WebDriver, section 12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A running browser.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    profile: TempDir,
}

impl Browser {
    /// Starts it with an empty profile.
    pub fn start() -> Result<Self> {
        let profile = tempfile::Builder::new().prefix("maxim-browser-").tempdir()?;
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start chromedriver (tests/setup browser installs it)")?;
        let mut lines = BufReader::new(driver.stdout.take().context("its output")?).lines();
        // "ChromeDriver was started successfully on port 12345."
        let port = lines
            .by_ref()
            .map_while(|line| line.ok())
            .find_map(|line| line.strip_suffix('.')?.split_once("successfully on port ")?.1.parse().ok())
            .context("chromedriver ended before it named its port")?;
        // Somebody must read on, or it would stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser = Self { driver, port, session: String::new(), profile };
        let folder = browser.profile.path().join("chromium");
        let opened = browser.call(
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "acceptInsecureCerts": true,
                "goog:chromeOptions": {"args": [
                    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                    "--disable-background-networking", "--disable-component-update", "--disable-sync",
                    "--disable-dev-shm-usage", "--window-size=1200,900", "--lang=en",
                    format!("--user-data-dir={}", folder.display()),
                ]},
            }}}),
        )?;
        opened["sessionId"].as_str().context("a session")?.clone_into(&mut browser.session);
        Ok(browser)
    }

    /// Opens a page and waits for it to load.
    pub fn open(&self, url: &str) -> Result<()> {
        self.command("POST", "/url", &json!({"url": url})).map(drop)
    }

    /// Waits until an element is displayed.
    pub fn wait_for(&self, selector: &str, limit: Duration) -> Result<()> {
        let seen = wait_for(selector, limit, || {
            let element = self.element(selector).ok()?;
            let shown = self.command("GET", &format!("/element/{element}/displayed"), &Value::Null).ok()?;
            (shown == Value::Bool(true)).then_some(())
        });
        seen.with_context(|| format!("the page shows: {}", self.text().unwrap_or_default()))
    }

    /// Waits until a text is on the page.
    pub fn wait_for_text(&self, text: &str, limit: Duration) -> Result<()> {
        let seen = wait_for(text, limit, || self.text().ok()?.contains(text).then_some(()));
        seen.with_context(|| format!("the page shows: {}", self.text().unwrap_or_default()))
    }

    /// Types into an element; `\n` is the Enter key.
    pub fn type_into(&self, selector: &str, text: &str) -> Result<()> {
        let keys = text.replace('\n', "\u{E007}");
        self.act(selector, "value", &json!({"text": keys}))
    }

    /// Clicks an element.
    pub fn click(&self, selector: &str) -> Result<()> {
        self.act(selector, "click", &json!({}))
    }

    /// All text that the page shows.
    pub fn text(&self) -> Result<String> {
        let text = self.evaluate("return document.body ? document.body.innerText : ''")?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// What a script on the page returns.
    pub fn evaluate(&self, script: &str) -> Result<Value> {
        self.command("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Makes the page as wide as a screen of `width` pixels, a phone's included (a window cannot be so narrow).
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 640});
        let command = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
        self.command("POST", "/goog/cdp/execute", &command).map(drop)
    }

    /// A picture of the page, as PNG.
    pub fn screenshot(&self, path: &Path) -> Result<()> {
        let encoded = self.command("GET", "/screenshot", &Value::Null)?;
        let png = base64::engine::general_purpose::STANDARD.decode(encoded.as_str().context("a picture")?)?;
        fs::write(path, png).with_context(|| format!("write {}", path.display()))
    }

    /// Finds an element and does something with it; again while the page draws it anew, hides it or covers it.
    fn act(&self, selector: &str, what: &str, body: &Value) -> Result<()> {
        let end = Instant::now() + DRAWN;
        loop {
            let element = self.element(selector)?;
            let Err(error) = self.command("POST", &format!("/element/{element}/{what}"), body) else {
                return Ok(());
            };
            let said = error.to_string();
            let passes = ["stale element", "intercepted", "not interactable"];
            if !passes.iter().any(|word| said.contains(word)) || Instant::now() >= end {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn element(&self, selector: &str) -> Result<String> {
        let found = self.command("POST", "/element", &json!({"using": "css selector", "value": selector}))?;
        Ok(found[ELEMENT].as_str().with_context(|| format!("no element in {found}"))?.to_owned())
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        self.call(method, &format!("/session/{}{path}", self.session), body)
    }

    /// One request over HTTP/1.1; the driver answers with `{"value": …}`.
    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).context("connect to chromedriver")?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = BufReader::new(stream);
        let (mut line, mut length, mut status) = (String::new(), None, String::new());
        loop {
            line.clear();
            ensure!(answer.read_line(&mut line)? > 0, "chromedriver closed the connection ({method} {path})");
            if status.is_empty() {
                line.trim().clone_into(&mut status);
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = Some(value.trim().parse::<usize>()?);
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut content = vec![0; length.context("an answer without a length")?];
        answer.read_exact(&mut content)?;
        let mut parsed: Value = serde_json::from_slice(&content)?;
        let value = parsed["value"].take();
        if !status.contains(" 200 ") {
            bail!("{method} {path}: {}: {}", value["error"], value["message"]);
        }
        Ok(value)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ending the session ends Chromium; the driver has no other child.
        self.command("DELETE", "", &Value::Null).ok();
        let deadline = Instant::now() + Duration::from_secs(5);
        let folder = self.profile.path().display().to_string();
        while Instant::now() < deadline && !running_with(&folder).is_empty() {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.driver.kill().ok();
        self.driver.wait().ok();
        for process in running_with(&folder) {
            Command::new("kill").args(["-KILL", &process]).status().ok();
        }
    }
}

/// The processes that name the profile folder: Chromium is not gone yet.
fn running_with(folder: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(folder)
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .collect()
}
