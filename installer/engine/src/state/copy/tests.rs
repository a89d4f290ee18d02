//! Two control hosts and one cluster: what is taken over, who is refused, what is written.

use super::trust::other_pins;
use super::{
    ADOPTED, Files, Head, STALE, UNCONFIRMED, adopt_with, is_newer, publish, publish_by, publish_uninstalled,
};
use crate::actions::service;
use crate::context::{CancelFlag, Context};
use crate::error::EngineError;
use crate::events::Collector;
use crate::fake::Fleet;
use crate::phases::connect;
use crate::replace::Record;
use crate::run::Run;
use crate::sample;
use crate::state::{Installed, StateDir};
use maxim_model::Secret;
use maxim_model::event::EventKind;
use maxim_model::topology::load_stored;
use maxim_model::wire::ServiceAction;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// As `sample::three_hosts`.
const TOPOLOGY: &str = "\
api_version: maxim/v1
name: acme
domain: im.acme.example
ssh: {user: root, password_file: /home/anna/password}
hosts:
- {name: app1, address: 10.77.0.11, roles: [im, console]}
- {name: db1, address: 10.77.0.12, roles: [mariadb]}
- {name: cache1, address: 10.77.0.13, roles: [redis]}
";

/// Somebody at a control host, with a fleet that others work on too.
struct Person {
    context: Context,
    fleet: Arc<Fleet>,
}

impl Person {
    fn new(folder: &Path, name: &str, fleet: &Arc<Fleet>) -> Self {
        let state = StateDir::at(folder.join(name));
        let context = Context {
            topology_text: TOPOLOGY.into(),
            ..sample::context(load_stored(TOPOLOGY, "/").unwrap(), state)
        };
        Self { context, fleet: Arc::clone(fleet) }
    }

    fn run(&self, action: &str, writes: bool) -> Run<'_> {
        let fleet: Arc<Fleet> = Arc::clone(&self.fleet);
        Run::with_connector(&self.context, action, writes, fleet).unwrap()
    }

    /// What an install does with the state: connect, lock, change it, write it.
    fn install(&self, secret: &str) -> Result<(), EngineError> {
        let run = self.run("install", true);
        let _control = self.context.state.lock("test").unwrap();
        let mut sessions = connect::connect(&run)?;
        connect::lock_hosts(&run, &mut sessions, "install")?;
        let state = &self.context.state;
        state.save_topology(&self.context.topology_text)?;
        state.save_installed(&Installed { generation: 1, ..Installed::default() })?;
        crate::files::write_whole(&state.file("secrets.json"), secret.as_bytes(), 0o600)?;
        publish(&run, &mut sessions)?;
        connect::release(&mut sessions);
        Ok(())
    }

    fn look(&self, action: &str) -> Result<(), EngineError> {
        let run = self.run(action, false);
        let mut sessions = connect::connect(&run)?;
        connect::release(&mut sessions);
        Ok(())
    }

    fn adopt(&self) -> Result<bool, EngineError> {
        adopt_with(&self.run("adopt", false), &self.context)
    }

    fn topology(&mut self, text: String) {
        self.context.topology = load_stored(&text, "/").unwrap();
        self.context.topology_text = text;
    }

    fn secret(&self) -> String {
        std::fs::read_to_string(self.context.state.file("secrets.json")).unwrap()
    }

    fn generation(&self) -> u64 {
        Head::load(&self.context.state).unwrap().unwrap().generation
    }
}

fn scene() -> (tempfile::TempDir, Arc<Fleet>, Person, Person) {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Arc::new(Fleet::new(&sample::three_hosts(), CancelFlag::new()));
    let (anna, ben) = (Person::new(folder.path(), "anna", &fleet), Person::new(folder.path(), "ben", &fleet));
    (folder, fleet, anna, ben)
}

