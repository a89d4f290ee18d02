//! The program of a bundle, put beside the cluster's state: it upgrades to its own version.

use crate::context::Context;
use crate::delivery::Delivery;
use crate::error::EngineError;
use crate::files;
use maxim_model::manifest::{MEMBER_CTL, Member};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A program is far smaller.
const LIMIT: u64 = 1 << 30;

/// Writes the bundle's `maxim.ctl` into the cluster's state, unless it is there, and gives its path. Its bytes are
/// those of the signed manifest either way. Programs of bundles before are removed.
pub fn program_of_bundle(context: &Context) -> Result<PathBuf, EngineError> {
    let Delivery::Bundle(bundle) = &context.delivery else {
        return Err(EngineError::usage("upgrade", "an upgrade needs a bundle").hint("name it with --bundle"));
    };
    let member = bundle
        .manifest()
        .members
        .iter()
        .find(|member| member.path == MEMBER_CTL)
        .cloned()
        .ok_or_else(|| EngineError::refused("bundle", format!("it has no {MEMBER_CTL}")))?;
    let programs = context.state.file("programs");
    let folder = programs.join(member.artefact());
    let path = folder.join(MEMBER_CTL);
    if !is_there(&path, &member) {
        let mut bytes = Vec::new();
        bundle
            .program()?
            .take(LIMIT)
            .read_to_end(&mut bytes)
            .map_err(|error| EngineError::refused("bundle", format!("{MEMBER_CTL}: {error}")))?;
        if hex::encode(Sha256::digest(&bytes)) != member.sha256 {
            return Err(EngineError::refused(
                "bundle",
                format!("{MEMBER_CTL} is not what the manifest names"),
            ));
        }
        context.state.create()?;
        files::private_folder(&folder)?;
        files::write_whole(&path, &bytes, 0o700)?;
    }
    let own = std::env::current_exe().unwrap_or_default();
    for other in std::fs::read_dir(&programs).into_iter().flatten().flatten() {
        if other.path() != folder && !own.starts_with(other.path()) && !is_running(&other.path()) {
            // It only takes room.
            let _ = std::fs::remove_dir_all(other.path());
        }
    }
    Ok(path)
}

fn is_there(path: &Path, member: &Member) -> bool {
    path.metadata().is_ok_and(|found| found.len() == member.size)
        && std::fs::read(path).is_ok_and(|bytes| hex::encode(Sha256::digest(&bytes)) == member.sha256)
}

/// Whether a process of this machine runs a program of a folder (the supervisor of an embedded deployment does).
fn is_running(folder: &Path) -> bool {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|process| std::fs::read_link(process.path().join("exe")).ok())
        .any(|program| program.starts_with(folder))
}
