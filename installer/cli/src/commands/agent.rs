//! `agent [--read-only [--promotable] | --observe]` (hidden): what the engine starts on a host. Speaks the wire protocol on its standard
//! streams; says anything else on standard error only.

use maxim_model::wire::Access;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Serves until the input ends.
pub(super) fn run(arguments: &[OsString]) -> ExitCode {
    let (access, promotable) = match arguments {
        [] => (Access::Full, false),
        [flag] if flag == "--read-only" => (Access::ReadOnly, false),
        [flag, more] if flag == "--read-only" && more == "--promotable" => (Access::ReadOnly, true),
        [flag] if flag == "--observe" => (Access::Observe, false),
        _ => {
            let _ = writeln!(
                std::io::stderr(),
                "usage: maxim.ctl agent [--read-only [--promotable] | --observe]"
            );
            return ExitCode::from(2);
        }
    };
    match maxim_agent::serve_standard(access, promotable) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "agent: {error}");
            ExitCode::FAILURE
        }
    }
}
