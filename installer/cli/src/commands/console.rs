//! `console passwd`: a new password for the console's first administrator.

use super::{Call, Outcome};
use crate::arguments::ConsoleCommand;
use crate::cluster::{self, Needs};
use crate::messages::values;
use crate::passwords;
use maxim_engine::actions::console::{ConsolePassword, passwd};
use serde_json::json;

/// Sets it, or has one made and says where it stands.
pub(super) fn run(call: &Call<'_>, command: &ConsoleCommand) -> Outcome {
    let ConsoleCommand::Passwd { password_stdin } = command;
    let target = cluster::existing(call.global, call.printer)?;
    let session = cluster::session(call.global, target, Needs::Nothing, call.printer)?;
    let password = if *password_stdin {
        ConsolePassword::Given(passwords::from_stdin()?)
    } else {
        ConsolePassword::Made
    };
    let path = passwd(&session.context, password)?;
    let messages = call.printer.messages();
    let text = match &path {
        Some(path) => messages.with("console-passwd-made", values!["path" => path.display().to_string()]),
        None => messages.text("console-passwd-set"),
    };
    call.printer.human(&format!("{text}\n"));
    call.printer.result(
        0,
        json!({ "cluster": session.context.topology.name, "changes": 1, "user": "admin", "path": path }),
    );
    Ok(0)
}
