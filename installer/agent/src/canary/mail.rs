//! A message to an account that is not signed in, and the reading of one that waits: the mark by which a restored
//! copy proves that it holds what was sent before.

use super::stream::{Session, escape};
use super::{bind, tls};
use crate::deadline::Deadline;
use crate::error::{Failure, Result};
use maxim_model::backup::wire::CanaryMail;
use std::time::Instant;

/// Sends or reads; answers with the milliseconds it took.
pub fn mail(request: &CanaryMail) -> Result<u64> {
    let deadline = Deadline::after(request.deadline_seconds);
    let tls = tls::config(&request.ca_certificate, &request.pinned_certificate)?;
    let began = Instant::now();
    let session = Session::open(&request.address, &request.domain, &tls, deadline)?;
    let mut session = bind(session, &request.account, &request.password)?;
    if request.to.is_empty() {
        read(&mut session, &request.body)?;
    } else {
        send(&mut session, request)?;
    }
    session.close();
    Ok(began.elapsed().as_millis() as u64)
}

fn send(session: &mut Session, request: &CanaryMail) -> Result<()> {
    session.send(&format!(
        "<message to='{}' id='canary' type='chat'><body>{}</body></message>",
        escape(&format!("{}@{}", request.to, request.domain)),
        escape(&request.body)
    ))?;
    // Answered only after the message before it was taken, and it is taken when it is stored.
    session.send("<iq type='get' id='taken'><ping xmlns='urn:xmpp:ping'/></iq>")?;
    loop {
        let element = session.next("the answer to a ping")?;
        if element.is("message") && element.attribute("type") == "error" {
            return Err(Failure::talk(
                &request.address,
                format!("the message was refused: {}", element.condition()),
            ));
        }
        if element.is("iq") && element.attribute("id") == "taken" {
            return Ok(());
        }
    }
}

/// The message waits for the account, and is handed out when presence says that it is there.
fn read(session: &mut Session, body: &str) -> Result<()> {
    session.send("<presence/>")?;
    loop {
        let element = session.next("the message that was sent before the backup")?;
        if element.is("message") && element.child("body").is_some_and(|found| found.text == body) {
            return Ok(());
        }
    }
}
