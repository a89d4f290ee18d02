//! The disk of a host: an overlay over its base system. What the host writes is in `upper` of its folder.

use super::{run, wait_for};
use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Lays a bare disk over `base` and mounts it at `root` of the host's folder.
pub(super) fn lay(folder: &Path, base: &Path) -> Result<()> {
    for part in ["upper", "work", "root"] {
        fs::create_dir_all(folder.join(part))?;
    }
    fs::set_permissions(folder.join("upper"), fs::Permissions::from_mode(0o755))?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        base.display(),
        folder.join("upper").display(),
        folder.join("work").display()
    );
    mount(Some("overlay"), &folder.join("root"), Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("mount the disk of {}", folder.display()))
}

/// Takes away the disk of a host without power, and all that was written on it.
pub(super) fn take_away(folder: &Path) -> Result<()> {
    // What ran on it a moment ago may still be on its way out.
    wait_for("the disk to be free", Duration::from_secs(20), || {
        run(Command::new("umount").arg(folder.join("root"))).ok()
    })?;
    for part in ["upper", "work"] {
        fs::remove_dir_all(folder.join(part))?;
    }
    Ok(())
}
