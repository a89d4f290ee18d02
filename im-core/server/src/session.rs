//! A bound session as the rest of the server sees it: an address, a few flags, and an outbox.
//!
//! Whoever has something for a client pushes it into the session's [`Outbox`] and goes on; the connection's own
//! task writes it to the socket, many stanzas at a time. With stream management (XEP-0198) each stanza is also
//! kept until the client acknowledges it, and the session outlives its connection for a while.
//!
//! Nothing here waits, and no lock is held across anything that does.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI16, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use im_proto::Address;
use im_store::MessageId;

use crate::framing::{Framing, frame};
use crate::users::User;

/// A stanza that the client has not acknowledged.
#[derive(Debug, Clone)]
pub struct Unacknowledged {
    /// The stanza.
    pub stanza: Bytes,
    /// Its identifier in the store, when it is kept there.
    pub id: Option<MessageId>,
}

/// Stream management of one session.
#[derive(Debug, Default)]
pub struct Managed {
    /// Names the session for resumption; empty when it cannot be resumed.
    pub resume_id: Box<str>,
    /// Stanzas sent since stream management was enabled, modulo 2^32.
    pub sent: u32,
    /// Stanzas the client has acknowledged, modulo 2^32.
    pub acknowledged: u32,
    /// What is in between, in order.
    pub queue: VecDeque<Unacknowledged>,
    /// An `<r/>` is under way.
    pub asked: bool,
}

/// Why a connection is to be closed by someone else than itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// Another session took the resource: stream error `conflict`.
    Conflict,
    /// The account was disabled, removed, or its password changed: `not-authorized`.
    Revoked,
    /// The server goes down: `system-shutdown`.
    Shutdown,
    /// The client does not read: `resource-constraint`.
    Overflow,
    /// Another connection resumed this session: nothing is said.
    Resumed,
}

/// What waits to be written.
#[derive(Debug)]
struct Outbox {
    framing: Framing,
    bytes: Vec<u8>,
    /// A connection writes what is pushed.
    attached: bool,
    /// Counts the connections this session has had.
    generation: u32,
    closing: Option<Close>,
    ended: bool,
    managed: Option<Box<Managed>>,
    /// What an inactive client need not see at once (XEP-0352).
    held: Vec<Bytes>,
    max_bytes: usize,
    max_unacknowledged: usize,
}

const CARBONS: u8 = 1;
const INTERESTED: u8 = 2;
const INACTIVE: u8 = 4;
const BLOCK_INTERESTED: u8 = 8;
const UNAVAILABLE: i16 = i16::MIN;
/// Held presence of an inactive client, at most; then all of it is sent.
const MAX_HELD: usize = 200;

/// How soon a client needs a stanza.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// At once.
    Now,
    /// An inactive client can wait for it.
    Later,
}

