//! What an upgrade meets on its hosts beside a broken bundle: one that dies for good in its turn, while nobody is there to
//! wait for it, and one without room for both versions; and people who say no.

use crate::cluster::{ALL, Cluster, endpoint, is_well};
use crate::delivery::Load;
use crate::product::{Outcome, bundle, key_of};
use crate::upgrade::{FILES, nothing_doubled, number, version};
use maxim_tests::hosts::{HostSpec, wait_for};
use std::path::Path;
use std::time::Duration;

/// Once nobody who died holds a lock any more.
fn when_free(run: impl Fn() -> Outcome) -> Outcome {
    wait_for("the lease of the dead owner to run out", Duration::from_mins(2), || {
        let outcome = run();
        let held = outcome.code == 5 && outcome.stdout.contains("\"step\":\"lock\"");
        (!held).then_some(outcome)
    })
    .unwrap()
}

#[test]
fn a_host_that_died_for_good_while_an_upgrade_was_broken_off_is_replaced() {
    let hosts = [("app1", "im+console+mariadb+redis"), ("app2", "im")]
        .map(|(name, roles)| (HostSpec::new(name), roles));
    let cluster = Cluster::with_spares(&hosts, &["spare1"], "");
    let result = cluster.install().ok().result();
    let (old, new) = (number(&cluster.person, bundle()), number(&cluster.person, &version("next")));
    let (one, two) = (endpoint(&result, "xmpp", 0), endpoint(&result, "xmpp", 1));
    let load = Load::start(&cluster, "left", true, &[&one], &[&one]);
    let (mut child, _lines) = cluster.upgrade_until_turn_of("app2", "next");
    cluster.testbed.host("app2").power_off_hard().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();

    // Forwards it needs all of them. Back it goes with those that are there.
    when_free(|| cluster.upgrade("next")).exits(3).says(&["app2"]);
    let spare = cluster.testbed.host("spare1").address();
    let replace = |bundle: &Path| {
        let (path, key) = (bundle.display().to_string(), key_of(bundle).display().to_string());
        cluster.run(&["host", "replace", "app2", &spare, "--bundle", &path, "--trust-key", &key, "--yes"])
    };
    replace(bundle()).exits(5).says(&["under way"]);
    when_free(|| cluster.run(&["rollback", "--yes"])).exits(1).says(&["app2", "host replace", &old]);
    let running = cluster.im_versions();
    assert_eq!((running[0].as_str(), running.len()), (old.as_str(), 2), "{running:?}");
    load.goes_on(50);
    nothing_doubled("with the host that is left", &load.end_with_nothing_lost(&one));
    replace(&version("next")).exits(5).says(&[&old, &new]);
    let done = replace(bundle()).ok().result();
    assert!(is_well(&done), "{done:#}");
    let status = cluster.run(&["status"]).ok().result();
    assert_eq!(status["upgrade"]["phase"], "rolled_back", "{status:#}");
    assert_eq!(cluster.im_versions(), [old.as_str(), old.as_str()]);
    assert_eq!(cluster.install().ok().changes(), 0);

    let two = two.replace(&cluster.testbed.host("app2").address(), &spare);
    let load = Load::start(&cluster, "whole", true, &[&one, &two], &[&two, &one]);
    cluster.upgrade("next").ok();
    assert_eq!(cluster.im_versions(), [new.as_str(), new.as_str()]);
    load.goes_on(50);
    nothing_doubled("with the new host", &load.end_with_nothing_lost(&one));
    cluster.wait_well();
}

#[test]
fn who_says_no_and_who_has_no_room_is_left_as_it_was() {
    let small = HostSpec::new("solo").small_disk("/opt", 3072);
    let cluster =
        Cluster::bare(&[(small, ALL)], "backup: {repository: {type: local, path: /var/backups/maxim}}\n");
    cluster.install().ok();
    let solo = cluster.testbed.host("solo");
    let before = solo.sh(FILES).unwrap();
    let next = version("next").display().to_string();
    let upgrade = ["upgrade", "--bundle", &next, "-f", &cluster.file];
    let untouched = |why: &str| {
        assert_eq!(solo.sh(FILES).unwrap(), before, "{why}");
        assert_ne!(solo.exec("test -e /var/backups/maxim/config").unwrap().code, 0, "{why}: a set was made");
        let status = cluster.wait_well();
        assert!(status["upgrade"].is_null(), "{why}: {status:#}");
    };
    cluster.person.run(&upgrade).exits(2).says(&["--yes"]);
    untouched("nobody was there");
    cluster.person.types(&upgrade, "n\n").exits(1);
    untouched("somebody said no");

    // Whatever is missing beside what lies there already.
    solo.sh("free=$(df --output=avail -B1M /opt | tail -n 1) && fallocate -l $((free - 60))M /opt/filler")
        .unwrap();
    let yes = [&upgrade[..], &["--yes", "--output", "json"]].concat();
    cluster.person.run(&yes).exits(3).says(&["disk.space", "/opt"]);
    untouched("there was no room");
    solo.sh("rm /opt/filler").unwrap();
    cluster.person.types(&upgrade, "y\n").ok();
    assert_eq!(cluster.im_versions(), [number(&cluster.person, &version("next"))]);
    solo.sh("test -e /var/backups/maxim/config").unwrap();
}
