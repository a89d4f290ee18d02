//! A form as sent, after its token was checked. There is no other way to read a form, so none can forget the check.

use super::visitor::Visitor;
use super::{App, page};
use crate::auth::form;
use crate::view::ui::Section;
use axum::Form;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maxim_model::Secret;
use std::collections::HashMap;
use std::sync::Arc;

/// Fields of a form whose token was right.
pub struct Fields(HashMap<String, Secret>);

impl Fields {
    /// A field's text; empty when it is absent.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", Secret::expose)
    }

    /// A field that must not be shown.
    pub fn secret(&self, name: &str) -> Secret {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

impl FromRequest<Arc<App>> for Fields {
    type Rejection = Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Response> {
        let Some(visitor) = request.extensions().get::<Visitor>().cloned() else {
            return Err(StatusCode::INTERNAL_SERVER_ERROR.into_response());
        };
        let refuse = |status, title, text| {
            page::render(status, &page::Page::message(visitor.ui(app, Section::None), title, text))
        };
        let Form(fields): Form<HashMap<String, Secret>> = Form::from_request(request, app)
            .await
            .map_err(|rejection| refuse(rejection.status(), "error-form-title", "error-form"))?;
        let fields = Self(fields);
        let genuine = visitor
            .form_cookie
            .as_ref()
            .is_some_and(|cookie| form::is_valid(cookie, fields.get(form::FIELD)));
        if genuine {
            Ok(fields)
        } else {
            tracing::warn!(path = visitor.here, "refused a form without a valid token");
            Err(refuse(StatusCode::FORBIDDEN, "error-token-title", "error-token"))
        }
    }
}
