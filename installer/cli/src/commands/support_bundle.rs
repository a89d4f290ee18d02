//! `support-bundle`: one file with what somebody elsewhere needs to find out what is wrong.

use super::{Call, Outcome};
use crate::arguments::SupportArguments;
use crate::cluster::{self, Needs};
use crate::failure::Failure;
use crate::messages::values;
use crate::printer::style::size;
use maxim_engine::support::{self, SupportOptions};
use serde_json::json;
use std::path::PathBuf;
use time::OffsetDateTime;

/// Gathers, and says what is in it and what is not.
pub(super) fn run(call: &Call<'_>, arguments: &SupportArguments) -> Outcome {
    let target = cluster::existing(call.global, call.printer)?;
    let name = target.loaded.topology.name.clone();
    let path = arguments.out.clone().unwrap_or_else(|| default_name(&name, OffsetDateTime::now_utc()));
    let path = std::path::absolute(&path).map_err(|error| Failure::file(&path, &error))?;
    let session = cluster::session(call.global, target, Needs::Nothing, call.printer)?;
    let (printer, messages) = (call.printer, call.printer.messages());
    printer.show_phases();
    let options = SupportOptions { path, lines: arguments.lines };
    let outcome = support::support_bundle(&session.context, &options)?;
    printer.run_ended();
    let path = outcome.path.display().to_string();
    let mut text = format!(
        "{}\n",
        messages.with(
            "support-made",
            values!["path" => path.as_str(), "files" => outcome.entries.len(), "size" => size(outcome.bytes)],
        )
    );
    for one in &outcome.missing {
        let place = if one.host.is_empty() { name.as_str() } else { one.host.as_str() };
        let words = messages.with(
            "support-missing",
            values!["host" => place, "what" => one.what.as_str(), "why" => one.cause.as_str()],
        );
        text.push_str(&format!("{}\n", printer.style().yellow(&words)));
    }
    text.push_str(&format!("{}\n", messages.text("support-look")));
    printer.human(&text);
    if call.global.timings {
        printer.timings(&outcome.timings);
    }
    let code = call.code(outcome.missing.len());
    printer.result(
        code,
        json!({
            "cluster": name,
            "changes": 0,
            "path": path,
            "bytes": outcome.bytes,
            "entries": outcome.entries,
            "missing": outcome.missing,
            "timings": outcome.timings,
        }),
    );
    Ok(code)
}

/// `maxim-support-NAME-20261121T093000Z.tar.zst` where the command is run.
fn default_name(cluster: &str, now: OffsetDateTime) -> PathBuf {
    PathBuf::from(format!(
        "maxim-support-{cluster}-{:04}{:02}{:02}T{:02}{:02}{:02}Z.tar.zst",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second()
    ))
}
