//! Measures the cluster again and again and keeps the newest answer.
//!
//! Given: a source and a pace. Steps: measure on a blocking thread; wait for the interval (short while somebody
//! looks, long otherwise); again. A measurement that does not end by the deadline is told to stop and counted as
//! failed; the next one waits until its thread is gone, so that a hanging host never piles up threads. A failure
//! keeps the last figures and says since when they are old. It deliberately changes nothing on any host.

use super::source::{MeasureError, StatusSource};
use crate::clock::Clock;
use maxim_engine::CancelFlag;
use maxim_model::status::ClusterStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// How often is measured.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Interval while somebody looks.
    pub looked_at: Duration,
    /// Interval otherwise.
    pub idle: Duration,
    /// How long after the last look somebody still counts as looking.
    pub attention: Duration,
    /// Longest time of one measurement.
    pub deadline: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            looked_at: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            attention: Duration::from_secs(20),
            deadline: Duration::from_secs(20),
        }
    }
}

/// What is known now.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The last measurement that succeeded.
    pub status: Option<Arc<ClusterStatus>>,
    /// When it ended, Unix seconds; 0 when there is none.
    pub measured_at: i64,
    /// Why the newest attempt failed; none when it succeeded.
    pub failure: Option<Failure>,
}

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When, Unix seconds.
    pub at: i64,
    /// Why, and what to do.
    pub error: MeasureError,
}

/// The newest snapshot, and the wish to have it fresh. Cheap to clone.
#[derive(Clone)]
pub struct Watcher {
    shared: Arc<Shared>,
}

struct Shared {
    snapshot: Mutex<Snapshot>,
    looked: Mutex<Option<Instant>>,
    wake: Notify,
    /// Counts measurements that ended, so that tests and shutdown can wait for one.
    rounds: watch::Sender<u64>,
}

impl Watcher {
    /// Begins to measure. It ends with the returned task's abort, or when `stop` becomes true.
    pub fn start(
        source: Arc<dyn StatusSource>,
        clock: Arc<dyn Clock>,
        pace: Pace,
        stop: watch::Receiver<bool>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let watcher = Self {
            shared: Arc::new(Shared {
                snapshot: Mutex::default(),
                looked: Mutex::default(),
                wake: Notify::new(),
                rounds: watch::Sender::new(0),
            }),
        };
        let task = tokio::spawn(watcher.clone().run(source, clock, pace, stop));
        (watcher, task)
    }

    /// What is known now. A look makes the next measurement come soon.
    pub fn look(&self) -> Snapshot {
        *lock(&self.shared.looked) = Some(Instant::now());
        self.shared.wake.notify_one();
        lock(&self.shared.snapshot).clone()
    }

    /// The cluster's name, once it is known. No look.
    pub fn cluster(&self) -> String {
        lock(&self.shared.snapshot).status.as_ref().map(|status| status.cluster.clone()).unwrap_or_default()
    }

    /// Resolves when a measurement has ended that had not when this was called.
    pub async fn next_round(&self) {
        let mut rounds = self.shared.rounds.subscribe();
        let seen = *rounds.borrow_and_update();
        // The sender lives as long as `self`, so this cannot fail; if it did, not waiting is right.
        let _ = rounds.wait_for(|round| *round > seen).await;
    }

    async fn run(
        self,
        source: Arc<dyn StatusSource>,
        clock: Arc<dyn Clock>,
        pace: Pace,
        mut stop: watch::Receiver<bool>,
    ) {
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::pin!(stopped);
        loop {
            let begun = Instant::now();
            let cancel = CancelFlag::new();
            tokio::select! {
                () = self.round(&source, clock.as_ref(), pace, &cancel) => {}
                () = &mut stopped => {
                    cancel.cancel();
                    return;
                }
            }
            loop {
                let due = begun + self.interval(pace);
                if Instant::now() >= due {
                    break;
                }
                tokio::select! {
                    () = tokio::time::sleep_until(due) => break,
                    // Somebody looks: the interval may be shorter now.
                    () = self.shared.wake.notified() => {}
                    () = &mut stopped => return,
                }
            }
        }
    }

    fn interval(&self, pace: Pace) -> Duration {
        let looked = *lock(&self.shared.looked);
        if looked.is_some_and(|at| at.elapsed() < pace.attention) { pace.looked_at } else { pace.idle }
    }

    async fn round(
        &self,
        source: &Arc<dyn StatusSource>,
        clock: &dyn Clock,
        pace: Pace,
        cancel: &CancelFlag,
    ) {
        let (source, flag) = (Arc::clone(source), cancel.clone());
        let mut work = tokio::task::spawn_blocking(move || source.measure(&flag));
        match tokio::time::timeout(pace.deadline, &mut work).await {
            Ok(Ok(Ok(status))) => {
                *lock(&self.shared.snapshot) =
                    Snapshot { status: Some(Arc::new(status)), measured_at: clock.now(), failure: None };
            }
            Ok(Ok(Err(error))) => self.failed(clock, error),
            Ok(Err(panic)) => self.failed(clock, MeasureError::ended_early(&panic)),
            Err(_) => {
                self.failed(clock, MeasureError::too_slow(pace.deadline));
                self.count();
                cancel.cancel();
                // Whatever comes this late is not used; only its thread must be gone before the next one starts.
                let _ = work.await;
                return;
            }
        }
        self.count();
    }

