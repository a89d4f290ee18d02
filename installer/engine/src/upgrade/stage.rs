//! Staging: images and programs of the new version go to every host at once, beside those that serve.
//!
//! They lie in folders of their own version, so nothing that runs sees them. What is there already is not sent.

use crate::error::EngineError;
use crate::phases::apply;
use crate::phases::plan::Material;
use crate::run::{Run, Session};
use maxim_model::names::Stage;
use maxim_model::task::{Change, Task};

/// Whether a task brings content of its own version.
pub(super) fn is_staged(task: &Task) -> bool {
    task.kind.content().is_some()
}

/// Bytes that have to be sent to hosts.
pub(super) fn bytes(tasks: &[Vec<Task>], changes: &[Vec<Change>]) -> u64 {
    tasks
        .iter()
        .flatten()
        .zip(changes.iter().flatten())
        .filter(|(_, change)| **change != Change::None)
        .filter_map(|(task, _)| task.kind.content().map(|(_, size)| size))
        .sum()
}

/// Stages; how many things were brought.
pub(super) fn stage(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    tasks: &[Vec<Task>],
    changes: &[Vec<Change>],
    material: &Material,
) -> Result<usize, EngineError> {
    let mut staged = Vec::with_capacity(tasks.len());
    let mut wanted = Vec::with_capacity(tasks.len());
    for (tasks, changes) in tasks.iter().zip(changes) {
        let (some, theirs): (Vec<Task>, Vec<Change>) = tasks
            .iter()
            .zip(changes)
            .filter(|(task, change)| is_staged(task) && **change != Change::None)
            // Nothing is restarted: no running service uses what is brought. Its unit is switched in its turn.
            .map(|(task, change)| {
                let quiet =
                    Task { restarts: Vec::new(), reloads: Vec::new(), stage: Stage::Prepare, ..task.clone() };
                (quiet, change.clone())
            })
            .unzip();
        staged.push(some);
        wanted.push(theirs);
    }
    apply::apply(run, sessions, &staged, &wanted, material)
}
