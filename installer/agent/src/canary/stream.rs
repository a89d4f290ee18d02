//! An XMPP stream as a client sees it (RFC 6120, section 4): headers, elements one at a time, STARTTLS.
//!
//! Everything is bounded: an element's size and depth by the parser and by count, every read by the deadline.

use crate::deadline::Deadline;
use crate::error::{Failure, Result};
use crate::wait;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use rxml::error::EndOrError;
use rxml::{Event, Parse, Parser};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// Parts of one element at most.
const PARTS: usize = 10_000;

/// An element with its children.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Element {
    /// Namespace.
    pub namespace: String,
    /// Local name.
    pub name: String,
    /// Attributes by local name.
    pub attributes: Vec<(String, String)>,
    /// Child elements.
    pub children: Vec<Element>,
    /// Text directly in it.
    pub text: String,
}

impl Element {
    /// Whether it has this local name.
    pub fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// The first child with this local name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.is(name))
    }

    /// An attribute's value; empty when it is not there.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// What an error element says: its condition and text.
    pub fn condition(&self) -> String {
        let place = self.child("error").unwrap_or(self);
        let mut words: Vec<&str> = place
            .children
            .iter()
            .filter(|child| !child.is("text"))
            .map(|child| child.name.as_str())
            .collect();
        if let Some(text) = place.child("text") {
            words.push(&text.text);
        }
        if words.is_empty() { format!("<{}/> was not expected", self.name) } else { words.join(": ") }
    }
}

/// Escapes text for an element or an attribute in single quotes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&apos;")
        .replace('"', "&quot;")
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Transport {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }
}

/// A stream to a server.
pub struct Session {
    address: String,
    domain: String,
    transport: Transport,
    parser: Parser,
    /// Bytes read and not parsed yet.
    pending: Vec<u8>,
    /// Elements that are open, the stream's root apart.
    open: Vec<Element>,
    root_seen: bool,
    parts: usize,
    deadline: Deadline,
}

impl Session {
    /// Connects and goes through STARTTLS; the stream inside TLS has been opened.
    pub fn open(address: &str, domain: &str, tls: &Arc<ClientConfig>, deadline: Deadline) -> Result<Self> {
        let trouble = |what: String| Failure::talk(format!("{domain} at {address}"), what);
        let target = wait::resolve(address).map_err(trouble)?;
        let socket = TcpStream::connect_timeout(&target, deadline.left())
            .map_err(|error| trouble(format!("cannot connect: {error}")))?;
        let _ = socket.set_nodelay(true);
        let mut session = Self {
            address: address.to_owned(),
            domain: domain.to_owned(),
            transport: Transport::Plain(socket),
            parser: Parser::new(),
            pending: Vec::new(),
            open: Vec::new(),
            root_seen: false,
            parts: 0,
            deadline,
        };
        session.header()?;
        if session.features()?.child("starttls").is_none() {
            return Err(session.trouble("the server does not offer STARTTLS"));
        }
        session.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")?;
        let answer = session.next("the answer to STARTTLS")?;
        if !answer.is("proceed") {
            return Err(session.trouble("the server refused STARTTLS"));
        }
        if !session.pending.is_empty() {
            return Err(session.trouble("the server sent data in front of the TLS handshake"));
        }
        let name = ServerName::try_from(domain.to_owned())
            .map_err(|_| trouble(format!("`{domain}` cannot be the name in a certificate")))?;
        let connection =
            ClientConnection::new(Arc::clone(tls), name).map_err(|error| trouble(format!("TLS: {error}")))?;
        let Self { transport, .. } = session;
        let Transport::Plain(socket) = transport else {
            return Err(trouble("STARTTLS inside TLS".into()));
        };
        let mut inner = Self {
            address: address.to_owned(),
            domain: domain.to_owned(),
            transport: Transport::Tls(Box::new(StreamOwned::new(connection, socket))),
            parser: Parser::new(),
            pending: Vec::new(),
            open: Vec::new(),
            root_seen: false,
            parts: 0,
            deadline,
        };
        inner.header()?;
        Ok(inner)
    }

    /// An error that names the server.
    pub fn trouble(&self, what: &str) -> Failure {
        Failure::talk(format!("{} at {}", self.domain, self.address), what)
    }

