//! A client's connection from its first byte to its last.
//!
//! 1. [`crate::negotiation`] takes it to a bound (or resumed) session, within a deadline;
//! 2. [`run`] then serves the session: reads stanzas, hands them to their features, and writes what the outbox
//!    holds, all in one task that sleeps until there is something to do;
//! 3. at the end the session ends too, unless it can be resumed. When there is a proper end, the last words are
//!    exchanged first: what is left is written, and both sides say what they have handled.
//!
//! Messages wait for their commit in a queue of the connection ([`Pending`]), in order. What else the client
//! sends is dealt with meanwhile, except stanzas to somebody for whom a message waits: those queue up behind
//! it, so that each pair of addresses sees its stanzas in order. A stanza counts as handled (XEP-0198) only when
//! it and all before it are dealt with: for a message that is after its commit.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use im_proto::stanza::StanzaKind;
use im_proto::xml::frame::Mode;
use im_proto::xml::scan::Attr;
use im_proto::{Framer, Item, Limits, XmlError};
use im_store::{Ack, MessageId, Store, StoreError};
use tokio::sync::OwnedMutexGuard;

use crate::core::Core;
use crate::framing::Framing;
use crate::inbound::{self, Inbound};
use crate::link::{Link, Transport};
use crate::messages::Outgoing;
use crate::negotiation;
use crate::session::{Close, Output, Session};

/// Why a connection ends.
#[derive(Debug)]
pub enum End {
    /// The peer closed its stream.
    Closed,
    /// The transport failed or ended.
    Lost,
    /// A stream error is to be sent (RFC 6120 §4.9.3): condition, and a text for people.
    Stream(&'static str, &'static str),
    /// Asked to close by another part of the server.
    Asked(Close),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

impl From<XmlError> for End {
    fn from(error: XmlError) -> Self {
        Self::Stream(error.condition(), "")
    }
}

/// A connection.
pub struct Connection {
    /// Shared state.
    pub core: Arc<Core>,
    /// Bytes in and out.
    pub link: Link,
    /// Cuts bytes into stanzas.
    pub framer: Framer,
    /// The client's address.
    pub peer: IpAddr,
    /// Language of the client's stream.
    pub lang: Option<Box<str>>,
    /// The server's stream header was sent.
    pub opened: bool,
    attrs: Vec<Attr>,
}

/// A session and the right to read its client's stanzas.
pub struct Bound {
    /// The session.
    pub session: Arc<Session>,
    /// Which of its connections this is.
    pub generation: u32,
    /// Held until all that was read is dealt with.
    pub inbound: OwnedMutexGuard<()>,
}

/// Something the client sent that waits for its turn.
pub enum Pending {
    /// A message that waits for its commit.
    Commit(Ack, Box<Outgoing>, Instant, u32),
    /// A stanza that waits only for those before it.
    Ready(Box<Outgoing>, u32),
    /// `<r/>`: the answer must count what came before it.
    AckRequest,
}

/// Serves one connection.
pub async fn serve(core: Arc<Core>, transport: Transport, framing: Framing, peer: IpAddr) {
    let mode = if framing == Framing::Stream { Mode::Stream } else { Mode::Messages };
    let limits = Limits {
        stanza_bytes: core.config.limits.unauthenticated_stanza_bytes as usize,
        depth: core.config.limits.stanza_depth as usize,
        ..Limits::default()
    };
    let mut connection = Connection {
        link: Link::new(transport, framing),
        framer: Framer::new(mode, limits),
        core,
        peer,
        lang: None,
        opened: false,
        attrs: Vec::new(),
    };
    let deadline = connection.core.config.sign_in_deadline();
    let negotiated = Box::pin(tokio::time::timeout(deadline, negotiation::negotiate(&mut connection))).await;
    match negotiated {
        Ok(Ok(bound)) => Box::pin(run(connection, bound)).await,
        Ok(Err(end)) => Box::pin(connection.finish(end)).await,
        Err(_) => {
            Box::pin(connection.finish(End::Stream("connection-timeout", "signing in took too long"))).await;
        }
    }
}

impl Connection {
    /// The next item that is already here: the item and its text.
    pub fn next_item(&mut self) -> Result<Option<(Item, String)>, XmlError> {
        match self.framer.next(self.link.unread(), &mut self.attrs)? {
            Some((item, used)) => {
                let raw = std::str::from_utf8(&self.link.unread()[..used]).map_err(|_| XmlError::Encoding)?;
                let raw = raw.to_owned();
                self.link.consume(used);
                Ok(Some((item, raw)))
            }
            None => {
                let space = self.framer.skip_space(self.link.unread());
                if space > 0 {
                    self.link.consume(space);
                }
                self.attrs = Vec::new();
                Ok(None)
            }
        }
    }

    /// Writes what is to be written and waits for the next item.
    pub async fn read_item(&mut self) -> Result<(Item, String), End> {
        loop {
            if let Some(found) = self.next_item()? {
                return Ok(found);
            }
            self.link.flush().await?;
            if self.link.read().await? == 0 {
                return Err(End::Lost);
            }
        }
    }

