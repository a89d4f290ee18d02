-- class: expand
-- compatible-from: 1

-- The server commits every statement of a definition by itself: each one must bear being run again.

-- Bare JIDs that own archives or stand in them. Rows stay for as long as an archive may name them.
CREATE TABLE IF NOT EXISTS address (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    jid VARCHAR(380) NOT NULL UNIQUE
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS account (
    address VARCHAR(380) NOT NULL PRIMARY KEY,
    kind VARCHAR(20) NOT NULL,
    display_name MEDIUMTEXT,
    disabled BOOLEAN NOT NULL,
    removing BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    sha1_salt VARBINARY(255) NOT NULL,
    sha1_iterations BIGINT NOT NULL,
    sha1_stored_key VARBINARY(255) NOT NULL,
    sha1_server_key VARBINARY(255) NOT NULL,
    sha256_salt VARBINARY(255) NOT NULL,
    sha256_iterations BIGINT NOT NULL,
    sha256_stored_key VARBINARY(255) NOT NULL,
    sha256_server_key VARBINARY(255) NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS roster (
    owner VARCHAR(380) NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS roster_item (
    owner VARCHAR(380) NOT NULL,
    contact VARCHAR(380) NOT NULL,
    name MEDIUMTEXT,
    group_names MEDIUMTEXT NOT NULL, -- a JSON array: read and written only as a whole
    subscription VARCHAR(10) NOT NULL,
    ask BOOLEAN NOT NULL,
    approved BOOLEAN NOT NULL,
    pending_in MEDIUMTEXT,
    listed BOOLEAN NOT NULL,
    PRIMARY KEY (owner, contact)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- A message once, in order of time: inserts only ever append.
CREATE TABLE IF NOT EXISTS message (
    id BIGINT NOT NULL PRIMARY KEY,
    owner_a BIGINT,
    owner_b BIGINT,
    stanza MEDIUMBLOB NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Its place in the archive of each owner: narrow, and clustered by owner.
CREATE TABLE IF NOT EXISTS archive_entry (
    owner_id BIGINT NOT NULL,
    message_id BIGINT NOT NULL,
    peer_id BIGINT NOT NULL,
    PRIMARY KEY (owner_id, message_id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- For whom it still awaits delivery.
CREATE TABLE IF NOT EXISTS offline_message (
    owner_id BIGINT NOT NULL,
    message_id BIGINT NOT NULL,
    PRIMARY KEY (owner_id, message_id),
    KEY offline_message_by_message (message_id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS vcard (
    owner VARCHAR(380) NOT NULL PRIMARY KEY,
    xml MEDIUMTEXT NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS private_xml (
    owner VARCHAR(380) NOT NULL,
    element VARCHAR(64) NOT NULL,
    namespace VARCHAR(255) NOT NULL,
    xml MEDIUMTEXT NOT NULL,
    PRIMARY KEY (owner, element, namespace)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS blocked_address (
    owner VARCHAR(380) NOT NULL,
    address VARCHAR(380) NOT NULL,
    PRIMARY KEY (owner, address)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS archive_preference (
    owner VARCHAR(380) NOT NULL PRIMARY KEY,
    default_policy VARCHAR(10) NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS archive_preference_peer (
    owner VARCHAR(380) NOT NULL,
    peer VARCHAR(380) NOT NULL,
    rule VARCHAR(10) NOT NULL,
    PRIMARY KEY (owner, peer)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS last_activity (
    owner VARCHAR(380) NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    status MEDIUMTEXT NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS setting (
    name VARCHAR(380) NOT NULL PRIMARY KEY,
    value MEDIUMTEXT NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row: how often an archive writer was started.
CREATE TABLE IF NOT EXISTS archive_writer (
    only_row BIGINT NOT NULL PRIMARY KEY CHECK (only_row = 1),
    starts BIGINT NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
INSERT IGNORE INTO archive_writer (only_row, starts) VALUES (1, 0);
