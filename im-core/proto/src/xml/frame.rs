//! Cuts a stream of bytes into stanzas, and keeps each one's bytes as they came.
//!
//! Given a buffer that begins where the last item ended, [`Framer::next`] goes on scanning where it stopped and
//! returns the next item with the number of bytes it takes:
//!
//! 1. the stream header (TCP only), with the namespaces it declares;
//! 2. stanzas, each with a [`Head`]: kind, addresses, identifier, ranges of its tags and of its direct children
//!    with their namespaces; enough to route it without a tree;
//! 3. the end of the stream.
//!
//! Nesting, declared prefixes, doubled attributes and the limits are checked on the way, UTF-8 when a stanza is
//! whole. Prefixes that a stanza takes from the stream header are listed in its head, because whoever forwards
//! the raw bytes must declare them again.
//!
//! Nothing is held while no stanza is under way: the state is freed between stanzas.

use super::scan::{Attr, Token, is_space, scan, scan_cdata};
use super::{Limits, Span, XmlError, unescape};
use crate::ns;
use crate::stanza::StanzaKind;

/// How a peer frames its XML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// RFC 6120: one long document.
    Stream,
    /// RFC 7395: one document per message, no stream header.
    Messages,
}

/// What a client said in its stream header, or in `<open/>`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamHeader {
    /// The domain it wants.
    pub to: Option<String>,
    /// The address it claims; never trusted.
    pub from: Option<String>,
    /// Language of the stream.
    pub lang: Option<String>,
    /// `version`, as it stands.
    pub version: Option<String>,
}

/// A direct child of a stanza.
#[derive(Debug, Clone, Copy)]
pub struct Child {
    /// The whole element.
    pub whole: Span,
    /// Its local name.
    pub name: Span,
    /// Its namespace, when it or the stanza declares it; otherwise that of the stream.
    pub ns: Option<Span>,
    /// Range of its start tag.
    pub tag: Span,
    /// True when its namespace came from a prefix of the stream header.
    inherited: bool,
}

/// What routing needs to know of a stanza. All ranges are offsets into the stanza's bytes.
#[derive(Debug, Clone)]
pub struct Head {
    /// Message, presence, iq, or something else.
    pub kind: StanzaKind,
    /// Local name of the element.
    pub name: Span,
    /// `to`, raw.
    pub to: Option<Span>,
    /// `from`, raw.
    pub from: Option<Span>,
    /// `type`, raw.
    pub kind_attr: Option<Span>,
    /// `id`, raw.
    pub id: Option<Span>,
    /// Namespace, when the element itself declares it.
    pub ns: Option<Span>,
    /// The start tag with both angle brackets.
    pub tag: Span,
    /// Where the end tag begins; the end of the stanza for `<x/>`.
    pub end_tag: u32,
    /// All attributes, for the rewriting of the start tag.
    pub attrs: Vec<(Span, Span)>,
    /// Direct children in order.
    pub children: Vec<Child>,
    /// Indices into [`Framer::prefixes`] of prefixes that the stanza inherits and uses.
    pub inherited: Vec<u16>,
}

/// An item of a stream.
#[derive(Debug, Clone)]
pub enum Item {
    /// The stream header; further bytes belong to the stream.
    Open(StreamHeader),
    /// A whole top-level element.
    Stanza(Head),
    /// `</stream:stream>`.
    Close,
}

/// An element that is open.
#[derive(Debug, Clone, Copy)]
struct Open {
    name: Span,
    /// Number of declarations before this element's own.
    decls: u16,
}

/// State of a stanza that is not yet whole.
#[derive(Debug)]
struct Progress {
    at: usize,
    open: Vec<Open>,
    /// Prefix declarations in scope within the stanza: prefix (empty for the default) and value.
    decls: Vec<(Span, Span)>,
    head: Option<Head>,
    child_start: usize,
    cdata: bool,
}

/// The incremental framer of one stream.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    mode: Mode,
    opened: bool,
    /// Prefixes that the stream header declares, `stream` itself left out, and their namespaces.
    prefixes: Vec<(Box<str>, Box<str>)>,
    progress: Option<Box<Progress>>,
}

