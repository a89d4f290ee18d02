//! Preflight: what was measured on the hosts, judged against what their roles and the capacity need.
//!
//! Every check is a pure function of topology and facts that gives [`CheckResult`]s with measured value, threshold,
//! reason and remedy, so that each is tested without a host. Only [`preflight`] talks to agents: facts, and probes
//! between hosts. Nothing on a host is changed. `--force CHECK` turns a block into a warning.

mod access;
mod backup;
mod capacity;
mod clock;
mod conflicts;
mod disk;
mod external;
mod identity;
mod kernel;
mod memory;
mod names;
mod network;
mod platform;
mod ports;

use crate::actions::check::CheckOutcome;
use crate::delivery::Artefacts;
use crate::error::{Class, EngineError};
use crate::phases::probe::{self, DiskProbe};
use crate::run::{Run, Session};
use maxim_model::check::{CheckResult, Verdict};
use maxim_model::event::EventKind;
use maxim_model::facts::Facts;
use maxim_model::names::Profile;
use maxim_model::topology::{Host, Topology};
use maxim_model::wire::Request;
use std::time::Duration;

/// One host as checks see it.
pub(crate) struct Subject<'a> {
    pub topology: &'a Topology,
    pub host: &'a Host,
    pub facts: &'a Facts,
    /// What may have to be sent to it; empty when it is not known yet.
    pub artefacts: &'a Artefacts,
}

impl Subject<'_> {
    fn standard(&self) -> bool {
        self.topology.profile == Profile::Standard
    }
}

/// Builds a result; a check that is not told otherwise has passed.
pub(crate) struct Check(CheckResult);

impl Check {
    pub fn new(id: &str, host: &str, title: &str) -> Self {
        Self(CheckResult {
            id: id.into(),
            host: host.into(),
            verdict: Verdict::Pass,
            title: title.into(),
            measured: String::new(),
            threshold: String::new(),
            why: String::new(),
            fix: String::new(),
            fixed_by_plan: false,
        })
    }

    pub fn measured(mut self, measured: impl Into<String>) -> Self {
        self.0.measured = measured.into();
        self
    }

    pub fn threshold(mut self, threshold: impl Into<String>) -> Self {
        self.0.threshold = threshold.into();
        self
    }

    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.0.why = why.into();
        self
    }

    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.0.fix = fix.into();
        self
    }

    pub fn fixed_by_plan(mut self, fixed: bool) -> Self {
        self.0.fixed_by_plan = fixed;
        self
    }

    pub fn verdict(mut self, verdict: Verdict) -> CheckResult {
        self.0.verdict = verdict;
        self.0
    }

    /// The verdict when it is not as it should be.
    pub fn unless(self, good: bool, otherwise: Verdict) -> CheckResult {
        self.verdict(if good { Verdict::Pass } else { otherwise })
    }
}

/// Checks of one host that need nothing but its facts.
pub(crate) fn host_checks(subject: &Subject<'_>) -> Vec<CheckResult> {
    let mut results = Vec::new();
    for area in [
        platform::checks,
        identity::checks,
        conflicts::checks,
        memory::checks,
        disk::checks,
        ports::checks,
        kernel::checks,
        capacity::checks,
    ] {
        results.extend(area(subject));
    }
    results
}

/// Reads facts, judges them, tells every result, and counts.
pub(crate) fn preflight(run: &Run<'_>, sessions: &mut [Session<'_>], disk: DiskProbe) -> CheckOutcome {
    let topology = &run.context.topology;
    probe::probe(run, sessions, disk);
    // Without them only the room for images is not judged.
    let artefacts = run.artefacts().cloned().unwrap_or_default();
    let mut results = Vec::new();
    for session in sessions.iter() {
        match &session.error {
            Some(error) if error.class == Class::Interrupted => {}
            Some(error) => results.push(access::not_reached(&session.host.name, error)),
            None => {
                results.push(access::reached(session));
                let subject =
                    Subject { topology, host: session.host, facts: &session.facts, artefacts: &artefacts };
                results.extend(host_checks(&subject));
            }
        }
    }
    let reached: Vec<(&Host, &Facts)> = sessions
        .iter()
        .filter(|session| session.error.is_none())
        .map(|session| (session.host, &session.facts))
        .collect();
    results.extend(identity::between(&reached));
    results.extend(backup::checks(topology));
    results.extend(names::checks(topology, &reached));
    let offsets: Vec<(&str, i128)> = sessions
        .iter()
        .filter(|session| session.error.is_none())
        .map(|session| (session.host.name.as_str(), session.clock_offset_nanos))
        .collect();
    results.extend(clock::checks(&offsets));
    results.extend(clock::services(topology, &reached));
    if !run.context.cancel.is_cancelled() {
        results.extend(network::probe(run, sessions));
        results.extend(external::probe(run, sessions));
    }

    for result in &mut results {
        if result.verdict == Verdict::Block && run.context.force.contains(&result.id) {
            result.verdict = Verdict::Warn;
        }
    }
    for result in &results {
        run.emitter.emit(EventKind::Checked { host: result.host.clone(), result: result.clone() });
    }
    CheckOutcome {
        blocked: results.iter().filter(|result| result.verdict == Verdict::Block).count(),
        // What the plan puts right is nothing that a person has to act on.
        warnings: results
            .iter()
            .filter(|result| result.verdict == Verdict::Warn && !result.fixed_by_plan)
            .count(),
        facts: sessions
            .iter()
            .filter(|session| session.error.is_none())
            .map(|session| (session.host.name.clone(), session.facts.clone()))
            .collect(),
        results,
        timings: Vec::new(),
    }
}

