//! A run of test hosts: claim a subnet, lay out the disks, boot all at once, and be cleaned up after.
//!
//! Steps of [`Testbed::up`]: reap what dead runs left; claim a bridge and write down who owns the run; start
//! the keeper; then, for all hosts at once, disk, cable, boot, and wait.
//! Dropping the testbed, or the end of this process in whatever way, makes the keeper clean up.

use super::base::{Release, USER_SUDO_FREE, USER_SUDO_PASSWORD, base};
use super::disk;
use super::host::Host;
use super::network::Bridge;
use super::{cache, run, wait_for};
use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The clean-up, and why it is a shell script: it must work when the process that needs it is dead.
const CLEAN: &str = include_str!("clean.sh");
/// inotify instances that many hosts need together: a booted one has about seven, and a machine often allows 128.
const WATCHERS: u32 = 1024;

/// What a host is to be.
#[derive(Clone, Debug, Default)]
pub struct HostSpec {
    /// Its name: letters, digits and hyphens, at most 40.
    pub name: String,
    /// Its Debian.
    pub release: Release,
    /// A smaller memory than this machine's, as `/proc/meminfo` shows it, in MiB.
    pub memory_mib: Option<u64>,
    /// Small file systems: path and size in MiB.
    pub tmpfs: Vec<(String, u32)>,
    /// Whether it may change kernel settings, as a machine can.
    pub kernel_settings: bool,
}

impl HostSpec {
    /// A bare Debian 12.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// The same with another Debian.
    pub fn release(self, release: Release) -> Self {
        Self { release, ..self }
    }

    /// The same with `mebibytes` of memory to be seen.
    pub fn memory_mib(self, mebibytes: u64) -> Self {
        Self { memory_mib: Some(mebibytes), ..self }
    }

    /// The same with kernel settings that can be changed: those of its network are its own and real; those of memory
    /// would be this whole machine's, so it has a copy of them that nothing obeys.
    pub fn kernel_settings(self) -> Self {
        Self { kernel_settings: true, ..self }
    }

    /// The same with a file system of `megabytes` mounted at `path`.
    pub fn small_disk(mut self, path: &str, megabytes: u32) -> Self {
        self.tmpfs.push((path.to_owned(), megabytes));
        self
    }
}

/// Hosts of one run, their network and their keys.
#[derive(Debug)]
pub struct Testbed {
    hosts: Vec<Host>,
    bridge: Bridge,
    folder: PathBuf,
    keeper: Child,
}

impl Testbed {
    /// Boots the hosts and waits until all answer over SSH.
    pub fn up(specs: &[HostSpec]) -> Result<Self> {
        let testbed = Self::power_on(specs)?;
        testbed.each(Host::wait_ready)?;
        Ok(testbed)
    }

    /// Bare Debian 12 hosts with these names.
    pub fn of(names: &[&str]) -> Result<Self> {
        Self::up(&names.iter().map(|name| HostSpec::new(name)).collect::<Vec<_>>())
    }