impl Framer {
    /// A framer for a new stream.
    pub fn new(mode: Mode, limits: Limits) -> Self {
        Self { limits, mode, opened: mode == Mode::Messages, prefixes: Vec::new(), progress: None }
    }

    /// Begins again, as after TLS or SASL (RFC 6120 §4.3.3).
    pub fn restart(&mut self) {
        self.opened = self.mode == Mode::Messages;
        self.prefixes = Vec::new();
        self.progress = None;
    }

    /// Changes the limits from the next item on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Prefixes declared by the stream header, with their namespaces.
    pub fn prefixes(&self) -> &[(Box<str>, Box<str>)] {
        &self.prefixes
    }

    /// True when an item has begun and is not whole.
    pub fn is_midway(&self) -> bool {
        self.progress.is_some()
    }

    /// The next item and how many bytes of `buffer` it takes. White space between stanzas is skipped and
    /// counted to the item after it; [`Framer::skip_space`] drops it when nothing follows.
    ///
    /// # Errors
    /// When the bytes break a rule of XML or XMPP, or a limit. The stream cannot go on after that.
    pub fn next(&mut self, buffer: &[u8], attrs: &mut Vec<Attr>) -> Result<Option<(Item, usize)>, XmlError> {
        let mut progress = match self.progress.take() {
            Some(progress) => progress,
            None => {
                let at = buffer.iter().position(|&b| !is_space(b)).unwrap_or(buffer.len());
                if at == buffer.len() {
                    return Ok(None);
                }
                Box::new(Progress {
                    at,
                    open: Vec::new(),
                    decls: Vec::new(),
                    head: None,
                    child_start: 0,
                    cdata: false,
                })
            }
        };
        let found = self.advance(&mut progress, buffer, attrs)?;
        if found.is_none() {
            if buffer.len() > self.limits.stanza_bytes {
                return Err(XmlError::TooLarge("a stanza is too long"));
            }
            self.progress = Some(progress);
        }
        Ok(found)
    }

    /// Bytes of white space at the start of `buffer` that belong to no item (keep-alives, RFC 6120 §4.6.1).
    pub fn skip_space(&self, buffer: &[u8]) -> usize {
        if self.progress.is_some() {
            return 0;
        }
        buffer.iter().position(|&b| !is_space(b)).unwrap_or(buffer.len())
    }

    fn advance(
        &mut self,
        progress: &mut Progress,
        buffer: &[u8],
        attrs: &mut Vec<Attr>,
    ) -> Result<Option<(Item, usize)>, XmlError> {
        if !self.opened {
            return self.stream_header(progress, buffer, attrs);
        }
        loop {
            if progress.cdata {
                let (end, ended) = scan_cdata(buffer, progress.at)?;
                progress.at = end;
                if !ended {
                    return Ok(None);
                }
                progress.cdata = false;
            }
            let Some(token) = scan(buffer, progress.at, &self.limits, attrs)? else { return Ok(None) };
            match token {
                Token::Text { end } => {
                    if progress.open.is_empty() {
                        return Err(XmlError::NotWellFormed("text outside of a stanza"));
                    }
                    progress.at = end;
                }
                Token::CdataStart { end } => {
                    if progress.open.is_empty() {
                        return Err(XmlError::NotWellFormed("text outside of a stanza"));
                    }
                    progress.at = end;
                    progress.cdata = true;
                }
                Token::Open { name, empty, end } => {
                    self.open_element(progress, buffer, attrs, name, end)?;
                    progress.at = end;
                    if empty && close_element(progress, buffer, None, end, end)? {
                        return self.whole(progress, buffer).map(Some);
                    }
                }
                Token::Close { name, end } => {
                    if progress.open.is_empty() {
                        if self.mode == Mode::Stream && split(name.of(buffer)).1 == b"stream" {
                            return Ok(Some((Item::Close, end)));
                        }
                        return Err(XmlError::NotWellFormed("an end tag without its start tag"));
                    }
                    let start = progress.at;
                    progress.at = end;
                    if close_element(progress, buffer, Some(name), start, end)? {
                        return self.whole(progress, buffer).map(Some);
                    }
                }
            }
            if progress.at > self.limits.stanza_bytes {
                return Err(XmlError::TooLarge("a stanza is too long"));
            }
        }
    }

