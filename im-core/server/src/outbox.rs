//! What waits to be written to one client, and what the client has not confirmed: the part of a
//! [`Session`](crate::session::Session) behind its lock.
//!
//! A message that has an identifier also awaits delivery in the store. It is *held* here from the moment it is put
//! in until the client has it: with stream management (XEP-0198) until it is acknowledged, without until its
//! bytes were written. Then a [`Receipts`] is told, under the same lock, so that whoever looks sees it either held
//! or confirmed. When there is no room for a message that waits in the store anyway, it is not taken, and the session is
//! *behind*: [`crate::offline`] hands it what waits, in order, as fast as it confirms. Some of what comes meanwhile is
//! kept, because another session may be the first to confirm it.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use im_store::{MessageId, Store};
use tokio::sync::Notify;

use crate::framing::{Framing, frame};
use crate::session::Close;

/// Told that a client of `owner` has these messages.
pub trait Receipts {
    /// Notes it. Must not wait.
    fn received(&self, owner: &str, ids: &[MessageId]);
}

impl Receipts for Store {
    fn received(&self, owner: &str, ids: &[MessageId]) {
        self.confirm(owner, ids);
    }
}

/// What became of a stanza that was given to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The client gets it.
    Taken,
    /// It stays in the store and is handed out in its turn; `begin`: nobody hands out anything to this session yet.
    Waits {
        /// [`crate::offline::begin`] is to be called.
        begin: bool,
    },
    /// The session is closing or gone: nothing was taken.
    Gone,
}

impl Pushed {
    /// True when nobody takes care of the stanza.
    pub fn is_gone(self) -> bool {
        self == Self::Gone
    }
}

/// Whether a session can be handed more of what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Yes.
    Some,
    /// Not before the client has confirmed some.
    None,
    /// No more: it has no connection, or is closing, or gone.
    Closed,
}

/// A stanza that the client has not acknowledged.
#[derive(Debug, Clone)]
struct Unacknowledged {
    stanza: Bytes,
    id: Option<MessageId>,
}

/// Stream management of one session.
#[derive(Debug, Default)]
pub(crate) struct Managed {
    /// Names the session for resumption; empty when it cannot be resumed.
    pub resume_id: Box<str>,
    /// Stanzas the client has acknowledged, modulo 2^32.
    acknowledged: u32,
    /// What was sent since, in order.
    queue: VecDeque<Unacknowledged>,
    /// Bytes of that.
    bytes: usize,
    /// An `<r/>` is under way.
    pub asked: bool,
}

/// A session to which what waits is handed out, before anything newer.
#[derive(Debug)]
struct Behind {
    /// Somebody hands out.
    served: bool,
    /// The first message that came meanwhile.
    missed: Option<MessageId>,
    /// What came meanwhile, as much as there is room for: another session of the account may confirm it, and then it
    /// is not in the store any more.
    kept: BTreeMap<MessageId, Bytes>,
    /// Bytes of that.
    kept_bytes: usize,
    /// When this began, in milliseconds since 1970-01-01 UTC.
    since: i64,
}

impl Behind {
    fn new() -> Self {
        Self { served: false, missed: None, kept: BTreeMap::new(), kept_bytes: 0, since: crate::now_ms() }
    }

    /// Notes what came for the session; at most `count` messages and `bytes` bytes are kept.
    fn note(&mut self, stanza: &Bytes, id: MessageId, count: usize, bytes: usize) {
        self.missed = Some(self.missed.map_or(id, |missed| missed.min(id)));
        if self.kept.len() < count && self.kept_bytes + stanza.len() <= bytes {
            self.handed_out(id);
            self.kept_bytes += stanza.len();
            self.kept.insert(id, stanza.clone());
        }
    }

    fn handed_out(&mut self, id: MessageId) {
        if let Some(stanza) = self.kept.remove(&id) {
            self.kept_bytes -= stanza.len();
        }
    }
}

/// How long after a message was stored its sender's connection may still pass it on, in milliseconds.
const PASSED_ON_WITHIN: i64 = 300_000;

/// Messages with identifiers; there only when there are some.
#[derive(Debug, Default)]
struct Deliveries {
    /// Among the bytes that wait, without stream management.
    unwritten: Vec<MessageId>,
    /// Among the bytes that the connection took.
    writing: Vec<MessageId>,
    behind: Option<Behind>,
    /// Handed out from the store while their senders' connections may yet pass them on.
    recent: HashSet<MessageId>,
    /// When that can be forgotten, in milliseconds since 1970-01-01 UTC.
    recent_until: i64,
    /// Woken when there is room, or will never be.
    room: Option<Arc<Notify>>,
}

