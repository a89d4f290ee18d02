//! `/assets/…`: files named by their content, cached for ever (RFC 8246).

use super::App;
use crate::view::assets::FOLDER;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse;
use std::sync::Arc;

/// Serves one file, compressed when the browser takes it so.
pub async fn show(
    State(app): State<Arc<App>>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> axum::response::Response {
    let Some(asset) = app.assets.find(&format!("{FOLDER}{file}")) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let gzip = !asset.gzip.is_empty()
        && headers
            .get(header::ACCEPT_ENCODING)
            .and_then(|value| value.to_str().ok())
            .is_some_and(accepts_gzip);
    let mut response = Response::builder()
        .header(header::CONTENT_TYPE, asset.media_type)
        .header(header::CACHE_CONTROL, "public, max-age=31536000, immutable")
        .header(header::VARY, "Accept-Encoding");
    let body = if gzip {
        response = response.header(header::CONTENT_ENCODING, "gzip");
        Body::from(asset.gzip.clone())
    } else {
        Body::from(asset.plain)
    };
    response.body(body).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// Whether an `Accept-Encoding` header takes gzip (RFC 9110 section 12.5.3).
fn accepts_gzip(header: &str) -> bool {
    header.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip")
            && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

#[cfg(test)]
mod tests {
    use super::accepts_gzip;

    #[test]
    fn compresses_only_when_asked() {
        assert!(accepts_gzip("gzip, deflate, br"));
        assert!(accepts_gzip("br, gzip;q=0.5"));
        assert!(!accepts_gzip("br"));
        assert!(!accepts_gzip("gzip;q=0, br"));
        assert!(!accepts_gzip(""));
    }
}