/// A bound session.
#[derive(Debug)]
pub struct Session {
    /// Full JID.
    pub address: Address,
    /// Its account.
    pub user: Arc<User>,
    /// Tells it from other sessions of the same resource.
    pub token: u64,
    /// It is a canary's: counted nowhere.
    pub quiet: bool,
    /// Held by the connection that reads the client's stanzas, until all of them are dealt with.
    pub inbound: Arc<tokio::sync::Mutex<()>>,
    /// Stanzas handled from the client, modulo 2^32.
    pub handled: AtomicU32,
    outbox: Mutex<Outbox>,
    waker: AtomicWaker,
    flags: AtomicU8,
    priority: AtomicI16,
    presence: Mutex<Option<Bytes>>,
    /// Addresses that got directed presence and must learn when the session goes.
    directed: Mutex<Vec<Address>>,
    /// Offline messages were fetched once.
    pub greeted: AtomicBool,
    /// Its end was dealt with, or is being dealt with.
    pub over: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half changed by a panic while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// A session with its first connection.
    pub fn new(
        address: Address,
        user: Arc<User>,
        token: u64,
        quiet: bool,
        framing: Framing,
        max_bytes: usize,
        max_unacknowledged: usize,
    ) -> Self {
        Self {
            address,
            user,
            token,
            quiet,
            inbound: Arc::default(),
            handled: AtomicU32::new(0),
            outbox: Mutex::new(Outbox {
                framing,
                bytes: Vec::new(),
                attached: true,
                generation: 0,
                closing: None,
                ended: false,
                managed: None,
                held: Vec::new(),
                max_bytes,
                max_unacknowledged,
            }),
            waker: AtomicWaker::new(),
            flags: AtomicU8::new(0),
            priority: AtomicI16::new(UNAVAILABLE),
            presence: Mutex::new(None),
            directed: Mutex::new(Vec::new()),
            greeted: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    /// Resource of the session.
    pub fn resource(&self) -> &str {
        self.address.resource().unwrap_or_default()
    }

    /// Gives a stanza to the client. `id` is its identifier in the store, so that it can be kept for later when
    /// it never arrives. False when the session is gone, and nothing was taken.
    pub fn push(&self, stanza: &Bytes, id: Option<MessageId>, urgency: Urgency) -> bool {
        let mut outbox = lock(&self.outbox);
        if outbox.ended {
            return false;
        }
        if self.flag(INACTIVE) {
            if urgency == Urgency::Later && outbox.held.len() < MAX_HELD {
                outbox.held.push(stanza.clone());
                return true;
            }
            for held in std::mem::take(&mut outbox.held) {
                outbox.put(&held, None);
            }
        }
        outbox.put(stanza, id);
        let attached = outbox.attached;
        drop(outbox);
        if attached {
            self.waker.wake();
        }
        true
    }

    /// Gives the client an element that is no stanza and is not counted.
    pub fn push_element(&self, xml: &str) {
        let mut outbox = lock(&self.outbox);
        if outbox.attached {
            let framing = outbox.framing;
            frame(framing, &mut outbox.bytes, xml);
            drop(outbox);
            self.waker.wake();
        }
    }

    /// Moves what waits into `out` (which must be empty), with a request for acknowledgement when one is due.
    /// Called by the connection of this generation only.
    pub fn take_output(&self, generation: u32, out: &mut Vec<u8>) -> Output {
        let mut outbox = lock(&self.outbox);
        if outbox.generation != generation {
            return Output::Close(Close::Resumed);
        }
        let framing = outbox.framing;
        let ask = match &mut outbox.managed {
            Some(managed) if !managed.asked && !managed.queue.is_empty() => {
                managed.asked = true;
                true
            }
            _ => false,
        };
        std::mem::swap(&mut outbox.bytes, out);
        if ask {
            frame(framing, out, "<r xmlns='urn:xmpp:sm:3'/>");
        }
        match outbox.closing {
            Some(close) => Output::Close(close),
            None if out.is_empty() => Output::Nothing,
            None => Output::Bytes,
        }
    }

    /// Registers the task that is to be woken when there is something to write.
    pub fn register(&self, context: &Context<'_>) {
        self.waker.register(context.waker());
    }

    /// Asks the connection to close. Without one, the session ends when its time to resume is over.
    pub fn close(&self, reason: Close) {
        lock(&self.outbox).closing.get_or_insert(reason);
        self.waker.wake();
    }

    /// True when a connection is there.
    pub fn is_attached(&self) -> bool {
        lock(&self.outbox).attached
    }

    /// The reason for closing, when there is one.
    pub fn closing(&self) -> Option<Close> {
        lock(&self.outbox).closing
    }

    /// Switches stream management on. False when it was on already.
    pub fn manage(&self, resume_id: &str) -> bool {
        let mut outbox = lock(&self.outbox);
        if outbox.managed.is_some() {
            return false;
        }
        outbox.managed = Some(Box::new(Managed { resume_id: resume_id.into(), ..Managed::default() }));
        self.handled.store(0, Ordering::Relaxed);
        true
    }

    /// True when stream management is on.
    pub fn is_managed(&self) -> bool {
        lock(&self.outbox).managed.is_some()
    }

    /// Takes an acknowledgement; false when it acknowledges what was never sent.
    pub fn acknowledge(&self, handled: u32) -> bool {
        lock(&self.outbox).managed.as_mut().is_some_and(|managed| managed.acknowledge(handled))
    }

    /// Says that the connection of `generation` is gone. True when the session stays for resumption.
    pub fn detach(&self, generation: u32) -> bool {
        let mut outbox = lock(&self.outbox);
        if outbox.generation != generation || outbox.ended {
            return true;
        }
        outbox.attached = false;
        outbox.bytes = Vec::new();
        let resumable = outbox.managed.as_ref().is_some_and(|m| !m.resume_id.is_empty());
        resumable && outbox.closing.is_none()
    }

    /// The generation of the current connection, if the session has none attached; for the end of its grace.
    pub fn detached_generation(&self) -> Option<u32> {
        let outbox = lock(&self.outbox);
        (!outbox.attached && !outbox.ended).then_some(outbox.generation)
    }

    /// Takes the session over for a new connection: the old one, if any, closes. Returns the new generation.
    pub fn take_over(&self, resume_id: &str) -> Option<u32> {
        let mut outbox = lock(&self.outbox);
        let same =
            outbox.managed.as_ref().is_some_and(|m| &*m.resume_id == resume_id && !resume_id.is_empty());
        if outbox.ended || !same || outbox.closing.is_some() {
            return None;
        }
        outbox.generation += 1;
        outbox.attached = false;
        outbox.bytes = Vec::new();
        let generation = outbox.generation;
        drop(outbox);
        self.waker.wake();
        Some(generation)
    }

    /// Completes a resumption: takes the client's counter, puts `resumed` and then all that it has not
    /// acknowledged into the outbox again. False when the counter is impossible or another connection came.
    pub fn resume(&self, generation: u32, framing: Framing, handled: u32, resumed: &str) -> bool {
        let mut outbox = lock(&self.outbox);
        let outbox = &mut *outbox;
        let Some(managed) =
            outbox.managed.as_mut().filter(|_| outbox.generation == generation && !outbox.ended)
        else {
            return false;
        };
        if !managed.acknowledge(handled) {
            return false;
        }
        outbox.framing = framing;
        outbox.attached = true;
        frame(framing, &mut outbox.bytes, resumed);
        for sent in &managed.queue {
            frame(framing, &mut outbox.bytes, &String::from_utf8_lossy(&sent.stanza));
        }
        managed.asked = false;
        self.set_flag(INACTIVE, false);
        for held in std::mem::take(&mut outbox.held) {
            outbox.put(&held, None);
        }
        true
    }

    /// Ends the session for good; returns what the client has not acknowledged.
    pub fn end(&self) -> Vec<Unacknowledged> {
        let mut outbox = lock(&self.outbox);
        outbox.ended = true;
        outbox.attached = false;
        outbox.bytes = Vec::new();
        outbox.held = Vec::new();
        outbox.managed.take().map(|managed| managed.queue.into()).unwrap_or_default()
    }

    fn flag(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Relaxed) & flag != 0
    }

    fn set_flag(&self, flag: u8, on: bool) {
        if on {
            self.flags.fetch_or(flag, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!flag, Ordering::Relaxed);
        }
    }

    /// Wants copies of the account's messages (XEP-0280).
    pub fn carbons(&self) -> bool {
        self.flag(CARBONS)
    }

    /// Switches carbons.
    pub fn set_carbons(&self, on: bool) {
        self.set_flag(CARBONS, on);
    }

    /// Asked for the roster, and so gets pushes.
    pub fn interested(&self) -> bool {
        self.flag(INTERESTED)
    }

    /// Notes that the client asked for the roster.
    pub fn set_interested(&self) {
        self.set_flag(INTERESTED, true);
    }

    /// Asked for the block list, and so gets pushes.
    pub fn block_interested(&self) -> bool {
        self.flag(BLOCK_INTERESTED)
    }

    /// Notes that the client asked for the block list.
    pub fn set_block_interested(&self) {
        self.set_flag(BLOCK_INTERESTED, true);
    }

    /// Switches between active and inactive (XEP-0352).
    pub fn set_inactive(&self, inactive: bool) {
        self.set_flag(INACTIVE, inactive);
        if !inactive {
            let mut outbox = lock(&self.outbox);
            for held in std::mem::take(&mut outbox.held) {
                outbox.put(&held, None);
            }
            drop(outbox);
            self.waker.wake();
        }
    }

    /// Priority while available.
    pub fn priority(&self) -> Option<i8> {
        let priority = self.priority.load(Ordering::Relaxed);
        (priority != UNAVAILABLE).then_some(priority as i8)
    }

    /// Its last available presence, without `to`.
    pub fn presence(&self) -> Option<Bytes> {
        lock(&self.presence).clone()
    }

    /// Sets presence and priority; returns whether it was available before.
    pub fn set_presence(&self, presence: Option<(Bytes, i8)>) -> bool {
        let (bytes, priority) = match presence {
            Some((bytes, priority)) => (Some(bytes), i16::from(priority)),
            None => (None, UNAVAILABLE),
        };
        *lock(&self.presence) = bytes;
        self.priority.swap(priority, Ordering::Relaxed) != UNAVAILABLE
    }

    /// Notes directed presence: available to `to`, or no longer.
    pub fn note_directed(&self, to: &Address, available: bool) {
        let mut directed = lock(&self.directed);
        directed.retain(|a| a != to);
        if available && directed.len() < 500 {
            directed.push(to.clone());
        }
    }

    /// Takes the list of addresses that got directed presence.
    pub fn take_directed(&self) -> Vec<Address> {
        std::mem::take(&mut *lock(&self.directed))
    }

    /// True when `address` got directed presence from this session.
    pub fn has_directed(&self, address: &Address) -> bool {
        lock(&self.directed).iter().any(|a| a == address || a.as_str() == address.bare())
    }
}

/// What [`Session::take_output`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Nothing to write.
    Nothing,
    /// There is something to write.
    Bytes,
    /// Write what there is, then close.
    Close(Close),
}

