//! The statements of PostgreSQL, under the names that the shared way around them uses.

/// Makes an account.
pub(super) const CREATE_ACCOUNT: &str = "INSERT INTO account (address, kind, display_name, disabled, removing, created_at, \
     sha1_salt, sha1_iterations, sha1_stored_key, sha1_server_key, \
     sha256_salt, sha256_iterations, sha256_stored_key, sha256_server_key) \
     VALUES ($1, $2, $3, FALSE, FALSE, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
pub(super) const ACCOUNT: &str = "SELECT address, kind, display_name, disabled, created_at FROM account WHERE address = $1 AND NOT removing";
pub(super) const SIGN_IN: &str = "SELECT sha1_salt, sha1_iterations, sha1_stored_key, sha1_server_key, \
     sha256_salt, sha256_iterations, sha256_stored_key, sha256_server_key, disabled, kind \
     FROM account WHERE address = $1 AND NOT removing";
pub(super) const SET_CREDENTIALS: &str = "UPDATE account SET sha1_salt = $1, sha1_iterations = $2, sha1_stored_key = $3, sha1_server_key = $4, \
     sha256_salt = $5, sha256_iterations = $6, sha256_stored_key = $7, sha256_server_key = $8 \
     WHERE address = $9 AND NOT removing";
pub(super) const SET_DISABLED: &str = "UPDATE account SET disabled = $1 WHERE address = $2 AND NOT removing";
pub(super) const LOCK_ACCOUNT: &str = "UPDATE account SET removing = TRUE WHERE address = $1";
pub(super) const LIST_ACCOUNTS: &str = "SELECT address, kind, display_name, disabled, created_at FROM account \
     WHERE address > $1 AND kind = $2 AND NOT removing AND ($3 = '' OR strpos(address, $4) > 0) AND created_at < $5 \
     ORDER BY address LIMIT $6";
pub(super) const ADDRESS_ID: &str = "SELECT id FROM address WHERE jid = $1";
pub(super) const ALL_ADDRESS_IDS: &str = "SELECT id FROM address";
pub(super) const ROSTER_VERSION: &str = "SELECT version FROM roster WHERE owner = $1";
pub(super) const ROSTER_ITEMS: &str = "SELECT contact, name, group_names, subscription, ask, approved, pending_in, listed \
     FROM roster_item WHERE owner = $1 ORDER BY contact";
pub(super) const ROSTER_ITEM: &str = "SELECT contact, name, group_names, subscription, ask, approved, pending_in, listed \
     FROM roster_item WHERE owner = $1 AND contact = $2";
/// Locks the owner's row, making it when there is none.
pub(super) const LOCK_ROSTER: &str = "INSERT INTO roster (owner, version) VALUES ($1, 0) ON CONFLICT (owner) DO UPDATE SET version = roster.version";
pub(super) const BUMP_ROSTER: &str = "UPDATE roster SET version = version + 1 WHERE owner = $1";
pub(super) const PUT_ROSTER_ITEM: &str = "INSERT INTO roster_item (owner, contact, name, group_names, subscription, ask, approved, pending_in, listed) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
     ON CONFLICT (owner, contact) DO UPDATE SET name = excluded.name, group_names = excluded.group_names, subscription = excluded.subscription, ask = excluded.ask, approved = excluded.approved, pending_in = excluded.pending_in, listed = excluded.listed";
pub(super) const REMOVE_ROSTER_ITEM: &str = "DELETE FROM roster_item WHERE owner = $1 AND contact = $2";
pub(super) const VCARD: &str = "SELECT xml FROM vcard WHERE owner = $1";
pub(super) const SET_VCARD: &str = "INSERT INTO vcard (owner, xml) \
     VALUES ($1, $2) \
     ON CONFLICT (owner) DO UPDATE SET xml = excluded.xml";
pub(super) const PRIVATE_XML: &str =
    "SELECT xml FROM private_xml WHERE owner = $1 AND element = $2 AND namespace = $3";
pub(super) const SET_PRIVATE_XML: &str = "INSERT INTO private_xml (owner, element, namespace, xml) \
     VALUES ($1, $2, $3, $4) \
     ON CONFLICT (owner, element, namespace) DO UPDATE SET xml = excluded.xml";
pub(super) const BLOCKED: &str = "SELECT address FROM blocked_address WHERE owner = $1 ORDER BY address";
pub(super) const BLOCK: &str =
    "INSERT INTO blocked_address (owner, address) VALUES ($1, $2) ON CONFLICT DO NOTHING";
