//! The ways through an upgrade: once when no snapshot is to be taken, else twice.
//!
//! Making a backup takes the same locks as an upgrade. So with a snapshot the hosts are looked at first, without locks:
//! preflight, health, schema, plan and question. What is blocked, and whoever says no, leaves no set behind. Then the
//! snapshot is taken while no host is connected, and everything is measured and planned anew under the locks, without a
//! second question. What is installed and the topology are judged in each pass: when somebody has worked on the
//! cluster in between, the person has approved something else.

use super::{Asked, Upgrade, UpgradeOptions, UpgradeOutcome, admitted, record};
use crate::actions::status::require_installed;
use crate::delivery;
use crate::error::EngineError;
use crate::phases::connect;
use crate::phases::plan::Material;
use crate::run::Run;
use crate::state;
use maxim_model::manifest::Manifest;
use maxim_model::upgrade::Release;
use std::collections::BTreeMap;

/// How the snapshot is taken.
pub(super) struct Snapshot<'a> {
    /// Whether it can be: asked before anything else.
    pub require: &'a dyn Fn() -> Result<(), EngineError>,
    /// Takes it while nothing is locked; the name of its set.
    pub take: &'a dyn Fn() -> Result<String, EngineError>,
}

/// Upgrades to what the context delivers; without a `snapshot` it goes on all the same.
pub(super) fn passes(
    run: &Run<'_>,
    options: UpgradeOptions,
    manifest: &Manifest,
    snapshot: Option<&Snapshot<'_>>,
) -> Result<UpgradeOutcome, EngineError> {
    let context = run.context;
    let first = judged(run, options, manifest)?;
    let mut looked = None;
    if let Some(snapshot) = snapshot.filter(|_| !options.dry_run && first.resumed().is_none()) {
        (snapshot.require)()?;
        let (outcome, nothing) = look(&first)?;
        if !nothing {
            // Refused before a set is made, not after.
            first.before()?;
        }
        if !nothing && !context.ask.approve_upgrade(&outcome.plan) {
            return Ok(outcome);
        }
        context.cancel.check("upgrade")?;
        let set = if nothing { String::new() } else { (snapshot.take)()? };
        context.cancel.check("upgrade")?;
        looked = Some((set, nothing));
    }
    let _control = if options.dry_run { None } else { Some(context.state.lock(&state::owner("upgrade"))?) };
    // Anew, now that nobody else works on it.
    let mut upgrade = judged(run, options, manifest)?;
    if let Some((set, nothing)) = looked {
        if (&upgrade.installed, &upgrade.record) != (&first.installed, &first.record) {
            return Err(changed("somebody else has worked on this cluster"));
        }
        upgrade.snapshot = set;
        upgrade.asked = if nothing { Asked::NothingToDo } else { Asked::Approved };
    }
    let mut material = material(run)?;
    let mut sessions = connect::connect(run)?;
    let outcome = upgrade.on(&mut sessions, &mut material);
    connect::release(&mut sessions);
    outcome
}

/// What changed between the look and the locks.
pub(super) fn changed(what: &str) -> EngineError {
    EngineError::refused("upgrade", format!("{what} since the plan was shown"))
        .hint("nothing was switched; run the command again")
}

/// The upgrade that this would be, as far as what lies on this control host can say.
fn judged<'a>(
    run: &'a Run<'a>,
    options: UpgradeOptions,
    manifest: &Manifest,
) -> Result<Upgrade<'a>, EngineError> {
    let context = run.context;
    let installed = require_installed(context, "upgrade")?;
    crate::replace::refuse_in_the_middle(&context.state, "upgrade")?;
    if context.state.topology()?.is_some_and(|applied| applied != context.topology_text) {
        return Err(EngineError::usage("upgrade", "the topology is not the one that was applied")
            .hint("change the configuration before or after the upgrade, with `maxim.ctl install`; without -f and --set the applied one is used"));
    }
    let record = record::load(&context.state)?;
    let manifest_sha256 = context.delivery.manifest_sha256().to_owned();
    let from = admitted(manifest, &manifest_sha256, &installed, record.as_ref())?;
    let to = Release { version: manifest.version.clone(), manifest_sha256, versions: BTreeMap::new() };
    let (snapshot, asked) = (String::new(), Asked::NotYet);
    Ok(Upgrade { run, options, installed, record, from, to, manifest: manifest.clone(), snapshot, asked })
}

fn material(run: &Run<'_>) -> Result<Material, EngineError> {
    let material = Material::load(run)?;
    delivery::require(&run.context.delivery, &run.context.topology, &material.artefacts)?;
    Ok(material)
}

/// Looks at the hosts without keeping anybody else from them. What would be done, and whether that is nothing.
fn look(upgrade: &Upgrade<'_>) -> Result<(UpgradeOutcome, bool), EngineError> {
    let run = upgrade.run;
    let mut material = material(run)?;
    let mut sessions = {
        // Connecting may fetch a newer state to this control host.
        let _control = run.context.state.lock(&state::owner("upgrade"))?;
        connect::connect(run)?
    };
    let looked = upgrade.look(&mut sessions, &mut material, false);
    connect::release(&mut sessions);
    let mut looked = looked?;
    looked.outcome.timings = run.emitter.timings();
    Ok((looked.outcome, looked.nothing))
}
