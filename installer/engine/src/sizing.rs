//! Sizes of services from what was measured and what the topology asks for (`docs/operator/sizing.md`).
//!
//! Given the facts of a host, its roles and the capacity of the cluster, numbers come out that templates use. They
//! are the same for the same input: measured memory is rounded down to 64 MiB, so that a kernel update does not
//! restart a database. A person's settings (`mariadb.buffer_pool_mb` and the like) win over what is computed.

use maxim_model::facts::Facts;
use maxim_model::names::Role;
use maxim_model::topology::{Database, Host, Topology};
use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Measured memory counts in steps of this.
const STEP: u64 = 64 * MIB;
/// Descriptors that every service may have, however small the cluster.
const NOFILE_FLOOR: u64 = 65_536;

/// Memory without which a role does not start, bytes.
pub const fn minimum_memory(role: Role) -> u64 {
    match role {
        Role::Im => 96 * MIB,
        Role::Console => 64 * MIB,
        Role::Mariadb => 256 * MIB,
        Role::Postgresql => 160 * MIB,
        Role::Redis => 48 * MIB,
    }
}

/// Share of a host's memory by role, when roles share a host.
const fn weight(role: Role) -> u64 {
    match role {
        Role::Mariadb | Role::Postgresql => 8,
        Role::Im => 6,
        Role::Redis => 2,
        Role::Console => 1,
    }
}

/// Memory that the capacity asks of a role on one host, bytes; `nodes` hosts share the users.
pub fn wanted_memory(role: Role, users: u64, rate: u64, nodes: u64) -> u64 {
    let users = users / nodes.max(1);
    let rate_here = rate / nodes.max(1);
    match role {
        // 12 kB for an idle session, as much again for a busy one, and batches in flight.
        Role::Im => 96 * MIB + users * 24 * 1024 + rate_here * 64 * 1024,
        Role::Console => 128 * MIB,
        // Hot rows of each user, and the recent end of the archive.
        Role::Mariadb => 256 * MIB + users * 64 * 1024 + rate * MIB,
        Role::Postgresql => 256 * MIB + users * 64 * 1024 + rate * MIB,
        Role::Redis => 64 * MIB + users * 8 * 1024,
    }
}

/// Bytes of a host's memory that go to one of its roles: its share by weight, after what the system keeps.
fn share(host: &Host, role: Role, memory: u64) -> u64 {
    let memory = memory / STEP * STEP;
    let system = (memory / 10).clamp(128 * MIB, 2 * GIB);
    let sum: u64 = host.roles.iter().map(|role| weight(*role)).sum();
    memory.saturating_sub(system) * weight(role) / sum.max(1)
}

