//! Working on all hosts at the same time: one thread for each, a bound on how many work at once, and the barrier
//! between the stages of an apply.

use maxim_model::names::Stage;
use maxim_model::task::Task;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// At most so many threads work at once; waiting for a barrier is no work.
pub(crate) struct Permits {
    free: Mutex<usize>,
    changed: Condvar,
}

impl Permits {
    pub(crate) fn new(count: usize) -> Self {
        Self { free: Mutex::new(count.max(1)), changed: Condvar::new() }
    }

    /// Runs `work` when there is room.
    pub(crate) fn with<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.changed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        drop(free);
        let result = work();
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_one();
        result
    }
}

/// Runs `work` on every item, at most `concurrency` at once; results in order of the items.
pub(crate) fn for_each<I: Send, T: Send>(
    items: impl IntoIterator<Item = I>,
    concurrency: usize,
    work: impl Fn(I) -> T + Sync,
) -> Vec<T> {
    let permits = Permits::new(concurrency);
    let (permits, work) = (&permits, &work);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            items.into_iter().map(|item| scope.spawn(move || permits.with(|| work(item)))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Lets a host into a stage when every host has finished the stages before it that start something.
pub(crate) struct Barrier {
    state: Mutex<BarrierState>,
    changed: Condvar,
}

struct BarrierState {
    /// Hosts that have yet to finish a stage, by its place in [`Stage::ALL`].
    pending: [usize; Stage::ALL.len()],
    /// The first host that failed, and its stage.
    failed: Option<String>,
}

/// Why a host was not let into a stage.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// This host failed before.
    Failed(String),
    /// The run was interrupted.
    Cancelled,
}

impl Barrier {
    /// A barrier over the tasks of all hosts. A host without a task in a stage has passed it already.
    pub(crate) fn new<'a>(hosts: impl IntoIterator<Item = &'a [Task]>) -> Self {
        let mut pending = [0; Stage::ALL.len()];
        for tasks in hosts {
            for (place, stage) in Stage::ALL.iter().enumerate() {
                if tasks.iter().any(|task| task.stage == *stage) {
                    pending[place] += 1;
                }
            }
        }
        Self { state: Mutex::new(BarrierState { pending, failed: None }), changed: Condvar::new() }
    }

    /// Waits until the stage may be entered. There is no deadline here: every host that is waited for works under
    /// the deadlines of its tasks, and says when it has finished or failed.
    pub(crate) fn enter(&self, stage: Stage, cancelled: impl Fn() -> bool) -> Result<(), Stopped> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(host) = &state.failed {
                return Err(Stopped::Failed(host.clone()));
            }
            if cancelled() {
                return Err(Stopped::Cancelled);
            }
            let before = Stage::ALL
                .iter()
                .zip(state.pending)
                .any(|(other, pending)| *other > Stage::Prepare && *other < stage && pending > 0);
            if !before {
                return Ok(());
            }
            let (next, _) = self
                .changed
                .wait_timeout(state, Duration::from_millis(50))
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
    }

    /// A host has finished a stage.
    pub(crate) fn finished(&self, stage: Stage) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = Stage::ALL.iter().position(|other| *other == stage) {
            state.pending[place] = state.pending[place].saturating_sub(1);
        }
        self.changed.notify_all();
    }

    /// A host has failed: nobody enters another stage.
    pub(crate) fn failed(&self, host: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failed.get_or_insert_with(|| host.to_owned());
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::{Barrier, Stopped, for_each};
    use maxim_model::names::Stage;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn no_more_than_allowed_work_at_once_and_results_keep_their_order() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let results = for_each(0..20, 3, |number| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            now.fetch_sub(1, Ordering::SeqCst);
            number * 2
        });
        assert_eq!(results, (0..20).map(|number| number * 2).collect::<Vec<_>>());
        assert!(most.load(Ordering::SeqCst) <= 3);
    }

    #[test]
    fn core_waits_for_the_stores_of_others_and_stops_when_one_fails() {
        let task = |stage| crate::sample::task("x/y", stage);
        let (database, app) = (vec![task(Stage::Prepare), task(Stage::Store)], vec![task(Stage::Core)]);
        let barrier = Barrier::new([database.as_slice(), app.as_slice()]);
        assert_eq!(barrier.enter(Stage::Prepare, || false), Ok(()));
        assert_eq!(barrier.enter(Stage::Store, || false), Ok(()), "preparing holds up nobody");
        assert_eq!(barrier.enter(Stage::Core, || true), Err(Stopped::Cancelled));
        barrier.finished(Stage::Store);
        assert_eq!(barrier.enter(Stage::Core, || false), Ok(()));
        barrier.failed("db1");
        barrier.failed("later");
        assert_eq!(barrier.enter(Stage::Console, || false), Err(Stopped::Failed("db1".into())));
    }
}
