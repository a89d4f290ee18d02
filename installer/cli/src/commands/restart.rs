//! `restart [COMPONENT]`: restarts the services of a cluster in their order.

use super::{Call, Outcome, service};
use crate::arguments::ServiceArguments;
use maxim_model::wire::ServiceAction;

/// Acts, and shows what runs then.
pub(super) fn run(call: &Call<'_>, arguments: &ServiceArguments) -> Outcome {
    service::run(call, ServiceAction::Restart, arguments.component.map(Into::into))
}
