//! A plan for people: per host what will be made, altered, restarted, removed.

use super::Printer;
use super::style::Style;
use crate::messages::values;
use maxim_model::plan::Plan;
use maxim_model::task::Change;

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// One line for each change.
    Summary,
    /// With diffs of what is altered (`-v`: of what is made, too).
    Diffs,
}

/// Renders a plan; an empty one says that there is nothing to do.
pub(crate) fn render(plan: &Plan, printer: &Printer, detail: Detail) -> String {
    let style = printer.style();
    let messages = printer.messages();
    let mut text = String::new();
    for host in &plan.hosts {
        let changes = host.tasks.iter().filter(|task| task.change != Change::None).count();
        if changes == 0 {
            continue;
        }
        text.push_str(&format!("\n{}\n", style.bold(&host.host)));
        for task in &host.tasks {
            if let Some((sign, diff)) = sign(&task.change, style) {
                text.push_str(&format!("  {sign} {}  {}\n", task.id, task.change.summary()));
                let created = matches!(task.change, Change::Create { .. });
                if detail == Detail::Diffs && (!created || printer.verbose() > 0) {
                    text.push_str(&diff_lines(diff, style));
                }
            }
        }
    }
    let changes = plan.changes();
    let sum = if changes == 0 {
        messages.text("plan-nothing")
    } else {
        let hosts =
            plan.hosts.iter().filter(|host| host.tasks.iter().any(|task| task.change.is_change())).count();
        messages.with("plan-sum", values!["changes" => changes, "hosts" => hosts])
    };
    text.push_str(&format!("\n{sum}\n"));
    text
}

/// The sign of a change and its diff.
fn sign(change: &Change, style: Style) -> Option<(String, &str)> {
    Some(match change {
        Change::None => return None,
        Change::Create { diff, .. } => (style.green("+"), diff),
        Change::Update { diff, .. } => (style.yellow("~"), diff),
        Change::Remove { .. } => (style.red("-"), ""),
        Change::Restart { .. } => (style.yellow("!"), ""),
        Change::Later { .. } => (style.dim("?"), ""),
    })
}

/// A diff, indented.
pub(crate) fn diff_lines(diff: &str, style: Style) -> String {
    let mut text = String::new();
    for line in diff.lines() {
        let painted = match line.chars().next() {
            Some('+') => style.green(line),
            Some('-') => style.red(line),
            Some('@') => style.cyan(line),
            _ => style.dim(line),
        };
        text.push_str(&format!("      {painted}\n"));
    }
    text
}