impl Deliveries {
    fn forget_recent(&mut self, now: i64) {
        if !self.recent.is_empty() && now > self.recent_until {
            self.recent = HashSet::new();
        }
    }
}

/// What waits to be written.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub framing: Framing,
    pub bytes: Vec<u8>,
    /// Bytes that the connection took and has perhaps not written yet.
    taken: usize,
    /// A connection writes what is pushed.
    pub attached: bool,
    /// Counts the connections this session has had.
    pub generation: u32,
    pub closing: Option<Close>,
    pub ended: bool,
    pub managed: Option<Box<Managed>>,
    deliveries: Option<Box<Deliveries>>,
    /// What an inactive client need not see at once (XEP-0352).
    pub held: Vec<Bytes>,
    max_bytes: usize,
    max_unacknowledged: usize,
}

impl Outbox {
    pub fn new(framing: Framing, max_bytes: usize, max_unacknowledged: usize) -> Self {
        Self {
            framing,
            bytes: Vec::new(),
            taken: 0,
            attached: true,
            generation: 0,
            closing: None,
            ended: false,
            managed: None,
            deliveries: None,
            held: Vec::new(),
            max_bytes,
            max_unacknowledged,
        }
    }

    fn deliveries(&mut self) -> &mut Deliveries {
        self.deliveries.get_or_insert_default()
    }

    /// Frees what is empty: most sessions hold nothing most of the time.
    fn tidy(&mut self) {
        if let Some(all) = &self.deliveries
            && all.unwritten.is_empty()
            && all.writing.is_empty()
            && all.behind.is_none()
            && all.recent.is_empty()
        {
            self.deliveries = None;
        }
    }

    /// True while `1 / part` of what may be held at most has room for a stanza of `len` bytes.
    fn fits(&self, len: usize, count: (usize, usize), bytes: (usize, usize)) -> bool {
        let most = self.max_bytes / bytes.1 * bytes.0;
        let unwritten = self.bytes.len() + self.taken;
        // Whatever its size, one stanza alone has to get through.
        let written = unwritten == 0 || unwritten + len <= most;
        let kept = self.managed.as_ref().is_none_or(|managed| {
            managed.queue.is_empty()
                || (managed.queue.len() < self.max_unacknowledged / count.1 * count.0
                    && managed.bytes + len <= most)
        });
        written && kept
    }

    /// A stanza for the client that waits in the store too, and comes from there when it cannot be taken now.
    pub fn push_waiting(&mut self, stanza: &Bytes, id: MessageId) -> Pushed {
        if let Some(all) = &mut self.deliveries {
            all.forget_recent(crate::now_ms());
            if all.recent.contains(&id) {
                return Pushed::Taken;
            }
        }
        if !self.is_behind() {
            if self.fits(stanza.len(), (3, 4), (1, 2)) {
                self.put(stanza, Some(id));
                return Pushed::Taken;
            }
            self.fall_behind();
        }
        // Together with what is handed out, which has a quarter, this is no more than a direct session is pushed.
        let (count, bytes) = (self.max_unacknowledged / 4, self.max_bytes / 4);
        let behind = self.deliveries().behind.get_or_insert_with(Behind::new);
        behind.note(stanza, id, count, bytes);
        Pushed::Waits { begin: !behind.served }
    }

    /// A stanza that is nowhere else. False when that is too much for this client, which is then closed.
    pub fn push_only(&mut self, stanza: &Bytes) -> bool {
        if self.fits(stanza.len(), (1, 1), (1, 1)) {
            self.put(stanza, None);
            return true;
        }
        self.closing.get_or_insert(Close::Overflow);
        self.wake_server();
        false
    }

    /// A stanza out of the store.
    pub fn hand_out(&mut self, stanza: &Bytes, id: MessageId, now: i64) {
        let forget = id.timestamp_ms() + PASSED_ON_WITHIN;
        if forget > now {
            let all = self.deliveries();
            all.recent.insert(id);
            all.recent_until = all.recent_until.max(forget);
        }
        if let Some(behind) = self.deliveries.as_mut().and_then(|all| all.behind.as_mut()) {
            behind.handed_out(id);
        }
        self.put(stanza, Some(id));
    }

