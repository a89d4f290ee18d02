//! `/metrics`, `/healthz` and `/readyz`, plain HTTP on loopback.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use im_admin_api::{Readiness, ReadinessCheck};
use im_store::Housekeeping as _;

use super::{Body, method_not_allowed, not_found, text};
use crate::core::Core;

/// How long a check of the store or live state may take.
const CHECK: Duration = Duration::from_secs(5);

/// Whether clients can be served.
pub async fn readiness(core: &Arc<Core>) -> Readiness {
    let store = async {
        match tokio::time::timeout(CHECK, core.store.ping()).await {
            Ok(Ok(())) => Ok(core.store.kind().to_owned()),
            Ok(Err(error)) => Err(crate::chain(&error)),
            Err(_) => Err(format!("{} does not answer within {} s", core.store.kind(), CHECK.as_secs())),
        }
    };
    let live = async {
        match tokio::time::timeout(CHECK, core.live.ping()).await {
            Ok(Ok(())) => Ok(String::new()),
            Ok(Err(error)) => Err(crate::chain(&error)),
            Err(_) => Err(format!("live state does not answer within {} s", CHECK.as_secs())),
        }
    };
    let (store, live) = tokio::join!(store, live);
    let check = |name: &str, result: Result<String, String>| ReadinessCheck {
        name: name.into(),
        ok: result.is_ok(),
        detail: result.unwrap_or_else(|e| e),
    };
    let listeners = match (core.is_draining(), core.listening.load(Ordering::Relaxed)) {
        (true, _) => Err("the node is being drained".into()),
        (false, true) => Ok(String::new()),
        (false, false) => Err("not bound yet".into()),
    };
    let checks = vec![check("store", store), check("live", live), check("listeners", listeners)];
    Readiness { ready: checks.iter().all(|c| c.ok), version: env!("CARGO_PKG_VERSION").into(), checks }
}

/// Answers a request.
pub async fn answer(core: Arc<Core>, request: Request<Incoming>) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return method_not_allowed("GET, HEAD");
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
        "/readyz" => {
            let readiness = readiness(&core).await;
            let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let body = serde_json::to_vec(&readiness).unwrap_or_default();
            text(status, "application/json", body)
        }
        "/metrics" => {
            let more = [
                ("maxim_im_uptime_seconds", "Seconds since the start.", core.started.elapsed().as_secs_f64()),
                ("maxim_im_nodes", "Nodes alive.", core.live.nodes().len() as f64),
                (
                    "maxim_im_draining",
                    "1 while the node is being drained.",
                    f64::from(u8::from(core.is_draining())),
                ),
            ];
            text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", core.metrics.to_text(&more))
        }
        _ => not_found(),
    }
}
