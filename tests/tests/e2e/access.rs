//! How hosts are reached, and who is let in: SSH agent, SSH password, jump host, the console's key and its way to the
//! agent of its own host; and that what was on a host before (keys, users) is still there afterwards.

use crate::cluster::{ALL, Cluster, is_well};
use crate::product::{FORCED, Outcome, Person};
use maxim_tests::hosts::{Host, HostSpec, SUDO_PASSWORD, Testbed, USER_SUDO_PASSWORD};
use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A topology of one host with these SSH settings.
fn topology(person: &Person, testbed: &Testbed, host: &str, ssh: &str) -> String {
    let known = person.home().join(".ssh/known_hosts");
    fs::create_dir_all(known.parent().unwrap()).unwrap();
    fs::copy(testbed.known_hosts(), known).unwrap();
    person.file(
        "cluster.yaml",
        &format!(
            "api_version: maxim/v1\nname: acme\ndomain: im.acme.example\n\
             capacity: {{users: 100, messages_per_second: 50}}\nssh: {ssh}\n\
             hosts: [{{name: {host}, address: {}, roles: [im, console, mariadb, redis]}}]\n",
            testbed.host(host).address()
        ),
    )
}

/// `check` of it, with one more variable in the environment.
fn check(person: &Person, file: &str, variable: (&str, &str)) -> Outcome {
    let arguments = ["check", "-f", file, FORCED[0], FORCED[1], "--output", "json"];
    let output = person.command(&arguments).env(variable.0, variable.1).output().unwrap();
    Outcome {
        command: format!("maxim.ctl {}", arguments.join(" ")),
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A file that only its owner can read.
fn private(person: &Person, name: &str, content: &str) -> String {
    let path = person.file(name, content);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn sshd_log(host: &Host) -> String {
    host.sh("journalctl --no-pager -q -o cat -t sshd -t sshd-session").unwrap()
}

/// An SSH agent that ends with this.
struct KeyAgent {
    process: Child,
    socket: PathBuf,
}

impl KeyAgent {
    fn with(person: &Person, key: &std::path::Path) -> Self {
        let socket = person.home().join("agent.sock");
        let process = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Self { process, socket };
        maxim_tests::hosts::wait_for("the SSH agent", std::time::Duration::from_secs(10), || {
            agent.socket.exists().then_some(())
        })
        .unwrap();
        let added = Command::new("ssh-add").arg(key).env("SSH_AUTH_SOCK", &agent.socket).output().unwrap();
        assert!(added.status.success(), "{added:?}");
        agent
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn a_key_of_an_ssh_agent_and_a_password_open_a_host() {
    let testbed = Testbed::of(&["solo"]).unwrap();
    let person = Person::new();
    let nothing = ("SSH_AUTH_SOCK", "/nonexistent");
    let file = topology(&person, &testbed, "solo", "{user: root, known_hosts: strict}");
    check(&person, &file, nothing).exits(3).says(&["access.sign_in", "root"]);
    let agent = KeyAgent::with(&person, &testbed.key());
    check(&person, &file, ("SSH_AUTH_SOCK", agent.socket.to_str().unwrap())).ok();

    let password = private(&person, "password", &format!("{SUDO_PASSWORD}\n"));
    let ssh = |file: &str| {
        format!(
            "{{user: {USER_SUDO_PASSWORD}, password_file: {file}, sudo: true, sudo_password_file: {password}, known_hosts: strict}}"
        )
    };
    let file = topology(&person, &testbed, "solo", &ssh(&password));
    let outcome = check(&person, &file, nothing).ok();
    assert!(!outcome.stdout.contains(SUDO_PASSWORD) && !outcome.stderr.contains(SUDO_PASSWORD));
    assert!(sshd_log(testbed.host("solo")).contains(&format!("Accepted password for {USER_SUDO_PASSWORD}")));
    let wrong = private(&person, "wrong", "not-the-password\n");
    let file = topology(&person, &testbed, "solo", &ssh(&wrong));
    check(&person, &file, nothing).exits(3).says(&["access.sign_in", USER_SUDO_PASSWORD]);
}

#[test]
fn a_jump_host_is_passed_with_its_own_credentials_and_never_shown_those_of_the_host_behind_it() {
    let testbed = Testbed::of(&["gate", "solo"]).unwrap();
    let person = Person::new();
    let nothing = ("SSH_AUTH_SOCK", "/nonexistent");
    let gate = testbed.host("gate").address();
    let password = private(&person, "password", &format!("{SUDO_PASSWORD}\n"));
    let target = format!(
        "user: {USER_SUDO_PASSWORD}, password_file: {password}, sudo: true, sudo_password_file: {password}, known_hosts: strict"
    );

    // The same password would open the jump host: it must not even be tried there.
    let file =
        topology(&person, &testbed, "solo", &format!("{{{target}, jump: {USER_SUDO_PASSWORD}@{gate}}}"));
    check(&person, &file, nothing).exits(3).says(&["jump host", &gate]);
    let log = sshd_log(testbed.host("gate"));
    // The tests themselves come by key.
    assert!(!log.contains("password for"), "{log}");

    for jump in [
        format!("{{host: {gate}, user: {USER_SUDO_PASSWORD}, password_file: {password}}}"),
        format!("{{host: {gate}, user: root, key: {}}}", testbed.key().display()),
    ] {
        let file = topology(&person, &testbed, "solo", &format!("{{{target}, jump: {jump}}}"));
        check(&person, &file, nothing).ok();
        let log = sshd_log(testbed.host("solo"));
        let from = format!("Accepted password for {USER_SUDO_PASSWORD} from {gate}");
        assert!(log.contains(&from), "{log}");
    }
}

/// Nothing is to be changed, and still one flipped bit in the middle of a bundle is found by each command that is given it.
fn refuses_a_damaged_bundle(cluster: &Cluster) {
    let damaged = cluster.person.home().join("damaged.bundle");
    fs::copy(crate::product::bundle(), &damaged).unwrap();
    let file = fs::File::options().read(true).write(true).open(&damaged).unwrap();
    let (middle, mut byte) = (file.metadata().unwrap().len() / 2, [0]);
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    for command in ["install", "plan"] {
        let arguments = [command, "-f", &cluster.file, "--yes", "--bundle", damaged.to_str().unwrap()];
        let refused = cluster.person.run(&arguments).exits(5).says(&["SHA-256"]);
        let named = ["images/", "bin/", "web"].iter().any(|part| refused.stderr.contains(part));
        assert!(named, "the member is named: {}", refused.stderr);
    }
    fs::remove_file(&damaged).unwrap();
}

#[test]
fn the_console_can_look_and_no_more_and_what_was_there_before_stays() {
    let hosts = [(HostSpec::new("app1"), "im+console+mariadb"), (HostSpec::new("cache1"), "redis")];
    let cluster = Cluster::bare(&hosts, "");
    let (app, cache) = (cluster.testbed.host("app1"), cluster.testbed.host("cache1"));
    // An administrator's file, its last line without an end, and a system user with the name of ours.
    cache
        .sh("printf '# mine\\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHBsYW50ZWRwbGFudGVkcGxhbnRlZHBsYW50ZWQx anna@laptop' \
             >> /root/.ssh/authorized_keys && chmod 0640 /root/.ssh/authorized_keys \
             && useradd --system --no-create-home --shell /usr/sbin/nologin maxim")
        .unwrap();
    let keys =
        || cache.sh("stat -c '%a %U' /root/.ssh/authorized_keys; cat /root/.ssh/authorized_keys").unwrap();
    let (before, users) = (keys(), cache.sh("cat /etc/passwd /etc/group").unwrap());
    // A group of that name without a user, which many `userdel` would take along.
    app.sh("groupadd --system maxim").unwrap();
    let app_before = (app.snapshot().unwrap(), app.live_state().unwrap());

    let first = cluster.install().ok().result();
    assert!(is_well(&first));
    let installed = keys();
    let marked = installed.lines().filter(|line| line.ends_with("maxim-console@acme")).count();
    assert_eq!(marked, 1, "{installed}");
    let others: String =
        installed.split_inclusive('\n').filter(|line| !line.ends_with("maxim-console@acme\n")).collect();
    assert_eq!(others, before, "every other byte stays");
    assert_eq!(cluster.install().ok().changes(), 0);
    refuses_a_damaged_bundle(&cluster);

    // With the console's key and whatever command: an agent that may only be looked at.
    let ask = r#"printf '%s\n' '{"op":"hello"}' '{"op":"apply","tasks":[]}' '{"op":"promote"}' '{"op":"read_file","path":"/etc/shadow"}' '{"op":"hello"}'"#;
    let ssh = format!(
        "ssh -T -i /root/console-key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR root@{}",
        cache.address()
    );
    app.sh("install -m 0600 /var/lib/maxim/console/cluster/id_ed25519 /root/console-key").unwrap();
    let said = app.exec(&format!("{ask} | {ssh} 'touch /root/taken'")).unwrap();
    let replies: Vec<serde_json::Value> =
        said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = replies.iter().map(|reply| reply["reply"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["hello", "done", "error", "error", "error", "hello", "done"], "{said:?}");
    assert_eq!((&replies[0]["access"], &replies[5]["access"]), (&"observe".into(), &"observe".into()));
    assert_ne!(cache.exec("test -e /root/taken").unwrap().code, 0);
    let forward = ssh.replace("ssh -T", "timeout 10 ssh -W 127.0.0.1:22");
    let forwarded = app.exec(&format!("{forward} </dev/null")).unwrap();
    assert!(forwarded.code != 0 && !forwarded.stdout.contains("SSH-2"), "no forwarding: {forwarded:?}");
    // From any other host the key is nothing.
    cache.write_file("/root/console-key", app.sh("cat /root/console-key").unwrap()).unwrap();
    let elsewhere = cache.exec(&format!("chmod 600 /root/console-key; {ask} | {ssh}")).unwrap();
    assert!(elsewhere.stderr.contains("Permission denied"), "{elsewhere:?}");
    app.sh("rm /root/console-key").unwrap();
    cache.sh("rm /root/console-key").unwrap();

    // On its own host: nobody but its user, not even root, who could do everything anyhow.
    let knock = |user: &str| {
        let script = r#"use IO::Socket::UNIX; $SIG{ALRM} = sub { exit 4 }; alarm 10; my $s = IO::Socket::UNIX->new("/run/maxim-agent.sock") or exit 3; print $s "{\"op\":\"hello\"}\n"; $s->flush; my $l = <$s>; print $l // "nothing";"#;
        app.exec(&format!("runuser -u {user} -- perl -e '{script}'")).unwrap()
    };
    assert_eq!(knock("maxim").code, 3, "the services' user cannot open it");
    assert_eq!(knock("root").stdout, "nothing");
    let own = knock("maxim-console");
    assert!(own.stdout.contains("\"observe\""), "{own:?}");
    // Of what listens on loopback it may read the one page that tells the IM core's health.
    let read = |path: &str| {
        let ask = format!(
            r#"{{\"op\":\"http\",\"socket\":\"tcp:127.0.0.1:9280\",\"method\":\"GET\",\"path\":\"{path}\",\"body\":\"\"}}"#
        );
        let script = format!(
            r#"use IO::Socket::UNIX; $SIG{{ALRM}} = sub {{ exit 4 }}; alarm 10; my $s = IO::Socket::UNIX->new("/run/maxim-agent.sock") or exit 3; print $s "{ask}\n"; $s->flush; my $l = <$s>; print $l // "nothing";"#
        );
        app.exec(&format!("runuser -u maxim-console -- perl -e '{script}'")).unwrap()
    };
    assert!(read("/readyz").stdout.contains("\"status\":200"), "{:?}", read("/readyz"));
    assert!(read("/metrics").stdout.contains("not for a console"), "{:?}", read("/metrics"));
    let seen = |service: &str| {
        app.sh(&format!(
            "nsenter -t $(systemctl show -P MainPID {service}) -m -- stat -c '%a %F' /run/maxim-agent.sock 2>&1 || true"
        ))
        .unwrap()
    };
    assert!(!seen("maxim-im").contains("600 socket"), "{}", seen("maxim-im"));

    crate::control_hosts::work_on_one_state(&cluster, "app1");
    crate::control_hosts::set_the_consoles_password(&cluster, &first);

    cluster.run(&["uninstall", "--purge", "--yes"]).ok();
    assert_eq!(keys(), before);
    assert_eq!(cache.sh("cat /etc/passwd /etc/group").unwrap(), users, "the user was there before");
    let changes = app_before.0.changes_to(&app.snapshot().unwrap());
    assert!(changes.is_empty(), "{:?}", changes.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(app.live_state().unwrap(), app_before.1);
}

#[test]
fn a_persons_account_under_our_name_is_refused() {
    let cluster = Cluster::bare(&[(HostSpec::new("solo"), ALL)], "");
    let solo = cluster.testbed.host("solo");
    solo.sh("useradd --create-home --shell /bin/bash maxim").unwrap();
    let before = solo.snapshot().unwrap();
    cluster.install().exits(3).says(&["identity.user", "maxim", "rename or remove"]);
    let changes = before.changes_to(&solo.snapshot().unwrap());
    assert!(changes.is_empty(), "{:?}", changes.iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[test]
fn a_database_and_redis_that_somebody_else_runs_are_tried_before_they_are_relied_on() {
    let hosts = [
        (HostSpec::new("db1"), "mariadb+redis"),
        (HostSpec::new("app1"), "im+console"),
        (HostSpec::new("app2"), "im"),
    ];
    let testbed = Testbed::up(&hosts.clone().map(|(spec, _)| spec)).unwrap();
    let owner = Person::new();
    // The servers of one cluster …
    let file = crate::product::cluster_file(&owner, &testbed, &["mariadb+redis", "im+console"], "");
    let arguments = crate::product::install_arguments(&file);
    owner.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    owner.run(&["stop", "im", "-f", &file]).ok();
    let state = owner.home().join(".local/share/maxim/clusters/acme");
    let secrets: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(state.join("secrets.json")).unwrap()).unwrap();
    let authority = owner.home().join("ca.pem");
    owner.run(&["ca", "export", "-o", authority.to_str().unwrap(), "-f", &file]).ok();

    // … are somebody else's for another.
    let person = Person::new();
    let known = person.home().join(".ssh/known_hosts");
    fs::create_dir_all(known.parent().unwrap()).unwrap();
    fs::copy(testbed.known_hosts(), known).unwrap();
    let secret = |name: &str| private(&person, name, &format!("{}\n", secrets[name].as_str().unwrap()));
    let (database, redis) = (secret("database_im_password"), secret("redis_password"));
    let server = testbed.host("db1").address();
    let write = |password: &str, authority: &str| {
        person.file(
            "cluster.yaml",
            &format!(
                "api_version: maxim/v1\nname: other\ndomain: im.acme.example\n\
                 capacity: {{users: 100, messages_per_second: 50}}\n\
                 ssh: {{user: root, key: {}, known_hosts: strict}}\n\
                 hosts: [{{name: app2, address: {}, roles: [im]}}]\n\
                 database: {{external: {{url: 'mysql://maxim@{server}:3306/maxim', password_file: {password}, ca_file: {authority}}}}}\n\
                 redis: {{external: {{url: 'rediss://{server}:6379', password_file: {redis}, ca_file: {authority}}}}}\n",
                testbed.key().display(),
                testbed.host("app2").address()
            ),
        )
    };
    let nothing = ("SSH_AUTH_SOCK", "/nonexistent");
    let authority = authority.display().to_string();
    let wrong = private(&person, "wrong", "not-the-password\n");
    check(&person, &write(&wrong, &authority), nothing).exits(3).says(&["external.credentials", "as maxim"]);
    let other = person.file("other.pem", &fs::read_to_string(testbed_certificate(&testbed)).unwrap());
    check(&person, &write(&database, &other), nothing).exits(3).says(&["external.credentials"]);
    let file = write(&database, &authority);
    check(&person, &file, nothing).ok().says(&["external.service", "11."]);
    let arguments = crate::product::install_arguments(&file);
    let result = person.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    assert!(is_well(&result.result()) && result.stdout.contains("\"canary\""));
}

/// A certificate that signed nothing here.
fn testbed_certificate(testbed: &Testbed) -> PathBuf {
    let path = testbed.folder().join("stranger.pem");
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=stranger", "-keyout", "/dev/null", "-out"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    path
}
