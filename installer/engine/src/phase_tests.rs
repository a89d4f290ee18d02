//! Whole actions on fake hosts: what a dry run leaves, what a second run changes, what a failure stops.

use crate::actions::install::{InstallOptions, InstallOutcome, install_with};
use crate::context::{Ask, CancelFlag, Context};
use crate::delivery::Delivery;
use crate::error::{Class, EngineError};
use crate::events::Collector;
use crate::fake::Fleet;
use crate::run::Run;
use crate::sample;
use crate::state::StateDir;
use maxim_model::event::EventKind;
use maxim_model::names::Role;
use maxim_model::plan::Plan;
use maxim_model::topology::Host;
use std::sync::Arc;
use tempfile::TempDir;

/// Two fake hosts, `a` with the IM core and `b` with the console.
struct Scene {
    _folder: TempDir,
    context: Context,
    fleet: Arc<Fleet>,
    events: Arc<Collector>,
}

struct SayNo;

impl Ask for SayNo {
    fn approve(&self, _plan: &Plan) -> bool {
        false
    }
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for name in ["maxim-ctl", "maxim-im", "maxim-console"] {
            std::fs::write(bin.join(name), name).unwrap();
        }
        let mut topology = sample::embedded(&root);
        let host = |name: &str, role: Role| Host {
            name: name.into(),
            roles: vec![role],
            ..topology.hosts[0].clone()
        };
        topology.hosts = vec![host("a", Role::Im), host("b", Role::Console)];
        let cancel = CancelFlag::new();
        let fleet = Arc::new(Fleet::new(&topology, cancel.clone()));
        let events = Arc::new(Collector::default());
        let context = Context {
            topology_text: "name: embedded\n".into(),
            delivery: Delivery::Checkout { bin_dir: bin.clone(), web_root: None },
            events: events.clone(),
            cancel,
            program: bin.join("maxim-ctl"),
            ..sample::context(topology, StateDir::embedded(&root))
        };
        Self { _folder: folder, context, fleet, events }
    }

    fn install(&self) -> Result<InstallOutcome, EngineError> {
        self.run(InstallOptions::default(), None)
    }

    fn run(&self, options: InstallOptions, only: Option<&Plan>) -> Result<InstallOutcome, EngineError> {
        let fleet: Arc<Fleet> = Arc::clone(&self.fleet);
        let run = Run::with_connector(&self.context, "install", !options.dry_run, fleet)?;
        let outcome = install_with(&run, options, only);
        for host in ["a", "b"] {
            self.fleet.with(host, |state| assert!(state.violations.is_empty(), "{:?}", state.violations));
        }
        outcome
    }
}

#[test]
fn a_dry_run_changes_nothing_anywhere() {
    let scene = Scene::new();
    let outcome = scene.run(InstallOptions { dry_run: true }, None).unwrap();
    assert!(!outcome.applied && outcome.changes > 10, "{}", outcome.changes);
    assert_eq!(scene.fleet.mutations(), 0);
    assert!(!scene.context.state.path().exists(), "the control host too is left as it was");
}

#[test]
fn a_refused_plan_changes_nothing() {
    let mut scene = Scene::new();
    scene.context.ask = Arc::new(SayNo);
    assert!(!scene.install().unwrap().applied);
    assert_eq!(scene.fleet.mutations(), 0);
    assert_eq!(scene.context.state.installed().unwrap(), None);
}

#[test]
fn an_install_verifies_and_a_second_one_changes_nothing() {
    let scene = Scene::new();
    let first = scene.install().unwrap();
    assert!(first.applied && first.changes == scene.fleet.mutations() && first.changes > 10);
    let account = first.account.unwrap();
    let written = std::fs::read_to_string(&account.path).unwrap();
    assert!(written.contains(account.password.unwrap().expose()));
    scene.fleet.with("a", |state| assert_eq!(state.accounts, ["admin@localhost"]));
    assert!(scene.events.events().iter().any(|event| matches!(event.kind, EventKind::Canary { .. })));
    assert_eq!(first.components.len(), 2);

    let second = scene.install().unwrap();
    assert_eq!((second.applied, second.changes), (true, 0));
    assert!(second.account.unwrap().password.is_none(), "shown once");
    assert_eq!(scene.fleet.mutations(), first.changes);
    let state = scene.context.state.installed().unwrap().unwrap();
    assert_eq!((state.generation, state.account_created), (1, true));
}

#[test]
fn the_console_starts_after_the_im_core_of_another_host() {
    let scene = Scene::new();
    scene.install().unwrap();
    let order = scene.fleet.order();
    let place = |task: &str| {
        order.iter().position(|done| done == task).unwrap_or_else(|| panic!("{task}: {order:?}"))
    };
    assert!(place("a im/service") < place("b console/service"));
}

