//! A restored copy is started and read: an IM core of its own, on free ports of the loopback, with its live state in
//! memory, on a copy of the database that nobody else uses. It is ended whatever comes out.

use super::child;
use super::sqlite;
use super::stream::now_unix;
use crate::canary;
use crate::deadline::Deadline;
use crate::error::{Failure, Result};
use crate::files::{Ownership, absolute, read_text, write_atomic};
use maxim_model::backup::wire::{BackupReply, CanaryMail, DrillRequest};
use maxim_model::wire::Reply;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// Starts, reads the message, ends.
pub fn drill(request: &DrillRequest) -> Result<Reply> {
    let folder = absolute(&request.folder)?;
    super::private(&folder)?;
    let mut identity = None;
    if !request.owner.is_empty() {
        Ownership::resolve(&request.owner, &request.owner, "0700")?.set(&folder)?;
        let found = std::fs::metadata(&folder).map_err(Failure::file("read", &folder))?;
        identity = Some((found.uid(), found.gid()));
    }
    let deadline = Deadline::after(request.deadline_seconds);
    let database = folder.join("im.sqlite");
    if database.is_file() {
        sqlite::rejuvenate(&database, now_unix() * 1000)?;
    }
    let file = |name: &str, content: &str, mode: u32| -> Result<String> {
        let path = folder.join(name);
        let ownership = if request.owner.is_empty() {
            Ownership::mode(mode)
        } else {
            Ownership::resolve(&request.owner, &request.owner, &format!("{mode:04o}"))?
        };
        write_atomic(&path, content.as_bytes(), ownership)?;
        Ok(path.display().to_string())
    };
    let certificate = file("drill.pem", &request.certificate, 0o644)?;
    let key = file("drill.key", request.key.expose(), 0o600)?;
    let ports = folder.join("ports.json");
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let config = format!(
        "domain: {}\nnode: drill\nlisten:\n  xmpp: [\"127.0.0.1:0\"]\n  metrics: \"127.0.0.1:0\"\n  admin_socket: {}\n\
         tls: {{certificate: {}, key: {}}}\nstore:\n{}\nports_file: {}\n",
        quote(&request.domain),
        quote(&folder.join("admin.sock").display().to_string()),
        quote(&certificate),
        quote(&key),
        request.store,
        quote(&ports.display().to_string()),
    );
    let config = file("drill.yaml", &config, 0o600)?;
    let began = Instant::now();
    let mut core = child::start_as(
        "the IM core of the drill",
        &request.program,
        &["--config".into(), config],
        &[],
        identity,
    )?;
    let mut output = core.stdout()?;
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    let ready = deadline.poll("the IM core of the drill", || {
        if core.has_ended() {
            return Ok(Err(()));
        }
        let found = read_text(&ports);
        let Some((xmpp, metrics)) = listening(&found) else {
            return Err("it has not opened its ports".into());
        };
        crate::wait::http(&format!("http://{metrics}/readyz"), Duration::from_secs(2))?;
        Ok(Ok(xmpp))
    })?;
    let Ok(xmpp) = ready else {
        core.check(Duration::from_secs(5))?;
        return Err(Failure::Service {
            service: "drill".into(),
            what: "the IM core ended by itself on the restored copy".into(),
            log: String::new(),
        });
    };
    let ready_ms = began.elapsed().as_millis() as u64;
    let mail = CanaryMail {
        domain: request.domain.clone(),
        address: xmpp,
        account: request.receiver.clone(),
        password: request.password.clone(),
        to: String::new(),
        body: request.body.clone(),
        ca_certificate: String::new(),
        pinned_certificate: request.certificate.clone(),
        deadline_seconds: deadline.left().as_secs().max(1),
    };
    let read = canary::mail(&mail);
    core.kill();
    read?;
    Ok(Reply::Backup(BackupReply::Drilled { ready_ms, read_ms: began.elapsed().as_millis() as u64 }))
}

/// Addresses of XMPP and metrics in the ports file.
fn listening(text: &str) -> Option<(String, String)> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    Some((value["xmpp"][0].as_str()?.to_owned(), value["metrics"].as_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn ports_are_read_when_both_are_there() {
        let both = "{\"xmpp\":[\"127.0.0.1:4\"],\"metrics\":\"127.0.0.1:5\"}";
        assert_eq!(super::listening(both), Some(("127.0.0.1:4".into(), "127.0.0.1:5".into())));
        assert_eq!(super::listening("{\"xmpp\":[]}"), None);
        assert_eq!(super::listening(""), None);
    }
}
