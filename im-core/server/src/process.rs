//! The process: logging, signals, start and stop. All of it is compiled here, so that the binary is a few lines.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::chain;
use crate::config::{Config, LogFormat};
use crate::server::{self, Running};

/// Writes a last word to standard error, where the service manager picks it up.
pub fn complain(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "maxim-im: {text}");
}

/// Runs the server until SIGTERM or SIGINT. 0 when it was stopped so, 1 when it could not start.
pub fn run(config: Config) -> ExitCode {
    start_log(&config);
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(serve(config)),
        Err(error) => {
            complain(&format!("cannot start worker threads: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn start_log(config: &Config) {
    use tracing_subscriber::EnvFilter;
    // Libraries speak up only when something is wrong.
    let level = &config.log.level;
    let filter = EnvFilter::new(format!("warn,im_server={level},im_store={level}"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match config.log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

async fn serve(config: Config) -> ExitCode {
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
