//! Proof that the test hosts are what the scenarios take them for: bare, apart, without a way out, and gone
//! afterwards whatever happened to the run.

use crate::cluster::is_well;
use crate::product::{FORCED, Person, install_arguments};
use maxim_tests::hosts::{
    HostSpec, Release, SUDO_PASSWORD, Testbed, USER_SUDO_FREE, USER_SUDO_PASSWORD, base, is_alive, reap,
    wait_for,
};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn hosts_are_bare_apart_and_without_a_way_out() {
    let testbed = Testbed::of(&["app1", "db1", "cache1"]).unwrap();
    let mut identities = BTreeSet::new();
    for host in testbed.hosts() {
        assert_eq!(host.sh("hostname").unwrap().trim(), host.name());
        assert!(identities.insert(host.sh("cat /etc/machine-id").unwrap()), "machine ids are unique");
        assert!(identities.insert(host.read_file("/etc/ssh/ssh_host_ed25519_key.pub").unwrap()));
        assert!(host.sh("ip addr show eth0").unwrap().contains(&host.address()));
        assert_eq!(host.sh("cat /etc/debian_version").unwrap().split('.').next(), Some("12"));
        for program in ["python3", "docker", "mariadbd", "redis-server", "curl", "wget", "nft"] {
            assert_ne!(host.exec(&format!("command -v {program}")).unwrap().code, 0, "{program} is there");
        }
    }
    let app = testbed.host("app1");
    let reach = |address: &str, port: u16| {
        app.exec(&format!("timeout 5 bash -c ': </dev/tcp/{address}/{port}'")).unwrap()
    };
    assert_eq!(reach(&testbed.host("db1").address(), 22).code, 0, "hosts of a run reach each other");
    assert_eq!(app.sh("ip route show default; ip -6 route show default").unwrap(), "");
    for outside in own_addresses().iter().map(String::as_str).chain(["198.51.100.7"]) {
        let outcome = reach(outside, 22);
        assert!(outcome.stderr.contains("unreachable"), "{outside} can be tried: {outcome:?}");
    }
}

/// The addresses that this machine has outside of test networks.
fn own_addresses() -> Vec<String> {
    let shown = Command::new("ip").args(["-4", "-o", "addr", "show", "scope", "global"]).output().unwrap();
    String::from_utf8(shown.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3)?.split('/').next().map(str::to_owned))
        .filter(|address| !address.starts_with("10.77."))
        .collect()
}

#[test]
fn a_disk_outlives_its_power_and_a_cable_can_be_pulled() {
    let testbed = Testbed::of(&["solo"]).unwrap();
    let host = testbed.host("solo");
    host.sh("echo kept >/root/kept && sync && systemd-run -q --unit=sleeper sleep 1000").unwrap();
    let first_boot = host.sh("cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1").unwrap();
    host.power_off_hard().unwrap();
    assert!(host.ended());
    assert_eq!(host.exec("true").unwrap().code, 255, "a host without power answers nothing");
    host.boot().unwrap();
    assert_eq!(host.sh("cat /root/kept").unwrap(), "kept\n");
    assert_ne!(host.exec("systemctl is-active sleeper").unwrap().code, 0, "what ran is gone");
    assert_ne!(host.sh("cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1").unwrap(), first_boot);

    host.cut_off().unwrap();
    assert_eq!(host.exec("true").unwrap().code, 255, "a host without a cable answers nothing");
    host.reconnect().unwrap();
    wait_for("the host to be heard again", Duration::from_secs(20), || {
        (host.exec("true").unwrap().code == 0).then_some(())
    })
    .unwrap();

    host.reboot().unwrap();
    assert_eq!(host.sh("cat /root/kept").unwrap(), "kept\n");
}

