//! What processes use, from `/proc`.

use std::fs;
use std::time::Duration;

/// CPU time that these processes have used since they started, threads included. Processes that are gone count
/// nothing.
pub fn cpu(pids: &[u32]) -> Duration {
    let ticks_per_second =
        nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let ticks: u64 = pids
        .iter()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok())
        .filter_map(|stat| {
            // The name in parentheses may hold anything; what follows is plain.
            let mut fields = stat.rsplit_once(") ")?.1.split(' ');
            let user: u64 = fields.nth(11)?.parse().ok()?;
            let system: u64 = fields.next()?.parse().ok()?;
            Some(user + system)
        })
        .sum();
    Duration::from_secs_f64(ticks as f64 / ticks_per_second as f64)
}

/// Resident memory of these processes, in bytes.
pub fn memory(pids: &[u32]) -> u64 {
    pids.iter()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
        .filter_map(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
        })
        .sum::<u64>()
        * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let this = [std::process::id()];
        assert!(memory(&this) > 100_000);
        let before = cpu(&this);
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while cpu(&this) == before {
            assert!(std::time::Instant::now() < end, "no CPU time is counted");
            std::hint::black_box((0..100_000).sum::<u64>());
        }
        assert_eq!((cpu(&[]), memory(&[u32::MAX])), (Duration::ZERO, 0));
    }
}
