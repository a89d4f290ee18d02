//! `host replace`: a dead host by a new one, with the same roles.
//!
//! Steps: the old host is asked whether it is dead ([`dead`]); of a host that had data the set is chosen that it will
//! come from; hosts of the new topology are connected, judged and locked; the plan is shown ([`approval`]). Once it is approved, what
//! the dead host knew is withdrawn ([`withdraw`]), and a record says that it has begun ([`record`]). A database host:
//! the IM cores stop and stay down ([`clients`]), so that nobody is served from an empty database; the stores are
//! provisioned; the set is restored, and that is noted here and in the copy of the state. Then a whole install brings
//! every host up, the IM cores too, and proves it by messages; uploaded files follow when the dead host had them.
//!
//! A run that was killed is completed by the same command. What it deliberately does not do: decide whether a host
//! that cannot be reached is dead. A host that is only cut off must not come back with its services: it would serve
//! what nobody else does. Other changes of the topology (`host add`, `host remove`) have their place beside this.

mod approval;
mod clients;
mod dead;
mod record;
#[cfg(test)]
mod tests;
mod withdraw;

use crate::actions::install::{self, InstallOptions};
use crate::actions::status::require_installed;
use crate::backup::{self, Only, RestoreOptions};
use crate::context::Context;
use crate::delivery;
use crate::error::EngineError;
use crate::events::Timing;
use crate::phases::plan::Material;
use crate::phases::probe::DiskProbe;
use crate::phases::{apply, connect};
use crate::run::{Run, Session};
use crate::state::{self, StateDir};
use approval::Approved;
pub use approval::ReplacePreview;
use maxim_model::names::{Role, Stage};
use maxim_model::plan::Plan;
use maxim_model::status::ComponentStatus;
use maxim_model::task::{Change, Task};
use maxim_model::topology::{Host, Topology};
use record::Data;
pub(crate) use record::{FILE as RECORD, Record, other};
use std::sync::Arc;

/// Which host, by what.
#[derive(Debug, Clone)]
pub struct ReplaceOptions {
    /// Name of the dead host.
    pub host: String,
    /// Name of the host that takes its place; may be the same.
    pub name: String,
    /// The topology with the new host in the place of the dead one.
    pub topology: Topology,
    /// Its text.
    pub topology_text: String,
    /// The set that lost data comes from; none: the newest.
    pub set: Option<String>,
    /// The host that is replaced may be alive; its services are stopped.
    pub alive: bool,
    /// Go on without the data that the host had.
    pub without_data: bool,
    /// Show the plan, change nothing.
    pub dry_run: bool,
}

/// What a replacement did.
#[derive(Debug, Clone)]
pub struct ReplaceOutcome {
    /// Roles that went to the new host.
    pub roles: Vec<Role>,
    /// What would be or was changed before data was restored.
    pub plan: Plan,
    /// The set that data came or would come from; empty: the host had none.
    pub set: String,
    /// Parts of it that were or would be put in place.
    pub restored: Vec<String>,
    /// What the dead host knew and that holds no longer.
    pub withdrawn: Vec<String>,
    /// False: a dry run, or the person said no.
    pub applied: bool,
    /// How many things were changed on hosts.
    pub changes: usize,
    /// What runs now, as measured.
    pub components: Vec<ComponentStatus>,
    /// Phase by phase and host by host.
    pub timings: Vec<Timing>,
}

/// A replacement: what it goes from and to.
struct Replacement<'a> {
    /// With the topology as it shall be.
    wanted: Context,
    options: &'a ReplaceOptions,
    old: Host,
    record: Option<Record>,
    /// Parts that the dead host had.
    parts: Vec<&'static str>,
    /// The old host is alive: its services are stopped once the replacement is approved.
    stops: bool,
}

