//! `rollback`: the version before, as long as the upgrade was not finalized.

use super::upgrade::total;
use super::{Call, Outcome};
use crate::cluster::{self, Needs};
use crate::commands::status::components_table;
use crate::failure::Failure;
use crate::messages::values;
use crate::printer::plan_view;
use crate::printer::style::duration;
use maxim_engine::upgrade::{self, RollbackOptions};
use serde_json::json;

/// Shows what will be taken back, asks, and does it.
pub(super) fn run(call: &Call<'_>) -> Outcome {
    let target = cluster::existing(call.global, call.printer)?;
    let session = cluster::session(call.global, target, Needs::Nothing, call.printer)?;
    let printer = call.printer;
    let messages = printer.messages();
    printer.show_phases();
    let outcome = upgrade::rollback(&session.context, RollbackOptions { dry_run: call.global.dry_run })?;
    printer.run_ended();
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
        let done = messages.with(
            "rollback-done",
            values![
                "from" => outcome.from.as_str(), "to" => outcome.to.as_str(),
                "changes" => outcome.changes, "time" => duration(total(&outcome.timings))
            ],
        );
        text.push_str(&format!("\n{}\n\n", printer.style().bold(&done)));
        text.push_str(&components_table(&outcome.components, printer));
    }
    printer.human(&text);
    if call.global.timings {
        printer.timings(&outcome.timings);
    }
    printer.result(
        0,
        json!({
            "cluster": session.context.topology.name,
            "from": outcome.from, "to": outcome.to,
            "changes": outcome.changes,
            "applied": outcome.applied,
            "components": outcome.components,
            "timings": outcome.timings,
        }),
    );
    Ok(0)
}