/// The refusal that blocking results add up to: the first is the error, the others follow.
pub(crate) fn refusal(results: &[CheckResult]) -> EngineError {
    let errors = results
        .iter()
        .filter(|result| result.verdict == Verdict::Block)
        .map(|result| {
            let mut cause = format!("{}: {}", result.title, result.measured);
            if !result.threshold.is_empty() {
                cause.push_str(&format!(" ({})", result.threshold));
            }
            EngineError::new(Class::Preflight, &result.id, cause).on(&result.host).hint(&result.fix)
        })
        .collect();
    EngineError::join(errors)
        .unwrap_or_else(|| EngineError::new(Class::Preflight, "preflight", "a check blocks the install"))
}

/// A fresh host that is refused loses the agent's copy: it is left as it was found. Not after an interruption, which
/// waits for nothing: the next run needs the copy.
pub(crate) fn leave_no_trace(run: &Run<'_>, sessions: &mut [Session<'_>]) {
    if run.context.cancel.is_cancelled() {
        return;
    }
    for session in sessions.iter_mut() {
        let sent = session.connected.as_ref().is_some_and(|connected| connected.agent_bytes_sent() > 0);
        let ours = !session.facts.clusters.is_empty() || !session.facts.artefacts.is_empty();
        if !sent || ours {
            continue;
        }
        if let Some(agent) = session.writer.as_mut().or(session.reader.as_mut())
            && let Err(error) =
                agent.request("preflight", &Request::RemoveSelf, Duration::from_secs(10), |_| {})
        {
            run.emitter.warn(
                &session.host.name,
                "preflight",
                format!("the agent's copy was not removed: {}", error.cause),
                "remove /opt/maxim/agent on that host",
            );
        }
    }
}

/// Bytes for people.
pub(crate) fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = value as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 || size >= 100.0 {
        format!("{size:.0} {}", UNITS[unit])
    } else {
        format!("{size:.1} {}", UNITS[unit])
    }
}

/// A subject over sample data, for the tests of the checks.
#[cfg(test)]
pub(crate) fn verdicts(results: &[CheckResult]) -> Vec<(&str, Verdict)> {
    results.iter().map(|result| (result.id.as_str(), result.verdict)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Check, Subject, bytes, host_checks, refusal};
    use crate::sample;
    use maxim_model::check::Verdict;
    use std::collections::BTreeMap;

    #[test]
    fn a_sound_host_is_not_blocked_and_every_result_can_be_acted_on() {
        let topology = sample::single_host();
        let facts = sample::sound_facts(&topology, 8 << 30);
        let subject = Subject {
            topology: &topology,
            host: &topology.hosts[0],
            facts: &facts,
            artefacts: &BTreeMap::new(),
        };
        let results = host_checks(&subject);
        assert!(results.len() > 15, "{}", results.len());
        for result in &results {
            assert_ne!(result.verdict, Verdict::Block, "{result:?}");
            assert!(!result.measured.is_empty() && !result.title.is_empty(), "{result:?}");
            if result.verdict > Verdict::Info {
                assert!(!result.fix.is_empty() && !result.why.is_empty(), "{result:?}");
            }
        }
    }

    #[test]
    fn a_small_machine_runs_a_small_cluster() {
        let mut topology = sample::single_host();
        topology.capacity.users = 50;
        topology.capacity.messages_per_second = 10;
        let mut facts = sample::sound_facts(&topology, 1 << 30);
        facts.memory_available = 800 << 20;
        let subject = Subject {
            topology: &topology,
            host: &topology.hosts[0],
            facts: &facts,
            artefacts: &BTreeMap::new(),
        };
        let blocked: Vec<_> =
            host_checks(&subject).into_iter().filter(|result| result.verdict == Verdict::Block).collect();
        assert!(blocked.is_empty(), "{blocked:?}");
    }

    #[test]
    fn a_refusal_names_every_blocking_check() {
        let block = |host: &str| {
            Check::new("ports.foreign", host, "port 443")
                .measured("held by nginx (812)")
                .fix("stop it")
                .verdict(Verdict::Block)
        };
        let error = refusal(&[block("a"), Check::new("x", "a", "x").verdict(Verdict::Pass), block("b")]);
        assert_eq!((error.exit_code(), error.host.as_str(), error.others.len()), (3, "a", 1));
        assert!(error.cause.contains("nginx (812)"));
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(
            (bytes(512), bytes(1536), bytes(5 << 30)),
            ("512 B".into(), "1.5 KiB".into(), "5.0 GiB".into())
        );
    }
}
