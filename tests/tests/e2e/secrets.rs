//! Secrets stay where they belong: a planted one, and each that the product makes, is looked for in all that a
//! run says and leaves.

use crate::cluster::{ALL, Cluster};
use maxim_tests::hosts::{HostSpec, SUDO_PASSWORD, USER_SUDO_PASSWORD};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Every string in a JSON value that is long enough to be a secret.
fn strings(value: &Value, at: &str, found: &mut BTreeMap<String, String>) {
    match value {
        Value::String(text) if text.len() >= 12 => {
            found.insert(at.to_owned(), text.clone());
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| strings(field, &format!("{at}.{name}"), found));
        }
        Value::Array(items) => items.iter().for_each(|item| strings(item, at, found)),
        _ => {}
    }
}

/// The names of the secrets that stand in `text`.
fn leaked<'a>(secrets: &'a BTreeMap<String, String>, text: &str) -> Vec<&'a str> {
    secrets
        .iter()
        .filter(|(_, secret)| text.contains(secret.as_str()))
        .map(|(name, _)| name.as_str())
        .collect()
}

fn files_below(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if let Ok(content) = fs::read(&path) {
            found.push((path.display().to_string(), String::from_utf8_lossy(&content).into_owned()));
        }
    }
    found
}

#[test]
fn no_secret_is_said_or_left_where_it_does_not_belong() {
    let cluster = Cluster::bare(&[(HostSpec::new("solo"), ALL)], "");
    let text = fs::read_to_string(&cluster.file).unwrap();
    let user = format!("user: {USER_SUDO_PASSWORD}, sudo: true, sudo_password_file: sudo-password");
    fs::write(&cluster.file, text.replace("user: root", &user)).unwrap();
    let planted = cluster.person.file("sudo-password", &format!("{SUDO_PASSWORD}\n"));
    assert!(Command::new("chmod").args(["0600", &planted]).status().unwrap().success());

    // Command lines and environments on this machine see the host's processes too: watched while it works.
    let done = AtomicBool::new(false);
    let (outcome, watched) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = String::new();
            while !done.load(Ordering::Relaxed) {
                for entry in fs::read_dir("/proc").unwrap().flatten() {
                    for file in ["cmdline", "environ"] {
                        let content = fs::read(entry.path().join(file)).unwrap_or_default();
                        let shown = String::from_utf8_lossy(&content);
                        if shown.contains("maxim") && !seen.contains(shown.as_ref()) {
                            seen.push_str(&shown);
                        }
                    }
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            seen
        });
        let mut arguments = crate::product::install_arguments(&cluster.file);
        arguments.push("-vv".to_owned());
        let outcome = cluster.person.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        done.store(true, Ordering::Relaxed);
        (outcome.ok(), watcher.join().unwrap())
    });
    assert!(watched.contains("maxim-ctl"), "the watcher saw the work");

    let state = cluster.person.home().join(".local/share/maxim/clusters/acme");
    let made: Value = serde_json::from_str(&fs::read_to_string(state.join("secrets.json")).unwrap()).unwrap();
    let mut secrets = BTreeMap::from([("the sudo password".to_owned(), SUDO_PASSWORD.to_owned())]);
    strings(&made, "secrets", &mut secrets);
    assert!(secrets.len() >= 4, "{:?}", secrets.keys());
    let member = "a passphrase nobody guesses";
    let add = ["user", "add", "ada@im.acme.example", "--password-stdin", "-vv", "-f", &cluster.file];
    let added = cluster.person.run_with(&add, &format!("{member}\n")).ok();
    secrets.insert("the member's password".to_owned(), member.to_owned());

    let mut places: Vec<(String, String)> = vec![
        ("the install's output".to_owned(), outcome.stdout + &outcome.stderr),
        ("the output of user add".to_owned(), added.stdout + &added.stderr),
        ("command lines and environments".to_owned(), watched),
    ];
    // Which of them drifted on the host must not show what is in them.
    let solo = cluster.testbed.host("solo");
    solo.sh("for f in $(grep -rlE 'password|requirepass' /etc/maxim); do echo '# drift' >>$f; done").unwrap();
    for arguments in [
        &["config", "diff", "-vv"][..],
        &["plan", "-vv", "-o", "plan.json"],
        &["install", "--dry-run", "-vv"],
        &["logs", "-n", "5000"],
        &["status", "-vv"],
        &["doctor"],
    ] {
        let mut arguments = arguments.to_vec();
        let (path, key) = (crate::product::bundle(), crate::product::key_of(crate::product::bundle()));
        arguments.extend(["--bundle", path.to_str().unwrap(), "--trust-key", key.to_str().unwrap()]);
        arguments.extend(["-f", &cluster.file]);
        let outcome = cluster.person.run(&arguments);
        places.push((outcome.command, outcome.stdout + &outcome.stderr));
    }
    places.push(("the journal".to_owned(), solo.sh("journalctl --no-pager -o verbose").unwrap()));
    places.push((
        "logs".to_owned(),
        solo.sh("cat /var/log/maxim/* /var/log/*.log 2>/dev/null || true").unwrap(),
    ));
    let readable = "find / -xdev -type f -perm -004 \\( -path '/etc/maxim/*' -o -path '/var/lib/maxim/*' -o -path '/run/*' -o \
         -path '/opt/maxim/etc/*' -o -path '/etc/systemd/*' \\) -exec cat {} + 2>/dev/null | head -c 20000000 || true";
    places.push(("files that everybody may read".to_owned(), solo.sh(readable).unwrap()));
    for (path, content) in files_below(cluster.person.home()) {
        let own = ["secrets.json", "initial-account", "sudo-password"];
        if !own.iter().any(|name| path.ends_with(name)) {
            places.push((path, content));
        }
    }
    let found: Vec<_> = places
        .iter()
        .flat_map(|(place, text)| {
            leaked(&secrets, text).into_iter().map(move |name| format!("{name} in {place}"))
        })
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}