/// Replaces a host.
pub fn host_replace(context: &Context, options: &ReplaceOptions) -> Result<ReplaceOutcome, EngineError> {
    let installed = require_installed(context, "host replace")?;
    crate::upgrade::refuse_replacement(&context.state, &installed, &context.delivery, &options.host)?;
    let record = record::load(&context.state)?;
    let new = options
        .topology
        .host(&options.name)
        .ok_or_else(|| EngineError::usage("host replace", format!("there is no host `{}`", options.name)))?;
    let (old, record) = match record {
        Some(record) if record.name == new.name && record.address == new.address => {
            (record.old.clone(), Some(record))
        }
        Some(record) => {
            return Err(EngineError::refused(
                "host replace",
                format!("the replacement of {}", record.words()),
            )
            .hint("complete it with the same command first"));
        }
        None => (find(context, &options.host)?, None),
    };
    let wanted = Context {
        topology: options.topology.clone(),
        topology_text: options.topology_text.clone(),
        ask: Arc::new(Approved(Arc::clone(&context.ask))),
        ..context.clone()
    };
    // Of the new one, which has its place: a run before may have been killed after it had kept the new topology.
    let parts = backup::parts_on(&wanted.topology, &new.name);
    let stops = if record.is_none() { dead::require(context, &old, options)? } else { false };
    Replacement { wanted, options, old, record, parts, stops }.go(context)
}

/// Refuses what would start the IM cores while a lost database is not restored yet: they would serve an empty one.
pub(crate) fn refuse_in_the_middle(state: &StateDir, step: &str) -> Result<(), EngineError> {
    match record::load(state)? {
        Some(record) if record.data.has("database") && !record.restored => Err(EngineError::refused(
            step,
            format!("the replacement of {}, and its database is not restored yet", record.words()),
        )
        .hint(format!(
            "complete it with `maxim.ctl host replace {} {}`",
            record.old.name.escape_debug(),
            record.address.escape_debug()
        ))),
        _ => Ok(()),
    }
}

/// Forgets a replacement of a cluster that is uninstalled.
pub(crate) fn forget(state: &StateDir) -> Result<(), EngineError> {
    record::forget(state)
}

fn find(context: &Context, name: &str) -> Result<Host, EngineError> {
    context.topology.host(name).cloned().ok_or_else(|| {
        let names: Vec<&str> = context.topology.hosts.iter().map(|host| host.name.as_str()).collect();
        EngineError::usage("host replace", format!("no host of this cluster is called {name}"))
            .hint(format!("its hosts are {}", names.join(", ")))
    })
}

