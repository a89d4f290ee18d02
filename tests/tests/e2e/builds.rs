//! Bundles as they are built: the same bytes from the same lock file, nothing secret in them, and a lock file that
//! is never changed unless somebody says so.
//!
//! Programs, images and web chat are in the cache by now (`tests/run` has built a bundle), so a build takes seconds.
//! With `MAXIM_TEST_ALL` the images are composed anew from packages, and the programs compiled anew, too.

use crate::product::{Outcome, Person, bundle, checkout, programs};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Builds with the launcher of the checkout, as a person at home here does: key and caches are those of this machine.
fn build(output: &Path, cache: Option<&Path>) -> Outcome {
    let mut command = Command::new(checkout().join("maxim.ctl"));
    command.args(["bundle", "build", "--timings", "-o"]).arg(output).stdin(Stdio::null());
    if let Some(cache) = cache {
        command.env("XDG_CACHE_HOME", cache);
    }
    outcome("maxim.ctl bundle build", &mut command)
}

fn outcome(name: &str, command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        command: name.to_owned(),
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Where two files differ first, with the member of the first that is there.
fn difference(one: &Path, other: &Path) -> Option<String> {
    let compared = Command::new("cmp").arg(one).arg(other).output().unwrap();
    if compared.status.success() {
        return None;
    }
    let listing = |path: &Path| {
        let script = "tar -tvf \"$0\"; tar -xOf \"$0\" manifest.json";
        let output = Command::new("sh").args(["-c", script]).arg(path).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let (one, other) = (listing(one), listing(other));
    let lines: Vec<_> = one.lines().zip(other.lines()).filter(|(one, other)| one != other).take(10).collect();
    Some(format!("{}{lines:#?}", String::from_utf8_lossy(&compared.stdout)))
}

/// The newest change in what a bundle is made from, as the launcher sees it: a bundle that was built before it is of
/// another checkout.
fn is_of_this_checkout(path: &Path) -> bool {
    let newer = Command::new("find")
        .args([
            "Cargo.toml",
            "Cargo.lock",
            "installer",
            "console",
            "im-core",
            "iso",
            "playbooks",
            "templates",
            "-newer",
        ])
        .arg(path)
        .current_dir(checkout())
        .output()
        .unwrap();
    newer.stdout.is_empty()
}

#[test]
fn two_builds_from_one_lock_file_are_the_same_bytes() {
    let person = Person::new();
    let (first, second) = (person.home().join("first.bundle"), person.home().join("second.bundle"));
    // The bundle of the whole run is one of the two when nothing was edited since.
    let first = if is_of_this_checkout(bundle()) {
        bundle().to_owned()
    } else {
        build(&first, None).ok();
        first
    };
    let built = build(&second, None).ok();
    println!("{}", built.stdout);
    assert_eq!(difference(&first, &second), None);

    let home = PathBuf::from(std::env::var_os("HOME").unwrap());
    let key = fs::read_to_string(home.join(".local/share/maxim/keys/developer.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!built.stdout.contains(secret) && !built.stderr.contains(secret));
    let found =
        Command::new("grep").args(["-c", "-a", "-F", "-f", "-"]).arg(&second).stdin(Stdio::piped()).spawn();
    let mut found = found.unwrap();
    std::io::Write::write_all(found.stdin.as_mut().unwrap(), secret.as_bytes()).unwrap();
    assert_eq!(
        found.wait_with_output().unwrap().status.code(),
        Some(1),
        "the secret key is not in the bundle"
    );

    // Where it was compiled is nobody's business, and would make each place's programs others.
    for place in [maxim_tests::hosts::cache(), checkout().to_owned()] {
        for program in ["maxim-ctl", "maxim-im", "maxim-console"] {
            let bytes = fs::read(programs().join(program)).unwrap();
            let place = place.to_str().unwrap().as_bytes();
            let names = bytes.windows(place.len()).any(|window| window == place);
            assert!(!names, "{program} names {}", String::from_utf8_lossy(place));
        }
    }

    if std::env::var_os("MAXIM_TEST_ALL").is_some() {
        // All but the compiler's output made again: another cache, with the same compiled programs and tools.
        let cache = person.home().join("cache");
        fs::create_dir_all(cache.join("maxim")).unwrap();
        for kept in ["target", "target-portable", "venv", "setup", "checkouts"] {
            let from = maxim_tests::hosts::cache().join(kept);
            if from.exists() {
                std::os::unix::fs::symlink(from, cache.join("maxim").join(kept)).unwrap();
            }
        }
        let third = person.home().join("third.bundle");
        println!("{}", build(&third, Some(&cache)).ok().stdout);
        assert!(cache.join("maxim/images").is_dir(), "the images were composed anew");
        assert_eq!(difference(&second, &third), None);
        // And the compiler's output, by itself.
        crate::launcher::a_clone_built_from_nothing_is_the_same_bytes();
    }
}

/// A copy of what a build reads of the checkout, to be changed.
fn other_checkout(person: &Person) -> PathBuf {
    let copy = person.home().join("checkout");
    let cloned = Command::new("git")
        .args(["clone", "-q", "--no-hardlinks"])
        .arg(checkout())
        .arg(&copy)
        .output()
        .unwrap();
    assert!(cloned.status.success(), "{}", String::from_utf8_lossy(&cloned.stderr));
    // The lock file as it is now, committed or not.
    fs::copy(checkout().join("iso/bundle.lock"), copy.join("iso/bundle.lock")).unwrap();
    copy
}

/// Builds from another checkout with the programs of this one; an image that is not in the cache is composed before
/// anything is compiled.
fn build_from(person: &Person, checkout: &Path) -> Outcome {
    let mut command = Command::new(programs().join("maxim-ctl"));
    command.args(["bundle", "build", "-o"]).arg(person.home().join("other.bundle")).stdin(Stdio::null());
    command.current_dir(checkout).env("MAXIM_CHECKOUT", checkout).env("MAXIM_BIN_DIR", programs());
    outcome("maxim-ctl bundle build", &mut command)
}

#[test]
fn a_package_that_is_no_longer_served_is_named_and_nothing_is_locked_anew() {
    let person = Person::new();
    let copy = other_checkout(&person);
    let path = copy.join("iso/bundle.lock");
    let lock: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut lock = lock.clone();
        let packages = lock["images"]["redis"]["packages"].as_array_mut().unwrap();
        change(
            packages.iter_mut().find(|package| package["name"] == "redis-server").expect("the image has it"),
        );
        let text = serde_json::to_string_pretty(&lock).unwrap() + "\n";
        fs::write(&path, &text).unwrap();
        text
    };
    let other_hash = |package: &Value| {
        let hash = package["sha256"].as_str().unwrap();
        format!("{}{}", if hash.starts_with('0') { "1" } else { "0" }, &hash[1..])
    };
    // A version that was never served, of a package of one image. (What has the locked hash is taken from the cache,
    // whether it is still served or not.)
    let edited = with(&|package| {
        let (version, path) = (package["version"].as_str().unwrap(), package["path"].as_str().unwrap());
        let bare = version.split_once(':').map_or(version, |(_, bare)| bare);
        let path = path.replace(bare, "0.0.1-1");
        package["path"] = path.into();
        package["sha256"] = other_hash(package).into();
        package["version"] = "0.0.1-1".into();
    });
    let outcome = build_from(&person, &copy).exits(1);
    let outcome = outcome.says(&["redis-server 0.0.1-1", "no longer served", "--relock"]);
    assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
    assert_eq!(fs::read_to_string(&path).unwrap(), edited, "the lock file stays as it was");
    assert!(!person.home().join("other.bundle").exists());

    // A package whose content is not what was locked is never taken.
    with(&|package| {
        package["sha256"] = other_hash(package).into();
    });
    build_from(&person, &copy).exits(1).says(&["redis-server", "SHA-256", "lock file"]);
    assert!(!person.home().join("other.bundle").exists());
}
