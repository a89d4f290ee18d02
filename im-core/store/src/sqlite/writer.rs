//! The thread that writes. It takes what is queued, writes all of it in one transaction, and answers everybody
//! when the commit is on disk: under load hundreds of messages share one sync, alone a message waits for nothing.
//!
//! An append that fails spoils its batch, which is rolled back and refused whole; there is no error that
//! concerns one message alone, because messages are checked before they are queued. Any other write is under a
//! savepoint of its own, and fails alone.

use super::accounts::remove_unless_kept;
use super::{NAME, failed};
use crate::confirm::{Confirmations, DELAY, Marks};
use crate::domain::{Ack, NewMessage};
use crate::id::{IdGenerator, now_ms};
use crate::{MessageId, StoreError, limits};
use rusqlite::{Connection, params};
use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// How much may wait before callers wait.
const QUEUE: usize = 8192;
/// Most writes in one transaction: bounds how long the first of them waits for the last.
const BATCH: usize = 2048;
/// Above this many addresses the cache starts anew.
const ADDRESS_CACHE: usize = 200_000;
/// How long a write may take, waiting included.
const DEADLINE: Duration = Duration::from_mins(1);

/// Told, after the transaction, how it ended.
type Finish = Box<dyn FnOnce(&Result<(), StoreError>) + Send>;
/// Given no connection when the transaction has failed already.
type Job = Box<dyn FnOnce(Option<&Connection>) -> Finish + Send>;

enum Task {
    Append {
        message: NewMessage,
        answer: oneshot::Sender<Result<MessageId, StoreError>>,
    },
    Run(Job),
    /// Only so that confirmations are taken.
    Wake,
    Close(oneshot::Sender<()>),
}

/// The writing thread's queue; the thread ends when this is dropped and what was queued is committed.
#[derive(Debug)]
pub(super) struct Writer {
    tasks: mpsc::Sender<Task>,
    confirmations: Arc<Confirmations>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(connection: Connection, generator: IdGenerator) -> Result<Self, StoreError> {
        let (tasks, queue) = mpsc::channel(QUEUE);
        let confirmations = Arc::<Confirmations>::default();
        let marks = Arc::clone(&confirmations);
        let state = State { connection, generator, addresses: HashMap::new(), confirmations: marks };
        thread::Builder::new()
            .name("store-write".into())
            .spawn(move || state.serve(queue))
            .map_err(failed("starting the writer"))?;
        Ok(Self { tasks, confirmations })
    }

    /// Queues a message.
    pub(super) async fn append(&self, message: NewMessage) -> Result<Ack, StoreError> {
        limits::message(&message)?;
        let (answer, answered) = oneshot::channel();
        self.tasks.send(Task::Append { message, answer }).await.map_err(|_| StoreError::Closed)?;
        Ok(Ack(answered))
    }