    /// Sends the last words and closes.
    pub async fn finish(&mut self, end: End) {
        let (condition, text) = match end {
            End::Lost | End::Asked(Close::Resumed) => return,
            End::Closed => ("", ""),
            End::Stream(condition, text) => {
                self.core.metrics.stream_errors.add(1);
                (condition, text)
            }
            End::Asked(close) => match close {
                Close::Conflict => ("conflict", "another session took this resource"),
                Close::Revoked => ("not-authorized", "the account was changed"),
                Close::Shutdown => ("system-shutdown", ""),
                Close::Overflow => ("resource-constraint", "too much waits to be read"),
                Close::Ended => ("", ""),
                Close::Resumed => return,
            },
        };
        if !self.opened {
            negotiation::put_header(self, None);
        }
        if !condition.is_empty() {
            let mut error = format!("<stream:error><{condition} xmlns='{}'/>", im_proto::ns::STREAM_ERRORS);
            if !text.is_empty() {
                error.push_str(&format!(
                    "<text xmlns='{}' xml:lang='en'>{text}</text>",
                    im_proto::ns::STREAM_ERRORS
                ));
            }
            error.push_str("</stream:error>");
            self.link.put(&error);
        }
        self.link.close().await;
    }
}

/// What woke a session's task.
enum Event {
    Read,
    Commit(Result<MessageId, StoreError>),
    End(End),
}

/// Serves a session until its connection ends.
async fn run(mut connection: Connection, bound: Bound) {
    let core = Arc::clone(&connection.core);
    let Bound { session, generation, inbound } = bound;
    connection.framer.set_limits(Limits {
        stanza_bytes: core.config.limits.stanza_bytes as usize,
        depth: core.config.limits.stanza_depth as usize,
        ..Limits::default()
    });
    let mut state = Inbound {
        core: Arc::clone(&core),
        session: Arc::clone(&session),
        pending: VecDeque::new(),
        received: session.handled.load(Ordering::Relaxed),
    };
    let end = run_until_end(&mut connection, &mut state, generation).await;
    Box::pin(finish_session(connection, state, generation, inbound, end)).await;
}

async fn run_until_end(connection: &mut Connection, state: &mut Inbound, generation: u32) -> End {
    let room = connection.core.config.limits.messages_in_flight as usize;
    loop {
        while state.pending.len() < room && !state.session.is_congested() {
            match connection.next_item() {
                Ok(Some((Item::Stanza(head), raw))) => {
                    if head.kind == StanzaKind::Other {
                        if let Err(end) = inbound::element(state, &raw, &head, connection) {
                            return end;
                        }
                        continue;
                    }
                    let Connection { link, framer, lang, .. } = connection;
                    let (core, session) = (Arc::clone(&state.core), Arc::clone(&state.session));
                    // On the heap, so that a session that waits does not hold the room for it.
                    let handling = Box::pin(inbound::stanza(state, raw, head, framer, lang.as_deref()));
                    if let Err(end) = drive(link, &session, generation, &core.store, handling).await {
                        return end;
                    }
                }
                Ok(Some((Item::Close, _))) => return End::Closed,
                Ok(Some((Item::Open(_), _))) => return End::Stream("invalid-xml", "a second stream header"),
                Ok(None) => break,
                Err(error) => return error.into(),
            }
        }
        let event =
            std::future::poll_fn(|context| poll_event(connection, state, generation, room, context)).await;
        match event {
            Event::Read => {}
            Event::Commit(result) => Box::pin(inbound::committed(state, result)).await,
            Event::End(end) => return end,
        }
    }
}

/// Runs `work`, and while it waits goes on writing what others push for this client.
async fn drive<T>(
    link: &mut Link,
    session: &Session,
    generation: u32,
    store: &Store,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        // Failures show up again when the work is done.
        let _ = poll_output(link, session, generation, store, context);
        Poll::Pending
    })
    .await
}

/// Writes what the outbox holds. Ready with the reason when the connection is to end.
fn poll_output(
    link: &mut Link,
    session: &Session,
    generation: u32,
    store: &Store,
    context: &mut Context<'_>,
) -> Poll<End> {
    session.register(context);
    loop {
        match link.poll_write(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(End::Lost),
            Poll::Ready(Ok(())) => {}
        }
        let Some(out) = link.free_output() else { return Poll::Pending };
        match session.take_output(generation, out, store) {
            Output::Nothing => return Poll::Pending,
            Output::Bytes => {}
            Output::Close(close) => return Poll::Ready(End::Asked(close)),
        }
    }
}

