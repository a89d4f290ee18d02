//! Writes batches of the archive to PostgreSQL: one prepared statement over arrays, whatever the number of rows.

use super::{Fault, fault_of, sql};
use crate::server_store::pipeline::{Rows, Sink};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

pub(super) struct PostgresqlSink {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl PostgresqlSink {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self { options, connection: None }
    }

    async fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        if self.connection.is_none() {
            self.connection = Some(PgConnection::connect_with(&self.options).await?);
        }
        // It was put there just above.
        self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }
}

impl Sink for PostgresqlSink {
    async fn resolve(&mut self, jids: &[&str]) -> Result<Vec<(String, i64)>, sqlx::Error> {
        let connection = self.connection().await?;
        let mut found: Vec<(String, i64)> =
            sqlx::query_as(sql::ADDRESS_IDS).bind(jids).fetch_all(&mut *connection).await?;
        if found.len() < jids.len() {
            sqlx::query(sql::INSERT_ADDRESSES).bind(jids).execute(&mut *connection).await?;
            found = sqlx::query_as(sql::ADDRESS_IDS).bind(jids).fetch_all(&mut *connection).await?;
        }
        Ok(found)
    }

    async fn store(&mut self, rows: &Rows) -> Result<(), sqlx::Error> {
        let ids: Vec<i64> = rows.messages.iter().map(|row| row.id).collect();
        let owners_a: Vec<Option<i64>> = rows.messages.iter().map(|row| row.owner_a).collect();
        let owners_b: Vec<Option<i64>> = rows.messages.iter().map(|row| row.owner_b).collect();
        let stanzas: Vec<&[u8]> = rows.messages.iter().map(|row| &row.stanza[..]).collect();
        let entry_owners: Vec<i64> = rows.entries.iter().map(|entry| entry.0).collect();
        let entry_messages: Vec<i64> = rows.entries.iter().map(|entry| entry.1).collect();
        let entry_peers: Vec<i64> = rows.entries.iter().map(|entry| entry.2).collect();
        let offline_owners: Vec<i64> = rows.offline.iter().map(|mark| mark.0).collect();
        let offline_messages: Vec<i64> = rows.offline.iter().map(|mark| mark.1).collect();
        let append = sqlx::query(sql::APPEND)
            .bind(ids)
            .bind(owners_a)
            .bind(owners_b)
            .bind(stanzas)
            .bind(entry_owners)
            .bind(entry_messages)
            .bind(entry_peers)
            .bind(offline_owners)
            .bind(offline_messages);
        let connection = self.connection().await?;
        if rows.delivered.is_empty() {
            append.execute(connection).await?;
            return Ok(());
        }
        let owners: Vec<i64> =
            rows.delivered.iter().flat_map(|(owner, ids)| ids.iter().map(|_| *owner)).collect();
        let delivered: Vec<i64> = rows.delivered.iter().flat_map(|(_, ids)| ids).copied().collect();
        let mut transaction = connection.begin().await?;
        if !rows.messages.is_empty() {
            append.execute(&mut *transaction).await?;
        }
        sqlx::query(sql::REMOVE_MARKS).bind(owners).bind(&delivered).execute(&mut *transaction).await?;
        sqlx::query(sql::REMOVE_ORPHANS).bind(&delivered).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    async fn is_stored(&mut self, id: i64) -> Result<bool, sqlx::Error> {
        let found: Option<i64> =
            sqlx::query_scalar(sql::IS_STORED).bind(id).fetch_optional(self.connection().await?).await?;
        Ok(found.is_some())
    }

    fn disconnect(&mut self) {
        self.connection = None;
    }

    fn fault(error: &sqlx::Error) -> Fault {
        fault_of(error)
    }
}
