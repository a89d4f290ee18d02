//! A wait until something answers, within the task's deadline.

use super::{Context, Outcome};
use crate::error::Result;
use crate::wait::{Seen, http, port, socket};
use maxim_model::task::{Change, WaitTask, WaitUntil};
use std::path::Path;
use std::time::Duration;

fn what(until: &WaitUntil) -> String {
    match until {
        WaitUntil::Port(target) => format!("the port {target} to accept connections"),
        WaitUntil::Socket(path) => format!("the socket {path} to accept connections"),
        WaitUntil::Http(url) => format!("{url} to answer 200"),
    }
}

fn look(until: &WaitUntil, patience: Duration) -> Seen {
    match until {
        WaitUntil::Port(target) => port(target, patience),
        WaitUntil::Socket(path) => socket(Path::new(path)),
        WaitUntil::Http(url) => http(url, patience),
    }
}

/// What would change: nothing ever; but whether there is something to wait for is told.
pub fn check(task: &WaitTask) -> Change {
    match look(&task.until, Duration::from_millis(500)) {
        Ok(()) => Change::None,
        Err(_) => Change::Later { summary: format!("wait for {}", what(&task.until)) },
    }
}

/// Waits.
pub fn apply(context: &Context<'_>, task: &WaitTask) -> Result<Outcome> {
    let what = what(&task.until);
    context
        .deadline
        .poll(&what, || look(&task.until, context.deadline.left().min(Duration::from_secs(3))))?;
    Ok(Outcome::unchanged(format!("waited for {what}")))
}
