//! The XML that XMPP allows (RFC 6120 §11), and nothing more.
//!
//! * [`scan`]: one token at a time out of a byte slice: well-formedness of tags, attributes, references, text.
//! * [`frame`]: cuts a stream into stanzas as bytes arrive, checks nesting and namespaces, keeps raw bytes.
//! * [`element`]: a tree of one stanza, for what the server answers itself, and its serialisation.
//! * [`escape`]: text and attribute values, both ways.
//!
//! Comments, processing instructions, document types and entities other than the five predefined ones are
//! refused, as the RFC demands; so nothing can expand, and nothing outside the stream is ever read.

pub mod element;
pub mod escape;
pub mod frame;
pub mod scan;

pub use element::{Element, Node};
pub use escape::{escape, unescape};
pub use frame::{Child, Framer, Head, Item, Mode, StreamHeader};

/// Bounds on what one peer may send. All are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one stanza.
    pub stanza_bytes: usize,
    /// Elements inside one another, the stanza itself counted.
    pub depth: usize,
    /// Attributes of one element, namespace declarations counted.
    pub attributes: usize,
    /// Bytes of one start tag.
    pub tag_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { stanza_bytes: 262_144, depth: 64, attributes: 64, tag_bytes: 16_384 }
    }
}

/// Why bytes are not acceptable XML. Each maps to one stream error condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// Not well-formed.
    #[error("the XML is not well-formed: {0}")]
    NotWellFormed(&'static str),
    /// Well-formed, but forbidden in XMPP (RFC 6120 §11.1).
    #[error("{0} must not be used in XMPP")]
    Restricted(&'static str),
    /// A prefix that is not declared.
    #[error("a namespace prefix is not declared, or is not allowed here")]
    BadPrefix,
    /// The wrong namespace for this place.
    #[error("the namespace is not the expected one")]
    InvalidNamespace,
    /// Larger than [`Limits`] allow.
    #[error("{0}")]
    TooLarge(&'static str),
    /// Not UTF-8.
    #[error("the stream is not UTF-8")]
    Encoding,
}

impl XmlError {
    /// The defined condition of the stream error that reports it (RFC 6120 §4.9.3).
    pub fn condition(self) -> &'static str {
        match self {
            Self::NotWellFormed(_) => "not-well-formed",
            Self::Restricted(_) => "restricted-xml",
            Self::BadPrefix => "bad-namespace-prefix",
            Self::InvalidNamespace => "invalid-namespace",
            Self::TooLarge(_) => "policy-violation",
            Self::Encoding => "unsupported-encoding",
        }
    }
}

/// A half-open range of offsets into a buffer, compact because each waiting session holds some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// The bytes of this range.
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..self.end as usize]
    }

    /// The text of this range.
    pub fn str(self, buffer: &str) -> &str {
        &buffer[self.start as usize..self.end as usize]
    }
}
