//! Whether the host that is replaced is dead, as far as that can be known from here.
//!
//! A host that answers and belongs to the cluster is alive. One that answers and lets nobody in (no SSH server, another
//! key at an address that the new host does not take over) is not known to be dead, so it counts as alive. One that does
//! not answer, in whose place another machine is, or that has nothing of the cluster counts as dead.

use super::{ReplaceOptions, withdraw};
use crate::context::Context;
use crate::error::EngineError;
use crate::phases::probe::{DiskProbe, query};
use crate::phases::services;
use crate::remote::{Connected, Mode};
use crate::run::Run;
use maxim_model::topology::{Connection, Host};
use maxim_model::wire::{Reply, Request};
use std::time::Duration;

const FACTS: Duration = Duration::from_secs(30);
/// The step of the error of a host that shows another key than the pinned one.
pub(super) const OTHER_KEY: &str = "access.host_key_changed";
/// The step of the error of an address where nothing answers, not even that there is no SSH server.
const UNREACHABLE: &str = "access.unreachable";

/// Refuses a host that is alive, unless that was said; whether its services are to be stopped then ([`stop`]).
pub(super) fn require(context: &Context, old: &Host, options: &ReplaceOptions) -> Result<bool, EngineError> {
    if old.connection == Connection::Local {
        return Err(EngineError::usage("host replace", "this very machine cannot be dead")
            .on(&old.name)
            .hint("restore onto another machine with `maxim.ctl backup restore --kit`"));
    }
    let run = Run::begin(context, "host-replace", false)?;
    let refused = |cause: String| {
        EngineError::refused("host replace", cause)
            .on(&old.name)
            .hint("switch it off, or say `--alive`: then its services are stopped where that is possible, and it must never serve again")
    };
    let same_place = withdraw::is_same_place(old, &options.topology, &options.name);
    let mut connected = match run.connect(old) {
        Ok(connected) => connected,
        Err(error) if error.step == UNREACHABLE || (error.step == OTHER_KEY && same_place) => {
            run.emitter.note(&old.name, "host replace", format!("counts as dead: {}", error.cause));
            return Ok(false);
        }
        Err(error) if options.alive => {
            run.emitter.warn(&old.name, "host replace", "it answers and could not be stopped", error.cause);
            return Ok(false);
        }
        Err(error) => {
            let jump = matches!(&old.connection, Connection::Ssh(ssh) if !ssh.jump.is_empty());
            let cause = if !jump {
                format!("it answers, and whether it works is not known: {}", error.cause)
            } else {
                // A jump host says the same of a machine that is off and of one without an SSH server.
                format!("whether it is off is not known: {}", error.cause)
            };
            return Err(refused(cause));
        }
    };
    if !is_ours(&run, old, connected.as_mut())? {
        run.emitter.note(&old.name, "host replace", "the machine there has nothing of this cluster");
        return Ok(false);
    }
    if !options.alive {
        return Err(refused(format!("it is alive at {}", old.address)));
    }
    Ok(true)
}

/// Whether the machine has something of the cluster.
fn is_ours(run: &Run<'_>, old: &Host, connected: &mut dyn Connected) -> Result<bool, EngineError> {
    let mut agent = connected.agent(Mode::Look)?;
    run.scope(&mut agent)?;
    let asked = Request::Facts(query(&run.context.topology, old, DiskProbe::No));
    let facts = agent.ask("host replace", &asked, FACTS, |reply| match reply {
        Reply::Facts { facts } => Some(facts),
        _ => None,
    })?;
    agent.finish(Duration::from_secs(2));
    let there = facts.clusters.contains(&run.context.topology.name);
    Ok(there || facts.units.iter().any(|unit| unit.active == "active"))
}

/// Stops the services of a host that is alive and is replaced all the same.
pub(super) fn stop(context: &Context, old: &Host) -> Result<(), EngineError> {
    let run = &Run::begin(context, "host-replace", false)?;
    let mut connected = run.connect(old)?;
    let mut agent = connected.agent(Mode::Change)?;
    run.scope(&mut agent)?;
    let mut roles = old.roles.clone();
    roles.sort_by_key(|role| std::cmp::Reverse(role.stage()));
    let names: Vec<String> = roles.iter().map(|role| role.service()).collect();
    services::stop(run, &mut agent, "host replace", names)?;
    agent.finish(Duration::from_secs(2));
    run.emitter.note(&old.name, "host replace", "its services are stopped; it must not be started again");
    Ok(())
}
