//! A bare host with one file and nobody else: the bundle brings its own program, and that installs `standard` without
//! SSH, without a network, and without anything that the host did not have.

use crate::cluster::{Before, is_well};
use crate::product::{FORCED, bundle, key_of};
use maxim_tests::chat::{Chat, Server, Tls};
use maxim_tests::hosts::{Host, Testbed};
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// Runs the program that came out of the bundle, where it lies.
#[track_caller]
fn result_of(host: &Host, arguments: &str) -> Value {
    let output = host.exec(&format!("cd /srv/maxim && ./maxim.ctl {arguments} --output json")).unwrap();
    assert_eq!(output.code, 0, "{arguments}\n{}\n{}", output.stdout, output.stderr);
    serde_json::from_str(output.stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn a_bundle_alone_installs_the_machine_it_lies_on() {
    let testbed = Testbed::of(&["solo"]).unwrap();
    let host = testbed.host("solo");
    // As somebody brings it on a disk.
    let folder = host.root().join("srv/maxim");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(bundle(), folder.join("maxim.bundle")).unwrap();
    fs::copy(key_of(bundle()), folder.join("publisher.pub")).unwrap();
    host.sh("cd /srv/maxim && tar xf maxim.bundle maxim.ctl").unwrap();
    // What every program shares; below it nothing may stay.
    host.sh("mkdir -p /root/.local/share").unwrap();
    let before = Before::of(testbed.hosts());

    // Nobody confirms a key by saying yes to everything.
    let untrusted = host.exec("cd /srv/maxim && ./maxim.ctl install --yes --output json </dev/null").unwrap();
    assert_eq!(untrusted.code, 5, "{untrusted:?}");
    assert!(untrusted.stderr.contains("--trust-key"), "{untrusted:?}");

    let install = format!(
        "install --yes --trust-key publisher.pub {} \
         --set capacity.users=200 --set capacity.messages_per_second=100",
        FORCED.join(" ")
    );
    let result = result_of(host, &install);
    assert_eq!((&result["profile"], &result["domain"]), (&"standard".into(), &"solo.internal".into()));
    assert!(is_well(&result), "{result:#}");
    let units = host.sh("systemctl is-active maxim-im maxim-console maxim-mariadb maxim-redis").unwrap();
    assert_eq!(units, "active\n".repeat(4));
    let status = result_of(host, "status");
    assert!(is_well(&status), "{status:#}");

    // From another machine, with the first account and a second one.
    let authority = testbed.folder().join("local-ca.pem");
    host.sh("cd /srv/maxim && ./maxim.ctl ca export -o /run/ca.pem").unwrap();
    fs::write(&authority, host.sh("cat /run/ca.pem && rm /run/ca.pem").unwrap()).unwrap();
    let account = host.sh(&format!("cat {}", result["account"]["path"].as_str().unwrap())).unwrap();
    let password = account.lines().find_map(|line| line.strip_prefix("password: ")).unwrap();
    host.sh("cd /srv/maxim && echo quite-a-secret | ./maxim.ctl user add bob --password-stdin").unwrap();
    let at = result["endpoints"]["xmpp"][0].as_str().unwrap();
    assert!(at.starts_with(&host.address()), "{at}");
    let server = Server { at, tls: Tls::Start, domain: "solo.internal", authority: &authority };
    let mut admin = Chat::sign_in(&server, "admin", password).unwrap();
    let mut bob = Chat::sign_in(&server, "bob", "quite-a-secret").unwrap();
    bob.ping().unwrap();
    admin.say("bob@solo.internal", "all from one file").unwrap();
    bob.hear("all from one file", Duration::from_secs(10)).unwrap();

    let again = result_of(host, &install);
    assert_eq!(again["changes"], 0, "{again:#}");
    before.is_back_after(testbed.hosts(), || {
        let removed = result_of(host, "uninstall --purge --yes");
        assert_eq!(removed["ok"], true, "{removed:#}");
    });
}
