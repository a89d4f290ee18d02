-- class: expand
-- compatible-from: 1

-- Bare JIDs that own archives or stand in them. Rows stay for as long as an archive may name them.
CREATE TABLE address (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    jid TEXT COLLATE "C" NOT NULL UNIQUE
);

CREATE TABLE account (
    address TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL,
    display_name TEXT,
    disabled BOOLEAN NOT NULL,
    removing BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    sha1_salt BYTEA NOT NULL,
    sha1_iterations BIGINT NOT NULL,
    sha1_stored_key BYTEA NOT NULL,
    sha1_server_key BYTEA NOT NULL,
    sha256_salt BYTEA NOT NULL,
    sha256_iterations BIGINT NOT NULL,
    sha256_stored_key BYTEA NOT NULL,
    sha256_server_key BYTEA NOT NULL
);

CREATE TABLE roster (
    owner TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL
);

CREATE TABLE roster_item (
    owner TEXT COLLATE "C" NOT NULL,
    contact TEXT COLLATE "C" NOT NULL,
    name TEXT,
    group_names TEXT NOT NULL, -- a JSON array: read and written only as a whole
    subscription TEXT NOT NULL,
    ask BOOLEAN NOT NULL,
    approved BOOLEAN NOT NULL,
    pending_in TEXT,
    listed BOOLEAN NOT NULL,
    PRIMARY KEY (owner, contact)
);

-- A message once, in order of time: inserts only ever append.
CREATE TABLE message (
    id BIGINT PRIMARY KEY,
    owner_a BIGINT,
    owner_b BIGINT,
    stanza BYTEA NOT NULL
);

-- Its place in the archive of each owner: narrow, and clustered by owner.
CREATE TABLE archive_entry (
    owner_id BIGINT NOT NULL,
    message_id BIGINT NOT NULL,
    peer_id BIGINT NOT NULL,
    PRIMARY KEY (owner_id, message_id)
);

-- For whom it still awaits delivery.
CREATE TABLE offline_message (
    owner_id BIGINT NOT NULL,
    message_id BIGINT NOT NULL,
    PRIMARY KEY (owner_id, message_id)
);
CREATE INDEX offline_message_by_message ON offline_message (message_id);

CREATE TABLE vcard (
    owner TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    xml TEXT NOT NULL
);

CREATE TABLE private_xml (
    owner TEXT COLLATE "C" NOT NULL,
    element TEXT COLLATE "C" NOT NULL,
    namespace TEXT COLLATE "C" NOT NULL,
    xml TEXT NOT NULL,
    PRIMARY KEY (owner, element, namespace)
);

CREATE TABLE blocked_address (
    owner TEXT COLLATE "C" NOT NULL,
    address TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (owner, address)
);

CREATE TABLE archive_preference (
    owner TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    default_policy TEXT NOT NULL
);

CREATE TABLE archive_preference_peer (
    owner TEXT COLLATE "C" NOT NULL,
    peer TEXT COLLATE "C" NOT NULL,
    rule TEXT NOT NULL,
    PRIMARY KEY (owner, peer)
);

CREATE TABLE last_activity (
    owner TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    status TEXT NOT NULL
);

CREATE TABLE setting (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- One row: how often an archive writer was started.
CREATE TABLE archive_writer (
    only_row BIGINT NOT NULL PRIMARY KEY CHECK (only_row = 1),
    starts BIGINT NOT NULL
);
INSERT INTO archive_writer (only_row, starts) VALUES (1, 0);
