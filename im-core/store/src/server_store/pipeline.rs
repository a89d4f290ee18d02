//! Writes the archive to a database server: group commit over a few connections.
//!
//! A sequencer takes what is queued, gives identifiers, and hands the batch to the next free connection; while
//! that one commits, the next batch gathers. Acknowledgements are given in the order of appending, whichever
//! connection was faster.
//!
//! A batch is one transaction. When it fails for a reason that passes (a deadlock, a lost connection, a server
//! that restarts) it is tried again for a minute. After a lost connection nobody knows whether the commit came
//! through: the next try first looks for the batch's first message, so that nothing is stored twice. Only when the
//! minute is over, or for an error that does not pass, the batch is refused.

use super::{Fault, wait};
use crate::confirm::{Confirmations, DELAY, Marks};
use crate::domain::{Ack, NewMessage};
use crate::id::{IdGenerator, now_ms};
use crate::{MessageId, StoreError, limits};
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

const QUEUE: usize = 8192;
/// Most messages, and about the most bytes, of one batch.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How long one try may take, and how long it is tried.
const TRY: Duration = Duration::from_secs(20);
const TRY_FOR: Duration = Duration::from_mins(1);
/// Above this many addresses the cache starts anew.
const ADDRESS_CACHE: usize = 200_000;
/// Addresses asked for in one statement.
const ADDRESSES_PER_STATEMENT: usize = 500;

/// A row of `message`.
#[derive(Debug)]
pub(crate) struct MessageRow {
    pub id: i64,
    pub owner_a: Option<i64>,
    pub owner_b: Option<i64>,
    pub stanza: Bytes,
}

/// The rows of a batch.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub messages: Vec<MessageRow>,
    /// Owner, message, peer.
    pub entries: Vec<(i64, i64, i64)>,
    /// Owner, message.
    pub offline: Vec<(i64, i64)>,
    /// Owner with the messages that reached it.
    pub delivered: Vec<(i64, Vec<i64>)>,
}

/// A connection that batches are written over. It connects by itself when it is not connected.
pub(crate) trait Sink: Send + 'static {
    /// Numbers of addresses, entering the new ones.
    fn resolve(
        &mut self,
        jids: &[&str],
    ) -> impl Future<Output = Result<Vec<(String, i64)>, sqlx::Error>> + Send;
    /// Writes the rows in one transaction.
    fn store(&mut self, rows: &Rows) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
    /// Whether a message is stored.
    fn is_stored(&mut self, id: i64) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;
    /// Gives the connection up, for a fresh one at the next call.
    fn disconnect(&mut self);
    /// Sorts an error.
    fn fault(error: &sqlx::Error) -> Fault;
}

type Answer = oneshot::Sender<Result<MessageId, StoreError>>;

enum Task {
    Append(NewMessage, Answer),
    /// Only so that confirmations are taken.
    Wake,
    Close(oneshot::Sender<()>),
}

/// The queue into the pipeline.
#[derive(Debug)]
pub(crate) struct Pipeline {
    tasks: mpsc::Sender<Task>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    backend: &'static str,
    generator: Mutex<IdGenerator>,
    addresses: Mutex<HashMap<String, i64>>,
    confirmations: Confirmations,
    /// The lowest identifier of each batch under way.
    under_way: Mutex<BTreeSet<i64>>,
    landed: Notify,
}

