//! What a set of snapshots holds. The manifest is the last snapshot of its set: whoever finds it knows that every
//! other part is there.

use serde::{Deserialize, Serialize};

/// Version of the format.
pub const SET_FORMAT: u32 = 1;
/// File name of the manifest in its snapshot.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Ends the names of files that are compressed already (zstd).
pub const PACKED: &str = ".zst";
/// Tag of every snapshot of ours.
pub const TAG: &str = "maxim";
/// Begins the tag that the snapshots of one set share.
pub const SET_TAG: &str = "set-";
/// Begins the tag that says which part a snapshot is.
pub const PART_TAG: &str = "part-";
/// Tag of a manifest whose set was verified; unix seconds follow.
pub const VERIFIED_TAG: &str = "verified-";
/// Tag of a manifest whose set was restored and started; unix seconds follow.
pub const PROVEN_TAG: &str = "proven-";
/// Name of the part that is the manifest.
pub const MANIFEST_PART: &str = "manifest";

/// Why a set was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetKind {
    /// By a person.
    Manual,
    /// By the schedule.
    Scheduled,
    /// Before a restore or an upgrade overwrote something.
    Safety,
}

impl SetKind {
    /// The name in tags and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Scheduled => "scheduled",
            Self::Safety => "safety",
        }
    }

    /// By its name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Manual, Self::Scheduled, Self::Safety].into_iter().find(|kind| kind.name() == name)
    }
}

/// The manifest of one set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetManifest {
    /// [`SET_FORMAT`].
    pub format: u32,
    /// Identifier, as `20261121T060501Z-3f2a91`.
    pub set: String,
    /// Cluster name.
    pub cluster: String,
    /// Domain of its accounts.
    pub domain: String,
    /// `embedded` or `standard`.
    pub profile: String,
    /// Why it was made.
    pub kind: SetKind,
    /// The moment that the database part shows, RFC 3339.
    pub point: String,
    /// Unix seconds of that moment.
    pub point_unix: i64,
    /// Version of Maxim that made it.
    pub version: String,
    /// Versions of the components that ran.
    pub components: std::collections::BTreeMap<String, String>,
    /// The parts, in the order in which they were made.
    pub parts: Vec<Part>,
    /// The message that a drill looks for.
    #[serde(default)]
    pub canary: Option<CanaryMark>,
}

/// A message that was sent before the point of the set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryMark {
    /// Local part of the account that waits for it.
    pub receiver: String,
    /// That account's password. It holds in restored copies only: the account is removed after the set was made.
    pub password: crate::Secret,
    /// Body of the message.
    pub body: String,
}

/// One part of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Name within the set, as `database`.
    pub name: String,
    /// What it is.
    pub kind: PartKind,
    /// restic's snapshot.
    pub snapshot: String,
    /// File name in that snapshot.
    pub file: String,
    /// Host that it came from.
    pub host: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes that it holds when it is unpacked; 0: as many.
    #[serde(default)]
    pub content: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// Version of the engine for databases; may be empty.
    pub engine_version: String,
    /// Rows and hashes by table, for databases; files and their bytes by folder otherwise empty.
    pub tables: Vec<TableSum>,
}

impl Part {
    /// Bytes of the file when it is unpacked.
    pub fn unpacked(&self) -> u64 {
        self.content.max(self.bytes)
    }
}

/// What a part is, hence how it is put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// An `SQLite` file of the IM core.
    Sqlite,
    /// SQL of `mariadb-dump`, compressed.
    Mariadb,
    /// SQL of `pg_dump`, compressed.
    Postgresql,
    /// The console's `SQLite` file.
    ConsoleSqlite,
    /// A tar of uploaded files.
    Files,
    /// A tar of the cluster's state: topology, secrets, authority, certificates.
    State,
}

impl PartKind {
    /// Whether it is the IM core's database.
    pub const fn is_database(self) -> bool {
        matches!(self, Self::Sqlite | Self::Mariadb | Self::Postgresql)
    }
}

/// Rows of a table, and a hash over them that does not depend on their order: the sum of the SHA-256 of each row,
/// modulo 2^256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSum {
    /// Table.
    pub table: String,
    /// Rows.
    pub rows: u64,
    /// Hex, 64 digits.
    pub hash: String,
}

impl SetManifest {
    /// The IM core's database.
    pub fn database(&self) -> Option<&Part> {
        self.parts.iter().find(|part| part.kind.is_database())
    }

    /// A part by its kind.
    pub fn part(&self, kind: PartKind) -> Option<&Part> {
        self.parts.iter().find(|part| part.kind == kind)
    }

    /// Bytes of all parts, unpacked.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(Part::unpacked).sum()
    }
}

/// What two sums of tables differ in, in words; none when they agree.
pub fn difference(wanted: &[TableSum], found: &[TableSum]) -> Option<String> {
    let mut differences = Vec::new();
    for table in wanted {
        match found.iter().find(|other| other.table == table.table) {
            None => differences.push(format!("table {} is missing", table.table)),
            Some(other) if other.rows != table.rows => {
                differences.push(format!(
                    "table {} has {} rows, {} were backed up",
                    table.table, other.rows, table.rows
                ));
            }
            Some(other) if other.hash != table.hash => {
                differences
                    .push(format!("table {} has the right number of rows, but other content", table.table));
            }
            Some(_) => {}
        }
    }
    for table in found {
        if !wanted.iter().any(|other| other.table == table.table) {
            differences.push(format!("table {} was not backed up", table.table));
        }
    }
    (!differences.is_empty()).then(|| differences.join("; "))
}

#[cfg(test)]
mod tests {
    use super::{SetKind, TableSum, difference};

    fn sum(table: &str, rows: u64, hash: &str) -> TableSum {
        TableSum { table: table.into(), rows, hash: hash.into() }
    }

    #[test]
    fn differences_name_table_and_kind() {
        let wanted = [sum("a", 1, "x"), sum("b", 2, "y"), sum("c", 3, "z")];
        assert_eq!(difference(&wanted, &wanted), None);
        let found = [sum("a", 2, "x"), sum("b", 2, "q"), sum("d", 0, "")];
        let text = difference(&wanted, &found).unwrap();
        for part in
            ["table a has 2 rows, 1 were", "table b has the right number", "c is missing", "d was not"]
        {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(SetKind::from_name("safety"), Some(SetKind::Safety));
    }
}
