//! Profiles in SQLite.

use super::SqliteStore;
use crate::domain::{ArchivePreferences, LastActivity, Profiles};
use crate::{StoreError, limits};
use rusqlite::{OptionalExtension, params};

impl Profiles for SqliteStore {
    async fn vcard(&self, owner: &str) -> Result<Option<String>, StoreError> {
        let owner = owner.to_owned();
        self.read("reading a vCard", move |connection| {
            connection
                .prepare_cached("SELECT xml FROM vcard WHERE owner = ?1")?
                .query_row([owner], |row| row.get(0))
                .optional()
        })
        .await
    }

    async fn set_vcard(&self, owner: &str, xml: &str) -> Result<(), StoreError> {
        limits::address(owner)?;
        limits::document(xml)?;
        let (owner, xml) = (owner.to_owned(), xml.to_owned());
        self.write("storing a vCard", move |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO vcard (owner, xml) VALUES (?1, ?2)")?
                .execute([owner, xml])?;
            Ok(())
        })
        .await
    }

    async fn private_xml(
        &self,
        owner: &str,
        element: &str,
        namespace: &str,
    ) -> Result<Option<String>, StoreError> {
        let key = [owner.to_owned(), element.to_owned(), namespace.to_owned()];
        self.read("reading private XML", move |connection| {
            connection
                .prepare_cached(
                    "SELECT xml FROM private_xml WHERE owner = ?1 AND element = ?2 AND namespace = ?3",
                )?
                .query_row(key, |row| row.get(0))
                .optional()
        })
        .await
    }

    async fn private_xml_count(&self, owner: &str) -> Result<u64, StoreError> {
        let owner = owner.to_owned();
        self.read("counting private XML", move |connection| {
            connection
                .prepare_cached("SELECT count(*) FROM private_xml WHERE owner = ?1")?
                .query_row([owner], |row| row.get::<_, i64>(0).map(|count| count as u64))
        })
        .await
    }

    async fn set_private_xml(
        &self,
        owner: &str,
        element: &str,
        namespace: &str,
        xml: &str,
    ) -> Result<(), StoreError> {
        limits::address(owner)?;
        limits::element(element, namespace)?;
        limits::document(xml)?;
        let row = [owner.to_owned(), element.to_owned(), namespace.to_owned(), xml.to_owned()];
        self.write("storing private XML", move |connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO private_xml (owner, element, namespace, xml) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(row)?;
            Ok(())
        })
        .await
    }

    async fn blocked(&self, owner: &str) -> Result<Vec<String>, StoreError> {
        let owner = owner.to_owned();
        self.read("reading a block list", move |connection| {
            connection
                .prepare_cached("SELECT address FROM blocked_address WHERE owner = ?1 ORDER BY address")?
                .query_map([owner], |row| row.get(0))?
                .collect()
        })
        .await
    }

    async fn block(&self, owner: &str, addresses: &[String]) -> Result<(), StoreError> {
        limits::address(owner)?;
        addresses.iter().try_for_each(|address| limits::address(address))?;
        let (owner, addresses) = (owner.to_owned(), addresses.to_vec());
        self.write("adding to a block list", move |connection| {
            for address in addresses {
                connection
                    .prepare_cached("INSERT OR IGNORE INTO blocked_address (owner, address) VALUES (?1, ?2)")?
                    .execute([&owner, &address])?;
            }
            Ok(())
        })
        .await
    }

    async fn unblock(&self, owner: &str, addresses: &[String]) -> Result<(), StoreError> {
        let (owner, addresses) = (owner.to_owned(), addresses.to_vec());
        self.write("taking off a block list", move |connection| {
            if addresses.is_empty() {
                connection
                    .prepare_cached("DELETE FROM blocked_address WHERE owner = ?1")?
                    .execute([&owner])?;
            }
            for address in addresses {
                connection
                    .prepare_cached("DELETE FROM blocked_address WHERE owner = ?1 AND address = ?2")?
                    .execute([&owner, &address])?;
            }
            Ok(())
        })
        .await
    }

    async fn archive_preferences(&self, owner: &str) -> Result<ArchivePreferences, StoreError> {
        let owner = owner.to_owned();
        self.read("reading archive preferences", move |connection| {
            let transaction = connection.unchecked_transaction()?;
            let default: Option<String> = transaction
                .prepare_cached("SELECT default_policy FROM archive_preference WHERE owner = ?1")?
                .query_row([&owner], |row| row.get(0))
                .optional()?;
            let rules: Vec<(String, String)> = transaction
                .prepare_cached(
                    "SELECT peer, rule FROM archive_preference_peer WHERE owner = ?1 ORDER BY peer",
                )?
                .query_map([&owner], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            Ok(ArchivePreferences::from_rows(default.as_deref(), rules))
        })
        .await
    }

    async fn set_archive_preferences(
        &self,
        owner: &str,
        preferences: &ArchivePreferences,
    ) -> Result<(), StoreError> {
        limits::address(owner)?;
        let rules = preferences.rules();
        rules.iter().try_for_each(|(peer, _)| limits::address(peer))?;
        let (owner, default) = (owner.to_owned(), preferences.default);
        self.write("storing archive preferences", move |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO archive_preference (owner, default_policy) VALUES (?1, ?2)")?
                .execute([&owner, default.as_str()])?;
            connection.prepare_cached("DELETE FROM archive_preference_peer WHERE owner = ?1")?.execute([&owner])?;
            for (peer, rule) in rules {
                connection
                    .prepare_cached(
                        "INSERT OR IGNORE INTO archive_preference_peer (owner, peer, rule) VALUES (?1, ?2, ?3)",
                    )?
                    .execute([&owner, &peer, rule.as_str()])?;
            }
            Ok(())
        })
        .await
    }

    async fn last_activity(&self, owner: &str) -> Result<Option<LastActivity>, StoreError> {
        let owner = owner.to_owned();
        self.read("reading last activity", move |connection| {
            connection
                .prepare_cached("SELECT at, status FROM last_activity WHERE owner = ?1")?
                .query_row([owner], |row| Ok(LastActivity { at: row.get(0)?, status: row.get(1)? }))
                .optional()
        })
        .await
    }

    async fn set_last_activity(&self, owner: &str, activity: &LastActivity) -> Result<(), StoreError> {
        limits::address(owner)?;
        limits::document(&activity.status)?;
        let (owner, activity) = (owner.to_owned(), activity.clone());
        self.write("storing last activity", move |connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO last_activity (owner, at, status) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![owner, activity.at, activity.status])?;
            Ok(())
        })
        .await
    }
}