#[test]
fn a_snapshot_sees_what_changed_and_nothing_else() {
    let testbed = Testbed::of(&["solo"]).unwrap();
    let host = testbed.host("solo");
    let before = host.snapshot().unwrap();
    let live = host.live_state().unwrap();
    // Touched but as before: not a change.
    host.sh("cp -p /etc/fstab /tmp/f && cat /tmp/f >/etc/fstab && rm /tmp/f && chmod 644 /etc/fstab")
        .unwrap();
    assert_eq!(before.changes_to(&host.snapshot().unwrap()), vec![]);
    assert_eq!(host.live_state().unwrap(), live);

    host.sh("mkdir -p /opt/new && echo x >/opt/new/file && chmod 600 /etc/issue && rm /etc/motd \
         && useradd -r stranger && ln -s /dev/null /etc/systemd/system/new.service")
        .unwrap();
    let changes = before.changes_to(&host.snapshot().unwrap());
    let paths: Vec<_> = changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/etc/group",
            "/etc/gshadow",
            "/etc/issue",
            "/etc/motd",
            "/etc/passwd",
            "/etc/shadow",
            "/etc/systemd/system/new.service",
            "/opt/new",
            "/opt/new/file",
        ]
    );
    host.sh("userdel stranger; rm -r /opt/new /etc/systemd/system/new.service; chmod 644 /etc/issue")
        .unwrap();
    let left: Vec<_> = before.changes_to(&host.snapshot().unwrap()).into_iter().map(|c| c.path).collect();
    assert_eq!(left, ["/etc/motd"], "what is put back is no change");
    let name = host.occupy_port(5222).unwrap();
    assert!(host.sh("ss -Hlntp sport = :5222").unwrap().contains(&name));
    assert_ne!(host.live_state().unwrap(), live, "a listener is seen");
}

#[test]
fn a_host_can_be_poor_late_and_strict() {
    let testbed =
        Testbed::up(&[HostSpec::new("poor").memory_mib(384).small_disk("/opt", 16), HostSpec::new("strict")])
            .unwrap();
    let poor = testbed.host("poor");
    assert!(poor.sh("head -n 1 /proc/meminfo").unwrap().contains(&format!(" {} kB", 384 * 1024)));
    let full = poor.exec("head -c 20M /dev/zero >/opt/big").unwrap();
    assert!(full.code != 0 && full.stderr.contains("No space left"), "{full:?}");

    let clock = || poor.sh("date +%s").unwrap().trim().parse::<i64>().unwrap();
    let here = || i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    poor.skew_clock(1000).unwrap();
    assert!((clock() - here() - 1000).abs() < 30);
    poor.skew_clock(0).unwrap();
    assert!((clock() - here()).abs() < 30);

    let strict = testbed.host("strict");
    assert_eq!(strict.exec_as(USER_SUDO_FREE, "sudo -n id -u", "").unwrap().stdout, "0\n");
    assert_ne!(strict.exec_as(USER_SUDO_PASSWORD, "sudo -n id -u", "").unwrap().code, 0);
    let ask = "sudo -S -p '' id -u";
    let right = strict.exec_as(USER_SUDO_PASSWORD, ask, &format!("{SUDO_PASSWORD}\n")).unwrap();
    assert_eq!(right.stdout, "0\n", "{right:?}");
    assert_ne!(strict.exec_as(USER_SUDO_PASSWORD, ask, "wrong\n").unwrap().code, 0);
}

