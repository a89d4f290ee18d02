//! Backups of an embedded deployment, with real restic: made while it serves, checked and restored by Debian's own
//! restic, put back, also over a database that is missing or damaged, rebuilt from repository and kit alone, and fed with
//! what is wrong (killed: see `kills`).

use crate::embedded::Deployment;
use crate::product::{Outcome, Person, bundle, delivered, first_account, key_of, sign_in};
use maxim_tests::chat::Tls;
use maxim_tests::hosts::wait_for;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The other account.
pub const BOB: &str = "bob@localhost";
const BOBS: &str = "correct horse battery";

/// A deployment with a repository, and somebody who gives commands on it.
pub trait Backups {
    /// Who gives them.
    fn person(&self) -> &Person;

    /// A command with what it needs on this deployment.
    fn arguments(&self, command: &[&str]) -> Vec<String>;

    /// Debian's own restic on the repository; none when this machine has none.
    fn stock(&self, arguments: &[&str]) -> Option<String>;

    /// Runs a command on it.
    fn run(&self, command: &[&str]) -> Outcome {
        let arguments = self.arguments(command);
        self.person().run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The same once nobody who died holds a lock any more.
    fn run_when_free(&self, command: &[&str]) -> Outcome {
        let mut refused = None;
        wait_for("the lease of the dead owner to run out", Duration::from_mins(2), || {
            let outcome = self.run(command);
            if outcome.code != 5 {
                return Some(outcome);
            }
            refused = Some(outcome);
            None
        })
        .unwrap_or_else(|error| panic!("{error}: {refused:#?}"))
    }

    /// Complete sets, newest first.
    fn sets(&self) -> Vec<Value> {
        self.run(&["backup", "list"]).ok().result()["sets"].as_array().unwrap().clone()
    }
}

/// An embedded deployment whose repository is a folder.
pub struct Backed {
    /// The deployment.
    pub deployment: Deployment,
    repository: PathBuf,
}

impl Backed {
    /// Installs it with one account more.
    pub fn up() -> Self {
        let deployment = Deployment::install();
        let repository = deployment.person.home().join("repository");
        let backed = Self { deployment, repository };
        let value = format!("{{type: local, path: {}}}", backed.repository.display());
        backed.run(&["config", "set", "backup.repository", &value]).ok();
        backed
            .deployment
            .person
            .run_with(&backed.deployment.with_root(&["user", "add", BOB, "--password-stdin"]), BOBS)
            .ok();
        backed
    }

    /// The first account tells Bob something while he is away.
    pub fn say(&self, words: &str) {
        let result = &self.deployment.result;
        let (admin, password) = first_account(result);
        let root = ["--root", self.deployment.root.to_str().unwrap()];
        let at = self.deployment.endpoint("xmpp");
        let mut chat = sign_in(&self.deployment.person, &at, Tls::Start, &admin, &password, &root);
        chat.say(BOB, words).unwrap();
        chat.ping().unwrap();
        chat.leave().unwrap();
    }

    fn password(&self) -> String {
        let key = self.run(&["backup", "key", "export"]).ok().result();
        key["password"].as_str().unwrap().to_owned()
    }

    /// Packs with data, largest last.
    fn packs(&self) -> Vec<PathBuf> {
        let mut packs: Vec<PathBuf> = fs::read_dir(self.repository.join("data"))
            .unwrap()
            .flatten()
            .flat_map(|folder| fs::read_dir(folder.path()).unwrap().flatten())
            .map(|entry| entry.path())
            .collect();
        packs.sort_by_key(|path| fs::metadata(path).unwrap().len());
        packs
    }
}

impl Backups for Backed {
    fn person(&self) -> &Person {
        &self.deployment.person
    }

    /// restic comes from the bundle when the deployment has none.
    fn arguments(&self, command: &[&str]) -> Vec<String> {
        let all = self.deployment.with_root(command);
        let all = match command[0] {
            "backup" => delivered(&[&all[..], &["--output", "json", "--yes"]].concat()),
            _ => all,
        };
        all.into_iter().map(str::to_owned).collect()
    }

