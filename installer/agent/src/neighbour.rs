//! Connection probes between hosts: one agent listens, another connects; open, refused, filtered and unreachable are
//! told apart.

use crate::wait;
use maxim_model::wire::{ConnectResult, ConnectState};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

/// Longest life of a listener that nobody closes.
const LIFE: Duration = Duration::from_secs(30);
/// Targets that are tried at the same time.
const AT_ONCE: usize = 32;

/// Listeners for neighbours; closed when dropped.
pub struct Listeners {
    /// Kept open only for their being there: the kernel completes connections by itself.
    _open: Vec<TcpListener>,
    until: Instant,
}

impl Listeners {
    /// Binds each port; returns the ports that could be bound, and those that could not with the reason.
    pub fn open(address: &str, ports: &[u16]) -> (Self, Vec<u16>, Vec<(u16, String)>) {
        let (mut open, mut bound, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for &port in ports {
            match TcpListener::bind((address, port))
                .and_then(|listener| Ok((listener.local_addr()?.port(), listener)))
            {
                Ok((port, listener)) => {
                    bound.push(port);
                    open.push(listener);
                }
                Err(error) => refused.push((port, error.to_string())),
            }
        }
        (Self { _open: open, until: Instant::now() + LIFE }, bound, refused)
    }

    /// Whether their time is over.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

/// Tries all targets, many at a time; answers in their order.
pub fn connect(targets: &[String], patience: Duration) -> Vec<ConnectResult> {
    let mut results = Vec::with_capacity(targets.len());
    for some in targets.chunks(AT_ONCE) {
        results.extend(thread::scope(|scope| {
            let tries: Vec<_> =
                some.iter().map(|target| scope.spawn(move || attempt(target, patience))).collect();
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
    ConnectResult { target: target.to_owned(), state: ConnectState::Unreachable, micros: 0 }
}

fn attempt(target: &str, patience: Duration) -> ConnectResult {
    if target.to_socket_addrs().is_err() {
        return unreachable(target);
    }
    let Ok(address) = wait::resolve(target) else { return unreachable(target) };
    let began = Instant::now();
    let outcome = TcpStream::connect_timeout(&address, patience.max(Duration::from_millis(1)));
    let micros = began.elapsed().as_micros() as u64;
    let state = match outcome {
        Ok(_) => ConnectState::Reached,
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => ConnectState::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => ConnectState::Filtered,
            _ => ConnectState::Unreachable,
        },
    };
    ConnectResult { target: target.to_owned(), state, micros }
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
        let results = connect(&[target.clone(), "no host here".into()], Duration::from_secs(2));
        assert_eq!(results[0].state, ConnectState::Reached);
        assert_eq!(results[1].state, ConnectState::Unreachable);
        drop(listeners);
        assert_eq!(connect(&[target], Duration::from_secs(2))[0].state, ConnectState::Refused);
    }
}
