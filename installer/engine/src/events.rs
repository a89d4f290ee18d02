//! Typed events: stamped here, handed to whoever listens, and kept in the journal.

use maxim_model::event::{Event, EventKind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Listens to a run. Called from several threads.
pub trait EventSink: Send + Sync {
    /// One event.
    fn emit(&self, event: &Event);
}

/// Drops every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl EventSink for Silent {
    fn emit(&self, _event: &Event) {}
}

/// Keeps every event; for tests and for short actions whose events are shown at the end.
#[derive(Debug, Default)]
pub struct Collector(Mutex<Vec<Event>>);

impl Collector {
    /// What was emitted so far.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl EventSink for Collector {
    fn emit(&self, event: &Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
    }
}

/// How long a phase took, on one host or over all.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Timing {
    /// `connect`, `probe`, `plan`, `apply`, `verify`, or `total`.
    pub phase: String,
    /// Host; empty: all of it.
    pub host: String,
    /// Milliseconds.
    pub duration_ms: u64,
}

/// Stamps events and measures phases. Clones share the start of the run and the timings.
#[derive(Clone)]
pub struct Emitter {
    started: Instant,
    sinks: Vec<Arc<dyn EventSink>>,
    timings: Arc<Mutex<Vec<Timing>>>,
}

impl Emitter {
    /// An emitter whose run begins now.
    pub fn new(sinks: Vec<Arc<dyn EventSink>>) -> Self {
        Self { started: Instant::now(), sinks, timings: Arc::default() }
    }

    /// Tells everybody.
    pub fn emit(&self, kind: EventKind) {
        let event = Event { time: now_rfc3339(), elapsed_ms: millis(self.started), kind };
        for sink in &self.sinks {
            sink.emit(&event);
        }
    }

    /// A sentence about a host (or the cluster, when empty).
    pub fn note(&self, host: &str, step: &str, message: impl Into<String>) {
        self.emit(EventKind::Note { host: host.into(), step: step.into(), message: message.into() });
    }

    /// A warning with what to do.
    pub fn warn(&self, host: &str, step: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.emit(EventKind::Warning {
            host: host.into(),
            step: step.into(),
            message: message.into(),
            hint: hint.into(),
        });
    }

    /// Runs a phase between its two events and keeps its time.
    pub fn phase<T>(&self, step: &str, work: impl FnOnce() -> T) -> T {
        self.emit(EventKind::PhaseStarted { step: step.into() });
        let begun = Instant::now();
        let result = work();
        let duration_ms = millis(begun);
        self.record(step, "", duration_ms);
        self.emit(EventKind::PhaseFinished { step: step.into(), duration_ms });
        result
    }

    /// Keeps the time of a phase on one host.
    pub fn record(&self, phase: &str, host: &str, duration_ms: u64) {
        self.timings.lock().unwrap_or_else(PoisonError::into_inner).push(Timing {
            phase: phase.into(),
            host: host.into(),
            duration_ms,
        });
    }

    /// All timings so far, and the total.
    pub fn timings(&self) -> Vec<Timing> {
        let mut timings = self.timings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        timings.push(Timing {
            phase: "total".into(),
            host: String::new(),
            duration_ms: millis(self.started),
        });
        timings
    }
}

/// Milliseconds since an instant.
pub(crate) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The time now, RFC 3339 with milliseconds, UTC.
pub(crate) fn now_rfc3339() -> String {
    let now = OffsetDateTime::now_utc();
    now.replace_millisecond(now.millisecond())
        .unwrap_or(now)
        .format(&Rfc3339)
        .unwrap_or_else(|_| now.unix_timestamp().to_string())
}
