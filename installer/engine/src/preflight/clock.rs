//! Clocks: how far each host is from the median of all of them and of the control host.

use super::Check;
use maxim_model::check::{CheckResult, Verdict};
use maxim_model::facts::Facts;
use maxim_model::names::Profile;
use maxim_model::topology::{Host, Topology};

const WARN: i128 = 500_000_000;
const BLOCK: i128 = 5_000_000_000;

/// Offsets from the control host's clock, nanoseconds. The control host counts as one more clock at 0.
pub(super) fn checks(offsets: &[(&str, i128)]) -> Vec<CheckResult> {
    let mut sorted: Vec<i128> = offsets.iter().map(|(_, offset)| *offset).collect();
    sorted.push(0);
    sorted.sort_unstable();
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        i128::midpoint(sorted[middle - 1], sorted[middle])
    };
    // With two clocks the middle lies between them and would halve the difference: the control host's counts then.
    let median = if offsets.len() < 2 { 0 } else { median };
    offsets
        .iter()
        .map(|(host, offset)| {
            let off = (offset - median).abs();
            let verdict = if off > BLOCK {
                Verdict::Block
            } else if off > WARN {
                Verdict::Warn
            } else {
                Verdict::Pass
            };
            Check::new("clock.offset", host, "clock")
                .measured(format!("{:.1} s {} the median", off as f64 / 1e9, if *offset < median { "behind" } else { "ahead of" }))
                .threshold("at most 0.5 s (5 s blocks)")
                .why("certificates, tokens and the order of messages depend on it")
                .fix("set the clock and let a time service keep it: `timedatectl set-ntp true`, or chrony with a server of your network")
                .verdict(verdict)
        })
        .collect()
}

/// Whether somebody keeps the clock right.
pub(super) fn services(topology: &Topology, hosts: &[(&Host, &Facts)]) -> Vec<CheckResult> {
    if topology.profile == Profile::Embedded {
        return Vec::new();
    }
    hosts
        .iter()
        .map(|(host, facts)| {
            Check::new("clock.service", &host.name, "time service")
                .measured(if facts.time_service.is_empty() {
                    "none is active".into()
                } else {
                    facts.time_service.clone()
                })
                .threshold("one is active")
                .why("clocks drift apart, a second in some days")
                .fix("`timedatectl set-ntp true`, or chrony with a server of your network")
                .unless(!facts.time_service.is_empty(), Verdict::Warn)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::verdicts;
    use super::checks;
    use maxim_model::check::Verdict;

    const SECOND: i128 = 1_000_000_000;

    #[test]
    fn the_one_that_is_off_is_found_whichever_it_is() {
        let results = checks(&[("a", 0), ("b", 10 * SECOND), ("c", SECOND / 10)]);
        let found: Vec<_> = verdicts(&results).into_iter().map(|(_, verdict)| verdict).collect();
        assert_eq!(found, [Verdict::Pass, Verdict::Block, Verdict::Pass]);
        assert!(results[1].measured.contains("ahead"));
        // The control host itself is off: the hosts agree with each other and are not blamed.
        let results = checks(&[("a", 10 * SECOND), ("b", 10 * SECOND), ("c", 10 * SECOND)]);
        assert!(results.iter().all(|result| result.verdict == Verdict::Pass), "{results:?}");
    }

    #[test]
    fn a_single_host_is_compared_with_the_control_host() {
        assert_eq!(checks(&[("a", -10 * SECOND)])[0].verdict, Verdict::Block);
        assert_eq!(checks(&[("a", SECOND)])[0].verdict, Verdict::Warn);
        assert_eq!(checks(&[("a", SECOND / 4)])[0].verdict, Verdict::Pass);
    }
}