impl Outbox {
    fn put(&mut self, stanza: &Bytes, id: Option<MessageId>) {
        if let Some(managed) = &mut self.managed {
            managed.sent = managed.sent.wrapping_add(1);
            managed.queue.push_back(Unacknowledged { stanza: stanza.clone(), id });
            if managed.queue.len() > self.max_unacknowledged {
                self.closing.get_or_insert(Close::Overflow);
            }
        }
        if self.attached {
            if self.bytes.len() + stanza.len() > self.max_bytes {
                self.closing.get_or_insert(Close::Overflow);
                return;
            }
            // Stanzas are made by this server from checked text.
            match std::str::from_utf8(stanza) {
                Ok(text) => frame(self.framing, &mut self.bytes, text),
                Err(_) => tracing::error!("a stanza that is not UTF-8 was dropped"),
            }
        }
    }
}

impl Managed {
    fn acknowledge(&mut self, handled: u32) -> bool {
        let newly = handled.wrapping_sub(self.acknowledged);
        if newly as usize > self.queue.len() {
            return false;
        }
        self.queue.drain(..newly as usize);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        self.acknowledged = handled;
        self.asked = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let user = Arc::new(User::new(Address::parse("a@x").unwrap()));
        Session::new(Address::parse("a@x/r").unwrap(), user, 1, false, Framing::Stream, 1000, 10)
    }

