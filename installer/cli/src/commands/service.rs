//! What `start`, `stop` and `restart` have in common.

use super::status::components_table;
use super::{Call, Outcome};
use crate::cluster::{self, Needs};
use crate::failure::Failure;
use crate::messages::values;
use maxim_engine::actions;
use maxim_model::names::Component;
use maxim_model::wire::ServiceAction;
use serde_json::json;

/// Acts on all components or on one.
pub(super) fn run(call: &Call<'_>, action: ServiceAction, component: Option<Component>) -> Outcome {
    let target = cluster::existing(call.global, call.printer)?;
    let messages = call.printer.messages();
    if let Some(component) = component
        && target.loaded.topology.with_role(component).next().is_none()
    {
        return Err(Failure::usage(
            messages.with(
                "component-absent",
                values!["component" => component.name(), "cluster" => target.loaded.topology.name.as_str()],
            ),
            messages.text("component-absent-hint"),
        ));
    }
    let session = cluster::session(call.global, target, Needs::Nothing, call.printer)?;
    if call.global.dry_run {
        call.printer.human(&format!("{}\n", messages.text("dry-run")));
        call.printer.result(0, json!({ "changes": 0 }));
        return Ok(0);
    }
    let components = actions::service(&session.context, action, component)?;
    call.printer.human(&components_table(&components, call.printer));
    call.printer.result(0, json!({ "components": components }));
    Ok(0)
}
