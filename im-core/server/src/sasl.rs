//! Signing in: SASL over a stream (RFC 6120 §6), with PLAIN and SCRAM, and what SCRAM-PLUS binds to.
//!
//! A name without account goes through the whole exchange with a made-up, stable salt, so that neither the
//! answers nor their order tell whether it exists. Failed attempts are counted per connection, and per account
//! and address.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use im_proto::scram::{self, Binding, ClientFirst, Exchange, Hash, Plain, SaslError};
use im_proto::xml::Element;
use im_proto::{Address, Item, ns};
use im_store::Accounts as _;

use crate::connection::{Connection, End};
use crate::link::Transport;
use crate::passwords::{from_store, random_bytes};

/// A channel that SCRAM can be bound to.
#[derive(Debug, Clone)]
pub struct Channel {
    /// Type and data of each binding, best first.
    pub bindings: Vec<(&'static str, Arc<[u8]>)>,
}

/// What the TLS connection offers to bind to.
pub fn channel(transport: &Transport, end_point: Option<&Arc<[u8]>>) -> Channel {
    let mut bindings = Vec::new();
    if let Transport::Tls(stream) = transport {
        let (_, connection) = stream.get_ref();
        if connection.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3)
            && let Ok(data) =
                connection.export_keying_material([0_u8; 32], b"EXPORTER-Channel-Binding", Some(b""))
        {
            bindings.push(("tls-exporter", Arc::from(data.as_slice())));
        }
        if let Some(hash) = end_point {
            bindings.push(("tls-server-end-point", Arc::clone(hash)));
        }
    }
    Channel { bindings }
}

/// The `<mechanisms/>` feature, with the channel bindings (XEP-0440).
pub fn features(channel: &Channel, plain: bool) -> String {
    let mut out = format!("<mechanisms xmlns='{}'>", ns::SASL);
    if !channel.bindings.is_empty() {
        out.push_str("<mechanism>SCRAM-SHA-256-PLUS</mechanism><mechanism>SCRAM-SHA-1-PLUS</mechanism>");
    }
    out.push_str("<mechanism>SCRAM-SHA-256</mechanism><mechanism>SCRAM-SHA-1</mechanism>");
    if plain {
        out.push_str("<mechanism>PLAIN</mechanism>");
    }
    out.push_str("</mechanisms>");
    if !channel.bindings.is_empty() {
        out.push_str(&format!("<sasl-channel-binding xmlns='{}'>", ns::SASL_CB));
        for (name, _) in &channel.bindings {
            out.push_str(&format!("<channel-binding type='{name}'/>"));
        }
        out.push_str("</sasl-channel-binding>");
    }
    out
}

