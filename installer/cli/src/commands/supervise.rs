//! `supervise --root DIR` (hidden): keeps the services of an embedded deployment. Started by the agent.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Runs until it is told to stop.
pub(super) fn run(arguments: &[OsString]) -> ExitCode {
    let [flag, root] = arguments else {
        let _ = writeln!(std::io::stderr(), "usage: maxim.ctl supervise --root DIR");
        return ExitCode::from(2);
    };
    if flag != "--root" {
        let _ = writeln!(std::io::stderr(), "usage: maxim.ctl supervise --root DIR");
        return ExitCode::from(2);
    }
    match maxim_agent::supervisor::run(Path::new(root)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "supervisor: {error}");
            ExitCode::FAILURE
        }
    }
}
