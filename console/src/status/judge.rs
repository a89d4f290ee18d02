//! Turns a snapshot into states and into one sentence for the overview. Pure: the time is passed in.
//!
//! Rules: what was never measured, is older than [`STALE_AFTER`] or whose newest measurement failed, is unknown,
//! whatever it was before. A host that does not answer is broken, and what runs on it is unknown. A component that
//! runs in another version than it should wants attention, as does a host whose data disk or memory is nearly full.

use super::watcher::Snapshot;
use maxim_model::status::{ClusterStatus, ComponentStatus, Health, HostStatus};

/// Figures older than this are not trusted any more, seconds. Twice the idle interval of the watcher.
pub const STALE_AFTER: i64 = 60;

/// Share of the data disk that should be free, percent.
const DISK_FREE_PERCENT: u64 = 10;
/// Share of the memory that should be available, percent.
const MEMORY_FREE_PERCENT: u64 = 5;

/// How fresh the figures are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Never measured, and no attempt has failed: the first measurement is under way.
    Waiting,
    /// Never measured: every attempt failed.
    Never,
    /// Measured, and still holds.
    Fresh,
    /// Measured at this time, and does not hold any more.
    Stale,
}

/// Judges the age of a snapshot.
pub fn freshness(snapshot: &Snapshot, now: i64) -> Freshness {
    match (&snapshot.status, &snapshot.failure) {
        (None, None) => Freshness::Waiting,
        (None, Some(_)) => Freshness::Never,
        (Some(_), Some(_)) => Freshness::Stale,
        (Some(_), None) if now - snapshot.measured_at > STALE_AFTER => Freshness::Stale,
        (Some(_), None) => Freshness::Fresh,
    }
}

/// What is noteworthy about a host besides its components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostConcern {
    /// It does not answer.
    NotReached,
    /// Little space is left under the data path.
    DiskNearlyFull,
    /// Little memory is left.
    MemoryNearlyFull,
}

/// The concerns of a host, the gravest first.
pub fn host_concerns(host: &HostStatus) -> Vec<HostConcern> {
    if !host.reached {
        return vec![HostConcern::NotReached];
    }
    let below = |free: u64, total: u64, percent: u64| total > 0 && free < total / 100 * percent;
    let mut concerns = Vec::new();
    if below(host.disk_available, host.disk_total, DISK_FREE_PERCENT) {
        concerns.push(HostConcern::DiskNearlyFull);
    }
    if below(host.memory_available, host.memory_total, MEMORY_FREE_PERCENT) {
        concerns.push(HostConcern::MemoryNearlyFull);
    }
    concerns
}

/// State of a component: its health, but another version than the wanted one is not well.
pub fn component_state(component: &ComponentStatus) -> Health {
    if component.health == Health::Well && differs(component) { Health::Attention } else { component.health }
}

/// Whether another version runs than should.
pub fn differs(component: &ComponentStatus) -> bool {
    !component.wanted.is_empty() && !component.running.is_empty() && component.wanted != component.running
}

/// State of a host with everything on it.
pub fn host_state(status: &ClusterStatus, host: &HostStatus) -> Health {
    let own = match host_concerns(host).first() {
        None => Health::Well,
        Some(HostConcern::NotReached) => return Health::Broken,
        Some(_) => Health::Attention,
    };
    components_on(status, &host.host).map(component_state).fold(own, worse)
}

/// Components of a host.
pub fn components_on<'a>(
    status: &'a ClusterStatus,
    host: &'a str,
) -> impl Iterator<Item = &'a ComponentStatus> {
    status.components.iter().filter(move |component| component.host == host)
}

/// State of the cluster. A cluster without anything in it is unknown.
pub fn cluster_state(status: &ClusterStatus) -> Health {
    if status.hosts.is_empty() || status.components.is_empty() {
        return Health::Unknown;
    }
    let components = status.components.iter().map(component_state);
    status.hosts.iter().map(|host| host_state(status, host)).chain(components).fold(Health::Well, worse)
}

/// The worse of two states: broken, unknown, attention, working, well.
pub const fn worse(one: Health, other: Health) -> Health {
    if rank(one) >= rank(other) { one } else { other }
}

