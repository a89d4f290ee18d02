//! What can go wrong with backups of a cluster on hosts, done to real runs: each is named, loses nothing, and the next
//! run is well again.
//!
//! The ordinary run has the faults that need no waiting; the long one has a full disk (which the embedded profile is
//! tried with in every run), clocks that are wrong, the host of the repository dying in the middle of a stream, and S3
//! beside SFTP.

use crate::backup_hosts::{PLACE, STATE, Site, by_sftp, long, private};
use crate::cluster::Cluster;
use crate::product::{delivered, signal};
use maxim_tests::hosts::{cache, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

impl Site {
    fn sets(&self) -> Vec<Value> {
        self.run(&["list"]).ok().result()["sets"].as_array().unwrap().clone()
    }

    /// The database serves, and holds what it should.
    fn serves(&self, user: &str) {
        assert!(self.cluster.run(&["user", "list"]).ok().stdout.contains(user));
    }

    /// Starts a command and waits for an event that fits.
    fn until(
        &self,
        arguments: &[&str],
        fits: impl Fn(&Value) -> bool,
    ) -> (Child, BufReader<std::process::ChildStdout>) {
        let arguments = delivered(
            &[&["backup"], arguments, &["--yes", "-f", &self.cluster.file, "--output", "json"]].concat(),
        );
        let mut child = self.cluster.person.start(&arguments);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while lines.read_line(&mut line).unwrap() > 0 {
            if serde_json::from_str::<Value>(&line).is_ok_and(|event| fits(&event)) {
                return (child, lines);
            }
            line.clear();
        }
        panic!("the command ended before that: {:?}", child.wait());
    }
}

#[test]
fn whatever_happens_to_a_backup_on_hosts_is_named_and_loses_nothing() {
    let site = Site::up("mariadb", &["vault1"], by_sftp);
    site.account("kept");
    site.scheduled();
    two_at_once(&site);
    a_wrong_key_and_a_flipped_bit(&site);
    a_set_of_a_newer_version(&site);
    if long() {
        a_full_repository(&site);
        a_clock_that_was_wrong(&site);
        the_repository_goes_away_half_way(&site);
    }
    site.serves("kept@");
    site.stock(&["check", "--read-data"]);
    site.run(&["drill"]).ok();
}

/// A command on backups with the state that the keeper was handed, as the service of the timer has it.
fn on_the_keeper(command: &str) -> String {
    format!(
        "XDG_DATA_HOME=/var/lib/maxim/backup/state $(ls -d /opt/maxim/bin/maxim-ctl*/maxim-ctl | head -n 1) \
         --cluster acme backup {command} --yes"
    )
}

/// From two places: the second is told who is at work, whether it is a schedule or a person.
fn two_at_once(site: &Site) {
    let app = site.cluster.testbed.host("app1");
    let (mut first, lines) = site
        .until(&["create"], |event| event["event"] == "task_started" && event["step"] == "backup/database");
    // It stands still until the second has come to the lock, which its agents renew.
    signal(&first, Signal::SIGSTOP);
    let second = app.exec(&on_the_keeper("prune"));
    signal(&first, Signal::SIGCONT);
    let second = second.unwrap();
    assert!(second.code == 5 && second.stderr.contains("being worked on"), "{second:?}");
    let count = lines.lines().count();
    assert!(count > 0 && first.wait().unwrap().success(), "the first one ends well");
}

fn a_wrong_key_and_a_flipped_bit(site: &Site) {
    let app = site.cluster.testbed.host("app1");
    app.sh(&format!(
        "cp {STATE}/secrets.json /root/kept && sed -i 's/: \"..../: \"0000/' {STATE}/secrets.json"
    ))
    .unwrap();
    let service = app.exec(&on_the_keeper("verify")).unwrap();
    assert!(service.code == 1 && service.stderr.contains("does not open with this key"), "{service:?}");
    app.sh(&format!("mv /root/kept {STATE}/secrets.json")).unwrap();

    let vault = site.cluster.testbed.host("vault1");
    let packs = vault.sh(&format!("find {PLACE}/data -type f -printf '%f\\n'")).unwrap();
    // A bit of each: whichever holds the database. The same again puts them right.
    let flip = format!(
        "for pack in $(find {PLACE}/data -type f); do chmod u+w $pack; at=$(($(stat -c %s $pack) / 3)); \
         byte=$(od -An -tu1 -j $at -N1 $pack); printf \"\\\\$(printf %o $((byte ^ 1)))\" | \
         dd of=$pack bs=1 seek=$at conv=notrunc status=none || exit 1; done"
    );
    vault.sh(&flip).unwrap();
    let verified = site.run(&["verify", "--share", "100"]).exits(1).says(&["verification failed"]);
    let named =
        packs.lines().any(|pack| format!("{}{}", verified.stdout, verified.stderr).contains(&pack[..8]));
    assert!(named, "{}", verified.stdout);
    assert_ne!(site.run(&["drill"]).code, 0, "a drill fails loudly");
    let record = site.record();
    assert!(
        record["verify_fails"]["times"].is_u64() && record["drill_fails"]["times"].is_u64(),
        "{record:#}"
    );
    let status = site.cluster.person.run(&["status", "-f", &site.cluster.file]);
    status.says(&["the drill failed"]);
    vault.sh(&flip).unwrap();
    site.run(&["verify", "--share", "100"]).ok();
    site.run(&["drill"]).ok();
}

/// Its manifest says so; the rest of it is a set as any other.
fn a_set_of_a_newer_version(site: &Site) {
    let newest = site.sets()[0].clone();
    let (set, manifest) = (newest["set"].as_str().unwrap(), newest["manifest"].as_str().unwrap());
    let Some(text) = site.stock(&["dump", manifest, "manifest.json"]) else { return };
    let mut value: Value = serde_json::from_str(&text).unwrap();
    value["version"] = "99.0.0".into();
    value["set"] = format!("{set}9").into();
    let folder = site.cluster.person.home().join("newer");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("manifest.json"), value.to_string()).unwrap();
    let tags = format!("maxim,set-{set}9,part-manifest,kind-manual,point-{},bytes-1", newest["point_unix"]);
    let file = folder.join("manifest.json").display().to_string();
    // As our own streams are: the file at the top of the snapshot.
    let command = [
        "backup",
        "--stdin-from-command",
        "--stdin-filename",
        "manifest.json",
        "--tag",
        &tags,
        "--",
        "cat",
        &file,
    ];
    if site.stock(&["version"]).is_some_and(|version| version.contains("restic 0.14")) {
        // Debian 12's restic reads standard input itself.
        site.stock_fed(&["backup", "--stdin", "--stdin-filename", "manifest.json", "--tag", &tags], &file);
    } else {
        site.stock(&command);
    }
    let newer = format!("{set}9");
    site.run(&["restore", &newer, "--overwrite"]).exits(5).says(&["99.0.0", "newer"]);
    site.serves("kept@");
    let snapshots: Value = serde_json::from_str(
        &site.stock(&["snapshots", "--json", "--tag", &format!("set-{newer}")]).unwrap(),
    )
    .unwrap();
    site.stock(&["forget", snapshots[0]["id"].as_str().unwrap()]);
}

