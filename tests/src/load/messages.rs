//! Pairs of clients that message each other.
//!
//! Each message says in its body in which phase it was sent, when it was due, and when it was written, so that its
//! receiver can count it and tell how long it took. Phases: warming up, measuring, draining. What was sent while
//! measuring and has not come ten seconds later is missing, which is an error of the server.

use super::accounts::{first, per, percentiles, seconds};
use super::client::{Client, Reader};
use super::{Target, process};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::time::{sleep, sleep_until, timeout};

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const DRAINING: u8 = 2;
/// How long missing messages are waited for.
const DRAIN: Duration = Duration::from_secs(10);
/// Most messages written at once by a sender of the closed loop.
const BURST: usize = 8;

/// How pairs behave.
#[derive(Debug, Clone, clap::Args)]
pub struct Pairs {
    /// Senders, and as many receivers.
    #[arg(long, default_value_t = 200)]
    pub pairs: usize,
    /// Seconds of measuring.
    #[arg(long, default_value_t = 8)]
    pub seconds: u64,
    /// Seconds before it.
    #[arg(long, default_value_t = 3)]
    pub warm: u64,
    /// Bytes of a body.
    #[arg(long, default_value_t = 100)]
    pub size: usize,
    /// Send to full addresses instead of bare ones.
    #[arg(long)]
    pub full: bool,
}

struct Run {
    began: Instant,
    phase: AtomicU8,
    stopped: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
    received_in_all: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
}

impl Run {
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
}

/// What a pair's receiver saw of the measuring phase, in microseconds.
#[derive(Default)]
struct Latencies {
    due: Vec<u64>,
    written: Vec<u64>,
}

#[derive(Clone, Copy)]
enum Pace {
    Window(usize),
    PerSecond(f64),
}

/// A closed loop: each sender keeps `window` messages under way.
pub async fn flood(target: &Target, pairs: &Pairs, window: usize) -> Result<Value> {
    ensure!((1..=1000).contains(&window), "--window is 1 to 1000");
    let mut result = run(target, pairs, Pace::Window(window)).await?;
    result["command"] = "flood".into();
    result["window"] = window.into();
    Ok(result)
}

/// An open loop: all senders together send `rate` messages a second, whether the server keeps up or not.
pub async fn rate(target: &Target, pairs: &Pairs, rate: f64) -> Result<Value> {
    ensure!(rate.is_finite() && rate >= 1.0, "--rate is at least 1");
    let mut result = run(target, pairs, Pace::PerSecond(rate)).await?;
    result["command"] = "rate".into();
    result["rate"] = rate.into();
    Ok(result)
}

async fn run(target: &Target, pairs: &Pairs, pace: Pace) -> Result<Value> {
    target.check()?;
    ensure!(
        (1..=100_000).contains(&pairs.pairs) && (1..=3600).contains(&pairs.seconds),
        "--pairs or --seconds"
    );
    let signed_in = target.clients().sign_in_many(target.from, pairs.pairs * 2).await;
    let errors = first(&signed_in.errors);
    ensure!(errors.is_empty(), "not everybody could sign in: {errors:?}");

    let run = Arc::new(Run {
        began: Instant::now(),
        phase: AtomicU8::new(WARMING),
        stopped: AtomicBool::new(false),
        sent: AtomicU64::new(0),
        received: AtomicU64::new(0),
        received_in_all: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        broken: AtomicU64::new(0),
    });
    let (mut senders, mut receivers, mut others, mut quiet) = (vec![], vec![], vec![], vec![]);
    let mut clients = signed_in.clients.into_iter();
    let mut number = 0;
    while let (Some(sender), Some(receiver)) = (clients.next(), clients.next()) {
        let to = if pairs.full {
            receiver.address.clone()
        } else {
            receiver.address.split('/').next().unwrap_or_default().to_owned()
        };
        let window = Arc::new(Semaphore::new(if let Pace::Window(window) = pace { window } else { 0 }));
        let Client { mut reader, writer, .. } = sender;
        others.push(tokio::spawn({
            let run = Arc::clone(&run);
            async move {
                while let Ok(stanza) = reader.stanza().await {
                    if contains(stanza, b"type='error'") || contains(stanza, b"type=\"error\"") {
                        run.refused.fetch_add(1, Relaxed);
                    }
                }
            }
        }));
        quiet.push(receiver.writer);
        receivers.push(tokio::spawn(receive(receiver.reader, Arc::clone(&run), Arc::clone(&window))));
        let padding = "x".repeat(pairs.size.saturating_sub(30));
        let share = number as f64 / pairs.pairs as f64;
        let send = Send { writer, to, padding, number, run: Arc::clone(&run) };
        senders.push(match pace {
            Pace::Window(_) => tokio::spawn(send.while_the_window_allows(window)),
            Pace::PerSecond(rate) => tokio::spawn(send.by_the_clock(pairs.pairs as f64 / rate, share)),
        });
        number += 1;
    }

    sleep(Duration::from_secs(pairs.warm)).await;
    let own = [std::process::id()];
    let (server_cpu, own_cpu, began) = (process::cpu(&target.pid), process::cpu(&own), Instant::now());
    let before = run.received_in_all.load(Relaxed);
    run.phase.store(MEASURING, Relaxed);
    let mut each_second = Vec::new();
    let mut last = before;
    for second in 1..=pairs.seconds {
        sleep_until((began + Duration::from_secs(second)).into()).await;
        let now = run.received_in_all.load(Relaxed);
        each_second.push(now - last);
        last = now;
    }
    let elapsed = began.elapsed();
    let delivered = run.received_in_all.load(Relaxed) - before;
    let server_used = process::cpu(&target.pid).saturating_sub(server_cpu).as_secs_f64();
    let own_used = process::cpu(&own).saturating_sub(own_cpu).as_secs_f64();
    let memory = process::memory(&target.pid);
    run.phase.store(DRAINING, Relaxed);
    let deadline = Instant::now() + DRAIN;
    while run.received.load(Relaxed) < run.sent.load(Relaxed) && Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
    }
    run.stopped.store(true, Relaxed);

    for sender in senders {
        sender.await?;
    }
    let mut all = Latencies::default();
    for receiver in receivers {
        let latencies = receiver.await?;
        all.due.extend(latencies.due);
        all.written.extend(latencies.written);
    }
    for other in others {
        other.abort();
    }
    let sent = run.sent.load(Relaxed);
    let rate = delivered as f64 / elapsed.as_secs_f64();
    Ok(json!({
        "label": target.label, "tls": format!("{:?}", target.tls), "pairs": pairs.pairs, "body_bytes": pairs.size,
        "seconds": seconds(elapsed), "sent": sent, "delivered": all.due.len(),
        "missing": sent.saturating_sub(all.due.len() as u64), "refused": run.refused.load(Relaxed),
        "broken_connections": run.broken.load(Relaxed), "delivered_per_second": rate.round(),
        "slowest_second": each_second.iter().min(), "fastest_second": each_second.iter().max(),
        "server_cores": per(server_used, elapsed.as_secs() as usize),
        "generator_cores": per(own_used, elapsed.as_secs() as usize),
        "delivered_per_server_cpu_second":
            if server_used > 0.0 { (delivered as f64 / server_used).round() } else { 0.0 },
        "server_bytes": memory,
        "latency_from_due": percentiles(&mut all.due), "latency_from_written": percentiles(&mut all.written),
    }))
}

