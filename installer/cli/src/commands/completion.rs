//! `completion bash|zsh|fish`: completions for a shell, on standard output.

use super::Call;
use crate::arguments::{CompletionArguments, Shell};

/// Prints the script.
pub(super) fn run(call: &Call<'_>, arguments: &CompletionArguments) -> u8 {
    let mut script = Vec::new();
    let mut command = crate::command();
    let shell = match arguments.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    clap_complete::generate(shell, &mut command, "maxim.ctl", &mut script);
    call.printer.raw(&script);
    0
}
