//! The archive and offline messages in SQLite.

use super::SqliteStore;
use super::accounts::{forget_owner, remove_message_if_orphaned};
use crate::domain::{Ack, Archive, ArchivePage, ArchiveQuery, ArchivedMessage, Budget, NewMessage, Offline};
use crate::{MessageId, StoreError};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

/// Entries expired in one transaction.
const CHUNK: i64 = 1000;

const OWNER: &str = "(SELECT id FROM address WHERE jid = ?1)";
const PEER: &str = "AND e.peer_id = (SELECT id FROM address WHERE jid = ?4)";

impl Archive for SqliteStore {
    async fn append(&self, message: NewMessage) -> Result<Ack, StoreError> {
        self.inner.writer.append(message).await
    }

    async fn query_archive(&self, owner: &str, query: &ArchiveQuery) -> Result<ArchivePage, StoreError> {
        let ids = query.checked_ids()?;
        let (owner, query) = (owner.to_owned(), query.clone());
        self.read("querying an archive", move |connection| {
            let transaction = connection.unchecked_transaction()?;
            for id in query.named() {
                if entry(&transaction, &owner, id.as_i64())?.is_none() {
                    return Ok(Err(StoreError::UnknownMessage(id)));
                }
            }
            match ids {
                Some(ids) => query_ids(&transaction, &owner, &query, ids),
                None => query_window(&transaction, &owner, &query).map(Ok),
            }
        })
        .await?
    }

    async fn archive_bounds(&self, owner: &str) -> Result<Option<(MessageId, MessageId)>, StoreError> {
        let owner = owner.to_owned();
        self.read("reading an archive's bounds", move |connection| {
            // Two subqueries, each one step in the index; min and max in one query would scan.
            let bounds: (Option<i64>, Option<i64>) = connection
                .prepare_cached(&format!(
                    "SELECT (SELECT min(message_id) FROM archive_entry WHERE owner_id = {OWNER}),
                            (SELECT max(message_id) FROM archive_entry WHERE owner_id = {OWNER})"
                ))?
                .query_row([owner], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(bounds
                .0
                .zip(bounds.1)
                .map(|(first, last)| (MessageId::from_i64(first), MessageId::from_i64(last))))
        })
        .await
    }

    async fn expire_archive(&self, owner: Option<&str>, before: i64) -> Result<u64, StoreError> {
        let step = "expiring an archive";
        let owner = owner.map(str::to_owned);
        let owners: Vec<i64> = self
            .read(step, move |connection| {
                connection
                    .prepare_cached("SELECT id FROM address WHERE ?1 IS NULL OR jid = ?1")?
                    .query_map([owner], |row| row.get(0))?
                    .collect()
            })
            .await?;
        let before = MessageId::first_at(before).as_i64();
        let mut expired = 0;
        for owner in owners {
            loop {
                let removed = self.write(step, move |connection| expire(connection, owner, before)).await?;
                expired += removed as u64;
                if (removed as i64) < CHUNK {
                    break;
                }
            }
        }
        Ok(expired)
    }
}

impl Offline for SqliteStore {
    async fn pending(
        &self,
        owner: &str,
        after: Option<MessageId>,
        limit: u32,
        bytes: usize,
    ) -> Result<Vec<ArchivedMessage>, StoreError> {
        // Before the read: see `confirm`.
        let confirmed = self.confirmations().of(owner);
        let owner = owner.to_owned();
        self.read("reading offline messages", move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT m.id, m.stanza FROM offline_message o JOIN message m ON m.id = o.message_id
                 WHERE o.owner_id = {OWNER} AND o.message_id > ?2 ORDER BY o.message_id"
            ))?;
            let mut rows = statement.query(params![owner, after.map_or(-1, MessageId::as_i64)])?;
            let (mut found, mut budget) = (Vec::new(), Budget::new(bytes));
            while found.len() < limit as usize
                && let Some(row) = rows.next()?
            {
                if confirmed.contains(&row.get(0)?) {
                    continue;
                }
                let message = message_from(row)?;
                if !budget.takes(message.stanza.len()) {
                    break;
                }
                found.push(message);
            }
            Ok(found)
        })
        .await
    }

    async fn pending_count(&self, owner: &str) -> Result<u64, StoreError> {
        let owner = owner.to_owned();
        self.read("counting offline messages", move |connection| {
            connection
                .prepare_cached(&format!("SELECT count(*) FROM offline_message WHERE owner_id = {OWNER}"))?
                .query_row([owner], |row| row.get::<_, i64>(0).map(|count| count as u64))
        })
        .await
    }

    async fn pending_owners(&self, since: i64, limit: u32) -> Result<Vec<String>, StoreError> {
        let since = MessageId::first_at(since).as_i64();
        self.read("looking for owners of offline messages", move |connection| {
            connection
                .prepare_cached(
                    "SELECT jid FROM address WHERE id IN (
                         SELECT owner_id FROM offline_message WHERE message_id >= ?1) LIMIT ?2",
                )?
                .query_map(params![since, limit], |row| row.get(0))?
                .collect()
        })
        .await
    }

    async fn settle(&self) -> Result<(), StoreError> {
        self.inner.writer.settle(None).await
    }

    async fn settle_for(&self, owner: &str) -> Result<(), StoreError> {
        self.inner.writer.settle(Some(owner)).await
    }
}

