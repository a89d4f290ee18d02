//! Messages that wait for their receiver (XEP-0160): handed out in order, as fast as the client confirms them.
//!
//! Every message worth keeping waits in the store from its commit until a client of its receiver has it; the mark is
//! removed by confirmations ([`crate::outbox`]). Ordinarily it is pushed to a session right after its commit and
//! confirmed a moment later. [`begin`] is for the rest: a session that becomes available, one that had no room,
//! one that is left when another ended without having confirmed everything.
//!
//! One session of an account is served at a time, in a task of its own:
//! 1. what sessions of the account hold already, here and on other nodes, is left out;
//! 2. pages are read, bounded by count and bytes, and given to the session while it has room;
//! 3. when nothing more waits and nothing came meanwhile, messages are pushed to it directly again.
//!
//! A client that confirms nothing for a while stalls its session: the turn goes to another session of the account,
//! and the stalled one takes it again when there is room.
//!
//! What is not handed out to the end (the connection is lost, the client leaves) stays in the store: another
//! session gets it by [`wake`], or the next one that becomes available. See `docs/decisions/0008-delivery.md`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use im_proto::Address;
use im_proto::ext::delay::delay;
use im_proto::ns;
use im_proto::stanza::{end_tag, insert_before_end};
use im_proto::xml::escape;
use im_store::live::NodeId;
use im_store::{ArchivedMessage, MessageId, Offline as _};
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::Instant;

use crate::core::Core;
use crate::nodes::Elsewhere;
use crate::routing::{self, Resource};
use crate::session::{Room, Session};

/// Messages read from the store at once, and about how many bytes.
const PAGE: u32 = 100;
const PAGE_BYTES: usize = 512 * 1024;
/// Failed reads in a row after which the session is left to the next occasion.
const FAILURES: u32 = 5;
/// How long to wait after the first of them; twice as long after each further one.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a client may confirm nothing while other sessions of its account wait for their turn.
const PATIENCE: Duration = Duration::from_secs(10);
/// Accounts looked after at the same time when a node is gone.
const AT_ONCE: usize = 32;

/// The right to hand out what waits for an account on this node.
pub type Turn = OwnedMutexGuard<()>;

/// The turn, when nobody has it. Taken before a session is made available, so that what waits comes first.
pub fn turn(session: &Session) -> Option<Turn> {
    let turn = Arc::clone(&session.user.offline).try_lock_owned().ok()?;
    session.fall_behind();
    Some(turn)
}

/// Begins to hand out what waits to a session, if nobody does so yet. Waits for nothing.
pub fn begin(core: &Arc<Core>, session: &Arc<Session>, turn: Option<Turn>) {
    let Some(room) = session.serve() else { return };
    let (core, session) = (Arc::clone(core), Arc::clone(session));
    tokio::spawn(async move {
        let mut serving = Serving { session: Arc::clone(&session), room, turn, done: false };
        serving.take_turn().await;
        let all = Box::pin(hand_out(&core, &mut serving)).await;
        serving.done = all;
        drop(serving);
        if !all && session.room() == Room::Closed {
            wake(&core, session.address.bare(), None).await;
        } else if session.is_asked_anew() {
            // It was resumed while this one saw that it had no connection.
            begin(&core, &session, None);
        }
    });
}

/// A session that is handed out to. However that ends, somebody else can begin anew.
struct Serving {
    session: Arc<Session>,
    /// Woken when there is room, or will never be.
    room: Arc<Notify>,
    /// Nothing while the session is stalled.
    turn: Option<Turn>,
    /// Everything was handed out.
    done: bool,
}

impl Drop for Serving {
    fn drop(&mut self) {
        if !self.done {
            self.session.stop_serving();
        }
        self.session.set_stalled(false);
    }
}

/// Why handing out does not go on as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Look again at what is held, and at what waits after this message: others had the turn, or one was missed.
    Anew(Option<MessageId>),
    /// There will be no room, or the store does not answer.
    End,
}

impl Serving {
    async fn take_turn(&mut self) {
        if self.turn.is_none() {
            self.turn = Some(Arc::clone(&self.session.user.offline).lock_owned().await);
        }
    }

