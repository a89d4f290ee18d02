//! Stanzas: their kinds, rewriting the start tag of a framed one, and stanza errors (RFC 6120 §8).
//!
//! A stanza that is only passed on is never taken apart: [`rewrite`] copies its bytes with a new start tag, in
//! which `from` and `to` are the server's, the namespace is left to the receiver's stream, and prefixes taken
//! from the sender's stream header are declared again. [`insert_before_end`] puts an element of the server's
//! before the end tag.

use crate::ns;
use crate::xml::escape::escape_into;
use crate::xml::{Framer, Head, Span, unescape};

/// What a top-level element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StanzaKind {
    /// `<message/>`
    Message,
    /// `<presence/>`
    Presence,
    /// `<iq/>`
    Iq,
    /// Anything else: negotiation, stream management, errors.
    Other,
}

impl StanzaKind {
    /// The element's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Presence => "presence",
            Self::Iq => "iq",
            Self::Other => "",
        }
    }
}

/// A defined stanza error condition (RFC 6120 §8.3.3) with its usual type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{condition}")]
pub struct StanzaError {
    /// `auth`, `cancel`, `continue`, `modify` or `wait`.
    pub kind: &'static str,
    /// The condition's element name.
    pub condition: &'static str,
    /// A text for people, in English.
    pub text: &'static str,
}

