//! Threads that read, so that a slow query holds up neither the reactor nor the writer.

use super::{NAME, failed};
use crate::StoreError;
use rusqlite::Connection;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

/// How long a read may take, waiting included.
const DEADLINE: Duration = Duration::from_secs(30);
/// How many reads may wait: beyond that callers wait outside of the queue.
const QUEUE: usize = 1024;

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// The reading threads; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Readers {
    jobs: Sender<Job>,
    room: Arc<Semaphore>,
}

impl Readers {
    /// Starts `count` threads with a connection each.
    pub(super) fn start(
        count: usize,
        connect: impl Fn() -> Result<Connection, StoreError>,
    ) -> Result<Self, StoreError> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..count {
            let (connection, queue) = (connect()?, Arc::clone(&queue));
            thread::Builder::new()
                .name(format!("store-read-{number}"))
                .stack_size(512 * 1024)
                .spawn(move || serve(&connection, &queue))
                .map_err(failed("starting a reader"))?;
        }
        Ok(Self { jobs, room: Arc::new(Semaphore::new(QUEUE)) })
    }

    /// Runs `job` on one of them.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        step: &'static str,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let read = async {
            let place = Arc::clone(&self.room).acquire_owned().await.map_err(|_| StoreError::Closed)?;
            let (answer, answered) = oneshot::channel();
            let job: Job = Box::new(move |connection| {
                let _place = place;
                if !answer.is_closed() {
                    // Nobody waits any more when the caller met its deadline.
                    let _ = answer.send(job(connection));
                }
            });
            self.jobs.send(job).map_err(|_| StoreError::Closed)?;
            answered.await.map_err(|_| StoreError::Closed)?.map_err(failed(step))
        };
        timeout(DEADLINE, read).await.map_err(|_| StoreError::Timeout {
            backend: NAME,
            step,
            seconds: DEADLINE.as_secs(),
        })?
    }
}

fn serve(connection: &Connection, queue: &Mutex<Receiver<Job>>) {
    loop {
        // One idle thread waits in recv and the others for the lock: whoever gets a job lets go at once.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(connection),
            Err(_) => return,
        }
    }
}
