//! The files of a state that the copy holds: which they are, from and into the folder of a control host.

use super::pins;
use crate::error::EngineError;
use crate::files;
use crate::state::StateDir;
use maxim_model::Secret;
use maxim_model::topology::load_stored;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// What the copy holds. Not the journal, locks and kept tasks.
pub(super) const FILES: [&str; 11] = [
    "topology.yaml",
    "secrets.json",
    "ca.pem",
    "ca.key",
    "certificates/index.json",
    HOST_KEYS,
    "initial-account",
    BUNDLE_KEY,
    INSTALLED,
    "upgrade.json",
    REPLACEMENT,
];
pub(super) const INSTALLED: &str = "state.json";
pub(super) const BUNDLE_KEY: &str = "bundle.pub";
pub(super) const HOST_KEYS: &str = "known_hosts";
/// A replacement of a host that is not complete.
pub(super) const REPLACEMENT: &str = crate::replace::RECORD;

/// The files of a state by name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Files(pub BTreeMap<String, Secret>);

impl Files {
    /// What a copy of a folder holds: of the pinned keys those of the topology's hosts.
    pub fn of(state: &StateDir) -> Result<Self, EngineError> {
        Ok(Self::whole(state)?.published())
    }

    /// All that a folder has.
    pub fn whole(state: &StateDir) -> Result<Self, EngineError> {
        let mut all = BTreeMap::new();
        for name in FILES {
            if let Some(text) = files::read_optional(&state.file(name))? {
                all.insert(name.to_owned(), Secret::new(text));
            }
        }
        Ok(Self(all))
    }

    /// SHA-256 of names and contents, hex.
    pub fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for (name, content) in &self.0 {
            for part in [name.as_bytes(), content.expose().as_bytes()] {
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
        }
        hex::encode(digest.finalize())
    }

    /// The topology as applied.
    pub fn topology(&self) -> Option<&str> {
        self.0.get("topology.yaml").map(Secret::expose)
    }

    /// What of these a copy holds.
    pub fn published(&self) -> Self {
        let mut all = self.clone();
        let topology = self.topology().and_then(|text| load_stored(text, "/").ok());
        if let (Some(topology), Some(text)) = (topology, self.0.get(HOST_KEYS)) {
            let kept = pins::published(text.expose(), &topology);
            all.0.remove(HOST_KEYS);
            if !kept.is_empty() {
                all.0.insert(HOST_KEYS.to_owned(), Secret::new(kept));
            }
        }
        all
    }

    /// The same with the keys that are pinned in `mine` of hosts that these say nothing of.
    pub fn with_pins_of(&self, mine: &Self) -> Self {
        let mut all = self.clone();
        let [mine, own] = [mine, self].map(|files| files.0.get(HOST_KEYS).map_or("", Secret::expose));
        let merged = pins::merged(mine, own);
        if !merged.is_empty() {
            all.0.insert(HOST_KEYS.to_owned(), Secret::new(merged));
        }
        all
    }

    /// Makes the folder hold exactly these of [`FILES`]. The topology comes last: with it a cluster is there.
    pub fn write(&self, state: &StateDir) -> Result<(), EngineError> {
        state.create()?;
        for name in FILES.iter().rev() {
            let path = state.file(name);
            match self.0.get(*name) {
                Some(content) => {
                    files::private_folder(path.parent().unwrap_or(Path::new("/")))?;
                    let mode = if matches!(*name, "ca.pem" | BUNDLE_KEY) { 0o644 } else { 0o600 };
                    files::write_whole(&path, content.expose().as_bytes(), mode)?;
                }
                None => match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(EngineError::failed("state", format!("{}: {error}", path.display())));
                    }
                    _ => {}
                },
            }
        }
        Ok(())
    }
}
