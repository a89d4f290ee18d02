//! `backup list`, `backup verify`, `backup prune`: what is in the repository, whether it is sound, what stays.

use super::restore::fits;
use super::tasks;
use super::vault::{StoredSet, Vault, pick};
use crate::context::Context;
use crate::error::EngineError;
use crate::events::millis;
use crate::remote::{Agent, Mode};
use crate::run::{Run, Session};
use crate::state;
use maxim_model::backup::BackupRecord;
use maxim_model::backup::manifest::VERIFIED_TAG;
use maxim_model::backup::record::Done;
use maxim_model::backup::retention::{Policy, Verdict, judge};
use maxim_model::backup::schedule::parse_zone;
use maxim_model::backup::wire::ResticCommand;
use maxim_model::topology::Topology;
use serde::Serialize;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

const DAY: Duration = Duration::from_hours(25);

/// All complete sets, newest first.
pub fn list(context: &Context) -> Result<Vec<StoredSet>, EngineError> {
    let run = Run::begin(context, "backup-list", false)?;
    let sets = Vault::open(&run)?.sets(false)?;
    Ok(sets.into_iter().filter(StoredSet::is_complete).collect())
}

/// The newest complete set, or the one that is named, once its manifest was read and it can be put onto this cluster.
pub(crate) fn usable(context: &Context, wanted: Option<&str>) -> Result<StoredSet, EngineError> {
    let run = Run::begin(context, "backup-list", false)?;
    let mut vault = Vault::open(&run)?;
    let sets = vault.sets(false)?;
    let found = pick(&sets, wanted)?;
    fits(context, &vault.manifest(&run, found)?)?;
    Ok(found.clone())
}

/// How to verify.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Percent of the repository's data that is read again, 0 to 100.
    pub percent: u32,
    /// The set whose parts are read whole and compared with its manifest; none: the newest.
    pub set: Option<String>,
    /// Read the parts of that set whole.
    pub deep: bool,
}

/// What a verification found to be right.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyOutcome {
    /// The set that counts as verified now.
    pub set: String,
    /// Percent of the data that was read again.
    pub percent: u32,
    /// Bytes of parts that were read whole and compared.
    pub compared: u64,
    /// Milliseconds.
    pub duration_ms: u64,
}

/// Checks the repository, reads a share of it again, and compares a set with its manifest.
pub fn verify(context: &Context, options: &VerifyOptions) -> Result<VerifyOutcome, EngineError> {
    let _control = context.state.lock(&state::owner("backup verify"))?;
    let run = Run::begin(context, "backup-verify", true)?;
    let begun = Instant::now();
    let mut vault = Vault::open(&run)?;
    vault.lock(&run, "backup verify")?;
    let verified = verify_in(&run, &mut vault, options, begun);
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let ended = match &verified {
        Ok(outcome) => Ok(Done {
            set: outcome.set.clone(),
            at_unix: now,
            duration_ms: outcome.duration_ms,
            bytes: outcome.compared,
            added: 0,
        }),
        // Its cause says that it was the verification.
        Err(error) => Err(error.cause.clone()),
    };
    tasks::note(&run, vault.agent(), |record| record.verified(ended, now));
    verified
}

fn verify_in(
    run: &Run<'_>,
    vault: &mut Vault,
    options: &VerifyOptions,
    begun: Instant,
) -> Result<VerifyOutcome, EngineError> {
    let failed =
        |error: EngineError| EngineError { cause: format!("verification failed: {}", error.cause), ..error };
    let sets = vault.sets(true)?;
    let set = pick(&sets, options.set.as_deref())?.clone();
    run.emitter.phase("check", || {
        vault.restic("verify", ResticCommand::Check { percent: options.percent }, DAY).map_err(failed)
    })?;
    let manifest = vault.manifest(run, &set).map_err(failed)?;
    let mut compared = 0;
    run.emitter.phase("compare", || {
        for part in &manifest.parts {
            if !set.parts.values().any(|snapshot| *snapshot == part.snapshot) {
                return Err(EngineError::failed(
                    "verify",
                    format!("set {} lacks its part `{}` (snapshot {})", manifest.set, part.name, part.snapshot),
                )
                .hint("somebody forgot a snapshot of the set; make a new set with `maxim.ctl backup create`"));
            }
            if options.deep || options.percent >= 100 {
                let ended = vault
                    .fetch(run, "verify", &part.snapshot, &part.file, |_| run.context.cancel.check("verify"))
                    .map_err(failed)?;
                if ended.sha256 != part.sha256 || ended.bytes != part.bytes {
                    return Err(EngineError::failed(
                        "verify",
                        format!("part `{}` of set {} is not what was backed up", part.name, manifest.set),
                    )
                    .hint("make a new set with `maxim.ctl backup create` and look at the disk of the repository"));
                }
                compared += ended.bytes;
            }
        }
        Ok(())
    })?;
    vault.mark(&set, VERIFIED_TAG, OffsetDateTime::now_utc().unix_timestamp())?;
    Ok(VerifyOutcome { set: set.info.set, percent: options.percent, compared, duration_ms: millis(begun) })
}