    /// What came while the session is behind and was not handed out, oldest first: up to `last`, the last message of a
    /// page. When the page was empty, all that came before it was read: what came since is perhaps in the store.
    pub fn kept(&self, last: Option<MessageId>) -> Vec<(MessageId, Bytes)> {
        let Some(behind) = self.deliveries.as_ref().and_then(|all| all.behind.as_ref()) else {
            return Vec::new();
        };
        let due = |id: MessageId| match last {
            Some(last) => id <= last,
            None => behind.missed.is_none_or(|missed| id < missed),
        };
        let due = behind.kept.iter().take_while(|(id, _)| due(**id));
        due.map(|(id, stanza)| (*id, stanza.clone())).collect()
    }

    pub fn put(&mut self, stanza: &Bytes, id: Option<MessageId>) {
        if let Some(managed) = &mut self.managed {
            managed.queue.push_back(Unacknowledged { stanza: stanza.clone(), id });
            managed.bytes += stanza.len();
        } else if let Some(id) = id {
            self.deliveries().unwritten.push(id);
        }
        if self.attached {
            // Stanzas are made by this server from checked text.
            match std::str::from_utf8(stanza) {
                Ok(text) => frame(self.framing, &mut self.bytes, text),
                Err(_) => tracing::error!("a stanza that is not UTF-8 was dropped"),
            }
        }
    }

    /// What the connection took before is written: the client has it.
    pub fn written(&mut self, owner: &str, receipts: &impl Receipts) {
        self.taken = 0;
        if let Some(all) = &mut self.deliveries {
            if !all.writing.is_empty() {
                receipts.received(owner, &std::mem::take(&mut all.writing));
            }
            self.wake_server();
            self.tidy();
        }
    }

    /// The connection takes what waits.
    pub fn take(&mut self, out: &mut Vec<u8>) {
        std::mem::swap(&mut self.bytes, out);
        self.taken = out.len();
        if let Some(all) = &mut self.deliveries {
            all.writing = std::mem::take(&mut all.unwritten);
        }
    }

    /// Takes an acknowledgement; false when it acknowledges what was never sent.
    pub fn acknowledge(&mut self, handled: u32, owner: &str, receipts: &impl Receipts) -> bool {
        let Some(managed) = &mut self.managed else { return false };
        let newly = handled.wrapping_sub(managed.acknowledged) as usize;
        if newly > managed.queue.len() {
            return false;
        }
        let mut ids = Vec::new();
        for sent in managed.queue.drain(..newly) {
            managed.bytes -= sent.stanza.len();
            ids.extend(sent.id);
        }
        if managed.queue.is_empty() {
            managed.queue = VecDeque::new();
        }
        managed.acknowledged = handled;
        managed.asked = false;
        if !ids.is_empty() {
            receipts.received(owner, &ids);
        }
        self.wake_server();
        true
    }

    /// Switches stream management on. False when it was on already.
    pub fn manage(&mut self, resume_id: &str) -> bool {
        let fresh = self.managed.is_none();
        if fresh {
            self.managed = Some(Box::new(Managed { resume_id: resume_id.into(), ..Managed::default() }));
        }
        fresh
    }

    /// True when something was sent that the client has not acknowledged.
    pub fn is_unacknowledged(&self) -> bool {
        self.managed.as_ref().is_some_and(|managed| !managed.queue.is_empty())
    }

    /// Puts everything that was not acknowledged into the bytes of a new connection.
    pub fn send_again(&mut self) {
        let Some(managed) = &mut self.managed else { return };
        managed.asked = false;
        for sent in &managed.queue {
            frame(self.framing, &mut self.bytes, &String::from_utf8_lossy(&sent.stanza));
        }
    }

    /// The connection is gone.
    pub fn detach(&mut self) {
        self.attached = false;
        self.bytes = Vec::new();
        self.taken = 0;
        self.wake_server();
    }

    /// Messages that the client has perhaps not got.
    pub fn held_ids(&self) -> Vec<MessageId> {
        let mut ids: Vec<MessageId> =
            self.managed.iter().flat_map(|managed| &managed.queue).filter_map(|sent| sent.id).collect();
        if let Some(all) = &self.deliveries {
            ids.extend(all.unwritten.iter().chain(&all.writing));
        }
        ids
    }

    /// Ends everything. True when messages are left that the client has perhaps not got, or not been handed.
    pub fn end(&mut self) -> bool {
        let left = !self.held_ids().is_empty() || self.is_behind();
        self.ended = true;
        self.detach();
        self.held = Vec::new();
        self.managed = None;
        self.deliveries = None;
        left
    }

