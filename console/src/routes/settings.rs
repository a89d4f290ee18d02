//! `/settings`: the administrator's own password and sessions, and the version of the console.

use super::fields::Fields;
use super::visitor::Visitor;
use super::{App, Peer, page};
use crate::auth::lockout::Subject;
use crate::auth::password::{HashError, LONGEST, SHORTEST, Weakness, weakness};
use crate::auth::token::{self, SESSION_COOKIE, set_cookie};
use crate::i18n::Language;
use crate::store::{Admission, Session};
use crate::view::format::{self, Moment};
use crate::view::ui::{Section, Ui};
use askama::Template;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Router};
use serde::Deserialize;
use std::sync::Arc;

pub fn routes() -> Router<Arc<App>> {
    // A reload after a refused form is a GET of the form's address: it leads back to the page.
    let back = || async { Redirect::to("/settings") };
    Router::new()
        .route("/settings", get(show))
        .route("/settings/password", get(back).post(change_password))
        .route("/settings/sessions", get(back).post(end_other_sessions))
}

#[derive(Template)]
#[template(path = "settings.html")]
struct Settings {
    ui: Ui,
    name: String,
    done: String,
    current_error: String,
    new_error: String,
    repeat_error: String,
    shortest: String,
    sessions: Vec<SessionRow>,
    version: &'static str,
}

struct SessionRow {
    own: bool,
    address: String,
    browser: String,
    began: Moment,
    used: String,
}

