//! A tree of one element, for what the server answers itself, and its serialisation.
//!
//! Names and namespaces are resolved, so that a handler compares `(name, namespace)` and never sees a prefix.
//! Written out, an element declares its namespace as the default where it differs from its parent's. Attributes
//! in a foreign namespace are kept and get a prefix made for them.

use std::fmt::Write as _;

use super::escape::{escape_into, escape_text_into, unescape};
use super::frame::split;
use super::scan::{Token, scan, scan_cdata};
use super::{Limits, XmlError};

/// A child of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// An element.
    Element(Element),
    /// Character data, references replaced.
    Text(String),
}

/// An attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Namespace; empty for none.
    pub ns: String,
    /// Local name.
    pub name: String,
    /// Value, references replaced.
    pub value: String,
}

/// An XML element with resolved names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Local name.
    pub name: String,
    /// Namespace.
    pub ns: String,
    /// Attributes in order.
    pub attributes: Vec<Attribute>,
    /// Content in order.
    pub nodes: Vec<Node>,
}

const XML_NS: &str = "http://www.w3.org/XML/1998/namespace";

impl Element {
    /// An empty element.
    pub fn new(name: &str, ns: &str) -> Self {
        Self { name: name.into(), ns: ns.into(), attributes: Vec::new(), nodes: Vec::new() }
    }

    /// Parses one whole element.
    ///
    /// `default_ns` is the namespace in scope without a prefix, `prefixes` those that the stream header
    /// declared.
    ///
    /// # Errors
    /// When `raw` is not exactly one well-formed element.
    pub fn parse(raw: &str, default_ns: &str, prefixes: &[(Box<str>, Box<str>)]) -> Result<Self, XmlError> {
        let limits = Limits { stanza_bytes: usize::MAX, depth: 256, attributes: 256, tag_bytes: usize::MAX };
        let bytes = raw.as_bytes();
        let mut parser = Parser { default_ns, prefixes, stack: Vec::new(), decls: Vec::new(), done: None };
        let mut attrs = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let token = scan(bytes, at, &limits, &mut attrs)?;
            let token = token.ok_or(XmlError::NotWellFormed("an element does not end"))?;
            match token {
                Token::Text { end } => {
                    parser.text(&unescape(&normalise_lines(&raw[at..end])))?;
                    at = end;
                }
                Token::CdataStart { end } => {
                    let (after, ended) = scan_cdata(bytes, end)?;
                    if !ended {
                        return Err(XmlError::NotWellFormed("a CDATA section does not end"));
                    }
                    parser.text(&normalise_lines(&raw[end..after - 3]))?;
                    at = after;
                }
                Token::Open { name, empty, end } => {
                    if parser.stack.len() == limits.depth {
                        return Err(XmlError::TooLarge("elements are nested too deep"));
                    }
                    let list = attrs.iter().map(|a| (a.name.str(raw), a.value.str(raw)));
                    parser.open(name.str(raw), &list.collect::<Vec<_>>())?;
                    if empty {
                        parser.close(None)?;
                    }
                    at = end;
                }
                Token::Close { name, end } => {
                    parser.close(Some(name.str(raw)))?;
                    at = end;
                }
            }
        }
        match parser.done {
            Some(element) if parser.stack.is_empty() => Ok(element),
            _ => Err(XmlError::NotWellFormed("an element does not end")),
        }
    }

    /// Value of an attribute without namespace.
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|a| a.ns.is_empty() && a.name == name).map(|a| a.value.as_str())
    }

    /// Sets an attribute without namespace.
    pub fn set_attr(&mut self, name: &str, value: &str) {
        match self.attributes.iter_mut().find(|a| a.ns.is_empty() && a.name == name) {
            Some(attribute) => attribute.value = value.into(),
            None => {
                self.attributes.push(Attribute { ns: String::new(), name: name.into(), value: value.into() });
            }
        }
    }

    /// The same element with this attribute.
    #[must_use]
    pub fn with_attr(mut self, name: &str, value: &str) -> Self {
        self.set_attr(name, value);
        self
    }

    /// The same element with this child.
    #[must_use]
    pub fn with_child(mut self, child: Self) -> Self {
        self.nodes.push(Node::Element(child));
        self
    }

    /// The same element with this text.
    #[must_use]
    pub fn with_text(mut self, text: &str) -> Self {
        self.nodes.push(Node::Text(text.into()));
        self
    }

    /// True when name and namespace are these.
    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.name == name && self.ns == ns
    }

    /// Child elements in order.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        self.nodes.iter().filter_map(|n| match n {
            Node::Element(e) => Some(e),
            Node::Text(_) => None,
        })
    }

    /// The first child with this name and namespace.
    pub fn child(&self, name: &str, ns: &str) -> Option<&Self> {
        self.children().find(|c| c.is(name, ns))
    }

    /// The first child, whatever it is.
    pub fn first_child(&self) -> Option<&Self> {
        self.children().next()
    }

    /// The character data directly inside.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for node in &self.nodes {
            if let Node::Text(text) = node {
                out.push_str(text);
            }
        }
        out
    }

    /// Writes the element, for a place where `parent_ns` is the default namespace.
    pub fn write(&self, out: &mut String, parent_ns: &str) {
        out.push('<');
        out.push_str(&self.name);
        if self.ns != parent_ns {
            out.push_str(" xmlns='");
            escape_into(&self.ns, out);
            out.push('\'');
        }
        for (index, attribute) in self.attributes.iter().enumerate() {
            if attribute.ns.is_empty() {
                out.push(' ');
            } else if attribute.ns == XML_NS {
                out.push_str(" xml:");
            } else {
                let _ = write!(out, " xmlns:a{index}='");
                escape_into(&attribute.ns, out);
                let _ = write!(out, "' a{index}:");
            }
            out.push_str(&attribute.name);
            out.push_str("='");
            escape_into(&attribute.value, out);
            out.push('\'');
        }
        if self.nodes.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        for node in &self.nodes {
            match node {
                Node::Element(child) => child.write(out, &self.ns),
                Node::Text(text) => escape_text_into(text, out),
            }
        }
        out.push_str("</");
        out.push_str(&self.name);
        out.push('>');
    }

    /// The element as text, for a place where `parent_ns` is the default namespace.
    pub fn to_xml(&self, parent_ns: &str) -> String {
        let mut out = String::new();
        self.write(&mut out, parent_ns);
        out
    }
}

