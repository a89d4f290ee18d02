//! `maxim-im --config FILE`: reads the configuration, starts the server, and stops it on SIGTERM or SIGINT.
//!
//! SIGHUP reads the certificate again. `--check-config` only reads and checks the file. Exit codes: 0 stopped as
//! asked, 1 failed, 2 wrong flags or configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use im_server::chain;
use im_server::config::Config;
use im_server::process::{complain, run};

/// The IM core of Maxim: an XMPP server.
#[derive(Parser)]
#[command(name = "maxim-im", version)]
struct Arguments {
    /// The configuration file, YAML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only read and check the configuration.
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::read(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            complain(&chain(&error));
            return ExitCode::from(2);
        }
    };
    if arguments.check_config {
        return ExitCode::SUCCESS;
    }
    run(config)
}