impl Pipeline {
    /// Starts writing over these connections.
    pub(crate) fn start<S: Sink>(backend: &'static str, sinks: Vec<S>, generator: IdGenerator) -> Self {
        let (tasks, queue) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            backend,
            generator: Mutex::new(generator),
            addresses: Mutex::default(),
            confirmations: Confirmations::default(),
            under_way: Mutex::default(),
            landed: Notify::new(),
        });
        tokio::spawn(sequence(queue, sinks, Arc::clone(&shared)));
        Self { tasks, shared }
    }

    /// What was confirmed and is not yet on disk.
    pub(crate) fn confirmations(&self) -> &Confirmations {
        &self.shared.confirmations
    }

    /// Queues confirmations; they are taken with the next batch, or with one of their own in a moment.
    pub(crate) fn confirm(&self, owner: &str, ids: &[MessageId]) {
        if !self.shared.confirmations.add(owner, ids) {
            return;
        }
        let (tasks, shared) = (self.tasks.clone(), Arc::clone(&self.shared));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(DELAY).await;
                // A closed queue has taken everything with it.
                if shared.confirmations.is_done() || tasks.send(Task::Wake).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Waits until what was confirmed is on disk: all of it, or that of `owner`.
    pub(crate) async fn settle(&self, owner: Option<&str>) {
        let wake = async || {
            let _ = self.tasks.send(Task::Wake).await;
        };
        self.shared.confirmations.settle(owner, wake).await;
    }

    /// What must not be read yet, as it is now: to be taken before a read.
    pub(crate) fn horizon(&self) -> Horizon {
        let under_way = self.shared.under_way();
        let generator = self.shared.generator.lock().unwrap_or_else(PoisonError::into_inner);
        Horizon { lowest: under_way.first().copied().unwrap_or(i64::MAX), issued: generator.last() }
    }

    /// Waits until something of what `horizon` hides is committed, or failed.
    pub(crate) async fn wait_for(&self, horizon: &Horizon) {
        let landed = self.shared.landed.notified();
        let mut landed = std::pin::pin!(landed);
        landed.as_mut().enable();
        if self.horizon().lowest <= horizon.lowest && horizon.lowest != i64::MAX {
            landed.await;
        }
    }

    /// Queues a message.
    pub(crate) async fn append(&self, message: NewMessage) -> Result<Ack, StoreError> {
        limits::message(&message)?;
        let (answer, answered) = oneshot::channel();
        self.tasks.send(Task::Append(message, answer)).await.map_err(|_| StoreError::Closed)?;
        Ok(Ack(answered))
    }

    /// Commits what is queued and ends.
    pub(crate) async fn close(&self) {
        let (answer, answered) = oneshot::channel();
        if self.tasks.send(Task::Close(answer)).await.is_ok() {
            // Dropped unsent, it has ended as well.
            let _ = answered.await;
        }
    }
}

/// Batches are committed at the same time, so that a later identifier may be seen before an earlier one. Whoever
/// reads on from the last identifier it saw would miss the earlier one: what is not settled is not shown. Batches
/// of other nodes are not known here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Horizon {
    /// The lowest identifier under way; the greatest number when there is none.
    pub lowest: i64,
    /// The last identifier that was given.
    issued: MessageId,
}

impl Horizon {
    /// True when nothing of this node can appear before this one any more.
    pub(crate) fn is_settled(&self, id: i64) -> bool {
        let later = id > self.issued.as_i64() && MessageId::from_i64(id).same_writer(self.issued);
        id < self.lowest && !later
    }

    /// The lowest of these that is not settled.
    pub(crate) fn first_unsettled(&self, ids: impl Iterator<Item = MessageId>) -> Option<i64> {
        ids.map(MessageId::as_i64).filter(|id| !self.is_settled(*id)).min()
    }
}