    fn text(session: &Session, generation: u32) -> String {
        let mut out = Vec::new();
        session.take_output(generation, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_not_acknowledged_comes_again_after_resumption() {
        let s = session();
        assert!(s.manage("id"));
        for n in 1..=3 {
            assert!(s.push(&Bytes::from(format!("<m>{n}</m>")), None, Urgency::Now));
        }
        assert_eq!(text(&s, 0), "<m>1</m><m>2</m><m>3</m><r xmlns='urn:xmpp:sm:3'/>");
        assert!(!s.acknowledge(4), "more than was sent");
        assert!(s.acknowledge(1));
        assert!(s.detach(0), "it can be resumed");
        assert!(s.push(&Bytes::from_static(b"<m>4</m>"), None, Urgency::Now));
        assert_eq!(s.take_over("other"), None);
        let generation = s.take_over("id").unwrap();
        assert!(s.resume(generation, Framing::Stream, 2, "<resumed/>"));
        assert_eq!(text(&s, generation), "<resumed/><m>3</m><m>4</m><r xmlns='urn:xmpp:sm:3'/>");
        assert_eq!(s.take_output(0, &mut Vec::new()), Output::Close(Close::Resumed));
        assert_eq!(s.end().len(), 2);
        assert!(!s.push(&Bytes::from_static(b"<m/>"), None, Urgency::Now));
    }

    #[test]
    fn an_inactive_client_gets_presence_with_the_next_message() {
        let s = session();
        s.set_inactive(true);
        s.push(&Bytes::from_static(b"<p/>"), None, Urgency::Later);
        assert_eq!(text(&s, 0), "");
        s.push(&Bytes::from_static(b"<m/>"), None, Urgency::Now);
        assert_eq!(text(&s, 0), "<p/><m/>");
        s.push(&Bytes::from_static(b"<p/>"), None, Urgency::Later);
        s.set_inactive(false);
        assert_eq!(text(&s, 0), "<p/>");
    }

    #[test]
    fn a_client_that_does_not_read_is_closed() {
        let s = session();
        for _ in 0..30 {
            s.push(&Bytes::from(vec![b'x'; 100]), None, Urgency::Now);
        }
        assert_eq!(s.closing(), Some(Close::Overflow));
        assert!(!s.detach(0));
    }
}