pub(super) const UNBLOCK: &str = "DELETE FROM blocked_address WHERE owner = $1 AND address = $2";
pub(super) const UNBLOCK_ALL: &str = "DELETE FROM blocked_address WHERE owner = $1";
pub(super) const ARCHIVE_PREFERENCE: &str = "SELECT default_policy FROM archive_preference WHERE owner = $1";
pub(super) const SET_ARCHIVE_PREFERENCE: &str = "INSERT INTO archive_preference (owner, default_policy) \
     VALUES ($1, $2) \
     ON CONFLICT (owner) DO UPDATE SET default_policy = excluded.default_policy";
pub(super) const ARCHIVE_RULES: &str =
    "SELECT peer, rule FROM archive_preference_peer WHERE owner = $1 ORDER BY peer";
pub(super) const REMOVE_ARCHIVE_RULES: &str = "DELETE FROM archive_preference_peer WHERE owner = $1";
pub(super) const ADD_ARCHIVE_RULE: &str =
    "INSERT INTO archive_preference_peer (owner, peer, rule) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
pub(super) const LAST_ACTIVITY: &str = "SELECT at, status FROM last_activity WHERE owner = $1";
pub(super) const SET_LAST_ACTIVITY: &str = "INSERT INTO last_activity (owner, at, status) \
     VALUES ($1, $2, $3) \
     ON CONFLICT (owner) DO UPDATE SET at = excluded.at, status = excluded.status";
/// Takes a lock that needs the right to write, and changes nothing.
pub(super) const PING: &str = "UPDATE archive_writer SET starts = starts WHERE only_row = 0";
pub(super) const SETTING: &str = "SELECT value FROM setting WHERE name = $1";
pub(super) const INSERT_SETTING: &str =
    "INSERT INTO setting (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
pub(super) const SET_SETTING: &str = "INSERT INTO setting (name, value) \
     VALUES ($1, $2) \
     ON CONFLICT (name) DO UPDATE SET value = excluded.value";
pub(super) const SOME_ENTRIES: &str = "SELECT message_id FROM archive_entry WHERE owner_id = $1 AND message_id < $2 ORDER BY message_id LIMIT $3";
pub(super) const SOME_OFFLINE: &str = "SELECT message_id FROM offline_message WHERE owner_id = $1 AND message_id < $2 ORDER BY message_id LIMIT $3";
pub(super) const ARCHIVE_BOUNDS: &str =
    "SELECT min(message_id), max(message_id) FROM archive_entry WHERE owner_id = $1 AND message_id < $2";
pub(super) const PENDING: &str = "SELECT m.id, m.stanza FROM offline_message o JOIN message m ON m.id = o.message_id \
     WHERE o.owner_id = (SELECT id FROM address WHERE jid = $1) AND o.message_id > $2 \
     ORDER BY o.message_id LIMIT $3";
pub(super) const PENDING_COUNT: &str =
    "SELECT count(*) FROM offline_message WHERE owner_id = (SELECT id FROM address WHERE jid = $1)";
pub(super) const IS_STORED: &str = "SELECT id FROM message WHERE id = $1";
pub(super) const NEWEST_MESSAGE: &str = "SELECT max(id) FROM message";
pub(super) const RECORD_MIGRATION: &str = "INSERT INTO schema_migration (number, name, class, compatible_from, checksum, applied_at) \
     VALUES ($1, $2, $3, $4, $5, $6)";
pub(super) const APPLIED_MIGRATIONS: &str =
    "SELECT number, compatible_from, checksum FROM schema_migration ORDER BY number";
pub(super) const ARCHIVE_ASCENDING: &str = "SELECT e.message_id, m.stanza FROM archive_entry e JOIN message m ON m.id = e.message_id \
     WHERE e.owner_id = $1 AND e.message_id > $2 AND e.message_id < $3 \
     ORDER BY e.message_id ASC LIMIT $4";
pub(super) const ARCHIVE_DESCENDING: &str = "SELECT e.message_id, m.stanza FROM archive_entry e JOIN message m ON m.id = e.message_id \
     WHERE e.owner_id = $1 AND e.message_id > $2 AND e.message_id < $3 \
     ORDER BY e.message_id DESC LIMIT $4";