    fn power_on(specs: &[HostSpec]) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "test hosts need root (namespaces and mounts)");
        ensure!(specs.len() <= 200, "at most 200 hosts have room in a subnet");
        for spec in specs {
            ensure!(
                !spec.name.is_empty()
                    && spec.name.len() <= 40
                    && spec.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
                "'{}' is no host name",
                spec.name
            );
            base(spec.release)?;
        }
        reap()?;
        allow_watchers();
        let (bridge, folder) = claim()?;
        let keeper = Command::new("setsid")
            .args(["bash", "-c", CLEAN, "clean-up-of-test-hosts"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("keeper.log"))?)
            .spawn()
            .context("start the keeper")?;
        fs::write(folder.join("keeper"), identity(keeper.id()).unwrap_or_default())?;
        let mut testbed = Self { hosts: Vec::new(), bridge, folder, keeper };
        testbed.make_keys(specs)?;
        for (index, spec) in specs.iter().enumerate() {
            let host = testbed.lay_out(spec, address_byte(index))?;
            testbed.hosts.push(host);
        }
        testbed.each(|host| {
            testbed.bridge.connect(host.name(), testbed.last_byte(host))?;
            host.start()
        })?;
        Ok(testbed)
    }

    /// The hosts, in the order they were asked for.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of that name.
    ///
    /// # Panics
    ///
    /// When there is none: the test is wrong.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name() == name).expect("a host of this testbed")
    }

    /// This machine's address as the hosts see it.
    pub fn gateway(&self) -> String {
        self.bridge.address(1)
    }

    /// The folder of the run: keys, logs, disks.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The private key that opens every host, for root and both users with sudo.
    pub fn key(&self) -> PathBuf {
        self.folder.join("key")
    }

    /// The hosts' keys in the form of `known_hosts`, by address and by name.
    pub fn known_hosts(&self) -> PathBuf {
        self.folder.join("known_hosts")
    }

    /// For `ssh -F`.
    pub fn ssh_config(&self) -> PathBuf {
        self.folder.join("ssh_config")
    }

    /// Does `work` on all hosts at once; the first error wins, after all have ended.
    pub fn each(&self, work: impl Fn(&Host) -> Result<()> + Sync) -> Result<()> {
        std::thread::scope(|scope| {
            let running: Vec<_> = self.hosts.iter().map(|host| scope.spawn(|| work(host))).collect();
            let ended: Vec<_> = running.into_iter().map(|thread| thread.join()).collect();
            for outcome in ended {
                outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok(())
        })
    }

    fn last_byte(&self, host: &Host) -> u8 {
        let index = self.hosts.iter().position(|other| std::ptr::eq(other, host)).unwrap_or_default();
        address_byte(index)
    }

    /// One key pair to log in with, one host key for each host, `known_hosts` and a configuration for ssh.
    fn make_keys(&self, specs: &[HostSpec]) -> Result<()> {
        make_key(&self.key(), "test hosts")?;
        let mut known = String::new();
        let mut config = String::new();
        for (index, spec) in specs.iter().enumerate() {
            let address = self.bridge.address(address_byte(index));
            let folder = self.folder.join("hosts").join(&spec.name);
            fs::create_dir_all(&folder)?;
            make_key(&folder.join("host_key"), &spec.name)?;
            let public = fs::read_to_string(folder.join("host_key.pub"))?;
            writeln!(known, "{address},{} {}", spec.name, public.trim())?;
            writeln!(config, "Host {}\n  HostName {address}", spec.name)?;
        }
        write!(
            config,
            "Host *\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  \
             StrictHostKeyChecking yes\n  BatchMode yes\n  ConnectTimeout 10\n  ServerAliveInterval 5\n  \
             LogLevel ERROR\n",
            self.key().display(),
            self.known_hosts().display()
        )?;
        fs::write(self.known_hosts(), known)?;
        fs::write(self.ssh_config(), config)?;
        Ok(())
    }

    /// A host with a bare disk.
    fn lay_out(&self, spec: &HostSpec, last: u8) -> Result<Host> {
        let folder = self.folder.join("hosts").join(&spec.name);
        let lower = base(spec.release)?;
        disk::lay(&folder, &lower)?;
        let host = Host::new(spec.clone(), self.bridge.clone(), last, folder, lower, self.ssh_config());
        self.furnish(&host)?;
        Ok(host)
    }

    /// Writes name and keys on the disk of a host.
    fn furnish(&self, host: &Host) -> Result<()> {
        let folder = self.folder.join("hosts").join(host.name());
        host.write_file("/etc/hostname", format!("{}\n", host.name()))?;
        host.write_file("/etc/hosts", format!("127.0.0.1 localhost\n127.0.1.1 {}\n", host.name()))?;
        host.copy(&folder.join("host_key"), "/etc/ssh/ssh_host_ed25519_key", "0600")?;
        host.copy(&folder.join("host_key.pub"), "/etc/ssh/ssh_host_ed25519_key.pub", "0644")?;
        let public = self.folder.join("key.pub");
        host.copy(&public, "/root/.ssh/authorized_keys", "0600")?;
        for user in [USER_SUDO_FREE, USER_SUDO_PASSWORD] {
            let path = format!("/home/{user}/.ssh/authorized_keys");
            host.copy(&public, &path, "0600")?;
            run(Command::new("chroot").arg(host.root()).args(["chown", &format!("{user}:{user}"), &path]))?;
        }
        Ok(())
    }

    /// Puts another machine in the place of a host, at its address and under its name: with a bare disk and a host key of
    /// its own, which [`Self::known_hosts`] has from then on.
    pub fn put_another_machine(&self, name: &str) -> Result<()> {
        let host = self.host(name);
        host.power_off_hard()?;
        let folder = self.folder.join("hosts").join(name);
        disk::take_away(&folder)?;
        disk::lay(&folder, &base(host.release())?)?;
        let (key, public) = (folder.join("host_key"), folder.join("host_key.pub"));
        let old = fs::read_to_string(&public)?;
        fs::remove_file(&key)?;
        fs::remove_file(&public)?;
        make_key(&key, name)?;
        let new = fs::read_to_string(&public)?;
        let known = fs::read_to_string(self.known_hosts())?;
        fs::write(self.known_hosts(), known.replace(old.trim(), new.trim()))?;
        self.furnish(host)?;
        host.boot()
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let gone = wait_for("the keeper to clean up", Duration::from_mins(1), || {
            self.keeper.try_wait().ok().flatten()
        });
        if gone.is_err() || self.folder.exists() {
            let said = fs::read_to_string(self.folder.join("keeper.log")).unwrap_or_default();
            eprintln_once(&format!("test hosts of {} were not cleaned up: {said}", self.folder.display()));
        }
    }
}

