//! Health, statistics and settings in SQLite.

use super::{NAME, SqliteStore};
use crate::domain::{Housekeeping, Statistics};
use crate::{StoreError, limits};
use rusqlite::{Connection, OptionalExtension};
use std::time::Duration;
use tokio::time::timeout;

/// How long the answers to health checks and closing may take.
const PING: Duration = Duration::from_secs(5);
const CLOSE: Duration = Duration::from_secs(10);

impl Housekeeping for SqliteStore {
    async fn ping(&self) -> Result<(), StoreError> {
        let step = "checking health";
        let both = async {
            self.read(step, |connection| connection.query_row("SELECT 1", [], |_| Ok(()))).await?;
            // Takes the write lock, and fails where the file has become read-only; leaves no change.
            self.write(step, |connection| {
                connection
                    .prepare_cached("UPDATE archive_writer SET starts = starts WHERE only_row = 0")?
                    .execute([])
            })
            .await
        };
        let seconds = PING.as_secs();
        timeout(PING, both).await.map_err(|_| StoreError::Timeout { backend: NAME, step, seconds })??;
        Ok(())
    }

    async fn statistics(&self) -> Result<Statistics, StoreError> {
        let mut statistics = self
            .read("counting", |connection| {
                let count =
                    |sql: &str| connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0).map(|n| n as u64));
                Ok(Statistics {
                    accounts: count("SELECT count(*) FROM account WHERE kind <> 'canary' AND removing = 0")?,
                    accounts_disabled: count(
                        "SELECT count(*) FROM account WHERE kind <> 'canary' AND removing = 0 AND disabled = 1",
                    )?,
                    offline_messages: count(
                        "SELECT count(*) FROM offline_message o JOIN address a ON a.id = o.owner_id
                         LEFT JOIN account c ON c.address = a.jid WHERE c.kind IS NULL OR c.kind <> 'canary'",
                    )?,
                    database_bytes: 0,
                })
            })
            .await?;
        let mut wal = self.inner.path.clone().into_os_string();
        wal.push("-wal");
        let size = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        statistics.database_bytes = size(&self.inner.path) + size(wal.as_ref());
        Ok(statistics)
    }

    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        self.read("reading a setting", move |connection| setting(connection, &name)).await
    }

    async fn setting_or_insert(&self, name: &str, value: &str) -> Result<String, StoreError> {
        limits::address(name)?;
        limits::document(value)?;
        let row = [name.to_owned(), value.to_owned()];
        self.write("storing a setting", move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING",
                )?
                .execute([&row[0], &row[1]])?;
            setting(connection, &row[0])?.ok_or(rusqlite::Error::QueryReturnedNoRows)
        })
        .await
    }

    async fn set_setting(&self, name: &str, value: &str) -> Result<(), StoreError> {
        limits::address(name)?;
        limits::document(value)?;
        let row = [name.to_owned(), value.to_owned()];
        self.write("storing a setting", move |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO setting (name, value) VALUES (?1, ?2)")?
                .execute(row)?;
            Ok(())
        })
        .await
    }

    async fn close(&self) -> Result<(), StoreError> {
        timeout(CLOSE, self.inner.writer.close()).await.map_err(|_| StoreError::Timeout {
            backend: NAME,
            step: "closing",
            seconds: CLOSE.as_secs(),
        })
    }
}

fn setting(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT value FROM setting WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}
