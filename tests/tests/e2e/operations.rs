//! Running a deployed cluster from the command line: a plan that is kept and applied, drift, settings, accounts,
//! logs, the doctor, locks, the authority, and each service by itself.

use crate::cluster::{ALL, Cluster, DOMAIN, endpoint, is_well};
use crate::product::{FORCED, Outcome, authority, delivered};
use maxim_tests::hosts::{HostSpec, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs a command that needs the bundle, for the topology of a cluster.
fn run_delivered(cluster: &Cluster, arguments: &[&str]) -> Outcome {
    cluster.run(&delivered(&[arguments, &FORCED].concat()))
}

/// What a kept plan will change for sure, as `host task`, and what can only be told when earlier tasks are done.
fn planned(path: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let plan: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let (mut sure, mut later) = (BTreeSet::new(), BTreeSet::new());
    for host in plan["hosts"].as_array().unwrap() {
        for task in host["tasks"].as_array().unwrap() {
            let name = format!("{} {}", host["host"].as_str().unwrap(), task["id"].as_str().unwrap());
            match task["change"]["state"].as_str().unwrap() {
                "none" => continue,
                "later" => later.insert(name),
                _ => sure.insert(name),
            };
        }
    }
    (sure, later)
}

/// Applies a kept plan, and sees that exactly that was done.
#[track_caller]
fn apply_exactly(cluster: &Cluster, path: &Path) {
    let (sure, later) = planned(path);
    let outcome = apply(cluster, path).ok();
    let done = applied(&outcome);
    assert!(sure.is_subset(&done), "planned and not done: {:?}", sure.difference(&done));
    let more: Vec<_> = done.iter().filter(|one| !sure.contains(*one) && !later.contains(*one)).collect();
    assert!(more.is_empty(), "done and not planned: {more:?}");
    assert!(is_well(&outcome.result()));
}

/// What a run changed, as `host task`.
fn applied(outcome: &Outcome) -> BTreeSet<String> {
    let changed = outcome
        .events()
        .into_iter()
        .filter(|event| event["event"] == "task_finished" && event["changed"] == true);
    changed
        .map(|event| format!("{} {}", event["host"].as_str().unwrap(), event["step"].as_str().unwrap()))
        .collect()
}

/// The secrets of a cluster that the control host made.
fn secrets(cluster: &Cluster) -> Vec<String> {
    let path = cluster.person.home().join(".local/share/maxim/clusters/acme/secrets.json");
    let made: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let values: Vec<_> =
        made.as_object().unwrap().values().map(|one| one.as_str().unwrap().to_owned()).collect();
    assert!(values.len() >= 4);
    values
}

fn apply(cluster: &Cluster, plan: &Path) -> Outcome {
    let plan = plan.to_str().unwrap();
    let command = ["apply", plan, "--yes", "--output", "json"];
    cluster.person.run(&delivered(&[&command[..], &FORCED].concat()))
}

#[test]
fn a_kept_plan_is_applied_exactly_or_refused() {
    let cluster = Cluster::of_one();
    let host = cluster.testbed.host("solo");
    let bare = host.snapshot().unwrap();
    let path = cluster.person.home().join("change.plan");
    let keep = ["plan", "-o", path.to_str().unwrap()];
    let plan = run_delivered(&cluster, &keep).ok();
    let touched = crate::cluster::beside_the_agent(&bare, &host.snapshot().unwrap());
    assert!(touched.is_empty(), "a plan changes nothing: {touched:#?}");
    let (wanted, _) = planned(&path);
    assert_eq!(plan.result()["changes"], wanted.len());
    assert!(wanted.len() > 20, "{wanted:?}");
    apply_exactly(&cluster, &path);
    let text = fs::read_to_string(&path).unwrap();
    for secret in secrets(&cluster) {
        assert!(!text.contains(&secret), "the plan holds a secret");
    }

    // The same plan again: what it was made from is no longer so.
    let before = host.snapshot().unwrap();
    apply(&cluster, &path).exits(5).says(&["plan"]);

    // A plan to repair what was changed by hand; then somebody changes more.
    host.sh("echo '# by hand' >>/etc/maxim/redis/redis.conf").unwrap();
    let drift = run_delivered(&cluster, &["config", "diff"]).exits(0).result()["drift"].clone();
    let drift = drift.as_array().unwrap();
    assert!(drift[0]["host"] == "solo" && drift[0]["task"] == "redis/configuration", "{drift:#?}");
    run_delivered(&cluster, &keep).ok();
    let (wanted, _) = planned(&path);
    let redis = ["solo redis/configuration", "solo redis/service"].map(str::to_owned);
    assert!(wanted.contains(&redis[0]) && wanted.iter().all(|one| redis.contains(one)), "{wanted:?}");
    host.sh("echo 'archive: {}' >>/etc/maxim/im/im.yaml; chmod 0644 /etc/maxim/im/database-password")
        .unwrap();
    let tampered = host.snapshot().unwrap();
    apply(&cluster, &path).exits(5).says(&["im/"]);
    let changes = crate::cluster::beside_the_agent(&tampered, &host.snapshot().unwrap());
    assert!(changes.iter().all(|change| change.starts_with("/var/lib/maxim/")), "refused: {changes:#?}");

    // A new plan sees all of it and puts it right.
    let drift = run_delivered(&cluster, &["config", "diff"]).ok();
    assert!(drift.stdout.contains("archive: {}"), "the line that was added is shown: {}", drift.stdout);
    run_delivered(&cluster, &keep).ok();
    let (wanted, _) = planned(&path);
    for task in ["redis/configuration", "im/configuration", "im/database-password"] {
        assert!(wanted.contains(&format!("solo {task}")), "{task} is not in {wanted:?}");
    }
    apply_exactly(&cluster, &path);
    assert_eq!(run_delivered(&cluster, &["config", "diff"]).ok().result()["drift"], Value::Array(Vec::new()));
    let left = before.changes_to(&host.snapshot().unwrap());
    let outside: Vec<_> = left.iter().filter(|change| !change.path.starts_with("/var/lib/maxim/")).collect();
    assert!(outside.is_empty(), "{outside:#?}");
}

#[test]
fn a_deployed_cluster_is_run_from_the_command_line() {
    let cluster = Cluster::bare(&[(HostSpec::new("solo"), ALL)], "");
    let result = cluster.install().ok().result();
    let started = Instant::now();
    let part = |name: &str| println!("{name}: until {:?}", started.elapsed());
    accounts(&cluster, &endpoint(&result, "xmpp", 0));
    part("accounts");
    settings(&cluster);
    part("settings");
    logs_and_doctor(&cluster);
    part("logs and doctor");
    the_authority(&cluster, &endpoint(&result, "xmpp_tls", 0), &endpoint(&result, "web", 0));
    part("authority");
    locks(&cluster);
    part("locks");
    each_service(&cluster);
    part("each service");
    cluster.chat(&result, "frances");
}

/// `user add|list|passwd|disable|enable|remove|import`.
fn accounts(cluster: &Cluster, at: &str) {
    let user = |arguments: &[&str], input: &str| {
        let arguments = [&["user"], arguments, &["-f", &cluster.file, "--output", "json"]].concat();
        cluster.person.run_with(&arguments, input)
    };
    let list = || {
        let users = user(&["list"], "").ok().result()["users"].clone();
        let names = users
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["address"].as_str().unwrap().to_owned(), one["enabled"] == true));
        names.collect::<Vec<_>>()
    };
    let ann = format!("ann@{DOMAIN}");
    let add = ["add", "ann", "--name", "Ann Lee", "--password-stdin"];
    assert_eq!(user(&add, "the first one\n").ok().result()["user"]["address"], Value::from(ann.as_str()));
    user(&add, "another one\n").exits(1).says(&["ann"]);
    let admin = format!("admin@{DOMAIN}");
    assert_eq!(list(), [(admin.clone(), true), (ann.clone(), true)]);
    cluster.try_sign_in(at, &ann, "the first one").unwrap();

    user(&["passwd", &ann, "--password-stdin"], "the second one\n").ok();
    assert!(cluster.try_sign_in(at, &ann, "the first one").is_err(), "the old password is let in");
    let mut open = cluster.try_sign_in(at, &ann, "the second one").unwrap();
    user(&["disable", &ann], "").ok();
    assert!(list().contains(&(ann.clone(), false)));
    wait_for("the open session to end", Duration::from_secs(20), || open.ping().is_err().then_some(()))
        .unwrap();
    assert!(cluster.try_sign_in(at, &ann, "the second one").is_err(), "a disabled account is let in");
    user(&["enable", &ann], "").ok();
    cluster.try_sign_in(at, &ann, "the second one").unwrap();
    user(&["remove", &ann], "").exits(2);
    user(&["remove", &ann, "--yes"], "").ok();
    assert!(cluster.try_sign_in(at, &ann, "the second one").is_err(), "a removed account is let in");
    wait_for("the account to be gone", Duration::from_secs(20), || {
        (list() == [(admin.clone(), true)]).then_some(())
    })
    .unwrap();
    user(&["passwd", "nobody", "--password-stdin"], "whatever it is\n").exits(1).says(&["nobody"]);

    // A list: the good rows are made, a bad one is named and stops none.
    let csv = |text: &str| user(&["import", &cluster.person.file("staff.csv", text)], "");
    let good =
        "address,password,name,groups\neve,planted-eve-1,\"Eve \"\"E\"\" Li\",\nmax,planted-max-1,Max,\n";
    assert_eq!(csv(good).ok().changes(), 2);
    assert_eq!(csv(good).ok().changes(), 0, "who is there already is left as he is");
    let eve = format!("eve@{DOMAIN}");
    cluster.try_sign_in(at, &eve, "planted-eve-1").unwrap();
    let mixed = csv("address,password\nzoe@elsewhere.example,planted-zoe-1\nzed,planted-zed-1\n").exits(1);
    assert_eq!(mixed.changes(), 1);
    let mixed = mixed.says(&[":2:", "zoe@elsewhere.example"]);
    assert!(!mixed.stdout.contains("planted") && !mixed.stderr.contains("planted"));
    for (text, words) in [
        ("address,password\nyve,planted-1\nyve,planted-2\n", ["line 3", "yve"]),
        ("address,password\nyve,planted-1,more\n", ["line 2", "columns"]),
        ("address\nyve\n", ["line 1", "password"]),
        ("address,password,shoe size\nyve,planted-1,43\n", ["line 1", "shoe size"]),
        ("address,password\nyve,\n", ["line 2", "no password"]),
    ] {
        let outcome = csv(text).exits(2).says(&words);
        assert!(
            !outcome.stdout.contains("planted") && !outcome.stderr.contains("planted"),
            "{}",
            outcome.stderr
        );
    }
    let names: Vec<_> = list().into_iter().map(|(address, _)| address).collect();
    let wanted = ["admin", "eve", "max", "zed"].map(|name| format!("{name}@{DOMAIN}"));
    assert_eq!(names, wanted, "nobody came in by a list that was refused");
}

