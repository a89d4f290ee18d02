//! Two people at two control hosts, one cluster: whoever comes second works on what the console's host keeps, and
//! whoever has become the older one is told.

use crate::cluster::Cluster;
use crate::product::{Person, install_arguments};
use std::fs;
use std::path::{Path, PathBuf};

/// A file of the cluster's state in the home of a person.
fn state(person: &Person, name: &str) -> PathBuf {
    person.home().join(".local/share/maxim/clusters/acme").join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Another person, who has the topology and the way in, and nothing else.
fn second(cluster: &Cluster) -> (Person, String) {
    let person = Person::new();
    let known = person.home().join(".ssh/known_hosts");
    fs::create_dir_all(known.parent().unwrap()).unwrap();
    fs::copy(cluster.testbed.known_hosts(), known).unwrap();
    let file = person.file("cluster.yaml", &read(Path::new(&cluster.file)));
    (person, file)
}

fn install(person: &Person, file: &str) -> crate::product::Outcome {
    person.run(&install_arguments(file).iter().map(String::as_str).collect::<Vec<_>>())
}

/// A cluster that was installed by its person, whose console is on `keeper`: taken over by another, changed from there,
/// and the first one is not let over it unawares. Leaves it as it was installed.
pub fn work_on_one_state(cluster: &Cluster, keeper: &str) {
    let keeper = cluster.testbed.host(keeper);
    let modes = keeper.sh("cd /var/lib/maxim && stat -c '%n %a %U:%G' cluster cluster/*").unwrap();
    let wanted = ["cluster 700 root:root", "cluster/generation.json 600 root:root", "cluster/state.json 600 root:root"];
    assert_eq!(modes.lines().collect::<Vec<_>>(), wanted);
    let generation = || -> u64 {
        let text = keeper.sh("cat /var/lib/maxim/cluster/generation.json").unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["generation"].as_u64().unwrap()
    };
    let first = generation();

    let (person, file) = second(cluster);
    let status = person.run(&["status", "-f", &file, "--output", "json"]).ok().result();
    assert!(crate::cluster::is_well(&status), "{status:#}");
    for name in ["secrets.json", "ca.key", "ca.pem", "initial-account", "known_hosts", "bundle.pub"] {
        let (theirs, ours) = (read(&state(&person, name)), read(&state(&cluster.person, name)));
        assert!(theirs == ours, "{name} is the same at both");
    }
    assert_eq!(install(&person, &file).ok().changes(), 0);
    assert_eq!(generation(), first, "nothing changed, nothing written");

    let key = "settings.im.registration.in_band";
    person.run(&["config", "set", key, "true", "-f", &file, "--output", "json"]).ok();
    assert!(install(&person, &file).ok().changes() > 0);
    assert!(generation() > first);
    assert_eq!(install(&person, &file).ok().changes(), 0);

    // The first one's file is the older: refused once, and nothing is changed by it.
    let written = generation();
    let refused = install(&cluster.person, &cluster.file).exits(5).says(&["generation", "maxim.ctl plan"]);
    assert!(!refused.stdout.contains("task_started"), "{}", refused.stdout);
    assert_eq!(generation(), written);
    let kept = read(&state(&cluster.person, "topology.yaml.replaced"));
    assert_eq!(kept, read(Path::new(&cluster.file)), "what was there is kept");
    // Looking is not refused; and knowing it, the first one may have it as before.
    cluster.run(&["status"]).ok();
    assert!(cluster.install().ok().changes() > 0);
    assert!(generation() > written);
    // The second one only looks: what is newer is fetched without a word of refusal.
    person.run(&["status", "-f", &file]).ok();
    assert_eq!(read(&state(&person, "topology.yaml")), read(Path::new(&cluster.file)));
}