#[test]
fn ten_hosts_boot_at_once() {
    let names: Vec<_> = (1..=10).map(|number| format!("many{number}")).collect();
    let started = Instant::now();
    let testbed = Testbed::of(&names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    println!("ten hosts answered after {:?}", started.elapsed());
    testbed
        .each(|host| {
            host.sh("systemctl is-system-running")?;
            Ok(())
        })
        .unwrap();
}

#[test]
fn every_supported_debian_boots() {
    for (release, version) in [(Release::Trixie, "13"), (Release::Bullseye, "11")] {
        if let Err(error) = base::base(release) {
            assert!(release == Release::Bullseye, "Debian 13 must be served: {error:#}");
            crate::skip("every_supported_debian_boots", &format!("Debian 11 is not served: {error:#}"));
            continue;
        }
        let testbed = Testbed::up(&[HostSpec::new("solo").release(release)]).unwrap();
        let found = testbed.host("solo").sh("cat /etc/debian_version").unwrap();
        assert_eq!(found.trim().split('.').next(), Some(version));
    }
}

#[test]
fn a_killed_run_leaves_nothing() {
    let (mut holder, folder) = hold_two_hosts();
    let alive = traces(&folder);
    assert_eq!(alive.len(), 5, "two namespaces, a bridge, mounts and control groups: {alive:?}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    wait_for("the keeper to clean up", Duration::from_secs(30), || (!folder.exists()).then_some(())).unwrap();
    assert_eq!(traces(&folder), Vec::<String>::new());
}

#[test]
fn a_run_killed_with_its_keeper_is_reaped_by_the_next() {
    let (mut holder, folder) = hold_two_hosts();
    let keeper = folder.join("keeper");
    let pid = fs::read_to_string(&keeper).unwrap().split(' ').next().unwrap().to_owned();
    assert!(is_alive(&keeper));
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    holder.kill().unwrap();
    holder.wait().unwrap();
    wait_for("the keeper to end", Duration::from_secs(10), || (!is_alive(&keeper)).then_some(())).unwrap();
    assert!(folder.exists(), "nobody was left to clean up");
    reap().unwrap();
    assert!(!folder.exists());
    assert_eq!(traces(&folder), Vec::<String>::new());
}

#[test]
fn hosts_for_people_come_with_a_topology_and_go_without_a_trace() {
    let program = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_maxim-hosts")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    base::base(Release::Bookworm).unwrap();
    let printed = program(&["up", "3"]);
    let file = printed.lines().find_map(|line| line.strip_prefix("# ")).expect("where it is kept");
    let folder = PathBuf::from(file).parent().unwrap().to_owned();
    let run = folder.file_name().unwrap().to_str().unwrap().to_owned();
    // Whatever comes of it, they are taken down.
    let outcome = std::panic::catch_unwind(|| {
        assert!(program(&["list"]).contains(&format!("{run}/cache1")), "it is listed");
        assert_eq!(program(&["ssh", &format!("{run}/db1"), "hostname"]), "db1\n");
        assert_eq!(traces(&folder).len(), 6, "three namespaces, a bridge, mounts and control groups");
        // As it was printed, by somebody who has never seen these hosts.
        let person = Person::new();
        let topology = person.file("cluster.yaml", &printed);
        let check = ["check", "-f", &topology, FORCED[0], FORCED[1], "--output", "json"];
        let checked = person.run(&check).ok();
        let seen: BTreeSet<_> = checked
            .events()
            .iter()
            .filter(|event| event["event"] == "checked" && event["result"]["id"] == "access.agent")
            .map(|event| event["host"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(seen, ["app1", "cache1", "db1"].map(str::to_owned).into());
        if std::env::var_os("MAXIM_TEST_ALL").is_some() {
            let arguments = install_arguments(&topology);
            let installed = person.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(is_well(&installed.ok().result()));
        }
    });
    program(&["down", &run]);
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    assert!(!folder.exists());
    assert_eq!(traces(&folder), Vec::<String>::new());
}

/// A process that has two hosts up, and the folder of its run.
fn hold_two_hosts() -> (Child, PathBuf) {
    base::base(Release::Bookworm).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let answer = scratch.path().join("answer");
    let mut holder = Command::new(env!("CARGO_BIN_EXE_maxim-hosts"))
        .args(["hold", "2", "bookworm"])
        .arg(&answer)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let folder = wait_for("two hosts to be held", Duration::from_mins(2), || {
        assert!(holder.try_wait().unwrap().is_none(), "the holder ended");
        fs::read_to_string(&answer).ok()
    })
    .unwrap();
    (holder, PathBuf::from(folder))
}

/// What the machine shows of a run: namespaces, the bridge, mounts (as one), processes.
fn traces(folder: &Path) -> Vec<String> {
    let run = folder.file_name().unwrap().to_string_lossy().into_owned();
    let mut found: Vec<String> = fs::read_dir("/run/netns")
        .map(|entries| {
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    found.retain(|name| name.starts_with(&format!("{run}-")));
    if Path::new("/sys/class/net").join(&run).exists() {
        found.push(format!("bridge {run}"));
    }
    let place = format!("{}/", folder.display());
    if fs::read_to_string("/proc/self/mounts").unwrap().contains(&place) {
        found.push("mounts".to_owned());
    }
    let groups = Command::new("find")
        .args(["/sys/fs/cgroup", "-maxdepth", "5", "-type", "d", "-name", &format!("maxim-{run}-*")])
        .output()
        .unwrap();
    if !groups.stdout.is_empty() {
        found.push("control groups".to_owned());
    }
    // A machine whose nspawn was killed has no trace in its command line, but its root is still there.
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let orphaned = fs::read_to_string(entry.path().join("mountinfo"))
            .is_ok_and(|mounts| mounts.contains(&format!("upperdir={place}")));
        let shown = String::from_utf8_lossy(&command).replace('\0', " ");
        if orphaned && !folder.exists() {
            found.push(format!("process {shown}"));
        }
    }
    found
}
