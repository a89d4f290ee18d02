//! Whole upgrades on fake hosts: the order of things, what a failure leaves, what the next run completes.

use super::{
    Asked, RollbackOptions, Upgrade, UpgradeOptions, UpgradeOutcome, back, kept, lost, order, record,
};
use crate::actions::install::{InstallOptions, InstallOutcome, install_with};
use crate::context::{CancelFlag, Context};
use crate::delivery::Delivery;
use crate::error::{Class, EngineError};
use crate::fake::Fleet;
use crate::phases::connect;
use crate::phases::plan::Material;
use crate::run::{Run, Session};
use crate::sample;
use crate::state::{self, Installed, StateDir};
use maxim_model::Secret;
use maxim_model::manifest::{MANIFEST_FORMAT, Manifest};
use maxim_model::names::Role;
use maxim_model::task::{Task, TaskKind};
use maxim_model::topology::Host;
use maxim_model::upgrade::{Compatibility, Phase, Release, SchemaRange, Turn};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

mod edges;

const HOSTS: [&str; 3] = ["a", "b", "c"];

fn manifest() -> Manifest {
    Manifest {
        format: MANIFEST_FORMAT,
        version: "0.2.0".into(),
        architecture: String::new(),
        lock_sha256: String::new(),
        public_key: String::new(),
        compatibility: Some(Compatibility {
            upgrades_from: vec!["0.1".into()],
            schema: SchemaRange { oldest: 1, expanded: 2, finalized: 3 },
        }),
        members: Vec::new(),
    }
}

/// Two fake hosts with the IM core and one with the console, installed in version one.
struct Scene {
    _folder: TempDir,
    bin: PathBuf,
    context: Context,
    fleet: Arc<Fleet>,
}

impl Scene {
    fn installed() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (root, bin) = (folder.path().join("root"), folder.path().join("bin"));
        std::fs::create_dir(&bin).unwrap();
        let mut topology = sample::embedded(&root);
        let host = |name: &str, role: Role| Host {
            name: name.into(),
            roles: vec![role],
            ..topology.hosts[0].clone()
        };
        topology.hosts = vec![host("a", Role::Im), host("b", Role::Im), host("c", Role::Console)];
        let cancel = CancelFlag::new();
        let fleet = Arc::new(Fleet::new(&topology, cancel.clone()));
        let context = Context {
            topology_text: "name: embedded\n".into(),
            delivery: Delivery::Checkout { bin_dir: bin.clone(), web_root: None },
            cancel,
            program: bin.join("maxim-ctl"),
            ..sample::context(topology, StateDir::embedded(&root))
        };
        let scene = Self { _folder: folder, bin, context, fleet };
        scene.programs("one");
        let run = scene.run("install");
        assert!(install_with(&run, InstallOptions::default(), None).unwrap().applied);
        scene
    }

    /// Puts programs of a version where they are delivered from; the digest of the IM core.
    fn programs(&self, version: &str) -> String {
        for name in ["maxim-ctl", "maxim-im", "maxim-console"] {
            std::fs::write(self.bin.join(name), format!("{name} {version}")).unwrap();
        }
        hex::encode(Sha256::digest(format!("maxim-im {version}")))
    }

    fn run(&self, action: &str) -> Run<'_> {
        let fleet: Arc<Fleet> = Arc::clone(&self.fleet);
        Run::with_connector(&self.context, action, true, fleet).unwrap()
    }

    /// What `upgrade` does after the bundle was opened and judged.
    fn upgrade(&self) -> Result<UpgradeOutcome, EngineError> {
        let run = self.run("upgrade");
        let release = |version: &str| Release { version: version.into(), ..Release::default() };
        let mut upgrade = Upgrade {
            run: &run,
            options: UpgradeOptions { no_snapshot: true, ..UpgradeOptions::default() },
            installed: self.context.state.installed().unwrap().unwrap(),
            record: record::load(&self.context.state).unwrap(),
            from: release("0.1.0"),
            to: release("0.2.0"),
            manifest: manifest(),
            snapshot: String::new(),
            asked: Asked::NotYet,
        };
        let mut material = Material::load(&run).unwrap();
        let mut sessions = connect::connect(&run).unwrap();
        let outcome = upgrade.on(&mut sessions, &mut material);
        connect::release(&mut sessions);
        outcome
    }

    /// How much a whole rollback has changed.
    fn rollback(&self) -> Result<usize, EngineError> {
        back::rollback_with(&self.run("rollback"), RollbackOptions::default()).map(|outcome| outcome.changes)
    }

    fn install(&self) -> Result<InstallOutcome, EngineError> {
        install_with(&self.run("install"), InstallOptions::default(), None)
    }

    /// The same hosts and state for a run after one that was cancelled.
    fn again(&self) -> Self {
        let cancel = CancelFlag::new();
        let fleet = Fleet {
            topology: self.fleet.topology.clone(),
            hosts: self.fleet.hosts.clone(),
            order: Arc::clone(&self.fleet.order),
            cancel: cancel.clone(),
        };
        Self {
            context: Context { cancel, ..self.context.clone() },
            fleet: Arc::new(fleet),
            bin: self.bin.clone(),
            _folder: tempfile::tempdir().unwrap(),
        }
    }

    fn phase(&self) -> Phase {
        record::load(&self.context.state).unwrap().unwrap().phase
    }

    fn applied(&self) -> Vec<BTreeMap<String, Task>> {
        HOSTS.iter().map(|host| self.fleet.with(host, |state| state.applied.clone())).collect()
    }

    fn order_since(&self, before: usize) -> Vec<String> {
        self.fleet.order().split_off(before)
    }
}

