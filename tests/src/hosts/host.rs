//! One test host: start it, work on it over SSH, cut it off, pull its plug, boot it again.
//!
//! It is given its folder with an overlay mounted, and its network namespace, by [`super::Testbed`].
//! Its disk outlives its power: [`Host::power_off_hard`] and [`Host::start`] are a crash and a boot.

use super::base::Release;
use super::cgroup;
use super::network::Bridge;
use super::snapshot::Snapshot;
use super::testbed::HostSpec;
use super::{run, wait_for};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// From start to answering over SSH; a loaded machine with ten hosts has been seen to need 15 s.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// `sh -c ENTER FOLDER PROGRAM…` writes down its number, joins the control groups of the host, and becomes the
/// program.
const ENTER: &str = "echo $$ >\"$0/pid\" && while read -r group; do echo $$ >\"$group/cgroup.procs\" || exit 1; \
                     done <\"$0/cgroups\" && exec \"$@\"";

/// nspawn makes `/proc/sys` read-only. A fresh `proc` is not: its `net` shows the namespace of who looks. systemd reads
/// the table of mounts a while after it changed, and makes units of them: what is compared later begins after that.
const KERNEL_SETTINGS: &str = "set -e; mkdir -p /run/proc /run/vm; mount -t proc proc /run/proc; \
    mount --bind /run/proc/sys/net /proc/sys/net; umount -l /run/proc; \
    cp -r --no-preserve=mode /proc/sys/vm/. /run/vm/ 2>/dev/null || true; \
    mount --bind /run/vm /proc/sys/vm; \
    for i in $(seq 200); do \
        if systemctl -q is-active proc-sys-net.mount && systemctl -q is-active proc-sys-vm.mount \
            && ! systemctl -q is-active run-proc.mount; then exit 0; fi; sleep 0.05; \
    done; echo \"systemd did not notice its mounts\" >&2; exit 1";

/// What a program on a host said and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code; 255 when SSH itself failed.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// A machine of a [`super::Testbed`].
#[derive(Debug)]
pub struct Host {
    spec: HostSpec,
    bridge: Bridge,
    last: u8,
    folder: PathBuf,
    base: PathBuf,
    ssh_config: PathBuf,
    machine: Mutex<Option<Child>>,
}