    fn stock(&self, arguments: &[&str]) -> Option<String> {
        let restic = Path::new("/usr/bin/restic");
        if !restic.is_file() {
            crate::skip("stock restic", "the package restic is not installed");
            return None;
        }
        let password = self.deployment.person.file("stock-password", &self.password());
        let output = Command::new(restic)
            .args(["--no-cache", "--password-file", &password, "-r"])
            .arg(&self.repository)
            .args(arguments)
            .env("HOME", self.deployment.person.home())
            .output()
            .unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "restic {arguments:?}: {said}");
        Some(said)
    }
}

/// Bob signs in and is handed what waits for him.
#[track_caller]
pub fn bob_reads(person: &Person, result: &Value, root: &Path, words: &str) {
    let at = result["endpoints"]["xmpp"][0].as_str().unwrap();
    let mut bob = sign_in(person, at, Tls::Start, BOB, BOBS, &["--root", root.to_str().unwrap()]);
    bob.hear(words, Duration::from_secs(10)).unwrap();
    bob.leave().unwrap();
}

#[test]
fn a_set_is_made_proven_checked_by_stock_restic_and_put_back() {
    let backed = Backed::up();
    backed.say("before the backup");
    let uploads = backed.deployment.root.join("data/im/uploads");
    fs::create_dir_all(uploads.join("空")).unwrap();
    fs::write(uploads.join("a.txt"), "as it was").unwrap();
    let made = backed.run(&["backup", "create"]).ok().result();
    let manifest = &made["manifest"];
    let tables = manifest["parts"][0]["tables"].as_array().unwrap();
    assert!(tables.iter().any(|table| table["table"] == "message" && table["rows"].as_u64() > Some(0)));
    assert!(manifest["canary"].is_null(), "no password in the output");

    if let Some(said) = backed.stock(&["check", "--read-data"]) {
        assert!(said.contains("no errors were found"), "{said}");
        let set = format!("set-{}", made["set"].as_str().unwrap());
        let listed: Value =
            serde_json::from_str(&backed.stock(&["snapshots", "--json", "--tag", &set]).unwrap()).unwrap();
        assert!(listed.as_array().unwrap().len() >= 3, "{listed}");
        let snapshot = manifest["parts"][0]["snapshot"].as_str().unwrap();
        let target = backed.deployment.person.home().join("stock");
        backed.stock(&["restore", snapshot, "--target", target.to_str().unwrap()]);
        let bytes = fs::read(target.join("im.sqlite")).unwrap();
        assert!(bytes.starts_with(b"SQLite format 3"));
        assert_eq!(bytes.len() as u64, manifest["parts"][0]["bytes"].as_u64().unwrap());
    }
    let verified = backed.run(&["backup", "verify", "--share", "100"]).ok().result();
    assert_eq!(
        verified["compared"],
        manifest["parts"].as_array().unwrap().iter().map(|part| part["bytes"].as_u64().unwrap()).sum::<u64>()
    );
    backed.run(&["backup", "drill"]).ok();
    assert!(!backed.deployment.root.join("data/drill").exists(), "the scratch is gone");
    let status = backed.run(&["status", "--output", "json"]).ok().result();
    assert_eq!(status["backup"]["backup"]["set"], made["set"]);
    assert_eq!(status["backup"]["drill"]["set"], made["set"]);

    // Uploaded files alone: what was changed, what came, and a folder that went.
    fs::write(uploads.join("a.txt"), "changed").unwrap();
    fs::write(uploads.join("b.txt"), "new").unwrap();
    fs::remove_dir(uploads.join("空")).unwrap();
    backed.run(&["backup", "restore", "--only", "files", "--overwrite"]).ok();
    assert_eq!(fs::read_to_string(uploads.join("a.txt")).unwrap(), "as it was");
    assert!(uploads.join("空").is_dir() && !uploads.join("b.txt").exists());

    // What came after the set goes with the restore, and is kept in the safety set.
    let eve = backed.deployment.with_root(&["user", "add", "eve@localhost", "--password-stdin"]);
    backed.deployment.person.run_with(&eve, BOBS).ok();
    backed.run(&["backup", "restore"]).exits(5).says(&["would overwrite database", "--overwrite"]);
    let restored = backed.run(&["backup", "restore", "--overwrite"]).ok().result();
    let users = backed.run(&["user", "list", "--output", "json"]).ok().stdout;
    assert!(users.contains(BOB) && !users.contains("eve@"), "{users}");
    bob_reads(
        &backed.deployment.person,
        &backed.deployment.result,
        &backed.deployment.root,
        "before the backup",
    );
    let safety = restored["safety_set"].as_str().unwrap();
    backed.run(&["backup", "restore", safety, "--overwrite"]).ok();
    assert!(backed.run(&["user", "list", "--output", "json"]).ok().stdout.contains("eve@"));

    let pruned = backed.run(&["backup", "prune", "--dry-run"]).ok().result();
    assert_eq!(pruned["applied"], false);
    let count = backed.sets().len();
    backed.run(&["backup", "prune"]).ok();
    assert_eq!(backed.sets().len(), count, "all of today's are newest, verified or safety sets");
    // A repository that is gone, as on a disk that is not mounted, is not made anew without a word: not by a second try either.
    let away = backed.repository.with_extension("away");
    fs::rename(&backed.repository, &away).unwrap();
    assert_ne!(backed.run(&["backup", "create"]).code, 0);
    let second = backed.run(&["backup", "create"]).says(&["is gone"]);
    assert_ne!(second.code, 0);
    assert!(!backed.repository.exists());
    fs::rename(&away, &backed.repository).unwrap();
    backed.run(&["backup", "create"]).ok();
    backed.stock(&["check"]);
}

