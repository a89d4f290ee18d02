//! Accounts: making many, and signing many in.

use super::{Target, process};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Makes accounts by in-band registration.
pub async fn register(target: &Target, count: usize) -> Result<Value> {
    target.check()?;
    let clients = target.clients();
    let places = Arc::new(Semaphore::new(target.concurrency));
    let began = Instant::now();
    let tasks: Vec<_> = (target.from..target.from + count)
        .map(|number| {
            let (clients, places) = (clients.clone(), Arc::clone(&places));
            tokio::spawn(async move {
                let _place = places.acquire_owned().await?;
                clients.register(number).await
            })
        })
        .collect();
    let mut errors = BTreeMap::<String, usize>::new();
    for task in tasks {
        if let Err(error) = task.await? {
            *errors.entry(format!("{error:#}")).or_default() += 1;
        }
    }
    Ok(json!({
        "command": "register", "label": target.label, "accounts": count,
        "errors": errors.values().sum::<usize>(), "first_errors": first(&errors),
        "seconds": seconds(began.elapsed()),
    }))
}

/// Signs `count` clients in, `rounds` times: from the second round on the client's own hashing is cached.
pub async fn login(target: &Target, count: usize, rounds: usize) -> Result<Value> {
    target.check()?;
    ensure!((1..=20).contains(&rounds), "--rounds is 1 to 20");
    let clients = target.clients();
    let mut results = Vec::new();
    for round in 0..rounds {
        let before = process::cpu(&target.pid);
        let mut signed_in = clients.sign_in_many(target.from, count).await;
        let used = process::cpu(&target.pid).saturating_sub(before);
        let done = signed_in.clients.len();
        results.push(json!({
            "round": round, "signed_in": done, "errors": signed_in.errors.values().sum::<usize>(),
            "first_errors": first(&signed_in.errors), "seconds": seconds(signed_in.elapsed),
            "per_second": (done as f64 / signed_in.elapsed.as_secs_f64()).round(),
            "server_cpu_ms_each": per(used.as_secs_f64() * 1000.0, done),
            "latency": percentiles(&mut signed_in.micros),
        }));
        let closing: Vec<_> =
            signed_in.clients.into_iter().map(|client| tokio::spawn(client.close())).collect();
        for client in closing {
            client.await?;
        }
    }
    Ok(json!({
        "command": "login", "label": target.label, "tls": format!("{:?}", target.tls),
        "mechanism": format!("{:?}", target.mechanism), "rounds": results,
    }))
}

/// The most frequent errors.
pub(super) fn first(errors: &BTreeMap<String, usize>) -> Vec<String> {
    let mut errors: Vec<_> = errors.iter().collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    errors.into_iter().take(3).map(|(error, count)| format!("{count} × {error}")).collect()
}

/// To the millisecond.
pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// A quotient to three digits; 0 of nothing.
pub(super) fn per(amount: f64, count: usize) -> f64 {
    if count == 0 { 0.0 } else { (amount / count as f64 * 1000.0).round() / 1000.0 }
}

/// Percentiles of microseconds, in milliseconds.
pub(super) fn percentiles(micros: &mut [u64]) -> Value {
    micros.sort_unstable();
    let at = |part: f64| {
        let index = ((micros.len() as f64 * part) as usize).min(micros.len().saturating_sub(1));
        micros.get(index).map_or(0.0, |micros| *micros as f64 / 1000.0)
    };
    json!({"count": micros.len(), "p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "max_ms": at(1.0)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted() {
        let mut micros: Vec<u64> = (1..=100).rev().map(|number| number * 1000).collect();
        let found = percentiles(&mut micros);
        assert_eq!(
            (&found["p50_ms"], &found["p99_ms"], &found["max_ms"]),
            (&json!(51.0), &json!(100.0), &json!(100.0))
        );
        assert_eq!(percentiles(&mut [])["count"], 0);
    }
}
