//! Where an upgrade stands. It helps a killed run to be completed and a person to see; which host runs what is always
//! measured anew.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the file format.
pub const RECORD_FORMAT: u32 = 1;

/// A version of Maxim as it was or shall be installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Version of Maxim.
    pub version: String,
    /// Digest of the bundle's manifest; empty: not known (a checkout).
    #[serde(default)]
    pub manifest_sha256: String,
    /// Wanted version by component.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
}

/// How far an upgrade is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Images and programs go to the hosts; the version before serves.
    Staging,
    /// Hosts are switched one by one.
    Switching,
    /// Hosts are being taken back.
    RollingBack,
    /// Every host was taken back: the version before serves.
    RolledBack,
    /// Every host runs the new version; a rollback is possible.
    Switched,
    /// What takes away from the schema has begun: there is no way back.
    Finalizing,
    /// The upgrade is over.
    Finalized,
}

impl Phase {
    /// Whether the next run has something to complete.
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Staging | Self::Switching | Self::RollingBack | Self::Finalizing)
    }

    /// Whether the version before can be taken back to.
    pub const fn can_go_back(self) -> bool {
        matches!(self, Self::Staging | Self::Switching | Self::RollingBack | Self::Switched)
    }
}

/// Where one host stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// Not touched yet: it runs the version before.
    #[default]
    Waiting,
    /// Its turn has begun and not ended.
    Begun,
    /// It runs the new version, proven by messages.
    Done,
    /// It was taken back.
    TakenBack,
}

/// The record of an upgrade, `upgrade.json` in the cluster's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_FORMAT`].
    pub format: u32,
    /// From where.
    pub from: Release,
    /// To where.
    pub to: Release,
    /// How far.
    pub phase: Phase,
    /// Hosts in the order of their turns.
    pub hosts: Vec<(String, Turn)>,
    /// The snapshot that was taken first; empty: none.
    pub snapshot: String,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339; of the last change.
    pub changed_at: String,
    /// Why it was taken back; empty: it was not, or by a person.
    #[serde(default)]
    pub failure: String,
}

impl Record {
    /// Where a host stands.
    pub fn turn(&self, host: &str) -> Turn {
        self.hosts.iter().find(|(name, _)| name == host).map_or(Turn::Waiting, |(_, turn)| *turn)
    }

    /// Notes where a host stands.
    pub fn set_turn(&mut self, host: &str, turn: Turn) {
        match self.hosts.iter_mut().find(|(name, _)| name == host) {
            Some((_, old)) => *old = turn,
            None => self.hosts.push((host.to_owned(), turn)),
        }
    }
}

/// What `status` says of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeStatus {
    /// Version before.
    pub from: String,
    /// Version after.
    pub to: String,
    /// How far.
    pub phase: Phase,
    /// Hosts in the order of their turns.
    pub hosts: Vec<(String, Turn)>,
    /// Whether `rollback` is possible.
    pub can_go_back: bool,
    /// Why it was taken back; empty: it was not, or by a person.
    pub failure: String,
    /// RFC 3339; of the last change.
    pub changed_at: String,
}

impl From<&Record> for UpgradeStatus {
    fn from(record: &Record) -> Self {
        Self {
            from: record.from.version.clone(),
            to: record.to.version.clone(),
            phase: record.phase,
            hosts: record.hosts.clone(),
            can_go_back: record.phase.can_go_back(),
            failure: record.failure.clone(),
            changed_at: record.changed_at.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Phase, RECORD_FORMAT, Record, Release, Turn, UpgradeStatus};

    #[test]
    fn a_record_knows_each_host_and_survives_being_written() {
        let mut record = Record {
            format: RECORD_FORMAT,
            from: Release { version: "0.1.0".into(), ..Release::default() },
            to: Release { version: "0.2.0".into(), ..Release::default() },
            phase: Phase::Switching,
            hosts: vec![("a".into(), Turn::Waiting)],
            snapshot: String::new(),
            started_at: "2026-11-21T00:00:00Z".into(),
            changed_at: "2026-11-21T00:00:00Z".into(),
            failure: String::new(),
        };
        record.set_turn("a", Turn::Done);
        record.set_turn("b", Turn::Begun);
        let text = serde_json::to_string(&record).unwrap();
        let read: Record = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (read.turn("a"), read.turn("b"), read.turn("c")),
            (Turn::Done, Turn::Begun, Turn::Waiting)
        );
        let status = UpgradeStatus::from(&read);
        assert!(status.can_go_back && read.phase.is_under_way());
        assert!(!Phase::Finalizing.can_go_back() && !Phase::Switched.is_under_way());
    }
}
