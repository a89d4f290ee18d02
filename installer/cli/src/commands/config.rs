//! `config get|set|diff`: what is in force, changing it, and drift between wanted and found.
//!
//! `set` changes the text of the topology (the file named with `-f`, else the cluster's own copy) after checking the
//! whole; hosts change at the next install.

use super::{Call, Outcome, plan};
use crate::arguments::ConfigCommand;
use crate::cluster::{self, Needs};
use crate::failure::Failure;
use crate::messages::values;
use maxim_engine::actions;
use maxim_model::task::Change;
use maxim_model::topology::settings::{SETTINGS, effective};
use maxim_model::topology::{Source, Topology, is_secret_key, load, nearest, set_value};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// Runs one of the three.
pub(super) fn run(call: &Call<'_>, command: ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Get { key } => get(call, key.as_deref()),
        ConfigCommand::Set { key, value } => set(call, &key, &value),
        ConfigCommand::Diff => diff(call),
    }
}

fn get(call: &Call<'_>, key: Option<&str>) -> Outcome {
    let target = cluster::existing(call.global, call.printer)?;
    let all = flat(&target.loaded.topology);
    let Some(key) = key else {
        let text = lines(&all);
        call.printer.human(&text);
        call.printer.result(0, json!({ "cluster": target.loaded.topology.name, "configuration": all }));
        return Ok(0);
    };
    let below = format!("{key}.");
    let found: BTreeMap<String, Json> = all
        .iter()
        .filter(|(name, _)| *name == key || name.starts_with(&below))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if found.is_empty() {
        let hint = match nearest(key, all.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`config get` without a key lists all".to_owned(),
        };
        return Err(Failure::usage(format!("there is no `{key}` in the configuration"), hint));
    }
    let text = match found.iter().next() {
        Some((name, value)) if found.len() == 1 && name.as_str() == key => format!("{}\n", plain(value)),
        _ => lines(&found),
    };
    call.printer.human(&text);
    call.printer.result(0, json!({ "cluster": target.loaded.topology.name, "configuration": found }));
    Ok(0)
}

/// `KEY = VALUE` lines.
fn lines(values: &BTreeMap<String, Json>) -> String {
    let mut text = String::new();
    for (key, value) in values {
        text.push_str(&format!("{key} = {}\n", plain(value)));
    }
    text
}

/// The whole configuration by dotted names; settings with their defaults.
fn flat(topology: &Topology) -> BTreeMap<String, Json> {
    let mut all = BTreeMap::new();
    let mut tree = serde_json::to_value(topology).unwrap_or(Json::Null);
    if let Some(fields) = tree.as_object_mut() {
        fields.remove("settings");
        fields.remove("hosts");
    }
    walk("", &tree, &mut all);
    for host in &topology.hosts {
        let value = serde_json::to_value(host).unwrap_or(Json::Null);
        walk(&format!("hosts.{}", host.name), &value, &mut all);
    }
    for setting in SETTINGS {
        if let Some(value) = effective(&topology.settings, setting.name) {
            all.insert(format!("settings.{}", setting.name), value);
        }
    }
    all
}

fn walk(prefix: &str, value: &Json, all: &mut BTreeMap<String, Json>) {
    match value {
        Json::Object(fields) => {
            for (key, value) in fields {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                walk(&name, value, all);
            }
        }
        other => {
            all.insert(prefix.to_owned(), other.clone());
        }
    }
}

fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn set(call: &Call<'_>, key: &str, value: &str) -> Outcome {
    if key.split('.').any(is_secret_key) {
        return Err(Failure::usage(
            format!("a secret cannot be set here (`{key}`)"),
            "put it into a file of mode 0600 and name that file in a key ending in `_file`",
        ));
    }
    let target = cluster::existing(call.global, call.printer)?;
    let root = cluster::root(call.global)?;
    let before = match &target.file {
        Some(file) => cluster::read_topology(file)?,
        None => target.loaded.text.clone(),
    };
    let assignment = [format!("{key}={value}")];
    let base = match &target.file {
        Some(file) => cluster::folder_of(file)?,
        None => target.state.path().to_owned(),
    };
    let name = target.file.as_ref().map_or_else(|| "topology".to_owned(), |file| file.display().to_string());
    // The whole is checked with the change before anything is written.
    let loaded = load(&Source {
        file: &name,
        text: &before,
        sets: &assignment,
        environment: &|name| std::env::var(name).ok(),
        base: &base,
        root: &root.to_string_lossy(),
    })?;
    let after = set_value(&before, key, value).unwrap_or(loaded.text);
    let changed = after != before;
    if changed && !call.global.dry_run {
        match &target.file {
            Some(file) => plan::write_whole(file, after.as_bytes(), 0o644)?,
            None => target.state.save_topology(&after)?,
        }
    }
    let messages = call.printer.messages();
    let program = super::install::program_name();
    let command = match (&target.file, target.loaded.topology.profile) {
        (Some(file), _) => format!("{program} install -f {}", file.display()),
        (None, maxim_model::names::Profile::Embedded) => match &call.global.root {
            Some(root) => format!("{program} install --root {}", root.display()),
            None => format!("{program} install"),
        },
        (None, _) => format!("{program} install --cluster {}", loaded.topology.name),
    };
    let text = if changed {
        messages.with("config-set", values!["key" => key, "value" => value, "command" => command])
    } else {
        messages.with("config-same", values!["key" => key, "value" => value])
    };
    call.printer.human(&format!("{text}\n"));
    call.printer
        .result(0, json!({ "cluster": loaded.topology.name, "changes": usize::from(changed), "key": key }));
    Ok(0)
}

fn diff(call: &Call<'_>) -> Outcome {
    let target = cluster::existing(call.global, call.printer)?;
    let session = cluster::session(call.global, target, Needs::Delivery, call.printer)?;
    let drift = actions::config_diff(&session.context)?;
    let printer = call.printer;
    let (messages, style) = (printer.messages(), printer.style());
    let mut text = String::new();
    for one in &drift {
        text.push_str(&format!("{}  {}  {}\n", style.bold(&one.host), one.task, one.change.summary()));
        if let Change::Create { diff, .. } | Change::Update { diff, .. } = &one.change {
            text.push_str(&crate::printer::plan_view::diff_lines(diff, style));
        }
    }
    if drift.is_empty() {
        text.push_str(&format!("{}\n", style.green(&messages.text("drift-none"))));
    } else {
        text.push_str(&format!("\n{}\n", messages.with("drift-some", values!["count" => drift.len()])));
    }
    printer.human(&text);
    let code = call.code(drift.len());
    printer.result(code, json!({ "cluster": session.context.topology.name, "changes": 0, "drift": drift }));
    Ok(code)
}
