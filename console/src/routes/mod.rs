//! The addresses of the console, one module per area, and what holds for all of them.
//!
//! - public: `/healthz`, `/assets/…`, `/sign-in`, `/language`
//! - for administrators: overview, hosts, components, settings, sign-out
//!
//! Order of the layers, outermost first: protection (headers, origin, deadline), identification (session, language),
//! and for the private part the demand for a session. A new area (monitoring, backups, upgrades, users) is a module
//! with its own `routes()` merged into the private part here, and an entry in `view::ui::Section`.

mod assets;
mod components;
mod fields;
mod health;
mod hosts;
mod language;
mod list;
mod live;
mod overview;
mod page;
mod protection;
mod session;
mod settings;
mod visitor;

use crate::auth::password::Hasher;
use crate::clock::Clock;
use crate::status::watcher::Watcher;
use crate::store::Store;
use crate::view::assets::Assets;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// Largest form that is read, bytes.
const LARGEST_FORM: usize = 16 * 1024;

/// The other end of the connection, put into every request by the server.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// What routes work on.
pub struct App {
    /// The console's database.
    pub store: Store,
    /// True once the first administrator exists.
    pub ready: watch::Receiver<bool>,
    /// The cluster's state.
    pub watcher: Watcher,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Password hashing.
    pub hasher: Hasher,
    /// Style sheet, script, icon.
    pub assets: Arc<Assets>,
    /// Seconds after which an unused session ends.
    pub idle: i64,
    /// Seconds after which any session ends.
    pub absolute: i64,
}

/// All addresses.
pub fn router(app: Arc<App>) -> Router {
    let private = Router::new()
        .merge(overview::routes())
        .merge(hosts::routes())
        .merge(components::routes())
        .merge(settings::routes())
        .merge(session::private_routes())
        .layer(from_fn(visitor::require_session));
    let pages = Router::new()
        .merge(private)
        .merge(session::public_routes())
        .merge(language::routes())
        .fallback(page::not_found)
        .layer(from_fn_with_state(Arc::clone(&app), visitor::identify))
        .layer(DefaultBodyLimit::max(LARGEST_FORM));
    Router::new()
        .route("/healthz", get(health::show))
        .route("/assets/{file}", get(assets::show))
        .merge(pages)
        .layer(from_fn(protection::protect))
        .with_state(app)
}
