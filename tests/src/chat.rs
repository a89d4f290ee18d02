//! A small XMPP client for scenarios: TLS with the cluster's own CA, SCRAM-SHA-256, one-to-one messages.
//!
//! Steps of [`Chat::sign_in`]: [`Chat::connect`] (connect, STARTTLS where asked for, verify the certificate against
//! the given authority, authenticate, bind), then say that we are here. It blocks, every wait has a deadline, and it
//! shares no code with the product: a mistake in both would otherwise hide itself.
//! It deliberately has no roster, no resumption and no tree of elements: a stanza is its text. [`crate::traffic`]
//! adds acknowledgements to it.

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::socket::{setsockopt, sockopt};
use ring::{digest, hmac, pbkdf2};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For every single answer of the server; a sign-in costs it milliseconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// One look at the socket; a wait is many of them.
const READ_LIMIT: Duration = Duration::from_millis(200);
/// To an address that answers at all; a host without power does not.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How the connection becomes private.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Asked for inside the stream, as on port 5222.
    Start,
    /// From the first byte (XEP-0368), as on port 5223.
    Direct,
}

/// A server whose host loses its power says nothing any more: clients find out within seconds, as those do that ping.
fn hears_silence(socket: &TcpStream) -> nix::Result<()> {
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &4)?;
    setsockopt(socket, sockopt::TcpKeepInterval, &2)?;
    setsockopt(socket, sockopt::TcpKeepCount, &3)?;
    setsockopt(socket, sockopt::TcpUserTimeout, &10_000)
}

/// A signed-in client.
pub struct Chat {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// What came and was not looked at yet.
    buffer: String,
    /// The full address that the server bound.
    pub address: String,
}

/// Where a client signs in and how it knows the server.
#[derive(Clone, Debug)]
pub struct Server<'a> {
    /// `host:port`.
    pub at: &'a str,
    /// How.
    pub tls: Tls,
    /// The domain that the certificate must be for.
    pub domain: &'a str,
    /// PEM file of the authority that must have signed it.
    pub authority: &'a Path,
}

impl Chat {
    /// Signs in as `user@domain` and sends presence, so that messages come here.
    pub fn sign_in(server: &Server<'_>, user: &str, password: &str) -> Result<Self> {
        let mut chat = Self::connect(server, user, password)?;
        chat.send("<presence/>")?;
        Ok(chat)
    }