/// The peer of an entry.
fn entry(connection: &Connection, owner: &str, id: i64) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(&format!(
            "SELECT peer_id FROM archive_entry WHERE owner_id = {OWNER} AND message_id = ?2"
        ))?
        .query_row(params![owner, id], |row| row.get(0))
        .optional()
}

fn query_window(connection: &Connection, owner: &str, query: &ArchiveQuery) -> rusqlite::Result<ArchivePage> {
    let window = query.window();
    let peer = if query.with.is_some() { PEER } else { "" };
    let order = if window.descending { "DESC" } else { "ASC" };
    let limit = i64::from(query.max) + 1;
    let with: &dyn ToSql = &query.with;
    let bound = |after: &i64, before: &i64| (*after, *before);
    let (after, before) = bound(&window.after, &window.before);
    let mut parameters: Vec<&dyn ToSql> = vec![&owner, &after, &before];
    if query.with.is_some() {
        parameters.push(with);
    }
    parameters.push(&limit);
    let place = parameters.len();
    let mut statement = connection.prepare_cached(&format!(
        "SELECT e.message_id, m.stanza FROM archive_entry e JOIN message m ON m.id = e.message_id
         WHERE e.owner_id = {OWNER} AND e.message_id > ?2 AND e.message_id < ?3 {peer}
         ORDER BY e.message_id {order} LIMIT ?{place}"
    ))?;
    let mut rows = statement.query(&parameters[..])?;
    let (mut messages, mut budget, mut cut) = (Vec::new(), query.budget(), false);
    while let Some(row) = rows.next()? {
        let message = message_from(row)?;
        if !budget.takes(message.stanza.len()) {
            cut = true;
            break;
        }
        messages.push(message);
    }
    let count = if query.count {
        let (after, before) = bound(&window.count_after, &window.count_before);
        let mut parameters: Vec<&dyn ToSql> = vec![&owner, &after, &before];
        if query.with.is_some() {
            parameters.push(with);
        }
        let sql = format!(
            "SELECT count(*) FROM archive_entry e
             WHERE e.owner_id = {OWNER} AND e.message_id > ?2 AND e.message_id < ?3 {peer}"
        );
        Some(connection.prepare_cached(&sql)?.query_row(&parameters[..], |row| row.get::<_, i64>(0))? as u64)
    } else {
        None
    };
    Ok(query.finish(messages, cut, count))
}

fn query_ids(
    connection: &Connection,
    owner: &str,
    query: &ArchiveQuery,
    ids: Vec<i64>,
) -> rusqlite::Result<Result<ArchivePage, StoreError>> {
    let peer: Option<i64> = match &query.with {
        None => None,
        Some(with) => Some(
            connection
                .prepare_cached("SELECT id FROM address WHERE jid = ?1")?
                .query_row([with], |row| row.get(0))
                .optional()?
                .unwrap_or(-1),
        ),
    };
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        match entry(connection, owner, id)? {
            None => return Ok(Err(StoreError::UnknownMessage(MessageId::from_i64(id)))),
            Some(of) if peer.is_none_or(|peer| peer == of) => found.push(id),
            Some(_) => {}
        }
    }
    let count = query.count.then_some(found.len() as u64);
    let (ids, complete) = query.page_of(found);
    let (mut messages, mut budget, mut cut) = (Vec::with_capacity(ids.len()), query.budget(), false);
    for id in ids {
        let message = connection
            .prepare_cached("SELECT id, stanza FROM message WHERE id = ?1")?
            .query_row([id], message_from)?;
        if !budget.takes(message.stanza.len()) {
            cut = true;
            break;
        }
        messages.push(message);
    }
    Ok(Ok(ArchivePage { complete: complete && !cut, ..query.finish(messages, cut, count) }))
}

fn expire(connection: &Connection, owner: i64, before: i64) -> rusqlite::Result<usize> {
    let ids: Vec<i64> = connection
        .prepare_cached(
            "DELETE FROM archive_entry WHERE owner_id = ?1 AND message_id IN (
                 SELECT message_id FROM archive_entry WHERE owner_id = ?1 AND message_id < ?2
                 ORDER BY message_id LIMIT ?3)
             RETURNING message_id",
        )?
        .query_map(params![owner, before, CHUNK], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for id in &ids {
        remove_message_if_orphaned(connection, *id)?;
        forget_owner(connection, *id, owner)?;
    }
    Ok(ids.len())
}

fn message_from(row: &Row<'_>) -> rusqlite::Result<ArchivedMessage> {
    Ok(ArchivedMessage {
        id: MessageId::from_i64(row.get(0)?),
        stanza: Bytes::from(row.get::<_, Vec<u8>>(1)?),
    })
}