/// The newest set of a deployment.
fn backed_set(person: &Person, root: &Path) -> String {
    let listed = person.run(&["backup", "list", "--root", root.to_str().unwrap(), "--output", "json"]).ok();
    listed.result()["sets"][0]["set"].as_str().unwrap().to_owned()
}

#[test]
fn repository_and_kit_alone_rebuild_everything() {
    let backed = Backed::up();
    backed.say("from the old machine");
    backed.run(&["backup", "create"]).ok();
    let person = &backed.deployment.person;
    let cluster = backed.deployment.root.join("cluster");
    let authority = fs::read(cluster.join("ca.pem")).unwrap();
    let page = fs::read_to_string(cluster.join("recovery-kit.txt")).unwrap();
    let password = page.lines().find_map(|line| line.strip_prefix("password:")).unwrap().trim();
    let file = fs::read_to_string(cluster.join("recovery-kit.json")).unwrap();
    assert!(!file.contains(password), "the file alone opens nothing");
    let kit = person.file("kit.json", &file);
    let right = person.file("right", password);
    let wrong = person.file("wrong", "not the password");
    for path in [&right, &wrong] {
        Command::new("chmod").args(["600", path]).status().unwrap();
    }
    person.run(&backed.deployment.with_root(&["uninstall", "--purge", "--yes"])).ok();
    assert!(!backed.deployment.root.exists());

    let new = person.home().join("new");
    let run = |password: &str| {
        let (bundle, key) = (bundle().display().to_string(), key_of(bundle()).display().to_string());
        person.run(&[
            "backup",
            "restore",
            "--kit",
            &kit,
            "--password-file",
            password,
            "--root",
            new.to_str().unwrap(),
            "--yes",
            "--output",
            "json",
            "--bundle",
            &bundle,
            "--trust-key",
            &key,
        ])
    };
    run(&wrong).exits(5).says(&["does not open this recovery kit"]);
    assert!(!new.join("cluster/topology.yaml").exists());
    run(&right).ok();
    assert_eq!(fs::read(new.join("cluster/ca.pem")).unwrap(), authority, "phones trust it as before");
    bob_reads(person, &backed.deployment.result, &new, "from the old machine");

    // Once more would put the set over a cluster that serves.
    run(&right).exits(5).says(&["there is a cluster already"]);
    // A run that was killed before the data was there: nobody takes the empty cluster for the real one, and data that is
    // there all the same is overwritten by nobody who has not said so.
    let marker = new.join("cluster/restore.json");
    assert!(!marker.exists());
    let set = backed_set(person, &new);
    let waiting = serde_json::json!({
        "set": set, "step": "waiting", "only": "all", "safety_set": "", "rebuilding": true, "fresh": null, "kept": [],
    });
    fs::write(&marker, waiting.to_string()).unwrap();
    let root = ["--root", new.to_str().unwrap(), "--yes"];
    person.run(&[&["backup", "create"][..], &root].concat()).exits(5).says(&["is being rebuilt", "--kit"]);
    run(&wrong).exits(5).says(&["does not open this recovery kit"]);
    run(&right).exits(5).says(&["hold data", "database", "--overwrite"]);
    let users =
        person.run(&["user", "list", "--root", new.to_str().unwrap(), "--output", "json"]).ok().stdout;
    assert!(users.contains(BOB), "{users}");
    person.run(&["uninstall", "--purge", "--yes", "--root", new.to_str().unwrap()]).ok();
}

