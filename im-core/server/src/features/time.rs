//! Entity time (XEP-0202) of the server, which lives in UTC.

use im_proto::ext::delay::stamp;
use im_proto::{StanzaError, ns};

use super::{Answer, Feature, Target};

/// The feature.
pub const FEATURE: Feature = Feature {
    payloads: &[("time", ns::TIME)],
    server: &[ns::TIME],
    account: &[],
    stream_features: "",
    handle: |request| {
        Box::pin(async move {
            if request.target != Target::Server || request.set {
                return Err(StanzaError::SERVICE_UNAVAILABLE);
            }
            let now = stamp(crate::now_ms());
            Ok(Answer::Xml(format!("<time xmlns='{}'><tzo>+00:00</tzo><utc>{now}</utc></time>", ns::TIME)))
        })
    },
};
