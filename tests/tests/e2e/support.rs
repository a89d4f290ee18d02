//! The support bundle: what somebody elsewhere needs is in it, no secret is, and nothing is overwritten. Of hosts, and
//! with one that is dead: see `secrets`, which looks for every planted secret in it.

use crate::embedded::Deployment;
use crate::product::{Person, first_account};
use crate::secrets::{Secrets, files_below};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Unpacks a bundle with stock tools, beside it; every file in it by place. The index names what is there, and the
/// facts, the logs and the configuration of these hosts are.
#[track_caller]
pub fn opened(person: &Person, name: &str, hosts: &[&str]) -> Vec<(String, String)> {
    let folder = person.home().join(format!("{name}.d"));
    fs::create_dir(&folder).unwrap();
    let unpacked = Command::new("tar")
        .args(["--zstd", "-xf", name, "-C"])
        .arg(&folder)
        .current_dir(person.home())
        .output();
    let unpacked = unpacked.unwrap();
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    let inside = folder.join(name.split(".tar").next().unwrap());
    let index: Value = serde_json::from_str(&fs::read_to_string(inside.join("index.json")).unwrap()).unwrap();
    let named: Vec<&str> =
        index["entries"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    let there = |path: &str| named.contains(&path) && inside.join(path).is_file();
    for path in [
        "cluster/status.json",
        "cluster/findings.json",
        "cluster/topology.yaml",
        "cluster/applied-state.json",
    ] {
        assert!(there(path), "{path} is not in {named:?}");
    }
    assert!(named.iter().any(|path| path.starts_with("journal/")), "{named:?}");
    for host in hosts {
        for path in ["facts.json", "units.json", "plan.json"] {
            assert!(there(&format!("hosts/{host}/{path}")), "{path} of {host} is not in {named:?}");
        }
        for folder in ["logs", "configuration"] {
            let folder = format!("hosts/{host}/{folder}/");
            assert!(named.iter().any(|path| path.starts_with(&folder)), "{folder} is not in {named:?}");
        }
    }
    assert_eq!(files_below(&inside).len(), named.len() + 1, "everything is in the index");
    let files = files_below(&folder);
    fs::remove_dir_all(&folder).unwrap();
    files
}

/// Writes a line at the end of a file.
fn append(path: &Path, line: &str) {
    let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}

#[test]
fn what_is_planted_everywhere_is_not_in_it_and_what_helps_is() {
    let deployment = Deployment::install();
    let person = &deployment.person;
    let cluster = deployment.root.join("cluster");
    let mut secrets = Secrets::default();
    let read = |name: &str| fs::read_to_string(cluster.join(name)).unwrap();
    let made: Value = serde_json::from_str(&read("secrets.json")).unwrap();
    secrets.plant_all(&made, "secrets.json");
    for file in ["ca.key", "certificates/index.json"] {
        secrets.plant_keys(&read(file), file);
    }
    secrets.plant("the first account's password", &first_account(&deployment.result).1);

    let changed = person.run(&deployment.with_root(&["console", "passwd", "--output", "json"])).ok().result();
    let console = fs::read_to_string(changed["path"].as_str().unwrap()).unwrap().trim().to_owned();
    secrets.plant("the console's password", &console);

    // Where a secret could get to by a defect, or by somebody's hand: logs, configuration, journal, drift.
    let one =
        made.as_object().unwrap().values().find_map(|value| value.as_str().filter(|text| text.len() >= 40));
    let one = one.unwrap();
    let by_hand = "typed-by-somebody-4711";
    secrets.plant("what somebody typed", by_hand);
    let key = read("ca.key");
    for name in ["maxim-im.log", "supervisor.log"] {
        let log = deployment.root.join("log").join(name);
        append(&log, &format!("planted line: it said {one} and password={by_hand}"));
        append(&log, &format!("planted line: somebody signed in with {console}"));
        append(&log, &format!("https://admin:{by_hand}@localhost/ refused\n{key}"));
    }
    append(&deployment.root.join("etc/im.yaml"), &format!("# planted line: {one}\n# token: {by_hand}"));
    let journal = fs::read_dir(cluster.join("journal")).unwrap().flatten().next().unwrap().path();
    append(
        &journal,
        &format!(r#"{{"event":"note","message":"planted line: \"secret\": \"{by_hand}\" {one}"}}"#),
    );

    let made = ["support-bundle", "-o", "support.tar.zst", "-n", "200", "--output", "json"];
    let outcome = person.run(&deployment.with_root(&made)).ok();
    assert!(outcome.events().iter().any(|event| event["event"] == "phase_started"), "typed events are told");
    assert_eq!(outcome.result()["missing"], serde_json::json!([]), "{}", outcome.stdout);
    let host = outcome.result()["entries"].as_array().unwrap().iter().find_map(|one| {
        one["path"].as_str().unwrap().strip_prefix("hosts/")?.split('/').next().map(str::to_owned)
    });
    let files = opened(person, "support.tar.zst", &[&host.unwrap()]);
    let found: Vec<_> = files.iter().flat_map(|(place, text)| secrets.found_in(place, text)).collect();
    assert!(found.is_empty(), "{found:#?}");
    for place in ["logs/maxim-im.log", "logs/supervisor.log", "etc/im.yaml", "journal/"] {
        let planted = files.iter().any(|(path, text)| path.contains(place) && text.contains("planted line"));
        assert!(planted, "the line beside the secret is there: {place}");
    }
    assert!(
        files.iter().any(|(path, text)| path.ends_with("plan.json") && text.contains("im/config")),
        "drift shows"
    );
    assert!(files.iter().any(|(path, text)| path.ends_with("ca.pem") || text.contains("maxim-im")));

    // Nothing is overwritten, and a draft is not left.
    let before = fs::read(person.home().join("support.tar.zst")).unwrap();
    person.run(&deployment.with_root(&made)).exits(2).says(&["there already", "-o"]);
    assert_eq!(fs::read(person.home().join("support.tar.zst")).unwrap(), before);
    let elsewhere = ["support-bundle", "-o", "absent/support.tar.zst"];
    person.run(&deployment.with_root(&elsewhere)).exits(1).says(&["absent/support.tar.zst"]);
    let drafts = fs::read_dir(person.home()).unwrap().flatten();
    assert_eq!(drafts.filter(|entry| entry.file_name().to_string_lossy().starts_with(".maxim-")).count(), 0);
    person.run(&deployment.with_root(&["uninstall", "--purge", "--yes"])).ok();
}
