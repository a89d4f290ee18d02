//! A bound session as the rest of the server sees it: an address, a few flags, and an outbox.
//!
//! Whoever has something for a client pushes it into the session's outbox ([`crate::outbox`]) and goes on; the connection's own
//! task writes it to the socket, many stanzas at a time. With stream management (XEP-0198) each stanza is also
//! kept until the client acknowledges it, and the session outlives its connection for a while.
//!
//! Nothing here waits, and no lock is held across anything that does.

use std::sync::atomic::{AtomicBool, AtomicI16, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use im_proto::Address;
use im_store::MessageId;

use tokio::sync::Notify;

use crate::framing::{Framing, frame};
use crate::outbox::{Outbox, Receipts};
pub use crate::outbox::{Pushed, Room};
use crate::users::User;

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
    /// The client ended its stream, or broke a rule: the connection says what is to be said.
    Ended,
}

const CARBONS: u8 = 1;
const INTERESTED: u8 = 2;
const INACTIVE: u8 = 4;
const BLOCK_INTERESTED: u8 = 8;
const STALLED: u8 = 16;
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
            outbox: Mutex::new(Outbox::new(framing, max_bytes, max_unacknowledged)),
            waker: AtomicWaker::new(),
            flags: AtomicU8::new(0),
            priority: AtomicI16::new(UNAVAILABLE),
            presence: Mutex::new(None),
            directed: Mutex::new(Vec::new()),
            over: AtomicBool::new(false),
        }
    }

    /// Resource of the session.
    pub fn resource(&self) -> &str {
        self.address.resource().unwrap_or_default()
    }

    /// Gives a stanza to the client. `id` is its identifier when it awaits delivery in the store: it stays there
    /// until the client has it.
    pub fn push(&self, stanza: &Bytes, id: Option<MessageId>, urgency: Urgency) -> Pushed {
        let mut outbox = lock(&self.outbox);
        if outbox.ended || outbox.closing.is_some() {
            return Pushed::Gone;
        }
        if self.flag(INACTIVE) {
            if urgency == Urgency::Later && outbox.held.len() < MAX_HELD {
                outbox.held.push(stanza.clone());
                return Pushed::Taken;
            }
            for held in std::mem::take(&mut outbox.held) {
                outbox.push_only(&held);
            }
        }
        let pushed = match id {
            Some(id) => outbox.push_waiting(stanza, id),
            None if outbox.push_only(stanza) => Pushed::Taken,
            None => Pushed::Gone,
        };
        let attached = outbox.attached;
        drop(outbox);
        if attached {
            self.waker.wake();
        }
        pushed
    }

    /// Gives the client a message out of the store; see [`Session::serve`]. False when the session is closing or
    /// has no connection.
    pub fn hand_out(&self, stanza: &Bytes, id: MessageId) -> bool {
        let mut outbox = lock(&self.outbox);
        if outbox.room() == Room::Closed {
            return false;
        }
        outbox.hand_out(stanza, id, crate::now_ms());
        drop(outbox);
        self.waker.wake();
        true
    }

    /// What came while the session is behind and is not handed out yet, oldest first: up to `last`, the last message of a
    /// page of the store; after an empty page what came before that was read.
    pub fn kept(&self, last: Option<MessageId>) -> Vec<(MessageId, Bytes)> {
        lock(&self.outbox).kept(last)
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
    /// Called by the connection of this generation only, and only when all that it took before is written.
    pub fn take_output(&self, generation: u32, out: &mut Vec<u8>, receipts: &impl Receipts) -> Output {
        let mut outbox = lock(&self.outbox);
        if outbox.generation != generation {
            return Output::Close(Close::Resumed);
        }
        let framing = outbox.framing;
        outbox.written(self.user.bare(), receipts);
        let unacknowledged = outbox.is_unacknowledged();
        let ask = match &mut outbox.managed {
            Some(managed) if !managed.asked && unacknowledged => {
                managed.asked = true;
                true
            }
            _ => false,
        };
        outbox.take(out);
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
        let mut outbox = lock(&self.outbox);
        outbox.closing.get_or_insert(reason);
        outbox.look_again();
        drop(outbox);
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
        let fresh = lock(&self.outbox).manage(resume_id);
        if fresh {
            self.handled.store(0, Ordering::Relaxed);
        }
        fresh
    }

    /// True when stream management is on.
    pub fn is_managed(&self) -> bool {
        lock(&self.outbox).managed.is_some()
    }

    /// Takes an acknowledgement; false when it acknowledges what was never sent.
    pub fn acknowledge(&self, handled: u32, receipts: &impl Receipts) -> bool {
        lock(&self.outbox).acknowledge(handled, self.user.bare(), receipts)
    }

    /// True when something was sent that the client has not acknowledged.
    pub fn is_unacknowledged(&self) -> bool {
        lock(&self.outbox).is_unacknowledged()
    }

    /// True when so much waits to be written that the client is to read first.
    pub fn is_congested(&self) -> bool {
        lock(&self.outbox).is_congested()
    }

    /// Messages of the store that the client was sent and has not confirmed.
    pub fn held_ids(&self) -> Vec<MessageId> {
        lock(&self.outbox).held_ids()
    }

    /// True while what waits in the store is handed to this session before anything newer.
    pub fn is_behind(&self) -> bool {
        lock(&self.outbox).is_behind()
    }

    /// From now on messages come to this session out of the store.
    pub fn fall_behind(&self) {
        lock(&self.outbox).fall_behind();
    }

    /// Begins to hand out what waits; what is returned is woken when there is room, or will never be. Nothing when
    /// somebody does so already, who is then told to begin anew.
    pub fn serve(&self) -> Option<Arc<Notify>> {
        lock(&self.outbox).serve()
    }

    /// Stops to hand out before everything is.
    pub fn stop_serving(&self) {
        let available = self.priority().is_some_and(|priority| priority >= 0);
        lock(&self.outbox).stop_serving(available);
    }

    /// To be asked before what waits after `cursor` is read: a message to begin with instead.
    pub fn before_read(&self, cursor: Option<MessageId>) -> Option<MessageId> {
        lock(&self.outbox).before_read(cursor)
    }

    /// The first message that came since the last look, or is kept; the number 0 asks to begin anew.
    pub fn take_missed(&self) -> Option<MessageId> {
        lock(&self.outbox).take_missed()
    }

    /// Notes that the client confirms nothing of what it was handed, or does so again.
    pub fn set_stalled(&self, stalled: bool) {
        self.set_flag(STALLED, stalled);
    }

    /// True while its client is waited for and others of the account go first.
    pub fn is_stalled(&self) -> bool {
        self.flag(STALLED)
    }

    /// Frees what is kept of messages that nobody passes on any more at `now` (milliseconds since 1970-01-01 UTC).
    pub fn forget_recent(&self, now: i64) {
        lock(&self.outbox).forget_recent(now);
    }

    /// True while somebody hands out to this session.
    pub fn is_served(&self) -> bool {
        lock(&self.outbox).is_served()
    }

    /// True when [`Session::serve`] was refused for one who had stopped already.
    pub fn is_asked_anew(&self) -> bool {
        lock(&self.outbox).is_asked_anew()
    }

    /// Nothing more waits: true when the session is no longer behind, false when something came meanwhile.
    pub fn caught_up(&self) -> bool {
        lock(&self.outbox).caught_up()
    }

    /// True when this message was handed out a moment ago.
    pub fn had(&self, id: MessageId) -> bool {
        lock(&self.outbox).had(id)
    }

    /// Since when the session is behind, in milliseconds since 1970-01-01 UTC.
    pub fn behind_since(&self) -> i64 {
        lock(&self.outbox).behind_since()
    }

    /// Whether it can be handed more.
    pub fn room(&self) -> Room {
        if self.priority().is_none_or(|priority| priority < 0) {
            return Room::Closed;
        }
        lock(&self.outbox).room()
    }

    /// Says that the connection of `generation` is gone. True when the session stays for resumption.
    pub fn detach(&self, generation: u32) -> bool {
        let mut outbox = lock(&self.outbox);
        if outbox.generation != generation || outbox.ended {
            return true;
        }
        outbox.detach();
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
        outbox.detach();
        let generation = outbox.generation;
        drop(outbox);
        self.waker.wake();
        Some(generation)
    }

    /// Completes a resumption: takes the client's counter, puts `resumed` and then all that it has not
    /// acknowledged into the outbox again.
    ///
    /// # Errors
    /// When the counter is impossible, or another connection came.
    pub fn resume(
        &self,
        generation: u32,
        framing: Framing,
        handled: u32,
        resumed: &str,
        receipts: &impl Receipts,
    ) -> Result<(), Unresumed> {
        let mut outbox = lock(&self.outbox);
        if outbox.generation != generation || outbox.ended {
            return Err(Unresumed::Overtaken);
        }
        if !outbox.acknowledge(handled, self.user.bare(), receipts) {
            return Err(Unresumed::Counter);
        }
        outbox.framing = framing;
        outbox.attached = true;
        frame(framing, &mut outbox.bytes, resumed);
        outbox.send_again();
        self.set_flag(INACTIVE, false);
        for held in std::mem::take(&mut outbox.held) {
            outbox.push_only(&held);
        }
        Ok(())
    }

    /// The client has what the connection of this generation wrote, though nothing more is taken.
    pub fn written(&self, generation: u32, receipts: &impl Receipts) {
        let mut outbox = lock(&self.outbox);
        if outbox.generation == generation {
            outbox.written(self.user.bare(), receipts);
        }
    }

    /// Ends the session for good. True when messages are left that the client has perhaps not got.
    pub fn end(&self) -> bool {
        lock(&self.outbox).end()
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
                outbox.push_only(&held);
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

    /// Sets presence and priority; returns the priority it had before, while it was available.
    pub fn set_presence(&self, presence: Option<(Bytes, i8)>) -> Option<i8> {
        let (bytes, priority) = match presence {
            Some((bytes, priority)) => (Some(bytes), i16::from(priority)),
            None => (None, UNAVAILABLE),
        };
        *lock(&self.presence) = bytes;
        let before = self.priority.swap(priority, Ordering::Relaxed);
        if priority < 0 {
            // Whoever hands out to this session waits for room that it will not have.
            lock(&self.outbox).look_again();
        }
        (before != UNAVAILABLE).then_some(before as i8)
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

/// Why a session cannot be resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresumed {
    /// The client's counter is impossible: the session is of no use any more.
    Counter,
    /// Another connection took it over, or it ended.
    Overtaken,
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

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
