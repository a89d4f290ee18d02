//! Sample topologies and facts for the tests of this crate.

use crate::context::{AssumeYes, CancelFlag, Context};
use crate::delivery::Delivery;
use crate::events::Collector;
use crate::state::StateDir;
use maxim_model::facts::Facts;
use maxim_model::names::{Profile, Role, Stage};
use maxim_model::task::{AbsentTask, Task, TaskKind};
use maxim_model::topology::{
    AccessSecrets, Backup, Capacity, Connection, Database, Host, KnownHosts, Paths, Ports, Redis, Ssh, Tls,
    Topology,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A host reached by SSH.
pub fn host(name: &str, address: &str, roles: &[Role]) -> Host {
    Host {
        name: name.into(),
        address: address.into(),
        roles: roles.to_vec(),
        connection: Connection::Ssh(Ssh {
            user: "root".into(),
            port: 22,
            key: String::new(),
            sudo: false,
            sudo_password_file: String::new(),
            password_file: String::new(),
            known_hosts: KnownHosts::Strict,
            jump: String::new(),
            jump_key: String::new(),
            jump_password_file: String::new(),
        }),
    }
}

fn standard(hosts: Vec<Host>) -> Topology {
    Topology {
        name: "acme".into(),
        domain: "im.acme.example".into(),
        profile: Profile::Standard,
        capacity: Capacity { users: 5000, messages_per_second: 1000 },
        hosts,
        tls: Tls::PrivateCa,
        database: Database::Mariadb,
        redis: Redis::Own,
        ports: Ports {
            xmpp: 5222,
            xmpp_tls: 5223,
            https: 443,
            console: 9443,
            metrics: 9280,
            mariadb: 3306,
            postgresql: 5432,
            redis: 6379,
        },
        paths: Paths {
            software: "/opt/maxim".into(),
            configuration: "/etc/maxim".into(),
            data: "/var/lib/maxim".into(),
            logs: "/var/log/maxim".into(),
            run: "/run/maxim".into(),
        },
        listen: "0.0.0.0".into(),
        settings: BTreeMap::new(),
        backup: Backup {
            schedule: String::new(),
            time_zone: String::new(),
            verify: String::new(),
            drill: String::new(),
            repository: serde_json::Value::Null,
            retention: (7, 4, 6),
        },
    }
}

/// Everything on one host.
pub fn single_host() -> Topology {
    standard(vec![host("one", "10.77.0.11", &[Role::Mariadb, Role::Redis, Role::Im, Role::Console])])
}

/// Application, database and cache.
pub fn three_hosts() -> Topology {
    standard(vec![
        host("app1", "10.77.0.11", &[Role::Im, Role::Console]),
        host("db1", "10.77.0.12", &[Role::Mariadb]),
        host("cache1", "10.77.0.13", &[Role::Redis]),
    ])
}

/// One machine without root, below a folder.
pub fn embedded(root: &Path) -> Topology {
    let below = |name: &str| root.join(name).display().to_string();
    let mut topology = standard(vec![Host {
        name: "localhost".into(),
        address: "127.0.0.1".into(),
        roles: vec![Role::Im, Role::Console],
        connection: Connection::Local,
    }]);
    topology.name = "embedded".into();
    topology.domain = "localhost".into();
    topology.profile = Profile::Embedded;
    topology.database = Database::Sqlite;
    topology.redis = Redis::Memory;
    topology.listen = "127.0.0.1".into();
    topology.ports.https = 8443;
    topology.paths = Paths {
        software: root.display().to_string(),
        configuration: below("etc"),
        data: below("data"),
        logs: below("log"),
        run: below("run"),
    };
    topology
}

/// What an action is given that says yes to everything: no delivery, no secrets, one state folder.
pub fn context(topology: Topology, state: StateDir) -> Context {
    Context {
        topology,
        topology_text: String::new(),
        delivery: Delivery::None,
        state,
        access: AccessSecrets::default(),
        concurrency: 8,
        force: Vec::new(),
        accept_state: false,
        events: Arc::new(Collector::default()),
        ask: Arc::new(AssumeYes),
        cancel: CancelFlag::new(),
        program: "/nonexistent".into(),
        agent_socket: None,
    }
}

/// A task that removes a file.
pub fn task(id: &str, stage: Stage) -> Task {
    Task {
        id: id.into(),
        component: "x".into(),
        stage,
        restarts: Vec::new(),
        reloads: Vec::new(),
        deadline_seconds: 1,
        kind: TaskKind::Absent(AbsentTask::File("/x".into())),
    }
}

/// Facts of a sound Debian 12 host with this much memory.
pub fn facts(memory: u64) -> Facts {
    Facts {
        hostname: "one".into(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        architecture: "x86_64".into(),
        system: "linux".into(),
        kernel: "6.1.0-18-amd64".into(),
        distribution: "Debian GNU/Linux 12 (bookworm)".into(),
        glibc: "2.36".into(),
        systemd: 252,
        user: "root".into(),
        cpus: 4,
        memory_total: memory,
        memory_available: memory * 9 / 10,
        addresses: vec!["127.0.0.1".into(), "10.77.0.11".into()],
        mtu: 1500,
        time_service: "systemd-timesyncd".into(),
        nr_open: 1_048_576,
        sysctl_writable: true,
        ..Facts::default()
    }
}

/// Facts of a host on which everything is as the checks want it, for its first host.
pub fn sound_facts(topology: &Topology, memory: u64) -> Facts {
    let paths = &topology.paths;
    let disk = |path: &String| maxim_model::facts::Disk {
        path: path.clone(),
        measured: "/".into(),
        mount: "/".into(),
        file_system: "ext4".into(),
        total: 100 << 30,
        available: 80 << 30,
        inodes_available: 5_000_000,
        ..Default::default()
    };
    Facts {
        disks: [&paths.software, &paths.configuration, &paths.data, &paths.logs].map(disk).to_vec(),
        ports: crate::phases::probe::ports(topology, &topology.hosts[0])
            .into_iter()
            .map(|port| maxim_model::facts::PortFact {
                port: port.port,
                component: port.component,
                state: maxim_model::facts::PortState::Free,
            })
            .collect(),
        sysctls: BTreeMap::from([("net.core.somaxconn".to_owned(), "32768".to_owned())]),
        transparent_huge_pages: "madvise".into(),
        ..facts(memory)
    }
}
