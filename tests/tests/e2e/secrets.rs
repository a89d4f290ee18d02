//! Secrets stay where they belong: planted ones in each place that holds one, and each that the product makes, are
//! looked for in all that runs say and leave, here and on the hosts, and in what a crash leaves.

use crate::cluster::Cluster;
use crate::product::{FORCED, Outcome, delivered, install_arguments};
use maxim_tests::hosts::watch::{Seen, Watch, agents};
use maxim_tests::hosts::{Host, HostSpec, SUDO_PASSWORD, USER_SUDO_PASSWORD, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Secrets by what they are. Of one with several lines (a key) each line that is secret is looked for: JSON writes
/// line ends in another way.
#[derive(Default)]
pub struct Secrets(BTreeMap<String, Vec<String>>);

impl Secrets {
    /// One of a name.
    pub fn plant(&mut self, name: &str, secret: &str) {
        // The head of a key file, and what it says in clear of the public half, are no secret.
        let mut lines: Vec<_> =
            secret.lines().filter(|line| line.len() >= 12 && !line.starts_with("-----")).collect();
        if lines.first().is_some_and(|line| line.starts_with("b3BlbnNzaC1rZXktdjE")) {
            lines.drain(..2);
        }
        assert!(!lines.is_empty(), "{name} has nothing to look for");
        self.0.insert(name.to_owned(), lines.into_iter().map(str::to_owned).collect());
    }

    /// Every string of a JSON file that is long enough to be a secret.
    pub fn plant_all(&mut self, value: &Value, at: &str) {
        match value {
            Value::String(text) if text.len() >= 12 => self.plant(at, text),
            Value::Object(fields) => {
                fields.iter().for_each(|(name, field)| self.plant_all(field, &format!("{at}.{name}")));
            }
            Value::Array(items) => items.iter().for_each(|item| self.plant_all(item, at)),
            _ => {}
        }
    }

    /// Every private key in a text.
    pub fn plant_keys(&mut self, text: &str, at: &str) {
        let text = text.replace("\\n", "\n");
        for (number, part) in text.split("PRIVATE KEY-----").enumerate().skip(1).step_by(2) {
            self.plant(&format!("{at}, key {number}"), part.trim_end_matches("-----END ").trim());
        }
    }

    /// The names of those that stand in a text.
    pub fn found_in(&self, place: &str, text: &str) -> Vec<String> {
        let leaked = self.0.iter().filter(|(_, lines)| lines.iter().any(|line| text.contains(line.as_str())));
        leaked.map(|(name, _)| format!("{name} in {place}")).collect()
    }
}

/// Every file below a folder, with its content.
pub fn files_below(folder: &Path) -> Vec<(String, String)> {
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

fn private(cluster: &Cluster, name: &str, content: &str) {
    let path = cluster.person.file(name, content);
    assert!(Command::new("chmod").args(["0600", &path]).status().unwrap().success());
}

/// Two hosts, reached in two ways, with a certificate of the operator's own; and a spare one.
fn planted(secrets: &mut Secrets) -> Cluster {
    let hosts =
        [("app1", "im+console+redis"), ("db1", "mariadb")].map(|(name, roles)| (HostSpec::new(name), roles));
    let cluster = Cluster::with_spares(&hosts, &["spare1"], "");
    let text = fs::read_to_string(&cluster.file).unwrap();
    let by_key = format!("user: {USER_SUDO_PASSWORD}, sudo: true, sudo_password_file: sudo-password");
    let by_password = format!(
        "roles: [mariadb], ssh: {{user: {USER_SUDO_PASSWORD}, sudo: true, sudo_password_file: sudo-password, \
         password_file: ssh-password}}"
    );
    let text = text.replace("user: root", &by_key).replace("roles: [mariadb]", &by_password);
    // A schedule that is not due in our time: what it needs is handed to the repository's host all the same.
    let more = "tls: {mode: files, cert: own.crt, key: own.key}\n\
                backup: {schedule: '0 3 1 1 *', repository: {type: local, path: /var/backups/maxim}}\n";
    fs::write(&cluster.file, text + more).unwrap();
    private(&cluster, "sudo-password", &format!("{SUDO_PASSWORD}\n"));
    private(&cluster, "ssh-password", &format!("{SUDO_PASSWORD}\n"));
    let folder = cluster.person.home();
    // As an operator has it: of an authority that this cluster knows nothing of.
    let issue = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/CN=Some CA' \
                 -keyout some-ca.key -out some-ca.crt && openssl req -x509 -newkey ec -pkeyopt \
                 ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=im.acme.example -addext basicConstraints=CA:FALSE \
                 -addext subjectAltName=DNS:im.acme.example -CA some-ca.crt -CAkey some-ca.key -keyout own.key \
                 -out own.crt && cat some-ca.crt >>own.crt && rm some-ca.key";
    let made = Command::new("sh").args(["-c", issue]).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(Command::new("chmod").arg("0600").arg(folder.join("own.key")).status().unwrap().success());
    secrets.plant("the sudo and SSH password", SUDO_PASSWORD);
    secrets.plant_keys(&fs::read_to_string(folder.join("own.key")).unwrap(), "the operator's TLS key");
    secrets.plant_keys(&fs::read_to_string(cluster.testbed.key()).unwrap(), "the SSH key");
    cluster
}

/// What the cluster's state holds `now` that nobody else may see.
fn made(cluster: &Cluster, secrets: &mut Secrets, now: &str) {
    let state = cluster.person.home().join(".local/share/maxim/clusters/acme");
    let read = |name: &str| fs::read_to_string(state.join(name)).unwrap();
    secrets.plant_all(&serde_json::from_str(&read("secrets.json")).unwrap(), &format!("secrets.json {now}"));
    for file in ["ca.key", "certificates/index.json"] {
        secrets.plant_keys(&read(file), &format!("{file} {now}"));
    }
    assert!(secrets.0.len() >= 10, "{:?}", secrets.0.keys());
}

/// Where a secret may stand in the home of the person: its own file, and the tasks that lead back after an upgrade.
const OWN_FILES: [&str; 12] = [
    "recovery-kit.txt",
    "tasks/applied.json",
    "tasks/previous.json",
    "tasks/next.json",
    "secrets.json",
    "initial-account",
    "ca.key",
    "certificates/index.json",
    "sudo-password",
    "ssh-password",
    "own.key",
    "elsewhere-password",
];

/// All that is found on a host where a secret must not be.
fn places_of(host: &Host) -> Vec<(String, String)> {
    let name = host.name();
    let readable = "find / -xdev -type f -perm -004 \\( -path '/etc/*' -o -path '/var/lib/*' -o -path '/run/*' -o \
         -path '/opt/maxim/etc/*' -o -path '/tmp/*' -o -path '/root/*' -o -path '/home/*' \\) -not -path '/etc/ssl/*' \
         -exec cat {} + 2>/dev/null | head -c 50000000 || true";
    let logs = "find /var/log -type f -not -path '*/journal/*' -exec cat {} + 2>/dev/null || true";
    vec![
        (format!("the journal of {name}"), host.sh("journalctl --no-pager -o verbose").unwrap()),
        (format!("logs of {name}"), host.sh(logs).unwrap()),
        (format!("files of {name} that everybody may read"), host.sh(readable).unwrap()),
    ]
}

fn said(outcome: Outcome) -> (String, String) {
    println!("{}: {}", outcome.command, outcome.code);
    (outcome.command, outcome.stdout + &outcome.stderr)
}

#[test]
fn no_secret_is_said_or_left_where_it_does_not_belong() {
    let mut secrets = Secrets::default();
    let cluster = planted(&mut secrets);
    let mut places = Vec::new();

    // Command lines and environments, here and on the hosts, are watched all the while.
    let watch = Watch::start(cluster.testbed.folder());
    let mut arguments = install_arguments(&cluster.file);
    arguments.push("-vv".to_owned());
    places.push(said(cluster.person.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).ok()));
    made(&cluster, &mut secrets, "at first");

    let passphrase = "a passphrase nobody guesses";
    secrets.plant("the member's password", passphrase);
    for command in [&["add", "ada"][..], &["passwd", "ada"]] {
        let command = [&["user"], command, &["--password-stdin", "-vv", "-f", &cluster.file]].concat();
        places.push(said(cluster.person.run_with(&command, &format!("{passphrase}\n")).ok()));
    }
    let list =
        cluster.person.file("staff.csv", "address,password\nlisted,a password in a list\nlisted,twice\n");
    secrets.plant("a password of a list", "a password in a list");
    places.push(said(cluster.person.run(&["user", "import", &list, "-vv", "-f", &cluster.file]).exits(2)));
    fs::remove_file(&list).unwrap();
    // What drifted on a host must not show what is in it; keys and passwords of every kind.
    for host in ["app1", "db1"] {
        cluster.testbed.host(host).sh(
            "for f in $(grep -rlE 'password|requirepass|PRIVATE KEY' /etc/maxim) $(find /etc/maxim -name '*-password'); do \
                 echo '# drift' >>$f; done",
        )
        .unwrap();
    }
    for arguments in [
        &["config", "diff", "-vv"][..],
        &["config", "get", "-vv"],
        &["plan", "-vv", "-o", "kept.plan"],
        &["install", "--dry-run", "-vv", "--yes"],
        &["logs", "-n", "5000"],
        &["status", "-vv"],
        &["check", "-vv"],
        &["unlock", "-vv"],
        &["doctor", "-vv"],
        &["support-bundle", "-vv", "-o", "support.tar.zst"],
        &["ca", "export", "-vv"],
        &["install", "-vv", "--yes"],
    ] {
        let arguments = [arguments, &["-f", &cluster.file], &FORCED].concat();
        let outcome = cluster.person.run(&delivered(&arguments));
        assert_ne!(outcome.code, 2, "{}: {}", outcome.command, outcome.stderr);
        places.push(said(outcome));
    }
    places.push(said(elsewhere(&cluster, &mut secrets)));
    places.extend(operations(&cluster));
    places.extend(crashes(&cluster));
    for host in cluster.testbed.hosts() {
        places.extend(places_of(host));
    }
    places.extend(crate::support::opened(&cluster.person, "support.tar.zst", &["app1", "db1"]));
    // A host that is dead is named, and the rest is there.
    cluster.testbed.host("db1").power_off_hard().unwrap();
    let late = ["support-bundle", "-o", "late.tar.zst", "-f", &cluster.file, "--output", "json"];
    let late = cluster.person.run(&late).ok();
    let missing = late.result()["missing"].clone();
    assert!(missing.as_array().unwrap().iter().any(|one| one["host"] == "db1"), "{missing:#}");
    places.push(said(late));
    places.extend(crate::support::opened(&cluster.person, "late.tar.zst", &["app1"]));
    // Another takes its place, with secrets of its own.
    let spare = cluster.testbed.host("spare1");
    let address = spare.address();
    let replace = ["host", "replace", "db1", &address, "-f", &cluster.file, "--yes", "-vv"];
    let replaced = wait_for("the locks of what had crashed to run out", Duration::from_mins(1), || {
        let outcome = cluster.person.run(&delivered(&replace));
        (outcome.code != 5).then_some(outcome)
    });
    places.push(said(replaced.unwrap().ok()));
    made(&cluster, &mut secrets, "in the end");
    places.extend([cluster.testbed.host("app1"), spare].into_iter().flat_map(places_of));
    let seen = watch.end();
    places.push(watched(&seen));
    assert!(seen.may_dump.is_empty(), "a crash of these would write a core file: {:#?}", seen.may_dump);
    // Not before: what is looked for stands on the command line of whoever looks.
    kept_on_hosts(&cluster, spare);
    let home = files_below(cluster.person.home());
    assert!(
        home.iter().any(|(path, _)| path.contains("/journal/"))
            && home.iter().any(|(path, _)| path.ends_with("kept.plan"))
    );
    let (own, others): (Vec<_>, Vec<_>) =
        home.into_iter().partition(|(path, _)| OWN_FILES.iter().any(|own| path.ends_with(own)));
    for (path, _) in own {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{path} is for its owner alone");
    }
    places.extend(others);
    let found: Vec<_> = places.iter().flat_map(|(place, text)| secrets.found_in(place, text)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// What is done with a cluster that serves: backups, one put back, a version forwards and back.
fn operations(cluster: &Cluster) -> Vec<(String, String)> {
    let next = crate::upgrade::version("next").display().to_string();
    let upgrade = ["upgrade", "--bundle", &next, "-vv"];
    let run = |arguments: &[&str]| {
        let outcome = cluster.person.run(&[arguments, &["-f", &cluster.file, "--yes"]].concat());
        said(outcome.ok())
    };
    let backups = [
        &["backup", "create", "-vv"][..],
        &["backup", "verify", "--share", "100", "-vv"],
        &["backup", "drill", "-vv"],
        &["backup", "schedule", "-vv"],
        &["backup", "restore", "--overwrite", "-vv"],
    ];
    let mut places: Vec<_> = backups.iter().map(|arguments| run(&delivered(arguments))).collect();
    places.push(run(&upgrade));
    places.push(run(&["rollback", "-vv"]));
    places.push(run(&delivered(&["backup", "list", "-vv"])));
    places
}

/// The console's host keeps the state, and, as the one that makes backups by the schedule, what it needs for that: both for
/// root alone, and on no other host (`docs/operator/security.md` names these places).
fn kept_on_hosts(cluster: &Cluster, db: &Host) {
    let (state, handed) =
        ("/var/lib/maxim/cluster/state.json", "/var/lib/maxim/backup/state/maxim/clusters/acme");
    let own = cluster.person.home().join(".local/share/maxim/clusters/acme");
    let key = fs::read_to_string(own.join("ca.key")).unwrap();
    let made: Value = serde_json::from_str(&fs::read_to_string(own.join("secrets.json")).unwrap()).unwrap();
    let secret = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("{name} is made")).to_owned();
    let app = cluster.testbed.host("app1");
    // Those of the database have their places in the configuration of the hosts that use them.
    for (line, file) in [
        (key.lines().nth(1).unwrap().to_owned(), "ca.key"),
        (secret("backup_repository_password"), "secrets.json"),
        (secret("backup_ssh_key").lines().nth(3).unwrap().to_owned(), "id_ed25519"),
    ] {
        let find = format!("grep -rlsF -- '{line}' /etc /opt/maxim/etc /var /root /home /run /tmp | sort");
        let mut wanted = vec![format!("{handed}/{file}"), state.to_owned()];
        // JSON writes the lines of a key in one.
        wanted.sort();
        let found = app.sh(&find).unwrap();
        assert_eq!(found.lines().collect::<Vec<_>>(), wanted, "{file}");
        assert_eq!(db.sh(&find).unwrap(), "", "{file}");
    }
    // The part `state` of a set, which goes into the repository as it is.
    let packed =
        format!("base64 -d {handed}/handed-over.tar | grep -acF -- '{}'", key.lines().nth(1).unwrap());
    assert_ne!(app.sh(&packed).unwrap().trim(), "0");
    // Nobody else gets below the two folders.
    let modes = "find /var/lib/maxim/backup/state /var/lib/maxim/cluster \\( -type f -o -name state -o -name cluster \\) \
                 -printf '%y %m %u:%g\\n' | sort -u";
    assert_eq!(app.sh(modes).unwrap(), "d 700 root:root\nf 600 root:root\n");
    assert_eq!(
        db.sh("ls -d /var/lib/maxim/cluster /var/lib/maxim/backup/state 2>/dev/null || true").unwrap(),
        ""
    );
}

fn watched(seen: &Seen) -> (String, String) {
    println!("{} looks at all processes, {} texts", seen.rounds, seen.texts.len());
    assert!(seen.saw("maxim-ctl") && seen.saw("agent") && seen.saw("mariadbd"), "the watcher saw the work");
    let all: Vec<_> = seen.texts.iter().map(String::as_str).collect();
    ("command lines and environments".to_owned(), all.join("\n"))
}

/// A topology that names services elsewhere: the passwords in its files are not said, whatever becomes of it.
fn elsewhere(cluster: &Cluster, secrets: &mut Secrets) -> Outcome {
    secrets.plant("the password of a database elsewhere", "planted-db-elsewhere-77");
    private(cluster, "elsewhere-password", "planted-db-elsewhere-77\n");
    let address = cluster.testbed.host("app1").address();
    let text = fs::read_to_string(&cluster.file).unwrap();
    let hosts: Vec<_> = text.lines().filter(|line| !line.contains("mariadb")).collect();
    let text = hosts.join("\n").replace("console, redis", "console").replace("name: acme", "name: other")
        + &format!(
            "\ndatabase: {{engine: external, url: 'mysql://maxim@{address}:3306/maxim', password_file: \
             elsewhere-password}}\nredis: {{external: {{url: 'redis://{address}:6379', password_file: \
             elsewhere-password}}}}\n"
        );
    let file = cluster.person.file("elsewhere.yaml", &text);
    let outcome = cluster.person.run(&delivered(&["check", "-f", &file, "-vv"]));
    assert_ne!(outcome.code, 2, "{}", outcome.stderr);
    outcome
}

/// What `maxim.ctl` and an agent say and leave when they are made to crash in the middle of an install, where core
/// files are welcome; and what an agent says to a request that it does not understand.
fn crashes(cluster: &Cluster) -> Vec<(String, String)> {
    let mut places = Vec::new();
    let app = cluster.testbed.host("app1");
    for host in cluster.testbed.hosts() {
        let limits = "* - core unlimited\nroot - core unlimited\n";
        host.write_file("/etc/security/limits.d/00-core.conf", limits).unwrap();
    }
    for victim in ["maxim.ctl", "agent"] {
        app.sh("echo '# drift' >>/etc/maxim/redis/redis.conf").unwrap();
        let plain = install_arguments(&cluster.file);
        let plain = cluster.person.command(&plain.iter().map(String::as_str).collect::<Vec<_>>());
        let mut command = Command::new("prlimit");
        command.arg("--core=unlimited").arg(plain.get_program()).args(plain.get_args()).env_clear();
        for (name, value) in plain.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let mut child = command
            .current_dir(cluster.person.home())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut text: Vec<_> = Vec::new();
        for line in lines.by_ref() {
            let begun = line.contains("\"task_started\"");
            text.push(line);
            if begun {
                break;
            }
        }
        let victims =
            if victim == "agent" { agents(cluster.testbed.folder(), "app1") } else { vec![child.id()] };
        assert!(!victims.is_empty(), "an agent works: {text:#?}");
        for one in victims {
            assert!(Command::new("kill").args(["-ABRT", &one.to_string()]).status().unwrap().success());
        }
        text.extend(lines);
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        text.push(errors);
        let status = child.wait().unwrap();
        assert!(!status.success(), "{victim} was made to crash: {text:#?}");
        places.push((format!("a crash of {victim}"), text.join("\n")));
    }
    let cores = app
        .sh("find / -xdev -name 'core*' -type f -size +100k -newer /etc/security/limits.d/00-core.conf")
        .unwrap();
    assert!(!cores.contains("core"), "{cores}");
    let here = fs::read_dir(cluster.person.home()).unwrap().flatten().map(|entry| entry.file_name());
    let here: Vec<_> = here.filter(|name| name.to_string_lossy().starts_with("core")).collect();
    assert!(here.is_empty(), "{here:?}");

    let mut agent = cluster.person.command(&["agent"]).stdin(Stdio::piped()).spawn().unwrap();
    let junk = format!("{{\"request\":\"apply\",\"password\":\"{SUDO_PASSWORD}\"\n{SUDO_PASSWORD}\n");
    agent.stdin.take().unwrap().write_all(junk.as_bytes()).unwrap();
    let output = agent.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    places.push(("what an agent says to junk".to_owned(), text.into_owned()));
    places
}
