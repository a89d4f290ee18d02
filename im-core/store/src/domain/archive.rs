//! The message archive (XEP-0313) and what of it still awaits delivery (offline messages, XEP-0160).
//!
//! A message is stored once, with a narrow entry in the archive of each owner and a mark for each owner who has
//! yet to receive it, all in one transaction. Appending is the hot path: messages queue up in a bounded queue
//! and are committed many at a time; the [`Ack`] comes when the commit is on disk and not before.

use crate::{MessageId, StoreError};
use bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// A copy of a message for one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveCopy {
    /// Whose archive: a bare JID.
    pub owner: String,
    /// The other side of the conversation, as `with` means it in XEP-0313: a bare JID.
    pub peer: String,
    /// Make an entry in the owner's archive.
    pub archive: bool,
    /// It awaits delivery to the owner, until that is confirmed.
    pub offline: bool,
}

/// A message to be stored. Its identifier is given by the store at the commit.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// The whole `<message/>` as it is to be delivered, without `stanza-id` and `delay`, at most 4 MB.
    pub stanza: Bytes,
    /// One copy per owner; each owner at most once. A copy with neither archive nor offline stores nothing.
    pub copies: Vec<ArchiveCopy>,
}

/// Resolves when the message is durable, to its identifier. An error means that it is not known to be stored
/// and must not be acknowledged.
#[derive(Debug)]
pub struct Ack(pub(crate) oneshot::Receiver<Result<MessageId, StoreError>>);

impl Future for Ack {
    type Output = Result<MessageId, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(StoreError::Closed)))
    }
}

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedMessage {
    /// Its identifier, the same in the archive of every owner.
    pub id: MessageId,
    /// The stanza as it was stored.
    pub stanza: Bytes,
}

/// Where a page begins (XEP-0059).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Page {
    /// At the oldest message.
    #[default]
    First,
    /// At the newest message, going back (`<before/>`).
    Last,
    /// After this message, which must be in the archive.
    After(MessageId),
    /// Before this message, going back, which must be in the archive.
    Before(MessageId),
}

/// What to read from an archive.
#[derive(Debug, Clone, Default)]
pub struct ArchiveQuery {
    /// Only messages exchanged with this bare JID.
    pub with: Option<String>,
    /// Only messages of this moment or later, in milliseconds since 1970-01-01 UTC.
    pub start: Option<i64>,
    /// Only messages of this moment or earlier, in milliseconds since 1970-01-01 UTC.
    pub end: Option<i64>,
    /// Only messages after this one, which must be in the archive (`after-id`, XEP-0313 section 4.1.4).
    pub after_id: Option<MessageId>,
    /// Only messages before this one, which must be in the archive (`before-id`).
    pub before_id: Option<MessageId>,
    /// Only these messages; every one must be in the archive. At most 1000.
    pub ids: Option<Vec<MessageId>>,
    /// Where the page begins.
    pub page: Page,
    /// How many messages at most; 0 asks for the count alone.
    pub max: u32,
    /// Count all messages that match, not only those of the page.
    pub count: bool,
    /// Newest first within the page (`<flip-page/>`).
    pub flip: bool,
    /// End the page early once its stanzas have this many bytes together.
    pub bytes: Option<usize>,
}

/// A page of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArchivePage {
    /// Oldest first, or newest first when flipped.
    pub messages: Vec<ArchivedMessage>,
    /// There is nothing more in the direction of the page.
    pub complete: bool,
    /// How many messages match in all, when that was asked for.
    pub count: Option<u64>,
}

/// A query brought to what SQL asks: identifiers between two others, in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// Only greater identifiers.
    pub after: i64,
    /// Only smaller identifiers.
    pub before: i64,
    /// The bounds without the page, for counting.
    pub count_after: i64,
    /// As above.
    pub count_before: i64,
    /// From the newest.
    pub descending: bool,
}

impl ArchiveQuery {
    /// The window that this query looks at.
    pub(crate) fn window(&self) -> Window {
        let above = |id: Option<MessageId>| id.map_or(-1, MessageId::as_i64);
        let below = |id: Option<MessageId>| id.map_or(i64::MAX, MessageId::as_i64);
        let start = self.start.map_or(-1, |start| MessageId::first_at(start).as_i64() - 1);
        let end = self.end.map_or(i64::MAX, |end| MessageId::first_at(end.saturating_add(1)).as_i64());
        let (count_after, count_before) = (above(self.after_id).max(start), below(self.before_id).min(end));
        let (after, before, descending) = match self.page {
            Page::First => (count_after, count_before, false),
            Page::Last => (count_after, count_before, true),
            Page::After(id) => (count_after.max(id.as_i64()), count_before, false),
            Page::Before(id) => (count_after, count_before.min(id.as_i64()), true),
        };
        Window { after, before, count_after, count_before, descending }
    }

