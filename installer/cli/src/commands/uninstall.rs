//! `uninstall [--purge]`: leaves data unless told to purge; leaves nothing else.

use super::{Call, Outcome};
use crate::arguments::UninstallArguments;
use crate::cluster::{self, Needs};
use crate::failure::Failure;
use crate::messages::values;
use crate::printer::plan_view;
use maxim_engine::actions;
use maxim_engine::actions::uninstall::UninstallOptions;
use serde_json::json;

/// Shows what will go, asks, and removes it.
pub(super) fn run(call: &Call<'_>, arguments: &UninstallArguments) -> Outcome {
    let target = cluster::existing(call.global, call.printer)?;
    let session = cluster::session(call.global, target, Needs::Delivery, call.printer)?;
    call.printer.show_phases();
    let options = UninstallOptions { purge: arguments.purge, dry_run: call.global.dry_run };
    let outcome = actions::uninstall(&session.context, options)?;
    let printer = call.printer;
    printer.run_ended();
    let messages = printer.messages();
    if !outcome.applied && !call.global.dry_run {
        if session.person.nobody_was_there() {
            return Err(Failure::usage(messages.text("nobody-to-ask"), messages.text("nobody-to-ask-hint")));
        }
        return Err(Failure::failed(messages.text("declined"), ""));
    }
    let mut text = String::new();
    if call.global.dry_run {
        text.push_str(&plan_view::render(&outcome.plan, printer, plan_view::Detail::Diffs));
        text.push_str(&format!("{}\n", messages.text("dry-run")));
    } else {
        text.push_str(&format!(
            "{}\n",
            messages.with(
                "uninstall-done",
                values!["cluster" => session.context.topology.name.as_str(), "changes" => outcome.changes]
            )
        ));
        if !outcome.left.is_empty() {
            text.push_str(&format!("{}\n", messages.text("uninstall-left")));
            for left in &outcome.left {
                text.push_str(&format!("  {left}\n"));
            }
        }
    }
    printer.human(&text);
    if call.global.timings {
        printer.timings(&outcome.timings);
    }
    printer.result(
        0,
        json!({
            "cluster": session.context.topology.name,
            "changes": if call.global.dry_run { outcome.plan.changes() } else { outcome.changes },
            "applied": outcome.applied,
            "left": outcome.left,
            "timings": outcome.timings,
        }),
    );
    Ok(0)
}