    /// Waits until more can be handed out; lets other sessions of the account go first when the client confirms nothing.
    async fn wait_for_room(&mut self, core: &Arc<Core>) -> Result<(), Stop> {
        let mut until = Instant::now() + PATIENCE;
        loop {
            match self.session.room() {
                Room::Some if self.turn.is_some() => return Ok(()),
                Room::Some => {
                    // Before it waits: who has the turn gives it to those alone who can be handed something.
                    self.session.set_stalled(false);
                    self.take_turn().await;
                    return Err(Stop::Anew(None));
                }
                Room::Closed => return Err(Stop::End),
                Room::None => {}
            }
            // A permit is kept when it is woken between looking and waiting.
            if tokio::time::timeout_at(until, self.room.notified()).await.is_ok() {
                continue;
            }
            until += PATIENCE;
            if self.turn.is_some() && another_waits(core, &self.session) {
                self.session.set_stalled(true);
                self.turn = None;
                wake(core, self.session.address.bare(), None).await;
            }
        }
    }
}

/// True when another session of the account could be handed what waits.
fn another_waits(core: &Arc<Core>, session: &Arc<Session>) -> bool {
    routing::sessions(core, session.address.bare()).iter().any(|resource| match resource {
        Resource::Here(other) => !Arc::ptr_eq(other, session) && can_have(other),
        Resource::Elsewhere(other) => other.priority.is_some_and(|priority| priority >= 0),
    })
}

/// True when what waits can be handed to this session.
pub fn can_have(session: &Session) -> bool {
    session.room() != Room::Closed && !session.is_stalled()
}

/// Hands out until nothing more waits; false when it ended before.
async fn hand_out(core: &Arc<Core>, serving: &mut Serving) -> bool {
    let session = Arc::clone(&serving.session);
    let bare = session.address.bare();
    let mut cursor: Option<MessageId> = None;
    loop {
        let held = match held(core, &session).await {
            Some(held) => held,
            // Another node hands out what waits; here it is only for what came meanwhile and was meant for this one.
            None => match session.take_missed() {
                // To begin anew: what the other node was told is held is out of date. It is asked again later.
                Some(missed) if missed.as_i64() == 0 => {
                    core.cluster.look_again_for(bare);
                    continue;
                }
                Some(missed) => {
                    cursor = Some(MessageId::from_i64(missed.as_i64() - 1));
                    held_here(core, bare).into_iter().collect()
                }
                None if session.caught_up() => return true,
                None => continue,
            },
        };
        match hand_out_pages(core, serving, &held, cursor).await {
            Ok(()) => return true,
            Err(Stop::Anew(after)) => cursor = after,
            Err(Stop::End) => return false,
        }
    }
}

/// Hands out what waits after `cursor` and is not `held`, page by page.
async fn hand_out_pages(
    core: &Arc<Core>,
    serving: &mut Serving,
    held: &HashSet<MessageId>,
    mut cursor: Option<MessageId>,
) -> Result<(), Stop> {
    let session = Arc::clone(&serving.session);
    let bare = session.address.bare();
    let mut failures = 0;
    loop {
        serving.wait_for_room(core).await?;
        if let Some(missed) = session.before_read(cursor) {
            return Err(Stop::Anew(Some(MessageId::from_i64(missed.as_i64() - 1))));
        }
        let page = match core.store.pending(bare, cursor, PAGE, PAGE_BYTES).await {
            Ok(page) => page,
            Err(error) => {
                core.report("cannot read messages that wait", &error);
                failures += 1;
                if failures >= FAILURES {
                    core.cluster.look_again_for(bare);
                    return Err(Stop::End);
                }
                tokio::time::sleep(PAUSE * 2_u32.pow(failures - 1)).await;
                continue;
            }
        };
        failures = 0;
        let last = page.last().map(|message| message.id);
        // What came meanwhile is this session's too, whoever else holds it or has confirmed it already.
        let kept = session.kept(last);
        if page.is_empty() && kept.is_empty() {
            if session.caught_up() {
                return Ok(());
            }
            continue;
        }
        let since = session.behind_since();
        let stored = page.iter().filter(|message| !held.contains(&message.id)).map(|message| {
            let late = message.id.timestamp_ms() < since;
            (message.id, stamped(message, bare, late.then_some(core.domain.as_str())))
        });
        let batch: BTreeMap<MessageId, Bytes> = kept.into_iter().chain(stored).collect();
        for (id, stanza) in batch.into_iter().filter(|(id, _)| !session.had(*id)) {
            serving.wait_for_room(core).await?;
            if !session.hand_out(&stanza, id) {
                return Err(Stop::End);
            }
            if !session.quiet {
                core.metrics.messages_delivered.add(1);
            }
        }
        cursor = last.or(cursor);
    }
}

