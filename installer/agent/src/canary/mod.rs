//! The proof of an install: a message from one account to another, through the deployed path.
//!
//! Two connections, each: TCP, STARTTLS with the cluster's authority (or one pinned certificate), SCRAM-SHA-256,
//! resource binding; of the receiver presence too (RFC 6120, RFC 6121). Then the sender sends a message with a random
//! body, and the receiver must see that body before the deadline. Nothing is kept; both streams are closed properly.

mod mail;
mod stream;
mod tls;

use crate::deadline::Deadline;
use crate::error::{Failure, Result};
use crate::scram;
pub use mail::mail;
use maxim_model::Secret;
use maxim_model::wire::CanaryRequest;
use std::time::Instant;
use stream::{Element, Session, escape};

/// Exchanges one message; answers with the milliseconds from the first connection to the received message.
pub fn exchange(request: &CanaryRequest) -> Result<u64> {
    let deadline = Deadline::after(request.deadline_seconds);
    let tls = tls::config(&request.ca_certificate, &request.pinned_certificate)?;
    let began = Instant::now();
    let connect = |address: &str| Session::open(address, &request.domain, &tls, deadline);
    // The receiver first, so that it is online when the message is sent. The sender shows no presence: its account may
    // be the receiver of another message.
    let mut receiver = sign_in(connect(&request.to)?, &request.receiver, &request.receiver_password)?;
    let mut sender = bind(connect(&request.from)?, &request.sender, &request.sender_password)?;
    let body = format!("canary {:032x}", rand::random::<u128>());
    let to = format!("{}@{}", request.receiver, request.domain);
    sender.send(&format!(
        "<message to='{}' id='canary' type='chat'><body>{}</body></message>",
        escape(&to),
        escape(&body)
    ))?;
    loop {
        let element = receiver.next("the canary message")?;
        if element.is("message") && element.child("body").is_some_and(|found| found.text == body) {
            break;
        }
        if element.is("message") && element.attribute("type") == "error" {
            return Err(sender_refused(&request.from, &element));
        }
    }
    let elapsed = began.elapsed().as_millis() as u64;
    // A server that refused the message after all tells the sender; a close that fails is of no matter.
    sender.close();
    receiver.close();
    Ok(elapsed)
}

fn sender_refused(with: &str, element: &Element) -> Failure {
    let why = element.child("error").map_or_else(String::new, Element::condition);
    Failure::talk(with, format!("the message was refused: {why}"))
}

/// SASL, a new stream, binding.
fn bind(mut session: Session, account: &str, password: &Secret) -> Result<Session> {
    let features = session.features()?;
    let offers = features.child("mechanisms").is_some_and(|list| {
        list.children.iter().any(|mechanism| mechanism.is("mechanism") && mechanism.text == "SCRAM-SHA-256")
    });
    if !offers {
        return Err(session.trouble("the server does not offer SCRAM-SHA-256"));
    }
    let mut client =
        scram::Client::new(account, password, &scram::nonce()).map_err(|what| session.trouble(&what))?;
    session.send(&format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>{}</auth>",
        client.first()
    ))?;
    let challenge = session.next("the server's challenge")?;
    if !challenge.is("challenge") {
        return Err(session.trouble(&format!("signing in as {account} failed: {}", challenge.condition())));
    }
    let answer = client.answer(&challenge.text).map_err(|what| session.trouble(&what))?;
    session.send(&format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{answer}</response>"))?;
    let success = session.next("the outcome of signing in")?;
    if !success.is("success") {
        return Err(session.trouble(&format!("signing in as {account} failed: {}", success.condition())));
    }
    // The server must prove that it knows the password too: otherwise anybody could play it.
    client.verify(&success.text).map_err(|what| session.trouble(&what))?;
    session.restart()?;
    let features = session.features()?;
    if features.child("bind").is_none() {
        return Err(session.trouble("the server does not offer resource binding"));
    }
    session.send("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")?;
    let bound = session.next("the bound resource")?;
    if !(bound.is("iq") && bound.attribute("type") == "result") {
        return Err(session.trouble(&format!("binding failed: {}", bound.condition())));
    }
    Ok(session)
}

/// The same, with presence.
fn sign_in(session: Session, account: &str, password: &Secret) -> Result<Session> {
    let mut session = bind(session, account, password)?;
    session.send("<presence/>")?;
    // The server answers this only after it has taken the presence.
    session.send("<iq type='get' id='ready'><ping xmlns='urn:xmpp:ping'/></iq>")?;
    loop {
        let answer = session.next("the answer to a ping")?;
        if answer.is("iq") && answer.attribute("id") == "ready" {
            return Ok(session);
        }
    }
}

#[cfg(test)]
mod tests;
