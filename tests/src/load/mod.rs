//! A load generator for any XMPP server: what `docs/performance.md` is measured with.
//!
//! It signs in many clients of its own and lets them message each other, and reads the server's CPU and memory
//! from `/proc`, for it shares the machine. Each command returns one JSON object:
//!
//! * [`accounts::register`]: accounts by in-band registration (XEP-0077);
//! * [`accounts::login`]: connect, TLS, SASL, bind, roster, presence; many at a time;
//! * [`idle::idle`]: memory per session once everything has settled;
//! * [`messages::flood`]: a closed loop, each sender keeps some messages under way;
//! * [`messages::rate`]: an open loop at a fixed rate, with latency from the moment a message was due.
//!
//! It shares no code with the product. It does not verify certificates, and therefore refuses to leave loopback
//! unless told to. All loops are bounded in time and number.

pub mod accounts;
pub mod client;
pub mod idle;
pub mod messages;
pub mod process;
mod scram;
mod splitter;
mod tls;

use anyhow::{Result, ensure};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How the connection becomes private.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Tls {
    /// Not at all.
    None,
    /// Asked for inside the stream.
    Starttls,
    /// From the first byte.
    Direct,
}

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mechanism {
    /// The password itself.
    Plain,
    /// RFC 5802.
    ScramSha1,
    /// RFC 7677.
    ScramSha256,
}

/// The server under load, and its clients.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Address of the server.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Its port.
    #[arg(long, default_value_t = 5222)]
    pub port: u16,
    /// The domain it serves.
    #[arg(long, default_value = "localhost")]
    pub domain: String,
    /// Names of the accounts; `%d` is their number.
    #[arg(long, default_value = "u%d")]
    pub user: String,
    /// Their passwords; these are accounts for nothing but load.
    #[arg(long, default_value = "pw%d")]
    pub pass: String,
    /// Number of the first account.
    #[arg(long, default_value_t = 0)]
    pub from: usize,
    /// SASL mechanism.
    #[arg(long, value_enum, default_value = "scram-sha1")]
    pub mechanism: Mechanism,
    /// Encryption.
    #[arg(long, value_enum, default_value = "none")]
    pub tls: Tls,
    /// Sign-ins at the same time.
    #[arg(long, default_value_t = 32)]
    pub concurrency: usize,
    /// Seconds that one sign-in may take.
    #[arg(long, default_value_t = 60)]
    pub timeout: u64,
    /// Processes of the server, its database included, to read CPU and memory of.
    #[arg(long, value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// A name for the results.
    #[arg(long, default_value = "")]
    pub label: String,
    /// Allow addresses other than loopback: only for servers that are there to be loaded.
    #[arg(long)]
    pub allow_remote: bool,
}

impl Target {
    /// Refuses what must not be put under load.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.host.is_loopback() || self.allow_remote,
            "{} is not loopback; --allow-remote says that it may be put under load",
            self.host
        );
        ensure!((1..=10_000).contains(&self.concurrency), "--concurrency is 1 to 10000");
        Ok(())
    }

    /// The accounts that this target's options describe.
    pub fn clients(&self) -> client::Clients {
        client::Clients::new(Arc::new(self.clone()))
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    fn user_name(&self, number: usize) -> String {
        self.user.replace("%d", &number.to_string())
    }

    fn password(&self, number: usize) -> String {
        self.pass.replace("%d", &number.to_string())
    }
}
