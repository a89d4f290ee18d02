//! Backups of clusters on hosts that were installed over SSH: made by the schedule from the host that keeps the
//! repository, read by Debian's own restic, put back, and a database host that is gone for good replaced by a bare one
//! from repository and recovery kit alone; what was rebuilt then goes through an upgrade (see `backup_upgrade`). With the
//! 200,000 messages of the long run that is the whole demonstration of backups and upgrades.
//!
//! The ordinary run has MariaDB with a repository by SFTP on a host of its own; the long one adds PostgreSQL with S3 (see
//! `backup_faults`), more messages, and a timer of every minute.

use crate::cluster::{Cluster, DOMAIN, endpoint};
use crate::product::{Outcome, Person, authority, cluster_file, delivered, install_arguments};
use maxim_tests::chat::{Chat, Server, Tls};
use maxim_tests::hosts::{Host, HostSpec, wait_for};
use maxim_tests::traffic::{Open, Sender, archived};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PASSWORD: &str = "correct horse battery";
/// The keeper's copy of the cluster's state.
pub const STATE: &str = "/var/lib/maxim/backup/state/maxim/clusters/acme";
/// Where the host `vault1` keeps the repository.
pub const PLACE: &str = "/srv/sets";
/// Hours by which Asia/Shanghai is ahead of UTC, all year.
pub const SHANGHAI: u64 = 8;

/// Three hosts of a cluster, of which `app1` keeps the schedule, and bare ones beside them.
pub struct Site {
    /// Cluster of the first three hosts.
    pub cluster: Cluster,
    /// What the install said.
    pub installed: Value,
}

/// The hour of the day in which so many hours from now lie, where clocks are `ahead` of UTC. Schedules of some hours later
/// fire by themselves in no test.
pub fn hour_in(hours: u64, ahead: u64) -> u64 {
    (std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() / 3600 + hours + ahead) % 24
}

/// A section `backup` with a repository by SFTP on the host `vault1` of a testbed.
pub fn by_sftp(cluster: &Cluster) -> String {
    let [schedule, verify, drill] = [6, 7, 8].map(|hours| hour_in(hours, SHANGHAI));
    format!(
        "backup:\n  schedule: \"0 {schedule} * * *\"\n  verify: \"30 {verify} * * *\"\n  drill: \"0 {drill} * * 0\"\n  \
         time_zone: Asia/Shanghai\n  \
         repository: {{type: sftp, host: {}, path: {PLACE}, key: {}, known_hosts_file: {}}}\n",
        cluster.testbed.host("vault1").address(),
        cluster.testbed.key().display(),
        cluster.testbed.known_hosts().display(),
    )
}

impl Site {
    /// Installs, with further hosts that nothing is put on; `backup` makes the section `backup` of the topology.
    pub fn up(engine: &str, bare: &[&str], backup: impl FnOnce(&Cluster) -> String) -> Self {
        let mut hosts = vec![("app1", "im+console"), ("db1", engine), ("cache1", "redis")];
        hosts.extend(bare.iter().map(|&name| (name, "")));
        let hosts: Vec<_> = hosts.into_iter().map(|(name, roles)| (HostSpec::new(name), roles)).collect();
        let mut cluster = Cluster::bare(&hosts, "");
        let section = backup(&cluster);
        cluster.file =
            cluster_file(&cluster.person, &cluster.testbed, &["im+console", engine, "redis"], &section);
        let installed = cluster.install().ok().result();
        Self { cluster, installed }
    }

