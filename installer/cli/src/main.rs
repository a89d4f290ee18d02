//! The program `maxim-ctl` (shipped as `maxim.ctl`): only calls the library.

use nix::sys::resource::{Resource, setrlimit};
use std::process::ExitCode;

fn main() -> ExitCode {
    // A crash must not write the secrets in memory to a core file. It holds for the agent, and for what it starts.
    // Lowering a limit of one's own is always allowed; where it is not possible all the same, nothing else is wrong.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    maxim_ctl::run(std::env::args_os().collect())
}
