//! A moment by which something must be done, carried through every wait of a task.

use crate::error::{Failure, Result};
use std::thread;
use std::time::{Duration, Instant};

/// See the module's text.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    end: Instant,
    seconds: u64,
}

impl Deadline {
    /// So many seconds from now.
    pub fn after(seconds: u64) -> Self {
        // A day is longer than any task; the bound keeps the addition from overflowing.
        let seconds = seconds.clamp(1, 86_400);
        Self { end: Instant::now() + Duration::from_secs(seconds), seconds }
    }

    /// What is left, at least a millisecond (system calls read zero as "for ever").
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        Instant::now() >= self.end
    }

    /// The error that says so.
    pub fn missed(&self, what: impl Into<String>, last: impl Into<String>) -> Failure {
        Failure::Deadline { what: what.into(), seconds: self.seconds, last: last.into() }
    }

    /// Looks again and again until `look` answers `Ok`; its `Err` text is what was seen last.
    pub fn poll<T>(&self, what: &str, mut look: impl FnMut() -> std::result::Result<T, String>) -> Result<T> {
        let mut pause = Duration::from_millis(5);
        loop {
            match look() {
                Ok(value) => return Ok(value),
                Err(last) if self.passed() => return Err(self.missed(what, last)),
                Err(_) => {}
            }
            thread::sleep(pause.min(self.left()));
            pause = (pause * 3 / 2).min(Duration::from_millis(100));
        }
    }
}
