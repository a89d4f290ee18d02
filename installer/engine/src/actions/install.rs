//! `install`: connect, probe, plan, ask, apply, verify.
//!
//! Steps: the control host's lock; connect to all hosts with read-only agents; facts and preflight; agents that may
//! change things, with the hosts' locks; render and check; the plan is shown and approved; secrets, certificates and
//! the topology are saved; apply by stages; canary; first account; what runs is measured anew. A second run goes the
//! same way and changes nothing.

use crate::actions::check::CheckOutcome;
use crate::context::Context;
use crate::delivery::{self, Delivery};
use crate::error::EngineError;
use crate::events::{Timing, now_rfc3339};
use crate::phases::plan::Material;
use crate::phases::probe::DiskProbe;
use crate::phases::{apply, connect, measure, plan, verify};
use crate::preflight;
use crate::render::Purpose;
use crate::run::{Run, Session};
use crate::state::{self, AgentProgram, Installed};
use maxim_model::Secret;
use maxim_model::check::CheckResult;
use maxim_model::names::{Profile, Role};
use maxim_model::plan::Plan;
use maxim_model::status::{ComponentStatus, Endpoints};
use maxim_model::task::{Change, Task};
use maxim_model::topology::Topology;
use serde::Serialize;
use std::path::PathBuf;
use std::thread::JoinHandle;

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

/// The first account of a cluster, and the console's administrator beside it.
#[derive(Debug, Clone)]
pub struct InitialAccount {
    /// `admin@DOMAIN`.
    pub address: String,
    /// File with address and password, mode 0600.
    pub path: PathBuf,
    /// The password, only in the run that made it: to be shown once on a terminal.
    pub password: Option<Secret>,
    /// The password of the console's user `admin`, likewise.
    pub console_password: Option<Secret>,
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
    let run = Run::begin(context, "install", !options.dry_run)?;
    install_with(&run, options, None)
}

/// The same in a run that exists; `only`: exactly this plan or a refusal.
pub(crate) fn install_with(
    run: &Run<'_>,
    options: InstallOptions,
    only: Option<&Plan>,
) -> Result<InstallOutcome, EngineError> {
    let context = run.context;
    let action = if only.is_some() { "apply" } else { "install" };
    let _control = if options.dry_run { None } else { Some(context.state.lock(&state::owner(action))?) };
    let before = context.state.installed()?.unwrap_or_default();
    crate::upgrade::refuse_other_version(&context.state, &before, &context.delivery)?;
    crate::replace::refuse_in_the_middle(&context.state, action)?;
    let mut material = Material::load(run)?;
    delivery::require(&context.delivery, &context.topology, &material.artefacts)?;
    // All of a bundle is checked in every run, beside the measuring: before anything of it is unpacked, and also when
    // nothing is to be changed.
    let verified = WholeBundle::begin(&context.delivery);
    let mut sessions = connect::connect(run)?;
    let mut begun = false;
    let outcome =
        installed_on(run, &mut sessions, &mut material, options, only, action, verified, &before, &mut begun);
    // Somebody who holds the lock of a host may be using the same copy.
    let refused = match &outcome {
        Ok(outcome) => !outcome.applied && !options.dry_run,
        Err(error) => error.step != "lock",
    };
    if refused && !begun {
        preflight::leave_no_trace(run, &mut sessions);
    }
    connect::release(&mut sessions);
    outcome
}

/// The check of all of a bundle's bytes, on a thread of its own.
pub(crate) struct WholeBundle(Option<JoinHandle<Result<(), EngineError>>>);

impl WholeBundle {
    /// Begins to read it; without a bundle there is nothing to check.
    pub(crate) fn begin(delivery: &Delivery) -> Self {
        Self(match delivery {
            Delivery::Bundle(bundle) => Some(bundle.verify_beside()),
            _ => None,
        })
    }

