//! `agent [--read-only [--promotable] | --observe [--peer USER]]` (hidden): what the engine starts on a host. Speaks the
//! wire protocol on its standard streams; says anything else on standard error only. `--peer`: standard input is a
//! socket, and only this user may be at its other end.

use maxim_model::wire::Access;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Serves until the input ends.
pub(super) fn run(arguments: &[OsString]) -> ExitCode {
    let (access, promotable, peer) = match arguments {
        [] => (Access::Full, false, None),
        [flag] if flag == "--read-only" => (Access::ReadOnly, false, None),
        [flag, more] if flag == "--read-only" && more == "--promotable" => (Access::ReadOnly, true, None),
        [flag] if flag == "--observe" => (Access::Observe, false, None),
        [flag, with, peer] if flag == "--observe" && with == "--peer" => {
            (Access::Observe, false, peer.to_str())
        }
        _ => {
            let _ = writeln!(
                std::io::stderr(),
                "usage: maxim.ctl agent [--read-only [--promotable] | --observe [--peer USER]]"
            );
            return ExitCode::from(2);
        }
    };
    match maxim_agent::serve_standard(access, promotable, peer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "agent: {error}");
            ExitCode::FAILURE
        }
    }
}