    /// Signs in as `user@domain` and binds; nobody is told, so nothing comes here yet.
    pub fn connect(server: &Server<'_>, user: &str, password: &str) -> Result<Self> {
        let Server { at, tls, domain, authority } = *server;
        let address = at.to_socket_addrs()?.next().with_context(|| format!("{at} is no address"))?;
        let mut socket = TcpStream::connect_timeout(&address, CONNECT_LIMIT)
            .with_context(|| format!("connect to {at}"))?;
        socket.set_read_timeout(Some(READ_LIMIT))?;
        socket.set_nodelay(true)?;
        hears_silence(&socket)?;
        let header = format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams' to='{domain}' version='1.0'>"
        );
        if tls == Tls::Start {
            let mut buffer = String::new();
            socket.write_all(header.as_bytes())?;
            let features = next(&mut socket, &mut buffer, "the stream's features", ANSWER_LIMIT)?;
            ensure!(features.contains("urn:ietf:params:xml:ns:xmpp-tls"), "no STARTTLS: {features}");
            ensure!(!features.contains("<mechanism>"), "signing in is offered before TLS: {features}");
            socket.write_all(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")?;
            let answer = next(&mut socket, &mut buffer, "leave to start TLS", ANSWER_LIMIT)?;
            ensure!(answer.starts_with("<proceed"), "the server will not start TLS: {answer}");
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(authority)
            .with_context(|| format!("read the authority {}", authority.display()))?
        {
            roots.add(certificate?)?;
        }
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
        if tls == Tls::Direct {
            config.alpn_protocols = vec![b"xmpp-client".to_vec()];
        }
        let name = ServerName::try_from(domain.to_owned())?;
        let connection = ClientConnection::new(Arc::new(config), name)?;
        let mut chat = Self {
            stream: StreamOwned::new(connection, socket),
            buffer: String::new(),
            address: String::new(),
        };

        chat.send(&header)?;
        let features = chat.next("the features after TLS")?;
        ensure!(features.contains(">SCRAM-SHA-256<"), "no SCRAM-SHA-256: {features}");
        chat.authenticate(user, password)?;
        chat.buffer.clear();
        chat.send(&header)?;
        chat.next("the features after signing in")?;
        chat.send("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")?;
        let bound =
            chat.wait("the bound address", ANSWER_LIMIT, |stanza| attribute(stanza, "id") == Some("bind"))?;
        between(&bound, "<jid>", "</jid>")
            .with_context(|| format!("no address: {bound}"))?
            .clone_into(&mut chat.address);
        Ok(chat)
    }

    /// SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding. The server's proof is checked.
    fn authenticate(&mut self, user: &str, password: &str) -> Result<()> {
        let nonce = BASE64.encode(rand::random::<[u8; 18]>());
        let first = format!("n={user},r={nonce}");
        self.send(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>{}</auth>",
            BASE64.encode(format!("n,,{first}"))
        ))?;
        let challenge = self.next("the challenge")?;
        let challenge = between(&challenge, ">", "</challenge>")
            .with_context(|| format!("refused before a challenge: {challenge}"))?;
        let challenge = String::from_utf8(BASE64.decode(challenge)?)?;
        let field = |name: char| {
            challenge
                .split(',')
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
                .with_context(|| format!("no {name} in {challenge}"))
        };
        ensure!(field('r')?.starts_with(&nonce), "the server changed our nonce");
        let mut salted = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            NonZeroU32::new(field('i')?.parse()?).context("zero iterations")?,
            &BASE64.decode(field('s')?)?,
            password.as_bytes(),
            &mut salted,
        );
        let keyed = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let client_key = keyed(&salted, b"Client Key");
        let stored = digest::digest(&digest::SHA256, client_key.as_ref());
        let last = format!("c={},r={}", BASE64.encode("n,,"), field('r')?);
        let all = format!("{first},{challenge},{last}");
        let proof: Vec<u8> = keyed(stored.as_ref(), all.as_bytes())
            .as_ref()
            .iter()
            .zip(client_key.as_ref())
            .map(|(left, right)| left ^ right)
            .collect();
        self.send(&format!(
            "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{}</response>",
            BASE64.encode(format!("{last},p={}", BASE64.encode(proof)))
        ))?;
        let outcome = self.next("the outcome of signing in")?;
        ensure!(outcome.starts_with("<success"), "{user} was not let in: {outcome}");
        let server_key = keyed(&salted, b"Server Key");
        let expected = format!("v={}", BASE64.encode(keyed(server_key.as_ref(), all.as_bytes())));
        let said = between(&outcome, ">", "</success>").unwrap_or_default();
        ensure!(BASE64.decode(said)? == expected.as_bytes(), "the server does not know the password either");
        Ok(())
    }

    /// Sends text as it is.
    pub fn send(&mut self, stanza: &str) -> Result<()> {
        self.stream.write_all(stanza.as_bytes())?;
        self.stream.flush()?;
        Ok(())
    }

    /// Sends a chat message. `body` must not need escaping.
    pub fn say(&mut self, to: &str, body: &str) -> Result<()> {
        let id = uuid_like();
        self.send(&format!("<message type='chat' to='{to}' id='{id}'><body>{body}</body></message>"))
    }

    /// Waits until a message with exactly this body comes, and gives its sender.
    pub fn hear(&mut self, body: &str, limit: Duration) -> Result<String> {
        let wanted = format!("<body>{body}</body>");
        let stanza = self.wait(&format!("the message '{body}'"), limit, |stanza| {
            stanza.starts_with("<message") && stanza.contains(&wanted)
        })?;
        attribute(&stanza, "from").map(str::to_owned).with_context(|| format!("no sender: {stanza}"))
    }

    /// A round trip: when it is back, the server has handled all that was sent before.
    pub fn ping(&mut self) -> Result<()> {
        let id = uuid_like();
        self.send(&format!("<iq type='get' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>"))?;
        self.wait("the answer to a ping", ANSWER_LIMIT, |stanza| attribute(stanza, "id") == Some(&id))
            .map(drop)
    }

    /// Ends the session in good order: what is sent to it after this waits at the server.
    pub fn leave(mut self) -> Result<()> {
        self.send("<presence type='unavailable'/></stream:stream>")?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        let mut bytes = [0; 4096];
        while Instant::now() < deadline {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                // Closed without TLS's own farewell: closed all the same.
                Err(_) => return Ok(()),
            }
        }
        bail!("the server did not close the stream within {ANSWER_LIMIT:?}")
    }

    /// The next stanza that `wanted` likes; the others are dropped.
    pub fn wait(&mut self, what: &str, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let stanza = next(&mut self.stream, &mut self.buffer, what, left)?;
            if wanted(&stanza) {
                return Ok(stanza);
            }
        }
    }

    /// The next stanza if one comes within `limit`.
    pub fn poll(&mut self, limit: Duration) -> Result<Option<String>> {
        if first_child(&self.buffer).is_none() {
            self.stream.sock.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
        }
        let stanza = next_within(&mut self.stream, &mut self.buffer, "a stanza", limit);
        self.stream.sock.set_read_timeout(Some(READ_LIMIT))?;
        stanza
    }

    fn next(&mut self, what: &str) -> Result<String> {
        next(&mut self.stream, &mut self.buffer, what, ANSWER_LIMIT)
    }
}

