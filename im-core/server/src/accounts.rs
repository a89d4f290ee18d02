//! Accounts as the administration and registration see them: addresses, passwords, removal, canaries.
//!
//! Canaries (design D13) have names that begin with [`CANARY_PREFIX`], which nobody else can get. They may
//! message only each other, are listed and counted nowhere, and are swept at start when a killed run left them.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use im_proto::{Address, StanzaError};
use im_store::{Account, AccountFilter, AccountKind, Accounts as _, NewAccount, StoreError};

use crate::core::Core;
use crate::passwords::{hex, random_bytes};
use crate::session::Close;

/// What names of canaries begin with.
pub const CANARY_PREFIX: &str = "maxim-canary-";
/// For how long the removal of an account is waited for.
pub const REMOVAL: Duration = Duration::from_secs(2);
/// Canaries older than this are left over from a run that was killed.
pub const STALE_CANARY: Duration = Duration::from_mins(15);

/// Why an account cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The address is none of this server's.
    #[error("'{0}' is no account address of this server: give the name alone, or name@domain")]
    Address(String),
    /// The password holds characters that no password may hold, or is empty.
    #[error("the password is empty or holds control characters")]
    Password,
    /// There is no such account.
    #[error("there is no account {0}")]
    NotFound(Address),
    /// The address is taken.
    #[error("there is an account {0} already")]
    Exists(Address),
    /// The address is reserved.
    #[error("{0} is reserved")]
    Reserved(Address),
    /// Too many passwords are being derived.
    #[error("the server is busy with other passwords; try again in a moment")]
    Busy,
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl AccountError {
    /// What a client is told.
    pub fn stanza_error(&self) -> StanzaError {
        match self {
            Self::Address(_) => StanzaError::JID_MALFORMED,
            Self::Password => StanzaError::NOT_ACCEPTABLE,
            Self::NotFound(_) => StanzaError::ITEM_NOT_FOUND,
            Self::Exists(_) | Self::Reserved(_) => StanzaError::CONFLICT,
            Self::Busy => StanzaError::RESOURCE_CONSTRAINT,
            Self::Store(_) => StanzaError::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The bare address that a name, or a whole address, stands for.
///
/// # Errors
/// [`AccountError::Address`] when it is none, or on another domain.
pub fn address(core: &Core, text: &str) -> Result<Address, AccountError> {
    let error = || AccountError::Address(text.chars().take(80).collect());
    let address = if text.contains('@') {
        Address::parse(text).map_err(|_| error())?
    } else {
        Address::from_local(text, core.domain.as_str()).map_err(|_| error())?
    };
    if !core.is_local(&address)
        || address.local().is_none()
        || !address.is_bare()
        || address.as_str().len() > 512
    {
        return Err(error());
    }
    Ok(address)
}

/// True for addresses that only the server itself gives out.
pub fn is_reserved(address: &Address) -> bool {
    address.local().is_some_and(|local| local.starts_with(CANARY_PREFIX))
}

/// Makes an account.
///
/// # Errors
/// [`AccountError`]
pub async fn create(
    core: &Arc<Core>,
    address: &Address,
    password: &str,
    display_name: Option<String>,
    kind: AccountKind,
) -> Result<Account, AccountError> {
    if is_reserved(address) && kind == AccountKind::Person {
        return Err(AccountError::Reserved(address.clone()));
    }
    let credentials = core.passwords.derive(password).await.map_err(|_| AccountError::Busy)?;
    let account = NewAccount {
        address: address.to_string(),
        credentials: credentials.ok_or(AccountError::Password)?,
        kind,
        display_name,
    };
    if !core.store.create_account(&account).await? {
        return Err(AccountError::Exists(address.clone()));
    }
    forget(core, address);
    core.store.account(address.as_str()).await?.ok_or_else(|| AccountError::NotFound(address.clone()))
}

/// Forgets what this node and the others know of an account.
fn forget(core: &Arc<Core>, address: &Address) {
    if let Some(user) = core.users.find(address.as_str()) {
        user.forget();
    }
    core.cluster.forget(core, address.as_str());
}

/// Ends all sessions of an account, on all nodes.
fn end_sessions(core: &Arc<Core>, address: &Address) {
    core.close_sessions(address.as_str(), Close::Revoked);
    core.cluster.close_account(core, address.as_str());
}

/// Replaces a password. Sessions go on; see [`set_password_and_end_sessions`].
///
/// # Errors
/// [`AccountError`]
pub async fn set_password(core: &Arc<Core>, address: &Address, password: &str) -> Result<(), AccountError> {
    let credentials = core.passwords.derive(password).await.map_err(|_| AccountError::Busy)?;
    let credentials = credentials.ok_or(AccountError::Password)?;
    let changed = core.store.set_credentials(address.as_str(), &credentials).await?;
    if changed { Ok(()) } else { Err(AccountError::NotFound(address.clone())) }
}

/// Replaces a password and ends the account's sessions.
///
/// # Errors
/// [`AccountError`]
pub async fn set_password_and_end_sessions(
    core: &Arc<Core>,
    address: &Address,
    password: &str,
) -> Result<(), AccountError> {
    set_password(core, address, password).await?;
    end_sessions(core, address);
    Ok(())
}

/// Forbids or allows signing in; forbidding ends the account's sessions.
///
/// # Errors
/// [`AccountError`]
pub async fn set_disabled(
    core: &Arc<Core>,
    address: &Address,
    disabled: bool,
) -> Result<Account, AccountError> {
    if !core.store.set_disabled(address.as_str(), disabled).await? {
        return Err(AccountError::NotFound(address.clone()));
    }
    forget(core, address);
    if disabled {
        end_sessions(core, address);
    }
    core.store.account(address.as_str()).await?.ok_or_else(|| AccountError::NotFound(address.clone()))
}

/// Removes an account with all it owns. When this returns nobody can sign in to it any more, its sessions are told
/// to end, and it is listed no more. What it owns may be millions of messages: after [`REMOVAL`] that goes on in the
/// background, and until it is done the name is taken.
///
/// # Errors
/// [`AccountError`]
pub async fn remove(core: &Arc<Core>, address: &Address) -> Result<(), AccountError> {
    let removed = core.store.begin_removal(address.as_str()).await?;
    forget(core, address);
    end_sessions(core, address);
    if !removed {
        return Err(AccountError::NotFound(address.clone()));
    }
    // A small account is gone at once; of a large one nobody waits for the end.
    let _ = tokio::time::timeout(REMOVAL, complete_removal(core, address.to_string())).await;
    Ok(())
}

/// Removes what a locked account owns, in the background.
fn complete_removal(core: &Arc<Core>, address: String) -> tokio::task::JoinHandle<()> {
    /// Between tries when the store fails.
    const PAUSE: Duration = Duration::from_secs(10);
    let core = Arc::clone(core);
    let mut stop = core.stop.subscribe();
    tokio::spawn(async move {
        let work = async {
            while let Err(error) = core.store.remove_account(&address).await {
                core.report("cannot remove what an account owned; trying again", &error);
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = work => {}
            // The next start completes it.
            _ = stop.wait_for(|stop| *stop) => {}
        }
    })
}

/// Completes removals that an earlier run, or another node that died, did not. Waits for none of them.
///
/// # Errors
/// [`AccountError::Store`]
pub async fn resume_removals(core: &Arc<Core>) -> Result<(), AccountError> {
    for address in core.store.unfinished_removals().await? {
        complete_removal(core, address);
    }
    Ok(())
}

/// Makes two canaries; returns their addresses and passwords.
///
/// # Errors
/// [`AccountError`]
pub async fn create_canaries(core: &Arc<Core>) -> Result<[(Address, String); 2], AccountError> {
    let make = async || {
        let tag = hex(&random_bytes(8));
        let address = address(core, &format!("{CANARY_PREFIX}{tag}"))?;
        let password = URL_SAFE_NO_PAD.encode(random_bytes(24));
        create(core, &address, &password, None, AccountKind::Canary).await?;
        Ok::<_, AccountError>((address, password))
    };
    Ok([make().await?, make().await?])
}

/// Removes canaries: those older than `age`, and those named. Says how many there were.
///
/// # Errors
/// [`AccountError`]
pub async fn sweep_canaries(core: &Arc<Core>, age: Duration, named: &[String]) -> Result<u64, AccountError> {
    let mut removed = 0;
    for name in named {
        let address = address(core, name)?;
        let kind = core.store.account(address.as_str()).await?.map(|a| a.kind);
        if kind == Some(AccountKind::Canary) {
            remove(core, &address).await?;
            removed += 1;
        }
    }
    let created_before = crate::now_ms().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    loop {
        let filter = AccountFilter {
            kind: AccountKind::Canary,
            created_before: Some(created_before.saturating_add(1)),
            ..AccountFilter::default()
        };
        let page = core.store.list_accounts(&filter).await?;
        if page.is_empty() {
            return Ok(removed);
        }
        let before = removed;
        for account in page {
            let Ok(address) = Address::parse(&account.address) else { continue };
            match remove(core, &address).await {
                Ok(()) => removed += 1,
                // Another node swept it at the same time.
                Err(AccountError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if removed == before {
            return Ok(removed);
        }
    }
}