#[test]
fn a_second_control_host_takes_the_state_over_and_the_first_is_told() {
    let (_folder, fleet, anna, mut ben) = scene();
    anna.install("one").unwrap();
    assert_eq!((anna.generation(), fleet.mutations()), (1, 3));
    anna.install("one").unwrap();
    assert_eq!((anna.generation(), fleet.mutations()), (1, 3), "nothing new, nothing written");
    assert!(!ben.context.state.file("secrets.json").exists());

    // Ben has nothing: his run fetches the state and begins anew.
    let error = ben.install("made by ben").unwrap_err();
    assert_eq!(error.step, ADOPTED, "{error}");
    assert_eq!((ben.secret(), ben.generation()), ("one".into(), 1));
    ben.context.topology_text = format!("{TOPOLOGY}# by ben\n");
    ben.install("two").unwrap();
    assert_eq!(ben.generation(), 2);

    // Anna's topology is not the one that was applied last: she is refused once, and what she had is kept.
    let error = anna.install("three").unwrap_err();
    assert_eq!((error.step.as_str(), error.exit_code()), (STALE, 5), "{error}");
    assert!(error.cause.contains("generation 2") && error.hint.contains("maxim.ctl plan"), "{error:?}");
    assert_eq!((anna.secret(), anna.generation()), ("two".into(), 2));
    let replaced = std::fs::read_to_string(anna.context.state.file("topology.yaml.replaced")).unwrap();
    assert_eq!(replaced, TOPOLOGY);
    anna.install("two").unwrap();
    assert_eq!(anna.generation(), 3, "her own topology, knowingly");
}

#[test]
fn who_only_looks_goes_on_with_what_was_fetched() {
    let (_folder, _fleet, anna, ben) = scene();
    anna.install("one").unwrap();
    assert!(ben.adopt().unwrap());
    anna.install("two").unwrap();
    ben.look("status").unwrap();
    assert_eq!(ben.secret(), "two");
    anna.install("three").unwrap();
    assert_eq!(ben.look("plan").unwrap_err().step, ADOPTED);
    ben.look("plan").unwrap();
    assert_eq!(ben.secret(), "three");
}

