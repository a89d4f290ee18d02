//! Writes batches of the archive to MariaDB.
//!
//! A batch is one text of several statements: the server parses it once and answers once, whereas statements with
//! parameters would need a round trip each and, with their varying number of rows, be prepared again each time.
//! Bytes are in hexadecimal: nothing of anybody's text can be taken for SQL.

use super::{Fault, fault_of, sql};
use crate::server_store::id_list;
use crate::server_store::pipeline::{Rows, Sink};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, MySql, MySqlConnection, QueryBuilder};
use std::fmt::Write;

pub(super) struct MariadbSink {
    options: MySqlConnectOptions,
    connection: Option<MySqlConnection>,
}

impl MariadbSink {
    pub(super) fn new(options: MySqlConnectOptions) -> Self {
        Self { options, connection: None }
    }

    async fn connection(&mut self) -> Result<&mut MySqlConnection, sqlx::Error> {
        if self.connection.is_none() {
            let mut connection = MySqlConnection::connect_with(&self.options).await?;
            // Gap locks would make a batch that removes marks wait for one that adds some.
            connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
            self.connection = Some(connection);
        }
        // It was put there just above.
        self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }
}

async fn find(connection: &mut MySqlConnection, jids: &[&str]) -> Result<Vec<(String, i64)>, sqlx::Error> {
    let mut select = QueryBuilder::<MySql>::new("SELECT jid, id FROM address WHERE jid IN (");
    let mut list = select.separated(", ");
    for jid in jids {
        list.push_bind(*jid);
    }
    select.push(")");
    select.build_query_as().persistent(false).fetch_all(connection).await
}

impl Sink for MariadbSink {
    async fn resolve(&mut self, jids: &[&str]) -> Result<Vec<(String, i64)>, sqlx::Error> {
        let connection = self.connection().await?;
        let mut found = find(connection, jids).await?;
        let missing: Vec<&str> =
            jids.iter().copied().filter(|jid| !found.iter().any(|(known, _)| known == jid)).collect();
        if !missing.is_empty() {
            let mut insert = QueryBuilder::<MySql>::new("INSERT IGNORE INTO address (jid) ");
            insert.push_values(&missing, |mut row, jid| {
                row.push_bind(*jid);
            });
            insert.build().persistent(false).execute(&mut *connection).await?;
            found.extend(find(connection, &missing).await?);
        }
        Ok(found)
    }

    async fn store(&mut self, rows: &Rows) -> Result<(), sqlx::Error> {
        let text = statements(rows);
        sqlx::raw_sql(AssertSqlSafe(text)).execute(self.connection().await?).await?;
        Ok(())
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

fn statements(rows: &Rows) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes: usize = rows.messages.iter().map(|row| row.stanza.len() * 2 + 80).sum();
    let mut text = String::with_capacity(bytes + rows.entries.len() * 50 + rows.offline.len() * 40 + 300);
    text.push_str("BEGIN");
    if !rows.messages.is_empty() {
        text.push_str(";INSERT INTO message (id, owner_a, owner_b, stanza) VALUES ");
    }
    let mut comma = "";
    for row in &rows.messages {
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}({}", row.id);
        for owner in [row.owner_a, row.owner_b] {
            let _ = match owner {
                Some(owner) => write!(text, ",{owner}"),
                None => write!(text, ",NULL"),
            };
        }
        text.push_str(",x'");
        for byte in &row.stanza {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text.push_str("')");
        comma = ",";
    }
    if !rows.entries.is_empty() {
        text.push_str(";INSERT INTO archive_entry (owner_id, message_id, peer_id) VALUES ");
        comma = "";
        for (owner, message, peer) in &rows.entries {
            let _ = write!(text, "{comma}({owner},{message},{peer})");
            comma = ",";
        }
    }
    if !rows.offline.is_empty() {
        text.push_str(";INSERT INTO offline_message (owner_id, message_id) VALUES ");
        comma = "";
        for (owner, message) in &rows.offline {
            let _ = write!(text, "{comma}({owner},{message})");
            comma = ",";
        }
    }
    remove_marks(&mut text, &rows.delivered);
    text.push_str(";COMMIT");
    text
}

/// Owners whose marks one statement removes.
const OWNERS: usize = 100;

/// Removes marks, and messages that nobody keeps any more with them. By ranges of the primary keys, whatever the
/// optimiser thinks of a small table: a scan would wait for the locks of other batches.
fn remove_marks(text: &mut String, delivered: &[(i64, Vec<i64>)]) {
    for owners in delivered.chunks(OWNERS) {
        text.push_str(";DELETE o FROM offline_message o FORCE INDEX (PRIMARY) WHERE ");
        let mut or = "";
        for (owner, ids) in owners {
            let list = id_list(ids.iter().copied());
            let _ = write!(text, "{or}(o.owner_id={owner} AND o.message_id IN ({list}))");
            or = " OR ";
        }
    }
    if !delivered.is_empty() {
        let list = id_list(delivered.iter().flat_map(|(_, ids)| ids).copied());
        let _ = write!(
            text,
            ";DELETE m FROM message m FORCE INDEX (PRIMARY) WHERE m.id IN ({list}) \
             AND m.owner_a IS NULL AND m.owner_b IS NULL \
             AND NOT EXISTS (SELECT 1 FROM offline_message o WHERE o.message_id = m.id)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server_store::pipeline::MessageRow;
    use bytes::Bytes;

    #[test]
    fn a_batch_is_one_transaction_in_which_text_cannot_be_sql() {
        let rows = Rows {
            messages: vec![
                MessageRow { id: 5, owner_a: Some(1), owner_b: None, stanza: Bytes::from_static(b"');DROP") },
                MessageRow { id: 6, owner_a: None, owner_b: None, stanza: Bytes::new() },
            ],
            entries: vec![(1, 5, 2)],
            offline: vec![(3, 6)],
            delivered: vec![],
        };
        assert_eq!(
            statements(&rows),
            "BEGIN;INSERT INTO message (id, owner_a, owner_b, stanza) VALUES \
             (5,1,NULL,x'27293b44524f50'),(6,NULL,NULL,x'');\
             INSERT INTO archive_entry (owner_id, message_id, peer_id) VALUES (1,5,2);\
             INSERT INTO offline_message (owner_id, message_id) VALUES (3,6);COMMIT"
        );
    }

    #[test]
    fn marks_are_removed_by_key() {
        let rows = Rows { delivered: vec![(1, vec![5, 6]), (2, vec![7])], ..Rows::default() };
        let text = statements(&rows);
        let marks = "BEGIN;DELETE o FROM offline_message o FORCE INDEX (PRIMARY) WHERE \
            (o.owner_id=1 AND o.message_id IN (5,6)) OR (o.owner_id=2 AND o.message_id IN (7));DELETE m FROM message m";
        assert!(text.starts_with(marks), "{text}");
        assert!(
            text.contains("m.id IN (5,6,7) AND m.owner_a IS NULL") && text.ends_with(";COMMIT"),
            "{text}"
        );
    }
}
