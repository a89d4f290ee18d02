//! What holds for every answer: security headers, the origin of requests that change something, a deadline.
//!
//! - Content-Security-Policy without any inline script or style: an injected text cannot run.
//! - Strict-Transport-Security, but not for `localhost`: there the rule would break other servers of a developer.
//! - A request that changes something must come from a page of this very host (`Origin`, else `Sec-Fetch-Site`). A
//!   client that sends neither is no browser; it still needs the form token, which is bound to its cookie.
//! - Pages are not stored by any cache; assets say otherwise themselves.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::time::Duration;

/// Longest time of one request.
const DEADLINE: Duration = Duration::from_secs(30);

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Headers of every answer. `same-origin` (not `no-referrer`) keeps the `Origin` of our own forms from being `null`.
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];

/// The outermost layer.
pub async fn protect(request: Request, next: Next) -> Response {
    let local = host_of(request.headers()).is_some_and(is_localhost);
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = if changes && !is_own(request.headers()) {
        tracing::warn!(path = request.uri().path(), "refused a request from another origin");
        (StatusCode::FORBIDDEN, "This request came from a page of another site and was refused.\n")
            .into_response()
    } else {
        match tokio::time::timeout(DEADLINE, next.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "The answer took too long. Try again.\n").into_response()
            }
        }
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !local {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("\u{0}"))
}

fn host_of(headers: &HeaderMap) -> Option<&str> {
    text(headers, "host")
}

fn is_localhost(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
}

/// Whether a request that changes something comes from a page of this host.
fn is_own(headers: &HeaderMap) -> bool {
    match (text(headers, "origin"), text(headers, "sec-fetch-site")) {
        (Some(origin), _) => {
            let host = host_of(headers);
            origin
                .strip_prefix("https://")
                .is_some_and(|of| host.is_some_and(|host| of.eq_ignore_ascii_case(host)))
        }
        (None, Some(site)) => site == "same-origin",
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::{is_localhost, is_own};
    use axum::http::{HeaderMap, HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn only_pages_of_this_host_may_change_something() {
        let own = |origin| is_own(&headers(&[("host", "im.acme.example:9443"), ("origin", origin)]));
        assert!(own("https://im.acme.example:9443"));
        assert!(!own("http://im.acme.example:9443"));
        assert!(!own("https://im.acme.example"));
        assert!(!own("https://evil.example:9443"));
        assert!(!own("null"));
        assert!(!own(""));
        assert!(!is_own(&headers(&[("host", "a"), ("sec-fetch-site", "cross-site")])));
        assert!(!is_own(&headers(&[("host", "a"), ("sec-fetch-site", "same-site")])));
        assert!(is_own(&headers(&[("host", "a"), ("sec-fetch-site", "same-origin")])));
        assert!(is_own(&headers(&[("host", "a")])));
        assert!(!is_own(&headers(&[("origin", "https://a")])), "a request without host");
    }

    #[test]
    fn localhost_is_recognised_with_and_without_port() {
        assert!(is_localhost("localhost") && is_localhost("LOCALHOST:9443") && is_localhost("a.localhost:1"));
        assert!(!is_localhost("localhost.example") && !is_localhost("127.0.0.1:9443"));
    }
}