/// What sessions of this account hold on this node: sent and not confirmed, or confirmed and still marked.
pub fn held_here(core: &Core, bare: &str) -> Vec<MessageId> {
    let mut held: Vec<MessageId> = Vec::new();
    if let Some(user) = core.users.find(bare) {
        for session in user.sessions() {
            held.extend(session.held_ids());
        }
    }
    // After the sessions: what was held a moment ago is confirmed by now.
    held.extend(core.store.confirming(bare));
    held
}

/// What is held anywhere; nothing when another node is handing out to this account.
async fn held(core: &Arc<Core>, session: &Session) -> Option<HashSet<MessageId>> {
    let bare = session.address.bare();
    let mut held: HashSet<MessageId> = HashSet::new();
    if !core.live.is_single_node() {
        match core.cluster.held_elsewhere(core, bare).await {
            Elsewhere::Holds(ids) => held.extend(ids),
            Elsewhere::Busy => return None,
        }
    }
    held.extend(held_here(core, bare));
    Some(held)
}

/// Has somebody handed what waits for an account: its best session that is there, wherever it is, but not on the node
/// `avoid`. True when there is one.
pub async fn wake(core: &Arc<Core>, bare: &str, avoid: Option<&NodeId>) -> bool {
    let mut all = routing::sessions(core, bare);
    if !core.live.is_single_node() {
        // The directory itself is asked: our copy may not know yet of a session that is just being made.
        if let Ok(now) = core.live.sessions_now(bare).await {
            all.retain(|resource| matches!(resource, Resource::Here(_)));
            let here = core.live.node();
            all.extend(now.into_iter().filter(|s| s.node != *here).map(Resource::Elsewhere));
        }
    }
    let usable = |resource: &Resource| match resource {
        Resource::Here(session) => can_have(session),
        Resource::Elsewhere(session) => {
            session.priority.is_some_and(|p| p >= 0) && avoid.is_none_or(|avoid| session.node != *avoid)
        }
    };
    // Every node that looks finds the same one.
    let served = |resource: &Resource| matches!(resource, Resource::Here(session) if session.is_served());
    let best = all.iter().filter(|r| usable(r)).max_by(|a, b| {
        let priority = a.priority().cmp(&b.priority());
        // Who is handed out to anyway looks again.
        served(a).cmp(&served(b)).then(priority).then_with(|| a.resource().cmp(b.resource()))
    });
    match best {
        Some(Resource::Here(session)) => begin(core, session, None),
        Some(Resource::Elsewhere(session)) => core.cluster.flush_offline(core, session),
        None => {
            if avoid.is_some() && !all.is_empty() {
                core.cluster.look_again_for(bare);
            }
            return false;
        }
    }
    true
}

/// Looks after accounts with sessions here for whom something was stored since `since` (milliseconds since
/// 1970-01-01 UTC) and perhaps never handed over, because the node that stored it died.
pub async fn wake_all_since(core: &Arc<Core>, since: i64) {
    const OWNERS: u32 = 100_000;
    let owners = match core.store.pending_owners(since, OWNERS).await {
        Ok(owners) => owners,
        Err(error) => {
            core.report("cannot look for messages of a node that is gone", &error);
            return;
        }
    };
    let here = owners.into_iter().filter(|owner| {
        core.users.find(owner).is_some_and(|user| user.with_sessions(|s| !s.is_empty()))
            && Address::parse(owner).is_ok()
    });
    // A round trip to the directory each.
    futures_util::stream::iter(here)
        .for_each_concurrent(AT_ONCE, |owner| async move {
            wake(core, &owner, None).await;
        })
        .await;
}

/// A stored message with its identifier, and the time it was stored when it comes late.
fn stamped(message: &ArchivedMessage, owner: &str, late: Option<&str>) -> Bytes {
    let text = std::str::from_utf8(&message.stanza).unwrap_or_default();
    let mut extra =
        format!("<stanza-id xmlns='{}' by='{}' id='{}'/>", ns::STANZA_ID, escape(owner), message.id);
    if let Some(domain) = late {
        extra.push_str(&delay(domain, message.id.timestamp_ms()));
    }
    Bytes::from(insert_before_end(text, end_tag(text), &extra))
}
