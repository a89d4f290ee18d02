//! Upgrades at their edges: what comes between question, snapshot and switch; what was ill before; what is changed
//! afterwards; who may go on.

use super::{HOSTS, Scene, manifest};
use crate::context::Ask;
use crate::delivery::Delivery;
use crate::error::{Class, EngineError};
use crate::state::Installed;
use crate::upgrade::passes::{Snapshot, passes};
use crate::upgrade::{UpgradeOptions, UpgradeOutcome, back, kept, record, refuse_other_program};
use maxim_model::names::Role;
use maxim_model::plan::Plan;
use maxim_model::task::{Task, TaskKind};
use maxim_model::upgrade::{Phase, Turn};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Scene {
    /// A whole upgrade with a snapshot; how often one was taken.
    fn upgrade_with_snapshot(&self) -> (Result<UpgradeOutcome, EngineError>, usize) {
        let run = self.run("upgrade");
        let taken = Cell::new(0);
        let take = || {
            // A backup takes the same locks.
            let _control = self.context.state.lock("backup").unwrap();
            for host in HOSTS {
                assert_eq!(self.fleet.with(host, |state| state.locks), 0, "{host} is locked");
            }
            taken.set(taken.get() + 1);
            Ok("set-1".to_owned())
        };
        let snapshot = Snapshot { require: &|| Ok(()), take: &take };
        let done = passes(&run, UpgradeOptions::default(), &manifest(), Some(&snapshot));
        (done, taken.get())
    }
}

struct SayNo;

impl Ask for SayNo {
    fn approve(&self, _plan: &Plan) -> bool {
        false
    }
}

#[test]
fn a_snapshot_is_taken_once_the_plan_is_approved_and_before_anything_is_locked() {
    let mut scene = Scene::installed();
    scene.programs("two");
    let before = scene.fleet.mutations();
    let ask = std::mem::replace(&mut scene.context.ask, Arc::new(SayNo));
    let (declined, taken) = scene.upgrade_with_snapshot();
    assert!(!declined.unwrap().applied && taken == 0, "who says no leaves no set behind");
    scene.context.ask = ask;
    scene.fleet.with("b", |state| state.down = vec!["maxim-im".into()]);
    let (blocked, taken) = scene.upgrade_with_snapshot();
    assert_eq!((blocked.unwrap_err().exit_code(), taken), (3, 0), "nor does what is blocked");
    assert_eq!(scene.fleet.mutations(), before);
    assert!(record::load(&scene.context.state).unwrap().is_none());
    scene.fleet.with("b", |state| state.down.clear());
    let (done, taken) = scene.upgrade_with_snapshot();
    assert!(done.unwrap().applied && taken == 1);
    assert_eq!(record::load(&scene.context.state).unwrap().unwrap().snapshot, "set-1");
    let (again, taken) = scene.upgrade_with_snapshot();
    assert_eq!((again.unwrap().changes, taken), (0, 0));
}

#[test]
fn what_somebody_else_installs_during_the_snapshot_is_not_reverted() {
    let scene = Scene::installed();
    scene.programs("two");
    let run = scene.run("upgrade");
    let take = || {
        scene.programs("three");
        scene.install().unwrap();
        scene.programs("two");
        Ok(String::new())
    };
    let snapshot = Snapshot { require: &|| Ok(()), take: &take };
    let error = passes(&run, UpgradeOptions::default(), &manifest(), Some(&snapshot)).unwrap_err();
    assert!(error.exit_code() == 5 && error.cause.contains("somebody else"), "{error:?}");
    assert!(record::load(&scene.context.state).unwrap().is_none());
}