/// `config get|set|diff`.
fn settings(cluster: &Cluster) {
    let key = "settings.im.registration.in_band";
    let get = |key: &str| cluster.run(&["config", "get", key]);
    assert_eq!(get(key).ok().result()["configuration"][key], Value::Bool(false));
    assert_eq!(get("ports.xmpp").ok().result()["configuration"]["ports.xmpp"], 5222);
    get("ports.xmmp").exits(2).says(&["ports.xmpp"]);
    cluster.run(&["config", "set", "ports.xmpp", "many"]).exits(2);
    cluster.run(&["config", "set", "database.password", "planted-in-argv"]).exits(2).says(&["_file"]);
    assert_eq!(cluster.run(&["config", "set", key, "true"]).ok().changes(), 1);
    assert_eq!(cluster.run(&["config", "set", key, "true"]).ok().changes(), 0);
    assert_eq!(get(key).ok().result()["configuration"][key], Value::Bool(true));
    let drift = run_delivered(cluster, &["config", "diff"]).ok().result()["drift"].clone();
    let tasks: Vec<_> = drift.as_array().unwrap().iter().map(|one| one["task"].as_str().unwrap()).collect();
    assert!(tasks.contains(&"im/configuration"), "{tasks:?}");
    let installed = cluster.install().ok();
    assert!(applied(&installed).contains("solo im/configuration"));
    assert!(is_well(&installed.result()));
    assert_eq!(run_delivered(cluster, &["config", "diff"]).ok().result()["drift"], Value::Array(Vec::new()));
}

