//! `host-replace.json`: a replacement that has begun and is not complete.

use super::ReplaceOptions;
use crate::error::EngineError;
use crate::events::now_rfc3339;
use crate::files;
use crate::state::StateDir;
use maxim_model::topology::{Host, Topology};
use serde::{Deserialize, Serialize};

pub(crate) const FILE: &str = "host-replace.json";

/// What is put in place of what was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Data {
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
pub(crate) struct Record {
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
    /// One that has begun with this plan.
    pub(super) fn new(
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

    /// As `db1 by db1 (10.77.0.22) is under way since …`. It may come from another machine: nothing in it is put on a
    /// terminal as it is.
    pub(super) fn words(&self) -> String {
        format!(
            "{} by {} ({}) is under way since {}",
            self.old.name.escape_debug(),
            self.name.escape_debug(),
            self.address.escape_debug(),
            self.started_at.escape_debug()
        )
    }

    /// Whether it is about the same hosts and the same data, however far either went.
    fn is_of(&self, other: &Self) -> bool {
        (&self.old, &self.name, &self.address, &self.data)
            == (&other.old, &other.name, &other.address, &other.data)
    }
}

/// A replacement in a copy of the state that nobody here has begun or taken over, in words: whoever completes it as they
/// are told has secrets sent to its address. None: there is none, or the same here.
pub(crate) fn other(mine: Option<&str>, copy: Option<&str>) -> Option<String> {
    let read = |text: &str| serde_json::from_str::<Record>(text).ok();
    let copy = copy?;
    match (mine.and_then(read), read(copy)) {
        (Some(mine), Some(copy)) if mine.is_of(&copy) => None,
        (_, Some(copy)) => Some(format!("the replacement of {}", copy.words())),
        (_, None) => Some(format!("{FILE} is not understood here")),
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