#[expect(clippy::print_stderr, reason = "a destructor has no other way to say that it failed")]
fn eprintln_once(message: &str) {
    eprintln!("{message}");
}

/// Where runs are written down, one folder for each.
fn runs_folder() -> PathBuf {
    cache().join("hosts/runs")
}

/// The runs there are: folder, and whether their owner lives.
pub fn runs() -> Result<Vec<(PathBuf, bool)>> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(runs_folder()) else { return Ok(found) };
    for entry in entries {
        let path = entry?.path();
        if path.join("owner").exists() {
            let alive = is_alive(&path.join("owner"));
            found.push((path, alive));
        }
    }
    found.sort();
    Ok(found)
}

/// Cleans up after runs whose owner and keeper are both dead.
pub fn reap() -> Result<()> {
    let _lock = lock_runs()?;
    for (folder, alive) in runs()? {
        if alive || is_alive(&folder.join("keeper")) {
            continue;
        }
        clean(&folder)?;
    }
    Ok(())
}

/// Runs the clean-up of one run now, whoever owns it.
pub fn clean(folder: &Path) -> Result<()> {
    run(Command::new("bash").args(["-c", CLEAN, "clean-up-of-test-hosts"]).arg(folder).stdin(Stdio::null()))?;
    if folder.exists() {
        // Killed before it had a bridge: there is nothing but the folder.
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}

fn lock_runs() -> Result<Flock<File>> {
    fs::create_dir_all(runs_folder())?;
    let file = File::create(runs_folder().join("lock"))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).context("lock the list of runs")
}

/// A bridge nobody has, and the folder that says so.
fn claim() -> Result<(Bridge, PathBuf)> {
    let _lock = lock_runs()?;
    for number in 0..=255 {
        let folder = runs_folder().join(format!("mx{number}"));
        if folder.exists() {
            continue;
        }
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        fs::write(folder.join("owner"), identity(std::process::id()).unwrap_or_default())?;
        match Bridge::claim(number) {
            Ok(Some(bridge)) => {
                // Only now: the clean-up takes this file as leave to remove the bridge.
                fs::write(folder.join("bridge"), bridge.name())?;
                return Ok((bridge, folder));
            }
            Ok(None) => fs::remove_dir_all(&folder)?, // a run with another cache folder has it
            Err(error) => {
                fs::remove_dir_all(&folder)?;
                return Err(error);
            }
        }
    }
    bail!("all 256 subnets of test hosts are taken; `./tests/hosts list` shows by whom")
}

/// The number of a process and the moment it started, which together are never given away again.
fn identity(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let started = after_name.split_whitespace().nth(19)?;
    (!after_name.trim_start().starts_with('Z')).then(|| format!("{pid} {started}"))
}

/// Whether the process written down in `record` still runs.
pub fn is_alive(record: &Path) -> bool {
    let Ok(recorded) = fs::read_to_string(record) else { return false };
    let Some(pid) = recorded.split_whitespace().next().and_then(|pid| pid.parse().ok()) else {
        return false;
    };
    identity(pid).is_some_and(|now| now == recorded.trim())
}

/// Lets this machine have as many inotify instances as many hosts need. Where that may not be set, fewer can run at once.
fn allow_watchers() {
    let path = "/proc/sys/fs/inotify/max_user_instances";
    let allowed = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok());
    if allowed.is_some_and(|allowed| allowed < WATCHERS) {
        fs::write(path, WATCHERS.to_string()).ok();
    }
}

/// Hosts count from .11.
fn address_byte(index: usize) -> u8 {
    u8::try_from(index + 11).unwrap_or(u8::MAX)
}

fn make_key(path: &Path, comment: &str) -> Result<()> {
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]).arg(path))
        .map(drop)
}
