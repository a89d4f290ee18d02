//! Rosters in SQLite.

use super::SqliteStore;
use crate::domain::{Roster, RosterChange, RosterEdit, RosterItem, RosterOutcome, Rosters, Subscription};
use crate::{StoreError, limits};
use rusqlite::{Connection, OptionalExtension, Row, params};

const COLUMNS: &str = "contact, name, group_names, subscription, ask, approved, pending_in, listed";

impl Rosters for SqliteStore {
    async fn roster(&self, owner: &str) -> Result<Roster, StoreError> {
        let owner = owner.to_owned();
        self.read("reading a roster", move |connection| {
            // One read transaction, so that version and items belong together.
            let transaction = connection.unchecked_transaction()?;
            let version = version_of(&transaction, &owner)?;
            let items = transaction
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM roster_item WHERE owner = ?1 ORDER BY contact"
                ))?
                .query_map([&owner], item_from)?
                .collect::<Result<_, _>>()?;
            Ok(Roster { version, items })
        })
        .await
    }

    async fn roster_version(&self, owner: &str) -> Result<u64, StoreError> {
        let owner = owner.to_owned();
        self.read("reading a roster's version", move |connection| version_of(connection, &owner)).await
    }

    async fn roster_item(&self, owner: &str, contact: &str) -> Result<Option<RosterItem>, StoreError> {
        let (owner, contact) = (owner.to_owned(), contact.to_owned());
        self.read("reading a roster item", move |connection| item_of(connection, &owner, &contact)).await
    }

    async fn edit_roster(
        &self,
        owner: &str,
        contact: &str,
        edit: RosterEdit,
    ) -> Result<RosterOutcome, StoreError> {
        limits::address(owner)?;
        limits::address(contact)?;
        let (owner, contact) = (owner.to_owned(), contact.to_owned());
        self.write("editing a roster", move |connection| {
            let before = item_of(connection, &owner, &contact)?;
            let after = match edit.apply(before.as_ref()) {
                RosterChange::Keep => before.clone(),
                RosterChange::Put(item) => Some(RosterItem { contact, ..item }),
                RosterChange::Remove => None,
            };
            let changed = before != after;
            if changed {
                connection
                    .prepare_cached(
                        "INSERT INTO roster (owner, version) VALUES (?1, 1)
                         ON CONFLICT (owner) DO UPDATE SET version = version + 1",
                    )?
                    .execute([&owner])?;
                match (&before, &after) {
                    (_, Some(item)) => put(connection, &owner, item)?,
                    (Some(item), None) => remove(connection, &owner, &item.contact)?,
                    (None, None) => {}
                }
            }
            let version = version_of(connection, &owner)?;
            Ok(RosterOutcome { before, after, version, changed })
        })
        .await
    }
}

fn version_of(connection: &Connection, owner: &str) -> rusqlite::Result<u64> {
    let version: Option<i64> = connection
        .prepare_cached("SELECT version FROM roster WHERE owner = ?1")?
        .query_row([owner], |row| row.get(0))
        .optional()?;
    Ok(version.unwrap_or(0) as u64)
}

fn item_of(connection: &Connection, owner: &str, contact: &str) -> rusqlite::Result<Option<RosterItem>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM roster_item WHERE owner = ?1 AND contact = ?2"))?
        .query_row([owner, contact], item_from)
        .optional()
}

fn put(connection: &Connection, owner: &str, item: &RosterItem) -> rusqlite::Result<()> {
    connection
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO roster_item (owner, {COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
        ))?
        .execute(params![
            owner,
            item.contact,
            item.name,
            crate::domain::groups_to_text(&item.groups),
            item.subscription.as_str(),
            item.ask,
            item.approved,
            item.pending_in,
            item.listed,
        ])?;
    Ok(())
}

fn remove(connection: &Connection, owner: &str, contact: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM roster_item WHERE owner = ?1 AND contact = ?2")?
        .execute([owner, contact])?;
    Ok(())
}

fn item_from(row: &Row<'_>) -> rusqlite::Result<RosterItem> {
    Ok(RosterItem {
        contact: row.get(0)?,
        name: row.get(1)?,
        groups: crate::domain::groups_from_text(&row.get::<_, String>(2)?),
        subscription: Subscription::from_name(&row.get::<_, String>(3)?),
        ask: row.get(4)?,
        approved: row.get(5)?,
        pending_in: row.get(6)?,
        listed: row.get(7)?,
    })
}