#[test]
fn addresses_files_and_authority_of_a_copy_are_taken_over_by_a_person_only() {
    let (_folder, fleet, mut anna, mut ben) = scene();
    anna.install("one").unwrap();
    assert!(ben.adopt().unwrap());
    // Whoever writes the copy has root's password of the database host sent to another machine.
    let other = TOPOLOGY.replace("10.77.0.12", "10.66.6.6").replace("/home/anna/password", "/home/ben/key");
    anna.topology(other.clone());
    anna.install("of another").unwrap();
    let before = fleet.mutations();

    // Looking goes on with what is here, and says so once.
    let heard = Arc::new(Collector::default());
    ben.context.events = heard.clone();
    ben.look("status").unwrap();
    let events = heard.events();
    let said = events.iter().filter(|event| matches!(event.kind, EventKind::Warning { .. })).count();
    assert_eq!(said, 1, "{events:?}");
    let here =
        |ben: &Person| (ben.secret(), ben.generation(), ben.context.state.topology().unwrap().unwrap());
    let first = ("one".to_owned(), 1, TOPOLOGY.to_owned());
    assert_eq!(here(&ben), first);
    // Changing is refused, and says what differs.
    for (action, writes) in [("install", true), ("stop", true), ("user add", false)] {
        let run = ben.run(action, writes);
        let Err(error) = connect::connect(&run) else { panic!("{action} went on") };
        assert_eq!((error.step.as_str(), error.exit_code()), (UNCONFIRMED, 5), "{action}: {error:?}");
        for part in [r#"hosts.db1.address is "10.66.6.6", here "10.77.0.12""#, "hosts.app1.ssh.password_file"]
        {
            assert!(error.cause.contains(part), "{part}: {error:?}");
        }
        assert!(error.hint.contains("--accept-state"), "{error:?}");
    }
    assert_eq!((here(&ben), fleet.mutations()), (first, before));
    assert!(!ben.context.state.file("topology.yaml.replaced").exists());

    // A person takes it over, and the command begins anew with it.
    ben.context.accept_state = true;
    assert_eq!(ben.look("status").unwrap_err().step, ADOPTED);
    assert_eq!(here(&ben), ("of another".into(), 2, other.clone()));
    ben.context.accept_state = false;
    ben.topology(other);
    ben.look("status").unwrap();

    // The authority.
    crate::files::write_whole(&ben.context.state.file("ca.pem"), b"one", 0o644).unwrap();
    ben.install("with an authority").unwrap();
    assert_eq!(anna.look("plan").unwrap_err().step, ADOPTED, "the first one is taken over");
    crate::files::write_whole(&ben.context.state.file("ca.pem"), b"two", 0o644).unwrap();
    ben.install("with another").unwrap();
    let error = anna.install("").unwrap_err();
    assert!(error.step == UNCONFIRMED && error.cause.contains("ca.pem"), "{error:?}");
}

#[test]
fn who_has_nothing_but_a_topology_takes_over_no_other_one() {
    let (_folder, _fleet, anna, mut ben) = scene();
    anna.install("one").unwrap();
    ben.topology(TOPOLOGY.replace("password_file: /home/anna/password", "key: /home/ben/key"));
    assert_eq!(ben.adopt().unwrap_err().step, UNCONFIRMED);
    assert!(!ben.context.state.file("secrets.json").exists());
    ben.context.accept_state = true;
    assert!(ben.adopt().unwrap());
    assert_eq!(ben.secret(), "one");
}

/// Anna replaces the database host, and was killed before its data was there.
fn begun(anna: &Person, started_at: &str) -> Record {
    let text = format!(
        r#"{{"old": {}, "name": "db1", "address": "10.77.0.12", "data": {{"set": "a", "parts": ["database"]}},
            "provisioned": true, "restored": false, "withdrawn": [], "started_at": "{started_at}"}}"#,
        serde_json::to_string(anna.context.topology.host("db1").unwrap()).unwrap()
    );
    crate::files::write_whole(&replacement(anna), text.as_bytes(), 0o600).unwrap();
    publish_by(&anna.run("host-replace", true)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn replacement(person: &Person) -> PathBuf {
    person.context.state.file("host-replace.json")
}

/// A replacement of a host: restored, and then complete.
#[test]
fn what_changes_between_the_parts_of_a_replacement_is_known_elsewhere_at_once() {
    let (_folder, _fleet, anna, mut ben) = scene();
    anna.install("one").unwrap();
    assert!(ben.adopt().unwrap());
    let mut record = begun(&anna, "2026-01-01T00:00:00Z");
    ben.context.accept_state = true;
    assert_eq!(ben.look("status").unwrap_err().step, ADOPTED);
    ben.context.accept_state = false;
    let refused = |ben: &Person| crate::replace::refuse_in_the_middle(&ben.context.state, "start");
    assert!(refused(&ben).is_err() && anna.generation() == 2);

    let publish = |_: &Context| publish_by(&anna.run("host-replace", true));
    crate::replace::restored(&anna.context, &mut record, publish).unwrap();
    ben.look("status").unwrap();
    refused(&ben).unwrap();
    assert!(replacement(&ben).exists() && anna.generation() == 3);
    crate::replace::complete(&anna.context, publish).unwrap();
    ben.look("status").unwrap();
    assert!(!replacement(&ben).exists() && anna.generation() == 4);
    // Somebody at work is not disturbed.
    let _held = anna.context.state.lock("another").unwrap();
    assert_eq!(publish_by(&anna.run("host-replace", true)).unwrap_err().exit_code(), 5);
}

/// Its hint is a command that somebody may type: with the name and the address that the record has.
#[test]
fn a_replacement_that_was_begun_elsewhere_is_taken_over_by_a_person_only() {
    let (_folder, _fleet, anna, ben) = scene();
    anna.install("one").unwrap();
    assert!(ben.adopt().unwrap());
    begun(&anna, r"then\u001b[2J");
    let refused = ben.install("").unwrap_err();
    assert_eq!(refused.step, UNCONFIRMED, "{refused:?}");
    assert!(refused.cause.contains("the replacement of db1 by db1 (10.77.0.12)"), "{refused:?}");
    assert!(!refused.cause.contains('\u{1b}'), "{refused:?}");
    ben.look("status").unwrap();
    assert!(!replacement(&ben).exists());
    let error = adopt_with(&ben.run("adopt", false), &ben.context).unwrap_err();
    assert_eq!(error.step, UNCONFIRMED, "{error:?}");

    // Another one than the one that was taken over.
    fs::copy(replacement(&anna), replacement(&ben)).unwrap();
    ben.look("status").unwrap();
    let text = fs::read_to_string(replacement(&anna)).unwrap();
    for (from, to) in [("10.77.0.12", "10.66.6.6"), (r#""set": "a""#, r#""set": "b""#), ("root", "eve")] {
        let other = text.replace(from, to);
        assert_ne!(other, text);
        assert!(crate::replace::other(Some(&text), Some(&other)).is_some(), "{to}");
    }
    let further = text.replace(r#""restored": false"#, r#""restored": true"#);
    assert_eq!(crate::replace::other(Some(&text), Some(&further)), None);
    assert!(crate::replace::other(Some(&text), Some("{}")).is_some());
    assert_eq!(crate::replace::other(Some(&text), None), None, "it is complete");
}

/// The record lies in the copy alone, or further on here than there: what is fetched decides.
#[test]
fn services_are_not_started_in_the_middle_of_a_replacement_at_another_control_host() {
    let (_folder, fleet, anna, ben) = scene();
    anna.install("one").unwrap();
    assert!(ben.adopt().unwrap());
    begun(&anna, "2026-01-01T00:00:00Z");
    let installed = ben.context.state.installed().unwrap().unwrap();
    let tried = |action: ServiceAction, name: &str| {
        service::act_by(&ben.run(name, true), action, None, &installed).map(drop)
    };
    let started =
        || ["app1", "db1", "cache1"].iter().any(|host| fleet.with(host, |host| !host.services.is_empty()));
    assert_eq!(tried(ServiceAction::Start, "start").unwrap_err().step, UNCONFIRMED);
    let text = fs::read_to_string(replacement(&anna)).unwrap();
    let restored = text.replace(r#""restored": false"#, r#""restored": true"#);
    for (action, name) in [(ServiceAction::Start, "start"), (ServiceAction::Restart, "restart")] {
        // An older state than the copy, which lets everything go on.
        let mut older = Head::load(&ben.context.state).unwrap().unwrap();
        older.generation = 1;
        older.save(&ben.context.state).unwrap();
        fs::write(replacement(&ben), &restored).unwrap();
        let error = tried(action, name).unwrap_err();
        assert!(error.exit_code() == 5 && error.cause.contains("is not restored yet"), "{name}: {error:?}");
        assert!(!started(), "{name}");
    }
    tried(ServiceAction::Stop, "stop").unwrap();
    assert!(started(), "stopping is not refused");
}

#[test]
fn somebody_who_writes_between_looking_and_locking_is_noticed() {
    let (_folder, _fleet, anna, ben) = scene();
    anna.install("one").unwrap();
    let run = anna.run("install", true);
    let mut sessions = connect::connect(&run).unwrap();
    assert_eq!(ben.install("").unwrap_err().step, ADOPTED);
    ben.install("two").unwrap();
    let error = connect::lock_hosts(&run, &mut sessions, "install").unwrap_err();
    assert_eq!((error.step.as_str(), error.exit_code()), (STALE, 5), "{error}");
}

#[test]
fn an_uninstall_leaves_secrets_for_the_data_and_nothing_installed() {
    let (_folder, _fleet, anna, ben) = scene();
    anna.install("one").unwrap();
    let run = anna.run("uninstall", true);
    let mut sessions = connect::connect(&run).unwrap();
    connect::lock_hosts(&run, &mut sessions, "uninstall").unwrap();
    fs::write(replacement(&anna), "{}").unwrap();
    publish_uninstalled(&run, &mut sessions).unwrap();
    connect::release(&mut sessions);
    anna.context.state.forget_installed().unwrap();
    crate::replace::forget(&anna.context.state).unwrap();
    assert!(!ben.adopt().unwrap());
    assert!(!replacement(&ben).exists(), "a replacement that was not complete is forgotten");
    assert_eq!((ben.secret(), ben.context.state.installed().unwrap()), ("one".into(), None));
    anna.look("plan").unwrap();
    assert_eq!(anna.context.state.installed().unwrap(), None);
}

#[test]
fn a_run_that_was_killed_after_it_wrote_is_not_refused() {
    let (_folder, _fleet, anna, _ben) = scene();
    anna.install("one").unwrap();
    let before = Head::load(&anna.context.state).unwrap().unwrap();
    anna.install("two").unwrap();
    before.save(&anna.context.state).unwrap();
    anna.install("two").unwrap();
    assert_eq!(anna.generation(), 2);
}

#[test]
fn another_installation_and_a_higher_number_are_newer() {
    let head = |id: &str, generation| Head {
        format: 1,
        id: id.into(),
        generation,
        by: String::new(),
        at: String::new(),
        digest: String::new(),
    };
    assert!(is_newer(&head("a", 1), None));
    assert!(is_newer(&head("a", 3), Some(&head("a", 2))));
    assert!(is_newer(&head("b", 1), Some(&head("a", 9))), "installed anew after a purge");
    assert!(!is_newer(&head("a", 2), Some(&head("a", 2))));
    assert!(!is_newer(&head("a", 1), Some(&head("a", 2))), "a disk of the console's host from before");
}

#[test]
fn keys_that_a_person_confirmed_here_are_not_exchanged_unasked() {
    let files = |bundle: &str, hosts: &str| {
        let all = [("bundle.pub", bundle), ("known_hosts", hosts), ("topology.yaml", TOPOLOGY)];
        Files(all.into_iter().map(|(name, text)| (name.to_owned(), Secret::new(text))).collect())
    };
    let mine = files("one", "10.77.0.11 ssh-ed25519 AAA\n10.77.0.12 ssh-ed25519 BBB\n");
    let bundle = other_pins(&mine, &files("two", "")).unwrap();
    assert_eq!(bundle.0, "bundle.pub");
    let (file, host) = other_pins(&mine, &files("one", "10.77.0.11 ssh-ed25519 XXX\n")).unwrap();
    assert!(file == "known_hosts" && host.what.contains("keys for 10.77.0.11 "), "{host:?}");
    assert_eq!(other_pins(&Files(std::collections::BTreeMap::new()), &mine), None);

    let (_folder, _fleet, a, b) = scene();
    a.install("first").unwrap();
    assert_eq!(b.install("second").unwrap_err().step, ADOPTED);
    crate::files::write_whole(&b.context.state.file("bundle.pub"), b"another", 0o644).unwrap();
    crate::files::write_whole(&a.context.state.file("bundle.pub"), b"one", 0o644).unwrap();
    a.install("third").unwrap();
    let refused = b.look("status").unwrap_err();
    assert_eq!(refused.step, STALE, "{refused:?}");
    assert!(refused.cause.contains("another key for bundles"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(b.context.state.file("bundle.pub")).unwrap(), "another");
}

/// Whoever is root on the console's host writes a generation with a key of the database host that nobody confirmed.
#[test]
fn keys_of_hosts_are_exchanged_neither_at_once_nor_in_two_steps() {
    const PINNED: &str = "10.77.0.11 ssh-ed25519 AAA\n10.77.0.12 ssh-ed25519 BBB\n";
    let (_folder, _fleet, mut anna, ben) = scene();
    let keys = |person: &Person| std::fs::read_to_string(person.context.state.file("known_hosts")).unwrap();
    let pin = |person: &Person, text: &str| {
        person.context.state.create().unwrap();
        crate::files::write_whole(&person.context.state.file("known_hosts"), text.as_bytes(), 0o600).unwrap();
    };
    // Of a host that is not in the topology any more nothing is handed on.
    pin(&anna, &format!("10.88.0.1 ssh-ed25519 OLD\n{PINNED}"));
    anna.install("one").unwrap();
    assert!(ben.adopt().unwrap());
    assert_eq!(keys(&ben), PINNED);

    // The database host goes, and its key: what Ben has pinned stays.
    let whole = anna.context.topology_text.clone();
    let fewer: String = TOPOLOGY.split_inclusive('\n').filter(|line| !line.contains("db1")).collect();
    anna.topology(fewer.replace("[redis]", "[redis, mariadb]"));
    pin(&anna, "10.77.0.11 ssh-ed25519 AAA\n");
    anna.install("fewer").unwrap();
    ben.look("status").unwrap();
    assert_eq!((ben.secret(), keys(&ben)), ("fewer".into(), PINNED.into()));
    // There again, with another one.
    anna.topology(whole);
    pin(&anna, &PINNED.replace("BBB", "EVIL"));
    anna.install("evil").unwrap();
    let refused = ben.look("status").unwrap_err();
    assert!(refused.step == STALE && refused.cause.contains("10.77.0.12"), "{refused:?}");
    assert!(refused.hint.contains("ssh-keygen -R '10.77.0.12' -f "), "{refused:?}");
    assert_eq!((ben.secret(), keys(&ben)), ("fewer".into(), PINNED.into()));
    // Gone alone.
    pin(&anna, "10.77.0.11 ssh-ed25519 AAA\n");
    anna.install("gone").unwrap();
    assert_eq!(ben.look("status").unwrap_err().step, STALE);
    // It was done on purpose: a person removes the old one here.
    pin(&ben, "10.77.0.11 ssh-ed25519 AAA\n");
    pin(&anna, &PINNED.replace("BBB", "NEW"));
    anna.install("right").unwrap();
    ben.look("status").unwrap();
    assert_eq!((ben.secret(), keys(&ben)), ("right".into(), PINNED.replace("BBB", "NEW")));
}

#[test]
fn names_and_contents_count_in_the_digest() {
    let digest = |pairs: &[(&str, &str)]| {
        let files = pairs.iter().map(|(name, text)| ((*name).to_owned(), maxim_model::Secret::new(*text)));
        Files(files.collect()).digest()
    };
    assert_ne!(digest(&[("a", "bc")]), digest(&[("ab", "c")]));
    assert_ne!(digest(&[("a", "b"), ("c", "")]), digest(&[("a", ""), ("c", "b")]));
}
