//! Backups: what the topology asks for and nobody would do.

use super::Check;
use maxim_model::check::{CheckResult, Verdict};
use maxim_model::topology::Topology;

/// A drill by schedule that no timer starts. Nothing without a schedule of drills.
pub(super) fn checks(topology: &Topology) -> Vec<CheckResult> {
    if topology.backup.drill.is_empty() {
        return Vec::new();
    }
    let by_itself = crate::backup::drills_by_itself(topology);
    let result = Check::new("backup.drill", "", "drills by schedule")
        .measured(if by_itself {
            "the database is beside the repository"
        } else {
            "the database is on another host than the repository"
        })
        .why("the host of the repository may read databases elsewhere and load nothing into them, so no set is proven by itself")
        .fix("run `maxim.ctl backup drill` by a timer of the control host, or keep the repository on the host of the database")
        .unless(by_itself, Verdict::Warn);
    vec![result]
}

#[cfg(test)]
mod tests {
    use super::checks;
    use crate::sample;
    use maxim_model::check::Verdict;

    #[test]
    fn a_drill_that_never_runs_by_itself_is_warned_of() {
        let mut topology = sample::three_hosts();
        topology.backup.schedule = "0 3 * * *".into();
        topology.backup.repository = serde_json::json!({"type": "local", "path": "/var/backups/maxim"});
        assert!(checks(&topology).is_empty(), "nobody asked for drills");
        topology.backup.drill = "0 5 * * 0".into();
        let found = checks(&topology);
        assert_eq!((found.len(), found[0].verdict), (1, Verdict::Warn));
        assert!(found[0].fix.contains("backup drill"), "{found:?}");
        let single = maxim_model::topology::Topology { backup: topology.backup, ..sample::single_host() };
        assert_eq!(checks(&single)[0].verdict, Verdict::Pass);
    }
}
