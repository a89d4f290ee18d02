//! `maxim-console --config FILE`: reads the configuration and hands over to the library.
//!
//! Exit codes: 0 ended as told; 1 could not start or serve; 2 the configuration is wrong.

use clap::Parser;
use maxim_console::auth::password;
use maxim_console::auth::setup::FIRST_ADMINISTRATOR;
use maxim_console::clock::{Clock, SystemClock};
use maxim_console::config::Config;
use maxim_console::server::Server;
use maxim_console::status::source::EngineSource;
use maxim_console::status::watcher::Pace;
use maxim_console::store::Store;
use maxim_console::tls;
use maxim_model::Secret;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The web console of Maxim.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Configuration file (YAML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration, the certificate and its key, then end.
    #[arg(long)]
    check_config: bool,
    /// Set the password of the first administrator to the line read from standard input, end all sessions, then end.
    #[arg(long, conflicts_with = "check_config")]
    reset_password: bool,
}

/// What ends the program, with its exit code.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn usage(error: impl std::fmt::Display) -> Self {
        Self { code: 2, message: error.to_string() }
    }

    fn failed(error: impl std::fmt::Display) -> Self {
        Self { code: 1, message: error.to_string() }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("MAXIM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If standard error is gone there is nobody to tell; the exit code says it.
            let _ = writeln!(std::io::stderr(), "error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = Config::load(&arguments.config).map_err(Failure::usage)?;
    if arguments.check_config {
        tls::server_config(&config.certificate, &config.key).map_err(Failure::usage)?;
        return Ok(());
    }
    if arguments.reset_password {
        return reset_password(&config);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    runtime.block_on(serve(&config))
}

async fn serve(config: &Config) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    let source = Arc::new(EngineSource::new(config.cluster.clone()));
    let server = Server::bind(config, Arc::new(SystemClock), source, Pace::default())
        .await
        .map_err(Failure::failed)?;
    tracing::info!(address = %server.address(), "the console listens");
    server
        .run(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await
        .map_err(Failure::failed)?;
    tracing::info!("the console has ended");
    Ok(())
}

/// For an administrator who lost the password and can become the console's user on its host.
fn reset_password(config: &Config) -> Result<(), Failure> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(Failure::failed)?;
    let password = Secret::new(line.trim_end_matches(['\r', '\n']));
    if let Some(weakness) = password::weakness(password.expose(), FIRST_ADMINISTRATOR) {
        return Err(Failure::usage(format!(
            "the password is not accepted ({weakness:?}): use at least {} characters, not the name, not one character repeated",
            password::SHORTEST
        )));
    }
    let store = Store::open(&config.data).map_err(Failure::failed)?;
    let hash = password::hash(&password).map_err(Failure::failed)?;
    let now = SystemClock.now();
    if !store.set_password(FIRST_ADMINISTRATOR, &hash, now).map_err(Failure::failed)? {
        store.add_administrator(FIRST_ADMINISTRATOR, &hash, now).map_err(Failure::failed)?;
    }
    store.forgive_all().map_err(Failure::failed)?;
    writeln!(std::io::stderr(), "The password of `{FIRST_ADMINISTRATOR}` was set. All sessions have ended.")
        .map_err(Failure::failed)
}