#[test]
fn stores_have_their_turn_before_the_programs_that_use_them() {
    let topology = sample::three_hosts();
    let names: Vec<&str> =
        order(&topology).into_iter().map(|place| topology.hosts[place].name.as_str()).collect();
    assert_eq!(names, ["db1", "cache1", "app1"]);
}

#[test]
fn everything_is_staged_then_each_host_has_its_turn_and_a_second_run_changes_nothing() {
    let scene = Scene::installed();
    let before = scene.fleet.order().len();
    scene.programs("two");
    let outcome = scene.upgrade().unwrap();
    assert!(outcome.applied && outcome.changes > 5, "{}", outcome.changes);
    assert_eq!(outcome.plan.hosts, HOSTS);
    let order = scene.order_since(before);
    let place = |task: &str| {
        order.iter().position(|done| done == task).unwrap_or_else(|| panic!("{task}: {order:?}"))
    };
    assert!(place("b im/program") < place("a im/service"), "staged everywhere first");
    assert!(place("c console/program") < place("a im/service"));
    assert!(
        place("a im/service") < place("b im/service") && place("b im/service") < place("c console/service")
    );
    assert_eq!(scene.phase(), Phase::Switched);
    assert_eq!(scene.context.state.installed().unwrap().unwrap().generation, 2);

    let (again, mutations) = (scene.upgrade().unwrap(), scene.fleet.mutations());
    assert_eq!((again.changes, scene.fleet.mutations()), (0, mutations));
}

#[test]
fn a_rollback_leaves_every_host_as_it_was() {
    let scene = Scene::installed();
    let (before, installed) = (scene.applied(), scene.context.state.installed().unwrap());
    scene.programs("two");
    scene.upgrade().unwrap();
    assert_ne!(scene.applied(), before);
    assert!(scene.rollback().unwrap() > 0);
    assert_eq!(scene.applied(), before);
    assert_eq!(scene.context.state.installed().unwrap(), installed);
    assert_eq!(scene.phase(), Phase::RolledBack);
    scene.programs("one");
    let run = scene.run("install");
    assert_eq!(install_with(&run, InstallOptions::default(), None).unwrap().changes, 0);
}

#[test]
fn a_version_that_delivers_nothing_takes_itself_back() {
    let scene = Scene::installed();
    let before = scene.applied();
    let broken = scene.programs("broken");
    scene.fleet.with("b", |state| state.drops_messages_as = Some(broken[..12].to_owned()));
    let error = scene.upgrade().unwrap_err();
    assert_eq!((error.host.as_str(), error.exit_code()), ("b", 1));
    assert!(error.cause.contains("no message") && error.cause.contains("taken back"), "{error:?}");
    for (host, (now, then)) in HOSTS.iter().zip(scene.applied().iter().zip(&before)) {
        assert_eq!(now.get("im/service"), then.get("im/service"), "{host}");
        assert_eq!(now.get("im/config"), then.get("im/config"), "{host}");
    }
    let record = record::load(&scene.context.state).unwrap().unwrap();
    assert_eq!(record.phase, Phase::RolledBack);
    assert_eq!(record.turn("a"), Turn::TakenBack);
    assert_eq!(record.turn("c"), Turn::Waiting, "it never had its turn");
    assert!(record.failure.contains("no message"), "{}", record.failure);
    // A whole bundle goes through afterwards.
    scene.programs("two");
    assert!(scene.upgrade().unwrap().applied);
}