    /// A command on backups, of this person.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.cluster.run(&delivered(&[&["backup"], arguments, &["--yes"]].concat()))
    }

    /// What was done last, as `status` has it; asked again while a service of a busy machine does not answer.
    #[track_caller]
    pub fn record(&self) -> Value {
        let mut last = None;
        let found = wait_for("a status without a fault", Duration::from_mins(2), || {
            let status = self.cluster.run(&["status"]);
            if status.code == 0 {
                return Some(status.result()["backup"].clone());
            }
            last = Some(status);
            None
        });
        found.unwrap_or_else(|error| panic!("{error}: {last:#?}"))
    }

    fn opener(&self, person: &Person, user: &str) -> Open {
        let (at, user) = (endpoint(&self.installed, "xmpp", 0), user.to_owned());
        let authority = authority(person, &["-f", &self.cluster.file]);
        Box::new(move || {
            let server = Server { at: &at, tls: Tls::Start, domain: DOMAIN, authority: &authority };
            Chat::connect(&server, &user, PASSWORD)
        })
    }

    /// Makes an account.
    pub fn account(&self, name: &str) -> String {
        self.cluster.add_user(name, PASSWORD)
    }

    /// Starts to write to an account that is not there; what is acknowledged is counted.
    pub fn traffic(&self, from: &str, to: &str, word: &str) -> Sender {
        Sender::start(&format!("{to}@{DOMAIN}"), word, self.opener(&self.cluster.person, from))
    }

    /// Bodies in the archive of an account.
    pub fn archive(&self, person: &Person, user: &str) -> BTreeSet<String> {
        let mut chat = self.opener(person, user)().unwrap();
        let bodies = archived(&mut chat).unwrap();
        chat.leave().unwrap();
        bodies
    }

    /// Lets what is owed be done, as the timer does; the service's own words when it fails.
    #[track_caller]
    pub fn scheduled(&self) {
        let app = self.cluster.testbed.host("app1");
        let done = app.exec("systemctl start maxim-backup.service").unwrap();
        let log = app.sh("journalctl -u maxim-backup.service --no-pager | tail -n 40").unwrap();
        assert_eq!(done.code, 0, "{done:?}\n{log}");
    }

    /// Debian's own restic on the repository, from the control host by SFTP.
    pub fn stock(&self, arguments: &[&str]) -> Option<String> {
        self.stock_fed(arguments, "/dev/null")
    }

    /// The same with a file as its standard input.
    pub fn stock_fed(&self, arguments: &[&str], input: &str) -> Option<String> {
        self.stock_on("vault1", PLACE, arguments, input)
    }

    /// The same for a folder of a host.
    pub fn stock_on(&self, host: &str, folder: &str, arguments: &[&str], input: &str) -> Option<String> {
        let config = self.cluster.testbed.ssh_config();
        let ssh = format!("sftp.command=ssh -F {} {host} -s sftp", config.display());
        let place = format!("sftp:{host}:{folder}");
        self.stock_at(&["-o", &ssh, "-r", &place], &[], arguments, input)
    }

    /// The same for a repository that is told by these arguments and this environment.
    pub fn stock_at(
        &self,
        place: &[&str],
        environment: &[(&str, &str)],
        arguments: &[&str],
        input: &str,
    ) -> Option<String> {
        if !Path::new("/usr/bin/restic").is_file() {
            crate::skip("stock restic", "the package restic is not installed");
            return None;
        }
        let key = self.run(&["key", "export"]).ok().result();
        let password = private(&self.cluster.person, "stock", key["password"].as_str().unwrap());
        let said = Command::new("/usr/bin/restic")
            .args(["--no-cache", "--password-file", &password])
            .args(place)
            .args(arguments)
            .env("HOME", self.cluster.person.home())
            .envs(environment.iter().copied())
            .stdin(fs::File::open(input).unwrap())
            .output()
            .unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert!(said.status.success(), "restic {arguments:?}: {text}");
        Some(text)
    }
}

