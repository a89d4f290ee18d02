//! Memory per idle session.

use super::accounts::first;
use super::{Target, process};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;

/// Signs `count` clients in, waits `settle` seconds, and divides what the server's memory grew by.
pub async fn idle(target: &Target, count: usize, settle: u64) -> Result<Value> {
    target.check()?;
    ensure!(!target.pid.is_empty(), "--pid names the server's processes, whose memory is measured");
    ensure!(settle <= 600, "--settle is at most 600");
    let before = process::memory(&target.pid);
    let signed_in = target.clients().sign_in_many(target.from, count).await;
    let after = process::memory(&target.pid);
    let sessions = signed_in.clients.len();
    ensure!(sessions > 0, "nobody signed in: {:?}", first(&signed_in.errors));
    let mut writers = Vec::with_capacity(sessions);
    let readers: Vec<_> = signed_in
        .clients
        .into_iter()
        .map(|mut client| {
            writers.push(client.writer);
            // Whatever the server sends has to go somewhere.
            tokio::spawn(async move { client.reader.drain().await })
        })
        .collect();
    let cpu = process::cpu(&target.pid);
    tokio::time::sleep(Duration::from_secs(settle)).await;
    let used = process::cpu(&target.pid).saturating_sub(cpu);
    let settled = process::memory(&target.pid);
    let dropped = readers.iter().filter(|reader| reader.is_finished()).count();
    for reader in readers {
        reader.abort();
    }
    drop(writers);
    let each = |bytes: u64| bytes / sessions as u64;
    Ok(json!({
        "command": "idle", "label": target.label, "tls": format!("{:?}", target.tls), "sessions": sessions,
        "errors": signed_in.errors.values().sum::<usize>(), "first_errors": first(&signed_in.errors),
        "dropped": dropped, "server_bytes_before": before, "server_bytes_signed_in": after,
        "server_bytes_settled": settled, "bytes_per_session": each(settled.saturating_sub(before)),
        "bytes_per_session_with_the_server_itself": each(settled),
        "server_cpu_percent": (used.as_secs_f64() * 10_000.0 / settle.max(1) as f64).round() / 100.0,
    }))
}
