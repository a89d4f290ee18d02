//! `start [COMPONENT]`: starts the services of a cluster, stores first.

use super::{Call, Outcome, service};
use crate::arguments::ServiceArguments;
use maxim_model::wire::ServiceAction;

/// Acts, and shows what runs then.
pub(super) fn run(call: &Call<'_>, arguments: &ServiceArguments) -> Outcome {
    service::run(call, ServiceAction::Start, arguments.component.map(Into::into))
}
