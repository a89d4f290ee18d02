//! The part of a set that is the cluster's own state: topology, secrets, authority, certificates, pinned keys, and
//! certificate files that the topology names. A tar, small enough for memory.
//!
//! What belongs to the control host alone stays out: the journal, locks, and what was measured to be installed.

use super::hand_over::PACKED;
use crate::context::Context;
use crate::error::EngineError;
use crate::files;
use crate::state::StateDir;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maxim_model::topology::Tls;
use std::io::Read;
use std::path::{Component, Path};

/// Files of the state folder that make a cluster what it is.
const KEPT: [&str; 8] = [
    "topology.yaml",
    "secrets.json",
    "ca.pem",
    "ca.key",
    "certificates/index.json",
    "known_hosts",
    "initial-account",
    "bundle.pub",
];
/// Certificates from files of the control host.
const EXTERNAL: [&str; 2] = ["external/tls.crt", "external/tls.key"];
/// A file of it is kilobytes.
const LIMIT: u64 = 16 << 20;

/// The tar.
pub(super) fn pack(context: &Context) -> Result<Vec<u8>, EngineError> {
    let failed = |error: std::io::Error| EngineError::failed("backup/state", error.to_string());
    // The host that keeps the repository has it as the control host packed it.
    if let Some(text) = files::read_optional(&context.state.file(PACKED))? {
        return STANDARD.decode(text.trim()).map_err(|error| {
            EngineError::failed("backup/state", format!("{PACKED}: {error}"))
                .hint("run the install again from the control host")
        });
    }
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(0);
        archive.append_data(&mut header, name, content).map_err(failed)
    };
    let mut names: Vec<String> = KEPT.iter().map(|&name| name.to_owned()).collect();
    // Keys of bundles are pinned under names of their own.
    for entry in std::fs::read_dir(context.state.path()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains("pinned") || name.contains("bundle") {
            names.push(name);
        }
    }
    names.sort();
    names.dedup();
    for name in names {
        let path = context.state.file(&name);
        match std::fs::read(&path) {
            Ok(content) => add(&name, &content)?,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::IsADirectory
                ) => {}
            Err(error) => {
                return Err(EngineError::failed("backup/state", format!("{}: {error}", path.display())));
            }
        }
    }
    if let Tls::Files { cert, key } = &context.topology.tls {
        for (name, path) in EXTERNAL.iter().zip([cert, key]) {
            let content = std::fs::read(path)
                .map_err(|error| EngineError::failed("backup/state", format!("{path}: {error}")))?;
            add(name, &content)?;
        }
    }
    archive.into_inner().map_err(failed)
}

/// Writes what a tar holds into a state folder. Nothing is overwritten: a state that is there belongs to a cluster.
pub(super) fn unpack(content: &[u8], state: &StateDir) -> Result<Vec<String>, EngineError> {
    let broken = |error: std::io::Error| EngineError::failed("restore", format!("the part `state`: {error}"));
    let mut archive = tar::Archive::new(content);
    let mut found = Vec::new();
    for entry in archive.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || !entry.header().entry_type().is_file() {
            return Err(EngineError::refused(
                "restore",
                format!("the part `state` holds {}", path.display()),
            ));
        }
        let name = path.to_string_lossy().into_owned();
        // Keys of hosts that may be gone: those of new machines are another matter.
        if name == "known_hosts" {
            continue;
        }
        let mut bytes = Vec::new();
        entry.take(LIMIT).read_to_end(&mut bytes).map_err(broken)?;
        found.push((name, bytes));
    }
    if !found.iter().any(|(name, _)| name == "topology.yaml") {
        return Err(EngineError::refused("restore", "the part `state` holds no topology"));
    }
    state.create()?;
    // The topology last: with it the cluster is there.
    found.sort_by_key(|(name, _)| name == "topology.yaml");
    let mut names = Vec::new();
    for (name, bytes) in found {
        let path = state.file(&name);
        files::private_folder(path.parent().unwrap_or(Path::new("/")))?;
        let mode = if name == "ca.pem" { 0o644 } else { 0o600 };
        files::write_whole(&path, &bytes, mode)?;
        names.push(name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::unpack;
    use crate::state::StateDir;

    fn tar(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            // Set by hand: the library refuses to make what must be refused here.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, content.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn it_lands_in_the_folder_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path().join("cluster"));
        let good = tar(&[("topology.yaml", "name: a\n"), ("certificates/index.json", "{}")]);
        assert_eq!(unpack(&good, &state).unwrap(), ["certificates/index.json", "topology.yaml"]);
        assert_eq!(state.topology().unwrap().unwrap(), "name: a\n");
        for bad in [tar(&[("../x", "")]), tar(&[("/etc/x", "")]), tar(&[("other", "")])] {
            assert!(unpack(&bad, &StateDir::at(folder.path().join("b"))).is_err());
        }
        assert!(!folder.path().join("x").exists());
    }
}
