//! `upgrade` and `rollback`: from one version to the next host by host, and back.
//!
//! Steps of [`upgrade`]: the bundle is judged against what is installed ([`maxim_model::upgrade::judge`]); hosts are
//! connected and looked at (room for both versions, every component well), and the plan is shown and approved; a
//! snapshot is taken ([`mod@snapshot`]); all of that is repeated under the locks ([`passes`]); images and programs are staged on all hosts while the version before serves ([`stage`]); then
//! each host has its turn ([`turn`]): files, drain, switch, health, messages through it; one that is lost in it is
//! connected to again ([`lost`]). When a turn fails, the hosts
//! that had theirs are taken back at once ([`back`]), program, configuration and unit as they were. The new version
//! only expands the schema ([`mod@schema`]), so that the one before works on it until [`finalize`] has been asked for.
//!
//! Where it stands is kept in `upgrade.json` ([`record`]), and the tasks of both versions beside it ([`kept`]): a run
//! that was killed is completed by the next, which measures what each host runs and leaves alone what is done.
//!
//! What it deliberately does not do: change data. A store of another release series is refused.

mod back;
mod certificates;
mod finalize;
mod kept;
mod lost;
mod passes;
mod plan;
mod program;
mod record;
mod schema;
mod snapshot;
mod stage;
#[cfg(test)]
mod tests;
mod turn;

pub use back::{RollbackOptions, RollbackOutcome, rollback};
pub use finalize::{FinalizeOutcome, finalize};
pub(crate) use kept::{applied_tasks, keep};
pub use plan::UpgradePlan;
pub use program::program_of_bundle;
pub(crate) use record::{end_rollback, forget, refuse_other_version, refuse_replacement, status};

use crate::actions::install;
use crate::actions::status::require_installed;
use crate::context::Context;
use crate::delivery::Delivery;
use crate::error::{Class, EngineError};
use crate::events::Timing;
use crate::phases::plan::Material;
use crate::phases::probe::DiskProbe;
use crate::phases::{connect, measure};
use crate::run::{Run, Session};
use crate::state::{self, Installed};
use kept::Kept;
use maxim_model::manifest::Manifest;
use maxim_model::names::Role;
use maxim_model::status::{ComponentStatus, Health};
use maxim_model::task::{Change, Task};
use maxim_model::topology::Topology;
use maxim_model::upgrade::{Phase, RECORD_FORMAT, Record, Release, Turn, judge};

/// Name of the check that every component is well, for `--force`.
const HEALTH_CHECK: &str = "upgrade.health";

/// How to upgrade.
#[derive(Debug, Clone, Copy, Default)]
pub struct UpgradeOptions {
    /// Show the plan, change nothing.
    pub dry_run: bool,
    /// Go on without a snapshot.
    pub no_snapshot: bool,
    /// Afterwards pass the point of no return too.
    pub finalize: bool,
}

/// What an upgrade did.
#[derive(Debug, Clone)]
pub struct UpgradeOutcome {
    /// What was planned.
    pub plan: UpgradePlan,
    /// False: a dry run, or the person said no.
    pub applied: bool,
    /// How many things were changed on hosts.
    pub changes: usize,
    /// What runs now, as measured.
    pub components: Vec<ComponentStatus>,
    /// Whether the point of no return was passed.
    pub finalized: bool,
    /// Phase by phase and host by host.
    pub timings: Vec<Timing>,
}

/// Says whether a bundle can follow what is installed, before anything else is done with it.
pub fn admit(context: &Context, manifest: &Manifest) -> Result<(), EngineError> {
    let installed = require_installed(context, "upgrade")?;
    let record = record::load(&context.state)?;
    admitted(manifest, context.delivery.manifest_sha256(), &installed, record.as_ref()).map(|_| ())
}