/// `logs` and `doctor`, on a cluster that is well and on one that is not.
fn logs_and_doctor(cluster: &Cluster) {
    let logs = cluster.run(&["logs", "im", "-n", "5"]).ok();
    let lines: Vec<_> = logs.events().into_iter().filter(|event| event["event"] == "log").collect();
    assert!((1..=5).contains(&lines.len()), "{}", logs.stdout);
    assert!(lines.iter().all(|line| line["host"] == "solo" && line["component"] == "im"), "{}", logs.stdout);
    let all = cluster.run(&["logs"]).ok();
    for component in ["im", "console", "mariadb", "redis"] {
        assert!(all.events().iter().any(|event| event["component"] == component), "no line of {component}");
    }
    cluster.run(&["logs", "--host", "sola"]).exits(2).says(&["solo"]);

    let doctor = || cluster.run(&["doctor"]);
    // How fast this machine syncs is not the cluster's state.
    let broken = |outcome: &Outcome| -> Vec<String> {
        let findings = outcome.result()["findings"].clone();
        let found = findings.as_array().unwrap().iter().filter(|one| one["verdict"] == "block");
        found
            .map(|one| format!("{} {}", one["component"], one["title"]))
            .filter(|one| !one.contains("disk"))
            .collect()
    };
    let well = doctor();
    assert!(broken(&well).is_empty(), "{:?}", broken(&well));
    let host = cluster.testbed.host("solo");
    host.sh("systemctl stop maxim-redis").unwrap();
    let sick = doctor().exits(1);
    assert!(broken(&sick).iter().any(|one| one.contains("redis")), "{:?}", broken(&sick));
    let findings = sick.result()["findings"].clone();
    let redis = findings.as_array().unwrap().iter().find(|one| one["component"] == "redis").unwrap();
    assert!(redis["fix"] != "" && redis["host"] == "solo", "{redis:#}");
    cluster.run(&["status"]).exits(1);
    host.sh("systemctl start maxim-redis").unwrap();
    cluster.wait_well();
    assert!(broken(&doctor()).is_empty());
}