#[test]
fn what_is_wrong_is_named_and_changes_nothing() {
    let backed = Backed::up();
    backed.run(&["backup", "list"]).exits(1).says(&["no backup was made"]);
    backed.run(&["config", "set", "backup.schedule", "61 3 * * *"]).exits(2).says(&["column 1", "minute"]);
    backed.run(&["config", "set", "backup.time_zone", "Mars/Olympus"]).exits(2).says(&["time zone"]);
    backed.run(&["backup", "create"]).ok();

    // Two at once: the second is told who has it.
    let lock =
        fs::File::options().read(true).write(true).open(backed.deployment.root.join("cluster/lock")).unwrap();
    lock.lock().unwrap();
    backed.run(&["backup", "create"]).exits(5).says(&["being worked on"]);
    drop(lock);

    // A key of another repository.
    let secrets = backed.deployment.root.join("cluster/secrets.json");
    let kept = fs::read_to_string(&secrets).unwrap();
    fs::write(&secrets, kept.replace(&backed.password(), "of-another-repository")).unwrap();
    backed.run(&["backup", "create"]).exits(1).says(&["does not open with this key"]);
    fs::write(&secrets, &kept).unwrap();

    // A flipped bit: verify names the pack, a drill fails, nothing of it reaches the database that serves.
    let pack = backed.packs().pop().unwrap();
    let good = fs::read(&pack).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 3] ^= 1;
    Command::new("chmod").arg("u+w").arg(&pack).status().unwrap();
    fs::write(&pack, &bad).unwrap();
    let name = pack.file_name().unwrap().to_string_lossy()[..8].to_owned();
    backed.run(&["backup", "verify", "--share", "100"]).exits(1).says(&["verification failed", &name]);
    assert_ne!(backed.run(&["backup", "drill"]).code, 0);
    assert_ne!(backed.run(&["backup", "restore", "--overwrite"]).code, 0);
    backed.run(&["status", "--output", "json"]).ok().says(&["verify_fails", "drill_fails"]);
    assert!(backed.run(&["user", "list"]).ok().stdout.contains(BOB));
    fs::write(&pack, &good).unwrap();
    backed.run(&["backup", "verify", "--share", "100"]).ok();
}

