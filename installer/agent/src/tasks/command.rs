//! A command with a guard: not run when a path exists or another command succeeds. Never a shell.

use super::{Context, Outcome};
use crate::error::{Failure, Result};
use crate::files::absolute;
use crate::process::Invocation;
use maxim_model::Secret;
use maxim_model::task::{Change, CommandTask};
use maxim_model::wire::Access;
use nix::unistd::User;

fn title(task: &CommandTask) -> String {
    format!("run `{}`", task.argv.join(" "))
}

fn invocation(argv: &[String], stdin: Secret, user: &str) -> Result<Invocation> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Failure::Invalid("a command needs a program".into()));
    };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let invocation = Invocation::new(program, &arguments)?.stdin(stdin);
    if user.is_empty() {
        return Ok(invocation);
    }
    match User::from_name(user) {
        Ok(Some(found)) => Ok(invocation.identity(found.uid.as_raw(), found.gid.as_raw())),
        _ => Err(Failure::refused(
            format!("there is no user `{user}` on this host"),
            "its `user` task must come before the tasks that use it",
        )),
    }
}

/// Whether the guard says that it is done already.
fn is_done(context: &Context<'_>, task: &CommandTask) -> Result<bool> {
    if !task.creates.is_empty() && absolute(&task.creates)?.symlink_metadata().is_ok() {
        return Ok(true);
    }
    if task.unless.is_empty() {
        return Ok(false);
    }
    let guard = invocation(&task.unless, Secret::default(), &task.user)?;
    Ok(guard.run(context.deadline.left())?.status.success())
}

/// What would change. A read-only agent runs no command, not even a guard.
pub fn check(context: &Context<'_>, task: &CommandTask) -> Result<Change> {
    if context.access == Access::ReadOnly && !task.unless.is_empty() {
        let exists = !task.creates.is_empty() && absolute(&task.creates)?.symlink_metadata().is_ok();
        return Ok(if exists {
            Change::None
        } else {
            Change::Later { summary: format!("{}, unless done", title(task)) }
        });
    }
    match is_done(context, task) {
        Ok(true) => Ok(Change::None),
        Ok(false) => Ok(Change::Create { summary: title(task), diff: String::new() }),
        // A guard or user that earlier tasks bring.
        Err(Failure::Refused { .. }) => Ok(Change::Later { summary: title(task) }),
        Err(other) => Err(other),
    }
}

/// Runs it.
pub fn apply(context: &Context<'_>, task: &CommandTask) -> Result<Outcome> {
    if is_done(context, task)? {
        return Ok(Outcome::unchanged("already done"));
    }
    invocation(&task.argv, task.stdin.clone(), &task.user)?.check(context.deadline.left())?;
    if !task.creates.is_empty() && absolute(&task.creates)?.symlink_metadata().is_err() {
        return Err(Failure::Command {
            program: task.argv.join(" "),
            outcome: format!("succeeded, but {} is not there", task.creates),
            tail: String::new(),
        });
    }
    Ok(Outcome::changed(title(task)))
}
