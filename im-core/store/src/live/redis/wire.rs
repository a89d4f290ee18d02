//! What nodes tell each other, as text and bytes. No I/O.
//!
//! A **record** of a session is `NODE|TOKEN|` and JSON; neither a node's identifier nor a number has a bar in it…
//! a node's *name* might, so it is cleaned of bars when the identifier is made. A **change** on the directory
//! channel is a letter and what goes with it. A **frame** on a node's channel is a byte that says what it is, a
//! number, and for a payload its sender and the payload.

use super::super::{NodeId, Session};
use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};

/// What separates bare JID and resource in a field: it can be in neither.
const SEPARATOR: char = '\u{1}';

#[derive(Serialize, Deserialize)]
struct Body<'a> {
    bare: &'a str,
    resource: &'a str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<i8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    presence: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    carbons: bool,
}

#[derive(Deserialize)]
struct OwnedBody {
    bare: String,
    resource: String,
    #[serde(default)]
    priority: Option<i8>,
    #[serde(default)]
    presence: Option<String>,
    #[serde(default)]
    carbons: bool,
}

/// How every record of a node begins, or of one session of it.
pub(super) fn record_head(node: &NodeId, token: Option<u64>) -> String {
    match token {
        Some(token) => format!("{node}|{token}|"),
        None => format!("{node}|"),
    }
}

pub(super) fn write_record(session: &Session) -> String {
    let body = Body {
        bare: &session.bare,
        resource: &session.resource,
        priority: session.priority,
        presence: session.presence.as_deref().map(String::from_utf8_lossy),
        carbons: session.carbons,
    };
    // Strings and numbers always become JSON.
    let body = serde_json::to_string(&body).unwrap_or_default();
    format!("{}{body}", record_head(&session.node, Some(session.token)))
}

/// Nothing when it is not a record: written by hand, or by a version that does it otherwise.
pub(super) fn read_record(text: &str) -> Option<Session> {
    let (node, rest) = text.split_once('|')?;
    let (token, body) = rest.split_once('|')?;
    let body: OwnedBody = serde_json::from_str(body).ok()?;
    Some(Session {
        bare: body.bare.into(),
        resource: body.resource.into(),
        node: NodeId::from_text(node),
        token: token.parse().ok()?,
        priority: body.priority,
        presence: body.presence.map(Bytes::from),
        carbons: body.carbons,
    })
}

/// The field of a session in its node's hash.
pub(super) fn field(session: &Session) -> String {
    format!("{}{SEPARATOR}{}", session.bare, session.resource)
}

/// Bare JID and resource of a field.
pub(super) fn read_field(field: &str) -> Option<(&str, &str)> {
    field.split_once(SEPARATOR)
}

/// What is told on the directory channel.
pub(super) enum Change<'a> {
    Put(&'a Session),
    Update(&'a Session),
    Remove(&'a Session),
    Beat(&'a NodeId),
    Leave(&'a NodeId),
}

impl Change<'_> {
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Put(session) => format!("P{}", write_record(session)),
            Self::Update(session) => format!("U{}", write_record(session)),
            // The presence has no meaning any more, and may be long.
            Self::Remove(session) => {
                format!("R{}", write_record(&Session { presence: None, ..(*session).clone() }))
            }
            Self::Beat(node) => format!("B{node}"),
            Self::Leave(node) => format!("L{node}"),
        }
    }
}

/// What was told on the directory channel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Put(Session),
    Update(Session),
    Remove(Session),
    Beat(NodeId),
    Leave(NodeId),
}

/// Nothing when it is not understood.
pub(super) fn read_change(text: &str) -> Option<Told> {
    let (kind, rest) = text.split_at_checked(1)?;
    match kind {
        "P" => read_record(rest).map(Told::Put),
        "U" => read_record(rest).map(Told::Update),
        "R" => read_record(rest).map(Told::Remove),
        "B" => Some(Told::Beat(NodeId::from_text(rest))),
        "L" => Some(Told::Leave(NodeId::from_text(rest))),
        _ => None,
    }
}

const PAYLOAD: u8 = 0;
const TAKEN: u8 = 1;
const REFUSED: u8 = 2;