#[test]
fn a_database_that_is_missing_or_damaged_is_put_back() {
    let backed = Backed::up();
    backed.say("as it was");
    backed.run(&["backup", "create"]).ok();
    let place = |name: &str| backed.deployment.root.join("data/im").join(name);
    let (file, log) = (place("im.sqlite"), place("im.sqlite-wal"));
    let is_back = || {
        let users = backed.run(&["user", "list", "--output", "json"]).ok().stdout;
        assert!(users.contains(BOB) && !users.contains("eve@"), "{users}");
        bob_reads(&backed.deployment.person, &backed.deployment.result, &backed.deployment.root, "as it was");
    };
    let eve = backed.deployment.with_root(&["user", "add", "eve@localhost", "--password-stdin"]);
    backed.deployment.person.run_with(&eve, BOBS).ok();
    let written = fs::read(&log).unwrap();

    // It is gone, and so is its log.
    backed.run(&["stop"]).ok();
    for path in [&file, &log, &place("im.sqlite-shm")] {
        fs::remove_file(path).ok();
    }
    backed.run(&["backup", "restore", "--overwrite"]).ok();
    is_back();

    // Its log is there still, as after a crash: nothing of that gets into what is put back.
    backed.run(&["stop"]).ok();
    fs::remove_file(&file).unwrap();
    fs::write(&log, &written).unwrap();
    backed.run(&["backup", "restore", "--overwrite", "--without-safety-set"]).ok();
    is_back();

    // It is damaged: no safety set can be made of it, so it is overwritten only by who says that there shall be none.
    backed.run(&["stop"]).ok();
    let garbage = "not a database ".repeat(5000);
    fs::write(&file, &garbage).unwrap();
    let refused = backed.run(&["backup", "restore", "--overwrite"]).says(&["--without-safety-set"]);
    assert_ne!(refused.code, 0);
    assert_eq!(fs::read_to_string(&file).unwrap(), garbage, "nothing was overwritten");
    backed.run(&["backup", "restore", "--overwrite", "--without-safety-set"]).ok();
    is_back();
    let aside = place("im.sqlite.before-restore");
    assert_eq!(fs::read_to_string(&aside).unwrap(), garbage);

    // Had that set not helped, the next one leaves what was set aside where it is.
    backed.run(&["backup", "create"]).ok();
    let sets = backed.sets();
    let name = |number: usize| sets[number]["set"].as_str().unwrap();
    let marker = backed.deployment.root.join("cluster/restore.json");
    let has_eve = || backed.run(&["user", "list"]).ok().stdout.contains("eve@");
    let left = |set: &str, step: &str, more: &str| {
        let text = format!(
            r#"{{"set": "{set}", "step": "{step}", "only": "database", "safety_set": "", "rebuilding": false,
                "fresh": null, "kept": []{more}}}"#
        );
        fs::write(&marker, text).unwrap();
    };
    left(name(1), "exchanged", r#", "keeps_before": true"#);
    backed.run(&["backup", "restore", name(0), "--overwrite"]).ok();
    assert_eq!(fs::read_to_string(&aside).unwrap(), garbage);
    backed.run(&["backup", "restore", name(0), "--overwrite"]).ok();
    assert!(!aside.exists() && !marker.exists());

    // Killed before anything was in place, and served since: that is in the safety set of the run that goes on.
    backed.run(&["stop"]).ok();
    fs::copy(&file, place("im.sqlite.restoring")).unwrap();
    left(name(0), "exchanging", "");
    backed.run(&["start"]).ok();
    backed.deployment.person.run_with(&eve, BOBS).ok();
    let restored = backed.run(&["backup", "restore", "--overwrite"]).ok().result();
    assert!(!has_eve());
    backed.run(&["backup", "restore", restored["safety_set"].as_str().unwrap(), "--overwrite"]).ok();
    assert!(has_eve());

    // Killed in it, and what was received is gone, as on a new disk: it begins anew.
    left(name(0), "exchanging", "");
    backed.run(&["backup", "restore", "--overwrite"]).ok();
    assert!(!has_eve());
    backed.deployment.person.run(&backed.deployment.with_root(&["uninstall", "--purge", "--yes"])).ok();
}

/// A small file system of its own, gone with the test.
struct Small(PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_repository_loses_nothing() {
    let backed = Backed::up();
    let place = backed.deployment.person.home().join("small");
    fs::create_dir(&place).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&place).status().unwrap();
    assert!(mounted.success(), "the end-to-end tests run as root");
    let _small = Small(place.clone());
    let repository = place.join("r");
    let value = format!("{{type: local, path: {}}}", repository.display());
    backed.run(&["config", "set", "backup.repository", &value]).ok();
    backed.run(&["backup", "create"]).ok();
    let filler = place.join("filler");
    // Everything but what the file system rounds up.
    Command::new("dd").args(["if=/dev/zero", "bs=4k", &format!("of={}", filler.display())]).output().unwrap();
    backed.run(&["backup", "create"]).exits(1).says(&["no room", "prune"]);
    assert_eq!(backed.sets().len(), 1, "a set that was not finished does not exist");
    fs::remove_file(&filler).unwrap();
    backed.run(&["backup", "create"]).ok();
    backed.run(&["backup", "prune"]).ok();
    assert_eq!(backed.sets().len(), 1, "of one day the newest");
    backed.run(&["backup", "verify", "--share", "100"]).ok();
}