/// `ca export` in every form, each read by a program of others, and held against what the servers show.
fn the_authority(cluster: &Cluster, xmpp: &str, web: &str) {
    let pem = authority(&cluster.person, &["-f", &cluster.file]);
    let folder = cluster.person.home();
    let export = |form: &str| {
        let path = folder.join(format!("ca.{form}"));
        let arguments = ["ca", "export", "--format", form, "-o", path.to_str().unwrap()];
        cluster.run(&arguments).ok();
        path
    };
    let (der, profile) = (export("der"), export("mobileconfig"));
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let fingerprint = |path: &Path, form: &str| {
        said(
            Command::new("openssl")
                .args(["x509", "-noout", "-fingerprint", "-sha256", "-inform", form, "-in"])
                .arg(path),
        )
    };
    let wanted = fingerprint(&pem, "PEM");
    assert_eq!(fingerprint(&der, "DER"), wanted);
    let told = cluster.run(&["ca", "export"]).ok().result()["fingerprint"].as_str().unwrap().to_owned();
    assert!(wanted.ends_with(&told), "{wanted} and {told}");
    let purpose = said(Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&pem));
    assert!(purpose.contains("CA:TRUE"), "{purpose}");
    // Apple's form, read by a reader of property lists; its certificate is the same.
    let read = "import plistlib, sys\np = plistlib.load(open(sys.argv[1], 'rb'))\n\
                [one] = p['PayloadContent']\nassert one['PayloadType'] == 'com.apple.security.root', one\n\
                assert p['PayloadType'] == 'Configuration' and p['PayloadUUID'] != one['PayloadUUID']\n\
                open(sys.argv[2], 'wb').write(one['PayloadContent'])\n";
    let taken = folder.join("from-profile.der");
    said(Command::new("python3").args(["-c", read]).arg(&profile).arg(&taken));
    assert_eq!(fs::read(&taken).unwrap(), fs::read(&der).unwrap());
    // What it is for: the servers' certificates are its, for this domain.
    let https = web.trim_start_matches("https://").trim_end_matches('/');
    let https = if https.contains(':') { https.to_owned() } else { format!("{https}:443") };
    for at in [xmpp, &https] {
        said(
            Command::new("openssl")
                .args(["s_client", "-connect", at, "-servername", DOMAIN, "-verify_hostname", DOMAIN])
                .args(["-verify_return_error", "-CAfile"])
                .arg(&pem)
                .stdin(std::process::Stdio::null()),
        );
    }
    for path in [&pem, &der, &profile] {
        let content = fs::read(path).unwrap();
        assert!(!String::from_utf8_lossy(&content).contains("PRIVATE"), "{} holds a key", path.display());
    }
}

