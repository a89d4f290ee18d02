//! `user …`: accounts of the IM core, through its administration socket on an IM host.

use crate::context::Context;
use crate::error::EngineError;
use maxim_model::Secret;
use serde::Serialize;

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
    /// Groups.
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
    let _ = context;
    Err(EngineError::failed("user list", "not there yet"))
}

/// Makes an account; an existing one is an error.
pub fn add(context: &Context, user: &NewUser) -> Result<User, EngineError> {
    let _ = (context, user);
    Err(EngineError::failed("user add", "not there yet"))
}

/// Sets a password; open sessions of the account are ended by the IM core.
pub fn passwd(context: &Context, address: &str, password: &Secret) -> Result<(), EngineError> {
    let _ = (context, address, password);
    Err(EngineError::failed("user passwd", "not there yet"))
}

/// Allows or forbids signing in.
pub fn set_enabled(context: &Context, address: &str, enabled: bool) -> Result<(), EngineError> {
    let _ = (context, address, enabled);
    Err(EngineError::failed("user enable", "not there yet"))
}

/// Removes an account with all it has.
pub fn remove(context: &Context, address: &str) -> Result<(), EngineError> {
    let _ = (context, address);
    Err(EngineError::failed("user remove", "not there yet"))
}

/// Makes many accounts; one bad row does not stop the others.
pub fn import(context: &Context, users: &[NewUser]) -> Result<Vec<ImportResult>, EngineError> {
    let _ = (context, users);
    Err(EngineError::failed("user import", "not there yet"))
}
