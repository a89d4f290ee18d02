//! Health, statistics and settings in a database server.

/// Implements [`Housekeeping`](crate::Housekeeping) for a back end.
macro_rules! impl_housekeeping {
    ($Store:ty) => {
        impl crate::Housekeeping for $Store {
            async fn ping(&self) -> Result<(), StoreError> {
                let step = "checking health";
                let deadline = std::time::Duration::from_secs(5);
                // Changes nothing, and fails where the server has become read-only.
                let check =
                    async { sqlx::query(sql::PING).execute(&self.inner.pool).await.map_err(failed(step)) };
                tokio::time::timeout(deadline, check).await.map_err(|_| StoreError::Timeout {
                    backend: NAME,
                    step,
                    seconds: deadline.as_secs(),
                })??;
                Ok(())
            }

            async fn statistics(&self) -> Result<crate::Statistics, StoreError> {
                let mut counts = [0_u64; 4];
                for (count, statement) in counts.iter_mut().zip(sql::STATISTICS) {
                    let number: i64 = attempt!("counting", is_retryable, {
                        sqlx::query_scalar(*statement).fetch_one(&self.inner.pool).await
                    })?;
                    *count = number as u64;
                }
                let [accounts, accounts_disabled, offline_messages, database_bytes] = counts;
                Ok(crate::Statistics { accounts, accounts_disabled, offline_messages, database_bytes })
            }

            async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
                attempt!("reading a setting", is_retryable, {
                    sqlx::query_scalar(sql::SETTING).bind(name).fetch_optional(&self.inner.pool).await
                })
            }

            async fn setting_or_insert(&self, name: &str, value: &str) -> Result<String, StoreError> {
                crate::limits::address(name)?;
                crate::limits::document(value)?;
                attempt!("storing a setting", is_retryable, {
                    sqlx::query(sql::INSERT_SETTING).bind(name).bind(value).execute(&self.inner.pool).await?;
                    sqlx::query_scalar(sql::SETTING).bind(name).fetch_one(&self.inner.pool).await
                })
            }

            async fn set_setting(&self, name: &str, value: &str) -> Result<(), StoreError> {
                crate::limits::address(name)?;
                crate::limits::document(value)?;
                attempt!("storing a setting", is_retryable, {
                    sqlx::query(sql::SET_SETTING).bind(name).bind(value).execute(&self.inner.pool).await
                })?;
                Ok(())
            }

            async fn close(&self) -> Result<(), StoreError> {
                let deadline = std::time::Duration::from_secs(10);
                let close = async {
                    self.inner.pipeline.close().await;
                    self.inner.pool.close().await;
                };
                let step = "closing";
                tokio::time::timeout(deadline, close).await.map_err(|_| StoreError::Timeout {
                    backend: NAME,
                    step,
                    seconds: deadline.as_secs(),
                })
            }
        }
    };
}
pub(crate) use impl_housekeeping;
