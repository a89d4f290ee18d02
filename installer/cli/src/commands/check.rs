//! `check`: probe and preflight only. Nothing is changed anywhere.

use super::{Call, Outcome};
use crate::arguments::Where;
use crate::cluster::{self, Needs};
use crate::messages::values;
use maxim_engine::actions;
use maxim_model::check::{CheckResult, Verdict};
use serde_json::json;

/// Exit code when a check blocks.
const BLOCKED: u8 = 3;

/// Checks and shows what blocks or warns; with `-v` everything.
pub(super) fn run(call: &Call<'_>, hosts: &Where) -> Outcome {
    let target = cluster::wanted(call.global, hosts, call.printer)?;
    let session = cluster::session(call.global, target, Needs::Delivery, call.printer)?;
    super::install::announce(call, &session);
    let outcome = actions::check(&session.context)?;
    let printer = call.printer;
    printer.run_ended();
    let messages = printer.messages();
    let style = printer.style();
    show_remarks(call, &outcome.results);
    let good = outcome.results.len() - outcome.blocked - outcome.warnings;
    let text = messages.with(
        "check-sum",
        values!["good" => good, "warnings" => outcome.warnings, "blocked" => outcome.blocked],
    );
    let painted = match (outcome.blocked, outcome.warnings) {
        (0, 0) => style.green(&text),
        (0, _) => style.yellow(&text),
        _ => style.red(&text),
    };
    printer.human(&format!("\n{painted}\n"));
    if call.global.timings {
        printer.timings(&outcome.timings);
    }
    let code = if outcome.blocked > 0 { BLOCKED } else { call.code(outcome.warnings) };
    printer.result(
        code,
        json!({
            "cluster": session.context.topology.name,
            "domain": session.context.topology.domain,
            "changes": 0,
            "blocked": outcome.blocked,
            "warnings": outcome.warnings,
            "checks": outcome.results,
            "timings": outcome.timings,
        }),
    );
    Ok(code)
}

/// Results that want attention, each with measured value, threshold, reason and remedy.
pub(super) fn show_remarks(call: &Call<'_>, results: &[CheckResult]) {
    let printer = call.printer;
    let (messages, style) = (printer.messages(), printer.style());
    let mut text = String::new();
    for result in results {
        let shown = match result.verdict {
            Verdict::Warn | Verdict::Block => true,
            Verdict::Info => printer.verbose() > 0,
            Verdict::Pass => printer.verbose() > 1,
        };
        if !shown {
            continue;
        }
        let word = match result.verdict {
            Verdict::Pass => style.green(&messages.text("verdict-pass")),
            Verdict::Info => style.dim(&messages.text("verdict-info")),
            Verdict::Warn => style.yellow(&messages.text("verdict-warn")),
            Verdict::Block => style.red(&messages.text("verdict-block")),
        };
        let host = if result.host.is_empty() { String::new() } else { format!("{}: ", result.host) };
        let threshold = if result.threshold.is_empty() || result.verdict < Verdict::Warn {
            String::new()
        } else {
            messages.with("check-threshold", values!["threshold" => messages.own(&result.threshold)])
        };
        let (title, why) = messages.check(&result.id, &result.title, &result.why);
        text.push_str(&format!(
            "\n{word} {host}{}: {}{threshold} {}\n",
            style.bold(&title),
            messages.own(&result.measured),
            style.dim(&format!("[{}]", result.id))
        ));
        if result.verdict >= Verdict::Warn {
            if !why.is_empty() {
                text.push_str(&format!("  {why}\n"));
            }
            if result.fixed_by_plan {
                text.push_str(&format!("  {}\n", messages.text("check-fixed-by-plan")));
            } else if !result.fix.is_empty() {
                text.push_str(&format!("  {}: {}\n", messages.text("word-hint"), messages.own(&result.fix)));
            }
        }
    }
    if !text.is_empty() {
        printer.aside(&text);
    }
}
