//! What could be in the way: other servers, a firewall, SELinux; and whether something keeps the clock.
//!
//! Running programs are told by their names in `/proc`; services that are only installed by their unit files.

use crate::files::read_text;
use crate::procfs;
use maxim_model::facts::Facts;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Programs of other servers, by process name (the kernel keeps 15 letters of it).
const SERVERS: &[&str] = &[
    "mariadbd",
    "mysqld",
    "postgres",
    "redis-server",
    "valkey-server",
    "nginx",
    "apache2",
    "httpd",
    "haproxy",
    "caddy",
    "prosody",
    "ejabberd",
    "beam.smp",
    "openfire",
];
/// Programs that keep the clock.
const TIME_SERVICES: &[&str] =
    &["systemd-timesyn", "chronyd", "ntpd", "openntpd", "ptp4l", "vmtoolsd", "hv_utils"];
/// Units that are started at boot and would take ports later.
const UNITS: &[&str] = &[
    "mariadb",
    "mysql",
    "mysqld",
    "postgresql",
    "redis",
    "redis-server",
    "valkey",
    "nginx",
    "apache2",
    "httpd",
    "prosody",
    "ejabberd",
];

/// Fills in conflicts, firewall, SELinux and the time service.
pub fn look(facts: &mut Facts) {
    let (mut running, mut firewall, mut time) = (BTreeSet::new(), String::new(), String::new());
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let name = procfs::name(pid);
        if SERVERS.contains(&name.as_str()) && is_foreign(pid) {
            running.insert(format!("{name} (running)"));
        }
        if name == "firewalld" {
            firewall = name;
        } else if time.is_empty() && TIME_SERVICES.contains(&name.as_str()) {
            time = if name == "systemd-timesyn" { "systemd-timesyncd".to_owned() } else { name };
        }
    }
    for unit in UNITS {
        let wanted = format!("/etc/systemd/system/multi-user.target.wants/{unit}.service");
        if Path::new(&wanted).symlink_metadata().is_ok() {
            running.insert(format!("{unit} (starts at boot)"));
        }
    }
    facts.conflicts = running.into_iter().collect();
    facts.time_service = time;
    facts.firewall = if firewall.is_empty() { quiet_firewall() } else { firewall };
    facts.selinux = selinux();
}

/// Neither one of our units, nor a process of another mount namespace's container that we see by chance: what runs
/// from our images belongs to a unit of ours.
fn is_foreign(pid: u32) -> bool {
    !procfs::unit(pid).is_some_and(|unit| unit.starts_with("maxim-"))
}

/// Firewalls that have no process.
fn quiet_firewall() -> String {
    let ufw = read_text("/etc/ufw/ufw.conf");
    if ufw.lines().any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes")) {
        return "ufw".to_owned();
    }
    // A rule set that is loaded at boot; whether it drops our ports is found by the connection probe.
    let nftables = Path::new("/etc/systemd/system/sysinit.target.wants/nftables.service");
    if nftables.symlink_metadata().is_ok() {
        return "nftables".to_owned();
    }
    String::new()
}

fn selinux() -> String {
    match read_text("/sys/fs/selinux/enforce").as_str() {
        "1" => "enforcing".to_owned(),
        "0" => "permissive".to_owned(),
        _ if Path::new("/etc/selinux/config").exists() => "disabled".to_owned(),
        _ => String::new(),
    }
}
