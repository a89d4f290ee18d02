//! Rendering, and the pages that say what went wrong.

use super::App;
use super::visitor::Visitor;
use crate::view::ui::{Section, Ui};
use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// A page with one message: what happened, and what to do.
#[derive(Template)]
#[template(path = "message.html")]
pub struct Page {
    ui: Ui,
    title: String,
    text: String,
}

impl Page {
    /// A page from the keys of its title and text.
    pub fn message(ui: Ui, title: &str, text: &str) -> Self {
        let (title, text) = (ui.t(title), ui.t(text));
        Self { ui, title, text }
    }
}

/// Renders a template.
pub fn render(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => {
            let media = HeaderValue::from_static("text/html; charset=utf-8");
            (status, [(header::CONTENT_TYPE, media)], html).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "The page could not be rendered; see the console's log.\n")
                .into_response()
        }
    }
}

/// Anything without an address.
pub async fn not_found(State(app): State<Arc<App>>, Extension(visitor): Extension<Visitor>) -> Response {
    missing(&app, &visitor)
}

/// The page for something that does not exist.
pub fn missing(app: &App, visitor: &Visitor) -> Response {
    let page = Page::message(visitor.ui(app, Section::None), "error-not-found-title", "error-not-found");
    render(StatusCode::NOT_FOUND, &page)
}

/// The page for a failure of the console itself; the cause goes to the log.
pub fn broken(app: &App, visitor: &Visitor, error: &dyn std::fmt::Display) -> Response {
    tracing::error!(%error, path = visitor.here, "a request failed");
    let page = Page::message(visitor.ui(app, Section::None), "error-broken-title", "error-broken");
    render(StatusCode::INTERNAL_SERVER_ERROR, &page)
}

/// The page for a request that needs a session and has none (any more).
pub fn signed_out(app: &App, visitor: &Visitor) -> Response {
    let page = Page::message(visitor.ui(app, Section::None), "error-signed-out-title", "error-signed-out");
    render(StatusCode::FORBIDDEN, &page)
}

/// The page for too much at once.
pub fn busy(app: &App, visitor: &Visitor) -> Response {
    let page = Page::message(visitor.ui(app, Section::None), "error-busy-title", "error-busy");
    let mut response = render(StatusCode::SERVICE_UNAVAILABLE, &page);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
    response
}

/// Percent-encodes a text for a query (RFC 3986 section 2.3: everything but unreserved characters and `/`).
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// An address of ours to go on to; anything that could lead elsewhere becomes the overview.
pub fn safe_target(asked: &str) -> &str {
    let own = asked.starts_with('/')
        && !asked.starts_with("//")
        && !asked.contains('\\')
        && asked.len() < 1024
        && asked.bytes().all(|byte| byte.is_ascii_graphic());
    if own { asked } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::{encode, safe_target};

    #[test]
    fn leads_nowhere_else() {
        assert_eq!(safe_target("/hosts?q=a"), "/hosts?q=a");
        for asked in ["", "https://evil.example", "//evil.example", "/\\evil", "/a\r\nSet-Cookie: x", "/é"] {
            assert_eq!(safe_target(asked), "/", "{asked}");
        }
    }

    #[test]
    fn encodes_for_a_query() {
        assert_eq!(encode("/hosts?q=a&b"), "/hosts%3Fq%3Da%26b");
        assert_eq!(encode("中"), "%E4%B8%AD");
    }
}