/// How an attempt failed, as the client is told.
enum Failure {
    Condition(&'static str),
    End(End),
}

impl From<End> for Failure {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl From<SaslError> for Failure {
    fn from(error: SaslError) -> Self {
        Self::Condition(match error {
            SaslError::Malformed => "malformed-request",
            SaslError::NotAuthorized => "not-authorized",
            SaslError::InvalidAuthzid => "invalid-authzid",
        })
    }
}

/// Deals with `<auth/>`. `Some` when the client is signed in; the success was sent.
pub async fn authenticate(
    connection: &mut Connection,
    auth: &Element,
    channel: &Channel,
    plain: bool,
    attempts: &mut u64,
) -> Result<Option<Address>, End> {
    match attempt(connection, auth, channel, plain).await {
        Ok((account, more)) => {
            connection.core.metrics.sign_ins.add(1);
            connection.link.put(&match more {
                Some(data) => format!("<success xmlns='{}'>{}</success>", ns::SASL, BASE64.encode(data)),
                None => format!("<success xmlns='{}'/>", ns::SASL),
            });
            Ok(Some(account))
        }
        Err(Failure::Condition(condition)) => {
            connection.core.metrics.sign_in_failures.add(1);
            connection.link.put(&format!("<failure xmlns='{}'><{condition}/></failure>", ns::SASL));
            *attempts += 1;
            if *attempts >= connection.core.config.limits.sign_in_attempts {
                return Err(End::Stream("policy-violation", "too many attempts to sign in"));
            }
            Ok(None)
        }
        Err(Failure::End(end)) => Err(end),
    }
}

fn decode(text: &str) -> Result<Vec<u8>, Failure> {
    match text.trim() {
        "=" => Ok(Vec::new()),
        text => BASE64.decode(text).map_err(|_| Failure::Condition("incorrect-encoding")),
    }
}

async fn attempt(
    connection: &mut Connection,
    auth: &Element,
    channel: &Channel,
    plain: bool,
) -> Result<(Address, Option<String>), Failure> {
    let mut data = decode(&auth.text())?;
    if data.is_empty() {
        // Without an initial response the client waits for an empty challenge.
        connection.link.put(&format!("<challenge xmlns='{}'/>", ns::SASL));
        data = response(connection).await?;
    }
    match auth.attr("mechanism").unwrap_or_default() {
        "PLAIN" if plain => by_password(connection, &data).await,
        "SCRAM-SHA-1" => by_scram(connection, &data, Hash::Sha1, None, channel).await,
        "SCRAM-SHA-256" => by_scram(connection, &data, Hash::Sha256, None, channel).await,
        "SCRAM-SHA-1-PLUS" if !channel.bindings.is_empty() => {
            by_scram(connection, &data, Hash::Sha1, Some(channel), channel).await
        }
        "SCRAM-SHA-256-PLUS" if !channel.bindings.is_empty() => {
            by_scram(connection, &data, Hash::Sha256, Some(channel), channel).await
        }
        "PLAIN" => Err(Failure::Condition("encryption-required")),
        _ => Err(Failure::Condition("invalid-mechanism")),
    }
}

/// Waits for `<response/>`.
async fn response(connection: &mut Connection) -> Result<Vec<u8>, Failure> {
    let (item, raw) = connection.read_item().await?;
    let Item::Stanza(_) = item else { return Err(Failure::End(End::Closed)) };
    let element =
        Element::parse(raw.trim_start(), ns::CLIENT, connection.framer.prefixes()).map_err(End::from)?;
    if element.is("response", ns::SASL) {
        return decode(&element.text());
    }
    if element.is("abort", ns::SASL) {
        return Err(Failure::Condition("aborted"));
    }
    Err(Failure::End(End::Stream("not-authorized", "sign in first")))
}

/// What is known of an account that wants to sign in.
struct Candidate {
    account: Option<Address>,
    disabled: bool,
    keys: scram::Keys,
}

async fn candidate(connection: &mut Connection, username: &str, hash: Hash) -> Result<Candidate, Failure> {
    let core = &connection.core;
    let address = Address::from_local(username, core.domain.as_str()).ok();
    let found = match &address {
        Some(address) => core.store.sign_in(address.as_str()).await.map_err(|error| {
            core.report("cannot look up an account that signs in", &error);
            Failure::Condition("temporary-auth-failure")
        })?,
        None => None,
    };
    Ok(match found {
        Some(sign_in) => Candidate {
            account: address,
            disabled: sign_in.disabled,
            keys: from_store(match hash {
                Hash::Sha1 => &sign_in.credentials.sha1,
                Hash::Sha256 => &sign_in.credentials.sha256,
            }),
        },
        None => Candidate {
            account: None,
            disabled: false,
            keys: scram::Keys {
                salt: scram::fake_salt(
                    &core.salt_secret,
                    address.as_ref().map_or(username, Address::as_str),
                    hash,
                    16,
                ),
                iterations: core.passwords.iterations(),
                stored_key: random_bytes(hash.len()),
                server_key: random_bytes(hash.len()),
            },
        },
    })
}

/// What failures are counted by: the client's address and the account, however its name was spelt.
fn failures_key(connection: &Connection, username: &str) -> String {
    let account = Address::from_local(username, connection.core.domain.as_str());
    // What is no name is no account either, so its spelling leads nowhere.
    format!("sign-in-failure:{}:{}", connection.peer, account.as_ref().map_or(username, Address::as_str))
}

/// Counts a failure. Once there are too many in a minute, even the right password is refused for a while.
async fn failed(connection: &mut Connection, username: &str) -> Failure {
    let limit = connection.core.config.limits.sign_in_failures_per_minute;
    let key = failures_key(connection, username);
    if connection.core.live.allow(&key, limit, Duration::from_mins(1)).await {
        Failure::Condition("not-authorized")
    } else {
        connection.core.throttled.enter(key, Duration::from_mins(1));
        Failure::Condition("temporary-auth-failure")
    }
}

/// Whether this account may still be tried from this address; counts nothing.
fn check_throttle(connection: &Connection, username: &str) -> Result<(), Failure> {
    if connection.core.throttled.contains(&failures_key(connection, username)) {
        return Err(Failure::Condition("temporary-auth-failure"));
    }
    Ok(())
}

/// The last checks, common to all mechanisms: the account may sign in, and as whom it wants.
fn admit(candidate: Candidate, authzid: Option<&str>) -> Result<Address, Failure> {
    let account = candidate.account.ok_or(Failure::Condition("not-authorized"))?;
    if candidate.disabled {
        return Err(Failure::Condition("account-disabled"));
    }
    if let Some(authzid) = authzid
        && Address::parse(authzid).ok().as_ref() != Some(&account)
    {
        return Err(SaslError::InvalidAuthzid.into());
    }
    Ok(account)
}

async fn by_password(connection: &mut Connection, data: &[u8]) -> Result<(Address, Option<String>), Failure> {
    let plain = Plain::parse(data)?;
    check_throttle(connection, &plain.username)?;
    let candidate = candidate(connection, &plain.username, Hash::Sha256).await?;
    let fits = connection.core.passwords.check(&plain.password, candidate.keys.clone()).await;
    match fits {
        Err(_) => Err(Failure::Condition("temporary-auth-failure")),
        Ok(true) if candidate.account.is_some() => Ok((admit(candidate, plain.authzid.as_deref())?, None)),
        Ok(_) => Err(failed(connection, &plain.username).await),
    }
}

async fn by_scram(
    connection: &mut Connection,
    data: &[u8],
    hash: Hash,
    plus: Option<&Channel>,
    offered: &Channel,
) -> Result<(Address, Option<String>), Failure> {
    let first = ClientFirst::parse(data)?;
    check_throttle(connection, &first.username)?;
    let binding = match (&first.binding, plus) {
        (Binding::Required(name), Some(channel)) => {
            let found = channel.bindings.iter().find(|(n, _)| n == name);
            Some(found.ok_or(Failure::Condition("malformed-request"))?.1.to_vec())
        }
        // RFC 5802 §6: 'y' from a client when -PLUS was offered means that somebody took it out.
        (Binding::NotOffered, None) if !offered.bindings.is_empty() => {
            return Err(Failure::Condition("not-authorized"));
        }
        (Binding::Unsupported | Binding::NotOffered, None) => None,
        _ => return Err(Failure::Condition("malformed-request")),
    };
    let candidate = candidate(connection, &first.username, hash).await?;
    let nonce = BASE64.encode(random_bytes(18));
    let known = candidate.account.is_some();
    let (exchange, challenge) = Exchange::begin(hash, &first, candidate.keys.clone(), &nonce, binding, known);
    let challenge = BASE64.encode(challenge);
    connection.link.put(&format!("<challenge xmlns='{}'>{challenge}</challenge>", ns::SASL));
    let last = response(connection).await?;
    match exchange.finish(&last) {
        Ok(answer) => Ok((admit(candidate, first.authzid.as_deref())?, Some(answer))),
        Err(SaslError::NotAuthorized) => Err(failed(connection, &first.username).await),
        Err(error) => Err(error.into()),
    }
}
