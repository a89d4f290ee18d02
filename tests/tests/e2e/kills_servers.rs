//! The series on backups of `kills` on a host with a database server, where the exchange of a restore has several steps:
//! half of the restores are killed in it. Every other time the IM core is started before the restore is run again, as by
//! a boot in between: it serves all of the one or of the other database.
//!
//! The ordinary run has MariaDB, `create` and `restore`; the long one `drill`, too, and PostgreSQL.

use crate::backup::Backups;
use crate::backup_hosts::{Site, administrator, long};
use crate::cluster::{ALL, Cluster, DOMAIN, endpoint};
use crate::kills::{Ground, Victim, create_dies, drill_dies, every_set_is_whole, moments, restore_dies};
use crate::product::{Person, delivered, first_account};
use maxim_tests::hosts::{Host, HostSpec, wait_for};
use serde_json::Value;
use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const REPOSITORY: &str = "/var/backups/maxim";
const BOBS: &str = "correct horse battery";
/// So many of the five restores that are killed in the exchange, or just after it, are still in it at least.
const EXCHANGING: usize = 2;

/// Every role on one host, and the repository there. What it was when it was installed is `clean`.
pub struct Solo {
    /// It.
    pub site: Site,
    /// Its database.
    pub engine: &'static str,
    /// Databases, accounts and rights before anything was restored.
    pub clean: String,
    /// How far each restore had come that was killed.
    stood: RefCell<Vec<String>>,
}

impl Solo {
    /// Installs it, with a message that waits for Bob.
    pub fn up(engine: &'static str) -> Self {
        let roles = ALL.replace("mariadb", engine);
        let backup = format!("backup:\n  repository: {{type: local, path: {REPOSITORY}}}\n");
        let cluster = Cluster::bare(&[(HostSpec::new("solo"), &roles)], &backup);
        let installed = cluster.install().ok().result();
        let bob = cluster.add_user("bob", BOBS);
        let (admin, password) = first_account(&installed);
        let mut chat = cluster.try_sign_in(&endpoint(&installed, "xmpp", 0), &admin, &password).unwrap();
        chat.say(&bob, "survives").unwrap();
        chat.ping().unwrap();
        chat.leave().unwrap();
        let site = Site { cluster, installed };
        let mut solo = Self { site, engine, clean: String::new(), stood: RefCell::default() };
        solo.clean = solo.names();
        solo
    }

    /// The host.
    pub fn host(&self) -> &Host {
        self.site.cluster.testbed.host("solo")
    }

    /// Databases, accounts and rights.
    pub fn names(&self) -> String {
        let sql = if self.engine == "mariadb" {
            "show databases; select user, host from mysql.user order by 1, 2; \
             select db, user, host from mysql.db order by 1, 2, 3"
        } else {
            "select datname, pg_get_userbyid(datdba) from pg_database union all \
             select rolname, rolname from pg_roles order by 1, 2"
        };
        administrator(self.host(), self.engine, sql)
    }

    /// Where the control host notes how far a restore went.
    pub fn marker(&self) -> PathBuf {
        self.person().home().join(".local/share/maxim/clusters/acme/restore.json")
    }

    fn step(&self) -> String {
        let Ok(text) = fs::read_to_string(self.marker()) else { return "nothing".to_owned() };
        serde_json::from_str::<Value>(&text).unwrap()["step"].as_str().unwrap().to_owned()
    }
}

impl Backups for Solo {
    fn person(&self) -> &Person {
        &self.site.cluster.person
    }

    fn arguments(&self, command: &[&str]) -> Vec<String> {
        let all = [command, &["-f", &self.site.cluster.file]].concat();
        let all = match command[0] {
            "backup" => delivered(&[&all[..], &["--output", "json", "--yes"]].concat()),
            _ => all,
        };
        all.into_iter().map(str::to_owned).collect()
    }

    fn stock(&self, arguments: &[&str]) -> Option<String> {
        self.site.stock_on("solo", REPOSITORY, arguments, "/dev/null")
    }
}

impl Ground for Solo {
    const DOMAIN: &'static str = DOMAIN;

    fn served(&self) -> Option<String> {
        let databases = if self.engine == "mariadb" {
            "select schema_name from information_schema.schemata"
        } else {
            "select datname from pg_database"
        };
        let databases = administrator(self.host(), self.engine, databases);
        let ours: Vec<_> = databases.lines().filter(|name| name.starts_with("maxim")).collect();
        let step = self.step();
        println!("  it stood at '{step}', with {}", ours.join(", "));
        let mut stood = self.stood.borrow_mut();
        stood.push(step);
        if stood.len() % 2 == 1 {
            return self.accounts();
        }
        let served = wait_for("the IM core to serve what is there", Duration::from_mins(2), || {
            self.accounts().or_else(|| {
                // What the killed run has still at work may stop it once more.
                self.host().exec("systemctl start maxim-im").unwrap();
                None
            })
        });
        Some(served.unwrap())
    }

    fn is_tidy(&self) {
        assert_eq!(self.names(), self.clean, "databases, accounts and rights");
        let left = self.host().sh(
            "find /var/lib/maxim -maxdepth 3 '(' -name '*drill*' -o -name '*.restoring*' -o -name '*.before-restore*' ')' \
             2>/dev/null; ps -eo args | grep '[m]axim-im.*drill' || true",
        );
        assert_eq!(left.unwrap(), "");
    }
}

fn series(engine: &'static str) {
    let solo = Solo::up(engine);
    let mut create = Victim::measured(&solo, &["backup", "create"], None);
    let mut drill = long().then(|| Victim::measured(&solo, &["backup", "drill"], None));
    let mut restore = Victim::measured(&solo, &["backup", "restore", "--overwrite"], Some("exchange"));
    for moment in moments() {
        create_dies(&solo, &mut create, moment);
        if let Some(drill) = &mut drill {
            drill_dies(&solo, drill, moment);
        }
        restore_dies(&solo, &mut restore, moment);
    }
    let exchanging = solo.stood.borrow().iter().filter(|step| *step == "exchanging").count();
    assert!(!long() || exchanging >= EXCHANGING, "{:?}", solo.stood);
    every_set_is_whole(&solo);
    let cluster = &solo.site.cluster;
    cluster.wait_well();
    let at = endpoint(&solo.site.installed, "xmpp", 0);
    let mut bob = cluster.try_sign_in(&at, &format!("bob@{DOMAIN}"), BOBS).unwrap();
    bob.hear("survives", Duration::from_secs(10)).unwrap();
    bob.leave().unwrap();
    cluster.chat(&solo.site.installed, "after");
}

#[test]
fn backups_with_mariadb_killed_at_any_moment_leave_nothing_half_restored() {
    series("mariadb");
}

#[test]
fn backups_with_postgresql_killed_at_any_moment_leave_nothing_half_restored() {
    if !long() {
        println!("only in the long run (tests/run --all)");
        return;
    }
    series("postgresql");
}