    fn failed(&self, clock: &dyn Clock, error: MeasureError) {
        tracing::warn!(cause = %error, "the cluster could not be measured");
        lock(&self.shared.snapshot).failure = Some(Failure { at: clock.now(), error });
    }

    fn count(&self) {
        self.shared.rounds.send_modify(|round| *round += 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Pace, Watcher};
    use crate::clock::ManualClock;
    use crate::status::source::{MeasureError, StatusSource};
    use maxim_engine::CancelFlag;
    use maxim_model::status::{ClusterStatus, Endpoints};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, mpsc};
    use std::time::Duration;
    use tokio::sync::watch;

    const LONG: Duration = Duration::from_mins(1);
    const SOON: Duration = Duration::from_secs(10);

    fn status() -> ClusterStatus {
        ClusterStatus {
            cluster: "acme".into(),
            domain: "im.acme.example".into(),
            profile: "standard".into(),
            hosts: Vec::new(),
            components: Vec::new(),
            endpoints: Endpoints::default(),
            upgrade: None,
            backup: maxim_model::backup::BackupRecord::default(),
            measured_at: String::new(),
        }
    }

    fn pace() -> Pace {
        Pace { looked_at: Duration::from_millis(1), idle: LONG, attention: LONG, deadline: LONG }
    }

    /// Succeeds on the first measurement, fails afterwards.
    struct OnceWell(AtomicUsize);

    impl StatusSource for OnceWell {
        fn measure(&self, _cancel: &CancelFlag) -> Result<ClusterStatus, MeasureError> {
            if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
                Ok(status())
            } else {
                Err(MeasureError { cause: "topology lost".into(), hint: String::new() })
            }
        }
    }

    #[tokio::test]
    async fn a_failure_keeps_the_last_figures_and_a_look_hastens_the_next_round() {
        let clock = Arc::new(ManualClock::at(1000));
        let (_stop, stopped) = watch::channel(false);
        let source = Arc::new(OnceWell(AtomicUsize::new(0)));
        let (watcher, _task) = Watcher::start(source.clone(), clock.clone(), pace(), stopped);
        watcher.next_round().await;
        clock.advance(7);
        // Nobody looked so far, so that without this look the next round were a minute away.
        let first = watcher.look();
        assert_eq!((first.measured_at, first.failure), (1000, None));
        tokio::time::timeout(SOON, watcher.next_round()).await.unwrap();
        let second = watcher.look();
        assert!(second.status.is_some());
        assert_eq!(second.measured_at, 1000);
        let failure = second.failure.unwrap();
        assert_eq!((failure.at, failure.error.cause.as_str()), (1007, "topology lost"));
    }

    /// Hangs until it is cancelled, and says how many ran at once.
    struct Hanging {
        running: AtomicUsize,
        most: AtomicUsize,
    }

    impl StatusSource for Hanging {
        fn measure(&self, cancel: &CancelFlag) -> Result<ClusterStatus, MeasureError> {
            self.most.fetch_max(self.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            while !cancel.is_cancelled() {
                std::thread::yield_now();
            }
            self.running.fetch_sub(1, Ordering::SeqCst);
            Ok(status())
        }
    }

    #[tokio::test]
    async fn a_hanging_measurement_is_given_up_and_never_runs_twice() {
        let source = Arc::new(Hanging { running: AtomicUsize::new(0), most: AtomicUsize::new(0) });
        let pace = Pace {
            looked_at: Duration::from_millis(1),
            idle: Duration::from_millis(1),
            attention: LONG,
            deadline: Duration::from_millis(20),
        };
        let (stop, stopped) = watch::channel(false);
        let (watcher, task) = Watcher::start(source.clone(), Arc::new(ManualClock::at(5)), pace, stopped);
        for _ in 0..3 {
            tokio::time::timeout(SOON, watcher.next_round()).await.unwrap();
        }
        let snapshot = watcher.look();
        assert!(snapshot.status.is_none(), "an answer after the deadline is not used");
        assert!(snapshot.failure.unwrap().error.cause.contains("20 ms"));
        assert_eq!(source.most.load(Ordering::SeqCst), 1);
        stop.send(true).unwrap();
        tokio::time::timeout(SOON, task).await.unwrap().unwrap();
    }

    /// Waits for a permission that never comes, but for the cancellation.
    struct Waiting(Mutex<mpsc::Sender<()>>);

    impl StatusSource for Waiting {
        fn measure(&self, cancel: &CancelFlag) -> Result<ClusterStatus, MeasureError> {
            self.0.lock().unwrap().send(()).unwrap();
            while !cancel.is_cancelled() {
                std::thread::yield_now();
            }
            Ok(status())
        }
    }

    #[tokio::test]
    async fn stopping_cancels_the_measurement_in_hand() {
        let (sender, begun) = mpsc::channel();
        let (stop, stopped) = watch::channel(false);
        let (_watcher, task) = Watcher::start(
            Arc::new(Waiting(Mutex::new(sender))),
            Arc::new(ManualClock::at(5)),
            pace(),
            stopped,
        );
        tokio::task::spawn_blocking(move || begun.recv_timeout(SOON)).await.unwrap().unwrap();
        stop.send(true).unwrap();
        tokio::time::timeout(SOON, task).await.unwrap().unwrap();
    }
}