/// XML 1.0 §2.11: line ends become one line feed.
fn normalise_lines(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n").into() } else { text.into() }
}

struct Parser<'a> {
    default_ns: &'a str,
    prefixes: &'a [(Box<str>, Box<str>)],
    /// Open elements, their qualified names, and how many declarations were in scope before each.
    stack: Vec<(Element, String, usize)>,
    decls: Vec<(String, String)>,
    done: Option<Element>,
}

impl Parser<'_> {
    fn text(&mut self, text: &str) -> Result<(), XmlError> {
        match self.stack.last_mut() {
            Some((parent, ..)) => match parent.nodes.last_mut() {
                Some(Node::Text(before)) => before.push_str(text),
                _ => parent.nodes.push(Node::Text(text.into())),
            },
            None if text.trim_ascii().is_empty() => {}
            None => return Err(XmlError::NotWellFormed("text outside of an element")),
        }
        Ok(())
    }

    fn resolve(&self, prefix: &str) -> Result<String, XmlError> {
        if prefix == "xml" {
            return Ok(XML_NS.into());
        }
        if let Some((_, uri)) = self.decls.iter().rev().find(|(p, _)| p == prefix) {
            return Ok(uri.clone());
        }
        if prefix.is_empty() {
            return Ok(self.default_ns.into());
        }
        let found = self.prefixes.iter().find(|(p, _)| &**p == prefix);
        found.map(|(_, uri)| uri.to_string()).ok_or(XmlError::BadPrefix)
    }

    fn open(&mut self, name: &str, attrs: &[(&str, &str)]) -> Result<(), XmlError> {
        if self.done.is_some() {
            return Err(XmlError::NotWellFormed("more than one element"));
        }
        let before = self.decls.len();
        for (name, value) in attrs {
            match parts(name) {
                ("", "xmlns") => self.decls.push((String::new(), unescape(value).into_owned())),
                ("xmlns", prefix) => self.decls.push((prefix.into(), unescape(value).into_owned())),
                _ => {}
            }
        }
        let (prefix, local) = parts(name);
        let mut element = Element::new(local, &self.resolve(prefix)?);
        for (name, value) in attrs {
            let (prefix, local) = parts(name);
            if prefix == "xmlns" || *name == "xmlns" {
                continue;
            }
            let ns = if prefix.is_empty() { String::new() } else { self.resolve(prefix)? };
            let value = normalise_attribute(value);
            element.attributes.push(Attribute {
                ns,
                name: local.into(),
                value: unescape(&value).into_owned(),
            });
        }
        self.stack.push((element, name.into(), before));
        Ok(())
    }

    fn close(&mut self, name: Option<&str>) -> Result<(), XmlError> {
        const BAD: XmlError = XmlError::NotWellFormed("an end tag does not match its start tag");
        let (element, open_name, before) = self.stack.pop().ok_or(BAD)?;
        if name.is_some_and(|n| n != open_name) {
            return Err(BAD);
        }
        self.decls.truncate(before);
        match self.stack.last_mut() {
            Some((parent, ..)) => parent.nodes.push(Node::Element(element)),
            None => self.done = Some(element),
        }
        Ok(())
    }
}

