//! Connection probes between hosts: one agent listens, another connects; open, refused, filtered and unreachable are
//! told apart.

use crate::wait;
use maxim_model::wire::{ConnectResult, ConnectState};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Longest life of a listener that nobody closes.
const LIFE: Duration = Duration::from_secs(30);
/// Targets that are tried at the same time.
const AT_ONCE: usize = 32;
/// What a neighbour says that wants to measure.
const WORD: &[u8; 16] = b"maxim bandwidth\n";
/// Bytes that are sent for one measurement at most, and for how long; tests share their machine with others.
const MEASURED_BYTES: usize = 16 << 20;
const MEASURED_TIME: Duration = if cfg!(test) { Duration::from_secs(5) } else { Duration::from_millis(300) };
/// Below this nothing can be said.
const LEAST_BYTES: usize = 64 << 10;
/// Measurements that one agent serves at the same time; more are only connected.
const SERVED: usize = 16;
/// A neighbour that measures says so at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// Listeners for neighbours; closed when dropped.
pub struct Listeners {
    /// Accepts; ends when `wake` is closed.
    serving: Option<JoinHandle<()>>,
    wake: Option<PipeWriter>,
    until: Instant,
}

impl Listeners {
    /// Binds each port; returns the ports that could be bound, and those that could not with the reason.
    pub fn open(address: &str, ports: &[u16]) -> (Self, Vec<u16>, Vec<(u16, String)>) {
        let (mut open, mut bound, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for &port in ports {
            match TcpListener::bind((address, port)).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok((listener.local_addr()?.port(), listener))
            }) {
                Ok((port, listener)) => {
                    bound.push(port);
                    open.push(listener);
                }
                Err(error) => refused.push((port, error.to_string())),
            }
        }
        let until = Instant::now() + LIFE;
        let started = std::io::pipe().and_then(|(woken, wake)| {
            let serving = thread::Builder::new()
                .name("listeners".into())
                .spawn(move || accept_all(&open, &woken, until))?;
            Ok((serving, wake))
        });
        match started {
            Ok((serving, wake)) => (Self { serving: Some(serving), wake: Some(wake), until }, bound, refused),
            Err(error) => {
                refused.extend(bound.into_iter().map(|port| (port, error.to_string())));
                (Self { serving: None, wake: None, until }, Vec::new(), refused)
            }
        }
    }

    /// Whether their time is over.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(serving) = self.serving.take() {
            // It has nothing to say; what matters is that its sockets are closed now.
            let _ = serving.join();
        }
    }
}

/// Accepts until woken or over.
fn accept_all(open: &[TcpListener], woken: &PipeReader, until: Instant) {
    let served = Arc::new(AtomicUsize::new(0));
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(patience) = PollTimeout::try_from(left) else { return };
        let mut waited = vec![PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
        waited.extend(open.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        match poll(&mut waited, patience) {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) | Ok(0) => return,
            Ok(_) => {}
        }
        if waited[0].any() == Some(true) {
            return;
        }
        for listener in open {
            while let Ok((stream, _)) = listener.accept() {
                if served.fetch_add(1, Ordering::SeqCst) >= SERVED {
                    served.fetch_sub(1, Ordering::SeqCst);
                    continue;
                }
                let served = Arc::clone(&served);
                thread::spawn(move || {
                    // A neighbour that only connects has gone by now: nothing is sent to it.
                    let _ = send_measured(stream);
                    served.fetch_sub(1, Ordering::SeqCst);
                });
            }
        }
    }
}

/// Sends to a neighbour that asks for it, and lets it close first.
fn send_measured(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut word = [0; WORD.len()];
    stream.read_exact(&mut word)?;
    if word != *WORD {
        return Ok(());
    }
    let piece = vec![0; 256 << 10];
    let (begun, mut sent) = (Instant::now(), 0);
    while sent < MEASURED_BYTES && begun.elapsed() < MEASURED_TIME {
        stream.write_all(&piece)?;
        sent += piece.len();
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read(&mut word).map(|_| ())
}

/// Bytes a second that a listener of ours sends; none when too little came to say.
fn measure(mut stream: TcpStream) -> Option<u64> {
    stream.set_read_timeout(Some(MEASURED_TIME)).ok()?;
    stream.set_write_timeout(Some(MEASURED_TIME)).ok()?;
    stream.write_all(WORD).ok()?;
    let mut piece = vec![0; 256 << 10];
    let (begun, mut came) = (Instant::now(), 0);
    let mut took = Duration::ZERO;
    while came < MEASURED_BYTES && took < MEASURED_TIME {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(count) => came += count,
        }
        took = begun.elapsed();
    }
    (came >= LEAST_BYTES).then(|| (came as f64 / took.as_secs_f64().max(1e-6)) as u64)
}

