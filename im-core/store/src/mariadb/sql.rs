//! The statements of MariaDB and MySQL, under the names that the shared way around them uses.

/// Makes an account.
pub(super) const CREATE_ACCOUNT: &str = "INSERT INTO account (address, kind, display_name, disabled, removing, created_at, \
     sha1_salt, sha1_iterations, sha1_stored_key, sha1_server_key, \
     sha256_salt, sha256_iterations, sha256_stored_key, sha256_server_key) \
     VALUES (?, ?, ?, FALSE, FALSE, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
pub(super) const ACCOUNT: &str = "SELECT address, kind, display_name, disabled, created_at FROM account WHERE address = ? AND NOT removing";
pub(super) const SIGN_IN: &str = "SELECT sha1_salt, sha1_iterations, sha1_stored_key, sha1_server_key, \
     sha256_salt, sha256_iterations, sha256_stored_key, sha256_server_key, disabled, kind \
     FROM account WHERE address = ? AND NOT removing";
pub(super) const SET_CREDENTIALS: &str = "UPDATE account SET sha1_salt = ?, sha1_iterations = ?, sha1_stored_key = ?, sha1_server_key = ?, \
     sha256_salt = ?, sha256_iterations = ?, sha256_stored_key = ?, sha256_server_key = ? \
     WHERE address = ? AND NOT removing";
pub(super) const SET_DISABLED: &str = "UPDATE account SET disabled = ? WHERE address = ? AND NOT removing";
pub(super) const LOCK_ACCOUNT: &str = "UPDATE account SET removing = TRUE WHERE address = ?";
pub(super) const LIST_ACCOUNTS: &str = "SELECT address, kind, display_name, disabled, created_at FROM account \
     WHERE address > ? AND kind = ? AND NOT removing AND (? = '' OR LOCATE(?, address) > 0) AND created_at < ? \
     ORDER BY address LIMIT ?";
pub(super) const ADDRESS_ID: &str = "SELECT id FROM address WHERE jid = ?";
pub(super) const ALL_ADDRESS_IDS: &str = "SELECT id FROM address";
pub(super) const ROSTER_VERSION: &str = "SELECT version FROM roster WHERE owner = ?";
pub(super) const ROSTER_ITEMS: &str = "SELECT contact, name, group_names, subscription, ask, approved, pending_in, listed \
     FROM roster_item WHERE owner = ? ORDER BY contact";
pub(super) const ROSTER_ITEM: &str = "SELECT contact, name, group_names, subscription, ask, approved, pending_in, listed \
     FROM roster_item WHERE owner = ? AND contact = ?";
/// Locks the owner's row, making it when there is none.
pub(super) const LOCK_ROSTER: &str =
    "INSERT INTO roster (owner, version) VALUES (?, 0) ON DUPLICATE KEY UPDATE version = version";
pub(super) const BUMP_ROSTER: &str = "UPDATE roster SET version = version + 1 WHERE owner = ?";
pub(super) const PUT_ROSTER_ITEM: &str = "REPLACE INTO roster_item (owner, contact, name, group_names, subscription, ask, approved, pending_in, listed) \
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
pub(super) const REMOVE_ROSTER_ITEM: &str = "DELETE FROM roster_item WHERE owner = ? AND contact = ?";
pub(super) const VCARD: &str = "SELECT xml FROM vcard WHERE owner = ?";
pub(super) const SET_VCARD: &str = "REPLACE INTO vcard (owner, xml) \
     VALUES (?, ?)";
pub(super) const PRIVATE_XML: &str =
    "SELECT xml FROM private_xml WHERE owner = ? AND element = ? AND namespace = ?";
pub(super) const SET_PRIVATE_XML: &str = "REPLACE INTO private_xml (owner, element, namespace, xml) \
     VALUES (?, ?, ?, ?)";
pub(super) const BLOCKED: &str = "SELECT address FROM blocked_address WHERE owner = ? ORDER BY address";
pub(super) const BLOCK: &str = "INSERT IGNORE INTO blocked_address (owner, address) VALUES (?, ?)";
pub(super) const UNBLOCK: &str = "DELETE FROM blocked_address WHERE owner = ? AND address = ?";
pub(super) const UNBLOCK_ALL: &str = "DELETE FROM blocked_address WHERE owner = ?";
pub(super) const ARCHIVE_PREFERENCE: &str = "SELECT default_policy FROM archive_preference WHERE owner = ?";
pub(super) const SET_ARCHIVE_PREFERENCE: &str = "REPLACE INTO archive_preference (owner, default_policy) \
     VALUES (?, ?)";
pub(super) const ARCHIVE_RULES: &str =
    "SELECT peer, rule FROM archive_preference_peer WHERE owner = ? ORDER BY peer";
pub(super) const REMOVE_ARCHIVE_RULES: &str = "DELETE FROM archive_preference_peer WHERE owner = ?";
pub(super) const ADD_ARCHIVE_RULE: &str =
    "INSERT IGNORE INTO archive_preference_peer (owner, peer, rule) VALUES (?, ?, ?)";
pub(super) const LAST_ACTIVITY: &str = "SELECT at, status FROM last_activity WHERE owner = ?";
pub(super) const SET_LAST_ACTIVITY: &str = "REPLACE INTO last_activity (owner, at, status) \
     VALUES (?, ?, ?)";
/// Takes a lock that needs the right to write, and changes nothing.
pub(super) const PING: &str = "UPDATE archive_writer SET starts = starts WHERE only_row = 0";
pub(super) const SETTING: &str = "SELECT value FROM setting WHERE name = ?";
pub(super) const INSERT_SETTING: &str = "INSERT IGNORE INTO setting (name, value) VALUES (?, ?)";
pub(super) const SET_SETTING: &str = "REPLACE INTO setting (name, value) \
     VALUES (?, ?)";
