//! Administrators of the console and their password hashes.

use super::{Store, StoreError};
use rusqlite::{OptionalExtension, params};

/// One administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Administrator {
    /// Row identifier.
    pub id: i64,
    /// Sign-in name.
    pub name: String,
    /// Salted hash as `auth::password` writes it.
    pub password_hash: String,
    /// Unix seconds.
    pub password_changed_at: i64,
}

impl Store {
    /// Whether nobody can sign in yet.
    pub fn has_no_administrator(&self) -> Result<bool, StoreError> {
        self.with(|connection| {
            connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM administrators)", [], |row| row.get(0))
        })
    }

    /// Finds an administrator by name.
    pub fn administrator(&self, name: &str) -> Result<Option<Administrator>, StoreError> {
        self.with(|connection| {
            connection
                .query_row(
                    "SELECT id, name, password_hash, password_changed_at FROM administrators WHERE name = ?1",
                    [name],
                    |row| {
                        Ok(Administrator {
                            id: row.get(0)?,
                            name: row.get(1)?,
                            password_hash: row.get(2)?,
                            password_changed_at: row.get(3)?,
                        })
                    },
                )
                .optional()
        })
    }

    /// Adds an administrator.
    pub fn add_administrator(&self, name: &str, password_hash: &str, now: i64) -> Result<(), StoreError> {
        self.with(|connection| {
            connection.execute(
                "INSERT INTO administrators (name, password_hash, created_at, password_changed_at)
                 VALUES (?1, ?2, ?3, ?3)",
                params![name, password_hash, now],
            )?;
            Ok(())
        })
    }

    /// Replaces a password and ends every session of that administrator, in one transaction. False: no such name.
    pub fn set_password(&self, name: &str, password_hash: &str, now: i64) -> Result<bool, StoreError> {
        self.with(|connection| {
            let transaction = connection.transaction()?;
            let changed = transaction.execute(
                "UPDATE administrators SET password_hash = ?2, password_changed_at = ?3 WHERE name = ?1",
                params![name, password_hash, now],
            )?;
            transaction.execute(
                "DELETE FROM sessions
                 WHERE administrator_id = (SELECT id FROM administrators WHERE name = ?1)",
                [name],
            )?;
            transaction.commit()?;
            Ok(changed == 1)
        })
    }
}
