//! The commands, one file each. Each finds its cluster, calls one action of the engine, and shows what it gave.

mod agent;
mod apply;
mod backup;
mod bundle;
mod ca;
mod check;
mod completion;
mod config;
mod console;
mod doctor;
mod host;
mod install;
mod logs;
mod plan;
mod restart;
mod rollback;
mod service;
mod start;
mod status;
mod stop;
mod supervise;
mod support_bundle;
mod uninstall;
mod unlock;
pub(crate) mod upgrade;
mod user;

use crate::arguments::{Cli, Command, Global};
use crate::failure::Failure;
use crate::printer::Printer;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

/// Exit code, or what went wrong.
pub(crate) type Outcome = Result<u8, Failure>;

/// What every command gets.
pub(crate) struct Call<'a> {
    /// Global flags.
    pub global: &'a Global,
    /// Where it speaks.
    pub printer: &'a Arc<Printer>,
}

impl Call<'_> {
    /// 0, or 4 when warnings count (`--strict`).
    pub fn code(&self, warnings: usize) -> u8 {
        if self.global.strict && warnings > 0 { 4 } else { 0 }
    }
}

/// Commands that the program runs of itself, not shown to people: decided before the flags are read, because an
/// agent speaks its protocol from the first byte.
pub(crate) fn hidden(arguments: &[OsString]) -> Option<ExitCode> {
    match arguments.get(1)?.to_str()? {
        "agent" => Some(agent::run(&arguments[2..])),
        "supervise" => Some(supervise::run(&arguments[2..])),
        "backup-feed" => Some(backup::feed(&arguments[2..])),
        _ => None,
    }
}

/// Runs a command. One that found a newer state of its cluster on the console's host, and has fetched it, begins anew.
pub(crate) fn run(cli: &Cli, printer: &Arc<Printer>) -> Outcome {
    let call = Call { global: &cli.global, printer };
    match once(&call, cli.command.clone()) {
        Err(failure) if failure.is_at(maxim_engine::state::copy::ADOPTED) => once(&call, cli.command.clone()),
        outcome => outcome,
    }
}

fn once(call: &Call<'_>, command: Command) -> Outcome {
    match command {
        Command::Install(hosts) => install::run(call, &hosts),
        Command::Check(hosts) => check::run(call, &hosts),
        Command::Plan(arguments) => plan::run(call, &arguments),
        Command::Apply(arguments) => apply::run(call, &arguments),
        Command::Status => status::run(call),
        Command::Start(arguments) => start::run(call, &arguments),
        Command::Stop(arguments) => stop::run(call, &arguments),
        Command::Restart(arguments) => restart::run(call, &arguments),
        Command::Config(command) => config::run(call, command),
        Command::Console(command) => console::run(call, &command),
        Command::User(command) => user::run(call, command),
        Command::Logs(arguments) => logs::run(call, &arguments),
        Command::Doctor => doctor::run(call),
        Command::SupportBundle(arguments) => support_bundle::run(call, &arguments),
        Command::Unlock(arguments) => unlock::run(call, arguments),
        Command::Ca(command) => ca::run(call, &command),
        Command::Backup(command) => backup::run(call, command),
        Command::Bundle(command) => bundle::run(call, command),
        Command::Upgrade(arguments) => upgrade::run(call, &arguments),
        Command::Rollback => rollback::run(call),
        Command::Host(command) => host::run(call, &command),
        Command::Uninstall(arguments) => uninstall::run(call, &arguments),
        Command::Completion(arguments) => Ok(completion::run(call, &arguments)),
    }
}
