//! Rosters in a database server. An edit locks the owner's row in `roster` first, so that edits of one roster
//! come one after the other, whichever node they come from.

/// Implements [`Rosters`](crate::Rosters) for a back end.
macro_rules! impl_rosters {
    ($Store:ty) => {
        type ItemRow = (String, Option<String>, String, String, bool, bool, Option<String>, bool);

        fn item_from(row: ItemRow) -> crate::RosterItem {
            crate::RosterItem {
                contact: row.0,
                name: row.1,
                groups: crate::domain::groups_from_text(&row.2),
                subscription: crate::Subscription::from_name(&row.3),
                ask: row.4,
                approved: row.5,
                pending_in: row.6,
                listed: row.7,
            }
        }

        impl crate::Rosters for $Store {
            async fn roster(&self, owner: &str) -> Result<crate::Roster, StoreError> {
                // The version first: should an edit come in between, the client takes a roster that is newer
                // than its version says for old, and asks once more.
                let version = crate::Rosters::roster_version(self, owner).await?;
                let rows: Vec<ItemRow> = attempt!("reading a roster", is_retryable, {
                    sqlx::query_as(sql::ROSTER_ITEMS).bind(owner).fetch_all(&self.inner.pool).await
                })?;
                Ok(crate::Roster { version, items: rows.into_iter().map(item_from).collect() })
            }

            async fn roster_version(&self, owner: &str) -> Result<u64, StoreError> {
                let version: Option<i64> = attempt!("reading a roster's version", is_retryable, {
                    sqlx::query_scalar(sql::ROSTER_VERSION).bind(owner).fetch_optional(&self.inner.pool).await
                })?;
                Ok(version.unwrap_or(0) as u64)
            }

            async fn roster_item(
                &self,
                owner: &str,
                contact: &str,
            ) -> Result<Option<crate::RosterItem>, StoreError> {
                let row: Option<ItemRow> = attempt!("reading a roster item", is_retryable, {
                    sqlx::query_as(sql::ROSTER_ITEM)
                        .bind(owner)
                        .bind(contact)
                        .fetch_optional(&self.inner.pool)
                        .await
                })?;
                Ok(row.map(item_from))
            }

            async fn edit_roster(
                &self,
                owner: &str,
                contact: &str,
                edit: crate::RosterEdit,
            ) -> Result<crate::RosterOutcome, StoreError> {
                crate::limits::address(owner)?;
                crate::limits::address(contact)?;
                let step = "editing a roster";
                // An edit whose commit may or may not have happened is not tried again: it would see its own work.
                let committing = std::sync::atomic::AtomicBool::new(false);
                let retry = |error: &sqlx::Error| match fault_of(error) {
                    Fault::Conflict => true,
                    Fault::Unreachable => !committing.load(std::sync::atomic::Ordering::Relaxed),
                    Fault::Duplicate | Fault::Permanent => false,
                };
                attempt!(step, retry, {
                    let mut transaction = self.inner.pool.begin().await?;
                    sqlx::query(sql::LOCK_ROSTER).bind(owner).execute(&mut *transaction).await?;
                    let version: i64 = sqlx::query_scalar(sql::ROSTER_VERSION)
                        .bind(owner)
                        .fetch_one(&mut *transaction)
                        .await?;
                    let before: Option<ItemRow> = sqlx::query_as(sql::ROSTER_ITEM)
                        .bind(owner)
                        .bind(contact)
                        .fetch_optional(&mut *transaction)
                        .await?;
                    let before = before.map(item_from);
                    let after = match edit.apply(before.as_ref()) {
                        crate::RosterChange::Keep => before.clone(),
                        crate::RosterChange::Put(item) => {
                            Some(crate::RosterItem { contact: contact.to_owned(), ..item })
                        }
                        crate::RosterChange::Remove => None,
                    };
                    let changed = before != after;
                    let version = version as u64 + u64::from(changed);
                    if changed {
                        sqlx::query(sql::BUMP_ROSTER).bind(owner).execute(&mut *transaction).await?;
                        match &after {
                            Some(item) => {
                                sqlx::query(sql::PUT_ROSTER_ITEM)
                                    .bind(owner)
                                    .bind(&item.contact)
                                    .bind(&item.name)
                                    .bind(crate::domain::groups_to_text(&item.groups))
                                    .bind(item.subscription.as_str())
                                    .bind(item.ask)
                                    .bind(item.approved)
                                    .bind(&item.pending_in)
                                    .bind(item.listed)
                                    .execute(&mut *transaction)
                                    .await?;
                            }
                            None => {
                                sqlx::query(sql::REMOVE_ROSTER_ITEM)
                                    .bind(owner)
                                    .bind(contact)
                                    .execute(&mut *transaction)
                                    .await?;
                            }
                        }
                    }
                    committing.store(changed, std::sync::atomic::Ordering::Relaxed);
                    transaction.commit().await?;
                    Ok(crate::RosterOutcome { before, after, version, changed })
                })
            }
        }
    };
}
pub(crate) use impl_rosters;
