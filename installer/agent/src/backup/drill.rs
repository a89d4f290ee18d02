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
use std::path::Path;
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
    let config = config(request, &folder, &certificate, &key, &ports)?;
    let config = file("drill.yaml", &config, 0o600)?;
    let began = Instant::now();
    let mut core = child::start_bound(
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

/// The configuration. JSON is YAML, and whatever the request's texts hold stays within them: listeners and files are
/// those that are named here.
fn config(
    request: &DrillRequest,
    folder: &Path,
    certificate: &str,
    key: &str,
    ports: &Path,
) -> Result<String> {
    let config = serde_json::json!({
        "domain": request.domain,
        "node": "drill",
        "listen": {
            "xmpp": ["127.0.0.1:0"],
            "metrics": "127.0.0.1:0",
            "admin_socket": folder.join("admin.sock"),
        },
        "tls": {"certificate": certificate, "key": key},
        "store": request.store,
        "ports_file": ports,
    });
    serde_json::to_string_pretty(&config)
        .map(|text| text + "\n")
        .map_err(|error| Failure::Invalid(format!("the configuration of the drill: {error}")))
}

/// Addresses of XMPP and metrics in the ports file.
fn listening(text: &str) -> Option<(String, String)> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    Some((value["xmpp"][0].as_str()?.to_owned(), value["metrics"].as_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::config;
    use maxim_model::Secret;
    use maxim_model::backup::wire::{DrillRequest, DrillServer, DrillStore};
    use std::path::Path;

    #[test]
    fn nothing_but_the_store_can_be_said_about_an_im_core_of_a_drill() {
        let more = "db\nlisten: {xmpp: [\"0.0.0.0:5222\"]}\nports_file: /etc/shadow";
        let request = DrillRequest {
            program: "/opt/maxim/bin/im/maxim-im".into(),
            folder: "/var/lib/maxim/drill".into(),
            store: DrillStore::Mariadb(DrillServer {
                host: Some("10.0.0.1".into()),
                port: 3306,
                database: more.into(),
                user: "maxim".into(),
                password_file: "/etc/maxim/im/database-password".into(),
                connections: 4,
                ..DrillServer::default()
            }),
            domain: more.into(),
            certificate: String::new(),
            key: Secret::default(),
            owner: String::new(),
            receiver: String::new(),
            password: Secret::default(),
            body: String::new(),
            deadline_seconds: 1,
        };
        let folder = Path::new("/var/lib/maxim/drill");
        let text = config(&request, folder, "/c", "/k", &folder.join("ports.json")).unwrap();
        let read: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(read["domain"], more);
        assert_eq!(read["listen"]["xmpp"], serde_json::json!(["127.0.0.1:0"]));
        assert_eq!(read["ports_file"], "/var/lib/maxim/drill/ports.json");
        assert_eq!(read["store"]["mariadb"]["database"], more);
        assert!(read["store"]["mariadb"].get("socket").is_none(), "either socket or host");
        // And what a request brings beside a store is no request.
        for store in [
            r#"{"sqlite":{"path":"/a","key":"/etc/shadow"}}"#,
            r#"{"sqlite":{"path":"/a"},"mariadb":{}}"#,
            r#""  sqlite: {path: /a}""#,
        ] {
            assert!(serde_json::from_str::<DrillStore>(store).is_err(), "{store}");
        }
    }

    #[test]
    fn ports_are_read_when_both_are_there() {
        let both = "{\"xmpp\":[\"127.0.0.1:4\"],\"metrics\":\"127.0.0.1:5\"}";
        assert_eq!(super::listening(both), Some(("127.0.0.1:4".into(), "127.0.0.1:5".into())));
        assert_eq!(super::listening("{\"xmpp\":[]}"), None);
        assert_eq!(super::listening(""), None);
    }
}
