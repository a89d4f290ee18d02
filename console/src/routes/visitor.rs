//! Who is asking: the session (if any) and the language. A page that refreshes itself is no use of a session.

use super::App;
use super::page;
use crate::auth::token::{self, LANGUAGE_COOKIE, SESSION_COOKIE, VISIT_COOKIE};
use crate::i18n::Language;
use crate::store::Session;
use crate::view::ui::{Section, Ui};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use maxim_model::Secret;
use std::sync::Arc;

/// Sent by the script with a request that only refreshes figures.
pub const REFRESH_HEADER: &str = "x-maxim-refresh";

/// In the query of a page that a browser without scripts reloads by itself.
const REFRESH_QUERY: &str = "refresh=1";

/// Who is asking. In the extensions of every request for a page.
#[derive(Clone)]
pub struct Visitor {
    /// The living session.
    pub session: Option<Session>,
    /// The cookie that keys the token of forms: the session's, else the visitor's.
    pub form_cookie: Option<Secret>,
    /// Language of the pages.
    pub language: Language,
    /// Path and query.
    pub here: String,
}

impl Visitor {
    /// The frame for a page.
    pub fn ui(&self, app: &App, section: Section) -> Ui {
        Ui {
            language: self.language,
            section,
            here: self.here.clone(),
            administrator: self.session.as_ref().map(|session| session.administrator.clone()),
            form_token: Ui::token_for(self.form_cookie.as_ref()),
            // Strangers are not told.
            cluster: if self.session.is_some() { app.watcher.cluster() } else { String::new() },
            live: false,
            assets: Arc::clone(&app.assets),
        }
    }
}

/// Cookies of a request.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok())
}

/// Finds session and language and puts a [`Visitor`] into the request.
pub async fn identify(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    let query = request.uri().query().unwrap_or_default();
    let refreshes =
        headers.contains_key(REFRESH_HEADER) || query.split('&').any(|part| part == REFRESH_QUERY);
    let language = token::cookie_from(cookies(headers), LANGUAGE_COOKIE)
        .and_then(Language::from_tag)
        .unwrap_or_else(|| {
            let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
            Language::accepted(accepted.unwrap_or_default())
        });
    let visit = token::token_from(cookies(headers), VISIT_COOKIE);
    let session_cookie = token::token_from(cookies(headers), SESSION_COOKIE);
    let here = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let mut visitor = Visitor { session: None, form_cookie: visit, language, here };

    if let Some(cookie) = session_cookie {
        let digest = token::digest_of(&cookie);
        let (now, idle, absolute) = (app.clock.now(), app.idle, app.absolute);
        let found = app.store.run(move |store| store.session(&digest, now, idle, absolute, !refreshes)).await;
        match found {
            Ok(Some(session)) => {
                visitor.session = Some(session);
                visitor.form_cookie = Some(cookie);
            }
            Ok(None) => {}
            Err(error) => return page::broken(&app, &visitor, &error),
        }
    }
    request.extensions_mut().insert(visitor);
    next.run(request).await
}

/// Sends visitors without a session to the sign-in page.
pub async fn require_session(request: Request, next: Next) -> Response {
    let Some(visitor) = request.extensions().get::<Visitor>() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    if visitor.session.is_some() {
        return next.run(request).await;
    }
    if request.headers().contains_key(REFRESH_HEADER) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    // What was to be changed is not kept: it is asked for again after sign-in.
    let back = if request.method().is_safe() { page::encode(&visitor.here) } else { String::new() };
    let target = if back.is_empty() || visitor.here == "/" {
        "/sign-in".to_owned()
    } else {
        format!("/sign-in?next={back}")
    };
    Redirect::to(&target).into_response()
}
