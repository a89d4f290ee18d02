//! What was done last: one small file on the host that keeps the repository, read by `status` and the console.

use serde::{Deserialize, Serialize};

/// Where it lies below the data folder.
pub const RECORD_FILE: &str = "backup/record.json";

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupRecord {
    /// The newest set that was finished.
    pub backup: Option<Done>,
    /// The newest verification that found nothing wrong.
    pub verify: Option<Done>,
    /// The newest restore that was proven by starting it.
    pub drill: Option<Drilled>,
    /// The last failure since then; empty when the last run went well.
    pub trouble: String,
    /// Unix seconds of that failure.
    pub trouble_unix: i64,
}

/// Something that was finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The set.
    pub set: String,
    /// Unix seconds at its end.
    pub at_unix: i64,
    /// Milliseconds it took.
    pub duration_ms: u64,
    /// Bytes of the set, or bytes that were read anew.
    pub bytes: u64,
    /// Bytes that the repository grew by.
    #[serde(default)]
    pub added: u64,
}

/// A drill that went well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drilled {
    /// The set.
    pub set: String,
    /// Unix seconds at its end.
    pub at_unix: i64,
    /// Milliseconds from the first byte to the message that was read.
    pub recovery_ms: u64,
    /// Seconds between the point of the set and the drill: what would be lost.
    pub lost_seconds: i64,
    /// Rows compared.
    pub rows: u64,
}
