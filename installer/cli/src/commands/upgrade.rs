//! `upgrade --bundle NEW [--finalize]`: from one version to the next, host by host.
//!
//! The bundle is judged by this program. When it holds another version, its own `maxim.ctl` does the rest: that one
//! knows the playbooks of its bundle. It is written whole below the cluster's state, its bytes are checked against the
//! signed manifest, and it takes this program's place with the same arguments.

use super::{Call, Outcome};
use crate::arguments::UpgradeArguments;
use crate::cluster::{self, Needs, Session};
use crate::commands::status::components_table;
use crate::failure::Failure;
use crate::messages::values;
use crate::printer::plan_view;
use crate::printer::style::{duration, size};
use maxim_engine::upgrade::{self, FinalizeOutcome, UpgradeOptions, UpgradeOutcome, UpgradePlan};
use maxim_engine::{Delivery, Timing};
use serde_json::json;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Upgrades, or finalizes the last upgrade.
pub(super) fn run(call: &Call<'_>, arguments: &UpgradeArguments) -> Outcome {
    let target = cluster::existing(call.global, call.printer)?;
    if call.global.bundle.is_none() {
        if !arguments.finalize {
            let messages = call.printer.messages();
            return Err(Failure::usage(
                messages.text("upgrade-needs-bundle"),
                messages.text("upgrade-needs-bundle-hint"),
            ));
        }
        let session = cluster::session(call.global, target, Needs::Nothing, call.printer)?;
        return finalize(call, &session);
    }
    let session = cluster::session(call.global, target, Needs::Delivery, call.printer)?;
    if let Delivery::Bundle(bundle) = &session.context.delivery {
        upgrade::admit(&session.context, bundle.manifest())?;
        if bundle.manifest().version != env!("CARGO_PKG_VERSION") {
            return Err(hand_over(&session)?);
        }
    }
    call.printer.show_phases();
    let options = UpgradeOptions {
        dry_run: call.global.dry_run,
        no_snapshot: arguments.no_snapshot,
        finalize: arguments.finalize,
    };
    let outcome = upgrade::upgrade(&session.context, options)?;
    finish(call, &session, &outcome)
}

/// Becomes the bundle's program; returns only when that cannot be.
fn hand_over(session: &Session) -> Result<Failure, Failure> {
    let program = upgrade::program_of_bundle(&session.context)?;
    if std::env::current_exe().is_ok_and(|own| own == program) {
        return Err(Failure::new(
            5,
            format!(
                "the bundle's maxim.ctl is of version {}, not of the bundle's",
                env!("CARGO_PKG_VERSION")
            ),
            "take a bundle that was built whole, by `bundle build`",
        ));
    }
    let error = Command::new(&program).args(std::env::args_os().skip(1)).exec();
    Ok(Failure::failed(
        format!("{} cannot be started: {error}", program.display()),
        "is the file system of the home folder mounted with `noexec`?",
    ))
}

fn finish(call: &Call<'_>, session: &Session, outcome: &UpgradeOutcome) -> Outcome {
    let printer = call.printer;
    let messages = printer.messages();
    printer.run_ended();
    if !outcome.applied && !call.global.dry_run {
        if session.person.nobody_was_there() {
            return Err(Failure::usage(messages.text("nobody-to-ask"), messages.text("nobody-to-ask-hint")));
        }
        return Err(Failure::failed(messages.text("declined"), ""));
    }
    let plan = &outcome.plan;
    let mut text = String::new();
    if call.global.dry_run {
        text.push_str(&plan_view::render(&plan.plan, printer, plan_view::Detail::Diffs));
        text.push_str(&statements(plan, call));
        text.push_str(&format!("{}\n", messages.text("dry-run")));
    } else {
        let done = messages.with(
            "upgrade-done",
            values![
                "from" => plan.from.as_str(), "to" => plan.to.as_str(),
                "changes" => outcome.changes, "time" => duration(total(&outcome.timings))
            ],
        );
        text.push_str(&format!("\n{}\n\n", printer.style().bold(&done)));
        text.push_str(&components_table(&outcome.components, printer));
        let next = if outcome.finalized { "upgrade-finalized" } else { "upgrade-next" };
        text.push_str(&format!("\n{}\n", messages.text(next)));
    }
    printer.human(&text);
    if call.global.timings {
        printer.timings(&outcome.timings);
    }
    let mut shown = serde_json::to_value(plan).unwrap_or_default();
    if let Some(shown) = shown.as_object_mut() {
        shown.remove("plan");
    }
    printer.result(
        0,
        json!({
            "cluster": session.context.topology.name,
            "from": plan.from, "to": plan.to,
            "upgrade": shown,
            "changes": outcome.changes,
            "applied": outcome.applied,
            "finalized": outcome.finalized,
            "components": outcome.components,
            "timings": outcome.timings,
        }),
    );
    Ok(0)
}