fn uuid_like() -> String {
    hex::encode(rand::random::<[u8; 8]>())
}

/// Reads until one whole child of the stream is there; none within `limit` is an error.
fn next(stream: &mut impl Read, buffer: &mut String, what: &str, limit: Duration) -> Result<String> {
    next_within(stream, buffer, what, limit)?
        .with_context(|| format!("waited {limit:?} for {what}; so far: {buffer}"))
}

/// Reads until one whole child of the stream is there, or the time is over.
fn next_within(
    stream: &mut impl Read,
    buffer: &mut String,
    what: &str,
    limit: Duration,
) -> Result<Option<String>> {
    let deadline = Instant::now() + limit;
    let mut bytes = [0; 8192];
    let mut pending = Vec::new();
    loop {
        skip_stream_header(buffer);
        if let Some(end) = first_child(buffer) {
            let stanza = buffer[..end].to_owned();
            buffer.drain(..end);
            if stanza.starts_with("<stream:error") {
                bail!("the stream was ended: {stanza}");
            }
            return Ok(Some(stanza));
        }
        if Instant::now() >= deadline {
            // What was cut in the middle of a character is waited for a little longer: it cannot be put back.
            if pending.is_empty() {
                return Ok(None);
            }
            ensure!(
                Instant::now() < deadline + ANSWER_LIMIT,
                "half a character came while waiting for {what}"
            );
        }
        match stream.read(&mut bytes) {
            Ok(0) => bail!("the server closed the connection before {what}; so far: {buffer}"),
            Ok(count) => pending.extend_from_slice(&bytes[..count]),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock
                        | std::io::ErrorKind::TimedOut
                        | std::io::ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("read while waiting for {what}")),
        }
        // A character may be cut in two by the end of a packet.
        let whole = match std::str::from_utf8(&pending) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(error) => bail!("the server sent what is no UTF-8: {error}"),
        };
        let rest = pending.split_off(whole);
        buffer.push_str(std::str::from_utf8(&pending)?);
        pending = rest;
    }
}

/// Drops an XML declaration and the start of a stream from the front.
fn skip_stream_header(buffer: &mut String) {
    for start in ["<?xml", "<stream:stream"] {
        let trimmed = buffer.trim_start().len();
        buffer.drain(..buffer.len() - trimmed);
        if buffer.starts_with(start)
            && let Some(end) = buffer.find('>')
        {
            buffer.drain(..=end);
        }
    }
}

/// Where the first whole element ends, if it has come already.
fn first_child(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        let open = at + text.get(at..)?.find('<')?;
        let mut quote = None;
        let mut close = open + 1;
        loop {
            let byte = *bytes.get(close)?;
            match quote {
                Some(mark) if mark == byte => quote = None,
                Some(_) => {}
                None if byte == b'"' || byte == b'\'' => quote = Some(byte),
                None if byte == b'>' => break,
                None => {}
            }
            close += 1;
        }
        if bytes[open + 1] == b'/' {
            depth = depth.saturating_sub(1);
        } else if bytes[close - 1] != b'/' {
            depth += 1;
        }
        at = close + 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The text between two marks.
pub(crate) fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let from = text.find(start)? + start.len();
    let to = from + text[from..].find(end)?;
    Some(&text[from..to])
}

/// An attribute of the outermost element.
pub(crate) fn attribute<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    let tag = &stanza[..stanza.find('>')?];
    ['\'', '"'].into_iter().find_map(|quote| between(tag, &format!(" {name}={quote}"), &quote.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{attribute, between, first_child, skip_stream_header};

    #[test]
    fn a_child_ends_where_its_tag_closes() {
        assert_eq!(first_child("<a b='>'><c/><d>x</d></a><e/>"), Some("<a b='>'><c/><d>x</d></a>".len()));
        assert_eq!(first_child("<a/><b>"), Some(4));
        assert_eq!(first_child("<a><b></a"), None);
        assert_eq!(first_child("<a b='"), None);
    }

    #[test]
    fn the_stream_header_is_no_child() {
        let mut text = "<?xml version='1.0'?><stream:stream id='1'><f/>".to_owned();
        skip_stream_header(&mut text);
        assert_eq!(text, "<f/>");
    }

    #[test]
    fn attributes_are_those_of_the_outermost_element() {
        assert_eq!(attribute("<m from=\"a@b\" to='c'><x id='1'/></m>", "from"), Some("a@b"));
        assert_eq!(attribute("<m to='c'><x id='1'/></m>", "id"), None);
        assert_eq!(between("<jid>a</jid>", "<jid>", "</jid>"), Some("a"));
    }
}