    /// Messages that must be in the archive for the query to make sense.
    pub(crate) fn named(&self) -> Vec<MessageId> {
        let page = match self.page {
            Page::After(id) | Page::Before(id) => Some(id),
            Page::First | Page::Last => None,
        };
        [page, self.after_id, self.before_id].into_iter().flatten().collect()
    }

    /// Whether the query picks single messages; they are few, and are picked from in memory.
    pub(crate) fn checked_ids(&self) -> Result<Option<Vec<i64>>, StoreError> {
        let Some(ids) = &self.ids else { return Ok(None) };
        if ids.len() > crate::limits::IDS_PER_QUERY {
            let reason = format!("more than {} messages are named", crate::limits::IDS_PER_QUERY);
            return Err(StoreError::Invalid { what: "query", reason });
        }
        let mut ids: Vec<i64> = ids.iter().map(|id| id.as_i64()).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(Some(ids))
    }

    /// The identifiers of `ids` that are on the page, in order of reading, and whether there are no more.
    pub(crate) fn page_of(&self, mut ids: Vec<i64>) -> (Vec<i64>, bool) {
        let window = self.window();
        ids.retain(|id| window.after < *id && *id < window.before);
        if window.descending {
            ids.reverse();
        }
        let complete = ids.len() <= self.max as usize;
        ids.truncate(self.max as usize);
        (ids, complete)
    }

    /// How many bytes a page may have.
    pub(crate) fn budget(&self) -> Budget {
        Budget::new(self.bytes.unwrap_or(usize::MAX))
    }

    /// Puts the messages of a page, read in the direction of its window and one more than asked for when there
    /// are more, into the order of the answer. `cut`: the page ended early for its bytes.
    pub(crate) fn finish(
        &self,
        mut messages: Vec<ArchivedMessage>,
        cut: bool,
        count: Option<u64>,
    ) -> ArchivePage {
        let complete = !cut && messages.len() <= self.max as usize;
        messages.truncate(self.max as usize);
        if self.window().descending != self.flip {
            messages.reverse();
        }
        ArchivePage { messages, complete, count }
    }
}

/// Ends a page once its stanzas have enough bytes together. The first message always fits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    left: usize,
    used: bool,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { left: bytes, used: false }
    }

    /// Takes a stanza into account; false when the page ends before it.
    pub(crate) fn takes(&mut self, stanza: usize) -> bool {
        let fits = !self.used || stanza <= self.left;
        self.used = true;
        self.left = self.left.saturating_sub(stanza);
        fits
    }
}

domain! {
    /// The message archive.
    pub trait Archive {
        /// Hands a message to the writer, waiting while its queue is full; the [`Ack`] resolves when the
        /// message is durable. Messages handed over one after the other are acknowledged in that order.
        fn append(&self, message: NewMessage) -> Ack;
        /// A page of `owner`'s archive. `StoreError::UnknownMessage` when a message that the query names is not
        /// in it.
        fn query_archive(&self, owner: &str, query: &ArchiveQuery) -> ArchivePage;
        /// The first and last identifier of `owner`'s archive (XEP-0313 metadata).
        fn archive_bounds(&self, owner: &str) -> Option<(MessageId, MessageId)>;
        /// Removes entries older than `before` (milliseconds since 1970-01-01 UTC): of one owner, or of all.
        /// Messages that still await delivery stay. Says how many entries went.
        fn expire_archive(&self, owner: Option<&str>, before: i64) -> u64;
    }
}

domain! {
    /// Messages that await delivery. That one reached its owner is said by [`Store::confirm`](crate::Store::confirm).
    pub trait Offline {
        /// What awaits delivery to `owner` and was not confirmed: after `after`, oldest first, at most `limit`
        /// messages, and fewer once they have `bytes` together. Nothing is marked by reading. Messages that wait
        /// are only the last when nothing is returned.
        fn pending(
            &self, owner: &str, after: Option<MessageId>, limit: u32, bytes: usize
        ) -> Vec<ArchivedMessage>;
        /// How many messages await delivery to `owner`, those included whose confirmation is not yet on disk.
        fn pending_count(&self, owner: &str) -> u64;
        /// Owners for whom something was stored at `since` (milliseconds since 1970-01-01 UTC) or later that
        /// awaits delivery still. At most `limit`.
        fn pending_owners(&self, since: i64, limit: u32) -> Vec<String>;
        /// Waits until all that was confirmed is on disk.
        fn settle(&self) -> ();
        /// The same for what was confirmed to `owner` until now.
        fn settle_for(&self, owner: &str) -> ();
    }
}
