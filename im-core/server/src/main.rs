//! `maxim-im --config FILE`: reads the configuration, starts the server, and stops it on SIGTERM or SIGINT.
//!
//! SIGHUP reads the certificate again. `--check-config` only reads and checks the file. Exit codes: 0 stopped as
//! asked, 1 failed, 2 wrong flags or configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use im_server::chain;
use im_server::config::{Config, LogFormat};
use im_server::server::{self, Running};
use tokio::signal::unix::{SignalKind, signal};

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

/// Writes a last word to standard error, where the service manager picks it up.
fn complain(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "maxim-im: {text}");
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
    start_log(&config);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start worker threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(run(config))
}

fn start_log(config: &Config) {
    use tracing_subscriber::EnvFilter;
    // Libraries speak up only when something is wrong.
    let level = &config.log.level;
    let filter = EnvFilter::new(format!("warn,im_server={level},im_store={level},maxim_im={level}"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match config.log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

async fn run(config: Config) -> ExitCode {
    let signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = signals else {
        complain("cannot listen for signals");
        return ExitCode::FAILURE;
    };
    let running = tokio::select! {
        started = server::start(config) => match started {
            Ok(running) => running,
            Err(error) => {
                complain(&chain(&error));
                return ExitCode::FAILURE;
            }
        },
        _ = terminate.recv() => return ExitCode::SUCCESS,
        _ = interrupt.recv() => return ExitCode::SUCCESS,
    };
    announce(&running);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => match running.reload() {
                Ok(()) => tracing::info!("certificate read again"),
                Err(error) => tracing::error!("the old certificate stays in use: {}", chain(&error)),
            },
        }
    }
    tracing::info!("stopping");
    running.stop().await;
    tracing::info!("stopped");
    ExitCode::SUCCESS
}

fn announce(running: &Running) {
    let ports = &running.ports;
    tracing::info!(
        domain = running.core.config.domain,
        node = %running.core.live.node(),
        store = running.core.store.kind(),
        xmpp = ?ports.xmpp,
        xmpp_tls = ?ports.xmpp_tls,
        https = ?ports.https,
        metrics = ?ports.metrics,
        "ready"
    );
}
