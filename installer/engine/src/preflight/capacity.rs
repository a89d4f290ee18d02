//! Capacity: what the measured hardware supports, with the assumption that limits it.

use super::{Check, Subject};
use crate::sizing::supported;
use maxim_model::check::{CheckResult, Verdict};

pub(super) fn checks(subject: &Subject<'_>) -> Vec<CheckResult> {
    let capacity = subject.topology.capacity;
    let found = supported(subject.topology, subject.host, subject.facts);
    let mut results = Vec::new();
    let below = if subject.standard() { Verdict::Warn } else { Verdict::Info };
    if found.users.0 < u64::MAX {
        results.push(
            Check::new("capacity.users", &subject.host.name, "concurrent users supported")
                .measured(format!("about {} ({})", thousands(found.users.0), found.users.1))
                .threshold(format!("{} users", thousands(capacity.users.into())))
                .why("beyond it the service is refused memory or descriptors")
                .fix("add memory or IM hosts, or lower `capacity.users`")
                .verdict(if found.users.0 >= capacity.users.into() { Verdict::Info } else { below }),
        );
    }
    if let Some((rate, why)) = found.rate {
        results.push(
            Check::new("capacity.rate", &subject.host.name, "messages per second supported")
                .measured(format!("about {} ({why})", thousands(rate)))
                .threshold(format!("{} messages/s", thousands(capacity.messages_per_second.into())))
                .why("beyond it messages wait")
                .fix("add processors or IM hosts, use a faster disk, or lower `capacity.messages_per_second`")
                .verdict(if rate >= capacity.messages_per_second.into() { Verdict::Info } else { below }),
        );
    }
    results
}

/// 12345 as `12,345`.
fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Subject;
    use super::{checks, thousands};
    use crate::sample;
    use maxim_model::check::Verdict;
    use std::collections::BTreeMap;

    #[test]
    fn what_is_supported_is_told_and_too_little_warns() {
        let mut topology = sample::single_host();
        let facts = sample::facts(4 << 30);
        let artefacts = BTreeMap::new();
        let judge = |topology: &maxim_model::topology::Topology| {
            checks(&Subject { topology, host: &topology.hosts[0], facts: &facts, artefacts: &artefacts })
        };
        assert!(judge(&topology).iter().all(|result| result.verdict == Verdict::Info));
        topology.capacity.users = 1_000_000;
        assert_eq!(judge(&topology)[0].verdict, Verdict::Warn);
        assert_eq!((thousands(999), thousands(1_234_567)), ("999".into(), "1,234,567".into()));
    }
}
