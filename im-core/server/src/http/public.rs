//! HTTPS for everybody: web chat, WebSocket (RFC 7395), host-meta, the private CA's certificate.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ring::digest;

use super::assets::Assets;
use super::{Body, host_meta, method_not_allowed, not_found, text};
use crate::connection;
use crate::core::Core;
use crate::framing::Framing;
use crate::link::Transport;
use crate::server::Counted;

/// What is served beside the WebSocket.
#[derive(Debug, Default)]
pub struct Site {
    /// The web chat.
    pub assets: Assets,
    /// The private CA's certificate, PEM.
    pub ca: Option<Bytes>,
}

/// What pages of ours may load. Styles set by script are needed by the chat's components; scripts only from
/// here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; \
    connect-src 'self'; manifest-src 'self'; worker-src 'self' blob:; base-uri 'none'; \
    form-action 'self'; frame-ancestors 'none'";

/// Answers a request.
pub fn answer(core: Arc<Core>, site: &Site, peer: IpAddr, request: Request<Incoming>) -> Response<Body> {
    let mut response = match request.uri().path() {
        "/xmpp-websocket" => websocket(core, peer, request),
        _ if !matches!(*request.method(), Method::GET | Method::HEAD) => method_not_allowed("GET, HEAD"),
        "/.well-known/host-meta" => with_origin(text(
            StatusCode::OK,
            "application/xrd+xml; charset=utf-8",
            host_meta::xml(&host(&core, request.headers())),
        )),
        "/.well-known/host-meta.json" => with_origin(text(
            StatusCode::OK,
            "application/json",
            host_meta::json(&host(&core, request.headers())),
        )),
        "/client.json" => {
            let config = serde_json::json!({
                "domain": core.domain.as_str(),
                "registration": core.config.registration.in_band,
            });
            text(StatusCode::OK, "application/json", config.to_string())
        }
        "/ca.crt" => match &site.ca {
            Some(ca) => text(StatusCode::OK, "application/x-x509-ca-cert", ca.clone()),
            None => not_found(),
        },
        path => site.assets.answer(path, request.headers()),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("strict-transport-security", "max-age=31536000"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// Any page may ask where the WebSocket is (XEP-0156 §3).
fn with_origin(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert("access-control-allow-origin", HeaderValue::from_static("*"));
    response
}

/// Host and port that clients use.
fn host(core: &Core, headers: &HeaderMap) -> String {
    let said = || headers.get(HOST).and_then(|h| h.to_str().ok()).map(str::to_owned);
    core.config.web.public_address.clone().or_else(said).unwrap_or_else(|| core.domain.to_string())
}

fn has_token(headers: &HeaderMap, name: hyper::header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
}

/// The opening handshake (RFC 6455 §4.2) with the subprotocol `xmpp`.
fn websocket(core: Arc<Core>, peer: IpAddr, mut request: Request<Incoming>) -> Response<Body> {
    let headers = request.headers();
    let key = headers.get(SEC_WEBSOCKET_KEY).map(|k| k.as_bytes().to_vec());
    let upgrade = *request.method() == Method::GET
        && has_token(headers, CONNECTION, "upgrade")
        && has_token(headers, UPGRADE, "websocket");
    let Some(key) = key.filter(|_| upgrade) else {
        return text(
            StatusCode::UPGRADE_REQUIRED,
            "text/plain; charset=utf-8",
            "This is a WebSocket for XMPP.\n",
        );
    };
    if headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        let mut response =
            text(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", "WebSocket version 13 is needed.\n");
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    }
    if !has_token(headers, SEC_WEBSOCKET_PROTOCOL, "xmpp") {
        return text(
            StatusCode::BAD_REQUEST,
            "text/plain; charset=utf-8",
            "The subprotocol must be 'xmpp'.\n",
        );
    }
    if core.is_draining() {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "text/plain; charset=utf-8",
            "The server is going down.\n",
        );
    }
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(&key);
    context.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = BASE64.encode(context.finish());
    let upgraded = hyper::upgrade::on(&mut request);
    // The HTTP connection ends with the handshake, and its count with it.
    let Some(counted) = Counted::enter(&core, peer) else {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "text/plain; charset=utf-8",
            "There are too many connections.\n",
        );
    };
    tokio::spawn(async move {
        let _counted = counted;
        match upgraded.await {
            Ok(upgraded) => {
                let transport = Transport::Upgraded(Box::new(TokioIo::new(upgraded)));
                connection::serve(core, transport, Framing::Messages, peer).await;
            }
            Err(error) => tracing::debug!("a WebSocket did not come about: {error}"),
        }
    });
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    out.insert(UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("xmpp"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        out.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}