    /// Finishes a stanza: moves its ranges to its own start and checks its encoding.
    fn whole(&self, progress: &mut Progress, buffer: &[u8]) -> Result<(Item, usize), XmlError> {
        if progress.at > self.limits.stanza_bytes {
            return Err(XmlError::TooLarge("a stanza is too long"));
        }
        if std::str::from_utf8(&buffer[..progress.at]).is_err() {
            return Err(XmlError::Encoding);
        }
        let head = progress.head.take().ok_or(XmlError::NotWellFormed("an end tag without its start tag"))?;
        Ok((Item::Stanza(head), progress.at))
    }

    fn open_element(
        &self,
        progress: &mut Progress,
        buffer: &[u8],
        attrs: &[Attr],
        name: Span,
        end: usize,
    ) -> Result<(), XmlError> {
        if progress.open.len() == self.limits.depth {
            return Err(XmlError::TooLarge("elements are nested too deep"));
        }
        let decls_before = progress.decls.len() as u16;
        let mut prefixed_attrs = 0;
        for attr in attrs {
            match split(attr.name.of(buffer)) {
                (b"", b"xmlns") => {
                    check_declaration(b"", attr.value.of(buffer))?;
                    progress.decls.push((Span::default(), attr.value));
                }
                (b"xmlns", prefix) => {
                    check_declaration(prefix, attr.value.of(buffer))?;
                    let local = Span { start: attr.name.end - prefix.len() as u32, end: attr.name.end };
                    progress.decls.push((local, attr.value));
                }
                (b"" | b"xml", _) => {}
                _ => prefixed_attrs += 1,
            }
        }
        let (prefix, local) = split(name.of(buffer));
        let local_span = Span { start: name.end - local.len() as u32, end: name.end };
        let mut inherited = [None, None];
        let ns = self.resolve(progress, buffer, prefix, &mut inherited[0])?;
        if prefixed_attrs > 0 {
            self.check_attribute_prefixes(progress, buffer, attrs)?;
        }
        let depth = progress.open.len();
        if depth == 0 {
            let tag = Span::new(progress.at, end);
            progress.head =
                Some(self.head(buffer, attrs, prefix, local_span, ns, tag, inherited[0].is_some())?);
        } else if depth == 1 {
            progress.child_start = progress.at;
            let tag = Span::new(progress.at, end);
            if let Some(head) = &mut progress.head {
                let child =
                    Child { whole: tag, name: local_span, ns, tag, inherited: inherited[0].is_some() };
                head.children.push(child);
            }
        }
        Self::note_inherited(progress, inherited[0]);
        for attr in attrs.iter().filter(|_| prefixed_attrs > 0) {
            let (prefix, _) = split(attr.name.of(buffer));
            if !matches!(prefix, b"" | b"xml" | b"xmlns") {
                self.resolve(progress, buffer, prefix, &mut inherited[1])?;
                Self::note_inherited(progress, inherited[1].take());
            }
        }
        progress.open.push(Open { name, decls: decls_before });
        Ok(())
    }

    fn note_inherited(progress: &mut Progress, index: Option<u16>) {
        if let (Some(index), Some(head)) = (index, &mut progress.head)
            && !head.inherited.contains(&index)
        {
            head.inherited.push(index);
        }
    }

    /// The namespace bound to `prefix`: `Some` when the stanza declares it, `None` when the stream does.
    fn resolve(
        &self,
        progress: &Progress,
        buffer: &[u8],
        prefix: &[u8],
        inherited: &mut Option<u16>,
    ) -> Result<Option<Span>, XmlError> {
        if let Some((_, value)) = progress.decls.iter().rev().find(|(p, _)| p.of(buffer) == prefix) {
            return Ok(Some(*value));
        }
        if prefix.is_empty() {
            return Ok(None);
        }
        match self.prefixes.iter().position(|(p, _)| p.as_bytes() == prefix) {
            Some(index) => {
                *inherited = Some(index as u16);
                Ok(None)
            }
            None => Err(XmlError::BadPrefix),
        }
    }

