//! Sessions. Only a digest of the token is stored, so that a copy of the database lets nobody in.

use super::{Store, StoreError};
use rusqlite::{OptionalExtension, params};

/// SHA-256 of a session token.
pub type TokenDigest = [u8; 32];

/// Sessions kept per administrator; the oldest make room.
const PER_ADMINISTRATOR: i64 = 20;

/// A use is noted at most this often (seconds), to spare a write for every request.
const TOUCH_AFTER: i64 = 30;

/// One session. Times in Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Digest of its token.
    pub digest: TokenDigest,
    /// Whose it is.
    pub administrator: String,
    /// When it began.
    pub created_at: i64,
    /// When a person last used it.
    pub used_at: i64,
    /// Where it was opened from.
    pub address: String,
    /// The browser as it named itself, shortened.
    pub browser: String,
}

impl Store {
    /// Opens a session and removes those that make room for it.
    pub fn open_session(
        &self,
        digest: &TokenDigest,
        administrator_id: i64,
        now: i64,
        address: &str,
        browser: &str,
    ) -> Result<(), StoreError> {
        self.with(|connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "INSERT INTO sessions (token_digest, administrator_id, created_at, used_at, address, browser)
                 VALUES (?1, ?2, ?3, ?3, ?4, ?5)",
                params![digest.as_slice(), administrator_id, now, address, browser],
            )?;
            transaction.execute(
                "DELETE FROM sessions WHERE administrator_id = ?1 AND token_digest NOT IN (
                     SELECT token_digest FROM sessions WHERE administrator_id = ?1
                     ORDER BY created_at DESC, token_digest = ?3 DESC LIMIT ?2)",
                params![administrator_id, PER_ADMINISTRATOR, digest.as_slice()],
            )?;
            transaction.commit()
        })
    }

    /// The living session with this digest. `touch` notes the use (a page that refreshes itself is no use).
    pub fn session(
        &self,
        digest: &TokenDigest,
        now: i64,
        idle: i64,
        absolute: i64,
        touch: bool,
    ) -> Result<Option<Session>, StoreError> {
        let digest = *digest;
        self.with(|connection| {
            let found = connection
                .query_row(
                    "SELECT a.name, s.created_at, s.used_at, s.address, s.browser
                     FROM sessions s JOIN administrators a ON a.id = s.administrator_id
                     WHERE s.token_digest = ?1 AND s.used_at > ?2 AND s.created_at > ?3",
                    params![digest.as_slice(), now - idle, now - absolute],
                    |row| {
                        Ok(Session {
                            digest,
                            administrator: row.get(0)?,
                            created_at: row.get(1)?,
                            used_at: row.get(2)?,
                            address: row.get(3)?,
                            browser: row.get(4)?,
                        })
                    },
                )
                .optional()?;
            if let Some(session) = &found
                && touch
                && now - session.used_at >= TOUCH_AFTER
            {
                connection.execute(
                    "UPDATE sessions SET used_at = ?2 WHERE token_digest = ?1",
                    params![digest.as_slice(), now],
                )?;
            }
            Ok(found)
        })
    }

    /// Living sessions of an administrator, newest first.
    pub fn sessions_of(
        &self,
        administrator: &str,
        now: i64,
        idle: i64,
        absolute: i64,
    ) -> Result<Vec<Session>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT s.token_digest, a.name, s.created_at, s.used_at, s.address, s.browser
                 FROM sessions s JOIN administrators a ON a.id = s.administrator_id
                 WHERE a.name = ?1 AND s.used_at > ?2 AND s.created_at > ?3
                 ORDER BY s.created_at DESC",
            )?;
            let rows = statement.query_map(params![administrator, now - idle, now - absolute], |row| {
                Ok(Session {
                    digest: row.get(0)?,
                    administrator: row.get(1)?,
                    created_at: row.get(2)?,
                    used_at: row.get(3)?,
                    address: row.get(4)?,
                    browser: row.get(5)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Ends one session.
    pub fn close_session(&self, digest: &TokenDigest) -> Result<(), StoreError> {
        self.with(|connection| {
            connection.execute("DELETE FROM sessions WHERE token_digest = ?1", [digest.as_slice()])?;
            Ok(())
        })
    }

    /// Ends every session of an administrator but the given one.
    pub fn close_other_sessions(&self, administrator: &str, keep: &TokenDigest) -> Result<usize, StoreError> {
        self.with(|connection| {
            connection.execute(
                "DELETE FROM sessions WHERE token_digest <> ?2
                 AND administrator_id = (SELECT id FROM administrators WHERE name = ?1)",
                params![administrator, keep.as_slice()],
            )
        })
    }

    /// Removes what expired.
    pub fn sweep_sessions(&self, now: i64, idle: i64, absolute: i64) -> Result<usize, StoreError> {
        self.with(|connection| {
            connection.execute(
                "DELETE FROM sessions WHERE used_at <= ?1 OR created_at <= ?2",
                params![now - idle, now - absolute],
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{PER_ADMINISTRATOR, Store};

    const IDLE: i64 = 1800;
    const ABSOLUTE: i64 = 43_200;

    fn store() -> (tempfile::TempDir, Store, i64) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.add_administrator("admin", "h", 0).unwrap();
        let id = store.administrator("admin").unwrap().unwrap().id;
        (folder, store, id)
    }

    #[test]
    fn expires_by_idleness_and_by_age() {
        let (_folder, store, id) = store();
        let digest = [7; 32];
        store.open_session(&digest, id, 1000, "192.0.2.1", "b").unwrap();
        let alive = |now, touch| store.session(&digest, now, IDLE, ABSOLUTE, touch).unwrap().is_some();
        assert!(alive(1000 + IDLE - 1, false));
        assert!(!alive(1000 + IDLE, false), "unused for the idle time");
        let mut now = 1000;
        while now < 1000 + ABSOLUTE - IDLE {
            now += IDLE - 1;
            assert!(alive(now, true), "in use at {now}");
        }
        assert!(!alive(1000 + ABSOLUTE, true), "too old although it is in use");
        assert_eq!(store.sweep_sessions(1000 + ABSOLUTE, IDLE, ABSOLUTE).unwrap(), 1);
    }

    #[test]
    fn a_refresh_does_not_keep_a_session_alive() {
        let (_folder, store, id) = store();
        let digest = [7; 32];
        store.open_session(&digest, id, 0, "a", "b").unwrap();
        assert!(store.session(&digest, IDLE - 1, IDLE, ABSOLUTE, false).unwrap().is_some());
        assert!(store.session(&digest, IDLE + 1, IDLE, ABSOLUTE, false).unwrap().is_none());
    }

    #[test]
    fn a_new_password_ends_every_session() {
        let (_folder, store, id) = store();
        store.open_session(&[1; 32], id, 0, "a", "b").unwrap();
        store.open_session(&[2; 32], id, 0, "a", "b").unwrap();
        assert!(store.set_password("admin", "new", 5).unwrap());
        assert!(store.sessions_of("admin", 1, IDLE, ABSOLUTE).unwrap().is_empty());
        assert!(!store.set_password("nobody", "new", 5).unwrap());
    }

    #[test]
    fn the_oldest_sessions_make_room_and_the_others_can_be_ended() {
        let (_folder, store, id) = store();
        for number in 0..=PER_ADMINISTRATOR {
            let digest = [u8::try_from(number).unwrap(); 32];
            store.open_session(&digest, id, number, "a", "b").unwrap();
        }
        let left = store.sessions_of("admin", 30, IDLE, ABSOLUTE).unwrap();
        assert_eq!(left.len() as i64, PER_ADMINISTRATOR);
        assert!(left.iter().all(|session| session.digest != [0; 32]));
        assert_eq!(store.close_other_sessions("admin", &[3; 32]).unwrap() as i64, PER_ADMINISTRATOR - 1);
        assert_eq!(store.sessions_of("admin", 30, IDLE, ABSOLUTE).unwrap()[0].digest, [3; 32]);
    }
}