    /// Runs `job` within a transaction and waits until that is on disk.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        step: &'static str,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let outcome = match connection {
                Some(connection) => within_savepoint(connection, job).map_err(failed(step)),
                None => Err(StoreError::Closed),
            };
            Box::new(move |committed: &Result<(), StoreError>| {
                // A caller that met its deadline waits no longer; what it asked for is done or not all the same.
                let _ = answer.send(committed.clone().and(outcome));
            })
        });
        let write = async {
            self.tasks.send(Task::Run(job)).await.map_err(|_| StoreError::Closed)?;
            answered.await.map_err(|_| StoreError::Closed)?
        };
        timeout(DEADLINE, write).await.map_err(|_| StoreError::Timeout {
            backend: NAME,
            step,
            seconds: DEADLINE.as_secs(),
        })?
    }

    /// What was confirmed and is not yet on disk.
    pub(super) fn confirmations(&self) -> &Confirmations {
        &self.confirmations
    }

    /// Queues confirmations; they are taken with the next transaction, or with one of their own in a moment.
    pub(super) fn confirm(&self, owner: &str, ids: &[MessageId]) {
        if !self.confirmations.add(owner, ids) {
            return;
        }
        let (tasks, confirmations) = (self.tasks.clone(), Arc::clone(&self.confirmations));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(DELAY).await;
                // A closed queue has taken everything with it.
                if confirmations.is_done() || tasks.send(Task::Wake).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Waits until what was confirmed is on disk: all of it, or that of `owner`.
    pub(super) async fn settle(&self, owner: Option<&str>) -> Result<(), StoreError> {
        let wake = async || {
            let _ = self.tasks.send(Task::Wake).await;
        };
        let step = "noting deliveries";
        timeout(DEADLINE, self.confirmations.settle(owner, wake)).await.map_err(|_| StoreError::Timeout {
            backend: NAME,
            step,
            seconds: DEADLINE.as_secs(),
        })
    }

    /// Commits what is queued and ends the thread.
    pub(super) async fn close(&self) {
        let (answer, answered) = oneshot::channel();
        if self.tasks.send(Task::Close(answer)).await.is_ok() {
            // The thread has ended when the answer is dropped unsent, which is as good.
            let _ = answered.await;
        }
    }
}

fn within_savepoint<T>(
    connection: &Connection,
    job: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.prepare_cached("SAVEPOINT one")?.execute([])?;
    let outcome = job(connection);
    if outcome.is_err() {
        connection.prepare_cached("ROLLBACK TO one")?.execute([])?;
    }
    connection.prepare_cached("RELEASE one")?.execute([])?;
    outcome
}

struct State {
    connection: Connection,
    generator: IdGenerator,
    addresses: HashMap<String, i64>,
    confirmations: Arc<Confirmations>,
}