fn poll_event(
    connection: &mut Connection,
    state: &mut Inbound,
    generation: u32,
    room: usize,
    context: &mut Context<'_>,
) -> Poll<Event> {
    let congested = state.session.is_congested();
    let store = &state.core.store;
    if let Poll::Ready(end) = poll_output(&mut connection.link, &state.session, generation, store, context) {
        return Poll::Ready(Event::End(end));
    }
    if let Some(Pending::Commit(ack, ..)) = state.pending.front_mut()
        && let Poll::Ready(result) = Pin::new(ack).poll(context)
    {
        return Poll::Ready(Event::Commit(result));
    }
    if state.pending.len() < room && !state.session.is_congested() {
        if congested {
            // What was read before the client had to read first.
            return Poll::Ready(Event::Read);
        }
        match connection.link.poll_read(context) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Event::End(End::Lost)),
            Poll::Ready(Ok(_)) => return Poll::Ready(Event::Read),
            Poll::Ready(Err(_)) => return Poll::Ready(Event::End(End::Lost)),
            Poll::Pending => {}
        }
    }
    Poll::Pending
}

/// Commits take as long as the store retries; after this the rest is given up with the connection.
const LAST_COMMITS: Duration = Duration::from_mins(3);

/// How long commits may keep a stream that ends, and how long its last words may take.
const PARTING: Duration = Duration::from_secs(2);

/// Exchanges the last words of a stream: what waits to be written, how many stanzas were handled and, when
/// `asks`, how many the client has handled. Nothing more is taken for this client from now on.
async fn part(connection: &mut Connection, state: &mut Inbound, generation: u32, asks: bool) {
    let (core, session) = (Arc::clone(&state.core), Arc::clone(&state.session));
    let commits = async {
        while let Some(Pending::Commit(ack, ..)) = state.pending.front_mut() {
            let result = ack.await;
            inbound::committed(state, result).await;
        }
    };
    let _ = tokio::time::timeout(PARTING, commits).await;
    session.close(Close::Ended);
    let words = async {
        write_out(connection, &session, generation, &core.store).await?;
        if !session.is_managed() {
            return Ok(());
        }
        connection.link.put(&inbound::acknowledgement(&session));
        connection.link.flush().await?;
        while asks && session.is_unacknowledged() {
            // The answer to a question asked earlier counts only what was sent until then: ask again.
            write_out(connection, &session, generation, &core.store).await?;
            let (item, raw) = connection.read_item().await?;
            match item {
                // Stanzas that come now are not handled, and not acknowledged.
                Item::Stanza(head) if head.kind == StanzaKind::Other => {
                    inbound::element(state, &raw, &head, connection)?;
                }
                Item::Stanza(_) => {}
                Item::Open(_) | Item::Close => break,
            }
        }
        Ok::<_, End>(())
    };
    // A client that is gone already needs no last words.
    let _ = tokio::time::timeout(PARTING, words).await;
}

/// Writes all that waits, and notes that the client has it.
async fn write_out(
    connection: &mut Connection,
    session: &Session,
    generation: u32,
    store: &Store,
) -> io::Result<()> {
    loop {
        connection.link.flush().await?;
        let Some(out) = connection.link.free_output() else { continue };
        if session.take_output(generation, out, store) == Output::Close(Close::Resumed) || out.is_empty() {
            return Ok(());
        }
    }
}

async fn finish_session(
    mut connection: Connection,
    mut state: Inbound,
    generation: u32,
    inbound: OwnedMutexGuard<()>,
    end: End,
) {
    let core = Arc::clone(&state.core);
    let session = Arc::clone(&state.session);
    // Begun before the session is gone, so that a stop sees one or the other.
    let work = core.begin_work();
    if !matches!(end, End::Lost | End::Asked(Close::Resumed)) {
        // One that is told to go says what it has; one that goes by itself has said it.
        let asks = matches!(end, End::Asked(Close::Shutdown | Close::Conflict));
        Box::pin(part(&mut connection, &mut state, generation, asks)).await;
    }
    if !state.pending.is_empty() {
        let work = core.begin_work();
        // What was taken from the client is dealt with, whatever became of its connection.
        tokio::spawn(async move {
            let rest = async {
                while let Some(Pending::Commit(ack, ..)) = state.pending.front_mut() {
                    let result = ack.await;
                    inbound::committed(&mut state, result).await;
                }
            };
            let _ = tokio::time::timeout(LAST_COMMITS, rest).await;
            drop(inbound);
            drop(work);
        });
    } else {
        drop(inbound);
    }
    let stays = matches!(end, End::Lost | End::Asked(Close::Resumed)) && session.detach(generation);
    if matches!(end, End::Asked(Close::Resumed)) {
        return;
    }
    if stays {
        crate::presence::await_resumption(&core, &session, generation);
    } else {
        crate::presence::session_ended(&core, &session).await;
    }
    // The stream's end is said after the session's, so that a client that waits for it finds the session gone.
    connection.finish(end).await;
    drop(work);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    fn four<A, B, C, D, F: Future>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// Every idle session holds these: what grows here grows a hundred thousand times.
    #[test]
    fn what_a_session_holds_stays_small() {
        let sizes = [
            ("serve", four(serve), 900),
            ("run", two(run), 1_400),
            ("connection", size_of::<Connection>(), 500),
            ("session", size_of::<Session>(), 500),
            ("pending", size_of::<Pending>(), 64),
        ];
        for (name, size, most) in sizes {
            assert!(size <= most, "{name} takes {size} bytes, more than {most}: {sizes:?}");
        }
    }
}
