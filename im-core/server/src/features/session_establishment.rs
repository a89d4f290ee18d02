//! Session establishment of RFC 3921: a no-op that old clients insist on.

use im_proto::ns;

use super::{Answer, Feature};

/// The feature.
pub const FEATURE: Feature = Feature {
    payloads: &[("session", ns::SESSION)],
    server: &[],
    account: &[],
    stream_features: "",
    handle: |_| Box::pin(async { Ok(Answer::Empty) }),
};
