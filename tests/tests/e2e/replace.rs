//! A dead host is replaced by a new one: the database host of three, destroyed for good, from a backup; killed in the
//! middle and completed; a host that is alive is refused; what the dead one knew holds no longer.

use crate::cluster::{Cluster, endpoint, is_well};
use crate::product::{Outcome, delivered, first_account, sign_in};
use crate::upgrade::FILES;
use maxim_tests::chat::Tls;
use maxim_tests::hosts::{HostSpec, wait_for};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::time::Duration;

impl Cluster {
    fn replace_arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let command = [&["host", "replace"], more, &["-f", &self.file, "--yes", "--output", "json"]].concat();
        delivered(&command)
    }

    fn replace(&self, more: &[&str]) -> Outcome {
        self.person.run(&self.replace_arguments(more))
    }

    /// The same once nobody who died holds a lock any more.
    fn replace_when_free(&self, more: &[&str]) -> Outcome {
        wait_for("the lease of the dead owner to run out", Duration::from_mins(2), || {
            let outcome = self.replace(more);
            (outcome.code != 5).then_some(outcome)
        })
        .unwrap()
    }

    fn secret(&self, name: &str) -> String {
        let path = self.person.home().join(".local/share/maxim/clusters/acme/secrets.json");
        let all: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        all[name].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_database_host_that_is_gone_for_good_is_replaced_from_a_backup() {
    let hosts = [("app1", "im+console"), ("db1", "mariadb"), ("cache1", "redis")]
        .map(|(name, roles)| (HostSpec::new(name), roles));
    let cluster = Cluster::with_spares(&hosts, &["db2", "cache2"], "");
    let repository = ["config", "set", "backup.repository", "{type: local, path: /var/backups/maxim}"];
    cluster.person.run(&[&repository[..], &["-f", &cluster.file]].concat()).ok();
    let result = cluster.install().ok().result();
    let at = endpoint(&result, "xmpp", 0);
    let (admin, password) = first_account(&result);
    let here = ["-f", cluster.file.as_str()];
    let kept = cluster.add_user("kept", "quite a secret");
    let mut chat = sign_in(&cluster.person, &at, Tls::Start, &admin, &password, &here);
    chat.say(&kept, "before the end").unwrap();
    chat.ping().unwrap();
    chat.leave().unwrap();
    let (db2, cache2) = (cluster.testbed.host("db2").address(), cluster.testbed.host("cache2").address());

    // Without a backup its data would be lost: that is said, and nothing is touched.
    let db1 = cluster.testbed.host("db1");
    db1.power_off_hard().unwrap();
    cluster.replace(&["db1", &db2]).exits(1).says(&["no backup was made", "--without-data"]);
    db1.boot().unwrap();
    cluster.wait_well();
    // Neither while it is alive.
    cluster.replace(&["db1", &db2]).exits(5).says(&["alive", "db1", "--alive"]);
    cluster.replace(&["db9", &db2]).exits(2).says(&["db9"]);
    cluster.run(&["backup", "create"]).ok();
    cluster.add_user("late", "quite a secret");
    cluster.replace(&["db1", &db2]).exits(5).says(&["alive"]);
    cluster.wait_well();
    db1.power_off_hard().unwrap();
    // Whoever looks is told that the stores are silent, and of the backups all the same.
    let status = cluster.run(&["status"]);
    // On a busy machine the IM core may need longer to say so than it is given.
    let told = ["not ready", "does not answer: "].iter().any(|words| status.stdout.contains(words));
    assert!(told, "{}", status.stdout);
    assert!(status.result()["backup"]["backup"]["set"].is_string(), "{}", status.stdout);
    let before = fs::read_to_string(&cluster.file).unwrap();
    let dry = cluster.replace(&["db1", &db2, "--dry-run"]).ok().result();
    assert_eq!((&dry["applied"], &dry["restored"]), (&Value::from(false), &serde_json::json!(["database"])));
    assert!(dry["changes"].as_u64().unwrap() > 5, "{dry:#}");
    assert_eq!(fs::read_to_string(&cluster.file).unwrap(), before, "a dry run changes no topology");
    assert_ne!(
        cluster.testbed.host("db2").exec("test -e /etc/maxim").unwrap().code,
        0,
        "nothing was put there"
    );

    // Killed when the new database host has begun, and completed by the same command.
    let mut child = cluster.person.start(&cluster.replace_arguments(&["db1", &db2]));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let begun = |line: String| {
        serde_json::from_str(&line)
            .is_ok_and(|event: Value| event["event"] == "task_finished" && event["step"] == "mariadb/service")
    };
    assert!(lines.any(begun), "the database host is provisioned");
    child.kill().unwrap();
    child.wait().unwrap();
    let somebody = cluster.try_sign_in(&at, &admin, &password);
    assert!(somebody.is_err(), "nobody is served from an empty database");
    let moved = format!("hosts.db1.address={db2}");
    let between = ["install", "-f", &cluster.file, "--set", &moved, "--yes"];
    cluster.person.run(&delivered(&between)).exits(5).says(&["not restored yet", "host replace db1"]);
    let replaced = cluster.replace_when_free(&["db1", &db2]).ok();
    let done = replaced.result();
    assert!(is_well(&done), "{done:#}");
    assert!(done["withdrawn"].as_array().unwrap().iter().any(|one| one.as_str().unwrap().contains("db1")));
    let after = fs::read_to_string(&cluster.file).unwrap();
    assert!(after.contains(&format!("name: db1, address: {db2}")), "{after}");
    assert_eq!(cluster.install().ok().changes(), 0, "nothing is left to do");
    let mut chat = sign_in(&cluster.person, &at, Tls::Start, &kept, "quite a secret", &here);
    chat.hear("before the end", Duration::from_secs(10)).unwrap();
    chat.leave().unwrap();
    assert!(cluster.try_sign_in(&at, &format!("late@{}", crate::cluster::DOMAIN), "quite a secret").is_err());
    cluster.chat(&result, "again");

    if std::env::var_os("MAXIM_TEST_ALL").is_none() {
        return;
    }
    // A cache, which has no data; under another name. Its password holds no longer.
    let old = cluster.secret("redis_password");
    let db = cluster.testbed.host("db2").sh(FILES).unwrap();
    cluster.testbed.host("cache1").power_off_hard().unwrap();
    let done = cluster.replace(&["cache1", &cache2, "--name", "cache9"]).ok().result();
    assert!(is_well(&done), "{done:#}");
    assert_eq!((&done["set"], &done["restored"]), (&Value::from(""), &serde_json::json!([])));
    assert_ne!(cluster.secret("redis_password"), old);
    let places = "grep -rl -- \"$1\" /etc/maxim /var/lib/maxim || true";
    let left = cluster.testbed.host("app1").sh(&format!("set -- '{old}'; {places}")).unwrap();
    assert_eq!(left, "", "the old password is nowhere");
    assert_eq!(cluster.testbed.host("db2").sh(FILES).unwrap(), db, "who is not concerned is left alone");
    let after = fs::read_to_string(&cluster.file).unwrap();
    assert!(after.contains(&format!("name: cache9, address: {cache2}")), "{after}");
    assert_eq!(cluster.install().ok().changes(), 0);
    cluster.chat(&result, "cached");
}

#[test]
fn a_machine_at_the_old_address_takes_the_place_of_a_dead_one() {
    let cluster = Cluster::bare(
        &[(HostSpec::new("app1"), "im+console+mariadb+redis"), (HostSpec::new("app2"), "im")],
        "",
    );
    let result = cluster.install().ok().result();
    let address = cluster.testbed.host("app2").address();
    let pins = || {
        let path = cluster.person.home().join(".local/share/maxim/clusters/acme/known_hosts");
        let mut lines: Vec<_> = fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let before = pins();
    cluster.testbed.put_another_machine("app2").unwrap();

    // It is not the machine that was known, so nothing is put there by anything else.
    cluster.install().exits(3).says(&["app2", "key"]);
    cluster.replace(&["app2", &address]).exits(3).says(&["app2", "ssh-keygen -R"]);
    assert_eq!(pins(), before, "what was known stays when it is refused");
    // Now the operator has seen to it that the new key is known.
    fs::copy(cluster.testbed.known_hosts(), cluster.person.home().join(".ssh/known_hosts")).unwrap();
    cluster.replace(&["app2", &address, "--dry-run"]).exits(3).says(&["app2", "Without --dry-run"]);
    let command = ["host", "replace", "app2", &address, "-f", &cluster.file];
    cluster.person.types(&delivered(&command), "y\n").exits(1).says(&["app2"]);
    assert_eq!(pins(), before, "nor is it forgotten when the plan is declined");
    assert_ne!(cluster.testbed.host("app2").exec("test -e /etc/maxim").unwrap().code, 0);

    let done = cluster.person.types(&delivered(&command), "app2\n").ok();
    done.says(&["certificate", "app2"]);
    assert_ne!(pins(), before);
    cluster.wait_well();
    assert_eq!(cluster.install().ok().changes(), 0, "nothing is left to do");
    cluster.chat(&result, "elsewhere");
}
