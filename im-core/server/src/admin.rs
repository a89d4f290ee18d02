//! Administration on a unix socket: HTTP/1.1 with JSON, as `im-admin-api` says.
//!
//! Who may connect is decided by the socket's mode (0600: the user that runs the server, and root). Passwords
//! come in bodies and are never logged.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use im_admin_api::{
    ApiError, CanaryAccount, CanaryCreated, CanarySwept, CreateUser, Drain, Empty, ErrorCode, ListUsers,
    NodeView, Password, SetPassword, Stats, SweepCanaries, User, UserAddress, UserList, paths,
};
use im_store::{Account, AccountFilter, AccountKind, Accounts as _, Housekeeping as _, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::accounts::{self, AccountError};
use crate::core::Core;
use crate::http::{Body, monitoring, read_body, text};

/// Larger requests are refused: the largest sweep is far below.
const MAX_BODY: usize = 1024 * 1024;

fn json(status: u16, value: &impl Serialize) -> Response<Body> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    text(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
}

fn error(code: ErrorCode, message: impl Into<String>, hint: Option<&str>) -> ApiError {
    ApiError { code, message: message.into(), hint: hint.map(Into::into) }
}

fn account_error(problem: &AccountError) -> ApiError {
    let message = crate::chain(problem);
    match problem {
        AccountError::Address(_) => error(ErrorCode::InvalidAddress, message, None),
        AccountError::Password => error(ErrorCode::InvalidPassword, message, Some("choose another password")),
        AccountError::NotFound(_) => {
            error(ErrorCode::UserNotFound, message, Some("list the accounts to find it"))
        }
        AccountError::Exists(_) => error(ErrorCode::UserExists, message, Some("choose another name")),
        AccountError::Reserved(_) => error(ErrorCode::AddressReserved, message, Some("choose another name")),
        AccountError::Busy => error(ErrorCode::Unavailable, message, Some("try again in a moment")),
        AccountError::Store(StoreError::Invalid { .. }) => error(ErrorCode::BadRequest, message, None),
        AccountError::Store(_) => error(
            ErrorCode::Unavailable,
            message,
            Some("check that the database is up; see the server's log"),
        ),
    }
}

impl From<AccountError> for Failed {
    fn from(problem: AccountError) -> Self {
        Self(account_error(&problem))
    }
}

impl From<StoreError> for Failed {
    fn from(problem: StoreError) -> Self {
        AccountError::Store(problem).into()
    }
}

struct Failed(ApiError);

fn user(account: Account) -> User {
    User {
        address: account.address,
        name: account.display_name,
        disabled: account.disabled,
        created_at: account.created_at,
    }
}

/// Answers a request.
pub async fn answer(core: Arc<Core>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let get = request.method() == Method::GET;
    match path.as_str() {
        paths::READINESS if get => {
            let readiness = monitoring::readiness(&core).await;
            return json(if readiness.ready { 200 } else { 503 }, &readiness);
        }
        paths::STATS if get => {
            return match stats(&core).await {
                Ok(stats) => json(200, &stats),
                Err(Failed(problem)) => json(problem.code.http_status(), &problem),
            };
        }
        paths::SCHEMA if get => {
            return match crate::schema::state(&core).await.map_err(Failed::from) {
                Ok(schema) => json(200, &schema),
                Err(Failed(problem)) => json(problem.code.http_status(), &problem),
            };
        }
        _ => {}
    }
    if request.method() != Method::POST {
        let problem =
            error(ErrorCode::UnknownOperation, format!("there is no {} {path}", request.method()), None);
        return json(404, &problem);
    }
    let body = match read_body(request, MAX_BODY).await {
        Ok(body) => body,
        Err(status) => {
            let problem = error(ErrorCode::BadRequest, format!("the request cannot be read: {status}"), None);
            return json(400, &problem);
        }
    };
    match operation(&core, &path, &body).await {
        Ok(response) => response,
        Err(Failed(problem)) => json(problem.code.http_status(), &problem),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failed> {
    // The parser's message names keys and places, never values of strings.
    serde_json::from_slice(body).map_err(|e| {
        Failed(error(
            ErrorCode::BadRequest,
            format!("the request is not understood: line {} column {}", e.line(), e.column()),
            None,
        ))
    })
}

async fn operation(core: &Arc<Core>, path: &str, body: &[u8]) -> Result<Response<Body>, Failed> {
    Ok(match path {
        paths::USER_CREATE => {
            let request: CreateUser = parse(body)?;
            let address = accounts::address(core, &request.address)?;
            let made = accounts::create(
                core,
                &address,
                request.password.expose(),
                request.name,
                AccountKind::Person,
            )
            .await?;
            json(200, &user(made))
        }
        paths::USER_LIST => {
            let request: ListUsers = parse(body)?;
            let limit = request.limit.unwrap_or(100).clamp(1, 1000);
            let filter = AccountFilter {
                kind: AccountKind::Person,
                contains: request.contains,
                after: request.after,
                created_before: None,
                limit,
            };
            let page = core.store.list_accounts(&filter).await?;
            let next =
                (page.len() == limit as usize).then(|| page.last().map(|a| a.address.clone())).flatten();
            json(200, &UserList { users: page.into_iter().map(user).collect(), next })
        }
        paths::USER_PASSWORD => {
            let request: SetPassword = parse(body)?;
            let address = accounts::address(core, &request.address)?;
            accounts::set_password_and_end_sessions(core, &address, request.password.expose()).await?;
            json(200, &Empty {})
        }
        paths::USER_DISABLE | paths::USER_ENABLE => {
            let request: UserAddress = parse(body)?;
            let address = accounts::address(core, &request.address)?;
            let changed = accounts::set_disabled(core, &address, path == paths::USER_DISABLE).await?;
            json(200, &user(changed))
        }
        paths::USER_REMOVE => {
            let request: UserAddress = parse(body)?;
            let address = accounts::address(core, &request.address)?;
            accounts::remove(core, &address).await?;
            json(200, &Empty {})
        }
        paths::CANARY_CREATE => {
            let _: Empty = parse(body)?;
            let accounts = accounts::create_canaries(core).await?.map(|(address, password)| CanaryAccount {
                address: address.to_string(),
                password: Password::new(password),
            });
            json(200, &CanaryCreated { accounts })
        }
        paths::CANARY_SWEEP => {
            let request: SweepCanaries = parse(body)?;
            let age = Duration::from_secs(request.older_than_seconds);
            let removed = accounts::sweep_canaries(core, age, &request.addresses).await?;
            json(200, &CanarySwept { removed })
        }
        paths::SCHEMA_FINALIZE => {
            let _: Empty = parse(body)?;
            json(200, &crate::schema::finalize(core).await?)
        }
        paths::DRAIN => {
            let request: Drain = parse(body)?;
            crate::server::drain(core, Duration::from_secs(request.deadline_seconds.min(3600))).await;
            json(200, &Empty {})
        }
        _ => {
            return Err(Failed(error(ErrorCode::UnknownOperation, format!("there is no POST {path}"), None)));
        }
    })
}

async fn stats(core: &Arc<Core>) -> Result<Stats, Failed> {
    let stored = core.store.statistics().await?;
    let this = core.live.node().clone();
    let here = u64::try_from(core.metrics.sessions.get()).unwrap_or(0);
    let mut seen = HashSet::new();
    let nodes = core.live.nodes().into_iter().filter(|n| seen.insert(n.node.clone())).map(|n| NodeView {
        name: n.node.name().to_owned(),
        sessions: if n.node == this { here } else { n.sessions },
        this: n.node == this,
    });
    Ok(Stats {
        version: env!("CARGO_PKG_VERSION").into(),
        domain: core.domain.to_string(),
        uptime_seconds: core.started.elapsed().as_secs(),
        sessions: here,
        nodes: nodes.collect(),
        accounts: stored.accounts,
        accounts_disabled: stored.accounts_disabled,
        messages_received: core.metrics.messages_received.get(),
        messages_delivered: core.metrics.messages_delivered.get(),
        messages_offline: stored.offline_messages,
        database_bytes: stored.database_bytes,
    })
}