/// The disk of the repository's host is full: no set comes of it, and those that are there stay whole.
fn a_full_repository(site: &Site) {
    let vault = site.cluster.testbed.host("vault1");
    let before = site.sets().len();
    vault
        .sh(&format!(
            "used=$(du -sm {PLACE} | cut -f1) && mkdir /srv/small && mount -t tmpfs -o size=$((used + 2))m tmpfs /srv/small && \
             cp -a {PLACE}/. /srv/small && mount --bind /srv/small {PLACE} && \
             (dd if=/dev/zero of=/srv/small/filler bs=4k status=none || true)"
        ))
        .unwrap();
    site.run(&["create"]).exits(1).says(&["no room", "prune", "backup"]);
    vault.sh("rm /srv/small/filler").unwrap();
    assert_eq!(site.sets().len(), before, "what was not finished does not exist");
    site.run(&["prune"]).ok();
    site.run(&["verify", "--share", "100"]).ok();
    vault.sh(&format!("umount {PLACE} && umount /srv/small")).unwrap();
    site.run(&["create"]).ok();
}

/// A set was made while the clock of the keeper was forty days ahead; then it was set right.
fn a_clock_that_was_wrong(site: &Site) {
    let app = site.cluster.testbed.host("app1");
    let folder = "/etc/systemd/system/maxim-backup.service.d";
    app.sh(&format!(
        "mkdir {folder} && printf '[Service]\\nEnvironment=LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 \
         FAKETIME=+40d\\n' >{folder}/clock.conf && systemctl daemon-reload"
    ))
    .unwrap();
    site.scheduled();
    app.sh(&format!("rm -r {folder} && systemctl daemon-reload")).unwrap();
    // Its point is what the database's host says, whose clock is right; its name and what is noted are the keeper's.
    let ahead = site.sets()[0].clone();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(ahead["point_unix"].as_u64().unwrap() <= now, "{ahead}");
    assert!(site.record()["backup"]["at_unix"].as_u64().unwrap() > now + 39 * 86_400, "{}", site.record());
    // What was done last lies ahead: a run is owed now, and not in forty days.
    assert_eq!(site.run(&["schedule"]).ok().result()["owed"], true);
    site.scheduled();
    assert_eq!(site.run(&["schedule"]).ok().result()["owed"], false);
    let would = site.run(&["restore", "--dry-run"]).ok().result();
    assert_ne!(would["preview"]["set"], ahead["set"], "the newest is the one that was made last");
    let verdicts = site.run(&["prune", "--dry-run"]).ok().result()["verdicts"].clone();
    let newest = &verdicts.as_array().unwrap()[0];
    assert_ne!(newest["set"]["set"], ahead["set"], "{verdicts}");
    assert!(newest["reasons"].as_array().is_some_and(|reasons| !reasons.is_empty()), "{verdicts}");
}

