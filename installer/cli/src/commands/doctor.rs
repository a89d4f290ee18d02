//! `doctor`: what is wrong, what shows it, what to do.

use super::{Call, Outcome};
use crate::cluster::{self, Needs};
use crate::messages::values;
use maxim_engine::actions;
use maxim_model::check::Verdict;
use serde_json::json;

/// Looks, and shows findings, the worst first.
pub(super) fn run(call: &Call<'_>) -> Outcome {
    let target = cluster::existing(call.global, call.printer)?;
    let session = cluster::session(call.global, target, Needs::Nothing, call.printer)?;
    let mut findings = actions::doctor(&session.context)?;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
    let printer = call.printer;
    let (messages, style) = (printer.messages(), printer.style());
    let count = |verdict: Verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (broken, warnings) = (count(Verdict::Block), count(Verdict::Warn));
    let mut text = match (broken, warnings) {
        (0, 0) => format!("{}\n", style.green(&messages.text("doctor-well"))),
        _ => format!(
            "{}\n",
            style.bold(&messages.with("doctor-sum", values!["broken" => broken, "warnings" => warnings]))
        ),
    };
    for finding in findings.iter().filter(|finding| finding.verdict >= Verdict::Warn || printer.verbose() > 0)
    {
        let word = match finding.verdict {
            Verdict::Block => style.red(&messages.text("health-broken")),
            Verdict::Warn => style.yellow(&messages.text("verdict-warn")),
            Verdict::Info | Verdict::Pass => style.dim(&messages.text("verdict-info")),
        };
        let mut place = vec![finding.host.as_str(), finding.component.as_str()];
        place.retain(|part| !part.is_empty());
        text.push_str(&format!("\n{word} {}: {}\n", place.join(" "), style.bold(&finding.title)));
        for line in &finding.evidence {
            text.push_str(&format!("  {}\n", style.dim(line)));
        }
        if !finding.fix.is_empty() {
            text.push_str(&format!("  {}: {}\n", messages.text("word-hint"), finding.fix));
        }
    }
    printer.human(&text);
    let code = if broken > 0 { 1 } else { call.code(warnings) };
    printer.result(code, json!({ "changes": 0, "findings": findings }));
    Ok(code)
}
