//! `install`: check, plan, ask, apply, verify; then where it is and how to log in.

use super::status::{components_table, endpoints};
use super::{Call, Outcome, check};
use crate::arguments::Where;
use crate::cluster::{self, Needs, Session};
use crate::failure::Failure;
use crate::messages::values;
use crate::printer::plan_view;
use crate::printer::style::duration;
use maxim_engine::actions;
use maxim_engine::actions::install::{InstallOptions, InstallOutcome};
use maxim_model::Secret;
use maxim_model::check::Verdict;
use serde_json::json;

/// The console's first user.
const CONSOLE_USER: &str = "admin";

/// Installs, or brings up to date.
pub(super) fn run(call: &Call<'_>, hosts: &Where) -> Outcome {
    let target = cluster::wanted(call.global, hosts, call.printer)?;
    let session = cluster::session(call.global, target, Needs::Delivery, call.printer)?;
    announce(call, &session);
    let options = InstallOptions { dry_run: call.global.dry_run };
    let outcome = actions::install(&session.context, options)?;
    finish(call, &session, &outcome)
}

/// One line that says what is about to happen, and why in this way.
pub(super) fn announce(call: &Call<'_>, session: &Session) {
    let topology = &session.context.topology;
    let style = call.printer.style();
    let messages = call.printer.messages();
    let profile = topology.profile.name();
    let text = messages.with(
        "install-begin",
        values!["cluster" => topology.name.as_str(), "hosts" => topology.hosts.len(), "profile" => profile],
    );
    let mut lines = format!("{}\n", style.bold(&text));
    if !session.reason.is_empty() {
        let why = messages
            .with("install-reason", values!["profile" => profile, "reason" => session.reason.as_str()]);
        lines.push_str(&format!("{}\n", style.dim(&why)));
    }
    call.printer.aside(&lines);
    call.printer.show_phases();
}

/// Shows the outcome of an install or of an applied plan.
pub(super) fn finish(call: &Call<'_>, session: &Session, outcome: &InstallOutcome) -> Outcome {
    let printer = call.printer;
    let (messages, style) = (printer.messages(), printer.style());
    printer.run_ended();
    let warnings = outcome.checks.iter().filter(|check| check.verdict == Verdict::Warn).count();
    check::show_remarks(call, &outcome.checks);
    if !outcome.applied && !call.global.dry_run {
        if session.person.nobody_was_there() {
            return Err(Failure::usage(messages.text("nobody-to-ask"), messages.text("nobody-to-ask-hint")));
        }
        return Err(Failure::failed(messages.text("declined"), ""));
    }
    let code = call.code(warnings);
    let mut text = String::new();
    if call.global.dry_run {
        text.push_str(&plan_view::render(&outcome.plan, printer, plan_view::Detail::Diffs));
        text.push_str(&format!("{}\n", messages.text("dry-run")));
    } else {
        let total = outcome
            .timings
            .iter()
            .find(|timing| timing.phase == "total")
            .map_or(0, |timing| timing.duration_ms);
        text.push_str(&format!(
            "\n{}\n\n",
            style.bold(
                &messages
                    .with("install-done", values!["changes" => outcome.changes, "time" => duration(total)])
            )
        ));
        text.push_str(&components_table(&outcome.components, printer));
        text.push('\n');
        text.push_str(&endpoints(&outcome.endpoints, messages, style));
        text.push_str(&account(call, outcome));
        text.push_str(&records(call, outcome));
        text.push_str(&next(call, outcome));
    }
    printer.human(&text);
    if call.global.timings {
        printer.timings(&outcome.timings);
    }
    printer.result(
        code,
        json!({
            "cluster": session.context.topology.name,
            "profile": session.context.topology.profile.name(),
            "domain": outcome.domain,
            "changes": if call.global.dry_run { outcome.plan.changes() } else { outcome.changes },
            "applied": outcome.applied,
            "components": outcome.components,
            "endpoints": outcome.endpoints,
            "account": outcome.account.as_ref().map(|account| json!({
                "address": account.address, "path": account.path,
            })),
            "dns_records": outcome.dns_records,
            "warnings": warnings,
            "timings": outcome.timings,
        }),
    );
    Ok(code)
}

/// How to log in. Passwords are shown on a terminal only, and only in the run that made them.
fn account(call: &Call<'_>, outcome: &InstallOutcome) -> String {
    let Some(account) = &outcome.account else { return String::new() };
    let (messages, style) = (call.printer.messages(), call.printer.style());
    let mut rows = vec![Vec::new()];
    let mut row = |what: &str, user: &str, password: Option<&Secret>| {
        let mut cells = vec![messages.text(what), style.bold(user)];
        if let Some(password) = password.filter(|_| call.printer.is_person()) {
            cells.extend([messages.text("account-password"), style.bold(password.expose())]);
        }
        rows.push(cells);
    };
    row("account-chat", &account.address, account.password.as_ref());
    if !outcome.endpoints.console.is_empty() {
        row("account-console", CONSOLE_USER, account.console_password.as_ref());
    }
    let path = account.path.display().to_string();
    let table = crate::printer::table::render(&rows, &[], style);
    format!("{table}{}\n", style.dim(&messages.with("account-file", values!["path" => path])))
}

fn records(call: &Call<'_>, outcome: &InstallOutcome) -> String {
    if outcome.dns_records.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = outcome
        .dns_records
        .iter()
        .map(|record| vec![format!("  {}", record.name), record.kind.clone(), record.value.clone()])
        .collect();
    let mut all = vec![Vec::new()];
    all.extend(rows);
    let table = crate::printer::table::render(&all, &[], call.printer.style());
    format!("\n{}\n{}", call.printer.messages().text("dns-records"), table.trim_start_matches('\n'))
}

/// What to do next.
fn next(call: &Call<'_>, outcome: &InstallOutcome) -> String {
    if outcome.changes == 0 {
        return String::new();
    }
    let messages = call.printer.messages();
    let program = command_line(call);
    let commands = [
        (format!("{program} user add ann@{}", outcome.domain), messages.text("next-user")),
        (format!("{program} status"), messages.text("next-status")),
        (format!("{program} ca export -o ca.pem"), messages.text("next-ca")),
    ];
    let width = commands.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    let mut text = format!("\n{}\n", messages.text("next"));
    for (command, meaning) in commands {
        let padding = " ".repeat(width - command.len());
        text.push_str(&format!("  {}{padding}  {meaning}\n", call.printer.style().cyan(&command)));
    }
    text
}

/// The program with the flags that name this cluster, for commands that a person can copy.
pub(super) fn command_line(call: &Call<'_>) -> String {
    let mut line = program_name();
    for (flag, value) in [("-f", &call.global.file), ("--root", &call.global.root)] {
        if let Some(value) = value {
            line.push_str(&format!(" {flag} {}", value.display()));
        }
    }
    if let Some(cluster) = &call.global.cluster {
        line.push_str(&format!(" --cluster {cluster}"));
    }
    line
}

/// How the program was called, for commands that a person can copy.
pub(super) fn program_name() -> String {
    let name = std::env::args().next().unwrap_or_default();
    if std::env::var_os("MAXIM_CHECKOUT").is_some() || name.is_empty() {
        "./maxim.ctl".to_owned()
    } else {
        name
    }
}
