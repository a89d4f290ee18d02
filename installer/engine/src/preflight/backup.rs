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
            "the host of the console, which keeps the repository, has the IM core"
        } else {
            "the host of the console, which keeps the repository, has no IM core"
        })
        .why("a drill starts an IM core on what was restored, and the host of the repository may start one nowhere else, so no set is proven by itself")
        .fix("run `maxim.ctl backup drill` by a timer of the control host, or give the host of the console the role `im` too")
        .unless(by_itself, Verdict::Warn);
    vec![result]
}

#[cfg(test)]
mod tests {
    use super::checks;
    use crate::sample;
    use maxim_model::check::Verdict;
    use maxim_model::names::Role;

    #[test]
    fn a_drill_that_never_runs_by_itself_is_warned_of() {
        let mut topology = sample::three_hosts();
        topology.backup.schedule = "0 3 * * *".into();
        topology.backup.repository = serde_json::json!({"type": "local", "path": "/var/backups/maxim"});
        assert!(checks(&topology).is_empty(), "nobody asked for drills");
        topology.backup.drill = "0 5 * * 0".into();
        assert_eq!(checks(&topology)[0].verdict, Verdict::Pass);
        let console = topology.hosts.iter_mut().find(|host| host.roles.contains(&Role::Console)).unwrap();
        console.roles.retain(|role| *role != Role::Im);
        let found = checks(&topology);
        assert_eq!((found.len(), found[0].verdict), (1, Verdict::Warn));
        assert!(found[0].fix.contains("backup drill"), "{found:?}");
    }
}