#[test]
fn a_failing_host_stops_the_others_at_the_barrier_and_the_next_run_completes() {
    let scene = Scene::new();
    scene.fleet.with("a", |state| state.fails_at = Some("im/config".into()));
    let error = scene.install().unwrap_err();
    assert_eq!((error.host.as_str(), error.step.as_str(), error.exit_code()), ("a", "im/config", 1));
    assert_eq!((error.cause.as_str(), error.hint.as_str()), ("disk full", "free space"));
    scene
        .fleet
        .with("b", |state| assert!(!state.applied.contains_key("console/service"), "stopped at the barrier"));
    let before = scene.fleet.mutations();

    scene.fleet.with("a", |state| state.fails_at = None);
    let outcome = scene.install().unwrap();
    assert_eq!(scene.fleet.mutations(), before + outcome.changes, "what was done is not done again");
}

#[test]
fn a_host_that_dies_is_named_with_its_step() {
    let scene = Scene::new();
    scene.fleet.with("a", |state| state.dies_at = Some("im/service".into()));
    let error = scene.install().unwrap_err();
    assert_eq!((error.host.as_str(), error.step.as_str(), error.exit_code()), ("a", "im/service", 1));
    assert!(error.cause.contains("the agent ended"), "{error}");
}

#[test]
fn an_interruption_ends_at_a_safe_point_with_130() {
    let scene = Scene::new();
    let cancel = scene.context.cancel.clone();
    scene.fleet.with("a", |state| state.cancels_at = Some(("im/data".into(), cancel)));
    let error = scene.install().unwrap_err();
    assert_eq!((error.class, error.exit_code()), (Class::Interrupted, 130));
    scene.fleet.with("b", |state| assert!(!state.applied.contains_key("console/service")));
}

#[test]
fn a_lock_held_by_somebody_refuses_and_names_him() {
    let scene = Scene::new();
    scene.fleet.with("b", |state| state.locked_by = Some("bob@laptop, pid 9, install".into()));
    let error = scene.install().unwrap_err();
    assert_eq!((error.exit_code(), error.host.as_str()), (5, "b"));
    assert!(error.cause.contains("bob@laptop"), "{error}");
    assert_eq!(scene.fleet.mutations(), 0);
}

#[test]
fn an_unreachable_host_blocks_before_anything_is_changed() {
    let scene = Scene::new();
    scene.fleet.with("b", |state| state.unreachable = true);
    let error = scene.install().unwrap_err();
    assert_eq!((error.exit_code(), error.host.as_str(), error.step.as_str()), (3, "b", "access.unreachable"));
    assert_eq!(scene.fleet.mutations(), 0);
}

#[test]
fn a_clock_that_is_off_blocks_and_force_lets_it_pass() {
    let mut scene = Scene::new();
    scene.fleet.with("b", |state| state.clock_ahead = 10_000_000_000);
    let error = scene.install().unwrap_err();
    assert_eq!((error.exit_code(), error.step.as_str()), (3, "clock.offset"));
    scene.context.force = vec!["clock.offset".into()];
    assert!(scene.install().unwrap().applied);
}

#[test]
fn a_saved_plan_is_applied_as_it_is_or_refused() {
    let scene = Scene::new();
    let fleet: Arc<Fleet> = Arc::clone(&scene.fleet);
    // What `plan -o` does: secrets and certificates are kept, so that the same tasks can be rendered again.
    let saved = {
        let run = Run::with_connector(&scene.context, "plan", false, fleet).unwrap();
        crate::actions::plan::plan_with(&run, crate::actions::plan::PlanOptions { keep: true }).unwrap().plan
    };
    assert_eq!(scene.fleet.mutations(), 0);
    let text = serde_json::to_string(&saved).unwrap();
    let secrets = std::fs::read_to_string(scene.context.state.file("secrets.json")).unwrap();
    let secrets: std::collections::BTreeMap<String, String> = serde_json::from_str(&secrets).unwrap();
    for (name, secret) in &secrets {
        assert!(!text.contains(secret.as_str()), "the plan holds the secret {name}");
    }
    let saved: Plan = serde_json::from_str(&text).unwrap();
    assert!(scene.run(InstallOptions::default(), Some(&saved)).unwrap().applied);
    // Now everything is done: the same plan rests on what is no more.
    let error = scene.run(InstallOptions::default(), Some(&saved)).unwrap_err();
    assert_eq!(error.exit_code(), 5);
    assert!(error.cause.contains("create"), "{error}");
}

#[test]
fn no_secret_is_in_an_event_or_in_the_journal() {
    let scene = Scene::new();
    scene.install().unwrap();
    let text = serde_json::to_string(&scene.events.events()).unwrap();
    let secrets = std::fs::read_to_string(scene.context.state.file("secrets.json")).unwrap();
    let secrets: std::collections::BTreeMap<String, String> = serde_json::from_str(&secrets).unwrap();
    assert!(secrets.len() >= 3, "{:?}", secrets.keys());
    let journal: String = std::fs::read_dir(scene.context.state.file("journal"))
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert!(journal.lines().count() > 20);
    for (name, secret) in &secrets {
        assert!(!text.contains(secret.as_str()), "an event holds {name}");
        assert!(!journal.contains(secret.as_str()), "the journal holds {name}");
    }
    assert!(!text.contains("PRIVATE KEY") && !journal.contains("PRIVATE KEY"));
}