pub(super) fn payload_frame(number: u64, from: &NodeId, payload: &[u8]) -> Vec<u8> {
    let from = from.as_str().as_bytes();
    let mut frame = Vec::with_capacity(13 + from.len() + payload.len());
    frame.put_u8(PAYLOAD);
    frame.put_u64(number);
    frame.put_u32(from.len() as u32);
    frame.extend_from_slice(from);
    frame.extend_from_slice(payload);
    frame
}

pub(super) fn receipt_frame(number: u64, taken: bool) -> Vec<u8> {
    let mut frame = vec![if taken { TAKEN } else { REFUSED }];
    frame.put_u64(number);
    frame
}

/// What came on this node's channel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Payload { number: u64, from: NodeId, payload: Bytes },
    Receipt { number: u64, taken: bool },
}

/// Nothing when it is not understood.
pub(super) fn read_frame(bytes: Bytes) -> Option<Frame> {
    let kind = *bytes.first()?;
    let number = u64::from_be_bytes(bytes.get(1..9)?.try_into().ok()?);
    match kind {
        PAYLOAD => {
            let length = u32::from_be_bytes(bytes.get(9..13)?.try_into().ok()?) as usize;
            let end = 13_usize.checked_add(length)?;
            let from = NodeId::from_text(std::str::from_utf8(bytes.get(13..end)?).ok()?);
            Some(Frame::Payload { number, from, payload: bytes.slice(end..) })
        }
        TAKEN => Some(Frame::Receipt { number, taken: true }),
        REFUSED => Some(Frame::Receipt { number, taken: false }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            bare: "ann|x@x".into(),
            resource: "phone | 😀".into(),
            node: NodeId::fresh("app|1"),
            token: u64::MAX,
            priority: Some(-5),
            presence: Some(Bytes::from_static(b"<presence><status>\"|</status></presence>")),
            carbons: true,
        }
    }

    #[test]
    fn what_is_told_is_what_is_read() {
        let session = session();
        assert_eq!(read_record(&write_record(&session)), Some(session.clone()));
        assert!(write_record(&session).starts_with(&record_head(&session.node, Some(session.token))));
        assert!(write_record(&session).starts_with(&record_head(&session.node, None)));
        assert_eq!(read_field(&field(&session)), Some(("ann|x@x", "phone | 😀")));
        assert_eq!(read_change(&Change::Put(&session).encode()), Some(Told::Put(session.clone())));
        assert_eq!(read_change(&Change::Update(&session).encode()), Some(Told::Update(session.clone())));
        let removed = Session { presence: None, ..session.clone() };
        assert_eq!(read_change(&Change::Remove(&session).encode()), Some(Told::Remove(removed)));
        let node = session.node;
        assert_eq!(read_change(&Change::Beat(&node).encode()), Some(Told::Beat(node.clone())));
        assert_eq!(read_change(&Change::Leave(&node).encode()), Some(Told::Leave(node.clone())));
        let frame = payload_frame(7, &node, b"\0\xffpayload");
        let payload = Bytes::from_static(b"\0\xffpayload");
        assert_eq!(read_frame(frame.into()), Some(Frame::Payload { number: 7, from: node, payload }));
        for taken in [true, false] {
            assert_eq!(read_frame(receipt_frame(9, taken).into()), Some(Frame::Receipt { number: 9, taken }));
        }
    }

    #[test]
    fn nonsense_is_passed_over() {
        for text in ["", "P", "Pn#1|x|{}", "Pn#1|1|{", "X", "é", "Un#1"] {
            assert_eq!(read_change(text), None, "{text}");
        }
        let whole = payload_frame(7, &NodeId::fresh("n"), b"");
        for cut in 0..whole.len() {
            assert_eq!(read_frame(Bytes::copy_from_slice(&whole[..cut])), None, "{cut}");
        }
        let mut huge = whole;
        huge[9..13].copy_from_slice(&[255; 4]);
        assert_eq!(read_frame(huge.into()), None);
        assert_eq!(read_frame(Bytes::from_static(&[9; 20])), None);
    }
}