#[test]
fn an_upgrade_that_has_only_staged_has_not_begun() {
    let scene = Scene::installed();
    scene.programs("two");
    let cancel = scene.context.cancel.clone();
    scene.fleet.with("a", |state| state.cancels_at = Some(("im/program".into(), cancel)));
    assert_eq!(scene.upgrade().unwrap_err().class, Class::Interrupted);
    assert_eq!(scene.phase(), Phase::Staging);
    scene.fleet.with("a", |state| state.cancels_at = None);
    // The configuration is changed, which is allowed.
    scene.programs("one");
    let config = || scene.fleet.with("a", |state| state.applied.get("im/config").cloned());
    let old = config();
    let mut changed = scene.again();
    changed.context.topology.domain = "example.org".into();
    changed.install().unwrap();
    let new = changed.applied();
    assert_ne!(config(), old);
    // Taken back from there, it stays.
    changed.rollback().unwrap();
    let service = |all: &[BTreeMap<String, Task>], id: &str| {
        all.iter().map(|tasks| tasks.get(id).cloned()).collect::<Vec<_>>()
    };
    assert_eq!(service(&changed.applied(), "im/config"), service(&new, "im/config"));
    // And so it does when the next upgrade fails.
    let mut record = record::load(&changed.context.state).unwrap().unwrap();
    record.phase = Phase::Staging;
    record::save(&changed.context.state, &mut record).unwrap();
    let broken = changed.programs("broken");
    changed.fleet.with("b", |state| state.drops_messages_as = Some(broken[..12].to_owned()));
    let (failed, taken) = changed.upgrade_with_snapshot();
    assert!(failed.unwrap_err().cause.contains("taken back") && taken == 1, "with another snapshot");
    assert_eq!(service(&changed.applied(), "im/config"), service(&new, "im/config"));
    assert_eq!(service(&changed.applied(), "im/service"), service(&new, "im/service"));
}

#[test]
fn once_every_host_is_switched_other_changes_are_neither_switched_nor_taken_back() {
    let scene = Scene::installed();
    scene.programs("two");
    scene.upgrade().unwrap();
    scene.fleet.with("b", |state| state.applied.remove("im/config"));
    let error = scene.upgrade().unwrap_err();
    assert!(error.exit_code() == 5 && error.hint.contains("maxim.ctl install"), "{error:?}");
    assert_eq!(scene.phase(), Phase::Switched);
    scene.install().unwrap();
    let record = record::load(&scene.context.state).unwrap().unwrap();
    back::refuse_when_changed_since(&scene.context, &record).unwrap();
    // What is changed on purpose is in the way of a rollback.
    let mut changed = scene.again();
    changed.context.topology.domain = "example.org".into();
    changed.install().unwrap();
    let error = back::refuse_when_changed_since(&changed.context, &record).unwrap_err();
    assert_eq!((error.host.as_str(), error.exit_code()), ("a", 5));
    assert!(error.cause.contains("im/") && error.hint.contains("maxim.ctl install"), "{error:?}");
    scene.install().unwrap();
    back::refuse_when_changed_since(&scene.context, &record).unwrap();
    // Another control host has installed.
    let mut installed = scene.context.state.installed().unwrap().unwrap();
    installed.generation += 1;
    scene.context.state.save_installed(&installed).unwrap();
    let error = back::refuse_when_changed_since(&scene.context, &record).unwrap_err();
    assert!(error.exit_code() == 5 && error.cause.contains("another control host"), "{error:?}");
}

#[test]
fn a_service_that_had_restarted_on_its_own_is_not_blamed_on_the_upgrade() {
    let scene = Scene::installed();
    scene.fleet.with("b", |state| state.restarts = 5);
    scene.programs("two");
    assert!(scene.upgrade().unwrap().applied);
    assert!(scene.rollback().unwrap() > 0);
    assert_eq!(scene.phase(), Phase::RolledBack);
    // One that begins to in its turn is.
    let scene = Scene::installed();
    scene.programs("two");
    scene.fleet.with("b", |state| state.restarts_after = Some(("im/service".into(), 5)));
    let error = scene.upgrade().unwrap_err();
    assert_eq!((error.host.as_str(), error.step.as_str()), ("b", "health"), "{error:?}");
}