/// No power in the middle of a stream: the run fails in bounded time, no set exists, the next one is well.
fn the_repository_goes_away_half_way(site: &Site) {
    let before = site.sets().len();
    let vault = site.cluster.testbed.host("vault1");
    // Uploaded files that take a while to be sent, and that restic can make nothing smaller of.
    let app = site.cluster.testbed.host("app1");
    let uploads = "/var/lib/maxim/im/uploads";
    app.sh(&format!(
        "mkdir -p {uploads} && head -c 300M /dev/urandom >{uploads}/large && chown -R maxim: {uploads}"
    ))
    .unwrap();
    let (mut child, lines) = site.until(&["create"], |event| {
        event["event"] == "progress" && event["step"] == "backup/files" && event["done"].as_u64() > Some(0)
    });
    vault.power_off_hard().unwrap();
    let said: Vec<String> = lines.lines().map_while(Result::ok).collect();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(1), "{}", said.join("\n"));
    site.serves("kept@");
    app.sh(&format!("rm -r {uploads}")).unwrap();
    vault.boot().unwrap();
    wait_for("locks of the dead run to be free", Duration::from_mins(3), || {
        let made = site.run(&["create"]);
        (made.code == 0).then_some(())
    })
    .unwrap();
    assert_eq!(site.sets().len(), before + 1, "half a set does not exist");
    site.run(&["prune"]).ok();
}

/// A server of S3 on this machine, on the test network, for as long as this lives.
struct S3 {
    child: Child,
    endpoint: String,
}

