//! From one version to the next on hosts that serve, and back: under traffic, killed in the middle, with a bundle
//! that is broken, and with bundles that cannot follow.
//!
//! The versions are made by `tests/versions` (`MAXIM_TEST_VERSIONS` names a folder with others): `next`, with a real
//! change of the schema, `broken`, which starts and is ready and delivers nothing, and in the long run `after`, which
//! follows `next` only.

use crate::backup_hosts::long;
use crate::cluster::{ALL, Cluster, endpoint, is_well};
use crate::delivery::{Books, Load};
use crate::embedded::Deployment;
use crate::product::{Outcome, Person, bundle, checkout, key_of};
use maxim_tests::hosts::{HostSpec, cache, wait_for};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// One of the bundles of newer versions.
pub fn version(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os("MAXIM_TEST_VERSIONS") {
            return folder.into();
        }
        let folder = cache().join("tests/versions");
        let made = Command::new(checkout().join("tests/versions"))
            .arg(&folder)
            .args(long().then_some("--all"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        folder
    });
    folder.join(format!("{name}.bundle"))
}

/// What `bundle inspect` says a bundle's version is.
pub fn number(person: &Person, bundle: &Path) -> String {
    let shown = person.run(&["bundle", "inspect", bundle.to_str().unwrap(), "--output", "json"]).ok();
    shown.result()["manifest"]["version"].as_str().unwrap_or_else(|| panic!("{}", shown.stdout)).to_owned()
}

/// A digest of what lies on a host, beside the agent's own copies.
pub const FILES: &str = "find /opt/maxim /etc/maxim -not -path '/opt/maxim/agent*' | sort | sha256sum";

impl Cluster {
    /// The arguments of an upgrade to one of the versions.
    pub fn to(&self, name: &str) -> Vec<String> {
        let bundle = version(name).display().to_string();
        ["upgrade", "--bundle", &bundle, "--no-snapshot", "-f", &self.file, "--yes", "--output", "json"]
            .map(str::to_owned)
            .to_vec()
    }

    /// Upgrades to one of the versions, without a snapshot.
    pub fn upgrade(&self, name: &str) -> Outcome {
        let arguments = self.to(name);
        self.person.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Begins an upgrade and comes back when a host's turn has: the process, and the lines it has still to say.
    pub fn upgrade_until_turn_of(
        &self,
        host: &str,
        name: &str,
    ) -> (Child, impl Iterator<Item = String> + use<>) {
        let arguments = self.to(name);
        let mut child = self.person.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let is_its_turn = |event: Value| {
            event["event"] == "task_started" && event["step"] == "im/service" && event["host"] == host
        };
        let has_come = lines.any(|line| serde_json::from_str(&line).is_ok_and(is_its_turn));
        assert!(has_come, "{host} has its turn");
        (child, lines)
    }

    /// Versions of the IM cores that run, as `status` measures them.
    pub fn im_versions(&self) -> Vec<String> {
        im_versions(&self.run(&["status"]).result())
    }

    /// What the database says, as its administrator.
    fn sql(&self, host: &str, statement: &str) -> String {
        let host = self.testbed.host(host);
        let image = host.sh("ls -d /opt/maxim/images/mariadb-* | tail -n 1").unwrap();
        host.sh(&format!(
            "main=$(systemctl show -p MainPID --value maxim-mariadb); \
             chroot /proc/$main/root /usr/bin/mariadb -N -S /run/maxim/mariadb/mariadb.sock maxim -e '{statement}' \
             || echo failed in {}",
            image.trim()
        ))
        .unwrap()
    }
}

fn im_versions(result: &Value) -> Vec<String> {
    let all = result["components"].as_array().unwrap();
    all.iter()
        .filter(|one| one["component"] == "im")
        .map(|one| one["running"].as_str().unwrap().to_owned())
        .collect()
}

/// A copy of the next version with another manifest, signed by the key that the cluster trusts.
fn signed_anew(cluster: &Cluster, name: &str, change: impl Fn(String) -> String) -> String {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap());
    let secret = home.join(".local/share/maxim/keys/developer.key");
    let path = cluster.person.home().join(format!("{name}.bundle"));
    std::fs::copy(version("next"), &path).unwrap();
    crate::bundles::sign_anew(&cluster.person, &path, secret.to_str().unwrap(), "x86_64", change);
    path.display().to_string()
}