/// What is upgraded from: what is installed, or what the upgrade that is under way began with.
fn admitted(
    manifest: &Manifest,
    manifest_sha256: &str,
    installed: &Installed,
    record: Option<&Record>,
) -> Result<Release, EngineError> {
    let from = match record {
        Some(record) if is_of(record, manifest_sha256) => record.from.clone(),
        Some(record) if matches!(record.phase, Phase::Switching | Phase::RollingBack | Phase::Finalizing) => {
            return Err(EngineError::refused(
                "upgrade",
                format!(
                    "an upgrade from {} to {} is under way since {}",
                    record.from.version, record.to.version, record.started_at
                ),
            )
            .hint("complete it with the bundle it began with, or take it back with `maxim.ctl rollback`"));
        }
        _ => Release {
            version: installed.version.clone(),
            manifest_sha256: String::new(),
            versions: installed.versions.clone(),
        },
    };
    judge(manifest, &from.version, &from.versions)
        .map_err(|refusal| EngineError::refused("upgrade", refusal.to_string()).hint(refusal.hint()))?;
    Ok(from)
}

/// Whether a record is of the upgrade to this very bundle, and hosts were switched by it. One that has only staged has
/// not begun: what is installed may have been changed since, so it is begun anew, with another snapshot.
fn is_of(record: &Record, manifest_sha256: &str) -> bool {
    matches!(record.phase, Phase::Switching | Phase::RollingBack | Phase::Switched | Phase::Finalizing)
        && record.to.manifest_sha256 == manifest_sha256
}

/// Upgrades to the bundle of the context's delivery, which must be of this program's version (else refused: its own
/// program is to be used, see [`program_of_bundle`]).
pub fn upgrade(context: &Context, options: UpgradeOptions) -> Result<UpgradeOutcome, EngineError> {
    if let Delivery::Bundle(bundle) = &context.delivery {
        refuse_other_program("upgrade", &bundle.manifest().version)?;
    }
    let run = Run::begin(context, "upgrade", !options.dry_run)?;
    upgrade_with(&run, options)
}

/// The same in a run that exists.
pub(crate) fn upgrade_with(run: &Run<'_>, options: UpgradeOptions) -> Result<UpgradeOutcome, EngineError> {
    let context = run.context;
    let Delivery::Bundle(bundle) = &context.delivery else {
        return Err(EngineError::usage("upgrade", "an upgrade needs a bundle")
            .hint("name it with --bundle; in a checkout `maxim.ctl bundle build` makes one"));
    };
    let snapshot =
        passes::Snapshot { require: &|| snapshot::require(context), take: &|| snapshot::take(context) };
    let wanted = !options.dry_run && !options.no_snapshot;
    passes::passes(run, options, bundle.manifest(), wanted.then_some(&snapshot))
}

/// Another version's playbooks, templates and agent are not known to this program.
fn refuse_other_program(step: &str, bundle: &str) -> Result<(), EngineError> {
    let own = env!("CARGO_PKG_VERSION");
    if bundle == own {
        return Ok(());
    }
    Err(EngineError::refused(
        step,
        format!("this program is of version {own}, the bundle holds {bundle}: only its own program knows what is in it"),
    )
    .hint("take the bundle's own maxim.ctl: `tar xf BUNDLE maxim.ctl`"))
}

/// One upgrade: what it goes from and to.
struct Upgrade<'a> {
    run: &'a Run<'a>,
    options: UpgradeOptions,
    installed: Installed,
    /// Of an upgrade before, or of this one when it was killed.
    record: Option<Record>,
    from: Release,
    to: Release,
    manifest: Manifest,
    /// The snapshot that was taken; empty: none.
    snapshot: String,
    asked: Asked,
}

/// Whether the person was asked in a pass before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    NotYet,
    /// The plan was shown and approved.
    Approved,
    /// There was nothing to ask about.
    NothingToDo,
}

/// What a look at the hosts has shown.
struct Looked {
    tasks: Vec<Vec<Task>>,
    changes: Vec<Vec<Change>>,
    /// With the plan, and nothing applied.
    outcome: UpgradeOutcome,
    /// All of it is done already.
    nothing: bool,
}