impl Replacement<'_> {
    fn go(&self, context: &Context) -> Result<ReplaceOutcome, EngineError> {
        let (data, point) = match &self.record {
            // As long as nothing is restored another set may be wanted: the first one may be broken.
            Some(record) if record.restored || !self.chooses_anew(record) => {
                (record.data.clone(), String::new())
            }
            Some(record) if backup::is_exchanging(&self.wanted.state)? => {
                return Err(EngineError::refused(
                    "host replace",
                    format!("set {} is being put in place", record.data.set),
                )
                .hint(
                    "complete that by the same command without `--from` and `--without-data`; another set can be \
                     restored afterwards by `maxim.ctl backup restore`",
                ));
            }
            _ => self.choose()?,
        };
        let run = Run::begin(&self.wanted, "host-replace", !self.options.dry_run)?;
        let (mut outcome, mut record) = self.provision(&run, context, &data, &point)?;
        drop(run);
        if !outcome.applied {
            return Ok(outcome);
        }
        if data.has("database") && !record.restored {
            let options = restore_options(&data.set, Only::Database);
            backup::restore_before_install(&self.wanted, &options)?;
            restored(&self.wanted, &mut record, publish)?;
        }
        let installed = install::install(&self.wanted, InstallOptions::default())?;
        outcome.changes += installed.changes;
        outcome.components = installed.components;
        outcome.timings.extend(installed.timings);
        if data.has("files") {
            backup::restore(&self.wanted, &restore_options(&data.set, Only::Files))?;
        }
        complete(&self.wanted, publish)?;
        Ok(outcome)
    }

    /// Whether other data is asked for than a run before has begun with.
    fn chooses_anew(&self, record: &Record) -> bool {
        let other = |set: &String| *set != record.data.set;
        self.options.set.as_ref().is_some_and(other)
            || (self.options.without_data && record.data != Data::default())
    }

    /// Where lost data comes from, and of when it is (RFC 3339); nothing when none was lost, or when that was accepted.
    fn choose(&self) -> Result<(Data, String), EngineError> {
        let lost: Vec<&str> = self.parts.iter().copied().filter(|part| *part != "console").collect();
        // A host of the IM core may never have had an uploaded file: without backups there is nothing to ask for.
        let only_files = lost.iter().all(|part| *part == "files");
        if lost.is_empty()
            || self.options.without_data
            || (only_files && self.options.set.is_none() && backup::repository_of(&self.wanted).is_err())
        {
            return Ok((Data::default(), String::new()));
        }
        let without = |error: EngineError| {
            error.and_hint(&format!("or say `--without-data` to go on without its {}", lost.join(" and ")))
        };
        let found = backup::usable(&self.wanted, self.options.set.as_deref()).map_err(without)?;
        let parts: Vec<String> = lost
            .iter()
            .filter(|part| found.parts.contains_key(**part))
            .map(|part| (*part).to_owned())
            .collect();
        let set = if parts.is_empty() { String::new() } else { found.info.set.clone() };
        let point = if set.is_empty() { String::new() } else { connect::when(found.info.point_unix) };
        Ok((Data { set, parts }, point))
    }

    /// Everything up to where data can be put in place.
    fn provision(
        &self,
        run: &Run<'_>,
        context: &Context,
        data: &Data,
        point: &str,
    ) -> Result<(ReplaceOutcome, Record), EngineError> {
        let (wanted, options) = (&self.wanted, self.options);
        let _control =
            if options.dry_run { None } else { Some(wanted.state.lock(&state::owner("host replace"))?) };
        // Anew, now that nobody else works on it.
        let installed = require_installed(context, "host replace")?;
        crate::upgrade::refuse_replacement(&context.state, &installed, &context.delivery, &options.host)?;
        let mut material = Material::load(run)?;
        delivery::require(&wanted.delivery, &wanted.topology, &material.artefacts)?;
        let withdrawn = match &self.record {
            Some(record) => record.withdrawn.clone(),
            None => withdraw::from(&self.old, &wanted.topology, &mut material),
        };
        // The machine at the old address has another key. The host there counts as dead, so what it was known by goes
        // before the new one is connected to; whoever then says no has it back.
        let same_place = withdraw::is_same_place(&self.old, &wanted.topology, &options.name);
        let forget = same_place && self.record.is_none() && !options.dry_run;
        let mut pin = if forget { Some(withdraw::Pin::take(wanted, &self.old)?) } else { None };
        let mut sessions = connect::connect(run)?;
        let outcome = (|| {
            if options.dry_run && same_place {
                self.refuse_other_key(&sessions)?;
            }
            install::preflight_or_refuse(run, &mut sessions, DiskProbe::No)?;
            if !options.dry_run {
                connect::lock_hosts(run, &mut sessions, "host replace")?;
            }
            let (tasks, changes, plan) =
                install::plan_install(run, &mut sessions, &mut material, !options.dry_run)?;
            let mut outcome = ReplaceOutcome {
                roles: self.old.roles.clone(),
                changes: plan.changes(),
                plan,
                set: data.set.clone(),
                restored: data.parts.clone(),
                withdrawn: withdrawn.clone(),
                applied: false,
                components: Vec::new(),
                timings: Vec::new(),
            };
            let mut record = self.record.clone().unwrap_or_else(|| {
                Record::new(&self.old, options, &wanted.topology, data.clone(), withdrawn)
            });
            record.data.clone_from(data);
            let ask = || context.ask.approve_replace(&self.preview(&outcome, data, point));
            let approved = self.record.as_ref().is_some_and(|record| record.data == *data);
            if options.dry_run || (!approved && !ask()) {
                outcome.timings = run.emitter.timings();
                return Ok((outcome, record));
            }
            context.cancel.check("host replace")?;
            if self.stops {
                dead::stop(context, &self.old)?;
            }
            for part in self.parts.iter().filter(|part| !data.has(part)) {
                let lost = format!("data that {} had is not restored: {part}", self.old.name);
                run.emitter.warn(&options.name, "host replace", lost, "");
            }
            // New secrets before anything is sent; then the record, so that they are not made twice.
            material.save(wanted)?;
            match pin.as_mut() {
                Some(pin) => pin.withdraw(),
                None if same_place => {}
                None => withdraw::host_key(wanted, &self.old)?,
            }
            // When this host kept a failed upgrade from its end, the version before is now what everything runs.
            crate::upgrade::end_rollback(&wanted.state)?;
            if self.record.is_none() && self.parts.contains(&"database") {
                // What was received for the database that is gone, and what was kept of it, is gone too.
                backup::forget_restore(&wanted.state)?;
            }
            record::save(&wanted.state, &record)?;
            wanted.state.save_topology(&wanted.topology_text)?;
            state::copy::publish(run, &mut sessions)?;
            outcome.changes = 0;
            if data.has("database") && !record.restored {
                clients::keep_down(run, &mut sessions, &tasks)?;
                let (tasks, changes) = stores_only(&tasks, &changes);
                outcome.changes = apply::apply(run, &mut sessions, &tasks, &changes, &material)?;
            }
            record.provisioned = true;
            record::save(&wanted.state, &record)?;
            outcome.applied = true;
            outcome.timings = run.emitter.timings();
            Ok((outcome, record))
        })();
        connect::release(&mut sessions);
        outcome
    }

    /// A look changes nothing, so it does not forget the key of the dead host either: what follows from that is said.
    fn refuse_other_key(&self, sessions: &[Session<'_>]) -> Result<(), EngineError> {
        let error = sessions
            .iter()
            .filter(|session| session.host.name == self.options.name)
            .find_map(|session| session.error.clone().filter(|error| error.step == dead::OTHER_KEY));
        error.map_or(Ok(()), |error| {
            Err(error.hint("the machine in the place of the dead host has a key of its own. Without --dry-run the old key is forgotten by itself, once the host counts as dead; compare the new one on its console"))
        })
    }
}