/// What a run said about how long nodes were away, and about messages through each host.
pub fn print_gaps(outcome: &Outcome) {
    for event in outcome.events() {
        if event["event"] == "note" && (event["step"] == "switch" || event["step"] == "drain") {
            println!("  {}: {}", event["host"], event["message"]);
        }
    }
}

/// Says what came of a load, and that nothing of it came twice.
pub fn nothing_doubled(what: &str, books: &Books) {
    println!(
        "{what}: {} acknowledged ({:.0} in a second), longest time without an acknowledgement {} ms",
        books.acknowledged,
        books.per_second,
        books.longest_pause.as_millis()
    );
    assert_eq!(books.doubled, 0, "{what}: messages came twice");
}

#[test]
fn one_node_is_upgraded_under_traffic_taken_back_and_finalized() {
    let cluster = Cluster::of_one();
    let result = cluster.install().ok().result();
    let at = endpoint(&result, "xmpp", 0);
    let (old, new) = (number(&cluster.person, bundle()), number(&cluster.person, &version("next")));
    assert_ne!(old, new);

    // What cannot follow is refused, and nothing is touched.
    let before = cluster.testbed.host("solo").sh(FILES).unwrap();
    let skips = signed_anew(&cluster, "later", |text| text.replace(r#""0.1""#, r#""0.0""#));
    let skipping = ["upgrade", "--bundle", &skips, "--no-snapshot", "-f", &cluster.file, "--yes"];
    cluster.person.run(&skipping).exits(5).says(&["cannot follow", &old]);
    if long() {
        cluster.upgrade("after").exits(5).says(&["cannot follow", &old]);
    }
    let plain = version("next").display().to_string();
    let without = ["upgrade", "--bundle", &plain, "-f", &cluster.file, "--yes", "--output", "json"];
    cluster.person.run(&without).exits(2).says(&["--no-snapshot"]);
    cluster
        .person
        .run(&["install", "--bundle", &plain, "-f", &cluster.file, "--yes"])
        .exits(5)
        .says(&["upgrade"]);
    let dry = cluster.to("next");
    let dry: Vec<_> = dry.iter().map(String::as_str).chain(["--dry-run"]).collect();
    let planned = cluster.person.run(&dry).ok();
    assert_eq!(planned.result()["applied"], false);
    assert_eq!(planned.result()["upgrade"]["to"], new.as_str());
    cluster.run(&["rollback", "--yes"]).exits(5).says(&["no upgrade"]);
    let after = cluster.testbed.host("solo").sh(FILES).unwrap();
    assert_eq!(before, after, "nothing was put on the host");

    let load = Load::start(&cluster, "one", true, &[&at], &[&at]);
    let upgraded = cluster.upgrade("next").ok();
    print_gaps(&upgraded);
    assert_eq!(im_versions(&upgraded.result()), [new.as_str()]);
    assert!(is_well(&upgraded.result()), "{:#}", upgraded.result());
    load.goes_on(50);
    let books = load.end_with_nothing_lost(&at);
    nothing_doubled("one node", &books);
    let tables = || cluster.sql("solo", "show tables");
    assert!(tables().contains("account_presence") && tables().contains("last_activity"), "{}", tables());
    let status = cluster.run(&["status"]).ok().result();
    assert_eq!(status["upgrade"]["phase"], "switched", "{status:#}");
    assert_eq!(status["upgrade"]["from"], old.as_str());
    assert_eq!(cluster.upgrade("next").ok().changes(), 0, "a second run changes nothing");

    // The older bundle is no upgrade; the way back is the rollback.
    let first = bundle().display().to_string();
    let older =
        ["upgrade", "--bundle", &first, "--no-snapshot", "-f", &cluster.file, "--yes", "--output", "json"];
    cluster.person.run(&older).exits(5).says(&["older", "rollback"]);
    let load = Load::start(&cluster, "back", true, &[&at], &[&at]);
    let back = cluster.run(&["rollback", "--yes"]).ok();
    print_gaps(&back);
    assert_eq!(im_versions(&back.result()), [old.as_str()]);
    load.goes_on(50);
    let books = load.end_with_nothing_lost(&at);
    nothing_doubled("back again", &books);
    assert_eq!(cluster.install().ok().changes(), 0, "it is to the byte what it was");
    cluster.run(&["rollback", "--yes"]).exits(5);

    // Forwards once more, with a repository: a safety set is made first, of what the version before had.
    let set = ["config", "set", "backup.repository", "{type: local, path: /var/backups/maxim}"];
    cluster.person.run(&[&set[..], &["-f", &cluster.file]].concat()).ok();
    cluster.install().ok();
    let forwards = cluster.person.run(&without).ok();
    assert_eq!(im_versions(&forwards.result()), [new.as_str()]);
    let sets = || cluster.run(&["backup", "list"]).ok().result()["sets"].as_array().unwrap().clone();
    let first = sets();
    assert_eq!((first.len(), &first[0]["kind"]), (1, &Value::from("safety")), "{first:#?}");

    // A set of the newer version does not go onto the older one.
    cluster.run(&["backup", "create"]).ok();
    let newer = sets()[0]["set"].as_str().unwrap().to_owned();
    cluster.run(&["rollback", "--yes"]).ok();
    let restore = |set: &str| cluster.run(&["backup", "restore", set, "--overwrite", "--yes"]);
    restore(&newer).exits(5).says(&["was made by version", &new, &old]);
    restore(first[0]["set"].as_str().unwrap()).ok();
    cluster.wait_well();

    // And past the point of no return.
    cluster.upgrade("next").ok();
    let owners = |table: &str| cluster.sql("solo", &format!("select owner from {table}"));
    let known = owners("last_activity");
    assert!(known.lines().count() > 1, "who was there before: {known}");
    cluster.run(&["upgrade", "--finalize", "--yes"]).ok();
    let kept = owners("account_presence");
    assert!(known.lines().all(|owner| kept.lines().any(|line| line == owner)), "{known} became {kept}");
    assert!(tables().contains("account_presence") && !tables().contains("last_activity"), "{}", tables());
    cluster.run(&["rollback", "--yes"]).exits(5).says(&["finalized"]);
    let programs = cluster.testbed.host("solo").sh("ls /opt/maxim/bin").unwrap();
    assert!(
        !programs.contains(&format!("maxim-im-{old}-")),
        "nothing is left of the version before: {programs}"
    );
    cluster.wait_well();
    cluster.chat(&result, "finalized");
    if long() {
        // Version by version it goes on: what could not follow the first one follows this one.
        let after = cluster.upgrade("after").ok().result();
        assert_eq!(im_versions(&after), [number(&cluster.person, &version("after")).as_str()]);
        cluster.wait_well();
        cluster.chat(&result, "after");
    }
}

/// Whether the event with this number is the one to kill at.
type Moment<'a> = &'a dyn Fn(usize, &Value) -> bool;

/// Kills an upgrade at the event that is `wanted`. None: it was refused, because the lock of the one before was still
/// held. False: it ended before.
fn killed_at(cluster: &Cluster, wanted: impl Fn(usize, &Value) -> bool) -> Option<bool> {
    let arguments = cluster.to("next");
    let mut child = cluster.person.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let hit = lines
        .map_while(Result::ok)
        .enumerate()
        .any(|(number, line)| serde_json::from_str(&line).is_ok_and(|event: Value| wanted(number, &event)));
    if hit {
        child.kill().unwrap();
    }
    let ended = child.wait().unwrap();
    (hit || ended.code() != Some(5)).then_some(hit)
}

#[test]
fn two_nodes_are_upgraded_one_after_the_other_and_nothing_is_lost() {
    let cluster = Cluster::bare(
        &[
            (HostSpec::new("app1"), "im+console"),
            (HostSpec::new("app2"), "im"),
            (HostSpec::new("db1"), "postgresql+redis"),
        ],
        "",
    );
    let result = cluster.install().ok().result();
    let (one, two) = (endpoint(&result, "xmpp", 0), endpoint(&result, "xmpp", 1));
    let new = number(&cluster.person, &version("next"));
    let loads = [("here", &one, &two), ("there", &two, &one)]
        .map(|(name, from, to)| Load::start(&cluster, name, true, &[from, to], &[to, from]));

    // Killed twice on the way, somewhere before anything is switched, and while a node is; what is done stays done.
    let seed = std::env::var("MAXIM_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| std::process::id() as usize);
    let moment = 40 + seed % 120;
    let (node, event) = (["app1", "app2"][seed % 2], ["task_started", "task_finished"][seed / 2 % 2]);
    println!("seed {seed}: killed after event {moment}, and at {event} of im/service on {node}");
    let kills: [Moment<'_>; 2] = [&|number, _| number == moment, &|_, now| {
        now["event"] == event && now["step"] == "im/service" && now["host"] == node
    }];
    for wanted in kills {
        let hit = wait_for("the lock to be free", Duration::from_mins(2), || killed_at(&cluster, wanted));
        assert!(hit.unwrap(), "the upgrade had ended before");
        let state = cluster.run(&["status"]).result();
        println!("  it stood at {}, running {:?}", state["upgrade"], im_versions(&state));
    }
    let upgraded = wait_for("the lock to be free", Duration::from_mins(2), || {
        let outcome = cluster.upgrade("next");
        (outcome.code != 5).then_some(outcome)
    })
    .unwrap()
    .ok();
    print_gaps(&upgraded);
    assert_eq!(im_versions(&cluster.run(&["status"]).result()), [new.as_str(), new.as_str()]);
    for load in loads {
        load.goes_on(50);
        let books = load.end_with_nothing_lost(&one);
        nothing_doubled("two nodes", &books);
    }
    cluster.wait_well();
    cluster.chat(&result, "upgraded");
    cluster.run(&["upgrade", "--finalize", "--yes"]).ok();
    cluster.chat(&result, "finalized");
}

#[test]
fn a_broken_version_is_taken_back_by_itself() {
    let cluster = Cluster::bare(
        &[(HostSpec::new("app1"), "im+console+mariadb+redis"), (HostSpec::new("app2"), "im")],
        "",
    );
    let result = cluster.install().ok().result();
    let old = number(&cluster.person, bundle());
    let (one, two) = (endpoint(&result, "xmpp", 0), endpoint(&result, "xmpp", 1));
    let loads = [("here", &one, &two), ("there", &two, &one)]
        .map(|(name, from, to)| Load::start(&cluster, name, true, &[from, to], &[to, from]));
    let failed = cluster.upgrade("broken").exits(1).says(&["taken back", &old]);
    print_gaps(&failed);
    for load in loads {
        load.goes_on(50);
        nothing_doubled("taken back", &load.end_with_nothing_lost(&one));
    }
    assert_eq!(cluster.im_versions(), [old.as_str(), old.as_str()]);
    let status = cluster.run(&["status"]).ok().result();
    assert_eq!(status["upgrade"]["phase"], "rolled_back", "{status:#}");
    assert!(status["upgrade"]["failure"].as_str().unwrap().contains("message"), "{status:#}");
    cluster.chat(&result, "flows");
    assert_eq!(cluster.install().ok().changes(), 0, "it is to the byte what it was");
    // A whole bundle of the same version then goes through, though a host loses its power in its turn.
    let (mut child, lines) = cluster.upgrade_until_turn_of("app2", "next");
    cluster.testbed.host("app2").power_off_hard().unwrap();
    cluster.testbed.host("app2").boot().unwrap();
    let rest: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success(), "{rest:#?}");
    assert!(rest.iter().any(|line| line.contains("connected again")), "{rest:#?}");
    let new = number(&cluster.person, &version("next"));
    assert_eq!(cluster.im_versions(), [new.as_str(), new.as_str()]);
    cluster.wait_well();
    cluster.chat(&result, "whole");
}

#[test]
fn a_bundle_of_another_key_is_refused() {
    let cluster = Cluster::bare(&[(HostSpec::new("solo"), ALL)], "");
    cluster.install().ok();
    let person = &cluster.person;
    // The same bytes, signed by somebody else.
    let (secret, public) = (person.home().join("other.key"), person.home().join("other.pub"));
    let made = Command::new("minisign")
        .args(["-G", "-W", "-f", "-s"])
        .arg(&secret)
        .arg("-p")
        .arg(&public)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let other = person.home().join("other.bundle");
    std::fs::copy(version("next"), &other).unwrap();
    crate::bundles::sign_anew(person, &other, secret.to_str().unwrap(), "x86_64", |text| text);
    let upgrade =
        ["upgrade", "--bundle", other.to_str().unwrap(), "--no-snapshot", "-f", &cluster.file, "--yes"];
    person.run(&upgrade).exits(5).says(&["key"]);
    // Even when it is named: the pinned one counts.
    let named = [&upgrade[..], &["--trust-key", public.to_str().unwrap()]].concat();
    person.run(&named).exits(5).says(&["key"]);
    assert_eq!(cluster.im_versions(), [number(person, bundle())]);
}

#[test]
fn an_embedded_deployment_goes_forwards_and_back() {
    let person = Person::new();
    let (first, key) = (bundle().display().to_string(), key_of(bundle()).display().to_string());
    let deployment = Deployment::install_with(person, &["--bundle", &first, "--trust-key", &key]);
    let person = &deployment.person;
    let run = |arguments: &[&str]| {
        person.run(&deployment.with_root(&[arguments, &["--yes", "--output", "json"]].concat()))
    };
    let (old, new) = (number(person, bundle()), number(person, &version("next")));
    let [next, broken] = ["next", "broken"].map(|name| version(name).display().to_string());
    run(&["upgrade", "--bundle", &first, "--no-snapshot"]).ok().says(&["\"changes\":0"]);
    run(&["upgrade", "--bundle", &broken, "--no-snapshot"]).exits(1).says(&["taken back"]);
    let status = || run(&["status"]).ok().result();
    assert_eq!(im_versions(&status()), [old.as_str()]);
    // With a repository a safety set is made first.
    run(&["upgrade", "--bundle", &next]).exits(2).says(&["no repository", "--no-snapshot"]);
    let repository = format!("{{type: local, path: {}}}", person.home().join("repository").display());
    run(&["config", "set", "backup.repository", &repository]).ok();
    let supervisor = || {
        let pid = std::fs::read_to_string(deployment.root.join("run/supervisor.pid")).unwrap();
        let program = std::fs::read_link(format!("/proc/{}/exe", pid.split(' ').next().unwrap())).unwrap();
        program.display().to_string()
    };
    assert!(!supervisor().contains("/programs/"), "it is the one that installed: {}", supervisor());
    let upgraded = run(&["upgrade", "--bundle", &next]).ok();
    print_gaps(&upgraded);
    assert_eq!(im_versions(&status()), [new.as_str()]);
    assert!(supervisor().contains("/cluster/programs/") && supervisor().contains(&format!("-{new}-")));
    let sets = run(&["backup", "list"]).ok().result()["sets"].clone();
    let kinds: Vec<&str> = sets.as_array().unwrap().iter().map(|set| set["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["safety"], "{sets}");
    run(&["upgrade", "--bundle", &first, "--no-snapshot"]).exits(5).says(&["older", "rollback"]);
    run(&["backup", "create"]).ok();
    let newer = run(&["backup", "list"]).ok().result()["sets"][0]["set"].as_str().unwrap().to_owned();
    run(&["rollback"]).ok();
    assert_eq!(im_versions(&status()), [old.as_str()]);
    run(&["backup", "restore", &newer, "--overwrite"]).exits(5).says(&["was made by version", &new, &old]);
    run(&["upgrade", "--bundle", &next, "--no-snapshot", "--finalize"]).ok();
    assert_eq!(im_versions(&status()), [new.as_str()]);
    run(&["rollback"]).exits(5).says(&["finalized"]);
    run(&["uninstall", "--purge"]).ok();
}