/// The sizes of a host, by name. Bytes unless the name says otherwise.
pub fn sizing(topology: &Topology, host: &Host, facts: &Facts) -> BTreeMap<String, u64> {
    let users = u64::from(topology.capacity.users);
    let rate = u64::from(topology.capacity.messages_per_second);
    let nodes = topology.with_role(Role::Im).count().max(1) as u64;
    let cpus = u64::from(facts.cpus.max(1));
    let budget = |role| share(host, role, facts.memory_total);
    let nr_open = if facts.nr_open == 0 { 1_048_576 } else { facts.nr_open };
    let mut sizes = BTreeMap::new();
    let mut set = |name: &str, value: u64| {
        sizes.insert(name.to_owned(), value);
    };

    // Connections of one IM node to the database: enough for the group commit and for reads beside it.
    let pool = (4 + rate / nodes / 50).clamp(8, 64);
    let connections = nodes * pool + 30;
    set("im_database_connections", pool);
    set("database_max_connections", connections);

    let wanted = |role| wanted_memory(role, users, rate, nodes);
    let mariadb = budget(Role::Mariadb);
    set(
        "mariadb_buffer_pool",
        round(wanted(Role::Mariadb).min(mariadb * 6 / 10).clamp(64 * MIB, 64 * GIB), 32 * MIB),
    );
    set("mariadb_log_file", round((rate * 256 * 1024).clamp(96 * MIB, 2 * GIB), 32 * MIB));
    set("mariadb_table_cache", (connections * 8).clamp(400, 4000));
    set("mariadb_memory_max", mariadb.max(512 * MIB));

    let postgresql = budget(Role::Postgresql);
    set(
        "postgresql_shared_buffers",
        round(wanted(Role::Postgresql).min(postgresql / 4).clamp(64 * MIB, 16 * GIB), 32 * MIB),
    );
    set("postgresql_effective_cache", round((postgresql * 6 / 10).max(128 * MIB), 32 * MIB));
    set("postgresql_work_mem", (postgresql / 8 / connections).clamp(MIB, 32 * MIB) / MIB * MIB);
    set("postgresql_maintenance_work_mem", round((postgresql / 16).clamp(32 * MIB, GIB), 32 * MIB));
    set("postgresql_wal", round((rate * 512 * 1024).clamp(256 * MIB, 4 * GIB), 32 * MIB));
    set("postgresql_memory_max", postgresql.max(512 * MIB));

    let redis = budget(Role::Redis);
    set("redis_maxmemory", round(wanted(Role::Redis).min(redis * 3 / 4).max(48 * MIB), 16 * MIB));
    set("redis_max_clients", (nodes * 64).max(1024));

    // A client more than planned must not be what brings the service down: a fifth is added.
    let descriptors = (users / nodes * 12 / 10 + 4096).max(NOFILE_FLOOR).min(nr_open);
    set("im_nofile", descriptors);
    set("im_memory_max", budget(Role::Im).max(256 * MIB));
    set("im_worker_threads", cpus.clamp(1, 64));
    set("database_nofile", (connections + 2 * 4000 + 4096).max(NOFILE_FLOOR).min(nr_open));
    set("redis_nofile", (nodes * 64 + 4096).max(NOFILE_FLOOR).min(nr_open));
    set("console_memory_max", 256 * MIB);
    set("database_io_threads", cpus.clamp(2, 16));

    // What a person has set counts; 0 is "from the measurement".
    for (setting, size, unit) in [
        ("mariadb.buffer_pool_mb", "mariadb_buffer_pool", MIB),
        ("postgresql.shared_buffers_mb", "postgresql_shared_buffers", MIB),
        ("redis.maxmemory_mb", "redis_maxmemory", MIB),
        ("mariadb.max_connections", "database_max_connections", 1),
        ("postgresql.max_connections", "database_max_connections", 1),
    ] {
        let other_engine = setting.ends_with("max_connections")
            && !setting.starts_with(match topology.database {
                Database::Postgresql => "postgresql",
                _ => "mariadb",
            });
        let value = topology.settings.get(setting).and_then(serde_json::Value::as_u64).unwrap_or(0);
        if value > 0 && !other_engine {
            sizes.insert(size.to_owned(), value.saturating_mul(unit));
        }
    }
    sizes
}

/// Down to a step, but never to nothing.
const fn round(value: u64, step: u64) -> u64 {
    let rounded = value / step * step;
    if rounded == 0 { step } else { rounded }
}

