//! From the first byte to a bound session: stream headers, STARTTLS, SASL, registration, binding, resumption
//! (RFC 6120 §4–§7, RFC 7395, XEP-0077, XEP-0198).
//!
//! Each stage accepts only what belongs to it; anything else ends the stream. The whole has one deadline, set by
//! the caller, so that a slow peer cannot hold a connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use im_proto::stanza::push_attr;
use im_proto::xml::frame::StreamHeader;
use im_proto::xml::{Element, escape};
use im_proto::{Address, Item, StanzaError, ns};

use crate::binding::{bind, resource_of};
use crate::connection::{Bound, Connection, End};
use crate::core::Core;
use crate::features::registration;
use crate::framing::Framing;
use crate::link::Transport;
use crate::offline;
use crate::passwords::{hex, random_bytes};
use crate::sasl::{self, Channel};
use crate::session::{Session, Unresumed};

/// How far a client has come.
enum Stage {
    /// Nothing yet.
    Fresh,
    /// TLS is on (or not needed).
    Secured(Channel),
    /// Signed in as this account.
    SignedIn(Address),
}

/// Queues the server's stream header.
pub fn put_header(connection: &mut Connection, header: Option<&StreamHeader>) {
    connection.opened = true;
    let domain = connection.core.domain.to_string();
    let id = hex(&random_bytes(12));
    let mut out = String::new();
    match connection.link.framing {
        Framing::Stream => {
            out.push_str("<?xml version='1.0'?><stream:stream");
            push_attr(&mut out, "xmlns", ns::CLIENT);
            push_attr(&mut out, "xmlns:stream", ns::STREAM);
        }
        Framing::Messages => {
            out.push_str("<open");
            push_attr(&mut out, "xmlns", ns::FRAMING);
        }
    }
    push_attr(&mut out, "from", &domain);
    if let Some(to) = header.and_then(|h| h.from.as_deref()).and_then(|from| Address::parse(from).ok()) {
        push_attr(&mut out, "to", to.as_str());
    }
    push_attr(&mut out, "id", &id);
    push_attr(&mut out, "version", "1.0");
    push_attr(&mut out, "xml:lang", "en");
    out.push_str(if connection.link.framing == Framing::Stream { ">" } else { "/>" });
    connection.link.put(&out);
}

/// Checks the client's stream header and answers with ours and the features of this stage.
fn open_stream(connection: &mut Connection, header: &StreamHeader, stage: &Stage) -> Result<(), End> {
    put_header(connection, Some(header));
    let to = header.to.as_deref().and_then(|to| Address::parse(to).ok());
    match to {
        Some(to) if to == connection.core.domain => {}
        None if header.to.is_none() => {}
        _ => return Err(End::Stream("host-unknown", "this server does not serve that domain")),
    }
    if header.version.as_deref().is_none_or(|v| !v.starts_with("1.")) {
        return Err(End::Stream("unsupported-version", "XMPP 1.0 is needed"));
    }
    connection.lang = header.lang.as_deref().filter(|l| l.len() <= 64).map(Into::into);
    let features = features(connection, stage);
    connection.link.put(&features);
    Ok(())
}

fn features(connection: &Connection, stage: &Stage) -> String {
    let config = &connection.core.config;
    let mut out = String::from("<stream:features>");
    let plaintext_sasl = config.allow_plaintext && matches!(stage, Stage::Fresh);
    match stage {
        Stage::Fresh => {
            if connection.core.tls.is_some() {
                out.push_str(&format!("<starttls xmlns='{}'>", ns::TLS));
                out.push_str(if plaintext_sasl {
                    "<optional/></starttls>"
                } else {
                    "<required/></starttls>"
                });
            }
            if plaintext_sasl {
                out.push_str(&sasl::features(&Channel { bindings: Vec::new() }, true));
            }
        }
        Stage::Secured(channel) => out.push_str(&sasl::features(channel, true)),
        Stage::SignedIn(_) => {
            out.push_str(&format!("<bind xmlns='{}'/>", ns::BIND));
            out.push_str(&format!("<session xmlns='{}'><optional/></session>", ns::SESSION));
            for feature in crate::features::ALL {
                out.push_str(feature.stream_features);
            }
        }
    }
    if config.registration.in_band
        && !matches!(stage, Stage::SignedIn(_))
        && (plaintext_sasl || !matches!(stage, Stage::Fresh))
    {
        out.push_str(&format!("<register xmlns='{}'/>", ns::REGISTER_FEATURE));
    }
    out.push_str("</stream:features>");
    out
}

