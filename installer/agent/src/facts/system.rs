//! The system itself: kernel, distribution, processors, memory, addresses, kernel settings.

use crate::files::read_text;
use maxim_model::facts::Facts;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::utsname::uname;
use nix::unistd::{AccessFlags, User, access, geteuid};
use std::collections::BTreeMap;
use std::path::Path;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Kernel settings that checks and playbooks care for.
const SYSCTLS: &[&str] = &[
    "fs.file-max",
    "fs.nr_open",
    "kernel.pid_max",
    "net.core.somaxconn",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "vm.max_map_count",
    "vm.overcommit_memory",
    "vm.swappiness",
];

/// Measures it.
pub fn look() -> Facts {
    let mut facts = Facts::default();
    if let Ok(name) = uname() {
        let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
        facts.hostname = text(name.nodename());
        facts.architecture = text(name.machine());
        facts.system = text(name.sysname()).to_ascii_lowercase();
        facts.kernel = text(name.release());
    }
    facts.machine_id = read_text("/etc/machine-id");
    facts.distribution = distribution(&first_text(&["/etc/os-release", "/usr/lib/os-release"]));
    facts.glibc = glibc();
    facts.systemd = systemd_version();
    facts.uid = geteuid().as_raw();
    facts.user =
        User::from_uid(geteuid()).ok().flatten().map_or_else(|| facts.uid.to_string(), |user| user.name);
    facts.cpus = std::thread::available_parallelism().map_or(0, |count| count.get() as u32);
    facts.cpu_model = cpu_model(&read_text("/proc/cpuinfo"));
    (facts.memory_total, facts.memory_available) = memory();
    (facts.addresses, facts.mtu) = interfaces();
    facts.sysctls = sysctls();
    facts.nr_open = facts.sysctls.get("fs.nr_open").and_then(|value| value.parse().ok()).unwrap_or(0);
    facts.sysctl_writable = access(Path::new("/proc/sys/net/core/somaxconn"), AccessFlags::W_OK).is_ok()
        && access(Path::new("/proc/sys/vm/swappiness"), AccessFlags::W_OK).is_ok();
    facts.transparent_huge_pages = selected(&read_text("/sys/kernel/mm/transparent_hugepage/enabled"));
    facts
}

fn first_text(paths: &[&str]) -> String {
    paths.iter().map(read_text).find(|text| !text.is_empty()).unwrap_or_default()
}

fn distribution(os_release: &str) -> String {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|text| text.trim_matches('"').to_owned())
    };
    value("PRETTY_NAME").or_else(|| value("NAME")).unwrap_or_default()
}

fn cpu_model(cpuinfo: &str) -> String {
    cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name").or_else(|| line.strip_prefix("Model")))
        .and_then(|rest| rest.split_once(':'))
        .map_or_else(String::new, |(_, name)| name.trim().to_owned())
}

/// The version is part of the library's own text; no program need be asked.
fn glibc() -> String {
    const PLACES: &[&str] = &[
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib64/libc.so.6",
        "/usr/lib64/libc.so.6",
        "/usr/lib/libc.so.6",
        "/lib/aarch64-linux-gnu/libc.so.6",
        "/lib/libc.so.6",
    ];
    let Some(path) = PLACES.iter().find(|path| Path::new(path).exists()) else { return String::new() };
    let Ok(bytes) = std::fs::read(path) else { return String::new() };
    glibc_in(&bytes)
}

fn glibc_in(library: &[u8]) -> String {
    const MARK: &[u8] = b"GNU C Library ";
    const VERSION: &[u8] = b"release version ";
    let Some(mark) = find(library, MARK) else { return String::new() };
    let rest = &library[mark..(mark + 200).min(library.len())];
    let Some(version) = find(rest, VERSION) else { return String::new() };
    let digits =
        rest[version + VERSION.len()..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.');
    let text: String = digits.map(|&byte| byte as char).collect();
    text.trim_end_matches('.').to_owned()
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    // The first byte is rare enough to skip fast through megabytes.
    let mut start = 0;
    while let Some(at) = bytes[start..].iter().position(|&byte| byte == part[0]) {
        if bytes[start + at..].starts_with(part) {
            return Some(start + at);
        }
        start += at + 1;
    }
    None
}

/// 0 where systemd is not PID 1. Its version is in the name of its shared library; a host whose library is named
/// otherwise is asked by its own program.
fn systemd_version() -> u32 {
    if !Path::new("/run/systemd/system").is_dir() {
        return 0;
    }
    for folder in
        ["/usr/lib/systemd", "/lib/systemd", "/usr/lib/x86_64-linux-gnu/systemd", "/usr/lib64/systemd"]
    {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let digits = name
                .strip_prefix("libsystemd-shared-")
                .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
            if let Some(version) = digits.and_then(|digits| digits.parse().ok()) {
                return version;
            }
        }
    }
    let asked = crate::process::Invocation::new("systemctl", &["--version"])
        .and_then(|program| program.check(std::time::Duration::from_secs(5)));
    let text = asked.map(|output| output.stdout).unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(1)
}

/// Installed and available memory, bytes; a control group's limit counts where it is lower.
fn memory() -> (u64, u64) {
    let memory_only = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let Ok(system) = System::new_with_specifics(memory_only) else { return (0, 0) };
    let (mut total, mut available) = (system.total_memory(), system.available_memory());
    if let Some(limits) = system.cgroup_limits()
        && limits.total_memory > 0
        && limits.total_memory < total
    {
        total = limits.total_memory;
        available = available.min(limits.free_memory);
    }
    (total, available)
}

fn interfaces() -> (Vec<String>, u32) {
    let mut addresses = Vec::new();
    let mut mtu = u32::MAX;
    for interface in getifaddrs().into_iter().flatten() {
        let up = interface.flags.contains(InterfaceFlags::IFF_UP);
        if up && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            let own = read_text(format!("/sys/class/net/{}/mtu", interface.interface_name));
            mtu = mtu.min(own.parse().unwrap_or(u32::MAX));
        }
        let Some(address) = interface.address else { continue };
        if let Some(four) = address.as_sockaddr_in() {
            addresses.push(four.ip().to_string());
        } else if let Some(six) = address.as_sockaddr_in6() {
            addresses.push(six.ip().to_string());
        }
    }
    addresses.sort();
    addresses.dedup();
    (addresses, if mtu == u32::MAX { 0 } else { mtu })
}

fn sysctls() -> BTreeMap<String, String> {
    SYSCTLS
        .iter()
        .map(|name| (*name, read_text(format!("/proc/sys/{}", name.replace('.', "/")))))
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}

/// `a [b] c` → `b`.
fn selected(text: &str) -> String {
    text.split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or_else(String::new, |(word, _)| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{cpu_model, distribution, glibc_in, selected};

    #[test]
    fn texts_of_the_system_are_read() {
        assert_eq!(
            distribution("NAME=Debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        assert_eq!(distribution("NAME=Alpine"), "Alpine");
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: Imaginary 9000\n"), "Imaginary 9000");
        assert_eq!(selected("always [madvise] never"), "madvise");
        assert_eq!(selected("never"), "");
        let library =
            b"\0\0GGNU C Library (Debian GLIBC 2.36-9+deb12u4) stable release version 2.36.\nCopyright";
        assert_eq!(glibc_in(library), "2.36");
        assert_eq!(glibc_in(b"musl"), "");
    }
}
