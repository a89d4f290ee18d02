//! `/healthz`: whether the console serves. Public, so it says nothing else.

/// Always `ok`: whoever reads it got through listener, TLS and routing.
pub async fn show() -> &'static str {
    "ok\n"
}
