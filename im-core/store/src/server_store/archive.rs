//! The archive and offline messages in a database server, all but appending.

/// Implements [`Archive`](crate::Archive) and [`Offline`](crate::Offline) for a back end.
macro_rules! impl_archive {
    ($Store:ty) => {
        /// Rows removed in one transaction.
        const CHUNK: i64 = 1000;

        fn message_from((id, stanza): (i64, Vec<u8>)) -> crate::ArchivedMessage {
            crate::ArchivedMessage { id: crate::MessageId::from_i64(id), stanza: bytes::Bytes::from(stanza) }
        }

        impl $Store {
            async fn address_id(&self, step: &'static str, jid: &str) -> Result<Option<i64>, StoreError> {
                attempt!(step, is_retryable, {
                    sqlx::query_scalar(sql::ADDRESS_ID).bind(jid).fetch_optional(&self.inner.pool).await
                })
            }

            /// Which of `ids` are in the archive of `owner`, each with its peer.
            async fn entries(&self, step: &'static str, owner: i64, ids: &[i64]) -> Result<Vec<(i64, i64)>, StoreError> {
                if ids.is_empty() {
                    return Ok(Vec::new());
                }
                let list = crate::server_store::id_list(ids.iter().copied());
                attempt!(step, is_retryable, {
                    let statement = format!(
                        "SELECT message_id, peer_id FROM archive_entry
                         WHERE owner_id = {owner} AND message_id IN ({list}) ORDER BY message_id"
                    );
                    sqlx::query_as(sqlx::AssertSqlSafe(statement))
                        .persistent(false)
                        .fetch_all(&self.inner.pool)
                        .await
                })
            }

            /// Removes some rows of `table` that belong to `owner` and are older than `before`, and messages that
            /// nobody needs any more with them.
            async fn remove_chunk(
                &self,
                step: &'static str,
                select: &'static str,
                table: &'static str,
                owner: i64,
                before: i64,
            ) -> Result<usize, StoreError> {
                attempt!(step, is_retryable, {
                    let ids: Vec<i64> = sqlx::query_scalar(select)
                        .bind(owner)
                        .bind(before)
                        .bind(CHUNK)
                        .fetch_all(&self.inner.pool)
                        .await?;
                    self.remove_rows(table, owner, &ids).await?;
                    Ok(ids.len())
                })
            }

            async fn remove_rows(&self, table: &'static str, owner: i64, ids: &[i64]) -> Result<(), sqlx::Error> {
                if ids.is_empty() {
                    return Ok(());
                }
                let list = crate::server_store::id_list(ids.iter().copied());
                let remove = format!("DELETE FROM {table} WHERE owner_id = {owner} AND message_id IN ({list})");
                let remove_orphans = format!(
                    "DELETE FROM message WHERE id IN ({list})
                       AND NOT EXISTS (SELECT 1 FROM archive_entry e
                                       WHERE e.owner_id = message.owner_a AND e.message_id = message.id)
                       AND NOT EXISTS (SELECT 1 FROM archive_entry e
                                       WHERE e.owner_id = message.owner_b AND e.message_id = message.id)
                       AND NOT EXISTS (SELECT 1 FROM offline_message o WHERE o.message_id = message.id)"
                );
                // Who removes the mark of one that still awaits delivery sees by its owners whether anybody keeps it.
                let forget_owner = format!(
                    "UPDATE message SET owner_a = CASE WHEN owner_a = {owner} THEN NULL ELSE owner_a END,
                                        owner_b = CASE WHEN owner_b = {owner} THEN NULL ELSE owner_b END
                     WHERE id IN ({list})
                       AND EXISTS (SELECT 1 FROM offline_message o WHERE o.message_id = message.id)"
                );
                let mut transaction = self.inner.pool.begin().await?;
                for statement in [remove, remove_orphans, forget_owner] {
                    sqlx::query(sqlx::AssertSqlSafe(statement)).persistent(false).execute(&mut *transaction).await?;
                }
                transaction.commit().await
            }

            async fn query_window(
                &self,
                step: &'static str,
                owner: i64,
                peer: Option<i64>,
                query: &crate::ArchiveQuery,
                bound: i64,
            ) -> Result<crate::ArchivePage, StoreError> {
                let window = query.window();
                let statement = match (peer.is_some(), window.descending) {
                    (false, false) => sql::ARCHIVE_ASCENDING,
                    (false, true) => sql::ARCHIVE_DESCENDING,
                    (true, false) => sql::ARCHIVE_WITH_ASCENDING,
                    (true, true) => sql::ARCHIVE_WITH_DESCENDING,
                };
                let (messages, cut) = attempt!(step, is_retryable, {
                    let select =
                        sqlx::query_as(statement).bind(owner).bind(window.after).bind(window.before.min(bound));
                    let select = if let Some(peer) = peer { select.bind(peer) } else { select };
                    let select = select.bind(i64::from(query.max) + 1);
                    let mut rows = select.fetch(&self.inner.pool);
                    let (mut found, mut budget, mut cut) = (Vec::new(), query.budget(), false);
                    let mut end = Ok(());
                    while let Some(row) = futures_util::StreamExt::next(&mut rows).await {
                        match row {
                            Ok(row) => {
                                let message = message_from(row);
                                if !budget.takes(message.stanza.len()) {
                                    cut = true;
                                    break;
                                }
                                found.push(message);
                            }
                            Err(error) => {
                                end = Err(error);
                                break;
                            }
                        }
                    }
                    end.map(|()| (found, cut))
                })?;
                let mut count = None;
                if query.count {
                    let statement = if peer.is_some() { sql::ARCHIVE_WITH_COUNT } else { sql::ARCHIVE_COUNT };
                    let number: i64 = attempt!(step, is_retryable, {
                        let select = sqlx::query_scalar(statement)
                            .bind(owner)
                            .bind(window.count_after)
                            .bind(window.count_before.min(bound));
                        let select = if let Some(peer) = peer { select.bind(peer) } else { select };
                        select.fetch_one(&self.inner.pool).await
                    })?;
                    count = Some(number as u64);
                }
                Ok(query.finish(messages, cut, count))
            }

            async fn query_ids(
                &self,
                step: &'static str,
                owner: i64,
                peer: Option<i64>,
                query: &crate::ArchiveQuery,
                ids: Vec<i64>,
            ) -> Result<crate::ArchivePage, StoreError> {
                let entries = self.entries(step, owner, &ids).await?;
                if let Some(missing) = ids.iter().find(|id| entries.binary_search_by_key(*id, |entry| entry.0).is_err()) {
                    return Err(StoreError::UnknownMessage(crate::MessageId::from_i64(*missing)));
                }
                let found: Vec<i64> = entries
                    .into_iter()
                    .filter(|(_, of)| peer.is_none_or(|peer| peer == *of))
                    .map(|(id, _)| id)
                    .collect();
                let count = query.count.then_some(found.len() as u64);
                let (page, complete) = query.page_of(found);
                let mut rows: Vec<(i64, Vec<u8>)> = Vec::new();
                // A few at a time, so that a page with large stanzas ends early without reading all of them.
                let (mut messages, mut budget, mut cut) = (Vec::new(), query.budget(), false);
                for some in page.chunks(20) {
                    let order = if query.window().descending { "DESC" } else { "ASC" };
                    let list = crate::server_store::id_list(some.iter().copied());
                    rows.extend(attempt!(step, is_retryable, {
                        let statement = format!("SELECT id, stanza FROM message WHERE id IN ({list}) ORDER BY id {order}");
                        sqlx::query_as::<_, (i64, Vec<u8>)>(sqlx::AssertSqlSafe(statement))
                            .persistent(false)
                            .fetch_all(&self.inner.pool)
                            .await
                    })?);
                    for row in rows.drain(..) {
                        cut |= !budget.takes(row.1.len());
                        if !cut {
                            messages.push(message_from(row));
                        }
                    }
                    if cut {
                        break;
                    }
                }
                let page = query.finish(messages, cut, count);
                Ok(crate::ArchivePage { complete: complete && !cut, ..page })
            }
        }

        impl crate::Archive for $Store {
            async fn append(&self, message: crate::NewMessage) -> Result<crate::Ack, StoreError> {
                self.inner.pipeline.append(message).await
            }

            async fn query_archive(
                &self,
                owner: &str,
                query: &crate::ArchiveQuery,
            ) -> Result<crate::ArchivePage, StoreError> {
                let step = "querying an archive";
                let ids = query.checked_ids()?;
                // Somebody without a number has no archive: -1 is nobody's.
                let owner = self.address_id(step, owner).await?.unwrap_or(-1);
                let peer = match &query.with {
                    Some(with) => Some(self.address_id(step, with).await?.unwrap_or(-1)),
                    None => None,
                };
                let named = query.named();
                let known = self.entries(step, owner, &named.iter().map(|id| id.as_i64()).collect::<Vec<_>>()).await?;
                if let Some(unknown) = named.iter().find(|id| !known.iter().any(|(known, _)| *known == id.as_i64())) {
                    return Err(StoreError::UnknownMessage(*unknown));
                }
                if let Some(ids) = ids {
                    return self.query_ids(step, owner, peer, query, ids).await;
                }
                let mut bound = None;
                loop {
                    let horizon = self.inner.pipeline.horizon();
                    let page =
                        self.query_window(step, owner, peer, query, bound.unwrap_or(horizon.lowest)).await?;
                    match horizon.first_unsettled(page.messages.iter().map(|message| message.id)) {
                        // A batch was begun and committed in between: another, begun earlier, may follow it.
                        Some(unsettled) if bound.is_none() => bound = Some(unsettled),
                        _ => return Ok(page),
                    }
                }
            }

            async fn archive_bounds(
                &self,
                owner: &str,
            ) -> Result<Option<(crate::MessageId, crate::MessageId)>, StoreError> {
                let step = "reading an archive's bounds";
                let Some(owner) = self.address_id(step, owner).await? else { return Ok(None) };
                let bound = self.inner.pipeline.horizon().lowest;
                let (first, last): (Option<i64>, Option<i64>) = attempt!(step, is_retryable, {
                    sqlx::query_as(sql::ARCHIVE_BOUNDS).bind(owner).bind(bound).fetch_one(&self.inner.pool).await
                })?;
                let id = crate::MessageId::from_i64;
                Ok(first.zip(last).map(|(first, last)| (id(first), id(last))))
            }

            async fn expire_archive(&self, owner: Option<&str>, before: i64) -> Result<u64, StoreError> {
                let step = "expiring an archive";
                let owners: Vec<i64> = match owner {
                    Some(owner) => self.address_id(step, owner).await?.into_iter().collect(),
                    None => attempt!(step, is_retryable, {
                        sqlx::query_scalar(sql::ALL_ADDRESS_IDS).fetch_all(&self.inner.pool).await
                    })?,
                };
                let before = crate::MessageId::first_at(before).as_i64();
                let mut expired = 0;
                for owner in owners {
                    loop {
                        let removed =
                            self.remove_chunk(step, sql::SOME_ENTRIES, "archive_entry", owner, before).await?;
                        expired += removed as u64;
                        if (removed as i64) < CHUNK {
                            break;
                        }
                    }
                }
                Ok(expired)
            }
        }

        impl $Store {
            /// Queues confirmations of deliveries.
            pub(crate) fn confirm(&self, owner: &str, ids: &[crate::MessageId]) {
                self.inner.pipeline.confirm(owner, ids);
            }

            /// What was confirmed and is not yet on disk.
            pub(crate) fn confirmations(&self) -> &crate::confirm::Confirmations {
                self.inner.pipeline.confirmations()
            }
        }

        impl crate::Offline for $Store {
            async fn pending(
                &self,
                owner: &str,
                after: Option<crate::MessageId>,
                limit: u32,
                bytes: usize,
            ) -> Result<Vec<crate::ArchivedMessage>, StoreError> {
                let step = "reading offline messages";
                let mut after = after.map_or(-1, crate::MessageId::as_i64);
                loop {
                    // Both before the read: see `confirm` and `horizon`.
                    let confirmed = self.confirmations().of(owner);
                    let horizon = self.inner.pipeline.horizon();
                    let rows: Vec<(i64, Vec<u8>)> = attempt!(step, is_retryable, {
                        let mut rows = sqlx::query_as(sql::PENDING)
                            .bind(owner)
                            .bind(after)
                            .bind(i64::from(limit))
                            .fetch(&self.inner.pool);
                        let (mut found, mut budget) = (Vec::new(), crate::domain::Budget::new(bytes));
                        let mut end = Ok(());
                        while let Some(row) = futures_util::StreamExt::next(&mut rows).await {
                            let row: (i64, Vec<u8>) = match row {
                                Ok(row) => row,
                                Err(error) => {
                                    end = Err(error);
                                    break;
                                }
                            };
                            if !budget.takes(row.1.len()) {
                                break;
                            }
                            found.push(row);
                        }
                        end.map(|()| found)
                    })?;
                    let settled = rows.partition_point(|row| horizon.is_settled(row.0));
                    let unsettled = settled < rows.len();
                    let Some(last) = rows[..settled].last().map(|row| row.0) else {
                        if unsettled {
                            // What comes before the first of them is committed within moments.
                            self.inner.pipeline.wait_for(&horizon).await;
                            continue;
                        }
                        return Ok(Vec::new());
                    };
                    let found: Vec<_> = rows
                        .into_iter()
                        .take(settled)
                        .filter(|row| !confirmed.contains(&row.0))
                        .map(message_from)
                        .collect();
                    if !found.is_empty() {
                        return Ok(found);
                    }
                    after = last;
                }
            }

            async fn pending_count(&self, owner: &str) -> Result<u64, StoreError> {
                let count: i64 = attempt!("counting offline messages", is_retryable, {
                    sqlx::query_scalar(sql::PENDING_COUNT).bind(owner).fetch_one(&self.inner.pool).await
                })?;
                Ok(count as u64)
            }

            async fn pending_owners(&self, since: i64, limit: u32) -> Result<Vec<String>, StoreError> {
                attempt!("looking for owners of offline messages", is_retryable, {
                    sqlx::query_scalar(sql::PENDING_OWNERS)
                        .bind(crate::MessageId::first_at(since).as_i64())
                        .bind(i64::from(limit))
                        .fetch_all(&self.inner.pool)
                        .await
                })
            }

            async fn settle(&self) -> Result<(), StoreError> {
                self.settled(None).await
            }

            async fn settle_for(&self, owner: &str) -> Result<(), StoreError> {
                self.settled(Some(owner)).await
            }
        }

        impl $Store {
            async fn settled(&self, owner: Option<&str>) -> Result<(), StoreError> {
                let step = "noting deliveries";
                let deadline = crate::server_store::DEADLINE;
                tokio::time::timeout(deadline, self.inner.pipeline.settle(owner)).await.map_err(|_| {
                    StoreError::Timeout { backend: NAME, step, seconds: deadline.as_secs() }
                })
            }
        }
    };
}
pub(crate) use impl_archive;
