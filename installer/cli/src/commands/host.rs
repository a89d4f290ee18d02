//! `host replace`: a dead host by a new one.

use super::upgrade::total;
use super::{Call, Outcome, plan};
use crate::arguments::{HostCommand, ReplaceArguments};
use crate::cluster::{self, Needs, Target};
use crate::commands::status::components_table;
use crate::failure::Failure;
use crate::messages::values;
use crate::printer::plan_view;
use crate::printer::style::duration;
use maxim_engine::replace::{self, ReplaceOptions, ReplaceOutcome};
use maxim_model::topology::{Loaded, Source, load, set_value};
use serde_json::json;

/// Runs a command on the hosts of a cluster.
pub(super) fn run(call: &Call<'_>, command: &HostCommand) -> Outcome {
    let HostCommand::Replace(arguments) = command;
    replace(call, arguments)
}

/// Shows what will be done, asks, and does it; the topology file is changed in place when one was named.
fn replace(call: &Call<'_>, arguments: &ReplaceArguments) -> Outcome {
    let target = cluster::existing(call.global, call.printer)?;
    let name = arguments.name.clone().unwrap_or_else(|| arguments.host.clone());
    let file = target.file.clone();
    let text = match &file {
        Some(file) => cluster::read_topology(file)?,
        None => target.loaded.text.clone(),
    };
    let (wanted, edited) = edited(call, &target, &text, arguments, &name)?;
    let session = cluster::session(call.global, target, Needs::Delivery, call.printer)?;
    let (printer, messages) = (call.printer, call.printer.messages());
    let options = ReplaceOptions {
        host: arguments.host.clone(),
        name,
        topology: wanted.topology,
        topology_text: wanted.text,
        set: arguments.from.clone(),
        alive: arguments.alive,
        without_data: arguments.without_data,
        dry_run: call.global.dry_run,
    };
    printer.show_phases();
    let outcome = replace::host_replace(&session.context, &options)?;
    printer.run_ended();
    if !outcome.applied && !call.global.dry_run {
        if session.person.nobody_was_there() {
            return Err(Failure::usage(messages.text("nobody-to-ask"), messages.text("nobody-to-ask-hint")));
        }
        return Err(Failure::failed(messages.text("declined"), ""));
    }
    if let Some(file) = file.filter(|_| outcome.applied && edited != text) {
        plan::write_whole(&file, edited.as_bytes(), 0o644)?;
    }
    show(call, arguments, &options, &outcome);
    Ok(0)
}

/// The topology with the new host in the place of the dead one, checked as a whole; and the text of the file with it.
fn edited(
    call: &Call<'_>,
    target: &Target,
    text: &str,
    arguments: &ReplaceArguments,
    name: &str,
) -> Result<(Loaded, String), Failure> {
    let root = cluster::root(call.global)?;
    let base = match &target.file {
        Some(file) => cluster::folder_of(file)?,
        None => target.state.path().to_owned(),
    };
    let shown = target.file.as_ref().map_or_else(|| "topology".to_owned(), |file| file.display().to_string());
    let known = |host: &str| target.loaded.topology.host(host).is_some();
    // Under its new name when a run before was killed after it had renamed it.
    let host = if known(&arguments.host) { arguments.host.as_str() } else { name };
    let mut changes = vec![(format!("hosts.{host}.address"), arguments.address.clone())];
    if host != name {
        changes.push((format!("hosts.{host}.name"), name.to_owned()));
    }
    let mut sets = call.global.set.clone();
    sets.extend(changes.iter().map(|(key, value)| format!("{key}={value}")));
    let loaded = load(&Source {
        file: &shown,
        text,
        sets: &sets,
        environment: &|name| std::env::var(name).ok(),
        base: &base,
        root: &root.to_string_lossy(),
    })?;
    let edited = changes.iter().try_fold(text.to_owned(), |text, (key, value)| set_value(&text, key, value));
    let edited = edited.unwrap_or_else(|| loaded.text.clone());
    Ok((loaded, edited))
}

fn show(call: &Call<'_>, arguments: &ReplaceArguments, options: &ReplaceOptions, outcome: &ReplaceOutcome) {
    let (printer, messages) = (call.printer, call.printer.messages());
    let mut text = String::new();
    if !outcome.applied {
        text.push_str(&plan_view::render(&outcome.plan, printer, plan_view::Detail::Diffs));
    }
    if !outcome.set.is_empty() {
        let (set, parts) = (outcome.set.as_str(), outcome.restored.join(", "));
        text.push_str(&format!(
            "{}\n",
            messages.with("replace-data", values!["set" => set, "parts" => parts])
        ));
    }
    if !outcome.withdrawn.is_empty() {
        let what = messages.list(&outcome.withdrawn);
        text.push_str(&format!("{}\n", messages.with("replace-withdrawn", values!["what" => what])));
    }
    if outcome.applied {
        let words = messages.with(
            "replace-done",
            values![
                "old" => arguments.host.as_str(), "new" => options.name.as_str(),
                "address" => arguments.address.as_str(), "changes" => outcome.changes,
                "time" => duration(total(&outcome.timings))
            ],
        );
        text.push_str(&format!("\n{}\n\n", printer.style().bold(&words)));
        text.push_str(&components_table(&outcome.components, printer));
    } else {
        text.push_str(&format!("{}\n", messages.text("dry-run")));
    }
    printer.human(&text);
    if call.global.timings {
        printer.timings(&outcome.timings);
    }
    printer.result(
        0,
        json!({
            "cluster": options.topology.name,
            "host": options.name,
            "address": arguments.address,
            "roles": outcome.roles,
            "set": outcome.set,
            "restored": outcome.restored,
            "withdrawn": outcome.withdrawn,
            "changes": outcome.changes,
            "applied": outcome.applied,
            "components": outcome.components,
            "timings": outcome.timings,
        }),
    );
}