fn restore_options(set: &str, only: Only) -> RestoreOptions {
    RestoreOptions {
        set: Some(set.to_owned()),
        only,
        overwrite: true,
        fresh: true,
        ..RestoreOptions::default()
    }
}

/// Writes the authoritative copy when no host is connected.
fn publish(context: &Context) -> Result<(), EngineError> {
    state::copy::publish_now(context, "host-replace")
}

/// Notes that the database is restored, here and in the copy, before anybody is served: another control host that
/// completes this must not restore over what is acknowledged from then on.
pub(crate) fn restored(
    context: &Context,
    record: &mut Record,
    publish: impl FnOnce(&Context) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    record.restored = true;
    record::save(&context.state, record)?;
    publish(context)
}

/// Notes that it is complete, here and in the copy.
pub(crate) fn complete(
    context: &Context,
    publish: impl FnOnce(&Context) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    record::forget(&context.state)?;
    publish(context)
}

/// What makes the stores run, on every host: the IM cores come after the data.
fn stores_only(tasks: &[Vec<Task>], changes: &[Vec<Change>]) -> (Vec<Vec<Task>>, Vec<Vec<Change>>) {
    tasks
        .iter()
        .zip(changes)
        .map(|(tasks, changes)| {
            tasks
                .iter()
                .zip(changes)
                .filter(|(task, _)| matches!(task.stage, Stage::Prepare | Stage::Store))
                .map(|(task, change)| (task.clone(), change.clone()))
                .unzip::<_, _, Vec<_>, Vec<_>>()
        })
        .unzip()
}
