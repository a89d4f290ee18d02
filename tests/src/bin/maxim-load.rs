//! `maxim-load`: puts an XMPP server on this machine under load and prints what came of it, one JSON object per
//! run. See [`maxim_tests::load`] for what each command does; `docs/performance.md` for how it is used.
//!
//! It needs accounts that exist (`register` makes them where the server allows it). It exits with 1 when a run
//! failed, and also when messages went missing.

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use maxim_tests::load::{Target, accounts, idle, messages};
use std::io::Write as _;

#[derive(Parser)]
#[command(name = "maxim-load", version, about = "Puts an XMPP server under load and measures it")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes accounts by in-band registration.
    Register {
        #[command(flatten)]
        target: Target,
        /// How many.
        #[arg(long, default_value_t = 1000)]
        count: usize,
    },
    /// Signs many clients in.
    Login {
        #[command(flatten)]
        target: Target,
        /// How many.
        #[arg(long, default_value_t = 1000)]
        count: usize,
        /// How often.
        #[arg(long, default_value_t = 2)]
        rounds: usize,
    },
    /// Measures memory per idle session.
    Idle {
        #[command(flatten)]
        target: Target,
        /// How many sessions.
        #[arg(long, default_value_t = 2000)]
        count: usize,
        /// Seconds to let everything settle.
        #[arg(long, default_value_t = 15)]
        settle: u64,
    },
    /// As many messages as the server takes.
    Flood {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        pairs: messages::Pairs,
        /// Messages that each sender keeps under way.
        #[arg(long, default_value_t = 8)]
        window: usize,
    },
    /// Messages at a fixed rate.
    Rate {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        pairs: messages::Pairs,
        /// Messages a second, of all senders together.
        #[arg(long, default_value_t = 1000.0)]
        rate: f64,
    },
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let result = match Arguments::parse().command {
        Command::Register { target, count } => accounts::register(&target, count).await?,
        Command::Login { target, count, rounds } => accounts::login(&target, count, rounds).await?,
        Command::Idle { target, count, settle } => idle::idle(&target, count, settle).await?,
        Command::Flood { target, pairs, window } => messages::flood(&target, &pairs, window).await?,
        Command::Rate { target, pairs, rate } => messages::rate(&target, &pairs, rate).await?,
    };
    writeln!(std::io::stdout(), "{result}")?;
    if result["missing"].as_u64().is_some_and(|missing| missing > 0) {
        bail!("messages went missing: {}", result["missing"]);
    }
    Ok(())
}