/// `unlock`: an owner that died without a word, shown and removed by name.
fn locks(cluster: &Cluster) {
    let locks = |arguments: &[&str]| {
        cluster.run(&[&["unlock"], arguments].concat()).ok().result()["locks"].as_array().unwrap().clone()
    };
    assert!(locks(&[]).iter().all(|lock| lock["holder"].is_null()), "{:?}", locks(&[]));
    // Something to do, so that an install takes a while; its cable goes before it is killed.
    let host = cluster.testbed.host("solo");
    host.sh("echo '# by hand' >>/etc/maxim/mariadb/my.cnf").unwrap();
    let owner = crate::interruptions::leave_a_lock(cluster);
    // Its lease does not run out while a slow machine looks at it.
    let lock = "/run/maxim-lock.json";
    host.sh(&format!(
        "sed -i 's/\"expires\":[0-9]*/\"expires\":9999999999/' {lock} && grep -q 9999999999 {lock}"
    ))
    .unwrap();
    let held = locks(&[]);
    let holder = held.iter().find(|lock| !lock["holder"].is_null()).expect("the lock is held").clone();
    let shown = holder["holder"]["owner"].as_str().unwrap();
    assert!(shown.contains(&owner) && holder["host"] == "solo", "{owner} is not in {holder}");
    assert!(
        locks(&["--expired"]).iter().all(|lock| lock["removed"] == false),
        "a lease that runs is not expired"
    );
    cluster.install().exits(5).says(&[shown]);
    cluster.run(&["unlock", "--owner", "somebody else"]);
    assert!(locks(&[]).iter().any(|lock| !lock["holder"].is_null()), "of another owner, it stays");
    assert!(locks(&["--owner", shown]).iter().any(|lock| lock["removed"] == true));
    assert!(is_well(&cluster.install().ok().result()), "free again before the lease expired");
}

/// `stop`, `start` and `restart` of each component, and what systemd does to each by itself.
fn each_service(cluster: &Cluster) {
    let health = |component: &str| {
        let status = cluster.run(&["status"]).result();
        let all = status["components"].as_array().unwrap().clone();
        all.iter().find(|one| one["component"] == component).unwrap()["health"].as_str().unwrap().to_owned()
    };
    let host = cluster.testbed.host("solo");
    for component in ["redis", "mariadb", "im", "console"] {
        cluster.run(&["stop", component]).ok();
        assert_ne!(health(component), "well", "{component} was stopped");
        cluster.run(&["start", component]).ok();
        cluster.wait_well();
        let began = "systemctl show -p ExecMainStartTimestampMonotonic --value";
        let before = host.sh(&format!("{began} maxim-{component}")).unwrap();
        let others = host.sh(&format!("{began} maxim-mariadb maxim-redis maxim-im maxim-console")).unwrap();
        cluster.run(&["restart", component]).ok();
        cluster.wait_well();
        assert_ne!(
            host.sh(&format!("{began} maxim-{component}")).unwrap(),
            before,
            "{component} was restarted"
        );
        let after = host.sh(&format!("{began} maxim-mariadb maxim-redis maxim-im maxim-console")).unwrap();
        let same = others.lines().zip(after.lines()).filter(|(one, other)| !one.is_empty() && one == other);
        assert_eq!(same.count(), 3, "only {component} was restarted");
        // By hand, and by force (the IM core and the database are killed under traffic elsewhere).
        host.sh(&format!("systemctl restart maxim-{component}")).unwrap();
        if ["redis", "console"].contains(&component) {
            host.sh(&format!("systemctl kill -s KILL maxim-{component}")).unwrap();
        }
        cluster.wait_well();
    }
    cluster.run(&["restart", "postgresql"]).exits(2);
}