/// Forms batches and hands them to connections, in order.
async fn sequence<S: Sink>(mut queue: mpsc::Receiver<Task>, sinks: Vec<S>, shared: Arc<Shared>) {
    let connections = sinks.len();
    let (free, mut idle) = mpsc::channel(connections);
    for sink in sinks {
        // There is room for every one of them.
        let _ = free.try_send(sink);
    }
    let mut tasks = Vec::with_capacity(BATCH);
    // Resolves when the batch before has given its acknowledgements.
    let (first, mut turn) = oneshot::channel::<()>();
    drop(first);
    let mut closing = None;
    while closing.is_none() {
        // The connection first: while none is free the batch grows.
        let Some(mut sink) = idle.recv().await else { return };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        if tasks.is_empty() && queue.recv_many(&mut tasks, BATCH).await == 0 {
            return;
        }
        let mut rest = tasks.drain(..);
        for task in rest.by_ref() {
            match task {
                Task::Append(message, answer) => {
                    bytes += message.stanza.len();
                    batch.push((message, answer));
                }
                Task::Wake => {}
                Task::Close(answer) => {
                    queue.close();
                    closing = Some(answer);
                }
            }
            if bytes > BATCH_BYTES {
                break;
            }
        }
        let rest: Vec<Task> = rest.collect();
        tasks.extend(rest);
        if closing.is_some() {
            // What came in before the queue was closed is written with this batch's successors.
            while let Some(task) = queue.recv().await {
                tasks.push(task);
            }
            batch.extend(tasks.drain(..).filter_map(|task| match task {
                Task::Append(message, answer) => Some((message, answer)),
                Task::Wake | Task::Close(_) => None,
            }));
        }
        let marks = shared.confirmations.take(batch.is_empty());
        if batch.is_empty() && marks.is_none() && closing.is_none() {
            let _ = free.try_send(sink);
            continue;
        }
        let (done, next_turn) = oneshot::channel::<()>();
        let previous = std::mem::replace(&mut turn, next_turn);
        let (shared, free) = (Arc::clone(&shared), free.clone());
        // Here and not in the task: identifiers follow the order of appending, whichever task runs first.
        let ids = shared.begin(batch.len());
        tokio::spawn(async move {
            let (messages, answers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let lowest = ids.first().copied();
            let outcome = write(&mut sink, &messages, ids, marks.as_deref(), &shared).await;
            if let Some(marks) = &marks {
                shared.confirmations.finish(marks, outcome.is_ok());
            }
            shared.end(lowest);
            // The connection takes the next batch while this one waits for its turn to answer.
            let _ = free.send(sink).await;
            // An error says that the sender is gone, which is how the turn is passed.
            let _ = previous.await;
            match outcome {
                Ok(ids) => {
                    for (answer, id) in answers.into_iter().zip(ids) {
                        // A session that ended no longer waits for its acknowledgement.
                        let _ = answer.send(Ok(id));
                    }
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &(dyn std::error::Error + 'static),
                        messages = answers.len(),
                        "a batch of messages was refused"
                    );
                    for answer in answers {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
            drop(done);
        });
    }
    let _ = turn.await;
    // What a full batch of confirmations left. Every connection is free now.
    if let Ok(mut sink) = idle.try_recv() {
        while let Some(marks) = shared.confirmations.take(true) {
            let outcome = write(&mut sink, &[], Vec::new(), Some(&marks), &shared).await;
            shared.confirmations.finish(&marks, outcome.is_ok());
            if outcome.is_err() {
                break;
            }
        }
    }
    if let Some(closing) = closing {
        let _ = closing.send(());
    }
}

/// Writes a batch, again and again until it is stored or there is no point.
async fn write<S: Sink>(
    sink: &mut S,
    messages: &[NewMessage],
    mut ids: Vec<MessageId>,
    marks: Option<&Marks>,
    shared: &Shared,
) -> Result<Vec<MessageId>, StoreError> {
    let step = "appending to the archive";
    let began = Instant::now();
    let mut pause = Duration::from_millis(10);
    // Whether an earlier try may have been committed all the same.
    let mut maybe_stored = false;
    loop {
        let outcome = timeout(TRY, attempt(sink, messages, &ids, marks, shared, &mut maybe_stored)).await;
        let error = match outcome {
            Ok(Ok(())) => return Ok(ids),
            Ok(Err(error)) => error,
            Err(_) => sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()),
        };
        // Whatever state the connection and its transaction are in, a fresh one has none.
        sink.disconnect();
        match S::fault(&error) {
            Fault::Duplicate if !maybe_stored => {
                // Another writer was here with the same number: nothing of this batch is stored, so take new ones.
                tracing::warn!(backend = shared.backend, "identifiers were taken; using others");
                ids = shared.next_ids(messages.len());
            }
            Fault::Permanent => {
                return Err(StoreError::database(shared.backend, step, error));
            }
            Fault::Duplicate | Fault::Conflict | Fault::Unreachable => {}
        }
        if began.elapsed() > TRY_FOR {
            return Err(StoreError::database(shared.backend, step, error));
        }
        tracing::warn!(backend = shared.backend, %error, messages = messages.len(), "a batch is tried again");
        pause = wait(pause).await;
    }
}

async fn attempt<S: Sink>(
    sink: &mut S,
    messages: &[NewMessage],
    ids: &[MessageId],
    marks: Option<&Marks>,
    shared: &Shared,
    maybe_stored: &mut bool,
) -> Result<(), sqlx::Error> {
    let numbers = shared.resolve(sink, messages, marks).await?;
    let rows = Shared::rows(&numbers, messages, ids, marks);
    if rows.messages.is_empty() && rows.delivered.is_empty() {
        return Ok(());
    }
    if *maybe_stored
        && let Some(first) = rows.messages.first()
        && sink.is_stored(first.id).await?
    {
        return Ok(());
    }
    // It stays so when this future is dropped at its deadline.
    let before = std::mem::replace(maybe_stored, true);
    let outcome = sink.store(&rows).await;
    if outcome.as_ref().is_err_and(|error| matches!(S::fault(error), Fault::Conflict | Fault::Duplicate)) {
        // The server said that it rolled back: this try stored nothing, though an earlier one may have.
        *maybe_stored = before;
    }
    outcome
}

impl Shared {
    fn under_way(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives identifiers to a batch that is under way from now on.
    fn begin(&self, count: usize) -> Vec<MessageId> {
        // Locked first, so that nobody sees the identifiers given and not under way.
        let mut under_way = self.under_way();
        let ids = self.next_ids(count);
        under_way.extend(ids.first().map(|id| id.as_i64()));
        ids
    }

    fn end(&self, lowest: Option<MessageId>) {
        if let Some(lowest) = lowest {
            self.under_way().remove(&lowest.as_i64());
        }
        self.landed.notify_waiters();
    }

    fn next_ids(&self, count: usize) -> Vec<MessageId> {
        let mut generator = self.generator.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now_ms();
        (0..count).map(|_| generator.next(now)).collect()
    }

    /// The number of every address of the batch, from the cache or else from the database.
    async fn resolve<'a, S: Sink>(
        &self,
        sink: &mut S,
        messages: &'a [NewMessage],
        marks: Option<&'a Marks>,
    ) -> Result<HashMap<&'a str, i64>, sqlx::Error> {
        let mut numbers = HashMap::new();
        let mut unknown = HashSet::new();
        {
            let mut cache = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            if cache.len() > ADDRESS_CACHE {
                cache.clear();
            }
            let copies = messages.iter().flat_map(|message| &message.copies);
            let jids = copies.flat_map(|copy| [copy.owner.as_str(), copy.peer.as_str()]);
            for jid in jids.chain(marks.into_iter().flat_map(Marks::keys).map(|owner| &**owner)) {
                if numbers.contains_key(jid) {
                    continue;
                }
                match cache.get(jid) {
                    Some(number) => {
                        numbers.insert(jid, *number);
                    }
                    None => {
                        unknown.insert(jid);
                    }
                }
            }
        }
        let unknown: Vec<&str> = unknown.into_iter().collect();
        for jids in unknown.chunks(ADDRESSES_PER_STATEMENT) {
            let found: HashMap<String, i64> = sink.resolve(jids).await?.into_iter().collect();
            for jid in jids {
                // The rows are looked up by the key that was just inserted; anything else is a broken server.
                numbers.insert(jid, *found.get(*jid).ok_or(sqlx::Error::RowNotFound)?);
            }
            self.addresses.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        }
        Ok(numbers)
    }

    fn rows(
        numbers: &HashMap<&str, i64>,
        messages: &[NewMessage],
        ids: &[MessageId],
        marks: Option<&Marks>,
    ) -> Rows {
        let mut rows = Rows::default();
        for (owner, ids) in marks.into_iter().flatten() {
            let mut ids = ids.clone();
            ids.sort_unstable();
            rows.delivered.push((numbers[&**owner], ids));
        }
        for (message, id) in messages.iter().zip(ids) {
            let id = id.as_i64();
            let mut owners = [None, None];
            let mut archived = 0;
            let mut stored = false;
            for copy in message.copies.iter().filter(|copy| copy.archive || copy.offline) {
                stored = true;
                let owner = numbers[copy.owner.as_str()];
                if copy.archive {
                    rows.entries.push((owner, id, numbers[copy.peer.as_str()]));
                    owners[archived] = Some(owner);
                    archived += 1;
                }
                if copy.offline {
                    rows.offline.push((owner, id));
                }
            }
            if stored {
                let [owner_a, owner_b] = owners;
                rows.messages.push(MessageRow { id, owner_a, owner_b, stanza: message.stanza.clone() });
            }
        }
        // In the order of their keys: two batches that lock the same pages then do so in the same order.
        rows.entries.sort_unstable();
        rows.offline.sort_unstable();
        rows.delivered.sort_unstable();
        rows
    }
}