/// What the settings page says about the form that was just sent.
#[derive(Default)]
struct Outcome {
    done: String,
    current_error: String,
    new_error: String,
    repeat_error: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Done {
    done: String,
}

async fn show(
    State(app): State<Arc<App>>,
    Extension(visitor): Extension<Visitor>,
    Query(query): Query<Done>,
) -> Response {
    let done = match query.done.as_str() {
        "password" => visitor.language.say("settings-password-done", &[]),
        "sessions" => visitor.language.say("settings-sessions-done", &[]),
        _ => String::new(),
    };
    respond(&app, &visitor, StatusCode::OK, Outcome { done, ..Outcome::default() }).await
}

async fn respond(app: &Arc<App>, visitor: &Visitor, status: StatusCode, outcome: Outcome) -> Response {
    let Some(session) = visitor.session.clone() else { return page::signed_out(app, visitor) };
    let (now, idle, absolute) = (app.clock.now(), app.idle, app.absolute);
    let name = session.administrator.clone();
    let sessions = match app.store.run(move |store| store.sessions_of(&name, now, idle, absolute)).await {
        Ok(sessions) => sessions,
        Err(error) => return page::broken(app, visitor, &error),
    };
    let sessions = sessions.iter().map(|other| row(visitor.language, other, &session, now)).collect();
    let mut ui = visitor.ui(app, Section::Settings);
    "/settings".clone_into(&mut ui.here);
    let settings = Settings {
        ui,
        name: session.administrator,
        done: outcome.done,
        current_error: outcome.current_error,
        new_error: outcome.new_error,
        repeat_error: outcome.repeat_error,
        shortest: SHORTEST.to_string(),
        sessions,
        version: env!("CARGO_PKG_VERSION"),
    };
    page::render(status, &settings)
}

fn row(language: Language, session: &Session, own: &Session, now: i64) -> SessionRow {
    SessionRow {
        own: session.digest == own.digest,
        address: session.address.clone(),
        browser: session.browser.clone(),
        began: format::moment(session.created_at),
        used: format::duration(language, now - session.used_at),
    }
}

async fn change_password(
    State(app): State<Arc<App>>,
    Extension(visitor): Extension<Visitor>,
    Extension(Peer(peer)): Extension<Peer>,
    fields: Fields,
) -> Response {
    let Some(session) = visitor.session.clone() else { return page::signed_out(&app, &visitor) };
    let language = visitor.language;
    let (current, new) = (fields.secret("current"), fields.secret("new"));
    let mut outcome = Outcome::default();
    let shortest = [("shortest", SHORTEST.to_string().into())];
    match weakness(new.expose(), &session.administrator) {
        Some(Weakness::Short) => outcome.new_error = language.say("password-short", &shortest),
        Some(Weakness::Long) => outcome.new_error = language.say("password-long", &[]),
        Some(Weakness::Guessable) => outcome.new_error = language.say("password-guessable", &[]),
        None if new == current => outcome.new_error = language.say("password-same", &[]),
        None if new != fields.secret("repeat") => {
            outcome.repeat_error = language.say("password-differs", &[]);
        }
        None => {}
    }
    if !outcome.new_error.is_empty() || !outcome.repeat_error.is_empty() {
        return respond(&app, &visitor, StatusCode::UNPROCESSABLE_ENTITY, outcome).await;
    }

    // The current password is guarded like a sign-in: a stolen session must not be a way to guess it.
    let now = app.clock.now();
    let subjects = Subject::of(&session.administrator, peer.ip());
    let (name, counted) = (session.administrator.clone(), subjects.clone());
    let admitted =
        app.store.run(move |store| Ok((store.admit(&counted, now)?, store.administrator(&name)?))).await;
    let administrator = match admitted {
        Ok((Admission::Granted, administrator)) => administrator,
        Ok((Admission::Locked { seconds }, _)) => {
            let wait = format::duration(language, seconds);
            outcome.current_error = language.say("sign-in-locked", &[("wait", wait.into())]);
            return respond(&app, &visitor, StatusCode::TOO_MANY_REQUESTS, outcome).await;
        }
        Err(error) => return page::broken(&app, &visitor, &error),
    };
    let known = administrator.filter(|_| current.expose().len() <= LONGEST);
    let stored = known.as_ref().map(|administrator| administrator.password_hash.clone());
    let hashed = match app.hasher.verify(stored, current).await {
        Ok(true) => app.hasher.hash(new).await,
        Ok(false) => {
            outcome.current_error = language.say("password-wrong", &[]);
            return respond(&app, &visitor, StatusCode::FORBIDDEN, outcome).await;
        }
        Err(error) => Err(error),
    };
    let hash = match hashed {
        Ok(hash) => hash,
        Err(HashError::Busy) => return page::busy(&app, &visitor),
        Err(error @ HashError::Failed) => return page::broken(&app, &visitor, &error),
    };
    // Every session ends, this one goes on under a new token.
    let cookie = match token::new_token() {
        Ok(cookie) => cookie,
        Err(error) => return page::broken(&app, &visitor, &error),
    };
    let digest = token::digest_of(&cookie);
    let changed = app
        .store
        .run(move |store| {
            store.forgive(&subjects)?;
            store.set_password(&session.administrator, &hash, now)?;
            if let Some(administrator) = known {
                store.open_session(&digest, administrator.id, now, &session.address, &session.browser)?;
            }
            Ok(session.administrator)
        })
        .await;
    match changed {
        Ok(administrator) => tracing::info!(administrator, "changed the password"),
        Err(error) => return page::broken(&app, &visitor, &error),
    }
    let fresh = set_cookie(SESSION_COOKIE, cookie.expose(), None);
    ([(header::SET_COOKIE, fresh)], Redirect::to("/settings?done=password")).into_response()
}

async fn end_other_sessions(
    State(app): State<Arc<App>>,
    Extension(visitor): Extension<Visitor>,
    _fields: Fields,
) -> Response {
    let Some(session) = visitor.session.clone() else { return page::signed_out(&app, &visitor) };
    let ended =
        app.store.run(move |store| store.close_other_sessions(&session.administrator, &session.digest)).await;
    match ended {
        Ok(count) => tracing::info!(count, "ended the other sessions"),
        Err(error) => return page::broken(&app, &visitor, &error),
    }
    Redirect::to("/settings?done=sessions").into_response()
}