    /// Two attributes with different prefixes must not come to the same name (Namespaces in XML §6.3).
    fn check_attribute_prefixes(
        &self,
        progress: &Progress,
        buffer: &[u8],
        attrs: &[Attr],
    ) -> Result<(), XmlError> {
        let mut seen: Vec<(String, &[u8])> = Vec::new();
        for attr in attrs {
            let (prefix, local) = split(attr.name.of(buffer));
            if matches!(prefix, b"" | b"xml" | b"xmlns") {
                continue;
            }
            let mut index = None;
            let uri = match self.resolve(progress, buffer, prefix, &mut index)? {
                Some(span) => unescape(&String::from_utf8_lossy(span.of(buffer))).into_owned(),
                None => index.map(|i| self.prefixes[i as usize].1.to_string()).unwrap_or_default(),
            };
            if seen.iter().any(|(u, l)| *u == uri && *l == local) {
                return Err(XmlError::NotWellFormed("an attribute stands twice"));
            }
            seen.push((uri, local));
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "all of it is known at one place only, the start tag")]
    fn head(
        &self,
        buffer: &[u8],
        attrs: &[Attr],
        prefix: &[u8],
        name: Span,
        ns: Option<Span>,
        tag: Span,
        inherited: bool,
    ) -> Result<Head, XmlError> {
        let client = match ns {
            Some(span) => span.of(buffer) == ns::CLIENT.as_bytes(),
            None => self.mode == Mode::Stream && !inherited,
        };
        let kind = match (client, name.of(buffer)) {
            (true, b"message") => StanzaKind::Message,
            (true, b"presence") => StanzaKind::Presence,
            (true, b"iq") => StanzaKind::Iq,
            _ => StanzaKind::Other,
        };
        if kind != StanzaKind::Other && !prefix.is_empty() {
            return Err(XmlError::BadPrefix);
        }
        let attr = |wanted: &[u8]| attrs.iter().find(|a| a.name.of(buffer) == wanted).map(|a| a.value);
        Ok(Head {
            kind,
            name,
            to: attr(b"to"),
            from: attr(b"from"),
            kind_attr: attr(b"type"),
            id: attr(b"id"),
            ns,
            tag,
            end_tag: tag.end,
            attrs: attrs.iter().map(|a| (a.name, a.value)).collect(),
            children: Vec::new(),
            inherited: Vec::new(),
        })
    }

    fn stream_header(
        &mut self,
        progress: &mut Progress,
        buffer: &[u8],
        attrs: &mut Vec<Attr>,
    ) -> Result<Option<(Item, usize)>, XmlError> {
        const DECLARATION: &[u8] = b"<?xml";
        let rest = &buffer[progress.at..];
        if rest.starts_with(DECLARATION) {
            let Some(len) = rest.iter().take(256).position(|&b| b == b'>') else {
                return if rest.len() < 256 {
                    Ok(None)
                } else {
                    Err(XmlError::NotWellFormed("the XML declaration does not end"))
                };
            };
            check_xml_declaration(&rest[..=len])?;
            progress.at += len + 1;
        } else if DECLARATION.starts_with(rest) {
            return Ok(None);
        }
        while buffer.get(progress.at).is_some_and(|&b| is_space(b)) {
            progress.at += 1;
        }
        match scan(buffer, progress.at, &self.limits, attrs)? {
            None => Ok(None),
            Some(Token::Open { name, empty: false, end }) => {
                let header = self.read_stream_header(buffer, attrs, name)?;
                std::str::from_utf8(&buffer[..end]).map_err(|_| XmlError::Encoding)?;
                self.opened = true;
                Ok(Some((Item::Open(header), end)))
            }
            Some(_) => Err(XmlError::NotWellFormed("a stream header is expected")),
        }
    }