/// What a person must know before an upgrade, in sentences.
pub(crate) fn statements(plan: &UpgradePlan, call: &Call<'_>) -> String {
    sentences(plan, call.printer.messages())
}

/// The same for whoever has the messages.
pub(crate) fn sentences(plan: &UpgradePlan, messages: &crate::messages::Messages) -> String {
    let mut lines = vec![messages.with(
        "upgrade-way",
        values!["from" => plan.from.as_str(), "to" => plan.to.as_str(), "hosts" => plan.hosts.join(", ")],
    )];
    if plan.resumes {
        lines.push(messages.text("upgrade-resumes"));
    }
    lines.push(messages.with("upgrade-stages", values!["size" => size(plan.staged_bytes)]));
    lines.push(messages.text(if plan.snapshot { "upgrade-snapshot" } else { "upgrade-no-snapshot" }));
    let now = plan.schema_now.map_or_else(|| "?".to_owned(), |number| number.to_string());
    lines.push(
        messages.with(
            "upgrade-schema",
            values!["now" => now.as_str(), "expanded" => plan.schema_expanded as usize],
        ),
    );
    lines.push(match (plan.finalizes, plan.schema_finalized > plan.schema_expanded) {
        (true, _) => messages.text("upgrade-finalizes"),
        (false, true) => messages.with(
            "upgrade-point",
            values!["from" => plan.from.as_str(), "finalized" => plan.schema_finalized as usize],
        ),
        (false, false) => messages.with("upgrade-point-plain", values!["from" => plan.from.as_str()]),
    });
    let mut text = String::from("\n");
    for line in lines {
        text.push_str(&format!("  {line}\n"));
    }
    text.push('\n');
    text
}

fn finalize(call: &Call<'_>, session: &Session) -> Outcome {
    let printer = call.printer;
    let messages = printer.messages();
    if !call.global.dry_run && !session.person.confirm(&messages.text("ask-finalize")) {
        if session.person.nobody_was_there() {
            return Err(Failure::usage(messages.text("nobody-to-ask"), messages.text("nobody-to-ask-hint")));
        }
        return Err(Failure::failed(messages.text("declined"), ""));
    }
    printer.show_phases();
    let outcome: FinalizeOutcome = upgrade::finalize(&session.context, call.global.dry_run)?;
    printer.run_ended();
    let mut text = String::new();
    for migration in &outcome.migrations {
        text.push_str(&format!("  {migration}\n"));
    }
    text.push_str(&messages.text(if outcome.applied { "upgrade-finalized" } else { "dry-run" }));
    text.push('\n');
    printer.human(&text);
    if call.global.timings {
        printer.timings(&outcome.timings);
    }
    printer.result(
        0,
        json!({
            "cluster": session.context.topology.name,
            "changes": if outcome.applied { outcome.migrations.len() } else { 0 },
            "migrations": outcome.migrations,
            "applied": outcome.applied,
            "finalized": outcome.applied,
            "components": outcome.components,
            "timings": outcome.timings,
        }),
    );
    Ok(0)
}

pub(super) fn total(timings: &[Timing]) -> u64 {
    timings.iter().find(|timing| timing.phase == "total").map_or(0, |timing| timing.duration_ms)
}
