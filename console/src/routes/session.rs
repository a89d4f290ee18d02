//! Sign-in and sign-out.
//!
//! Steps of a sign-in: the form's token, admission (lock-out), the slow hash off the reactor, a new session with a new
//! token. Name and password are judged together and take the same time, so that neither tells about the other.

use super::fields::Fields;
use super::visitor::Visitor;
use super::{App, Peer, page};
use crate::auth::lockout::Subject;
use crate::auth::password::{HashError, LONGEST};
use crate::auth::token::{self, SESSION_COOKIE, VISIT_COOKIE, set_cookie};
use crate::store::Admission;
use crate::view::format;
use crate::view::ui::{Section, Ui};
use askama::Template;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::Deserialize;
use std::sync::Arc;

/// Characters of a browser's name that are kept.
const BROWSER_NAME: usize = 200;

pub fn public_routes() -> Router<Arc<App>> {
    Router::new().route("/sign-in", get(show).post(sign_in))
}

pub fn private_routes() -> Router<Arc<App>> {
    Router::new().route("/sign-out", post(sign_out))
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn {
    ui: Ui,
    account: String,
    next: String,
    error: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Next {
    next: String,
}

async fn show(
    State(app): State<Arc<App>>,
    Extension(mut visitor): Extension<Visitor>,
    Query(query): Query<Next>,
) -> Response {
    let next = page::safe_target(&query.next).to_owned();
    if visitor.session.is_some() {
        return Redirect::to(&next).into_response();
    }
    // The sign-in form has a token too; its key is a cookie that says nothing about anybody.
    let mut fresh = None;
    if visitor.form_cookie.is_none() {
        match token::new_token() {
            Ok(cookie) => {
                fresh = Some(set_cookie(VISIT_COOKIE, cookie.expose(), None));
                visitor.form_cookie = Some(cookie);
            }
            Err(error) => return page::broken(&app, &visitor, &error),
        }
    }
    let ui = visitor.ui(&app, Section::None);
    let form = SignIn { ui, account: String::new(), next, error: String::new() };
    let response = page::render(StatusCode::OK, &form);
    match fresh {
        Some(cookie) => ([(header::SET_COOKIE, cookie)], response).into_response(),
        None => response,
    }
}

async fn sign_in(
    State(app): State<Arc<App>>,
    Extension(visitor): Extension<Visitor>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    let account = fields.get("account").trim().to_owned();
    let password = fields.secret("password");
    let next = page::safe_target(fields.get("next")).to_owned();
    let now = app.clock.now();
    let refuse = |status, error| {
        let ui = visitor.ui(&app, Section::None);
        page::render(status, &SignIn { ui, account: account.clone(), next: next.clone(), error })
    };

    // At the very first start the password that is about to be typed may still be being hashed. If that fails the
    // server ends, and so does this wait.
    if app.ready.clone().wait_for(|ready| *ready).await.is_err() {
        return page::busy(&app, &visitor);
    }
    let subjects = Subject::of(&account, peer.ip());
    let (name, counted) = (account.clone(), subjects.clone());
    let admitted =
        app.store.run(move |store| Ok((store.admit(&counted, now)?, store.administrator(&name)?))).await;
    let administrator = match admitted {
        Ok((Admission::Granted, administrator)) => administrator,
        Ok((Admission::Locked { seconds }, _)) => {
            tracing::warn!(address = %peer.ip(), seconds, "sign-in refused: locked after too many failures");
            let wait = format::duration(visitor.language, seconds);
            let text = visitor.language.say("sign-in-locked", &[("wait", wait.into())]);
            let mut response = refuse(StatusCode::TOO_MANY_REQUESTS, text);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            return response;
        }
        Err(error) => return page::broken(&app, &visitor, &error),
    };

    // A text longer than any password is wrong without hashing it.
    let known = administrator.as_ref().filter(|_| password.expose().len() <= LONGEST);
    let stored = known.map(|administrator| administrator.password_hash.clone());
    let right = match app.hasher.verify(stored, password).await {
        Ok(right) => right,
        Err(HashError::Busy) => return page::busy(&app, &visitor),
        Err(error @ HashError::Failed) => return page::broken(&app, &visitor, &error),
    };
    let Some(administrator) = administrator.filter(|_| right) else {
        tracing::warn!(address = %peer.ip(), "sign-in refused: wrong name or password");
        return refuse(StatusCode::FORBIDDEN, visitor.language.say("sign-in-wrong", &[]));
    };

    let cookie = match token::new_token() {
        Ok(cookie) => cookie,
        Err(error) => return page::broken(&app, &visitor, &error),
    };
    let digest = token::digest_of(&cookie);
    let browser: String = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .chars()
        .take(BROWSER_NAME)
        .collect();
    let address = peer.ip().to_canonical().to_string();
    let (idle, absolute, old) =
        (app.idle, app.absolute, visitor.session.as_ref().map(|session| session.digest));
    let opened = app
        .store
        .run(move |store| {
            store.forgive(&subjects)?;
            store.sweep_sessions(now, idle, absolute)?;
            if let Some(old) = old {
                store.close_session(&old)?;
            }
            store.open_session(&digest, administrator.id, now, &address, &browser)
        })
        .await;
    if let Err(error) = opened {
        return page::broken(&app, &visitor, &error);
    }
    tracing::info!(administrator = administrator.name, address = %peer.ip(), "signed in");
    let cookies = AppendHeaders([
        (header::SET_COOKIE, set_cookie(SESSION_COOKIE, cookie.expose(), None)),
        (header::SET_COOKIE, set_cookie(VISIT_COOKIE, "", Some(0))),
    ]);
    (cookies, Redirect::to(&next)).into_response()
}

/// Signing out ends the session in the database, so that a copied cookie is worth nothing.
async fn sign_out(
    State(app): State<Arc<App>>,
    Extension(visitor): Extension<Visitor>,
    _fields: Fields,
) -> Response {
    let Some(session) = &visitor.session else { return page::signed_out(&app, &visitor) };
    let digest = session.digest;
    if let Err(error) = app.store.run(move |store| store.close_session(&digest)).await {
        return page::broken(&app, &visitor, &error);
    }
    tracing::info!(administrator = session.administrator, "signed out");
    let gone = set_cookie(SESSION_COOKIE, "", Some(0));
    ([(header::SET_COOKIE, gone)], Redirect::to("/sign-in")).into_response()
}
