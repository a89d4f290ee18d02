//! The base system of the test hosts: one Debian for each release, made once and kept in the cache.
//!
//! Steps: take the lock of the release, look whether a base of this recipe is there, else bootstrap into a
//! draft folder, add the users and the settings below, rename the draft into place. A killed build leaves a
//! draft, which the next one removes under the same lock.
//!
//! It deliberately has little more than a minimal server: systemd, sshd, sudo and faketime (the clock of a
//! host is the machine's; a test that needs another one preloads it).

use super::{cache, run};
use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

/// A user who may become root with `sudo` and no password.
pub const USER_SUDO_FREE: &str = "admin";
/// A user who may become root with `sudo` and [`SUDO_PASSWORD`]; it is also the password for SSH.
pub const USER_SUDO_PASSWORD: &str = "clerk";
/// The password of [`USER_SUDO_PASSWORD`] on every test host. The hosts are private to this machine.
pub const SUDO_PASSWORD: &str = "tumbler-42-known-to-tests";

/// Grows when the recipe below changes, so that an old base is not taken for a new one.
const RECIPE: u32 = 2;
const PACKAGES: &str =
    "systemd,systemd-sysv,dbus,openssh-server,iproute2,ca-certificates,sudo,faketime,passwd,login";

/// A Debian release that a test host can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Release {
    /// Debian 11: systemd 247, glibc 2.31.
    Bullseye,
    /// Debian 12: systemd 252, glibc 2.36.
    #[default]
    Bookworm,
    /// Debian 13: systemd 257, glibc 2.41.
    Trixie,
}

impl Release {
    /// The name that Debian's archive knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

impl FromStr for Release {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Bullseye, Self::Bookworm, Self::Trixie]
            .into_iter()
            .find(|release| release.name() == name)
            .with_context(|| format!("no test host runs '{name}' (bullseye, bookworm or trixie)"))
    }
}

/// The folder of the base system of `release`, made now when it is not in the cache (a minute).
pub fn base(release: Release) -> Result<PathBuf> {
    let folder = cache().join("hosts/base");
    let name = release.name();
    let ready = folder.join(format!("{name}-{RECIPE}"));
    if ready.is_dir() {
        return Ok(ready);
    }
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join(format!("{name}.lock")))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("lock the base system of {name}"))?;
    if ready.is_dir() {
        return Ok(ready);
    }
    let draft = folder.join(format!("{name}.draft"));
    if draft.exists() {
        fs::remove_dir_all(&draft).context("remove the draft of a killed build")?;
    }
    let log = folder.join(format!("{name}.log"));
    let bootstrap = Command::new("mmdebstrap")
        .args(["--variant=minbase", "--mode=root", &format!("--include={PACKAGES}"), name])
        .arg(&draft)
        .stdin(std::process::Stdio::null())
        .stdout(File::create(&log)?)
        .stderr(File::options().append(true).open(&log)?)
        .status()
        .context("start mmdebstrap (tests/setup hosts installs it)")?;
    if !bootstrap.success() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        let last = said.lines().rev().take(3).collect::<Vec<_>>().join(" / ");
        fs::remove_dir_all(&draft).ok();
        bail!("the bootstrap of {name} failed ({bootstrap}): {last}; the whole log is {}", log.display());
    }
    furnish(&draft).with_context(|| format!("set up the base system of {name}"))?;
    fs::rename(&draft, &ready)?;
    Ok(ready)
}

fn furnish(root: &Path) -> Result<()> {
    for user in [USER_SUDO_FREE, USER_SUDO_PASSWORD] {
        run(Command::new("chroot").arg(root).args(["useradd", "-m", "-s", "/bin/bash", user]))?;
    }
    // A hash of a fixed salt: the base must not depend on when it was made.
    let hash = run(Command::new("chroot")
        .arg(root)
        .args(["perl", "-e"])
        .args(["print crypt($ARGV[0], '$6$maximtests$')", SUDO_PASSWORD]))?;
    run(Command::new("chroot").arg(root).args(["usermod", "-p", hash.trim(), USER_SUDO_PASSWORD]))?;
    write(
        root,
        "etc/sudoers.d/tests",
        &format!("{USER_SUDO_FREE} ALL=(ALL) NOPASSWD: ALL\n{USER_SUDO_PASSWORD} ALL=(ALL) ALL\n"),
    )?;
    run(Command::new("chmod").arg("0440").arg(root.join("etc/sudoers.d/tests")))?;
    for user in ["root", "home/admin", "home/clerk"] {
        fs::create_dir_all(root.join(user).join(".ssh"))?;
        run(Command::new("chmod").arg("0700").arg(root.join(user).join(".ssh")))?;
    }
    for user in [USER_SUDO_FREE, USER_SUDO_PASSWORD] {
        run(Command::new("chroot").arg(root).args([
            "chown",
            &format!("{user}:{user}"),
            &format!("/home/{user}/.ssh"),
        ]))?;
    }
    // Each host gets keys of its own before it boots.
    for entry in fs::read_dir(root.join("etc/ssh"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ssh_host_")) {
            fs::remove_file(path)?;
        }
    }
    write(root, "etc/machine-id", "")?;
    fs::remove_file(root.join("var/lib/dbus/machine-id")).ok();
    fs::remove_file(root.join("etc/resolv.conf")).ok();
    write(root, "etc/resolv.conf", "")?;
    // Without a way out these would only fail, at a moment of their own.
    for unit in [
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "fstrim.timer",
        "e2scrub_reap.service",
        "console-getty.service",
        "getty@tty1.service",
        "systemd-networkd-wait-online.service",
    ] {
        let link = root.join("etc/systemd/system").join(unit);
        fs::remove_file(&link).ok();
        std::os::unix::fs::symlink("/dev/null", link)?;
    }
    run(Command::new("chroot").arg(root).args(["apt-get", "clean"]))?;
    run(Command::new("find").arg(root.join("var/lib/apt/lists")).args(["-type", "f", "-delete"]))?;
    Ok(())
}

fn write(root: &Path, path: &str, content: &str) -> Result<()> {
    let path = root.join(path);
    fs::write(&path, content).with_context(|| format!("write {}", path.display()))
}
