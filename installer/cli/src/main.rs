//! The program `maxim-ctl` (shipped as `maxim.ctl`): only calls the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    maxim_ctl::run(std::env::args_os().collect())
}