/// Takes a connection to a session.
///
/// # Errors
/// How the connection is to be ended.
pub async fn negotiate(connection: &mut Connection) -> Result<Bound, End> {
    let mut stage = match &connection.link.transport {
        Transport::Tcp(_) | Transport::Gone => Stage::Fresh,
        // A WebSocket is reached by HTTPS only, where the channel is not ours to bind to.
        Transport::Upgraded(_) => Stage::Secured(Channel { bindings: Vec::new() }),
        Transport::Tls(_) => Stage::Secured(channel(connection)),
    };
    let mut attempts = 0;
    let mut open = false;
    loop {
        let (item, raw) = connection.read_item().await?;
        let element = match item {
            Item::Close => return Err(End::Closed),
            Item::Open(header) => {
                open = true;
                open_stream(connection, &header, &stage)?;
                continue;
            }
            Item::Stanza(_) => {
                Element::parse(raw.trim_start(), default_ns(connection), connection.framer.prefixes())?
            }
        };
        if connection.link.framing == Framing::Messages {
            if element.is("open", ns::FRAMING) {
                open = true;
                open_stream(connection, &header_of(&element), &stage)?;
                continue;
            }
            if element.is("close", ns::FRAMING) {
                return Err(End::Closed);
            }
            if !open {
                return Err(End::Stream("invalid-xml", "open the stream first"));
            }
        }
        match (&stage, element.name.as_str(), element.ns.as_str()) {
            (Stage::Fresh, "starttls", ns::TLS) if connection.core.tls.is_some() => {
                start_tls(connection).await?;
                stage = Stage::Secured(channel(connection));
            }
            (Stage::Fresh | Stage::Secured(_), "auth", ns::SASL) => {
                let none = Channel { bindings: Vec::new() };
                let channel = match &stage {
                    Stage::Secured(channel) => channel,
                    _ if connection.core.config.allow_plaintext => &none,
                    _ => {
                        let failure =
                            format!("<failure xmlns='{}'><encryption-required/></failure>", ns::SASL);
                        connection.link.put(&failure);
                        continue;
                    }
                };
                if let Some(account) =
                    sasl::authenticate(connection, &element, channel, true, &mut attempts).await?
                {
                    connection.framer.restart();
                    open = false;
                    stage = Stage::SignedIn(account);
                }
            }
            (Stage::Fresh | Stage::Secured(_), "iq", ns::CLIENT)
                if registers(connection, &stage, &element) =>
            {
                let answer = registration::before_sign_in(&connection.core, &element, connection.peer).await;
                connection.link.put(&answer);
            }
            (Stage::SignedIn(account), "iq", ns::CLIENT) => {
                let account = account.clone();
                if let Some(bound) = bind_request(connection, &account, &element).await? {
                    return Ok(bound);
                }
            }
            (Stage::SignedIn(account), "resume", ns::SM) => {
                let account = account.clone();
                if let Some(bound) = resume(connection, &account, &element).await? {
                    return Ok(bound);
                }
            }
            (Stage::SignedIn(_), "enable", ns::SM) => {
                connection.link.put(&format!(
                    "<failed xmlns='{}'><unexpected-request xmlns='{}'/></failed>",
                    ns::SM,
                    ns::STANZA_ERRORS
                ));
            }
            _ => return Err(End::Stream("not-authorized", "sign in and bind a resource first")),
        }
    }
}

fn default_ns(connection: &Connection) -> &'static str {
    if connection.link.framing == Framing::Stream { ns::CLIENT } else { "" }
}

fn header_of(open: &Element) -> StreamHeader {
    StreamHeader {
        to: open.attr("to").map(Into::into),
        from: open.attr("from").map(Into::into),
        version: open.attr("version").map(Into::into),
        lang: open.attributes.iter().find(|a| a.name == "lang" && !a.ns.is_empty()).map(|a| a.value.clone()),
    }
}

fn channel(connection: &Connection) -> Channel {
    let end_point = connection.core.tls.as_ref().map(|tls| tls.xmpp().1);
    sasl::channel(&connection.link.transport, end_point.as_ref())
}

fn registers(connection: &Connection, stage: &Stage, iq: &Element) -> bool {
    let config = &connection.core.config;
    config.registration.in_band
        && (config.allow_plaintext || matches!(stage, Stage::Secured(_)))
        && iq.child("query", ns::REGISTER).is_some()
}

