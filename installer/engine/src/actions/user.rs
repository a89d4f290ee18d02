//! `user …`: accounts of the IM core, through its administration socket on an IM host.

use crate::actions::status::require_installed;
use crate::context::Context;
use crate::error::EngineError;
use crate::phases::verify::{AdminError, admin};
use crate::remote::{Agent, Mode};
use crate::run::Run;
use im_admin_api::{
    CreateUser, Empty, ErrorCode, ListUsers, Password, SetPassword, UserAddress, UserList, paths,
};
use maxim_model::Secret;
use maxim_model::names::Role;
use serde::Serialize;
use std::time::Duration;

/// Accounts asked for at a time.
const PAGE: u32 = 1000;

/// One account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// `local@domain`.
    pub address: String,
    /// Display name; may be empty.
    pub name: String,
    /// False: may not sign in.
    pub enabled: bool,
    /// RFC 3339; empty when unknown.
    pub created_at: String,
}

/// A new account.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// `local@domain`, or the local part alone.
    pub address: String,
    /// Password.
    pub password: Secret,
    /// Display name; may be empty.
    pub name: String,
    /// Groups. The IM core has none yet: a warning says so.
    pub groups: Vec<String>,
}

/// What an import did with one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportResult {
    /// Row of the list, from 0.
    pub row: usize,
    /// Address.
    pub address: String,
    /// True: made now; false: was there already (left as it is), or refused.
    pub created: bool,
    /// Why it was refused; empty when it was not.
    pub error: String,
}

/// All accounts, ordered by address.
pub fn list(context: &Context) -> Result<Vec<User>, EngineError> {
    with_agent(context, "user list", |_, agent| {
        let mut users = Vec::new();
        let mut page = ListUsers { limit: Some(PAGE), ..ListUsers::default() };
        loop {
            let host = agent.host().to_owned();
            let answer: UserList = admin(agent, &context.topology, "user list", paths::USER_LIST, &page)
                .map_err(|error| error.into_engine("user list", &host))?;
            users.extend(answer.users.into_iter().map(user));
            match answer.next {
                Some(next) if page.after.as_ref() != Some(&next) => page.after = Some(next),
                _ => return Ok(users),
            }
        }
    })
}

/// Makes an account; an existing one is an error.
pub fn add(context: &Context, new: &NewUser) -> Result<User, EngineError> {
    with_agent(context, "user add", |run, agent| {
        warn_about_groups(run, std::slice::from_ref(new));
        one(context, agent, "user add", paths::USER_CREATE, &create(new)).map(user)
    })
}

/// Sets a password; open sessions of the account are ended by the IM core.
pub fn passwd(context: &Context, address: &str, password: &Secret) -> Result<(), EngineError> {
    let change = SetPassword { address: address.into(), password: Password::new(password.expose()) };
    with_agent(context, "user passwd", |_, agent| {
        one::<Empty>(context, agent, "user passwd", paths::USER_PASSWORD, &change).map(|_| ())
    })
}

/// Allows or forbids signing in.
pub fn set_enabled(context: &Context, address: &str, enabled: bool) -> Result<(), EngineError> {
    let (step, path) =
        if enabled { ("user enable", paths::USER_ENABLE) } else { ("user disable", paths::USER_DISABLE) };
    let body = UserAddress { address: address.into() };
    with_agent(context, step, |_, agent| {
        one::<im_admin_api::User>(context, agent, step, path, &body).map(|_| ())
    })
}

/// Removes an account with all it has.
pub fn remove(context: &Context, address: &str) -> Result<(), EngineError> {
    let body = UserAddress { address: address.into() };
    with_agent(context, "user remove", |_, agent| {
        one::<Empty>(context, agent, "user remove", paths::USER_REMOVE, &body).map(|_| ())
    })
}

/// Makes many accounts; one bad row does not stop the others.
pub fn import(context: &Context, users: &[NewUser]) -> Result<Vec<ImportResult>, EngineError> {
    with_agent(context, "user import", |run, agent| {
        warn_about_groups(run, users);
        let mut results = Vec::with_capacity(users.len());
        for (row, new) in users.iter().enumerate() {
            context.cancel.check("user import")?;
            let made: Result<im_admin_api::User, _> =
                admin(agent, &context.topology, "user import", paths::USER_CREATE, &create(new));
            let mut result =
                ImportResult { row, address: new.address.clone(), created: false, error: String::new() };
            match made {
                Ok(user) => {
                    result.address = user.address;
                    result.created = true;
                }
                Err(AdminError::Refused(error)) if error.code == ErrorCode::UserExists => {}
                Err(AdminError::Refused(error)) => result.error = error.message,
                // The IM core is gone: the rows that follow would all say the same.
                Err(AdminError::Failed(error)) => return Err(error),
            }
            results.push(result);
        }
        Ok(results)
    })
}

fn warn_about_groups(run: &Run<'_>, users: &[NewUser]) {
    if users.iter().any(|user| !user.groups.is_empty()) {
        run.emitter.warn("", "user", "groups were left out: this version of the IM core has none", "");
    }
}

fn create(new: &NewUser) -> CreateUser {
    CreateUser {
        address: new.address.clone(),
        password: Password::new(new.password.expose()),
        name: Some(new.name.clone()).filter(|name| !name.is_empty()),
    }
}

fn user(user: im_admin_api::User) -> User {
    let created = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(user.created_at) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok());
    User {
        address: user.address,
        name: user.name.unwrap_or_default(),
        enabled: !user.disabled,
        created_at: created.unwrap_or_default(),
    }
}

fn one<T: serde::de::DeserializeOwned>(
    context: &Context,
    agent: &mut Agent,
    step: &str,
    path: &str,
    body: &impl Serialize,
) -> Result<T, EngineError> {
    let host = agent.host().to_owned();
    admin(agent, &context.topology, step, path, body).map_err(|error| error.into_engine(step, &host))
}

/// Runs `work` with an agent of the first IM host that can be reached.
fn with_agent<T>(
    context: &Context,
    step: &str,
    work: impl FnOnce(&Run<'_>, &mut Agent) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    require_installed(context, step)?;
    let run = Run::begin(context, step, false)?;
    let mut errors = Vec::new();
    for host in context.topology.with_role(Role::Im) {
        let agent = run.connect(host).and_then(|mut connected| {
            let mut agent = connected.agent(Mode::Change)?;
            run.scope(&mut agent)?;
            Ok((connected, agent))
        });
        match agent {
            Ok((_connected, mut agent)) => {
                let result = work(&run, &mut agent);
                agent.finish(Duration::from_secs(5));
                return result;
            }
            Err(error) => errors.push(error),
        }
    }
    Err(EngineError::join(errors)
        .unwrap_or_else(|| EngineError::usage(step, "no host of this cluster runs the IM core")))
}