pub(super) const ARCHIVE_WITH_ASCENDING: &str = "SELECT e.message_id, m.stanza FROM archive_entry e JOIN message m ON m.id = e.message_id \
     WHERE e.owner_id = $1 AND e.message_id > $2 AND e.message_id < $3 AND e.peer_id = $4 \
     ORDER BY e.message_id ASC LIMIT $5";
pub(super) const ARCHIVE_WITH_DESCENDING: &str = "SELECT e.message_id, m.stanza FROM archive_entry e JOIN message m ON m.id = e.message_id \
     WHERE e.owner_id = $1 AND e.message_id > $2 AND e.message_id < $3 AND e.peer_id = $4 \
     ORDER BY e.message_id DESC LIMIT $5";
pub(super) const ARCHIVE_COUNT: &str =
    "SELECT count(*) FROM archive_entry WHERE owner_id = $1 AND message_id > $2 AND message_id < $3";
pub(super) const ARCHIVE_WITH_COUNT: &str = "SELECT count(*) FROM archive_entry \
     WHERE owner_id = $1 AND message_id > $2 AND message_id < $3 AND peer_id = $4";
/// What is removed with an account, its row last.
pub(super) const REMOVE_OWNED: &[&str] = &[
    "DELETE FROM roster_item WHERE owner = $1",
    "DELETE FROM roster WHERE owner = $1",
    "DELETE FROM vcard WHERE owner = $1",
    "DELETE FROM private_xml WHERE owner = $1",
    "DELETE FROM blocked_address WHERE owner = $1",
    "DELETE FROM archive_preference_peer WHERE owner = $1",
    "DELETE FROM archive_preference WHERE owner = $1",
    "DELETE FROM last_activity WHERE owner = $1",
    "DELETE FROM account WHERE address = $1",
];
/// Accounts, disabled accounts, offline messages, bytes.
pub(super) const STATISTICS: &[&str] = &[
    "SELECT count(*) FROM account WHERE kind <> 'canary' AND NOT removing",
    "SELECT count(*) FROM account WHERE kind <> 'canary' AND NOT removing AND disabled",
    "SELECT count(*) FROM offline_message o JOIN address a ON a.id = o.owner_id \
     LEFT JOIN account c ON c.address = a.jid WHERE c.kind IS NULL OR c.kind <> 'canary'",
    "SELECT pg_database_size(current_database())",
];
/// Enters addresses.
pub(super) const INSERT_ADDRESSES: &str =
    "INSERT INTO address (jid) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING";
/// Numbers of addresses.
pub(super) const ADDRESS_IDS: &str = "SELECT jid, id FROM address WHERE jid = ANY($1::text[])";
/// A whole batch in one statement, which is its own transaction.
pub(super) const APPEND: &str = "WITH messages AS ( \
         INSERT INTO message (id, owner_a, owner_b, stanza) \
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[])), \
     entries AS ( \
         INSERT INTO archive_entry (owner_id, message_id, peer_id) \
         SELECT * FROM unnest($5::bigint[], $6::bigint[], $7::bigint[])) \
     INSERT INTO offline_message (owner_id, message_id) \
     SELECT * FROM unnest($8::bigint[], $9::bigint[])";
/// Counts this start.
pub(super) const COUNT_START: &str = "UPDATE archive_writer SET starts = starts + 1 RETURNING starts";
/// Owners of what was stored lately and awaits delivery.
pub(super) const PENDING_OWNERS: &str = "SELECT jid FROM address WHERE id IN ( \
     SELECT owner_id FROM offline_message WHERE message_id >= $1) LIMIT $2";
pub(super) const UNFINISHED_REMOVALS: &str = "SELECT address FROM account WHERE removing LIMIT 1000";
/// Messages reached their owners.
pub(super) const REMOVE_MARKS: &str = "DELETE FROM offline_message o \
     USING unnest($1::bigint[], $2::bigint[]) AS d (owner_id, message_id) \
     WHERE o.owner_id = d.owner_id AND o.message_id = d.message_id";
/// Those of them that nobody keeps.
pub(super) const REMOVE_ORPHANS: &str = "DELETE FROM message m WHERE m.id = ANY($1::bigint[]) \
     AND m.owner_a IS NULL AND m.owner_b IS NULL \
     AND NOT EXISTS (SELECT 1 FROM offline_message o WHERE o.message_id = m.id)";
pub(super) const PRIVATE_XML_COUNT: &str = "SELECT count(*) FROM private_xml WHERE owner = $1";