    fn read_stream_header(
        &mut self,
        buffer: &[u8],
        attrs: &[Attr],
        name: Span,
    ) -> Result<StreamHeader, XmlError> {
        let mut header = StreamHeader::default();
        let mut default_ns = None;
        let (stream_prefix, local) = split(name.of(buffer));
        let mut stream_ns = None;
        for attr in attrs {
            let value = std::str::from_utf8(attr.value.of(buffer)).map_err(|_| XmlError::Encoding)?;
            let value = unescape(value).into_owned();
            match split(attr.name.of(buffer)) {
                (b"", b"xmlns") => default_ns = Some(value),
                (b"xmlns", prefix) => {
                    check_declaration(prefix, attr.value.of(buffer))?;
                    if prefix == stream_prefix {
                        stream_ns = Some(value.clone());
                    }
                    let prefix = std::str::from_utf8(prefix).map_err(|_| XmlError::Encoding)?;
                    self.prefixes.push((prefix.into(), value.into()));
                }
                (b"", b"to") => header.to = Some(value),
                (b"", b"from") => header.from = Some(value),
                (b"", b"version") => header.version = Some(value),
                (b"xml", b"lang") => header.lang = Some(value),
                _ => {}
            }
        }
        if stream_prefix.is_empty() || stream_ns.as_deref() != Some(ns::STREAM) || local != b"stream" {
            return Err(XmlError::InvalidNamespace);
        }
        // RFC 6120 §4.8.3: the content namespace is declared as the default.
        if default_ns.as_deref() != Some(ns::CLIENT) {
            return Err(XmlError::InvalidNamespace);
        }
        Ok(header)
    }
}

/// Ends the innermost element; true when that was the stanza itself.
fn close_element(
    progress: &mut Progress,
    buffer: &[u8],
    name: Option<Span>,
    start: usize,
    end: usize,
) -> Result<bool, XmlError> {
    let open = progress.open.pop().ok_or(XmlError::NotWellFormed("an end tag without its start tag"))?;
    if name.is_some_and(|name| name.of(buffer) != open.name.of(buffer)) {
        return Err(XmlError::NotWellFormed("an end tag does not match its start tag"));
    }
    progress.decls.truncate(open.decls as usize);
    let Some(head) = &mut progress.head else { return Ok(false) };
    match progress.open.len() {
        0 => {
            head.end_tag = start as u32;
            Ok(true)
        }
        1 => {
            if let Some(child) = head.children.last_mut() {
                child.whole = Span::new(progress.child_start, end);
            }
            Ok(false)
        }
        _ => Ok(false),
    }
}

/// Prefix and local part of a qualified name.
pub(crate) fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().position(|&b| b == b':') {
        Some(colon) => (&name[..colon], &name[colon + 1..]),
        None => (b"", name),
    }
}

/// The rules for the reserved prefixes (Namespaces in XML §3) and against undeclaring one.
fn check_declaration(prefix: &[u8], value: &[u8]) -> Result<(), XmlError> {
    const XML: &[u8] = b"http://www.w3.org/XML/1998/namespace";
    const XMLNS: &[u8] = b"http://www.w3.org/2000/xmlns/";
    let reserved = (prefix == b"xml") != (value == XML) || prefix == b"xmlns" || value == XMLNS;
    if reserved || (!prefix.is_empty() && value.is_empty()) {
        return Err(XmlError::BadPrefix);
    }
    Ok(())
}

/// `version` must be 1.0 and `encoding`, when given, UTF-8.
fn check_xml_declaration(text: &[u8]) -> Result<(), XmlError> {
    let text = std::str::from_utf8(text).map_err(|_| XmlError::Encoding)?;
    let inner = text.strip_prefix("<?xml").and_then(|t| t.strip_suffix("?>"));
    let inner = inner.ok_or(XmlError::NotWellFormed("the XML declaration is broken"))?;
    let value = |key: &str| {
        let after = &inner[inner.find(key)? + key.len()..];
        let after = after.trim_start().strip_prefix('=')?.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        after[1..].split(quote).next()
    };
    if value("version") != Some("1.0") {
        return Err(XmlError::NotWellFormed("the XML declaration has no version 1.0"));
    }
    match value("encoding") {
        Some(e) if !e.eq_ignore_ascii_case("utf-8") => Err(XmlError::Encoding),
        _ => Ok(()),
    }
}

impl Head {
    /// The namespace of a direct child, resolved against what the stream declares. An undeclared default is the
    /// content namespace of the stream.
    pub fn child_ns<'a>(&self, child: &Child, raw: &'a str) -> &'a str {
        match child.ns {
            Some(span) => span.str(raw),
            None if child.inherited => "",
            None => ns::CLIENT,
        }
    }

    /// The first direct child with this name and namespace.
    pub fn child(&self, raw: &str, name: &str, ns: &str) -> Option<&Child> {
        self.children.iter().find(|c| c.name.str(raw) == name && self.child_ns(c, raw) == ns)
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
