//! `start`, `stop`, `restart`: services in dependency order, stores first (stop: last).

use crate::context::Context;
use crate::error::EngineError;
use maxim_model::names::Component;
use maxim_model::status::ComponentStatus;
use maxim_model::wire::ServiceAction;

/// Acts on all components, or on one, and says what runs afterwards.
pub fn service(
    context: &Context,
    action: ServiceAction,
    component: Option<Component>,
) -> Result<Vec<ComponentStatus>, EngineError> {
    let _ = (context, action, component);
    Err(EngineError::failed("service", "not there yet"))
}
