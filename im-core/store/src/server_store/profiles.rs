//! Profiles in a database server.

/// Implements [`Profiles`](crate::Profiles) for a back end.
macro_rules! impl_profiles {
    ($Store:ty) => {
        impl crate::Profiles for $Store {
            async fn vcard(&self, owner: &str) -> Result<Option<String>, StoreError> {
                attempt!("reading a vCard", is_retryable, {
                    sqlx::query_scalar(sql::VCARD).bind(owner).fetch_optional(&self.inner.pool).await
                })
            }

            async fn set_vcard(&self, owner: &str, xml: &str) -> Result<(), StoreError> {
                crate::limits::address(owner)?;
                crate::limits::document(xml)?;
                attempt!("storing a vCard", is_retryable, {
                    sqlx::query(sql::SET_VCARD).bind(owner).bind(xml).execute(&self.inner.pool).await
                })?;
                Ok(())
            }

            async fn private_xml(
                &self,
                owner: &str,
                element: &str,
                namespace: &str,
            ) -> Result<Option<String>, StoreError> {
                attempt!("reading private XML", is_retryable, {
                    sqlx::query_scalar(sql::PRIVATE_XML)
                        .bind(owner)
                        .bind(element)
                        .bind(namespace)
                        .fetch_optional(&self.inner.pool)
                        .await
                })
            }

            async fn private_xml_count(&self, owner: &str) -> Result<u64, StoreError> {
                let count: i64 = attempt!("counting private XML", is_retryable, {
                    sqlx::query_scalar(sql::PRIVATE_XML_COUNT).bind(owner).fetch_one(&self.inner.pool).await
                })?;
                Ok(count as u64)
            }

            async fn set_private_xml(
                &self,
                owner: &str,
                element: &str,
                namespace: &str,
                xml: &str,
            ) -> Result<(), StoreError> {
                crate::limits::address(owner)?;
                crate::limits::element(element, namespace)?;
                crate::limits::document(xml)?;
                attempt!("storing private XML", is_retryable, {
                    sqlx::query(sql::SET_PRIVATE_XML)
                        .bind(owner)
                        .bind(element)
                        .bind(namespace)
                        .bind(xml)
                        .execute(&self.inner.pool)
                        .await
                })?;
                Ok(())
            }

            async fn blocked(&self, owner: &str) -> Result<Vec<String>, StoreError> {
                attempt!("reading a block list", is_retryable, {
                    sqlx::query_scalar(sql::BLOCKED).bind(owner).fetch_all(&self.inner.pool).await
                })
            }

            async fn block(&self, owner: &str, addresses: &[String]) -> Result<(), StoreError> {
                crate::limits::address(owner)?;
                addresses.iter().try_for_each(|address| crate::limits::address(address))?;
                attempt!("adding to a block list", is_retryable, {
                    let mut transaction = self.inner.pool.begin().await?;
                    for address in addresses {
                        sqlx::query(sql::BLOCK).bind(owner).bind(address).execute(&mut *transaction).await?;
                    }
                    transaction.commit().await
                })
            }

            async fn unblock(&self, owner: &str, addresses: &[String]) -> Result<(), StoreError> {
                attempt!("taking off a block list", is_retryable, {
                    let mut transaction = self.inner.pool.begin().await?;
                    if addresses.is_empty() {
                        sqlx::query(sql::UNBLOCK_ALL).bind(owner).execute(&mut *transaction).await?;
                    }
                    for address in addresses {
                        sqlx::query(sql::UNBLOCK)
                            .bind(owner)
                            .bind(address)
                            .execute(&mut *transaction)
                            .await?;
                    }
                    transaction.commit().await
                })
            }

            async fn archive_preferences(
                &self,
                owner: &str,
            ) -> Result<crate::ArchivePreferences, StoreError> {
                let step = "reading archive preferences";
                let default: Option<String> = attempt!(step, is_retryable, {
                    sqlx::query_scalar(sql::ARCHIVE_PREFERENCE)
                        .bind(owner)
                        .fetch_optional(&self.inner.pool)
                        .await
                })?;
                // Whoever never set any, which is nearly everybody, has no rules either.
                let Some(default) = default else { return Ok(crate::ArchivePreferences::default()) };
                let rules = attempt!(step, is_retryable, {
                    sqlx::query_as(sql::ARCHIVE_RULES).bind(owner).fetch_all(&self.inner.pool).await
                })?;
                Ok(crate::ArchivePreferences::from_rows(Some(&default), rules))
            }

            async fn set_archive_preferences(
                &self,
                owner: &str,
                preferences: &crate::ArchivePreferences,
            ) -> Result<(), StoreError> {
                crate::limits::address(owner)?;
                let rules = preferences.rules();
                rules.iter().try_for_each(|(peer, _)| crate::limits::address(peer))?;
                attempt!("storing archive preferences", is_retryable, {
                    let mut transaction = self.inner.pool.begin().await?;
                    sqlx::query(sql::SET_ARCHIVE_PREFERENCE)
                        .bind(owner)
                        .bind(preferences.default.as_str())
                        .execute(&mut *transaction)
                        .await?;
                    sqlx::query(sql::REMOVE_ARCHIVE_RULES).bind(owner).execute(&mut *transaction).await?;
                    for (peer, rule) in &rules {
                        sqlx::query(sql::ADD_ARCHIVE_RULE)
                            .bind(owner)
                            .bind(peer)
                            .bind(rule.as_str())
                            .execute(&mut *transaction)
                            .await?;
                    }
                    transaction.commit().await
                })
            }

            async fn last_activity(&self, owner: &str) -> Result<Option<crate::LastActivity>, StoreError> {
                let row: Option<(i64, String)> = attempt!("reading last activity", is_retryable, {
                    sqlx::query_as(sql::LAST_ACTIVITY).bind(owner).fetch_optional(&self.inner.pool).await
                })?;
                Ok(row.map(|(at, status)| crate::LastActivity { at, status }))
            }

            async fn set_last_activity(
                &self,
                owner: &str,
                activity: &crate::LastActivity,
            ) -> Result<(), StoreError> {
                crate::limits::address(owner)?;
                crate::limits::document(&activity.status)?;
                attempt!("storing last activity", is_retryable, {
                    sqlx::query(sql::SET_LAST_ACTIVITY)
                        .bind(owner)
                        .bind(activity.at)
                        .bind(&activity.status)
                        .execute(&self.inner.pool)
                        .await
                })?;
                Ok(())
            }
        }
    };
}
pub(crate) use impl_profiles;