/// What a host supports, in concurrent users and messages per second, with the assumption that limits each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supported {
    /// Users, and what limits them.
    pub users: (u64, &'static str),
    /// Messages per second, and what limits them; none: nothing on this host does.
    pub rate: Option<(u64, &'static str)>,
}

/// Messages per second that one processor of an IM node moves, a cautious fifth of what was measured.
const RATE_PER_CPU: u64 = 2_000;
/// Messages that one synced write of the database carries with group commit, at moderate load.
const MESSAGES_PER_SYNC: u64 = 20;

/// What the measured memory, processors, descriptors and sync latency of a host support for the whole cluster.
pub fn supported(topology: &Topology, host: &Host, facts: &Facts) -> Supported {
    let nodes = topology.with_role(Role::Im).count().max(1) as u64;
    let mut users = (u64::MAX, "nothing on this host");
    let mut rate: Option<(u64, &'static str)> = None;
    let mut limit_users = |value: u64, why| {
        if value < users.0 {
            users = (value, why);
        }
    };
    let mut limit_rate = |value: u64, why| {
        if rate.is_none_or(|(known, _)| value < known) {
            rate = Some((value, why));
        }
    };
    for role in &host.roles {
        let budget = share(host, *role, facts.memory_total);
        match role {
            Role::Im => {
                limit_users(
                    budget.saturating_sub(96 * MIB) / (24 * 1024) * nodes,
                    "memory of the IM core, 24 KiB for each user",
                );
                if facts.nr_open > 0 {
                    limit_users(
                        facts.nr_open.saturating_sub(4096) * 10 / 12 * nodes,
                        "open files of one process",
                    );
                }
                limit_rate(
                    u64::from(facts.cpus.max(1)) * RATE_PER_CPU * nodes,
                    "processors of the IM core, 2,000 messages/s each",
                );
            }
            Role::Redis => {
                limit_users(
                    budget.saturating_sub(48 * MIB) / (8 * 1024),
                    "memory of Redis, 8 KiB for each user",
                );
            }
            Role::Mariadb | Role::Postgresql => {
                if let Some(probe) = &facts.disk_probe {
                    limit_rate(
                        1_000_000 / probe.p99_micros.max(1) * MESSAGES_PER_SYNC,
                        "synced writes of the database's disk, 20 messages each",
                    );
                }
            }
            Role::Console => {}
        }
    }
    Supported { users, rate }
}

#[cfg(test)]
mod tests {
    use super::{GIB, MIB, sizing, supported};
    use crate::sample;
    use maxim_model::facts::DiskProbe;

    #[test]
    fn everything_together_fits_into_the_memory() {
        let topology = sample::single_host();
        for gib in [1_u64, 2, 4, 16, 64, 256] {
            let facts = sample::facts(gib * GIB);
            let sizes = sizing(&topology, &topology.hosts[0], &facts);
            let sum = sizes["mariadb_buffer_pool"] + sizes["redis_maxmemory"] + sizes["im_memory_max"];
            assert!(sum < gib * GIB, "{gib} GiB: {sizes:?}");
            assert!(sizes["mariadb_buffer_pool"] >= 64 * MIB && sizes["redis_maxmemory"] >= 48 * MIB);
        }
    }

    #[test]
    fn a_little_more_memory_changes_nothing_and_more_users_do() {
        let mut topology = sample::single_host();
        let base = sizing(&topology, &topology.hosts[0], &sample::facts(16 * GIB));
        assert_eq!(base, sizing(&topology, &topology.hosts[0], &sample::facts(16 * GIB + 3 * MIB)));
        topology.capacity.users = 200_000;
        topology.capacity.messages_per_second = 5_000;
        let busy = sizing(&topology, &topology.hosts[0], &sample::facts(16 * GIB));
        assert!(busy["im_nofile"] > base["im_nofile"], "{busy:?}");
        assert!(busy["mariadb_buffer_pool"] > base["mariadb_buffer_pool"]);
        assert!(busy["database_max_connections"] > base["database_max_connections"]);
    }

    #[test]
    fn what_a_person_has_set_wins() {
        let mut topology = sample::single_host();
        topology.settings.insert("mariadb.buffer_pool_mb".into(), 777.into());
        topology.settings.insert("postgresql.max_connections".into(), 999.into());
        topology.settings.insert("redis.maxmemory_mb".into(), 0.into());
        let sizes = sizing(&topology, &topology.hosts[0], &sample::facts(4 * GIB));
        assert_eq!(sizes["mariadb_buffer_pool"], 777 * MIB);
        assert_ne!(sizes["database_max_connections"], 999, "that is for the other engine");
        assert!(sizes["redis_maxmemory"] >= 48 * MIB);
    }

    #[test]
    fn a_slow_disk_limits_the_rate() {
        let topology = sample::single_host();
        let mut facts = sample::facts(4 * GIB);
        facts.disk_probe =
            Some(DiskProbe { path: "/x".into(), writes: 100, p50_micros: 9_000, p99_micros: 20_000 });
        let slow = supported(&topology, &topology.hosts[0], &facts);
        assert_eq!(slow.rate.unwrap().0, 1_000);
        assert!(slow.rate.unwrap().1.contains("disk"));
        assert!(slow.users.0 > 1_000);
    }
}
