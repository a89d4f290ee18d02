//! The end-to-end tests: one binary, driven by `tests/run`.
//!
//! `project` looks at the checkout itself; `harness` proves that the test hosts are what the scenarios take
//! them for; the rest drive the release programs as a user does, on fresh hosts for each scenario.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails there and then; what it prints is shown when it fails"
)]

#[path = "e2e/access.rs"]
mod access;
#[path = "e2e/backup.rs"]
mod backup;
#[path = "e2e/backup_faults.rs"]
mod backup_faults;
#[path = "e2e/backup_hosts.rs"]
mod backup_hosts;
#[path = "e2e/backup_schedule.rs"]
mod backup_schedule;
#[path = "e2e/backup_upgrade.rs"]
mod backup_upgrade;
#[path = "e2e/builds.rs"]
mod builds;
#[path = "e2e/bundles.rs"]
mod bundles;
#[path = "e2e/clients.rs"]
mod clients;
#[path = "e2e/cluster.rs"]
mod cluster;
#[path = "e2e/control_hosts.rs"]
mod control_hosts;
#[path = "e2e/delivery.rs"]
mod delivery;
#[path = "e2e/demonstration.rs"]
mod demonstration;
#[path = "e2e/embedded.rs"]
mod embedded;
#[path = "e2e/harness.rs"]
mod harness;
#[path = "e2e/interruptions.rs"]
mod interruptions;
#[path = "e2e/kills.rs"]
mod kills;
#[path = "e2e/kills_servers.rs"]
mod kills_servers;
#[path = "e2e/launcher.rs"]
mod launcher;
#[path = "e2e/local.rs"]
mod local;
#[path = "e2e/operations.rs"]
mod operations;
#[path = "e2e/people.rs"]
mod people;
#[path = "e2e/product.rs"]
mod product;
#[path = "e2e/project.rs"]
mod project;
#[path = "e2e/refusals.rs"]
mod refusals;
#[path = "e2e/replace.rs"]
mod replace;
#[path = "e2e/rescue.rs"]
mod rescue;
#[path = "e2e/secrets.rs"]
mod secrets;
#[path = "e2e/stores.rs"]
mod stores;
#[path = "e2e/support.rs"]
mod support;
#[path = "e2e/upgrade.rs"]
mod upgrade;
#[path = "e2e/upgrade_losses.rs"]
mod upgrade_losses;

/// Says that a test could not run here, and why; `tests/run` counts it as skipped, never as passed.
pub fn skip(test: &str, why: &str) {
    use std::io::Write as _;
    println!("SKIPPED {test}: {why}");
    if let Some(file) = std::env::var_os("MAXIM_TEST_SKIPPED") {
        let mut file = std::fs::File::options().create(true).append(true).open(file).unwrap();
        writeln!(file, "{test}: {why}").unwrap();
    }
}
