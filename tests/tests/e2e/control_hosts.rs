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
    let wanted = [
        "cluster 700 root:root",
        "cluster/generation.json 600 root:root",
        "cluster/state.json 600 root:root",
    ];
    assert_eq!(modes.lines().collect::<Vec<_>>(), wanted);
    let generation = || -> u64 {
        let text = keeper.sh("cat /var/lib/maxim/cluster/generation.json").unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["generation"].as_u64().unwrap()
    };
    let first = generation();

    let (person, file) = second(cluster);
    crate::cluster::until_well(|| person.run(&["status", "-f", &file, "--output", "json"]));
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
    other_files_are_taken_over_by_a_person_only(cluster, &person, &file, &generation);
}

/// The second one's key has another place. What a host keeps does not make the first one's machine use that file: looking
/// goes on with what is here, changing is refused, until a person says otherwise.
fn other_files_are_taken_over_by_a_person_only(
    cluster: &Cluster,
    person: &Person,
    file: &str,
    generation: &dyn Fn() -> u64,
) {
    let moved = person.home().join("moved-key");
    fs::copy(cluster.testbed.key(), &moved).unwrap();
    let (old, new) = (cluster.testbed.key().display().to_string(), moved.display().to_string());
    fs::write(file, read(Path::new(&cluster.file)).replace(&old, &new)).unwrap();
    assert_eq!(install(person, file).ok().changes(), 0);
    let here = || ["topology.yaml", "generation.json"].map(|name| read(&state(&cluster.person, name)));
    let (before, written) = (here(), generation());
    let told = cluster.run(&["status"]).ok().says(&["hosts.app1.ssh.key", "--accept-state"]);
    let warnings = told.events().iter().filter(|event| event["event"] == "warning").count();
    assert_eq!(warnings, 1, "{}", told.stdout);
    let refused = cluster.install().exits(5).says(&["state.unconfirmed", &new, &old, "--accept-state"]);
    assert!(!refused.stdout.contains("task_started"), "{}", refused.stdout);
    assert_eq!((here(), generation()), (before, written), "nothing is taken over, nothing written");
    cluster.run(&["status", "--accept-state"]).ok();
    assert_eq!(here(), ["topology.yaml", "generation.json"].map(|name| read(&state(person, name))));
    // Knowing it, the first one works on with the own file.
    assert_eq!(cluster.install().ok().changes(), 0);
    assert!(generation() > written);
}

/// Signs in to the console with a password: the status code of the answer to the form, by a client that knows the cluster's
/// authority.
fn console_answers(cluster: &Cluster, url: &str, password: &str) -> String {
    let authority = crate::product::authority(&cluster.person, &["-f", &cluster.file]);
    let jar = cluster.person.home().join("cookies");
    let curl = |arguments: &[&str]| {
        let output = std::process::Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--cacert"])
            .arg(&authority)
            .arg("--cookie")
            .arg(&jar)
            .arg("--cookie-jar")
            .arg(&jar)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    fs::remove_file(&jar).ok();
    let base = url.trim_end_matches('/');
    let page = curl(&[&format!("{base}/sign-in")]);
    let token = page.split("name=\"form_token\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let token = token.unwrap_or_else(|| panic!("no form in {page}"));
    let fields = ["account=admin".to_owned(), format!("password={password}"), format!("form_token={token}")];
    let mut arguments = vec!["--output", "/dev/null", "--write-out", "%{http_code}", "--header"];
    let origin = format!("Origin: {base}");
    arguments.push(&origin);
    for field in &fields {
        arguments.extend(["--data-urlencode", field]);
    }
    let to = format!("{base}/sign-in");
    arguments.push(&to);
    curl(&arguments)
}

/// The console's password is lost: another is given, and then one is made. `installed`: the result of the install.
pub fn set_the_consoles_password(cluster: &Cluster, installed: &serde_json::Value) {
    let (url, _, first) = crate::product::console_account(installed);
    let signed_in = |password: &str| console_answers(cluster, &url, password) == "303";
    assert!(signed_in(&first));
    let set = ["console", "passwd", "--password-stdin", "-f", &cluster.file];
    cluster.person.run_with(&set, "short\n").exits(1).says(&["not accepted"]);
    assert!(signed_in(&first), "a refused one changes nothing");
    let said = cluster.person.run_with(&set, "another-orbit-7431\n").ok();
    assert!(!said.stdout.contains("7431") && !said.stderr.contains("7431"));
    assert!(signed_in("another-orbit-7431") && !signed_in(&first));
    let made = cluster.run(&["console", "passwd"]).ok().result();
    let path = Path::new(made["path"].as_str().unwrap());
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777,
        0o600
    );
    assert!(signed_in(read(path).trim()) && !signed_in("another-orbit-7431"));
    assert_eq!(cluster.install().ok().changes(), 0, "an install leaves the password alone");
}
