//! Ping (XEP-0199), of the server and of one's own account.

use im_proto::ns;

use super::{Answer, Feature};

/// The feature.
pub const FEATURE: Feature = Feature {
    payloads: &[("ping", ns::PING)],
    server: &[ns::PING],
    account: &[ns::PING],
    stream_features: "",
    handle: |_| Box::pin(async { Ok(Answer::Empty) }),
};