/// What a prune does or would do.
#[derive(Debug, Clone, Serialize)]
pub struct PruneOutcome {
    /// Every complete set, newest first, with what becomes of it.
    pub verdicts: Vec<Verdict>,
    /// Sets that were never finished; they go.
    pub incomplete: Vec<String>,
    /// Whether it was done.
    pub applied: bool,
}

/// Forgets sets that retention does not keep, and removes their data. `dry_run`: says what would go.
pub fn prune(context: &Context, dry_run: bool) -> Result<PruneOutcome, EngineError> {
    let _control = if dry_run { None } else { Some(context.state.lock(&state::owner("backup prune"))?) };
    let run = Run::begin(context, "backup-prune", !dry_run)?;
    let mut vault = Vault::open(&run)?;
    if !dry_run {
        // A set that is being made from another control host has no manifest yet, and must not be taken for a broken one.
        vault.lock(&run, "backup prune")?;
    }
    let pruned = prune_in(context, &mut vault, dry_run);
    if !dry_run {
        let ended = match &pruned {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("sets that are too many could not be removed: {}", error.cause)),
        };
        let now = OffsetDateTime::now_utc().unix_timestamp();
        tasks::note(&run, vault.agent(), |record| record.pruned(ended, now));
    }
    pruned
}

fn prune_in(context: &Context, vault: &mut Vault, dry_run: bool) -> Result<PruneOutcome, EngineError> {
    let backup = &context.topology.backup;
    let zone = if backup.time_zone.is_empty() { "UTC" } else { backup.time_zone.as_str() };
    let zone = parse_zone(zone).map_err(|error| EngineError::usage("prune", error.problem))?;
    let (daily, weekly, monthly) = backup.retention;
    let sets = vault.sets(!dry_run)?;
    let complete: Vec<_> = sets.iter().filter(|set| set.is_complete()).map(|set| set.info.clone()).collect();
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let verdicts = judge(&complete, Policy { daily, weekly, monthly }, zone, now);
    let incomplete: Vec<String> =
        sets.iter().filter(|set| !set.is_complete()).map(|set| set.info.set.clone()).collect();
    let outcome = PruneOutcome { verdicts, incomplete, applied: !dry_run };
    if dry_run {
        return Ok(outcome);
    }
    let goes = |set: &StoredSet| {
        !set.is_complete()
            || outcome.verdicts.iter().any(|verdict| verdict.set.set == set.info.set && !verdict.stays())
    };
    let going: Vec<&StoredSet> = sets.iter().filter(|set| goes(set)).collect();
    // Manifests first, in runs of their own (restic removes those of one run in any order): a set that is forgotten
    // halfway does not exist, and the next prune takes the rest.
    let doubles = sets.iter().flat_map(|set| set.doubles.iter().cloned());
    let manifests: Vec<String> =
        going.iter().filter(|set| set.is_complete()).map(|set| set.manifest.clone()).chain(doubles).collect();
    let parts: Vec<String> = going.iter().flat_map(|set| set.parts.values().cloned()).collect();
    for batch in manifests.chunks(100).chain(parts.chunks(100)) {
        context.cancel.check("prune")?;
        vault.restic(
            "prune",
            ResticCommand::Forget { snapshots: batch.to_vec() },
            Duration::from_hours(1),
        )?;
    }
    vault.restic("prune", ResticCommand::Prune, DAY)?;
    Ok(outcome)
}

/// What was done last, from hosts that are connected already.
pub(crate) fn last(topology: &Topology, sessions: &mut [Session<'_>]) -> BackupRecord {
    let keeper = super::vault::host(topology).map(|host| host.name.clone());
    sessions
        .iter_mut()
        .find(|session| Some(&session.host.name) == keeper.as_ref())
        .and_then(|session| session.reader.as_mut())
        .and_then(|agent| tasks::read_record(agent, topology).ok())
        .unwrap_or_default()
}

/// What was done last, from the host that keeps the repository.
pub fn record(context: &Context) -> Result<BackupRecord, EngineError> {
    let run = Run::begin(context, "backup-record", false)?;
    let Some(host) = super::vault::host(&context.topology) else { return Ok(BackupRecord::default()) };
    let mut connected = run.connect(host)?;
    let mut agent: Agent = connected.agent(Mode::Look)?;
    run.scope(&mut agent)?;
    let record = tasks::read_record(&mut agent, &context.topology)?;
    agent.finish(Duration::from_secs(2));
    Ok(record)
}
