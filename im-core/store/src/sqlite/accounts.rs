//! Accounts in SQLite.

use super::SqliteStore;
use crate::domain::{
    Account, AccountFilter, AccountKind, Accounts, Credentials, NewAccount, ScramKeys, SignIn,
};
use crate::{StoreError, limits};
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

/// Archive entries removed in one transaction: other writes get their turn in between.
const CHUNK: i64 = 500;

impl Accounts for SqliteStore {
    async fn create_account(&self, account: &NewAccount) -> Result<bool, StoreError> {
        limits::address(&account.address)?;
        let account = account.clone();
        let changed = self
            .write("creating an account", move |connection| {
                let (sha1, sha256) = (&account.credentials.sha1, &account.credentials.sha256);
                connection
                    .prepare_cached(
                        "INSERT INTO account (address, kind, display_name, disabled, removing, created_at,
                             sha1_salt, sha1_iterations, sha1_stored_key, sha1_server_key,
                             sha256_salt, sha256_iterations, sha256_stored_key, sha256_server_key)
                         VALUES (?1, ?2, ?3, 0, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                         ON CONFLICT (address) DO NOTHING",
                    )?
                    .execute(params![
                        account.address,
                        account.kind.as_str(),
                        account.display_name,
                        crate::id::now_ms(),
                        sha1.salt,
                        sha1.iterations,
                        sha1.stored_key,
                        sha1.server_key,
                        sha256.salt,
                        sha256.iterations,
                        sha256.stored_key,
                        sha256.server_key,
                    ])
            })
            .await?;
        Ok(changed == 1)
    }

    async fn account(&self, address: &str) -> Result<Option<Account>, StoreError> {
        let address = address.to_owned();
        self.read("reading an account", move |connection| {
            connection
                .prepare_cached(
                    "SELECT address, kind, display_name, disabled, created_at FROM account
                     WHERE address = ?1 AND removing = 0",
                )?
                .query_row([address], account_from)
                .optional()
        })
        .await
    }

    async fn sign_in(&self, address: &str) -> Result<Option<SignIn>, StoreError> {
        let address = address.to_owned();
        self.read("reading credentials", move |connection| {
            connection
                .prepare_cached(
                    "SELECT sha1_salt, sha1_iterations, sha1_stored_key, sha1_server_key,
                            sha256_salt, sha256_iterations, sha256_stored_key, sha256_server_key, disabled, kind
                     FROM account WHERE address = ?1 AND removing = 0",
                )?
                .query_row([address], |row| {
                    Ok(SignIn {
                        credentials: Credentials { sha1: keys_from(row, 0)?, sha256: keys_from(row, 4)? },
                        disabled: row.get(8)?,
                        kind: AccountKind::from_name(&row.get::<_, String>(9)?),
                    })
                })
                .optional()
        })
        .await
    }

    async fn set_credentials(&self, address: &str, credentials: &Credentials) -> Result<bool, StoreError> {
        let (address, credentials) = (address.to_owned(), credentials.clone());
        let changed = self
            .write("replacing credentials", move |connection| {
                let (sha1, sha256) = (&credentials.sha1, &credentials.sha256);
                connection
                    .prepare_cached(
                        "UPDATE account SET sha1_salt = ?2, sha1_iterations = ?3, sha1_stored_key = ?4,
                             sha1_server_key = ?5, sha256_salt = ?6, sha256_iterations = ?7,
                             sha256_stored_key = ?8, sha256_server_key = ?9
                         WHERE address = ?1 AND removing = 0",
                    )?
                    .execute(params![
                        address,
                        sha1.salt,
                        sha1.iterations,
                        sha1.stored_key,
                        sha1.server_key,
                        sha256.salt,
                        sha256.iterations,
                        sha256.stored_key,
                        sha256.server_key,
                    ])
            })
            .await?;
        Ok(changed == 1)
    }

    async fn set_disabled(&self, address: &str, disabled: bool) -> Result<bool, StoreError> {
        let address = address.to_owned();
        let changed = self
            .write("disabling or enabling an account", move |connection| {
                connection
                    .prepare_cached("UPDATE account SET disabled = ?2 WHERE address = ?1 AND removing = 0")?
                    .execute(params![address, disabled])
            })
            .await?;
        Ok(changed == 1)
    }

    async fn remove_account(&self, address: &str) -> Result<bool, StoreError> {
        let step = "removing an account";
        if !self.begin_removal(address).await? {
            return Ok(false);
        }
        loop {
            let owner = address.to_owned();
            if self.write(step, move |connection| remove_messages(connection, &owner)).await? == 0 {
                break;
            }
        }
        let owner = address.to_owned();
        self.write(step, move |connection| {
            for sql in [
                "DELETE FROM roster_item WHERE owner = ?1",
                "DELETE FROM roster WHERE owner = ?1",
                "DELETE FROM vcard WHERE owner = ?1",
                "DELETE FROM private_xml WHERE owner = ?1",
                "DELETE FROM blocked_address WHERE owner = ?1",
                "DELETE FROM archive_preference_peer WHERE owner = ?1",
                "DELETE FROM archive_preference WHERE owner = ?1",
                "DELETE FROM last_activity WHERE owner = ?1",
                "DELETE FROM account WHERE address = ?1",
            ] {
                connection.prepare_cached(sql)?.execute([&owner])?;
            }
            Ok(())
        })
        .await?;
        Ok(true)
    }

    async fn begin_removal(&self, address: &str) -> Result<bool, StoreError> {
        let address = address.to_owned();
        let found = self
            .write("locking an account", move |connection| {
                connection
                    .prepare_cached("UPDATE account SET removing = 1 WHERE address = ?1")?
                    .execute([address])
            })
            .await?;
        Ok(found > 0)
    }

