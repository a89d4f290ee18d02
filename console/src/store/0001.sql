CREATE TABLE administrators (
    id                  INTEGER PRIMARY KEY,
    name                TEXT    NOT NULL UNIQUE,
    password_hash       TEXT    NOT NULL,
    created_at          INTEGER NOT NULL,
    password_changed_at INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    token_digest     BLOB    PRIMARY KEY,
    administrator_id INTEGER NOT NULL REFERENCES administrators (id) ON DELETE CASCADE,
    created_at       INTEGER NOT NULL,
    used_at          INTEGER NOT NULL,
    address          TEXT    NOT NULL,
    browser          TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_by_administrator ON sessions (administrator_id, created_at);

-- Failed sign-ins by what they came from or aimed at: 'address 192.0.2.1', 'account admin'.
CREATE TABLE attempts (
    subject      TEXT    PRIMARY KEY,
    failures     INTEGER NOT NULL,
    last_at      INTEGER NOT NULL,
    locked_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX attempts_by_age ON attempts (last_at);