/// Order for sorting, the worst highest.
pub const fn rank(health: Health) -> u8 {
    match health {
        Health::Well => 0,
        Health::Working => 1,
        Health::Attention => 2,
        Health::Unknown => 3,
        Health::Broken => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Freshness, HostConcern, STALE_AFTER, cluster_state, component_state, freshness, host_concerns,
        host_state,
    };
    use crate::status::source::MeasureError;
    use crate::status::watcher::{Failure, Snapshot};
    use maxim_model::status::{ClusterStatus, ComponentStatus, Endpoints, Health, HostStatus};
    use std::sync::Arc;

    fn component(health: Health) -> ComponentStatus {
        ComponentStatus {
            host: "app1".into(),
            component: "im".into(),
            wanted: "0.1.0".into(),
            running: "0.1.0".into(),
            health,
            detail: String::new(),
            memory: 1,
            since_seconds: 1,
            restarts: 0,
        }
    }

    fn host() -> HostStatus {
        HostStatus {
            host: "app1".into(),
            address: "192.0.2.1".into(),
            reached: true,
            error: String::new(),
            distribution: "Debian".into(),
            cpus: 2,
            memory_total: 1000,
            memory_available: 500,
            disk_available: 500,
            disk_total: 1000,
        }
    }

    fn cluster(hosts: Vec<HostStatus>, components: Vec<ComponentStatus>) -> ClusterStatus {
        ClusterStatus {
            cluster: "acme".into(),
            domain: "d".into(),
            profile: "standard".into(),
            hosts,
            components,
            endpoints: Endpoints::default(),
            upgrade: None,
            backup: maxim_model::backup::BackupRecord::default(),
            measured_at: String::new(),
        }
    }

    #[test]
    fn old_or_failed_figures_are_stale() {
        let status = Some(Arc::new(cluster(vec![host()], vec![component(Health::Well)])));
        let failure = Some(Failure { at: 9, error: MeasureError { cause: "c".into(), hint: "h".into() } });
        let fresh = Snapshot { status: status.clone(), measured_at: 100, failure: None };
        assert_eq!(freshness(&Snapshot::default(), 0), Freshness::Waiting);
        assert_eq!(
            freshness(&Snapshot { failure: failure.clone(), ..Snapshot::default() }, 0),
            Freshness::Never
        );
        assert_eq!(freshness(&fresh, 100 + STALE_AFTER), Freshness::Fresh);
        assert_eq!(freshness(&fresh, 101 + STALE_AFTER), Freshness::Stale);
        assert_eq!(freshness(&Snapshot { failure, ..fresh }, 101), Freshness::Stale);
    }

    #[test]
    fn another_version_wants_attention() {
        let mut wrong = component(Health::Well);
        wrong.running = "0.0.9".into();
        assert_eq!(component_state(&wrong), Health::Attention);
        wrong.running = String::new();
        wrong.health = Health::Broken;
        assert_eq!(component_state(&wrong), Health::Broken);
    }

    #[test]
    fn the_worst_decides_and_unknown_is_not_well() {
        let with = |health| {
            let status = cluster(vec![host()], vec![component(Health::Well), component(health)]);
            (cluster_state(&status), host_state(&status, &status.hosts[0]))
        };
        for health in [Health::Well, Health::Working, Health::Attention, Health::Unknown, Health::Broken] {
            assert_eq!(with(health), (health, health));
        }
        assert_eq!(cluster_state(&cluster(vec![], vec![])), Health::Unknown);
        assert_eq!(cluster_state(&cluster(vec![host()], vec![])), Health::Unknown);
    }

    #[test]
    fn a_host_is_judged_by_reach_disk_and_memory() {
        let away = HostStatus { reached: false, error: "timed out".into(), ..host() };
        assert_eq!(host_concerns(&away), [HostConcern::NotReached]);
        let status = cluster(vec![away], vec![component(Health::Unknown)]);
        assert_eq!(cluster_state(&status), Health::Broken);
        let full = HostStatus { disk_available: 99, memory_available: 49, ..host() };
        assert_eq!(host_concerns(&full), [HostConcern::DiskNearlyFull, HostConcern::MemoryNearlyFull]);
        assert_eq!(host_concerns(&HostStatus { disk_available: 100, memory_available: 50, ..host() }), []);
        assert_eq!(host_concerns(&HostStatus { disk_total: 0, memory_total: 0, ..host() }), []);
    }
}