    fn header(&mut self) -> Result<()> {
        let domain = escape(&self.domain);
        self.send(&format!(
            "<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xml:lang='en' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>"
        ))
    }

    /// Opens a new stream on the same connection, as after SASL.
    pub fn restart(&mut self) -> Result<()> {
        self.parser = Parser::new();
        self.pending.clear();
        self.open.clear();
        self.root_seen = false;
        self.header()
    }

    /// Waits for the stream's features.
    pub fn features(&mut self) -> Result<Element> {
        let features = self.next("the stream's features")?;
        if features.is("features") { Ok(features) } else { Err(self.trouble(&features.condition())) }
    }

    /// Sends text.
    pub fn send(&mut self, text: &str) -> Result<()> {
        let _ = self.transport.socket().set_write_timeout(Some(self.deadline.left()));
        self.transport.write(text.as_bytes()).map_err(|error| self.trouble(&format!("cannot send: {error}")))
    }

    /// Closes the stream; what the server says to it is not awaited.
    pub fn close(mut self) {
        let _ = self.send("</stream:stream>");
        if let Transport::Tls(stream) = &mut self.transport {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    }

    /// The next element below the stream's root.
    pub fn next(&mut self, what: &str) -> Result<Element> {
        self.parts = 0;
        loop {
            if let Some(element) = self.parse()? {
                if element.is("error") && element.namespace == "http://etherx.jabber.org/streams" {
                    return Err(self.trouble(&format!("stream error: {}", element.condition())));
                }
                return Ok(element);
            }
            if self.deadline.passed() {
                return Err(self.deadline.missed(format!("{what} from {}", self.address), ""));
            }
            let _ = self.transport.socket().set_read_timeout(Some(self.deadline.left()));
            let mut buffer = [0_u8; 8 << 10];
            match self.transport.read(&mut buffer) {
                Ok(0) => {
                    return Err(
                        self.trouble(&format!("the server closed the connection; awaited was {what}"))
                    );
                }
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) =>
                {
                    return Err(self.deadline.missed(format!("{what} from {}", self.address), ""));
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.trouble(&format!("{error}; awaited was {what}"))),
            }
        }
    }

    /// Parses what is there until an element is complete.
    fn parse(&mut self) -> Result<Option<Element>> {
        let pending = std::mem::take(&mut self.pending);
        let mut rest = pending.as_slice();
        let outcome = loop {
            match self.parser.parse(&mut rest, false) {
                Ok(Some(event)) => {
                    self.parts += 1;
                    if self.parts > PARTS {
                        break Err("it sends an element without end".to_owned());
                    }
                    match self.event(event) {
                        Ok(None) => {}
                        other => break other,
                    }
                }
                Ok(None) => break Err("it closed the stream".to_owned()),
                Err(EndOrError::NeedMoreData) => break Ok(None),
                Err(EndOrError::Error(error)) => break Err(format!("its XML is not well-formed: {error}")),
            }
        };
        self.pending = rest.to_vec();
        outcome.map_err(|what| self.trouble(&what))
    }

    fn event(&mut self, event: Event) -> std::result::Result<Option<Element>, String> {
        match event {
            Event::XmlDeclaration(..) => {}
            Event::StartElement(_, (namespace, name), attributes) => {
                let element = Element {
                    namespace: namespace.to_string(),
                    name: name.to_string(),
                    attributes: attributes
                        .iter()
                        .map(|((_, name), value)| (name.to_string(), value.clone()))
                        .collect(),
                    ..Element::default()
                };
                if self.root_seen {
                    self.open.push(element);
                } else if element.is("stream") {
                    self.root_seen = true;
                } else {
                    return Err(format!("it is no XMPP server: it begins with <{}>", element.name));
                }
            }
            Event::Text(_, text) => {
                if let Some(element) = self.open.last_mut() {
                    element.text.push_str(&text);
                }
            }
            Event::EndElement(_) => {
                let Some(element) = self.open.pop() else { return Err("it closed the stream".to_owned()) };
                match self.open.last_mut() {
                    Some(above) => above.children.push(element),
                    None => return Ok(Some(element)),
                }
            }
        }
        Ok(None)
    }
}
