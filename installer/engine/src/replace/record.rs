//! `host-replace.json`: a replacement that has begun and is not complete.

use super::ReplaceOptions;
use crate::error::EngineError;
use crate::events::now_rfc3339;
use crate::files;
use crate::state::StateDir;
use maxim_model::topology::{Host, Topology};
use serde::{Deserialize, Serialize};

const FILE: &str = "host-replace.json";

/// What is put in place of what was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Data {
    /// The set; empty: nothing was lost, or that was accepted.
    pub set: String,
    /// Parts of it.
    pub parts: Vec<String>,
}

impl Data {
    /// Whether a part is put in place.
    pub fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|other| other == part)
    }
}

/// How far it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The dead host.
    pub old: Host,
    /// The one in its place.
    pub name: String,
    pub address: String,
    /// Where lost data comes from.
    pub data: Data,
    /// The new host and the others are provisioned as far as data can be put in place.
    pub provisioned: bool,
    /// The database was restored.
    pub restored: bool,
    /// What the dead host knew.
    pub withdrawn: Vec<String>,
    pub started_at: String,
}

impl Record {
    pub fn new(
        old: &Host,
        options: &ReplaceOptions,
        topology: &Topology,
        data: Data,
        withdrawn: Vec<String>,
    ) -> Self {
        let address = topology.host(&options.name).map(|host| host.address.clone()).unwrap_or_default();
        Self {
            old: old.clone(),
            name: options.name.clone(),
            address,
            data,
            provisioned: false,
            restored: false,
            withdrawn,
            started_at: now_rfc3339(),
        }
    }
}

pub(super) fn load(state: &StateDir) -> Result<Option<Record>, EngineError> {
    let path = state.file(FILE);
    files::read_optional(&path)?
        .map(|text| {
            serde_json::from_str(&text)
                .map_err(|error| EngineError::failed("state", format!("{}: {error}", path.display())))
        })
        .transpose()
}

pub(super) fn save(state: &StateDir, record: &Record) -> Result<(), EngineError> {
    let text = serde_json::to_string_pretty(record)
        .map_err(|error| EngineError::failed("state", error.to_string()))?;
    files::write_whole(&state.file(FILE), text.as_bytes(), 0o600)
}

pub(super) fn forget(state: &StateDir) -> Result<(), EngineError> {
    let path = state.file(FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(EngineError::failed("state", format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