/// Tries all targets, many at a time; answers in their order. The `measured` ones are asked for bytes as well.
pub fn connect(targets: &[String], measured: &[String], patience: Duration) -> Vec<ConnectResult> {
    let mut results = Vec::with_capacity(targets.len());
    for some in targets.chunks(AT_ONCE) {
        results.extend(thread::scope(|scope| {
            let tries: Vec<_> = some
                .iter()
                .map(|target| scope.spawn(move || attempt(target, measured.contains(target), patience)))
                .collect();
            tries
                .into_iter()
                .zip(some)
                .map(|(attempt, target)| attempt.join().unwrap_or_else(|_| unreachable(target)))
                .collect::<Vec<_>>()
        }));
    }
    results
}

fn unreachable(target: &str) -> ConnectResult {
    ConnectResult {
        target: target.to_owned(),
        state: ConnectState::Unreachable,
        micros: 0,
        bytes_per_second: None,
    }
}

fn attempt(target: &str, measured: bool, patience: Duration) -> ConnectResult {
    if target.to_socket_addrs().is_err() {
        return unreachable(target);
    }
    let Ok(address) = wait::resolve(target) else { return unreachable(target) };
    let began = Instant::now();
    let outcome = TcpStream::connect_timeout(&address, patience.max(Duration::from_millis(1)));
    let micros = began.elapsed().as_micros() as u64;
    let mut bytes_per_second = None;
    let state = match outcome {
        Ok(stream) => {
            bytes_per_second = if measured { measure(stream) } else { None };
            ConnectState::Reached
        }
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => ConnectState::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => ConnectState::Filtered,
            _ => ConnectState::Unreachable,
        },
    };
    ConnectResult { target: target.to_owned(), state, micros, bytes_per_second }
}

#[cfg(test)]
mod tests {
    use super::{Listeners, connect};
    use maxim_model::wire::ConnectState;
    use std::time::Duration;

    #[test]
    fn open_and_refused_are_told_apart() {
        let (listeners, bound, refused) = Listeners::open("127.0.0.1", &[0]);
        assert!(refused.is_empty() && !listeners.is_over());
        let target = format!("127.0.0.1:{}", bound[0]);
        let (_, _, taken) = Listeners::open("127.0.0.1", &[bound[0]]);
        assert_eq!(taken.len(), 1);
        let results = connect(&[target.clone(), "no host here".into()], &[], Duration::from_secs(2));
        assert_eq!(results[0].state, ConnectState::Reached);
        assert_eq!(results[1].state, ConnectState::Unreachable);
        drop(listeners);
        assert_eq!(connect(&[target], &[], Duration::from_secs(2))[0].state, ConnectState::Refused);
    }

    #[test]
    fn bytes_are_measured_only_where_it_is_asked_for() {
        let (listeners, bound, _) = Listeners::open("127.0.0.1", &[0, 0]);
        let targets: Vec<String> = bound.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let results = connect(&targets, &targets[..1], Duration::from_secs(2));
        assert!(results.iter().all(|result| result.state == ConnectState::Reached), "{results:?}");
        assert!(results[0].bytes_per_second.is_some_and(|rate| rate > 0), "{results:?}");
        assert_eq!(results[1].bytes_per_second, None);
        drop(listeners);
        // Something else that listens is told nothing that it has not asked for, and measures nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = silent.local_addr().unwrap().to_string();
        let results =
            connect(std::slice::from_ref(&target), std::slice::from_ref(&target), Duration::from_secs(2));
        assert_eq!((results[0].state, results[0].bytes_per_second), (ConnectState::Reached, None));
    }
}