/// A file that only its owner reads.
pub fn private(person: &Person, name: &str, content: &str) -> String {
    let path = person.file(name, content);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Whether this is the long run.
pub fn long() -> bool {
    std::env::var_os("MAXIM_TEST_ALL").is_some()
}

/// Whether no job of the backups has failed since it last went well.
pub fn nothing_fails(record: &Value) -> bool {
    ["backup", "prune", "verify", "drill"].iter().all(|job| record[format!("{job}_fails")].is_null())
}

#[test]
fn a_schedule_over_ssh_makes_sets_and_a_lost_database_host_comes_back_from_them() {
    let mut site = Site::up("mariadb", &["vault1", "spare1"], by_sftp);
    the_keeper_may_back_up_and_nothing_else(&site);
    let all = written_while_a_set_is_made(&site, if long() { 200_000 } else { 1500 });
    the_timer_fires_and_makes_up_for_what_was_missed(&site);
    stock_restic_reads_it(&site);
    only_the_database_is_put_back(&site, &all);
    a_new_host_takes_the_place_of_the_lost_one(&mut site, &all);
    crate::backup_upgrade::what_was_rebuilt_goes_on_to_the_next_version(&site);
    nothing_is_missing(&site, &site.cluster.person, &all);
}

#[test]
fn a_timer_beside_the_database_proves_sets_by_restoring_them() {
    let [schedule, verify, drill] = [6, 7, 8].map(|hours| hour_in(hours, 0));
    let backup = format!(
        "backup:\n  schedule: \"0 {schedule} * * *\"\n  verify: \"30 {verify} * * *\"\n  drill: \"0 {drill} * * 0\"\n  \
         repository: {{type: local, path: /var/backups/maxim}}\n"
    );
    let cluster = Cluster::bare(&[(HostSpec::new("app1"), "im+console+postgresql+redis")], &backup);
    let installed = cluster.install().ok().result();
    let site = Site { cluster, installed };
    site.cluster.chat(&site.installed, "kept");
    let schedule = site.run(&["schedule"]).ok().result();
    assert_eq!(schedule["jobs"].as_array().unwrap().len(), 3, "{schedule}");
    site.scheduled();
    let record = site.record();
    let set = record["backup"]["set"].as_str().unwrap_or_else(|| panic!("{record:#}"));
    assert_eq!(record["verify"]["set"].as_str(), Some(set), "{record:#}");
    assert_eq!(record["drill"]["set"].as_str(), Some(set), "{record:#}");
    assert!(record["drill"]["rows"].as_u64().unwrap() > 0 && nothing_fails(&record), "{record:#}");
    // Nothing is left of what was restored to look at it, and what serves was not touched.
    let app = site.cluster.testbed.host("app1");
    let left = "find /var/lib/maxim /tmp -maxdepth 3 -name '*drill*'; ps -eo args | grep '[m]axim-im.*drill' || true";
    assert_eq!(app.sh(left).unwrap(), "");
    let names = "select rolname from pg_roles union select datname from pg_database";
    let roles = administrator(app, "postgresql", names);
    assert!(roles.contains("maxim\n") && !roles.contains("drill"), "{roles}");
    site.cluster.wait_well();
    site.cluster.chat(&site.installed, "after");

    // What is gone is no obstacle, and what takes its place belongs to whom it belonged to.
    app.sh("systemctl stop maxim-im").unwrap();
    administrator(app, "postgresql", "drop database maxim with (force)");
    site.run(&["restore", "--overwrite"]).ok();
    site.cluster.wait_well();
    site.cluster.chat(&site.installed, "again");
}

/// Root on another host is not to be had with the keeper's key, nor is anything that a backup does not need.
fn the_keeper_may_back_up_and_nothing_else(site: &Site) {
    let app = site.cluster.testbed.host("app1");
    assert_eq!(app.sh("stat -c '%a %U' /var/lib/maxim/backup/state").unwrap(), "700 root\n");
    assert_eq!(app.sh(&format!("find {STATE} -type f -perm /077")).unwrap(), "");
    let db = site.cluster.testbed.host("db1");
    let lines = db.read_file("/root/.ssh/authorized_keys").unwrap();
    assert!(lines.contains(" agent --backup-only ") && lines.contains("restrict,from="), "{lines}");
    let ask = |request: &str| {
        let said = app
            .exec(&format!(
                "echo '{request}' | ssh -o StrictHostKeyChecking=yes -o UserKnownHostsFile={STATE}/known_hosts \
                 -i {STATE}/id_ed25519 root@{} cat /etc/shadow",
                db.address()
            ))
            .unwrap();
        assert!(!said.stdout.contains("root:"), "{said:?}");
        said.stdout
    };
    assert!(ask("{\"op\":\"hello\"}").contains("\"access\":\"backup\""));
    let source = |name: &str| {
        json!({
            "kind": "mariadb", "service": "maxim-mariadb", "socket": "/run/maxim/mariadb/mariadb.sock",
            "database": name, "notes": "/var/lib/maxim/backup/dumps",
        })
    };
    let load = |name: &str, only_own: bool| json!({"op": "backup", "what": "receive", "source": source(name), "only_own": only_own});
    for request in [
        json!({"op": "read_file", "path": "/etc/maxim/maxim.yaml"}),
        json!({"op": "promote"}),
        load("maxim", true),
        load("maxim_drill", false),
        json!({"op": "backup", "what": "discard", "source": source("maxim")}),
        json!({"op": "backup", "what": "send", "source": {"kind": "tree", "path": "/etc", "owner": ""}}),
    ] {
        let said = ask(&request.to_string());
        assert!(said.contains("for backups"), "{request}: {said}");
    }
    // SQL of its own is read by nobody: no dump of that host begins so.
    let sql = "CREATE DATABASE planted;";
    let stream = format!("{}\n{{\"size\":{}}}\n{sql}{{\"size\":0}}", load("maxim_drill", true), sql.len());
    let said = ask(&stream);
    assert!(said.contains("no dump that this host has made"), "{said}");
    let databases = administrator(db, "mariadb", "show databases");
    assert!(!databases.contains("planted") && !databases.contains("drill"), "{databases}");
}

/// What the database server of a host answers its administrator; `sql` without quotation marks.
pub fn administrator(db: &Host, engine: &str, sql: &str) -> String {
    administrator_in(db, engine, if engine == "mariadb" { "mysql" } else { "postgres" }, sql)
}

/// The same in this database.
pub fn administrator_in(db: &Host, engine: &str, database: &str, sql: &str) -> String {
    let client = if engine == "mariadb" {
        format!("/usr/bin/mariadb -N -S /run/maxim/mariadb/mariadb.sock -e '{sql}' {database}")
    } else {
        format!(
            "sh -c '$(ls /usr/lib/postgresql/*/bin/psql | tail -n 1) -h /run/maxim/postgresql -U postgres -Atc \
             \"{sql}\" {database}'"
        )
    };
    let root = format!("main=$(systemctl show -p MainPID --value maxim-{engine}); chroot /proc/$main/root");
    db.sh(&format!("{root} {client}")).unwrap()
}

/// What was acknowledged before a set that was made by the service of the timer, with messages under way.
fn written_while_a_set_is_made(site: &Site, count: usize) -> BTreeSet<String> {
    let writers = if count > 50_000 { 4 } else { 1 };
    let mut open = Vec::new();
    for number in 0..writers {
        site.account(&format!("ann{number}"));
        site.account(&format!("bob{number}"));
        open.push(site.traffic(&format!("ann{number}"), &format!("bob{number}"), &format!("w{number}")));
    }
    let enough = |open: &[Sender]| open.iter().map(Sender::acknowledged).sum::<usize>() >= count;
    wait_for("messages to be acknowledged", Duration::from_mins(10), || enough(&open).then_some(())).unwrap();
    let before: BTreeSet<String> = if writers == 1 {
        open[0].acknowledged_bodies()
    } else {
        open.drain(..).flat_map(|sender| sender.end().unwrap().acknowledged).collect()
    };
    let app = site.cluster.testbed.host("app1");
    let process = || app.sh("systemctl show -p MainPID --value maxim-im").unwrap();
    let same = process();
    site.scheduled();
    for sender in open {
        let sent = sender.end().unwrap();
        assert!(sent.acknowledged.len() > before.len(), "it served while the set was made");
    }
    assert_eq!(process(), same, "nothing was restarted for it");
    let record = site.record();
    let set = record["backup"]["set"].as_str().unwrap_or_else(|| panic!("{record:#}"));
    assert_eq!(record["verify"]["set"].as_str(), Some(set));
    assert_eq!(record["drill"]["set"].as_str(), Some(set));
    assert!(record["drill"]["rows"].as_u64().unwrap() as usize >= count, "{record:#}");
    assert!(nothing_fails(&record), "{record:#}");
    // Neither the copy nor the account that loaded it is left.
    let names = "show databases; select user from mysql.user";
    let left = administrator(site.cluster.testbed.host("db1"), "mariadb", names);
    assert!(!left.contains("drill") && !left.contains("nobody"), "{left}");
    println!("{count} messages: {record:#}");
    let shown = site.cluster.person.run(&["status", "-f", &site.cluster.file]).ok();
    shown.says(&["backup:", "verified:", "proven restore:", set]);
    before
}

/// Missed runs are those before the last time that systemd remembers; that time is moved back.
fn the_timer_fires_and_makes_up_for_what_was_missed(site: &Site) {
    let app = site.cluster.testbed.host("app1");
    let timer = app.read_file("/etc/systemd/system/maxim-backup.timer").unwrap();
    let after_boots = |line: &str| line.starts_with("OnActiveSec=") || line.starts_with("OnBootSec=");
    assert!(timer.lines().any(after_boots), "what a power loss cut off is looked for after a boot: {timer}");
    for line in timer.lines() {
        if let Some(calendar) = line.strip_prefix("OnCalendar=") {
            let said = app.sh(&format!("systemd-analyze calendar '{calendar}'")).unwrap();
            assert!(said.contains("Next elapse"), "{said}");
        }
    }
    let next = site.run(&["schedule"]).ok().result();
    assert_eq!((&next["owed"], &next["time_zone"]), (&Value::from(false), &Value::from("Asia/Shanghai")));
    assert_eq!(next["jobs"].as_array().unwrap().len(), 3, "{next}");
    // An hour in Shanghai is one that was eight hours before in UTC; the timer's next is the earliest of all.
    let text = fs::read_to_string(&site.cluster.file).unwrap();
    let hour =
        text.split("schedule: \"0 ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    let hour = (hour.unwrap() + 24 - SHANGHAI) % 24;
    assert_eq!(next["next_unix"].as_u64().unwrap() % 86_400, hour * 3600, "{next}");
    let earliest = next["jobs"].as_array().unwrap().iter().filter_map(|job| job["next_unix"].as_i64()).min();
    let elapses =
        app.sh("date +%s -d \"$(systemctl show maxim-backup.timer -p NextElapseUSecRealtime --value)\"");
    assert_eq!(elapses.unwrap().trim().parse().ok(), earliest, "systemd and we mean the same");

    let record = "/var/lib/maxim/backup/record.json";
    let before = site.record()["backup"]["set"].clone();
    let long_ago = 3 * 86_400;
    app.sh(&format!(
        "at=$(sed -n 's/.*\"at_unix\": \\([0-9]*\\),/\\1/p' {record} | head -n 1) && \
         sed -i \"0,/$at/s//$((at - {long_ago}))/\" {record} && \
         touch -d '3 days ago' /var/lib/systemd/timers/stamp-maxim-backup.timer && \
         systemctl restart maxim-backup.timer"
    ))
    .unwrap();
    wait_for("the timer to make up for the missed run", Duration::from_mins(2), || {
        let now = site.record()["backup"]["set"].clone();
        (now.is_string() && now != before).then_some(())
    })
    .unwrap();
    wait_for("the service to end", Duration::from_mins(2), || {
        let state = app.sh("systemctl is-active maxim-backup.service; true").unwrap();
        (state.trim() == "inactive").then_some(())
    })
    .unwrap();
}

/// Debian's own restic lists, checks and restores, over SFTP.
fn stock_restic_reads_it(site: &Site) {
    let Some(said) = site.stock(&["check", "--read-data"]) else { return };
    assert!(said.contains("no errors were found"), "{said}");
    let sets = site.run(&["list"]).ok().result()["sets"].clone();
    let set = format!("set-{}", sets[0]["set"].as_str().unwrap());
    assert_eq!(sets[0]["kind"], "scheduled");
    let listed: Value =
        serde_json::from_str(&site.stock(&["snapshots", "--json", "--tag", &set]).unwrap()).unwrap();
    let database = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["tags"].as_array().unwrap().contains(&Value::from("part-database")))
        .unwrap();
    let target = site.cluster.person.home().join("stock-restored");
    site.stock(&["restore", database["id"].as_str().unwrap(), "--target", target.to_str().unwrap()]);
    let unpacked = Command::new("zstd").args(["-dc"]).arg(target.join("mariadb.sql.zst")).output().unwrap();
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    let dump = unpacked.stdout;
    let begins = String::from_utf8_lossy(&dump).contains("CREATE TABLE `message`");
    assert!(begins, "SQL as any MariaDB reads it");
}

/// A whole restore and one of the database alone, onto the same hosts.
fn only_the_database_is_put_back(site: &Site, all: &BTreeSet<String>) {
    site.account("late");
    site.run(&["restore"]).exits(5).says(&["would overwrite database", "--overwrite"]);
    site.run(&["restore", "--overwrite", "--only", "database"]).ok();
    let users = site.cluster.run(&["user", "list"]).ok().stdout;
    assert!(users.contains("bob0@") && !users.contains("late@"), "{users}");
    if long() {
        let safety = site.run(&["list"]).ok().result()["sets"].as_array().unwrap().clone();
        let safety = safety.iter().find(|set| set["kind"] == "safety").unwrap()["set"].as_str().unwrap();
        site.run(&["restore", safety, "--overwrite"]).ok();
        assert!(site.cluster.run(&["user", "list"]).ok().stdout.contains("late@"));
    }
    nothing_is_missing(site, &site.cluster.person, all);
}

#[track_caller]
fn nothing_is_missing(site: &Site, person: &Person, all: &BTreeSet<String>) {
    let mut found = BTreeSet::new();
    for number in 0..4 {
        if all.iter().any(|body| body.starts_with(&format!("w{number}-"))) {
            found.extend(site.archive(person, &format!("bob{number}")));
        }
    }
    let missing = all.difference(&found).count();
    assert_eq!(missing, 0, "of {} that were acknowledged before the set", all.len());
}

/// The host with the database is gone for good, and so is the control host: repository and kit remain.
fn a_new_host_takes_the_place_of_the_lost_one(site: &mut Site, all: &BTreeSet<String>) {
    site.run(&["create"]).ok();
    site.rebuild(&[("db1", "spare1")]);
    nothing_is_missing(site, &site.cluster.person, all);
    site.cluster.testbed.host("spare1").sh("systemctl is-active maxim-mariadb").unwrap();
    let again = install_arguments(&site.cluster.file);
    let again = site.cluster.person.run(&again.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    assert_eq!(again.changes(), 0, "it is the cluster that the topology describes");
    site.run(&["drill"]).ok();
    site.scheduled();
}

impl Site {
    /// These hosts and the control host go away for good; another person has the kit, and other hosts take their place.
    pub fn rebuild(&mut self, replaced: &[(&str, &str)]) {
        let testbed = &self.cluster.testbed;
        let state = self.cluster.person.home().join(".local/share/maxim/clusters/acme");
        let page = fs::read_to_string(state.join("recovery-kit.txt")).unwrap();
        let kit = fs::read_to_string(state.join("recovery-kit.json")).unwrap();
        let password = page.lines().find_map(|line| line.strip_prefix("password:")).unwrap().trim();
        let person = Person::new();
        fs::create_dir(person.home().join(".ssh")).unwrap();
        fs::copy(testbed.known_hosts(), person.home().join(".ssh/known_hosts")).unwrap();
        // What the topology names beside it, as the keys of S3, is in the kit.
        let mut file = fs::read_to_string(&self.cluster.file).unwrap();
        for (old, new) in replaced {
            testbed.host(old).power_off_hard().unwrap();
            let (old, new) = (testbed.host(old).address(), testbed.host(new).address());
            file = file.replace(&format!("address: {old},"), &format!("address: {new},"));
        }
        let kit = private(&person, "kit.json", &kit);
        let password = private(&person, "password", password);
        self.cluster.person = person;
        self.cluster.file = self.cluster.person.file("cluster.yaml", &file);
        let file = self.cluster.file.clone();
        let command =
            ["backup", "restore", "--kit", &kit, "--password-file", &password, "-f", &file, "--yes"];
        let begun = Instant::now();
        self.cluster.person.run(&delivered(&[&command[..], &["--output", "json"]].concat())).ok();
        println!("{replaced:?} were replaced from repository and kit in {:?}", begun.elapsed());
        let status = self.cluster.run(&["status"]).ok().result();
        self.installed["endpoints"] = status["endpoints"].clone();
    }
}