impl Upgrade<'_> {
    /// The record of this very upgrade, when a run before was killed or has completed it.
    fn resumed(&self) -> Option<&Record> {
        self.record.as_ref().filter(|record| is_of(record, &self.to.manifest_sha256))
    }

    /// Whether the point of no return was passed before.
    fn is_past(&self) -> bool {
        let last = self.record.as_ref().filter(|last| last.to.manifest_sha256 == self.to.manifest_sha256);
        last.is_some_and(|last| matches!(last.phase, Phase::Finalizing | Phase::Finalized))
    }

    /// Looks, asks unless that was done, and does it.
    fn on(
        &mut self,
        sessions: &mut [Session<'_>],
        material: &mut Material,
    ) -> Result<UpgradeOutcome, EngineError> {
        let context = self.run.context;
        let Looked { tasks, changes, mut outcome, nothing } =
            self.look(sessions, material, !self.options.dry_run)?;
        outcome.timings = self.run.emitter.timings();
        if self.options.dry_run {
            return Ok(outcome);
        }
        if !nothing {
            match self.asked {
                Asked::NotYet if !context.ask.approve_upgrade(&outcome.plan) => return Ok(outcome),
                Asked::NothingToDo => return Err(passes::changed("hosts have changed")),
                Asked::NotYet | Asked::Approved => {}
            }
            context.cancel.check("upgrade")?;
            outcome.changes = self.go(sessions, material, &tasks, &changes)?;
        } else if self.options.finalize && !self.is_past() && !context.ask.approve_upgrade(&outcome.plan) {
            return Ok(outcome);
        }
        outcome.applied = true;
        if self.options.finalize {
            finalize::on(self.run, sessions, material)?;
            outcome.finalized = true;
        }
        let installed = context.state.installed()?.unwrap_or_default();
        state::copy::publish(self.run, sessions)?;
        outcome.components = measure::components(self.run, sessions, &installed, true);
        outcome.timings = self.run.emitter.timings();
        Ok(outcome)
    }

    /// Judges the hosts and plans. `locks`: takes those of the hosts, and holds them afterwards.
    fn look(
        &self,
        sessions: &mut [Session<'_>],
        material: &mut Material,
        locks: bool,
    ) -> Result<Looked, EngineError> {
        let context = self.run.context;
        install::preflight_or_refuse(self.run, sessions, DiskProbe::No)?;
        context.cancel.check("probe")?;
        if self.resumed().is_none() {
            self.require_health(sessions)?;
        }
        if locks {
            connect::lock_hosts(self.run, sessions, "upgrade")?;
        }
        let phase = self.resumed().map(|record| record.phase);
        if let Some(record) = self.resumed().filter(|record| record.phase == Phase::RollingBack) {
            if !locks {
                return Err(EngineError::refused("upgrade", "hosts are being taken back")
                    .hint("`maxim.ctl rollback`, or this command without --dry-run, completes that"));
            }
            return Err(back::complete(self.run, sessions, record.clone(), material));
        }
        let schema = schema::of_cluster(self.run, sessions, locks)?;
        schema::fits(schema.as_ref(), &self.manifest, phase.is_some())?;
        let (tasks, changes, made) = install::plan_install(self.run, sessions, material, locks)?;
        if phase.is_none() {
            certificates::refuse_renewed(context, &tasks, &changes)?;
        }
        let plan = UpgradePlan::new(self, schema.as_ref(), &tasks, &changes, made);
        let count = plan.plan.changes();
        match phase {
            Some(Phase::Finalizing) if count > 0 => {
                return Err(EngineError::refused("upgrade", "it is being finalized, and hosts have changed since")
                    .hint("complete that with `maxim.ctl upgrade --finalize`, then put the hosts right with `maxim.ctl install`"));
            }
            // Switching again would take every host back to the version before when one of them fails now.
            Some(Phase::Switched) if count > 0 => {
                return Err(EngineError::refused(
                    "upgrade",
                    "the upgrade is complete, and hosts have changed since",
                )
                .hint("put them right with `maxim.ctl install`"));
            }
            _ => {}
        }
        // Of this very bundle, whatever became of it.
        let last = self.record.as_ref().filter(|last| last.to.manifest_sha256 == self.to.manifest_sha256);
        let complete = last.is_none_or(|last| !matches!(last.phase, Phase::Staging | Phase::Switching));
        let outcome = UpgradeOutcome {
            applied: false,
            changes: count,
            components: Vec::new(),
            finalized: false,
            timings: Vec::new(),
            plan,
        };
        Ok(Looked { tasks, changes, nothing: count == 0 && complete, outcome })
    }

    /// Everything that changes something; how much it was.
    fn go(
        &self,
        sessions: &mut [Session<'_>],
        material: &mut Material,
        tasks: &[Vec<Task>],
        changes: &[Vec<Change>],
    ) -> Result<usize, EngineError> {
        let (run, context) = (self.run, self.run.context);
        if let Delivery::Bundle(bundle) = &context.delivery {
            run.emitter
                .phase("bundle", || bundle.verify_beside().join())
                .unwrap_or_else(|_| Err(EngineError::failed("bundle", "checking the bundle ended early")))?;
            bundle.pin(&context.state)?;
        }
        material.save(context)?;
        let next = Kept::new(install::wanted_after(run, material, &self.installed), sessions, tasks);
        let before = self.before()?;
        let mut record = match self.resumed() {
            Some(record) => record.clone(),
            None => self.new_record(),
        };
        if self.resumed().is_none() {
            kept::remember_folders(&context.state)?;
        }
        before.save(&context.state, kept::PREVIOUS)?;
        next.save(&context.state, kept::NEXT)?;
        record::save(&context.state, &mut record)?;
        if record.snapshot.is_empty() {
            run.emitter.warn("", "snapshot", "no snapshot was taken before this upgrade", "");
        }
        state::copy::publish(run, sessions)?;
        let mut done = stage::stage(run, sessions, tasks, changes, material)?;
        context.cancel.check("upgrade")?;
        let untouched = |host: &str| record.turn(host) == Turn::Waiting;
        let well = turn::Before::measure(run, sessions, &self.installed, untouched);

        record.phase = Phase::Switching;
        record::save(&context.state, &mut record)?;
        // What is wanted from now on; a host that waits for its turn is seen to run another version.
        context.state.save_installed(&next.installed)?;
        let switched =
            run.emitter.phase("switch", || self.turns(sessions, material, &next, &well, &mut record));
        match switched {
            Ok(count) => done += count,
            Err(error) if lost::is_over(&error) => return Err(error),
            Err(error) => {
                return Err(run.emitter.phase("rollback", || {
                    back::after_failure(run, sessions, material, &mut record, &well, &error)
                }));
            }
        }
        let mut installed = next.installed.clone();
        installed.generation = before.installed.generation + 1;
        installed.installed_at = crate::events::now_rfc3339();
        context.state.save_installed(&installed)?;
        crate::backup::hand_over(run, sessions, &installed);
        Kept { installed, ..next }.save(&context.state, kept::APPLIED)?;
        record.phase = Phase::Switched;
        record::save(&context.state, &mut record)?;
        Ok(done)
    }

    /// What leads back: of what is installed, or what a run before has kept.
    fn before(&self) -> Result<Kept, EngineError> {
        let state = &self.run.context.state;
        let resumed = self.resumed().is_some();
        let kept = Kept::load(state, if resumed { kept::PREVIOUS } else { kept::APPLIED })?;
        let before = kept.ok_or_else(|| {
            // An install is refused in the middle of an upgrade; the tasks lie where it was begun.
            let hint = if resumed {
                "complete the upgrade on the control host where it was begun: what leads back is kept there"
            } else {
                "run `maxim.ctl install` with the bundle of the installed version once, then upgrade"
            };
            EngineError::refused("upgrade", "what is installed did not keep what a rollback needs").hint(hint)
        })?;
        if !resumed {
            before.refuse_when_others_installed(state, "upgrade")?;
        }
        Ok(before)
    }

    /// Each host in its turn; how many things were changed.
    fn turns(
        &self,
        sessions: &mut [Session<'_>],
        material: &mut Material,
        next: &Kept,
        before: &turn::Before,
        record: &mut Record,
    ) -> Result<usize, EngineError> {
        let (run, context) = (self.run, self.run.context);
        let mut done = 0;
        for place in order(&context.topology) {
            context.cancel.check("upgrade")?;
            let host = context.topology.hosts[place].name.clone();
            let tasks = next.tasks_of(&host)?;
            done += lost::persist(run, sessions, &next.installed, lost::REBOOT, |sessions| {
                let changes = turn::look(run, &mut sessions[place], &tasks)?;
                if record.turn(&host) == Turn::Done && turn::is_nothing(&changes) {
                    return Ok(0);
                }
                record.set_turn(&host, Turn::Begun);
                record::save(&context.state, record)?;
                let (installed, proof) = (&next.installed, turn::Proof::Neighbours);
                let goal = turn::Goal { tasks: &tasks, changes: &changes, installed, proof, before };
                let done = turn::turn(run, sessions, place, material, &goal)?;
                record.set_turn(&host, Turn::Done);
                record::save(&context.state, record)?;
                Ok(done)
            })?;
        }
        // Proven once more over all of them, now that none is of the version before.
        lost::persist(run, sessions, &next.installed, lost::REBOOT, |sessions| {
            before.prove_all(run, sessions, material, &next.installed)
        })?;
        Ok(done)
    }

    fn new_record(&self) -> Record {
        let topology = &self.run.context.topology;
        let now = crate::events::now_rfc3339();
        Record {
            format: RECORD_FORMAT,
            from: self.from.clone(),
            to: self.to.clone(),
            phase: Phase::Staging,
            hosts: order(topology)
                .into_iter()
                .map(|place| (topology.hosts[place].name.clone(), Turn::Waiting))
                .collect(),
            snapshot: self.snapshot.clone(),
            started_at: now.clone(),
            changed_at: now,
            failure: String::new(),
        }
    }

    /// Every component is well before anything is switched: what is broken before would be blamed on the upgrade.
    fn require_health(&self, sessions: &mut [Session<'_>]) -> Result<(), EngineError> {
        let found = measure::components(self.run, sessions, &self.installed, false);
        let errors = found
            .iter()
            .filter(|one| !matches!(one.health, Health::Well | Health::Attention))
            .map(|one| {
                EngineError::new(Class::Preflight, HEALTH_CHECK, format!("{}: {}", one.component, one.detail))
                    .on(&one.host)
                    .hint("repair it first: `maxim.ctl doctor` and `maxim.ctl logs` tell what is wrong")
            })
            .collect();
        match EngineError::join(errors) {
            Some(error) if self.run.context.force.iter().any(|id| id == HEALTH_CHECK) => {
                self.run.emitter.warn(&error.host, HEALTH_CHECK, error.cause, error.hint);
                Ok(())
            }
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Places of the hosts in the order of their turns: stores first, then the IM core's, then the rest.
fn order(topology: &Topology) -> Vec<usize> {
    let mut places: Vec<usize> = (0..topology.hosts.len()).collect();
    places.sort_by_key(|place| {
        let roles = &topology.hosts[*place].roles;
        if roles.iter().any(|role| matches!(role, Role::Mariadb | Role::Postgresql | Role::Redis)) {
            0
        } else {
            1 + u8::from(!roles.contains(&Role::Im))
        }
    });
    places
}