#[test]
fn what_was_broken_before_need_not_be_well_when_that_was_said() {
    let mut scene = Scene::installed();
    scene.fleet.with("c", |state| state.down = vec!["maxim-console".into()]);
    scene.programs("two");
    assert_eq!(scene.upgrade().unwrap_err().exit_code(), 3);
    scene.context.force = vec!["upgrade.health".into()];
    assert!(scene.upgrade().unwrap().applied);
    assert_eq!(scene.phase(), Phase::Switched);
    // Neither need it be on the way back from a version that fails elsewhere.
    let mut scene = Scene::installed();
    scene.context.force = vec!["upgrade.health".into()];
    scene.fleet.with("a", |state| state.down = vec!["maxim-im".into()]);
    let broken = scene.programs("broken");
    scene.fleet.with("b", |state| state.drops_messages_as = Some(broken[..12].to_owned()));
    let error = scene.upgrade().unwrap_err();
    assert!(error.host == "b" && error.cause.contains("taken back"), "{error:?}");
    assert_eq!(scene.phase(), Phase::RolledBack);
}

#[test]
fn an_interruption_waits_until_the_im_core_that_was_drained_is_well_again() {
    let scene = Scene::installed();
    let new = scene.programs("two");
    let cancel = scene.context.cancel.clone();
    scene.fleet.with("b", |state| state.cancels_at_stop = Some(cancel));
    assert_eq!(scene.upgrade().unwrap_err().class, Class::Interrupted);
    let record = record::load(&scene.context.state).unwrap().unwrap();
    assert_eq!((record.phase, record.turn("b")), (Phase::Switching, Turn::Begun));
    let service = scene.fleet.with("b", |state| state.applied["im/service"].clone());
    let TaskKind::Unit(unit) = &service.kind else { panic!("{service:?}") };
    assert!(unit.running && unit.content.contains(&new[..12]), "it serves, in the new version");
    let next = scene.again();
    next.fleet.with("b", |state| state.cancels_at_stop = None);
    assert!(next.upgrade().unwrap().applied);
}

#[test]
fn a_host_that_died_for_good_may_be_replaced_once_all_others_are_taken_back() {
    let scene = Scene::installed();
    scene.programs("two");
    scene.fleet.with("b", |state| state.vanishes_at = Some("im/service".into()));
    let error = scene.upgrade().unwrap_err();
    assert!(error.hint.contains("host replace"), "{error:?}");
    let state = &scene.context.state;
    let installed = state.installed().unwrap().unwrap();
    let allowed = |dead: &str| {
        record::refuse_replacement(state, &installed, &Delivery::None, dead).map_err(|e| e.exit_code())
    };
    assert_eq!(allowed("a"), Err(5), "the host that died is another");
    assert_eq!(allowed("b"), Ok(()));
    let mut record = record::load(state).unwrap().unwrap();
    record.set_turn("a", Turn::Done);
    record::save(state, &mut record).unwrap();
    assert_eq!(allowed("b"), Err(5), "another host is of the new version still");
    record.set_turn("a", Turn::TakenBack);
    record::save(state, &mut record).unwrap();
    record::end_rollback(state).unwrap();
    let record = record::load(state).unwrap().unwrap();
    assert_eq!(record.phase, Phase::RolledBack);
    assert!(!record.failure.is_empty(), "why is kept");
    record::refuse_other_version(state, &installed, &Delivery::None).unwrap();
}

