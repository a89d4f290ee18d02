//! Restores over the database of a server that is damaged: what cannot be read any more is set aside, stays there until a
//! set has helped, and where it cannot even be set aside, the way by hand that the operator's guide names.

use crate::backup::Backups;
use crate::backup_hosts::administrator_in;
use crate::kills::Ground;
use crate::kills_servers::Solo;
use maxim_tests::hosts::wait_for;
use std::fs;
use std::time::Duration;

const DATA: &str = "/var/lib/maxim";

impl Solo {
    fn make_set(&self) -> String {
        self.run(&["backup", "create"]).ok().result()["set"].as_str().unwrap().to_owned()
    }

    fn add(&self, name: &str) {
        self.site.cluster.add_user(name, "correct horse battery");
    }

    /// Whether an account is in this database.
    fn has(&self, database: &str, name: &str) -> bool {
        let sql = "select address from account";
        administrator_in(self.host(), self.engine, database, sql)
            .lines()
            .any(|line| line.starts_with(&format!("{name}@")))
    }

    fn restore(&self, more: &[&str]) -> crate::product::Outcome {
        self.run(&[&["backup", "restore"], more, &["--overwrite"]].concat())
    }

    fn restores(&self, more: &[&str]) {
        assert_eq!(self.restore(more).ok().result()["applied"], true);
        assert!(!self.marker().exists());
        self.site.cluster.wait_well();
    }

    /// Stops its server, does this to its files, starts it again.
    fn damage(&self, script: &str) {
        let (host, engine) = (self.host(), self.engine);
        self.run(&["stop"]).ok();
        host.sh(&format!("systemctl stop maxim-{engine}; cd {DATA}/{engine}/data && {script}")).unwrap();
        host.sh(&format!("systemctl start maxim-{engine}")).unwrap();
        self.run(&["start"]);
        wait_for("the server to answer", Duration::from_mins(1), || {
            host.exec(&format!("systemctl is-active maxim-{engine}")).ok().filter(|said| said.code == 0)
        })
        .unwrap();
    }

    /// A set takes the place of what was damaged, and does not come up; another one helps.
    fn keeps_what_was_set_aside(&self) {
        let first = self.make_set();
        self.add("eve");
        self.restores(&[&first, "--without-safety-set"]);
        assert!(self.has("maxim_before", "eve") && !self.has("maxim", "eve"));
        self.add("grace");
        let second = self.make_set();
        let left = format!(
            r#"{{"set": "{first}", "step": "exchanged", "only": "all", "safety_set": "", "rebuilding": false,
                "fresh": null, "kept": [], "keeps_before": true}}"#
        );
        fs::write(self.marker(), left).unwrap();
        // Both would be of worth, and there is one place.
        let refused = self.restore(&[&second, "--without-safety-set"]);
        refused.exits(5).says(&["would be lost", "maxim_before"]);
        self.restores(&[&second]);
        assert!(self.has("maxim", "grace") && self.has("maxim_before", "eve"), "{}", self.names());
        assert!(!self.names().contains("maxim_away") && !self.names().contains("maxim_restore"));
        // One that has helped is the end of it.
        self.restores(&[&second]);
        assert_eq!(self.names(), self.clean);
    }
}

#[test]
fn what_mariadb_cannot_read_stays_until_a_set_has_helped() {
    let solo = Solo::up("mariadb");
    solo.keeps_what_was_set_aside();

    // A table whose file is gone cannot be set aside: nothing is put in place, and nothing is in the middle of it.
    solo.damage("rm maxim/account.ibd");
    assert_ne!(solo.restore(&[]).says(&["--without-safety-set"]).code, 0);
    assert_ne!(solo.restore(&["--without-safety-set"]).says(&["nothing was put in place"]).code, 0);
    assert!(!solo.marker().exists());
    assert!(!solo.names().contains("maxim_restore"), "{}", solo.names());
    // By hand, as the operator's guide has it.
    solo.run(&["stop"]).ok();
    solo.host().sh(&format!("mv {DATA}/mariadb/data {DATA}/mariadb/data.damaged")).unwrap();
    solo.site.cluster.install().ok();
    solo.restores(&[]);
    assert!(solo.accounts().unwrap().contains("bob@"));
    solo.host().sh(&format!("rm -r {DATA}/mariadb/data.damaged")).unwrap();
}

#[test]
fn what_postgresql_cannot_read_stays_until_a_set_has_helped() {
    let solo = Solo::up("postgresql");
    solo.keeps_what_was_set_aside();

    // Nobody can connect to a database without the map of its catalogue; it can be set aside all the same.
    let oid = "select oid from pg_database where datname = $$maxim$$".replace('$', "\\$");
    let oid = administrator_in(solo.host(), solo.engine, "postgres", &oid);
    solo.damage(&format!("rm base/{}/pg_filenode.map", oid.trim()));
    assert_ne!(solo.restore(&[]).says(&["--without-safety-set"]).code, 0);
    solo.restores(&["--without-safety-set"]);
    assert!(solo.accounts().unwrap().contains("bob@"));
    solo.restores(&[]);
    assert_eq!(solo.names(), solo.clean, "what was set aside is gone");
}