async fn start_tls(connection: &mut Connection) -> Result<(), End> {
    // Anything after <starttls/> on the plain stream could have been put there by somebody in between.
    if !connection.link.unread().is_empty() {
        return Err(End::Stream("policy-violation", "data after starttls"));
    }
    connection.link.put(&format!("<proceed xmlns='{}'/>", ns::TLS));
    connection.link.flush().await?;
    let transport = std::mem::replace(&mut connection.link.transport, Transport::Gone);
    let (Transport::Tcp(stream), Some(tls)) = (transport, &connection.core.tls) else {
        return Err(End::Lost);
    };
    let stream = tls.xmpp().0.accept(stream).await?;
    connection.link.transport = Transport::Tls(Box::new(stream));
    connection.framer.restart();
    Ok(())
}

/// Deals with an iq before a resource is bound.
async fn bind_request(
    connection: &mut Connection,
    account: &Address,
    iq: &Element,
) -> Result<Option<Bound>, End> {
    let id = iq.attr("id").unwrap_or_default();
    let Some(request) = iq.child("bind", ns::BIND).filter(|_| iq.attr("type") == Some("set")) else {
        let answer = error_reply(id, StanzaError::NOT_ALLOWED.with_text("bind a resource first"));
        connection.link.put(&answer);
        return Ok(None);
    };
    let resource = match resource_of(request) {
        Ok(resource) => resource,
        Err(error) => {
            connection.link.put(&error_reply(id, error));
            return Ok(None);
        }
    };
    match bind(connection, account, &resource).await {
        Ok(bound) => {
            connection.link.put(&format!(
                "<iq type='result' id='{}'><bind xmlns='{}'><jid>{}</jid></bind></iq>",
                escape(id),
                ns::BIND,
                escape(bound.session.address.as_str())
            ));
            Ok(Some(bound))
        }
        Err(error) => {
            connection.link.put(&error_reply(id, error));
            Ok(None)
        }
    }
}

fn error_reply(id: &str, error: StanzaError) -> String {
    let mut out = String::from("<iq type='error'");
    push_attr(&mut out, "id", id);
    out.push('>');
    error.write(&mut out, "");
    out.push_str("</iq>");
    out
}

/// How long a resumption waits for the commits of the connection before.
const OLD_COMMITS: Duration = Duration::from_secs(10);

/// A session that was taken over and has no connection yet. However the resumption ends, its time does too.
struct Untended<'a> {
    core: &'a Arc<Core>,
    session: Option<(Arc<Session>, u32)>,
}

impl Drop for Untended<'_> {
    fn drop(&mut self) {
        if let Some((session, generation)) = self.session.take() {
            crate::presence::await_resumption(self.core, &session, generation);
        }
    }
}

/// `<resume/>` (XEP-0198 §5).
async fn resume(
    connection: &mut Connection,
    account: &Address,
    request: &Element,
) -> Result<Option<Bound>, End> {
    let core = Arc::clone(&connection.core);
    let id = request.attr("previd").unwrap_or_default();
    let handled = request.attr("h").and_then(|h| h.parse::<u32>().ok());
    let session = core.resumable.find(id).filter(|s| s.address.bare() == account.as_str());
    let resumed = match (session, handled) {
        (Some(session), Some(handled)) => match session.take_over(id) {
            Some(generation) => {
                let mut left = Untended { core: &core, session: Some((Arc::clone(&session), generation)) };
                // What the connection before took in must be counted before we say how much was handled.
                let lock = Arc::clone(&session.inbound).lock_owned();
                match tokio::time::timeout(OLD_COMMITS, lock).await {
                    Ok(inbound) => {
                        let answer = format!(
                            "<resumed xmlns='{}' previd='{}' h='{}'/>",
                            ns::SM,
                            escape(id),
                            session.handled.load(Ordering::Relaxed)
                        );
                        let framing = connection.link.framing;
                        match session.resume(generation, framing, handled, &answer, &core.store) {
                            Ok(()) => {
                                left.session = None;
                                if session.is_behind() {
                                    offline::begin(&core, &session, None);
                                }
                                Some(Bound { session, generation, inbound })
                            }
                            Err(Unresumed::Counter) => {
                                left.session = None;
                                crate::presence::session_ended(&core, &session).await;
                                None
                            }
                            // It is somebody else's now.
                            Err(Unresumed::Overtaken) => None,
                        }
                    }
                    // Its time to be resumed begins anew.
                    Err(_) => None,
                }
            }
            None => None,
        },
        _ => None,
    };
    match resumed {
        Some(bound) => {
            core.metrics.resumptions.add(1);
            Ok(Some(bound))
        }
        None => {
            connection.link.put(&format!(
                "<failed xmlns='{}'><item-not-found xmlns='{}'/></failed>",
                ns::SM,
                ns::STANZA_ERRORS
            ));
            Ok(None)
        }
    }
}
