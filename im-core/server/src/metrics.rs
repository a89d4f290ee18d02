//! Counters, and how Prometheus reads them (text format 0.0.4).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Changes it by `n`.
    pub fn add(&self, n: i64) -> i64 {
        self.0.fetch_add(n, Ordering::Relaxed) + n
    }

    /// The value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

/// Upper bounds in microseconds.
const BOUNDS: [u64; 11] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_000_000, 10_000_000];

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: std::time::Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(index) = BOUNDS.iter().position(|b| micros <= *b) {
            self.buckets[index].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut total = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            total += bucket.load(Ordering::Relaxed);
            let _ = writeln!(out, "{name}_bucket{{le=\"{}\"}} {total}", *bound as f64 / 1e6);
        }
        let count = self.count.load(Ordering::Relaxed).max(total);
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum {}", self.micros.load(Ordering::Relaxed) as f64 / 1e6);
        let _ = writeln!(out, "{name}_count {count}");
    }
}

/// All counters. Canaries are counted nowhere.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Open connections, signed in or not.
    pub connections: Gauge,
    /// Connections accepted.
    pub connections_total: Counter,
    /// Bound sessions.
    pub sessions: Gauge,
    /// Successful sign-ins.
    pub sign_ins: Counter,
    /// Failed sign-ins.
    pub sign_in_failures: Counter,
    /// Messages from clients.
    pub messages_received: Counter,
    /// Messages to clients.
    pub messages_delivered: Counter,
    /// Messages stored.
    pub messages_stored: Counter,
    /// Messages stored for somebody who was not there.
    pub messages_offline: Counter,
    /// Presence stanzas from clients.
    pub presences_received: Counter,
    /// Iq stanzas from clients.
    pub iqs_received: Counter,
    /// Sessions resumed.
    pub resumptions: Counter,
    /// Streams closed for broken XML or a limit.
    pub stream_errors: Counter,
    /// Failed operations of the store or live state.
    pub store_errors: Counter,
    /// From handing a message to the store to its commit.
    pub commit_time: Histogram,
}

impl Metrics {
    /// Everything as Prometheus reads it. `more` are further gauges as `(name, help, value)`.
    pub fn to_text(&self, more: &[(&str, &str, f64)]) -> String {
        let mut out = String::with_capacity(4096);
        let counters: [(&str, &str, &Counter); 12] = [
            ("maxim_im_connections_accepted_total", "Connections accepted.", &self.connections_total),
            ("maxim_im_sign_ins_total", "Successful sign-ins.", &self.sign_ins),
            ("maxim_im_sign_in_failures_total", "Failed sign-ins.", &self.sign_in_failures),
            ("maxim_im_messages_received_total", "Messages from clients.", &self.messages_received),
            ("maxim_im_messages_delivered_total", "Messages to clients.", &self.messages_delivered),
            ("maxim_im_messages_stored_total", "Messages committed to the store.", &self.messages_stored),
            (
                "maxim_im_messages_offline_total",
                "Messages stored for later delivery.",
                &self.messages_offline,
            ),
            ("maxim_im_presences_received_total", "Presence stanzas from clients.", &self.presences_received),
            ("maxim_im_iqs_received_total", "Iq stanzas from clients.", &self.iqs_received),
            ("maxim_im_resumptions_total", "Sessions resumed.", &self.resumptions),
            (
                "maxim_im_stream_errors_total",
                "Streams closed for broken XML or a limit.",
                &self.stream_errors,
            ),
            ("maxim_im_store_errors_total", "Failed operations of store or live state.", &self.store_errors),
        ];
        for (name, help, counter) in counters {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", counter.get());
        }
        let gauges = [
            ("maxim_im_connections", "Open connections.", self.connections.get() as f64),
            ("maxim_im_sessions", "Bound sessions.", self.sessions.get() as f64),
        ];
        for (name, help, value) in gauges.iter().chain(more) {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        self.commit_time.write(
            &mut out,
            "maxim_im_commit_seconds",
            "From handing a message to the store to its commit.",
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.sign_ins.add(3);
        metrics.commit_time.observe(std::time::Duration::from_millis(3));
        let text = metrics.to_text(&[("x", "y", 1.5)]);
        assert!(text.contains("\nmaxim_im_sign_ins_total 3\n"));
        assert!(text.contains("\nx 1.5\n"));
        assert!(text.contains("maxim_im_commit_seconds_bucket{le=\"0.0025\"} 0\n"));
        assert!(text.contains("maxim_im_commit_seconds_bucket{le=\"0.005\"} 1\n"));
        assert!(text.contains("maxim_im_commit_seconds_count 1\n"));
    }
}