    fn wake_server(&self) {
        if let Some(room) = self.deliveries.as_ref().and_then(|all| all.room.as_ref()) {
            room.notify_one();
        }
    }

    /// Tells whoever hands out to look again.
    pub fn look_again(&self) {
        self.wake_server();
    }

    /// Frees what is kept of messages that nobody passes on any more.
    pub fn forget_recent(&mut self, now: i64) {
        if let Some(all) = &mut self.deliveries {
            all.forget_recent(now);
            self.tidy();
        }
    }

    /// True while what waits is to be handed out first.
    pub fn is_behind(&self) -> bool {
        self.deliveries.as_ref().is_some_and(|all| all.behind.is_some())
    }

    /// From now on everything that waits comes out of the store.
    pub fn fall_behind(&mut self) {
        self.deliveries().behind.get_or_insert_with(Behind::new);
    }

    /// Somebody begins to hand out; nothing when somebody does already, who is then told to begin anew.
    pub fn serve(&mut self) -> Option<Arc<Notify>> {
        if self.ended {
            return None;
        }
        let all = self.deliveries();
        let behind = all.behind.get_or_insert_with(Behind::new);
        if std::mem::replace(&mut behind.served, true) {
            behind.missed = Some(MessageId::from_i64(0));
            return None;
        }
        Some(Arc::clone(all.room.get_or_insert_default()))
    }

    /// Whoever handed out stops, for it can go no further.
    pub fn stop_serving(&mut self, stays_behind: bool) {
        if let Some(all) = &mut self.deliveries {
            all.room = None;
            if let Some(behind) = &mut all.behind {
                behind.served = false;
            }
            if !stays_behind {
                all.behind = None;
            }
            self.tidy();
        }
    }

    /// About to read what waits after `cursor`: the message before which to begin instead, when one was missed. The
    /// number 0, which asks to begin anew, counts whatever was read: what other sessions held was asked before it.
    pub fn before_read(&mut self, cursor: Option<MessageId>) -> Option<MessageId> {
        let behind = self.deliveries.as_mut()?.behind.as_mut()?;
        let missed = behind.missed.take()?;
        (missed.as_i64() == 0 || cursor.is_some_and(|cursor| missed <= cursor)).then_some(missed)
    }

    /// The first message that came since the last look, or is kept; the number 0 asks to begin anew.
    pub fn take_missed(&mut self) -> Option<MessageId> {
        let behind = self.deliveries.as_mut()?.behind.as_mut()?;
        behind.missed.take().into_iter().chain(behind.kept.keys().next().copied()).min()
    }

    /// True while somebody hands out to this session.
    pub fn is_served(&self) -> bool {
        let behind = self.deliveries.as_ref().and_then(|all| all.behind.as_ref());
        behind.is_some_and(|behind| behind.served)
    }

    /// True when somebody was to hand out and found that it was being done, by one who had stopped already.
    pub fn is_asked_anew(&self) -> bool {
        let behind = self.deliveries.as_ref().and_then(|all| all.behind.as_ref());
        behind.is_some_and(|behind| !behind.served && behind.missed == Some(MessageId::from_i64(0)))
    }

    /// Nothing more waits: true when that is so still, and the session is no longer behind.
    pub fn caught_up(&mut self) -> bool {
        let behind = self.deliveries.as_ref().and_then(|all| all.behind.as_ref());
        let none = behind.is_none_or(|behind| behind.missed.is_none() && behind.kept.is_empty());
        if none {
            self.stop_serving(false);
        }
        none
    }

    /// True when this message was handed out a moment ago.
    pub fn had(&self, id: MessageId) -> bool {
        self.deliveries.as_ref().is_some_and(|all| all.recent.contains(&id))
    }

    /// Since when the session is behind, in milliseconds since 1970-01-01 UTC.
    pub fn behind_since(&self) -> i64 {
        let behind = self.deliveries.as_ref().and_then(|all| all.behind.as_ref());
        behind.map_or(i64::MAX, |behind| behind.since)
    }

    /// Whether more can be handed out.
    pub fn room(&self) -> Room {
        if self.ended || self.closing.is_some() || !self.attached {
            Room::Closed
        } else if self.fits(0, (1, 4), (1, 4)) {
            Room::Some
        } else {
            Room::None
        }
    }

    /// True when so much waits to be written that the client is to read first.
    pub fn is_congested(&self) -> bool {
        self.bytes.len() + self.taken > self.max_bytes / 4
    }
}