    async fn unfinished_removals(&self) -> Result<Vec<String>, StoreError> {
        self.read("looking for unfinished removals", |connection| {
            connection
                .prepare_cached("SELECT address FROM account WHERE removing = 1 LIMIT 1000")?
                .query_map([], |row| row.get(0))?
                .collect()
        })
        .await
    }

    async fn refused_accounts(&self, addresses: &[String]) -> Result<Vec<String>, StoreError> {
        let addresses = addresses.to_vec();
        self.read("looking for refused accounts", move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT 1 FROM account WHERE address = ?1 AND disabled = 0 AND removing = 0",
            )?;
            let mut refused = Vec::new();
            for address in addresses {
                if !statement.exists([&address])? {
                    refused.push(address);
                }
            }
            Ok(refused)
        })
        .await
    }

    async fn list_accounts(&self, filter: &AccountFilter) -> Result<Vec<Account>, StoreError> {
        let filter = filter.clone();
        self.read("listing accounts", move |connection| {
            connection
                .prepare_cached(
                    "SELECT address, kind, display_name, disabled, created_at FROM account
                     WHERE address > :after AND kind = :kind AND removing = 0
                       AND (:contains = '' OR instr(address, :contains) > 0) AND created_at < :created_before
                     ORDER BY address LIMIT :limit",
                )?
                .query_map(
                    named_params! {
                        ":after": filter.after.unwrap_or_default(),
                        ":kind": filter.kind.as_str(),
                        ":contains": filter.contains.unwrap_or_default(),
                        ":created_before": filter.created_before.unwrap_or(i64::MAX),
                        ":limit": filter.limit.clamp(1, 1000),
                    },
                    account_from,
                )?
                .collect()
        })
        .await
    }
}

fn account_from(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        address: row.get(0)?,
        kind: AccountKind::from_name(&row.get::<_, String>(1)?),
        display_name: row.get(2)?,
        disabled: row.get(3)?,
        created_at: row.get(4)?,
    })
}

fn keys_from(row: &Row<'_>, at: usize) -> rusqlite::Result<ScramKeys> {
    Ok(ScramKeys {
        salt: row.get(at)?,
        iterations: row.get(at + 1)?,
        stored_key: row.get(at + 2)?,
        server_key: row.get(at + 3)?,
    })
}

/// Removes one chunk of what the archive and the offline messages hold for `owner`; 0 when nothing is left.
fn remove_messages(connection: &Connection, owner: &str) -> rusqlite::Result<usize> {
    let mut ids: Vec<i64> = Vec::new();
    for sql in [
        "SELECT message_id FROM archive_entry WHERE owner_id = (SELECT id FROM address WHERE jid = ?1) LIMIT ?2",
        "SELECT message_id FROM offline_message WHERE owner_id = (SELECT id FROM address WHERE jid = ?1) LIMIT ?2",
    ] {
        let mut statement = connection.prepare_cached(sql)?;
        for id in statement.query_map(params![owner, CHUNK], |row| row.get(0))? {
            ids.push(id?);
        }
    }
    for id in &ids {
        for sql in [
            "DELETE FROM archive_entry
             WHERE owner_id = (SELECT id FROM address WHERE jid = ?1) AND message_id = ?2",
            "DELETE FROM offline_message
             WHERE owner_id = (SELECT id FROM address WHERE jid = ?1) AND message_id = ?2",
        ] {
            connection.prepare_cached(sql)?.execute(params![owner, id])?;
        }
        remove_message_if_orphaned(connection, *id)?;
        let owner: Option<i64> = connection
            .prepare_cached("SELECT id FROM address WHERE jid = ?1")?
            .query_row([owner], |row| row.get(0))
            .optional()?;
        if let Some(owner) = owner {
            forget_owner(connection, *id, owner)?;
        }
    }
    Ok(ids.len())
}

/// `owner` no longer keeps a message. Noted in it while it awaits delivery, so that whoever removes the mark sees at once
/// whether anybody keeps it ([`remove_unless_kept`]).
pub(super) fn forget_owner(connection: &Connection, id: i64, owner: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE message SET owner_a = CASE WHEN owner_a = ?2 THEN NULL ELSE owner_a END,
                                owner_b = CASE WHEN owner_b = ?2 THEN NULL ELSE owner_b END
             WHERE id = ?1 AND EXISTS (SELECT 1 FROM offline_message o WHERE o.message_id = message.id)",
        )?
        .execute([id, owner])?;
    Ok(())
}

/// Removes a message whose mark was just removed, if it is in no archive and awaits no other delivery.
pub(super) fn remove_unless_kept(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM message WHERE id = ?1 AND owner_a IS NULL AND owner_b IS NULL
               AND NOT EXISTS (SELECT 1 FROM offline_message o WHERE o.message_id = message.id)",
        )?
        .execute([id])?;
    Ok(())
}

/// Removes a message that is in no archive and awaits no delivery.
pub(super) fn remove_message_if_orphaned(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM message WHERE id = ?1
               AND NOT EXISTS (SELECT 1 FROM archive_entry e
                               WHERE e.owner_id = message.owner_a AND e.message_id = message.id)
               AND NOT EXISTS (SELECT 1 FROM archive_entry e
                               WHERE e.owner_id = message.owner_b AND e.message_id = message.id)
               AND NOT EXISTS (SELECT 1 FROM offline_message o WHERE o.message_id = message.id)",
        )?
        .execute([id])?;
    Ok(())
}