impl S3 {
    fn start(cluster: &Cluster) -> Option<Self> {
        let program = cache().join("venv/bin/moto_server");
        if !program.is_file() {
            crate::skip("S3", "moto is not installed (tests/setup test)");
            return None;
        }
        let address = cluster.testbed.gateway();
        let port = TcpListener::bind((address.as_str(), 0)).unwrap().local_addr().unwrap().port();
        let child = Command::new(program)
            .args(["-H", &address, "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("S3 to listen", Duration::from_mins(1), || {
            std::net::TcpStream::connect((address.as_str(), port)).ok()
        })
        .unwrap();
        Some(Self { child, endpoint: format!("http://{address}:{port}") })
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn postgresql_with_s3_is_backed_up_by_schedule_and_rebuilt_on_new_hosts() {
    if !long() {
        println!("only in the long run (tests/run --all)");
        return;
    }
    let mut s3 = None;
    let mut site = Site::up("postgresql", &["new1", "new2", "new3"], |cluster| {
        s3 = S3::start(cluster);
        let Some(s3) = &s3 else { return String::new() };
        let keys = "[default]\naws_access_key_id = maxim\naws_secret_access_key = not-a-real-one\n";
        let file = private(&cluster.person, "s3-keys", keys);
        format!(
            "backup:\n  schedule: \"* * * * *\"\n  verify: \"0 4 * * 0\"\n  drill: \"0 5 * * 0\"\n  \
             repository: {{type: s3, endpoint: \"{}\", bucket: sets, prefix: acme, region: us-east-1, credentials_file: {file}}}\n",
            s3.endpoint
        )
    });
    let Some(s3) = &s3 else { return };
    site.account("ann");
    site.account("bob");
    let sender = site.traffic("ann", "bob", "w0");
    wait_for("messages", Duration::from_mins(1), || (sender.acknowledged() >= 500).then_some(())).unwrap();
    let all = sender.end().unwrap().acknowledged;
    // Nobody starts it: the timer of every minute does.
    let before = site.record()["backup"]["set"].clone();
    let fired = |last: &Value| {
        wait_for("the timer to make a set", Duration::from_mins(4), || {
            let now = site.record()["backup"]["set"].clone();
            (now.is_string() && now != *last).then_some(now)
        })
        .unwrap()
    };
    // The one after the next began after the last message.
    let next = fired(&before);
    fired(&next);
    site.cluster
        .testbed
        .host("app1")
        .sh("systemctl stop maxim-backup.timer && systemctl stop maxim-backup.service")
        .unwrap();
    site.run(&["create"]).ok();
    site.run(&["verify", "--share", "100"]).ok();
    site.run(&["drill"]).ok();
    site.run(&["restore", "--overwrite", "--only", "database"]).ok();
    stock_restic_reads_s3(&site, &s3.endpoint);

    // Nothing but the repository and the kit is left of it: all hosts are gone.
    site.rebuild(&[("app1", "new1"), ("db1", "new2"), ("cache1", "new3")]);
    let found = site.archive(&site.cluster.person, "bob");
    assert_eq!(all.difference(&found).count(), 0, "of {}", all.len());
}

/// Debian's own restic lists, checks and restores, from S3.
fn stock_restic_reads_s3(site: &Site, endpoint: &str) {
    let place = format!("s3:{endpoint}/sets/acme");
    let keys = [("AWS_ACCESS_KEY_ID", "maxim"), ("AWS_SECRET_ACCESS_KEY", "not-a-real-one")];
    let stock = |arguments: &[&str]| site.stock_at(&["-r", &place], &keys, arguments, "/dev/null");
    let Some(said) = stock(&["check", "--read-data"]) else { return };
    assert!(said.contains("no errors were found"), "{said}");
    let listed = stock(&["snapshots", "--json", "--tag", "part-database"]).unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let newest = listed.as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    let target = site.cluster.person.home().join("stock-from-s3");
    stock(&["restore", &newest, "--target", target.to_str().unwrap()]);
    let unpacked = Command::new("zstd").arg("-dc").arg(target.join("postgresql.sql.zst")).output().unwrap();
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    let dump = String::from_utf8_lossy(&unpacked.stdout).into_owned();
    assert!(dump.contains("CREATE TABLE public.message"), "SQL as any PostgreSQL reads it");
}