struct Send<W> {
    writer: W,
    to: String,
    padding: String,
    number: u64,
    run: Arc<Run>,
}

impl<W: AsyncWriteExt + Unpin> Send<W> {
    fn message(&self, into: &mut String, count: u64, phase: u8, due: u64) {
        let Self { to, padding, number, run, .. } = self;
        let written = run.now();
        // Writing to a string cannot fail.
        let _ = write!(
            into,
            "<message to='{to}' type='chat' id='{number}-{count}'><body>{phase}:{due}:{written}:{padding}</body></message>"
        );
    }

    async fn while_the_window_allows(mut self, window: Arc<Semaphore>) {
        let (mut text, mut count) = (String::new(), 0);
        loop {
            // Wakes up to see the end when the server gives no answer any more.
            let Ok(Ok(place)) = timeout(Duration::from_millis(200), window.acquire()).await else {
                if self.run.phase.load(Relaxed) == DRAINING {
                    return;
                }
                continue;
            };
            place.forget();
            let phase = self.run.phase.load(Relaxed);
            if phase == DRAINING {
                return;
            }
            text.clear();
            let first = count;
            loop {
                count += 1;
                let now = self.run.now();
                self.message(&mut text, count, phase, now);
                match window.try_acquire() {
                    Ok(place) if count - first < BURST as u64 => place.forget(),
                    _ => break,
                }
            }
            if !self.write(&text, phase, count - first).await {
                return;
            }
        }
    }

    async fn by_the_clock(mut self, gap: f64, share: f64) {
        let gap = Duration::from_secs_f64(gap);
        let mut due = Instant::now() + gap.mul_f64(share);
        let (mut text, mut count) = (String::new(), 0);
        loop {
            sleep_until(due.into()).await;
            let phase = self.run.phase.load(Relaxed);
            if phase == DRAINING {
                return;
            }
            count += 1;
            text.clear();
            self.message(&mut text, count, phase, due.duration_since(self.run.began).as_micros() as u64);
            if !self.write(&text, phase, 1).await {
                return;
            }
            due += gap;
        }
    }

    async fn write(&mut self, text: &str, phase: u8, count: u64) -> bool {
        if self.writer.write_all(text.as_bytes()).await.is_err() {
            self.run.broken.fetch_add(1, Relaxed);
            return false;
        }
        if phase == MEASURING {
            self.run.sent.fetch_add(count, Relaxed);
        }
        true
    }
}

async fn receive(mut reader: Reader, run: Arc<Run>, window: Arc<Semaphore>) -> Latencies {
    let mut latencies = Latencies::default();
    while !run.stopped.load(Relaxed) {
        let stanza = match timeout(Duration::from_millis(200), reader.stanza()).await {
            Err(_) => continue,
            Ok(Err(_)) => {
                run.broken.fetch_add(1, Relaxed);
                break;
            }
            Ok(Ok(stanza)) => stanza,
        };
        let Some((phase, due, written)) = times(stanza) else { continue };
        window.add_permits(1);
        run.received_in_all.fetch_add(1, Relaxed);
        if phase == u64::from(MEASURING) {
            let now = run.now();
            latencies.due.push(now.saturating_sub(due));
            latencies.written.push(now.saturating_sub(written));
            run.received.fetch_add(1, Relaxed);
        }
    }
    latencies
}

/// Phase and times in a message's body.
fn times(stanza: &[u8]) -> Option<(u64, u64, u64)> {
    let body = find(stanza, b"<body")?;
    let start = body + stanza[body..].iter().position(|byte| *byte == b'>')? + 1;
    let text = std::str::from_utf8(&stanza[start..stanza.len().min(start + 64)]).ok()?;
    let mut numbers = text.split(':').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    find(text, part).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_the_body() {
        let stanza = b"<message from='a'><body xml:lang='en'>1:20:300:xxx</body></message>";
        assert_eq!(times(stanza), Some((1, 20, 300)));
        assert_eq!(times(b"<message><body>hi</body></message>"), None);
        assert_eq!(times(b"<presence/>"), None);
    }
}
