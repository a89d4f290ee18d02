//! `/language`: the visitor's choice, kept in a cookie.

use super::fields::Fields;
use super::{App, page};
use crate::auth::token::{LANGUAGE_COOKIE, set_cookie};
use crate::i18n::Language;
use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::post;
use std::sync::Arc;

/// A year, seconds.
const YEAR: i64 = 31_536_000;

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/language", post(choose))
}

async fn choose(fields: Fields) -> Response {
    let back = Redirect::to(page::safe_target(fields.get("back")));
    match Language::from_tag(fields.get("to")) {
        Some(language) => {
            let cookie = set_cookie(LANGUAGE_COOKIE, language.tag(), Some(YEAR));
            ([(header::SET_COOKIE, cookie)], back).into_response()
        }
        None => back.into_response(),
    }
}