#[test]
fn an_interrupted_upgrade_is_completed_and_what_is_done_stays_untouched() {
    let scene = Scene::installed();
    scene.programs("two");
    let cancel = scene.context.cancel.clone();
    scene.fleet.with("b", |state| state.cancels_at = Some(("im/service".into(), cancel)));
    let error = scene.upgrade().unwrap_err();
    assert_eq!(error.class, Class::Interrupted);
    let record = record::load(&scene.context.state).unwrap().unwrap();
    assert_eq!(
        (record.phase, record.turn("a"), record.turn("b")),
        (Phase::Switching, Turn::Done, Turn::Begun)
    );
    let run = scene.run("install");
    let refused = install_with(&run, InstallOptions::default(), None).unwrap_err();
    assert_eq!(refused.exit_code(), 5, "an install does not come between");

    let before = scene.fleet.order().len();
    let next = scene.again();
    next.fleet.with("b", |state| state.cancels_at = None);
    assert!(next.upgrade().unwrap().applied);
    let order = next.order_since(before);
    assert!(order.iter().all(|done| !done.starts_with("a ")), "{order:?}");
    assert_eq!(next.phase(), Phase::Switched);
}

#[test]
fn a_host_that_dies_on_the_way_back_is_named_and_taken_back_later() {
    let scene = Scene::installed();
    let before = scene.applied();
    scene.programs("two");
    scene.fleet.with("b", |state| state.vanishes_at = Some("im/service".into()));
    let error = scene.upgrade().unwrap_err();
    assert_eq!((error.host.as_str(), error.exit_code()), ("b", 1));
    assert!(error.hint.contains("rollback"), "{error:?}");
    assert_eq!(scene.phase(), Phase::RollingBack);
    scene.fleet.with("b", |state| (state.vanishes_at, state.unreachable) = (None, false));
    // The same command completes the way back, and says that the upgrade failed.
    let error = scene.upgrade().unwrap_err();
    assert!(error.cause.contains("taken back") && error.exit_code() == 1, "{error}");
    assert_eq!(scene.phase(), Phase::RolledBack);
    let service = |all: &[BTreeMap<String, Task>]| {
        all.iter().map(|tasks| tasks.get("im/service").cloned()).collect::<Vec<_>>()
    };
    assert_eq!(service(&scene.applied()), service(&before));
}

#[test]
fn a_host_that_is_lost_in_its_turn_is_connected_to_again() {
    let scene = Scene::installed();
    scene.programs("two");
    scene.fleet.with("b", |state| state.dies_once_at = Some("im/service".into()));
    let outcome = scene.upgrade().unwrap();
    assert!(outcome.applied);
    assert_eq!(scene.phase(), Phase::Switched);
    assert_eq!(scene.fleet.with("b", |state| state.dies_once_at.clone()), None, "it was lost indeed");
}

/// A cluster whose console keeps the state: somebody else worked on it while the lock of a lost host had run out.
#[test]
fn a_run_that_lost_its_lock_to_somebody_who_wrote_since_ends_as_it_is() {
    let scene = Scene::installed();
    let topology = sample::three_hosts();
    let fleet = Arc::new(Fleet::new(&topology, CancelFlag::new()));
    let state = StateDir::at(scene.bin.join("state"));
    let context = sample::context(topology, state);
    let run = Run::with_connector(&context, "rollback", true, Arc::<Fleet>::clone(&fleet)).unwrap();
    let mut sessions = connect::connect(&run).unwrap();
    connect::lock_hosts(&run, &mut sessions, "rollback").unwrap();
    context.state.save_topology("name: acme\n").unwrap();
    state::copy::publish(&run, &mut sessions).unwrap();
    let lose = |sessions: &mut [Session<'_>]| {
        sessions[0].writer = None;
        Err::<(), _>(EngineError::failed("switch", "the connection was lost"))
    };
    // Nobody wrote: it is begun again.
    let mut works = 0;
    lost::persist(&run, &mut sessions, &Installed::default(), lost::SHORT, |sessions| {
        works += 1;
        if works == 1 { lose(sessions) } else { Ok(()) }
    })
    .unwrap();
    assert_eq!(works, 2);
    // Somebody did.
    fleet.with("app1", |host| {
        let head = host.applied.get_mut("state/generation").unwrap();
        let TaskKind::File(file) = &mut head.kind else { panic!("{head:?}") };
        file.content = Secret::new(file.content.expose().replace("\"generation\": 1", "\"generation\": 2"));
    });
    let mut works = 0;
    let error = lost::persist(&run, &mut sessions, &Installed::default(), lost::SHORT, |sessions| {
        works += 1;
        lose(sessions)
    })
    .unwrap_err();
    assert_eq!((works, error.step.as_str(), error.exit_code()), (1, state::copy::STALE, 5), "{error:?}");
    assert!(lost::is_over(&error), "neither forward nor back");
    connect::release(&mut sessions);
}

#[test]
fn without_kept_tasks_nothing_is_begun() {
    let scene = Scene::installed();
    kept::Kept::remove(&scene.context.state, kept::APPLIED).unwrap();
    scene.programs("two");
    let before = scene.fleet.mutations();
    assert_eq!(scene.upgrade().unwrap_err().exit_code(), 5);
    assert_eq!(scene.fleet.mutations(), before);
}
