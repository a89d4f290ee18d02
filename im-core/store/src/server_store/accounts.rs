//! Accounts in a database server.

/// Implements [`Accounts`](crate::Accounts) for a back end.
macro_rules! impl_accounts {
    ($Store:ty) => {
        type AccountRow = (String, String, Option<String>, bool, i64);
        type SignInRow = (Vec<u8>, i64, Vec<u8>, Vec<u8>, Vec<u8>, i64, Vec<u8>, Vec<u8>, bool, String);

        fn account_from(row: AccountRow) -> crate::Account {
            let (address, kind, display_name, disabled, created_at) = row;
            let kind = crate::AccountKind::from_name(&kind);
            crate::Account { address, kind, display_name, disabled, created_at }
        }

        fn keys_from(
            salt: Vec<u8>,
            iterations: i64,
            stored_key: Vec<u8>,
            server_key: Vec<u8>,
        ) -> crate::ScramKeys {
            crate::ScramKeys {
                salt,
                iterations: u32::try_from(iterations).unwrap_or(u32::MAX),
                stored_key,
                server_key,
            }
        }

        impl crate::Accounts for $Store {
            async fn create_account(&self, account: &crate::NewAccount) -> Result<bool, StoreError> {
                crate::limits::address(&account.address)?;
                let step = "creating an account";
                let (sha1, sha256) = (&account.credentials.sha1, &account.credentials.sha256);
                let mut tries = 0;
                let made = attempt!(step, is_retryable, {
                    tries += 1;
                    let inserted = sqlx::query(sql::CREATE_ACCOUNT)
                        .bind(&account.address)
                        .bind(account.kind.as_str())
                        .bind(&account.display_name)
                        .bind(crate::id::now_ms())
                        .bind(&sha1.salt[..])
                        .bind(i64::from(sha1.iterations))
                        .bind(&sha1.stored_key[..])
                        .bind(&sha1.server_key[..])
                        .bind(&sha256.salt[..])
                        .bind(i64::from(sha256.iterations))
                        .bind(&sha256.stored_key[..])
                        .bind(&sha256.server_key[..])
                        .execute(&self.inner.pool)
                        .await;
                    match inserted {
                        Ok(_) => Ok(true),
                        Err(error) if fault_of(&error) == Fault::Duplicate => Ok(false),
                        Err(error) => Err(error),
                    }
                })?;
                if made || tries == 1 {
                    return Ok(made);
                }
                // A connection lost at the wrong moment makes the second try find what the first one made: the
                // salt is random, so these very keys are nobody else's.
                let found = crate::Accounts::sign_in(self, &account.address).await?;
                Ok(found.is_some_and(|found| found.credentials == account.credentials))
            }

            async fn account(&self, address: &str) -> Result<Option<crate::Account>, StoreError> {
                let row: Option<AccountRow> = attempt!("reading an account", is_retryable, {
                    sqlx::query_as(sql::ACCOUNT).bind(address).fetch_optional(&self.inner.pool).await
                })?;
                Ok(row.map(account_from))
            }

            async fn sign_in(&self, address: &str) -> Result<Option<crate::SignIn>, StoreError> {
                let row: Option<SignInRow> = attempt!("reading credentials", is_retryable, {
                    sqlx::query_as(sql::SIGN_IN).bind(address).fetch_optional(&self.inner.pool).await
                })?;
                Ok(row.map(|row| crate::SignIn {
                    credentials: crate::Credentials {
                        sha1: keys_from(row.0, row.1, row.2, row.3),
                        sha256: keys_from(row.4, row.5, row.6, row.7),
                    },
                    disabled: row.8,
                    kind: crate::AccountKind::from_name(&row.9),
                }))
            }

            async fn set_credentials(
                &self,
                address: &str,
                credentials: &crate::Credentials,
            ) -> Result<bool, StoreError> {
                let (sha1, sha256) = (&credentials.sha1, &credentials.sha256);
                let done = attempt!("replacing credentials", is_retryable, {
                    sqlx::query(sql::SET_CREDENTIALS)
                        .bind(&sha1.salt[..])
                        .bind(i64::from(sha1.iterations))
                        .bind(&sha1.stored_key[..])
                        .bind(&sha1.server_key[..])
                        .bind(&sha256.salt[..])
                        .bind(i64::from(sha256.iterations))
                        .bind(&sha256.stored_key[..])
                        .bind(&sha256.server_key[..])
                        .bind(address)
                        .execute(&self.inner.pool)
                        .await
                })?;
                Ok(done.rows_affected() == 1)
            }

            async fn set_disabled(&self, address: &str, disabled: bool) -> Result<bool, StoreError> {
                let done = attempt!("disabling or enabling an account", is_retryable, {
                    sqlx::query(sql::SET_DISABLED)
                        .bind(disabled)
                        .bind(address)
                        .execute(&self.inner.pool)
                        .await
                })?;
                Ok(done.rows_affected() == 1)
            }

            async fn remove_account(&self, address: &str) -> Result<bool, StoreError> {
                let step = "removing an account";
                if !crate::Accounts::begin_removal(self, address).await? {
                    return Ok(false);
                }
                let owner: Option<i64> = attempt!(step, is_retryable, {
                    sqlx::query_scalar(sql::ADDRESS_ID).bind(address).fetch_optional(&self.inner.pool).await
                })?;
                if let Some(owner) = owner {
                    for (entries, table) in
                        [(sql::SOME_ENTRIES, "archive_entry"), (sql::SOME_OFFLINE, "offline_message")]
                    {
                        while self.remove_chunk(step, entries, table, owner, i64::MAX).await? > 0 {}
                    }
                }
                attempt!(step, is_retryable, {
                    let mut transaction = self.inner.pool.begin().await?;
                    for statement in sql::REMOVE_OWNED {
                        sqlx::query(*statement).bind(address).execute(&mut *transaction).await?;
                    }
                    transaction.commit().await
                })?;
                Ok(true)
            }

            async fn begin_removal(&self, address: &str) -> Result<bool, StoreError> {
                let found = attempt!("locking an account", is_retryable, {
                    sqlx::query(sql::LOCK_ACCOUNT).bind(address).execute(&self.inner.pool).await
                })?;
                Ok(found.rows_affected() > 0)
            }

            async fn unfinished_removals(&self) -> Result<Vec<String>, StoreError> {
                attempt!("looking for unfinished removals", is_retryable, {
                    sqlx::query_scalar(sql::UNFINISHED_REMOVALS).fetch_all(&self.inner.pool).await
                })
            }

            async fn refused_accounts(&self, addresses: &[String]) -> Result<Vec<String>, StoreError> {
                if addresses.is_empty() {
                    return Ok(Vec::new());
                }
                let welcome: Vec<String> = attempt!("looking for refused accounts", is_retryable, {
                    let mut select = sqlx::QueryBuilder::<Database>::new(
                        "SELECT address FROM account WHERE NOT disabled AND NOT removing AND address IN (",
                    );
                    let mut list = select.separated(", ");
                    for address in addresses {
                        list.push_bind(address);
                    }
                    select.push(")");
                    select.build_query_scalar().persistent(false).fetch_all(&self.inner.pool).await
                })?;
                let welcome: std::collections::HashSet<String> = welcome.into_iter().collect();
                Ok(addresses.iter().filter(|address| !welcome.contains(*address)).cloned().collect())
            }

            async fn list_accounts(
                &self,
                filter: &crate::AccountFilter,
            ) -> Result<Vec<crate::Account>, StoreError> {
                let rows: Vec<AccountRow> = attempt!("listing accounts", is_retryable, {
                    sqlx::query_as(sql::LIST_ACCOUNTS)
                        .bind(filter.after.as_deref().unwrap_or_default())
                        .bind(filter.kind.as_str())
                        .bind(filter.contains.as_deref().unwrap_or_default())
                        .bind(filter.contains.as_deref().unwrap_or_default())
                        .bind(filter.created_before.unwrap_or(i64::MAX))
                        .bind(i64::from(filter.limit.clamp(1, 1000)))
                        .fetch_all(&self.inner.pool)
                        .await
                })?;
                Ok(rows.into_iter().map(account_from).collect())
            }
        }
    };
}
pub(crate) use impl_accounts;
