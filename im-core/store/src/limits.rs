//! What can be stored: the same limits for every back end, checked before anything reaches a database.

use crate::{NewMessage, StoreError};

/// Longest address, in characters: two of them fit into a key of MariaDB.
pub(crate) const ADDRESS_CHARS: usize = 380;
/// Largest stanza, in bytes: several fit into a packet of MariaDB as it is set by default (16 MB).
const STANZA_BYTES: usize = 4 * 1024 * 1024;
/// Largest XML document of a profile, in bytes.
const DOCUMENT_BYTES: usize = 4 * 1024 * 1024;
/// Longest element name and namespace, in characters.
const ELEMENT_CHARS: usize = 64;
const NAMESPACE_CHARS: usize = 255;
/// Messages named in one query.
pub(crate) const IDS_PER_QUERY: usize = 1000;

fn text(what: &'static str, value: &str, most: usize) -> Result<(), StoreError> {
    if value.is_empty() {
        return Err(StoreError::Invalid { what, reason: "it is empty".into() });
    }
    if value.contains('\0') {
        return Err(StoreError::Invalid { what, reason: "it has a zero byte".into() });
    }
    // Bytes are never fewer than characters, so counting is rarely needed.
    if value.len() > most && value.chars().count() > most {
        return Err(StoreError::Invalid { what, reason: format!("it is longer than {most} characters") });
    }
    Ok(())
}

/// An address that is a key.
pub(crate) fn address(value: &str) -> Result<(), StoreError> {
    text("address", value, ADDRESS_CHARS)
}

/// The name of a stored element.
pub(crate) fn element(element: &str, namespace: &str) -> Result<(), StoreError> {
    text("element name", element, ELEMENT_CHARS)?;
    text("namespace", namespace, NAMESPACE_CHARS)
}

/// An XML document or other long text.
pub(crate) fn document(value: &str) -> Result<(), StoreError> {
    if value.len() > DOCUMENT_BYTES {
        return Err(StoreError::Invalid { what: "document", reason: "it is larger than 4 MB".into() });
    }
    if value.contains('\0') {
        return Err(StoreError::Invalid { what: "document", reason: "it has a zero byte".into() });
    }
    Ok(())
}

/// A message to be archived.
pub(crate) fn message(message: &NewMessage) -> Result<(), StoreError> {
    let invalid = |reason: &str| Err(StoreError::Invalid { what: "message", reason: reason.to_owned() });
    if message.stanza.len() > STANZA_BYTES {
        return invalid("it is larger than 4 MB");
    }
    if message.copies.iter().filter(|copy| copy.archive).count() > 2 {
        return invalid("it has entries in more than two archives");
    }
    for (at, copy) in message.copies.iter().enumerate() {
        address(&copy.owner)?;
        address(&copy.peer)?;
        if message.copies[..at].iter().any(|other| other.owner == copy.owner) {
            return invalid("it has two copies for one owner");
        }
    }
    Ok(())
}
