//! One module per kind of task, each with `check` (what would change; changes nothing) and `apply` (makes it so).
//!
//! Applying begins with the same look as checking, so that what is already so is never done again. Restarts that a
//! change causes are noted before the change is made and paid by the service's own `unit` task.

mod absent;
mod binary;
mod certificate;
mod command;
mod directory;
mod file;
mod image;
pub use image::{completed, finish_syncs, remove_replaced};
mod limits;
mod line;
pub(crate) mod sql;
mod sysctl;
mod unit;
mod user;
mod wait;

use crate::deadline::Deadline;
use crate::error::Result;
use crate::link::ContentSource;
use crate::restart::Marks;
use crate::scope::Scope;
use maxim_model::names::Stage;
use maxim_model::task::{Change, Task, TaskKind, UnitTask};
use maxim_model::wire::Access;
use std::collections::{BTreeMap, BTreeSet};

/// What applying did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether anything was changed.
    pub changed: bool,
    /// In words.
    pub detail: String,
}

impl Outcome {
    /// Something was changed.
    pub fn changed(detail: impl Into<String>) -> Self {
        Self { changed: true, detail: detail.into() }
    }

    /// Nothing had to be done.
    pub fn unchanged(detail: impl Into<String>) -> Self {
        Self { changed: false, detail: detail.into() }
    }
}

/// What the tasks of one request share.
#[derive(Debug, Default)]
pub struct Batch {
    /// All unit tasks of the request with their stage, so that the definitions of a stage are made known at once.
    pub units: Vec<(Stage, UnitTask)>,
    /// Definitions that were written in this batch.
    pub written: BTreeSet<String>,
    /// Stages whose definitions have been published.
    pub published: BTreeSet<Stage>,
    /// While checking: services that earlier tasks would restart, with the task.
    pub planned: BTreeMap<String, String>,
}

impl Batch {
    /// For these tasks.
    pub fn new(tasks: &[Task]) -> Self {
        let units = tasks.iter().filter_map(|task| match &task.kind {
            TaskKind::Unit(unit) => Some((task.stage, unit.clone())),
            _ => None,
        });
        Self { units: units.collect(), ..Self::default() }
    }
}

/// What a task may use.
pub struct Context<'a> {
    /// Our folders.
    pub scope: &'a Scope,
    /// What this agent may do.
    pub access: Access,
    /// By when the task must be done.
    pub deadline: Deadline,
    /// Shared by the tasks of the request.
    pub batch: &'a mut Batch,
}

impl Context<'_> {
    /// Restarts that are owed.
    pub fn marks(&self) -> Marks {
        Marks::new(self.scope.restarts())
    }
}

/// What would change.
pub fn check(context: &mut Context<'_>, task: &Task) -> Result<Change> {
    let change = look(context, task)?;
    if change.is_change() {
        for service in task.restarts.iter().chain(&task.reloads) {
            context.batch.planned.entry(service.clone()).or_insert_with(|| task.id.clone());
        }
    }
    Ok(change)
}

fn look(context: &mut Context<'_>, task: &Task) -> Result<Change> {
    match &task.kind {
        TaskKind::User(user) => user::check(user),
        TaskKind::Directory(directory) => directory::check(directory),
        TaskKind::File(file) => file::check(file),
        TaskKind::Line(line) => line::check(line),
        TaskKind::Image(image) => image::check(image, "image"),
        TaskKind::Archive(image) => image::check(image, "archive"),
        TaskKind::Binary(binary) => binary::check(binary),
        TaskKind::Unit(unit) => unit::check(context, unit),
        TaskKind::Sysctl(sysctl) => sysctl::check(sysctl),
        TaskKind::Limits(limits) => limits::check(limits),
        TaskKind::Certificate(certificate) => certificate::check(certificate),
        TaskKind::SqlAccount(account) => sql::check_account(context, account),
        TaskKind::SqlSchema(schema) => sql::check_schema(context, schema),
        TaskKind::Command(command) => command::check(context, command),
        TaskKind::Wait(wait) => Ok(wait::check(wait)),
        TaskKind::Absent(absent) => absent::check(context, absent),
    }
}

/// Makes it so.
pub fn apply(context: &mut Context<'_>, task: &Task, content: &mut dyn ContentSource) -> Result<Outcome> {
    let change = look(context, task)?;
    if change == Change::None {
        return Ok(Outcome::unchanged("already so"));
    }
    let marks = context.marks();
    let mut fresh = Vec::new();
    for (services, restart) in [(&task.restarts, true), (&task.reloads, false)] {
        for service in services {
            if marks.owe(service, restart, &task.id)? {
                fresh.push(service.clone());
            }
        }
    }
    let outcome = match &task.kind {
        TaskKind::User(user) => user::apply(context, user),
        TaskKind::Directory(directory) => directory::apply(directory, &change),
        TaskKind::File(file) => file::apply(file, &change),
        TaskKind::Line(line) => line::apply(line, &change),
        TaskKind::Image(image) | TaskKind::Archive(image) => image::apply(image, &task.id, content),
        TaskKind::Binary(binary) => binary::apply(binary, &task.id, content),
        TaskKind::Unit(unit) => unit::apply(context, unit, task.stage),
        TaskKind::Sysctl(sysctl) => sysctl::apply(sysctl),
        TaskKind::Limits(limits) => limits::apply(limits, &change),
        TaskKind::Certificate(certificate) => certificate::apply(certificate),
        TaskKind::SqlAccount(account) => sql::apply_account(context, account),
        TaskKind::SqlSchema(schema) => sql::apply_schema(context, schema),
        TaskKind::Command(command) => command::apply(context, command),
        TaskKind::Wait(wait) => wait::apply(context, wait),
        TaskKind::Absent(absent) => absent::apply(context, absent),
    }?;
    if !outcome.changed {
        // Only the marks of this task: what an earlier one owes stays owed.
        for service in fresh {
            marks.paid(&service)?;
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests;
