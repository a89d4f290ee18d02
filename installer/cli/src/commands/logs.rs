//! `logs [COMPONENT]`: the last lines of every component's log.

use super::{Call, Outcome};
use crate::arguments::LogsArguments;
use crate::cluster::{self, Needs};
use crate::failure::Failure;
use maxim_engine::actions;
use maxim_engine::actions::logs::LogsOptions;
use maxim_model::topology::nearest;
use serde_json::json;

/// Reads and prints.
pub(super) fn run(call: &Call<'_>, arguments: &LogsArguments) -> Outcome {
    let target = cluster::existing(call.global, call.printer)?;
    if let Some(host) = &arguments.host
        && target.loaded.topology.host(host).is_none()
    {
        let names = target.loaded.topology.hosts.iter().map(|host| host.name.as_str());
        let hint = match nearest(host, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("its hosts are {}", names.collect::<Vec<_>>().join(", ")),
        };
        return Err(Failure::usage(
            format!("there is no host `{host}` in `{}`", target.loaded.topology.name),
            hint,
        ));
    }
    let session = cluster::session(call.global, target, Needs::Nothing, call.printer)?;
    let options = LogsOptions {
        component: arguments.component.map(Into::into),
        host: arguments.host.clone(),
        lines: arguments.lines,
    };
    let lines = actions::logs(&session.context, &options)?;
    let style = call.printer.style();
    let mut text = String::new();
    for line in &lines {
        if call.printer.is_json() {
            let object =
                json!({ "event": "log", "host": line.host, "component": line.component, "line": line.line });
            call.printer.raw(format!("{object}\n").as_bytes());
        } else {
            text.push_str(&format!(
                "{}  {}\n",
                style.dim(&format!("{} {}", line.host, line.component)),
                line.line
            ));
        }
    }
    if !call.printer.is_json() {
        call.printer.human(&text);
    }
    call.printer.result(0, json!({ "changes": 0, "lines": lines.len() }));
    Ok(0)
}
