//! `install`: connect, probe, plan, ask, apply, verify.

use crate::context::Context;
use crate::error::EngineError;
use crate::events::Timing;
use maxim_model::Secret;
use maxim_model::check::CheckResult;
use maxim_model::plan::Plan;
use maxim_model::status::{ComponentStatus, Endpoints};
use serde::Serialize;
use std::path::PathBuf;

/// How to install.
#[derive(Debug, Clone, Copy, Default)]
pub struct InstallOptions {
    /// Show the plan, change nothing.
    pub dry_run: bool,
}

/// What an install did.
#[derive(Debug, Clone)]
pub struct InstallOutcome {
    /// The plan that was made.
    pub plan: Plan,
    /// False: a dry run, or the person said no.
    pub applied: bool,
    /// How many things were changed on hosts.
    pub changes: usize,
    /// Preflight results that warn or inform.
    pub checks: Vec<CheckResult>,
    /// What runs now, as measured after verification.
    pub components: Vec<ComponentStatus>,
    /// Where it is reached.
    pub endpoints: Endpoints,
    /// What accounts end in.
    pub domain: String,
    /// The first account.
    pub account: Option<InitialAccount>,
    /// DNS records to create; empty for an embedded deployment on `localhost`.
    pub dns_records: Vec<DnsRecord>,
    /// Phase by phase and host by host.
    pub timings: Vec<Timing>,
}

/// The first account of a cluster.
#[derive(Debug, Clone)]
pub struct InitialAccount {
    /// `admin@DOMAIN`.
    pub address: String,
    /// File with address and password, mode 0600.
    pub path: PathBuf,
    /// The password, only in the run that made it: to be shown once on a terminal.
    pub password: Option<Secret>,
}

/// A record for the person's DNS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DnsRecord {
    /// Owner name with trailing dot.
    pub name: String,
    /// `A`, `AAAA`, `SRV`, `CNAME`.
    pub kind: String,
    /// Data as in a zone file.
    pub value: String,
}

/// Installs or brings up to date, and verifies by a message.
pub fn install(context: &Context, options: InstallOptions) -> Result<InstallOutcome, EngineError> {
    let _ = (context, options);
    Err(EngineError::failed("install", "not there yet"))
}