#[test]
fn a_rollback_does_not_wait_for_a_host_that_died_while_an_upgrade_was_broken_off() {
    let scene = Scene::installed();
    let before = scene.applied();
    scene.programs("two");
    let cancel = scene.context.cancel.clone();
    scene.fleet.with("b", |state| state.cancels_at = Some(("im/service".into(), cancel)));
    assert_eq!(scene.upgrade().unwrap_err().class, Class::Interrupted);
    assert_eq!(scene.phase(), Phase::Switching);
    let next = scene.again();
    next.fleet.with("b", |state| (state.cancels_at, state.unreachable) = (None, true));
    let error = next.rollback().unwrap_err();
    assert_eq!((error.host.as_str(), error.exit_code()), ("b", 1));
    assert!(error.hint.contains("host replace") && error.others.is_empty(), "{error:?}");
    let now = next.applied();
    assert_eq!((&now[0], &now[2]), (&before[0], &before[2]), "the others are what they were");
    assert_ne!(now[1], before[1]);
    let state = &next.context.state;
    let installed = state.installed().unwrap().unwrap();
    record::refuse_replacement(state, &installed, &Delivery::None, "b").unwrap();
    // Nothing is decided without the host that keeps the state.
    next.fleet.with("c", |state| state.unreachable = true);
    assert_eq!((next.rollback().unwrap_err().exit_code(), next.applied()), (3, now));
    // It is back: the same command takes it back too.
    next.fleet.with("c", |state| state.unreachable = false);
    next.fleet.with("b", |state| state.unreachable = false);
    assert!(next.rollback().unwrap() > 0);
    assert_eq!((next.applied(), next.phase()), (before, Phase::RolledBack));
    // When all hosts run one version, nobody is left behind.
    next.programs("two");
    assert!(next.upgrade().unwrap().applied);
    next.fleet.with("b", |state| state.unreachable = true);
    let mutations = next.fleet.mutations();
    assert_eq!(next.rollback().unwrap_err().exit_code(), 3);
    assert_eq!((next.phase(), next.fleet.mutations()), (Phase::Switched, mutations));
}

#[test]
fn programs_go_back_though_the_host_of_their_stores_died_with_the_upgrade() {
    let scene = Scene::installed();
    scene.programs("two");
    let cancel = scene.context.cancel.clone();
    scene.fleet.with("b", |state| state.cancels_at = Some(("im/service".into(), cancel)));
    assert_eq!(scene.upgrade().unwrap_err().class, Class::Interrupted);
    let mut next = scene.again();
    next.context.topology.hosts[2].roles = vec![Role::Mariadb];
    next.fleet.with("c", |state| state.unreachable = true);
    for host in ["a", "b"] {
        next.fleet.with(host, |state| (state.cancels_at, state.down) = (None, vec!["maxim-im".into()]));
    }
    let error = next.rollback().unwrap_err();
    assert!(error.host == "c" && error.others.is_empty(), "{error:?}");
    let record = record::load(&next.context.state).unwrap().unwrap();
    assert_eq!((record.turn("a"), record.turn("b")), (Turn::TakenBack, Turn::TakenBack));
    let installed = next.context.state.installed().unwrap().unwrap();
    record::refuse_replacement(&next.context.state, &installed, &Delivery::None, "c").unwrap();
}

#[test]
fn the_program_of_another_version_upgrades_to_nothing() {
    refuse_other_program("upgrade", env!("CARGO_PKG_VERSION")).unwrap();
    let error = refuse_other_program("upgrade", "99.0.0").unwrap_err();
    assert!(error.exit_code() == 5 && error.hint.contains("tar xf BUNDLE maxim.ctl"), "{error:?}");
}

#[test]
fn what_leads_back_must_be_of_what_is_installed_and_of_this_control_host() {
    let scene = Scene::installed();
    scene.programs("two");
    let state = &scene.context.state;
    let here = state.installed().unwrap().unwrap();
    // Another control host has installed.
    state.save_installed(&Installed { generation: here.generation + 1, ..here.clone() }).unwrap();
    let (refused, taken) = scene.upgrade_with_snapshot();
    let error = refused.unwrap_err();
    assert_eq!((error.exit_code(), taken), (5, 0), "no set is left behind: {error:?}");
    assert!(error.cause.contains("another control host"), "{error:?}");
    state.save_installed(&here).unwrap();
    // Where an upgrade was not begun, it cannot be completed, and no install helps.
    scene.fleet.with("b", |state| state.cancels_at_stop = Some(scene.context.cancel.clone()));
    assert_eq!(scene.upgrade().unwrap_err().class, Class::Interrupted);
    scene.fleet.with("b", |state| state.cancels_at_stop = None);
    kept::Kept::remove(state, kept::PREVIOUS).unwrap();
    let error = scene.again().upgrade().unwrap_err();
    assert!(error.exit_code() == 5 && error.hint.contains("where it was begun"), "{error:?}");
}
