//! Stores on hosts of their own, asked over the wire from the host of the IM core: without TLS nobody is served, not
//! even with the right password, and with it the same client is let in.
//!
//! The clients are those of the stores' authors, of this machine, standing on the application host's network.

use crate::product::Person;
use maxim_tests::hosts::{Host, Testbed};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

/// What the control host keeps of its only cluster.
struct Kept {
    authority: PathBuf,
    secrets: Value,
    scratch: PathBuf,
}

impl Kept {
    fn by(person: &Person) -> Self {
        let clusters = person.home().join(".local/share/maxim/clusters");
        let only = fs::read_dir(clusters).unwrap().next().expect("a cluster is kept").unwrap().path();
        let authority = person.home().join("authority.pem");
        person.run(&["ca", "export", "-o", authority.to_str().unwrap()]).ok();
        let secrets = serde_json::from_str(&fs::read_to_string(only.join("secrets.json")).unwrap()).unwrap();
        Self { authority, secrets, scratch: person.home().to_owned() }
    }

    fn secret(&self, name: &str) -> &str {
        self.secrets[name].as_str().unwrap_or_else(|| panic!("no secret {name}"))
    }

    /// A file for a client's eyes only.
    fn private(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scratch.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

/// Runs a client on a host's network; its input and a variable of its environment.
fn client(from: &Host, program: &str, arguments: &[&str], variable: (&str, &str)) -> Output {
    let mut command = from.from_its_network(program);
    command.args(arguments).env(variable.0, variable.1).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn is_refused(output: &Output, word: &str) {
    let text = said(output);
    assert!(!output.status.success() && text.contains(word), "not refused with '{word}': {text}");
}

/// MariaDB and Redis of a cluster, each on its host.
pub fn plain_text_is_refused(person: &Person, testbed: &Testbed, (app, database, cache): (&str, &str, &str)) {
    let kept = Kept::by(person);
    let app = testbed.host(app);
    mariadb(&kept, app, &testbed.host(database).address());
    redis(&kept, app, &testbed.host(cache).address());
}

fn mariadb(kept: &Kept, app: &Host, address: &str) {
    let file = kept.private(
        "client.cnf",
        &format!("[client]\nuser=maxim\npassword={}\n", kept.secret("database_im_password")),
    );
    let defaults = format!("--defaults-file={}", file.display());
    let authority = format!("--ssl-ca={}", kept.authority.display());
    let ask = |more: &[&str]| {
        let arguments =
            [&[defaults.as_str(), "-h", address, "-N", "-B"], more, &["-e", "SELECT 40 + 2", "maxim"]];
        client(app, "mariadb", &arguments.concat(), ("LC_ALL", "C.UTF-8"))
    };
    is_refused(&ask(&["--skip-ssl"]), "insecure transport");
    let good = ask(&["--ssl", "--ssl-verify-server-cert", &authority]);
    assert_eq!(said(&good), "42\n");
}

fn redis(kept: &Kept, app: &Host, address: &str) {
    let password = ("REDISCLI_AUTH", kept.secret("redis_password"));
    let authority = kept.authority.to_str().unwrap();
    let ask = |more: &[&str]| {
        client(app, "redis-cli", &[&["-h", address, "-e"], more, &["PING"]].concat(), password)
    };
    let plain = ask(&[]);
    assert!(!plain.status.success() && !said(&plain).contains("PONG"), "{}", said(&plain));
    let good = ask(&["--tls", "--cacert", authority]);
    assert_eq!(said(&good), "PONG\n");
}

/// PostgreSQL of a cluster, on another host than an IM core.
pub fn postgresql_refuses_plain_text(person: &Person, app: &Host, address: &str) {
    let kept = Kept::by(person);
    let authority: &Path = &kept.authority;
    let ask = |mode: &str| {
        let place = format!(
            "host={address} user=maxim dbname=maxim sslmode={mode} sslrootcert={} connect_timeout=10",
            authority.display()
        );
        let file = kept.private("pgpass", &format!("*:*:*:*:{}\n", kept.secret("database_im_password")));
        let arguments = [place.as_str(), "-w", "-At", "-c", "SELECT 40 + 2"];
        client(app, "psql", &arguments, ("PGPASSFILE", file.to_str().unwrap()))
    };
    is_refused(&ask("disable"), "no encryption");
    assert_eq!(said(&ask("verify-full")), "42\n");
}
