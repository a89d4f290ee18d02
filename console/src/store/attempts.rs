//! Failed sign-ins and the lock-out that follows them.
//!
//! An attempt is counted as a failure *before* the password is checked, in the transaction that asks for admission,
//! and forgiven when the password was right. So any number of attempts at the same moment cannot slip past the limit
//! while the slow hash is computed.

use super::{Store, StoreError};
use crate::auth::lockout::{self, Subject};
use rusqlite::{OptionalExtension, Transaction, params};

/// Answer to an attempt to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The password may be checked.
    Granted,
    /// Not before this many seconds have passed.
    Locked {
        /// Seconds to wait, at least 1.
        seconds: i64,
    },
}

impl Store {
    /// Counts an attempt against all its subjects, unless one of them is locked.
    pub fn admit(&self, subjects: &[Subject], now: i64) -> Result<Admission, StoreError> {
        self.with(|connection| {
            let transaction = connection.transaction()?;
            transaction.execute("DELETE FROM attempts WHERE last_at < ?1", [now - lockout::FORGET_AFTER])?;
            let mut wait = 0;
            for subject in subjects {
                let (_, locked_until) = row(&transaction, subject)?;
                wait = wait.max(locked_until - now);
            }
            if wait > 0 {
                transaction.commit()?;
                return Ok(Admission::Locked { seconds: wait });
            }
            for subject in subjects {
                let failures = row(&transaction, subject)?.0 + 1;
                let locked_until = now + lockout::delay_after(failures, subject.limit());
                transaction.execute(
                    "INSERT INTO attempts (subject, failures, last_at, locked_until) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (subject) DO UPDATE SET
                         failures = excluded.failures, last_at = excluded.last_at,
                         locked_until = excluded.locked_until",
                    params![subject.key(), failures, now, locked_until],
                )?;
            }
            transaction.commit()?;
            Ok(Admission::Granted)
        })
    }

    /// Forgets the failures of these subjects: the password was right.
    pub fn forgive(&self, subjects: &[Subject]) -> Result<(), StoreError> {
        self.with(|connection| {
            for subject in subjects {
                connection.execute("DELETE FROM attempts WHERE subject = ?1", [subject.key()])?;
            }
            Ok(())
        })
    }

    /// Forgets every failure: the administrator has proven on the host who is in charge.
    pub fn forgive_all(&self) -> Result<(), StoreError> {
        self.with(|connection| connection.execute("DELETE FROM attempts", []).map(drop))
    }
}

/// Failures and end of the lock of a subject; zeros when there is none.
fn row(transaction: &Transaction<'_>, subject: &Subject) -> rusqlite::Result<(i64, i64)> {
    Ok(transaction
        .query_row("SELECT failures, locked_until FROM attempts WHERE subject = ?1", [subject.key()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?
        .unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{Admission, Store};
    use crate::auth::lockout::{ADDRESS_LIMIT, FIRST_DELAY, FORGET_AFTER, Subject};

    fn subjects(address: &str) -> Vec<Subject> {
        Subject::of("admin", address.parse().unwrap()).into()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    #[test]
    fn locks_after_the_limit_with_a_growing_delay() {
        let (_folder, store) = store();
        let who = subjects("192.0.2.1");
        for _ in 0..ADDRESS_LIMIT {
            assert_eq!(store.admit(&who, 100).unwrap(), Admission::Granted);
        }
        assert_eq!(store.admit(&who, 100).unwrap(), Admission::Locked { seconds: FIRST_DELAY });
        assert_eq!(store.admit(&who, 100 + FIRST_DELAY).unwrap(), Admission::Granted);
        assert_eq!(
            store.admit(&who, 100 + FIRST_DELAY).unwrap(),
            Admission::Locked { seconds: 2 * FIRST_DELAY }
        );
    }

    #[test]
    fn a_lock_of_one_address_lets_another_in() {
        let (_folder, store) = store();
        for _ in 0..=ADDRESS_LIMIT {
            store.admit(&subjects("192.0.2.1"), 0).unwrap();
        }
        assert_eq!(store.admit(&subjects("192.0.2.2"), 0).unwrap(), Admission::Granted);
    }

    #[test]
    fn is_forgiven_by_the_right_password_and_forgotten_with_time() {
        let (_folder, store) = store();
        let who = subjects("192.0.2.1");
        for _ in 0..ADDRESS_LIMIT {
            store.admit(&who, 0).unwrap();
        }
        store.forgive(&who).unwrap();
        assert_eq!(store.admit(&who, 0).unwrap(), Admission::Granted);
        for _ in 0..ADDRESS_LIMIT {
            store.admit(&who, 0).unwrap();
        }
        assert_eq!(store.admit(&who, FORGET_AFTER + 1).unwrap(), Admission::Granted);
        assert_eq!(store.admit(&who, FORGET_AFTER + 1).unwrap(), Admission::Granted);
    }
}
