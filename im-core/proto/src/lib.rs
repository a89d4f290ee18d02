//! XMPP addresses, stanzas and extensions, without I/O.
//!
//! What stands here is pure computation on bytes and strings, so that all of it can be tested without
//! sockets, clocks or a store:
//!
//! * [`address`]: XMPP addresses (RFC 7622 preparation by the `jid` crate, with a fast path for plain ASCII).
//! * [`xml`]: strict scanning, incremental framing of a stream into stanzas that keep their raw bytes, and a
//!   small tree for the stanzas that a server answers itself.
//! * [`stanza`]: the head of a framed stanza, rewriting of its start tag, and stanza errors (RFC 6120 §8).
//! * [`scram`]: SASL messages and the SCRAM key derivation and proof checks (RFC 5802, RFC 7677).
//! * [`ext`]: one file per protocol extension.
//! * [`ns`]: namespace names.
//!
//! It deliberately holds no session state and makes no decision about routing.

pub mod address;
pub mod ext;
pub mod ns;
pub mod scram;
pub mod stanza;
pub mod xml;

pub use address::{Address, AddressError};
pub use stanza::{StanzaError, StanzaKind};
pub use xml::{Element, Framer, Item, Limits, XmlError};
