//! The command line of Maxim: one file per command, all of them thin.
//!
//! [`run`] is the whole program: read the flags (`arguments`), decide language and look (`messages`, `printer`), find
//! the cluster and where to install from (`cluster`), call the engine's action, show what it gave, and turn what went
//! wrong into a message with a hint and an exit code (`failure`).
//!
//! What it deliberately does not do: touch a host. Everything that changes something is an action of `maxim_engine`.

mod arguments;
mod ask;
mod cluster;
mod commands;
mod failure;
mod messages;
mod passwords;
mod printer;
mod signals;

use arguments::{Cli, OutputFormat};
use failure::Failure;
use messages::Messages;
use printer::Printer;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

/// Runs the program with its arguments, the program's name first; gives its exit code.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    if let Some(code) = commands::hidden(&arguments) {
        return code;
    }
    let messages = Messages::from_environment();
    let cli = match arguments::parse(&arguments, &messages) {
        Ok(cli) => cli,
        Err(error) => return refuse_arguments(&arguments, &error, messages),
    };
    let printer = Arc::new(Printer::new(&cli.global, messages));
    let outcome = commands::run(&cli, &printer);
    let code = match outcome {
        Ok(code) => code,
        Err(failure) => printer.failure(&failure),
    };
    printer.finish();
    ExitCode::from(code)
}

/// Wrong flags: what is wrong, with a suggestion, and exit code 2; `--help` and `--version` are no errors.
fn refuse_arguments(arguments: &[OsString], error: &clap::Error, messages: Messages) -> ExitCode {
    if !error.use_stderr() {
        // Nothing sensible can be done when the terminal is gone.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let json = arguments.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json")
        || arguments.iter().any(|argument| argument == "--output=json");
    let printer = Printer::plain(if json { OutputFormat::Json } else { OutputFormat::Text }, messages);
    printer.failure(&Failure::arguments(error));
    ExitCode::from(2)
}

/// The whole command line, for tests and for completions.
pub fn command() -> clap::Command {
    arguments::localised(<Cli as clap::CommandFactory>::command(), &Messages::english())
}