pub(super) const SOME_ENTRIES: &str =
    "SELECT message_id FROM archive_entry WHERE owner_id = ? AND message_id < ? ORDER BY message_id LIMIT ?";
pub(super) const SOME_OFFLINE: &str = "SELECT message_id FROM offline_message WHERE owner_id = ? AND message_id < ? ORDER BY message_id LIMIT ?";
pub(super) const ARCHIVE_BOUNDS: &str =
    "SELECT min(message_id), max(message_id) FROM archive_entry WHERE owner_id = ? AND message_id < ?";
pub(super) const PENDING: &str = "SELECT m.id, m.stanza FROM offline_message o JOIN message m ON m.id = o.message_id \
     WHERE o.owner_id = (SELECT id FROM address WHERE jid = ?) AND o.message_id > ? \
     ORDER BY o.message_id LIMIT ?";
pub(super) const PENDING_COUNT: &str =
    "SELECT count(*) FROM offline_message WHERE owner_id = (SELECT id FROM address WHERE jid = ?)";
pub(super) const IS_STORED: &str = "SELECT id FROM message WHERE id = ?";
pub(super) const NEWEST_MESSAGE: &str = "SELECT max(id) FROM message";
pub(super) const RECORD_MIGRATION: &str = "INSERT INTO schema_migration (number, name, class, compatible_from, checksum, applied_at) \
     VALUES (?, ?, ?, ?, ?, ?)";
pub(super) const APPLIED_MIGRATIONS: &str =
    "SELECT number, compatible_from, checksum FROM schema_migration ORDER BY number";
pub(super) const ARCHIVE_ASCENDING: &str = "SELECT e.message_id, m.stanza FROM archive_entry e JOIN message m ON m.id = e.message_id \
     WHERE e.owner_id = ? AND e.message_id > ? AND e.message_id < ? \
     ORDER BY e.message_id ASC LIMIT ?";
pub(super) const ARCHIVE_DESCENDING: &str = "SELECT e.message_id, m.stanza FROM archive_entry e JOIN message m ON m.id = e.message_id \
     WHERE e.owner_id = ? AND e.message_id > ? AND e.message_id < ? \
     ORDER BY e.message_id DESC LIMIT ?";
pub(super) const ARCHIVE_WITH_ASCENDING: &str = "SELECT e.message_id, m.stanza FROM archive_entry e JOIN message m ON m.id = e.message_id \
     WHERE e.owner_id = ? AND e.message_id > ? AND e.message_id < ? AND e.peer_id = ? \
     ORDER BY e.message_id ASC LIMIT ?";
pub(super) const ARCHIVE_WITH_DESCENDING: &str = "SELECT e.message_id, m.stanza FROM archive_entry e JOIN message m ON m.id = e.message_id \
     WHERE e.owner_id = ? AND e.message_id > ? AND e.message_id < ? AND e.peer_id = ? \
     ORDER BY e.message_id DESC LIMIT ?";
pub(super) const ARCHIVE_COUNT: &str =
    "SELECT count(*) FROM archive_entry WHERE owner_id = ? AND message_id > ? AND message_id < ?";
pub(super) const ARCHIVE_WITH_COUNT: &str = "SELECT count(*) FROM archive_entry \
     WHERE owner_id = ? AND message_id > ? AND message_id < ? AND peer_id = ?";
/// What is removed with an account, its row last.
pub(super) const REMOVE_OWNED: &[&str] = &[
    "DELETE FROM roster_item WHERE owner = ?",
    "DELETE FROM roster WHERE owner = ?",
    "DELETE FROM vcard WHERE owner = ?",
    "DELETE FROM private_xml WHERE owner = ?",
    "DELETE FROM blocked_address WHERE owner = ?",
    "DELETE FROM archive_preference_peer WHERE owner = ?",
    "DELETE FROM archive_preference WHERE owner = ?",
    "DELETE FROM last_activity WHERE owner = ?",
    "DELETE FROM account WHERE address = ?",
];
/// Accounts, disabled accounts, offline messages, bytes.
pub(super) const STATISTICS: &[&str] = &[
    "SELECT count(*) FROM account WHERE kind <> 'canary' AND NOT removing",
    "SELECT count(*) FROM account WHERE kind <> 'canary' AND NOT removing AND disabled",
    "SELECT count(*) FROM offline_message o JOIN address a ON a.id = o.owner_id \
     LEFT JOIN account c ON c.address = a.jid WHERE c.kind IS NULL OR c.kind <> 'canary'",
    "SELECT CAST(COALESCE(SUM(data_length + index_length), 0) AS SIGNED) FROM information_schema.tables \
     WHERE table_schema = DATABASE()",
];
/// Counts this start; the count comes back as the last inserted id.
pub(super) const COUNT_START: &str = "UPDATE archive_writer SET starts = LAST_INSERT_ID(starts + 1)";
/// Owners of what was stored lately and awaits delivery.
pub(super) const PENDING_OWNERS: &str = "SELECT jid FROM address WHERE id IN ( \
     SELECT owner_id FROM offline_message WHERE message_id >= ?) LIMIT ?";
pub(super) const UNFINISHED_REMOVALS: &str = "SELECT address FROM account WHERE removing LIMIT 1000";
pub(super) const PRIVATE_XML_COUNT: &str = "SELECT count(*) FROM private_xml WHERE owner = ?";