macro_rules! stanza_errors {
    ($($(#[$doc:meta])* $name:ident = $kind:literal, $condition:literal;)*) => {
        impl StanzaError {
            $($(#[$doc])* pub const $name: Self = Self { kind: $kind, condition: $condition, text: "" };)*
        }
    };
}

stanza_errors! {
    /// The sender sent something that is not schema-conformant.
    BAD_REQUEST = "modify", "bad-request";
    /// A resource or name is taken.
    CONFLICT = "cancel", "conflict";
    /// The feature exists not here.
    FEATURE_NOT_IMPLEMENTED = "cancel", "feature-not-implemented";
    /// The sender may not do this.
    FORBIDDEN = "auth", "forbidden";
    /// The server failed.
    INTERNAL_SERVER_ERROR = "cancel", "internal-server-error";
    /// The item is not there.
    ITEM_NOT_FOUND = "cancel", "item-not-found";
    /// An address is none.
    JID_MALFORMED = "modify", "jid-malformed";
    /// The request breaks a rule of this server.
    NOT_ACCEPTABLE = "modify", "not-acceptable";
    /// Nobody may do this.
    NOT_ALLOWED = "cancel", "not-allowed";
    /// A limit was met.
    POLICY_VIOLATION = "modify", "policy-violation";
    /// The receiver is not there now.
    RECIPIENT_UNAVAILABLE = "wait", "recipient-unavailable";
    /// The server of the address cannot be found.
    REMOTE_SERVER_NOT_FOUND = "cancel", "remote-server-not-found";
    /// The server lacks something it needs at the moment.
    RESOURCE_CONSTRAINT = "wait", "resource-constraint";
    /// Nothing serves this.
    SERVICE_UNAVAILABLE = "cancel", "service-unavailable";
    /// A subscription is needed.
    SUBSCRIPTION_REQUIRED = "auth", "subscription-required";
    /// The order of requests is wrong.
    UNEXPECTED_REQUEST = "wait", "unexpected-request";
}

impl StanzaError {
    /// The same error with a text.
    #[must_use]
    pub const fn with_text(mut self, text: &'static str) -> Self {
        self.text = text;
        self
    }

    /// Writes `<error/>`; `extra` is put after the condition as it stands.
    pub fn write(&self, out: &mut String, extra: &str) {
        out.push_str("<error type='");
        out.push_str(self.kind);
        out.push_str("'><");
        out.push_str(self.condition);
        out.push_str(" xmlns='");
        out.push_str(ns::STANZA_ERRORS);
        out.push_str("'/>");
        if !self.text.is_empty() {
            out.push_str("<text xmlns='");
            out.push_str(ns::STANZA_ERRORS);
            out.push_str("' xml:lang='en'>");
            escape_into(self.text, out);
            out.push_str("</text>");
        }
        out.push_str(extra);
        out.push_str("</error>");
    }
}

/// Writes ` name='value'`, escaped.
pub fn push_attr(out: &mut String, name: &str, value: &str) {
    out.push(' ');
    out.push_str(name);
    out.push_str("='");
    escape_into(value, out);
    out.push('\'');
}

/// Value of an optional attribute range, references replaced.
pub fn value(span: Option<Span>, raw: &str) -> Option<std::borrow::Cow<'_, str>> {
    span.map(|s| unescape(s.str(raw)))
}

/// What [`rewrite`] puts into the new start tag.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rewrite<'a> {
    /// The new `from`; without it none is written.
    pub from: Option<&'a str>,
    /// The new `to`; without it none is written.
    pub to: Option<&'a str>,
    /// Language of the sender's stream, for stanzas that name none (RFC 6120 §4.7.4).
    pub lang: Option<&'a str>,
    /// Direct children to leave out, as indices in order.
    pub without: &'a [usize],
}

/// A stanza's bytes with a new start tag. Returns the text and where its end tag begins (its length when the
/// element is empty, in which case it was given an end tag so that content can be added).
pub fn rewrite(raw: &str, head: &Head, framer: &Framer, rewrite: &Rewrite<'_>) -> (String, usize) {
    let mut out = String::with_capacity(raw.len() + 320);
    out.push('<');
    let name = head.name.str(raw);
    out.push_str(name);
    if let Some(from) = rewrite.from {
        push_attr(&mut out, "from", from);
    }
    if let Some(to) = rewrite.to {
        push_attr(&mut out, "to", to);
    }
    let mut has_lang = false;
    for (attr, value) in &head.attrs {
        let attr = attr.str(raw);
        if matches!(attr, "from" | "to" | "xmlns") {
            continue;
        }
        has_lang |= attr == "xml:lang";
        copy_attr(&mut out, attr, value.str(raw));
    }
    if let Some(lang) = rewrite.lang.filter(|_| !has_lang) {
        push_attr(&mut out, "xml:lang", lang);
    }
    for &index in &head.inherited {
        if let Some((prefix, uri)) = framer.prefixes().get(index as usize) {
            push_attr(&mut out, &format!("xmlns:{prefix}"), uri);
        }
    }
    out.push('>');
    let mut from = head.tag.end as usize;
    for child in rewrite.without.iter().filter_map(|&i| head.children.get(i)) {
        out.push_str(&raw[from..child.whole.start as usize]);
        from = child.whole.end as usize;
    }
    out.push_str(&raw[from..(head.end_tag as usize).max(from)]);
    let end = out.len();
    out.push_str("</");
    out.push_str(name);
    out.push('>');
    (out, end)
}

/// Copies a raw attribute in single quotes: its value is escaped already, except for single quotes.
fn copy_attr(out: &mut String, name: &str, raw_value: &str) {
    out.push(' ');
    out.push_str(name);
    out.push_str("='");
    if raw_value.contains('\'') {
        out.push_str(&raw_value.replace('\'', "&apos;"));
    } else {
        out.push_str(raw_value);
    }
    out.push('\'');
}

/// `stanza` with `xml` before its end tag at `end`.
pub fn insert_before_end(stanza: &str, end: usize, xml: &str) -> String {
    let mut out = String::with_capacity(stanza.len() + xml.len());
    out.push_str(&stanza[..end]);
    out.push_str(xml);
    out.push_str(&stanza[end..]);
    out
}

/// Where the end tag of a serialised stanza begins; its length for an empty element without one.
pub fn end_tag(stanza: &str) -> usize {
    if stanza.ends_with("/>") { stanza.len() } else { stanza.rfind("</").unwrap_or(stanza.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::{Item, Limits, frame::Mode};

    fn framed(stream: &str, stanza: &str) -> (Framer, Head) {
        let mut framer = Framer::new(Mode::Stream, Limits::default());
        let mut attrs = Vec::new();
        let (_, used) = framer.next(stream.as_bytes(), &mut attrs).unwrap().unwrap();
        assert_eq!(used, stream.len());
        match framer.next(stanza.as_bytes(), &mut attrs).unwrap().unwrap() {
            (Item::Stanza(head), used) if used == stanza.len() => (framer, head),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rewrites_the_start_tag_and_declares_inherited_prefixes() {
        let (framer, head) = framed(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:x='urn:x&amp;y'>",
            "<message from='evil@x' to=\"bob@x\" id=\"it's\"><body>hi</body><x:y/><z xmlns='urn:z'/></message>",
        );
        let raw = "<message from='evil@x' to=\"bob@x\" id=\"it's\"><body>hi</body><x:y/><z xmlns='urn:z'/></message>";
        let change = Rewrite { from: Some("a@x/r"), to: Some("bob@x"), lang: Some("de"), without: &[2] };
        let (text, end) = rewrite(raw, &head, &framer, &change);
        assert_eq!(
            insert_before_end(&text, end, "<id/>"),
            "<message from='a@x/r' to='bob@x' id='it&apos;s' xml:lang='de' xmlns:x='urn:x&amp;y'><body>hi</body><x:y/><id/></message>"
        );
    }

    #[test]
    fn an_empty_stanza_gets_an_end_tag() {
        let (framer, head) = framed(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
            "<presence/>",
        );
        let (text, end) = rewrite("<presence/>", &head, &framer, &Rewrite::default());
        assert_eq!((text.as_str(), end), ("<presence></presence>", 10));
        assert_eq!(end_tag(&text), 10);
    }
}
