//! Frames that wait between two threads, bounded by their bytes: a frame of a dump may be half a megabyte or, with one
//! long row, many. When either side goes, by whatever way, the other hears of it and never waits.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A frame, and the bytes of the dump up to its end.
pub type Frame = (Vec<u8>, u64);

#[derive(Default)]
struct State {
    waiting: VecDeque<Frame>,
    /// Bytes of them.
    bytes: usize,
    /// One side has gone.
    over: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    most: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked held it for no more than a move.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.state().over = true;
        self.changed.notify_all();
    }
}

/// The side that brings frames.
pub struct Giver(Arc<Shared>);

/// The side that takes them.
pub struct Taker(Arc<Shared>);

/// A queue of `most` bytes, or of one frame that is larger.
pub fn queue(most: usize) -> (Giver, Taker) {
    let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), most });
    (Giver(Arc::clone(&shared)), Taker(shared))
}

impl Giver {
    /// Brings a frame as soon as there is room; false when nobody takes it any more.
    pub fn give(&self, frame: Frame) -> bool {
        let mut state = self.0.state();
        while !state.over && !state.waiting.is_empty() && state.bytes + frame.0.len() > self.0.most {
            state = self.0.wait(state);
        }
        if state.over {
            return false;
        }
        state.bytes += frame.0.len();
        state.waiting.push_back(frame);
        self.0.changed.notify_all();
        true
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Taker {
    /// The next frame; none when nobody brings any more and all are taken.
    pub fn take(&self) -> Option<Frame> {
        let mut state = self.0.state();
        loop {
            if let Some(frame) = state.waiting.pop_front() {
                state.bytes -= frame.0.len();
                self.0.changed.notify_all();
                return Some(frame);
            }
            if state.over {
                return None;
            }
            state = self.0.wait(state);
        }
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.0.end();
        // What waits is of no use: its memory goes at once, and not with the other side.
        let mut state = self.0.state();
        state.waiting.clear();
        state.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::queue;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    #[test]
    fn what_waits_is_bounded_by_bytes_and_comes_in_order() {
        const MOST: usize = 100;
        let (giver, taker) = queue(MOST);
        let given = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let given = &given;
            scope.spawn(move || {
                for number in 0..1000_u64 {
                    // Of one to forty bytes.
                    let frame = vec![0; 1 + (number as usize * 7) % 40];
                    let size = frame.len();
                    assert!(giver.give((frame, number)));
                    given.fetch_add(size, SeqCst);
                }
            });
            let (mut taken, mut number) = (0, 0);
            while let Some((frame, found)) = taker.take() {
                taken += frame.len();
                // What was taken is counted already, and what was given may not be yet.
                assert!(given.load(SeqCst) <= taken + MOST, "no more than that waits");
                assert_eq!(found, number);
                number += 1;
                if number % 100 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            assert_eq!(number, 1000);
        });
    }

    #[test]
    fn a_frame_that_is_larger_goes_alone() {
        let (giver, taker) = queue(10);
        assert!(giver.give((vec![0; 500], 1)));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                assert!(giver.give((vec![0; 1], 2)));
            });
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(taker.0.state().waiting.len(), 1, "there is no room beside it");
            assert_eq!(taker.take().map(|(_, read)| read), Some(1));
            assert_eq!(taker.take().map(|(_, read)| read), Some(2));
            assert_eq!(taker.take(), None);
        });
    }

    #[test]
    fn nobody_waits_for_who_is_gone() {
        let (giver, taker) = queue(1);
        assert!(giver.give((vec![0; 9], 1)));
        std::thread::scope(|scope| {
            let waits = scope.spawn(move || giver.give((vec![0; 9], 2)));
            std::thread::sleep(Duration::from_millis(20));
            drop(taker);
            assert!(!waits.join().unwrap());
        });
        let (giver, taker) = queue(1);
        std::thread::scope(|scope| {
            let waits = scope.spawn(move || taker.take());
            std::thread::sleep(Duration::from_millis(20));
            let panicked = scope.spawn(move || {
                let _giver = giver;
                panic!("a thread of the pump");
            });
            assert!(panicked.join().is_err());
            assert_eq!(waits.join().unwrap(), None);
        });
    }
}