    /// Waits for what came of it.
    pub(crate) fn end(self) -> Result<(), EngineError> {
        self.0.map_or(Ok(()), |running| {
            running
                .join()
                .unwrap_or_else(|_| Err(EngineError::failed("bundle", "checking the bundle ended early")))
        })
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one action, which share nothing else")]
fn installed_on(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    material: &mut Material,
    options: InstallOptions,
    only: Option<&Plan>,
    action: &str,
    verified: WholeBundle,
    before: &Installed,
    begun: &mut bool,
) -> Result<InstallOutcome, EngineError> {
    let context = run.context;
    // A running database is not disturbed by a second run; `check` still measures its disk.
    let disk = if before.generation > 0 { DiskProbe::No } else { DiskProbe::Databases };
    let checks = preflight_or_refuse(run, sessions, disk)?;
    context.cancel.check("probe")?;
    if !options.dry_run {
        connect::lock_hosts(run, sessions, action)?;
    }
    let (tasks, changes, made) = plan_install(run, sessions, material, !options.dry_run)?;
    if let Some(wanted) = only {
        refuse_if_different(wanted, &made)?;
    }
    let mut outcome = InstallOutcome {
        applied: false,
        changes: made.changes(),
        checks,
        components: Vec::new(),
        endpoints: measure::endpoints(&context.topology),
        domain: context.topology.domain.clone(),
        account: None,
        dns_records: dns_records(&context.topology),
        timings: Vec::new(),
        plan: made,
    };
    let nothing = changes.iter().flatten().all(|change| *change == Change::None);
    // A saved plan was approved when it was given.
    if options.dry_run {
        verified.end()?;
        outcome.timings = run.emitter.timings();
        return Ok(outcome);
    }
    if !nothing && only.is_none() && !context.ask.approve(&outcome.plan) {
        outcome.timings = run.emitter.timings();
        return Ok(outcome);
    }
    context.cancel.check("apply")?;

    verified.end()?;
    material.save(context)?;
    if let Delivery::Bundle(bundle) = &context.delivery {
        bundle.pin(&context.state)?;
    }
    // Before anything is changed: whatever happens now, `status` and `uninstall` find the cluster.
    context.state.save_topology(&context.topology_text)?;
    let mut installed = wanted(context, material, before);
    context.state.save_installed(&installed)?;

    *begun = true;
    state::copy::publish(run, sessions)?;
    outcome.changes = apply::apply(run, sessions, &tasks, &changes, material)?;
    context.cancel.check("verify")?;

    run.emitter.phase("verify", || {
        outcome.account = verify::first_account(
            run,
            sessions,
            &mut material.secrets,
            before.account_created,
            &outcome.endpoints.console,
        )?;
        verify::canary(run, sessions, material.authority.certificate())?;
        outcome.components = measure::components(run, sessions, &installed, true);
        Ok::<_, EngineError>(())
    })?;
    installed.account_created = true;
    if outcome.changes > 0 || before.generation == 0 {
        installed.generation = before.generation + 1;
        installed.installed_at = now_rfc3339();
    }
    if installed != *before {
        context.state.save_installed(&installed)?;
    }
    crate::upgrade::keep(&context.state, &installed, sessions, &tasks)?;
    crate::backup::hand_over(run, sessions, &installed);
    state::copy::publish(run, sessions)?;
    outcome.applied = true;
    outcome.timings = run.emitter.timings();
    Ok(outcome)
}

/// Facts and preflight; an error of class `Preflight` when something blocks.
pub(crate) fn preflight_or_refuse(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    disk: DiskProbe,
) -> Result<Vec<CheckResult>, EngineError> {
    let CheckOutcome { results, blocked, .. } = preflight::preflight(run, sessions, disk);
    run.context.cancel.check("probe")?;
    if let Some(error) = connect::refused(sessions) {
        return Err(error);
    }
    if blocked > 0 {
        return Err(preflight::refusal(&results));
    }
    Ok(results)
}

/// Tasks of every host, what each would change, and the plan of it all.
pub(crate) type Planned = (Vec<Vec<Task>>, Vec<Vec<Change>>, Plan);

/// Renders and checks everything, and puts the plan together.
pub(crate) fn plan_install(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    material: &mut Material,
    writer: bool,
) -> Result<Planned, EngineError> {
    run.emitter.phase("plan", || {
        let tasks = material.tasks(run, sessions, Purpose::Install, false)?;
        let changes = plan::check(run, sessions, &tasks, writer)?;
        let key = material.secrets.get_or_make("plan_key");
        let made = plan::assemble(run, sessions, &tasks, &changes, &key)?;
        Ok((tasks, changes, made))
    })
}

fn refuse_if_different(saved: &Plan, now: &Plan) -> Result<(), EngineError> {
    if saved.fingerprint == now.fingerprint {
        return Ok(());
    }
    let differences = plan::differences(saved, now);
    let what = if differences.is_empty() { "its fingerprint".to_owned() } else { differences.join("; ") };
    Err(EngineError::refused("apply", format!("what the plan rests on has changed: {what}"))
        .hint("make the plan again with `maxim.ctl plan -o FILE`, look at it, and apply that"))
}

/// What should run after an upgrade.
pub(crate) fn wanted_after(run: &Run<'_>, material: &Material, before: &Installed) -> Installed {
    wanted(run.context, material, before)
}

/// What should run after this install.
fn wanted(context: &Context, material: &Material, before: &Installed) -> Installed {
    let topology = &context.topology;
    let mut installed = Installed { version: env!("CARGO_PKG_VERSION").into(), ..before.clone() };
    installed.versions.clear();
    installed.artefacts.clear();
    for role in Role::ALL {
        let artefact = match role {
            Role::Im => "maxim-im",
            Role::Console => "maxim-console",
            other => other.name(),
        };
        if topology.with_role(role).next().is_some()
            && let Some(artefact) = material.artefacts.get(artefact)
        {
            installed.versions.insert(role.name().into(), artefact.version.clone());
            installed.artefacts.insert(role.name().into(), artefact.artefact.clone());
        }
    }
    if let (Delivery::Bundle(_), Some(program)) = (&context.delivery, material.artefacts.get("maxim-ctl")) {
        installed.agent = Some(AgentProgram {
            version: program.version.clone(),
            sha256: program.sha256.clone(),
            size: program.size,
        });
    }
    installed
}

/// The records that make clients find the cluster (RFC 6120 section 3.2.1, XEP-0368).
fn dns_records(topology: &Topology) -> Vec<DnsRecord> {
    if topology.profile == Profile::Embedded && topology.domain == "localhost" {
        return Vec::new();
    }
    let domain = &topology.domain;
    let mut records = Vec::new();
    let mut add = |name: String, kind: &str, value: String| {
        records.push(DnsRecord { name, kind: kind.into(), value });
    };
    for host in topology.with_role(Role::Im) {
        match host.address.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(address)) => add(format!("{domain}."), "A", address.to_string()),
            Ok(std::net::IpAddr::V6(address)) => add(format!("{domain}."), "AAAA", address.to_string()),
            Err(_) => add(format!("{domain}."), "CNAME", format!("{}.", host.address)),
        }
    }
    for service in ["conference", "upload"] {
        add(format!("{service}.{domain}."), "CNAME", format!("{domain}."));
    }
    add(format!("_xmpp-client._tcp.{domain}."), "SRV", format!("10 0 {} {domain}.", topology.ports.xmpp));
    add(format!("_xmpps-client._tcp.{domain}."), "SRV", format!("5 0 {} {domain}.", topology.ports.xmpp_tls));
    records
}

#[cfg(test)]
mod tests {
    use super::dns_records;
    use crate::sample;

    #[test]
    fn records_name_domain_services_and_ports() {
        let records = dns_records(&sample::three_hosts());
        assert!(records.iter().any(|record| record.kind == "A" && record.value == "10.77.0.11"));
        assert!(records.iter().any(|record| record.name == "_xmpps-client._tcp.im.acme.example."
            && record.value == "5 0 5223 im.acme.example."));
        assert!(dns_records(&sample::embedded(std::path::Path::new("/x"))).is_empty());
    }
}