impl Host {
    pub(super) fn new(
        spec: HostSpec,
        bridge: Bridge,
        last: u8,
        folder: PathBuf,
        base: PathBuf,
        ssh_config: PathBuf,
    ) -> Self {
        Self { spec, bridge, last, folder, base, ssh_config, machine: Mutex::new(None) }
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its Debian.
    pub(super) fn release(&self) -> Release {
        self.spec.release
    }

    /// Its address in the run's private subnet.
    pub fn address(&self) -> String {
        self.bridge.address(self.last)
    }

    /// Its root file system as this machine sees it. What the host mounts itself (`/run`, a `tmpfs`) is not
    /// in it.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// What it printed while it booted.
    pub fn console_log(&self) -> String {
        fs::read_to_string(self.folder.join("console.log")).unwrap_or_default()
    }

    /// Writes a file on its disk from below, whether or not it runs.
    pub fn write_file(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.root().join(path.trim_start_matches('/'));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }

    /// Reads a file of its disk from below.
    pub fn read_file(&self, path: &str) -> Result<String> {
        let path = self.root().join(path.trim_start_matches('/'));
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Boots it and returns at once; [`Self::wait_ready`] waits.
    pub fn start(&self) -> Result<()> {
        let mut machine = self.machine.lock().expect("no holder of this lock panics");
        ensure!(machine.is_none(), "{} runs already", self.name());
        self.reconnect()?;
        let log = File::options().create(true).append(true).open(self.folder.join("console.log"))?;
        // The shell writes down its own number before it becomes nspawn: a run killed in between can be
        // cleaned up all the same. A session of its own keeps a terminal's signals away.
        let groups = cgroup::make(&self.bridge.namespace(self.name()), self.spec.memory_mib)?;
        fs::write(self.folder.join("cgroups"), groups.join("\n") + "\n")?;
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", ENTER]).arg(&self.folder);
        command.args(["systemd-nspawn", "-q", "--register=no", "--keep-unit", "--link-journal=no"]);
        command.args(["--resolv-conf=off", "--timezone=off", "--capability=CAP_NET_ADMIN", "-D"]);
        // nspawn keeps state by machine name for the whole of this machine, so that carries the run.
        command.arg(self.root()).arg("-M").arg(self.bridge.namespace(self.name()));
        command.arg(format!("--hostname={}", self.name()));
        command.arg(format!("--network-namespace-path=/run/netns/{}", self.bridge.namespace(self.name())));
        for (path, megabytes) in &self.spec.tmpfs {
            command.arg(format!("--tmpfs={path}:mode=755,size={megabytes}m"));
        }
        command.arg("-b").env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        *machine = Some(command.spawn().context("start systemd-nspawn (tests/setup hosts installs it)")?);
        Ok(())
    }

    /// Waits until sshd answers and systemd calls the machine running.
    pub fn wait_ready(&self) -> Result<()> {
        let address: SocketAddr = format!("{}:22", self.address()).parse()?;
        let greeted = wait_for(&format!("sshd of {} at {address}", self.name()), BOOT_LIMIT, || {
            if self.ended() {
                return Some(false);
            }
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
            let mut greeting = [0; 4];
            stream.read_exact(&mut greeting).ok()?;
            (&greeting == b"SSH-").then_some(true)
        });
        if !matches!(greeted, Ok(true)) {
            let why = greeted.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
            bail!("{} did not boot: {why}; its console:\n{}", self.name(), tail(&self.console_log(), 30));
        }
        if let Some(mebibytes) = self.spec.memory_mib {
            self.write_file("/usr/local/share/meminfo", meminfo(mebibytes))?;
            self.sh("mount --bind /usr/local/share/meminfo /proc/meminfo")?;
        }
        if self.spec.kernel_settings {
            self.sh(KERNEL_SETTINGS)?;
        }
        let state = self.exec(
            "systemctl is-system-running --wait || \
             { systemctl --failed --no-legend --plain; journalctl -q -b -p warning --no-pager | tail -n 20; }",
        )?;
        ensure!(
            state.stdout.trim() == "running",
            "{} booted badly: {}{}",
            self.name(),
            state.stdout,
            state.stderr
        );
        Ok(())
    }

    /// Whether the machine is off (never started, powered off, or ended by itself).
    pub fn ended(&self) -> bool {
        let mut machine = self.machine.lock().expect("no holder of this lock panics");
        match machine.as_mut() {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => true,
        }
    }

    /// Runs a shell command as root over SSH, whatever its exit code.
    pub fn exec(&self, command: &str) -> Result<Output> {
        self.exec_as("root", command, "")
    }

    /// Runs a shell command as `user` over SSH with `input` on its standard input.
    pub fn exec_as(&self, user: &str, command: &str, input: &str) -> Result<Output> {
        let mut child = Command::new("ssh")
            .arg("-F")
            .arg(&self.ssh_config)
            .args(["-l", user, self.name(), "--", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start ssh")?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that ends without reading its input is no fault of ours.
            stdin.write_all(input.as_bytes()).ok();
        }
        let output = child.wait_with_output()?;
        Ok(Output {
            code: output.status.code().unwrap_or(255),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a shell command as root over SSH and gives what it printed; another exit code than 0 is an error.
    pub fn sh(&self, command: &str) -> Result<String> {
        let output = self.exec(command)?;
        ensure!(
            output.code == 0,
            "on {}: {command}: exit {}: {}{}",
            self.name(),
            output.code,
            output.stdout,
            output.stderr
        );
        Ok(output.stdout)
    }

    /// Copies a file of this machine to `to` on the host, with `mode` in octal digits.
    pub fn copy(&self, from: &Path, to: &str, mode: &str) -> Result<()> {
        self.write_file(to, fs::read(from).with_context(|| format!("read {}", from.display()))?)?;
        run(Command::new("chmod").arg(mode).arg(self.root().join(to.trim_start_matches('/')))).map(drop)
    }

    /// A program of this machine that stands on the host's network, as if it were run there.
    pub fn from_its_network(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.bridge.namespace(self.name()), program]);
        command
    }

    /// Bytes that the network has brought it since it was made, counted on its cable.
    pub fn received_bytes(&self) -> Result<u64> {
        self.bridge.bytes_to(self.last)
    }

    /// Pulls its network cable. It runs on, and nobody hears it.
    pub fn cut_off(&self) -> Result<()> {
        self.bridge.set_cable(self.last, false)
    }

    /// Puts the cable back.
    pub fn reconnect(&self) -> Result<()> {
        self.bridge.set_cable(self.last, true)
    }

    /// Pulls the plug: everything on it dies at once, without a chance to write anything, and nothing answers at its
    /// address any more, not even that nobody listens there.
    pub fn power_off_hard(&self) -> Result<()> {
        let mut machine = self.machine.lock().expect("no holder of this lock panics");
        let Some(mut child) = machine.take() else { return Ok(()) };
        self.cut_off()?;
        let nspawn = child.id();
        wait_for(&format!("the end of {}", self.name()), Duration::from_secs(20), || {
            for inner in children(nspawn) {
                // Gone between the look and the kill is what was wanted.
                run(Command::new("kill").args(["-KILL", &inner])).ok();
            }
            child.try_wait().ok().flatten()
        })
        .map(drop)
    }

    /// Boots it again with the disk it has, and waits until it answers.
    pub fn boot(&self) -> Result<()> {
        self.start()?;
        self.wait_ready()
    }

    /// An orderly reboot, waited for to its end.
    pub fn reboot(&self) -> Result<()> {
        // The connection is torn down under the command, so its exit code means nothing.
        self.exec("systemctl reboot")?;
        let mut machine = self.machine.lock().expect("no holder of this lock panics");
        if let Some(mut child) = machine.take() {
            wait_for(&format!("{} to go down", self.name()), Duration::from_mins(2), || {
                child.try_wait().ok().flatten()
            })?;
        }
        drop(machine);
        self.boot()
    }

    /// What on its disk differs from the bare base system. Volatile files are left out.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::of_overlay(&self.base, &self.folder.join("upper"))
    }

    /// What a file tree does not show, one fact on each line: units and what is enabled, open listeners, users and
    /// groups, kernel settings, and the firewall. Compare two of them.
    pub fn live_state(&self) -> Result<String> {
        let inside = self.sh(
            "systemctl list-units --all --plain --no-legend --type=service,socket,timer,target,path,mount \
             | awk '{print \"unit\", $1, $3, $4}' | grep -vE 'unit (ssh@|user|session|systemd-tmpfiles|run-(user|credentials))' | sort; \
             systemctl list-unit-files --plain --no-legend | awk '{print \"unit file\", $1, $2}' | sort; \
             ss -Hlntu | awk '{print \"listens\", $1, $5}' | sort; \
             ss -Hlx | awk '{print \"listens\", $1, $5}' | grep -v ' /run/user/' | sort -u; \
             sort /etc/passwd | sed 's/^/user /'; sort /etc/group | sed 's/^/group /'; \
             cut -d: -f1 /etc/shadow | sort | sed 's/^/shadow /'; \
             grep -rsHI . /proc/sys/net /proc/sys/vm /proc/sys/fs /proc/sys/kernel 2>/dev/null \
             | grep -vE '^/proc/sys/(fs/(file-nr|inode-(nr|state)|dentry-state|aio-nr|quota/)|kernel/(random/|ns_last_pid|pty/nr|perf_|sched_)|net/netfilter/nf_conntrack_count)' \
             | sed 's/^/sysctl /' | sort",
        )?;
        // The host has no such tool, its namespace is this machine's to look into.
        let firewall = run(Command::new("ip").args([
            "netns",
            "exec",
            &self.bridge.namespace(self.name()),
            "nft",
            "list",
            "ruleset",
        ]))
        .context("list the firewall's rules (tests/setup hosts installs nft)")?;
        Ok(format!("{inside}firewall:\n{firewall}"))
    }

    /// Occupies a TCP port with a process that has nothing to do with Maxim; gives its name.
    pub fn occupy_port(&self, port: u16) -> Result<String> {
        let unit = format!("squatter-{port}");
        self.write_file(
            "/usr/local/bin/squatter",
            "#!/usr/bin/perl\nuse IO::Socket::INET;\nmy $l = IO::Socket::INET->new(LocalAddr => '0.0.0.0', \
             LocalPort => $ARGV[0], Listen => 5, ReuseAddr => 1) or die \"$!\";\nwhile (1) { my $c = $l->accept; }\n",
        )?;
        self.sh("chmod 755 /usr/local/bin/squatter")?;
        self.sh(&format!("systemd-run -q --unit={unit} /usr/local/bin/squatter {port}"))?;
        self.sh(&format!(
            "for i in $(seq 200); do ss -Hlnt sport = :{port} | grep -q . && exit 0; sleep 0.05; done; exit 1"
        ))?;
        Ok("squatter".to_owned())
    }

    /// Moves the clock that programs started over SSH see, by preloading `libfaketime`; 0 takes it back.
    pub fn skew_clock(&self, seconds: i32) -> Result<()> {
        let environment = if seconds == 0 {
            String::new()
        } else {
            format!("LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1\nFAKETIME={seconds:+}s\n")
        };
        self.write_file("/etc/environment", environment)
    }
}

fn children(pid: u32) -> Vec<String> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// A `/proc/meminfo` of a machine with `mebibytes`, half of it available.
fn meminfo(mebibytes: u64) -> String {
    let total = mebibytes * 1024;
    let half = total / 2;
    format!(
        "MemTotal:       {total} kB\nMemFree:        {half} kB\nMemAvailable:   {half} kB\n\
         Buffers:               0 kB\nCached:                0 kB\nSwapCached:            0 kB\n\
         Shmem:                 0 kB\nSReclaimable:          0 kB\nSwapTotal:             0 kB\n\
         SwapFree:              0 kB\n"
    )
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