impl State {
    fn serve(mut self, mut queue: mpsc::Receiver<Task>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
            if let Some(closed) = self.write(&mut batch) {
                queue.close();
                while let Ok(task) = queue.try_recv() {
                    batch.push(task);
                }
                // Only further requests to close can be among the rest, and one answer ends them all.
                let _ = self.write(&mut batch);
                // What a full batch of confirmations left; a file that takes nothing any more ends it.
                while !self.confirmations.is_done() && !self.confirmations.has_failed() {
                    let _ = self.write(&mut batch);
                }
                // Everything into the file itself, so that whoever copies a closed store needs one file. Should a
                // reader be in the way, the log beside it is as good.
                if let Err(error) =
                    self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                {
                    tracing::debug!(%error, "the log was not written back");
                }
                drop(self);
                let _ = closed.send(());
                return;
            }
        }
    }

    /// Writes a batch in one transaction and answers it.
    fn write(&mut self, batch: &mut Vec<Task>) -> Option<oneshot::Sender<()>> {
        if self.addresses.len() > ADDRESS_CACHE {
            self.addresses.clear();
        }
        let alone = batch.iter().all(|task| matches!(task, Task::Wake));
        let marks = self.confirmations.take(alone);
        if marks.is_none() && alone {
            batch.clear();
            return None;
        }
        let mut acks = Vec::with_capacity(batch.len());
        let mut finishes: Vec<Finish> = Vec::new();
        let mut closed = None;
        let mut outcome = self.execute("BEGIN IMMEDIATE", "beginning a transaction");
        for task in batch.drain(..) {
            match task {
                Task::Append { message, answer } => {
                    let id = self.generator.next(now_ms());
                    if outcome.is_ok() {
                        outcome = self.append(id, &message).map_err(failed("appending to the archive"));
                    }
                    acks.push((id, answer));
                }
                Task::Run(job) => {
                    finishes.push(job(outcome.is_ok().then_some(&self.connection)));
                    if outcome.is_ok() && self.connection.is_autocommit() {
                        // A full disk, for one, makes SQLite end the whole transaction and not the savepoint.
                        outcome =
                            Err(StoreError::database(NAME, "writing", "the transaction was rolled back"));
                    }
                }
                Task::Wake => {}
                Task::Close(answer) => closed = Some(answer),
            }
        }
        if let Some(marks) = &marks
            && outcome.is_ok()
        {
            outcome = self.remove_marks(marks).map_err(failed("noting deliveries"));
        }
        let outcome = outcome.and_then(|()| self.execute("COMMIT", "committing"));
        if let Err(error) = &outcome {
            self.roll_back(error);
        }
        if let Some(marks) = &marks {
            self.confirmations.finish(marks, outcome.is_ok());
        }
        for (id, answer) in acks {
            // A session that ended no longer waits for its acknowledgement.
            let _ = answer.send(outcome.clone().map(|()| id));
        }
        for finish in finishes {
            finish(&outcome);
        }
        closed
    }

    fn execute(&self, sql: &'static str, step: &'static str) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
            .map(|_| ())
            .map_err(failed(step))
    }

    fn roll_back(&mut self, error: &StoreError) {
        tracing::error!(
            error = error as &(dyn std::error::Error + 'static),
            "a batch of writes was refused and nothing of it is stored"
        );
        // Addresses that the batch entered are gone with it.
        self.addresses.clear();
        // SQLite rolls back by itself after some errors, so that there may be nothing left to do.
        if !self.connection.is_autocommit()
            && let Err(error) = self.execute("ROLLBACK", "rolling back")
        {
            tracing::error!(error = &error as &(dyn std::error::Error + 'static), "cannot roll back");
        }
    }

    fn append(&mut self, id: MessageId, message: &NewMessage) -> rusqlite::Result<()> {
        let mut archives = [None, None];
        let mut archived = 0;
        let mut stored = false;
        for copy in &message.copies {
            if !copy.archive && !copy.offline {
                continue;
            }
            stored = true;
            let owner = self.address(&copy.owner)?;
            if copy.archive {
                let peer = self.address(&copy.peer)?;
                self.connection
                    .prepare_cached(
                        "INSERT INTO archive_entry (owner_id, message_id, peer_id) VALUES (?1, ?2, ?3)",
                    )?
                    .execute([owner, id.as_i64(), peer])?;
                archives[archived] = Some(owner);
                archived += 1;
            }
            if copy.offline {
                self.connection
                    .prepare_cached("INSERT INTO offline_message (owner_id, message_id) VALUES (?1, ?2)")?
                    .execute([owner, id.as_i64()])?;
            }
        }
        if stored {
            self.connection
                .prepare_cached("INSERT INTO message (id, owner_a, owner_b, stanza) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![id.as_i64(), archives[0], archives[1], &message.stanza[..]])?;
        }
        Ok(())
    }

    /// Messages that reached their owners no longer await delivery.
    fn remove_marks(&mut self, marks: &Marks) -> rusqlite::Result<()> {
        for (owner, ids) in marks {
            let owner = self.address(owner)?;
            for id in ids {
                let removed = self
                    .connection
                    .prepare_cached("DELETE FROM offline_message WHERE owner_id = ?1 AND message_id = ?2")?
                    .execute([owner, *id])?;
                if removed > 0 {
                    remove_unless_kept(&self.connection, *id)?;
                }
            }
        }
        Ok(())
    }

    /// The number of an address, entering it when it is new.
    fn address(&mut self, jid: &str) -> rusqlite::Result<i64> {
        if let Some(number) = self.addresses.get(jid) {
            return Ok(*number);
        }
        self.connection
            .prepare_cached("INSERT INTO address (jid) VALUES (?1) ON CONFLICT (jid) DO NOTHING")?
            .execute([jid])?;
        let number = self
            .connection
            .prepare_cached("SELECT id FROM address WHERE jid = ?1")?
            .query_row([jid], |row| row.get(0))?;
        self.addresses.insert(jid.to_owned(), number);
        Ok(number)
    }
}