/// XML 1.0 §3.3.3: literal white space in an attribute value becomes spaces.
fn normalise_attribute(value: &str) -> std::borrow::Cow<'_, str> {
    if value.contains(['\n', '\t', '\r']) {
        value.replace("\r\n", " ").replace(['\n', '\t', '\r'], " ").into()
    } else {
        value.into()
    }
}

fn parts(name: &str) -> (&str, &str) {
    let (prefix, _) = split(name.as_bytes());
    if prefix.is_empty() { ("", name) } else { (&name[..prefix.len()], &name[prefix.len() + 1..]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ns;

    #[test]
    fn reads_and_writes() {
        let raw = "<iq type='get' id='a&amp;b'><q xmlns='urn:x' y:z='1' xmlns:y='urn:y'><![CDATA[<&]]> t</q><e/></iq>";
        let e = Element::parse(raw, ns::CLIENT, &[]).unwrap();
        assert!(e.is("iq", ns::CLIENT));
        assert_eq!(e.attr("id"), Some("a&b"));
        let q = e.child("q", "urn:x").unwrap();
        assert_eq!(q.text(), "<& t");
        assert!(e.child("e", ns::CLIENT).is_some());
        let again = Element::parse(&e.to_xml(ns::CLIENT), ns::CLIENT, &[]).unwrap();
        assert_eq!(again, e);
    }

    #[test]
    fn resolves_prefixes_of_the_stream() {
        let prefixes: [(Box<str>, Box<str>); 1] = [("p".into(), "urn:p".into())];
        let e = Element::parse("<p:a><b/></p:a>", ns::CLIENT, &prefixes).unwrap();
        assert!(e.is("a", "urn:p"));
        assert!(e.child("b", ns::CLIENT).is_some());
        assert_eq!(Element::parse("<q:a/>", ns::CLIENT, &prefixes), Err(XmlError::BadPrefix));
    }

    #[test]
    fn refuses_what_is_not_one_element() {
        for bad in ["", "text", "<a>", "<a></b>", "<a/><b/>", "<a/>x", "</a>"] {
            assert!(Element::parse(bad, ns::CLIENT, &[]).is_err(), "{bad:?}");
        }
    }
}
