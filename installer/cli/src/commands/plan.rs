//! `plan [-o FILE]`: what an install would change, shown or kept as a file for `apply`.

use super::{Call, Outcome, check};
use crate::arguments::PlanArguments;
use crate::cluster::{self, Needs};
use crate::failure::Failure;
use crate::messages::values;
use crate::printer::plan_view;
use maxim_engine::actions;
use maxim_engine::actions::plan::PlanOptions;
use maxim_model::check::Verdict;
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// Makes and shows a plan.
pub(super) fn run(call: &Call<'_>, arguments: &PlanArguments) -> Outcome {
    let target = cluster::wanted(call.global, &arguments.hosts, call.printer)?;
    let session = cluster::session(call.global, target, Needs::Delivery, call.printer)?;
    super::install::announce(call, &session);
    let outcome = actions::plan(&session.context, PlanOptions { keep: arguments.out.is_some() })?;
    let printer = call.printer;
    printer.run_ended();
    check::show_remarks(call, &outcome.checks);
    let mut text = plan_view::render(&outcome.plan, printer, plan_view::Detail::Diffs);
    if let Some(path) = &arguments.out {
        let mut bytes = serde_json::to_vec_pretty(&outcome.plan)
            .map_err(|error| Failure::failed(format!("the plan cannot be written: {error}"), ""))?;
        bytes.push(b'\n');
        write_whole(path, &bytes, 0o600)?;
        let shown = path.display().to_string();
        text.push_str(&format!(
            "{}\n",
            printer.messages().with(
                "plan-kept",
                values!["path" => shown.as_str(), "command" => apply_command(call, &shown)]
            )
        ));
    }
    printer.human(&text);
    if call.global.timings {
        printer.timings(&outcome.timings);
    }
    let warnings = outcome.checks.iter().filter(|check| check.verdict == Verdict::Warn).count();
    let code = call.code(warnings);
    printer.result(
        code,
        json!({
            "cluster": outcome.plan.cluster,
            "domain": session.context.topology.domain,
            "changes": outcome.plan.changes(),
            "warnings": warnings,
            "plan": outcome.plan,
            "timings": outcome.timings,
        }),
    );
    Ok(code)
}

/// The command that applies a plan, with the flags that it needs.
fn apply_command(call: &Call<'_>, plan: &str) -> String {
    let mut command = format!("{} apply {plan}", super::install::program_name());
    for (flag, value) in [("--root", &call.global.root), ("--bundle", &call.global.bundle)] {
        if let Some(value) = value {
            command.push_str(&format!(" {flag} {}", value.display()));
        }
    }
    command
}

/// Writes a file whole, or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error: std::io::Error| Failure { code: 1, ..Failure::file(path, &error) };
    let mut draft = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    draft.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    draft.write_all(bytes).and_then(|()| draft.as_file().sync_all()).map_err(failed)?;
    draft.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
