-- class: expand
-- compatible-from: 1

-- Bare JIDs that own archives or stand in them. Rows stay for as long as an archive may name them.
CREATE TABLE address (
    id INTEGER PRIMARY KEY,
    jid TEXT NOT NULL UNIQUE
);

CREATE TABLE account (
    address TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    display_name TEXT,
    disabled INTEGER NOT NULL,
    removing INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    sha1_salt BLOB NOT NULL,
    sha1_iterations INTEGER NOT NULL,
    sha1_stored_key BLOB NOT NULL,
    sha1_server_key BLOB NOT NULL,
    sha256_salt BLOB NOT NULL,
    sha256_iterations INTEGER NOT NULL,
    sha256_stored_key BLOB NOT NULL,
    sha256_server_key BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE roster (
    owner TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE roster_item (
    owner TEXT NOT NULL,
    contact TEXT NOT NULL,
    name TEXT,
    group_names TEXT NOT NULL, -- a JSON array: read and written only as a whole
    subscription TEXT NOT NULL,
    ask INTEGER NOT NULL,
    approved INTEGER NOT NULL,
    pending_in TEXT,
    listed INTEGER NOT NULL,
    PRIMARY KEY (owner, contact)
) WITHOUT ROWID;

-- A message once, in order of time: inserts only ever append.
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    owner_a INTEGER,
    owner_b INTEGER,
    stanza BLOB NOT NULL
);

-- Its place in the archive of each owner: narrow, and clustered by owner.
CREATE TABLE archive_entry (
    owner_id INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    peer_id INTEGER NOT NULL,
    PRIMARY KEY (owner_id, message_id)
) WITHOUT ROWID;

-- For whom it still awaits delivery.
CREATE TABLE offline_message (
    owner_id INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    PRIMARY KEY (owner_id, message_id)
) WITHOUT ROWID;
CREATE INDEX offline_message_by_message ON offline_message (message_id);

CREATE TABLE vcard (
    owner TEXT NOT NULL PRIMARY KEY,
    xml TEXT NOT NULL
);

CREATE TABLE private_xml (
    owner TEXT NOT NULL,
    element TEXT NOT NULL,
    namespace TEXT NOT NULL,
    xml TEXT NOT NULL,
    PRIMARY KEY (owner, element, namespace)
);

CREATE TABLE blocked_address (
    owner TEXT NOT NULL,
    address TEXT NOT NULL,
    PRIMARY KEY (owner, address)
) WITHOUT ROWID;

CREATE TABLE archive_preference (
    owner TEXT NOT NULL PRIMARY KEY,
    default_policy TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE archive_preference_peer (
    owner TEXT NOT NULL,
    peer TEXT NOT NULL,
    rule TEXT NOT NULL,
    PRIMARY KEY (owner, peer)
) WITHOUT ROWID;

CREATE TABLE last_activity (
    owner TEXT NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL,
    status TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE setting (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- One row: how often an archive writer was started.
CREATE TABLE archive_writer (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    starts INTEGER NOT NULL
);
INSERT INTO archive_writer (only_row, starts) VALUES (1, 0);
