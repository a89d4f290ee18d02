//! What engine and agents say to each other about backups.
//!
//! Streams run beside the lines. From an agent: `Chunk` lines, each followed by exactly that many raw bytes. To an
//! agent: after its `Ready`, the engine sends frames, each one line `{"size":N}` and N raw bytes; `{"size":0}` ends
//! the stream, `{"refused":"why"}` breaks it off and nothing that came of it is kept. The agent says `Taken` for each
//! frame, and the engine has at most [`WINDOW`] frames under way, so that neither end has to hold a stream and an
//! agent that fails is heard at once. After its own error the agent reads on to the end of the stream.

use super::manifest::TableSum;
use super::repository::RepositoryAccess;
use crate::Secret;
use serde::{Deserialize, Serialize};

/// Frames under way at most.
pub const WINDOW: usize = 4;
/// Bytes of a frame or chunk at most.
pub const FRAME: usize = 512 << 10;

/// Name of the folder, below `DATA/backup`, where a host notes what it has dumped.
pub const NOTES: &str = "dumps";

/// A request about backups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum BackupRequest {
    /// How large is it, and is there room? [`BackupReply::Measured`].
    Measure {
        /// What.
        source: Source,
    },
    /// Its content at one point. `Chunk`s, then [`BackupReply::Sent`].
    Send {
        /// What.
        source: Source,
    },
    /// Rows and hashes without content. [`BackupReply::Sent`].
    Sum {
        /// What.
        source: Source,
    },
    /// Takes a stream into a place beside the target. `Ready`, `Taken`…, [`BackupReply::Sent`] with what is there now.
    Receive {
        /// Beside what.
        source: Source,
        /// Nothing but a dump that this host has made itself. What else comes is refused before any of it is loaded.
        only_own: bool,
    },
    /// Puts what was received in the target's place, in one step; what was there is kept beside it.
    Commit {
        /// What.
        source: Source,
        /// What was kept before stays what is kept, when there is any; what is in place goes.
        #[serde(default)]
        keep: bool,
    },
    /// What lies beside the target. [`BackupReply::Beside`].
    Beside {
        /// What.
        source: Source,
    },
    /// Makes what was received usable for an IM core beside the one that serves: the rights of its account.
    Prepare {
        /// What.
        source: Source,
    },
    /// Removes what was received and not put in place.
    Discard {
        /// What.
        source: Source,
        /// What was kept of before goes too.
        #[serde(default)]
        before: bool,
    },
    /// Makes a snapshot of a source on the host that keeps the repository: its content does not pass the engine.
    /// [`BackupReply::Passed`] now and then, [`BackupReply::Sent`], last [`BackupReply::Restic`].
    Store {
        /// What.
        source: Source,
        /// Into which repository.
        access: Box<RepositoryAccess>,
        /// File name in the snapshot.
        file: String,
        /// Tags.
        tags: Vec<String>,
        /// Host name in the snapshot: the cluster's.
        host: String,
    },
    /// The other way: a file of a snapshot into the place beside the target. [`BackupReply::Passed`] now and then, last
    /// [`BackupReply::Sent`] with what is there now. A file that is not what it should be is not kept.
    Load {
        /// Beside what.
        source: Source,
        /// Out of which repository.
        access: Box<RepositoryAccess>,
        /// Snapshot.
        snapshot: String,
        /// File.
        file: String,
        /// Bytes that it must have.
        bytes: u64,
        /// SHA-256 that it must have, hex.
        sha256: String,
    },
    /// Runs restic. `Ready` and `Taken` for `Backup`, `Chunk`s for `Dump`; last [`BackupReply::Restic`].
    Restic {
        /// Which repository.
        access: Box<RepositoryAccess>,
        /// What.
        command: ResticCommand,
    },
    /// Sends a message to an account that is not there, or reads one that waits. [`BackupReply::Read`].
    Canary(CanaryMail),
    /// Starts an IM core on a restored database in a scratch folder, and stops it at the end of the request after
    /// reading the canary. [`BackupReply::Drilled`].
    Drill(DrillRequest),
}

impl BackupRequest {
    /// Whether it changes the host. A repository counts as part of the host that keeps it.
    pub const fn mutates(&self) -> bool {
        !matches!(self, Self::Measure { .. } | Self::Beside { .. })
    }
}

/// What can be sent and received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// An `SQLite` file. Sent as a copy made by the backup API, which is consistent while others write.
    Sqlite {
        /// The file.
        path: String,
        /// Private folder for the copy, on a file system with room.
        scratch: String,
        /// Owner of a restored file; empty: whoever runs the agent.
        owner: String,
    },
    /// A database of the `MariaDB` that runs as this service.
    Mariadb {
        /// Service without suffix.
        service: String,
        /// Unix socket in its root.
        socket: String,
        /// Database.
        database: String,
        /// Private folder where its host notes what it has dumped.
        notes: String,
    },
    /// A database of the `PostgreSQL` that runs as this service.
    Postgresql {
        /// Service without suffix.
        service: String,
        /// Folder of its socket in its root.
        socket: String,
        /// Database.
        database: String,
        /// Private folder where its host notes what it has dumped.
        notes: String,
    },
    /// A folder, as a tar.
    Tree {
        /// The folder.
        path: String,
        /// Owner of what is restored; empty: whoever runs the agent.
        owner: String,
    },
}

/// End of the name under which a drill has its copy of a database: it belongs to the account of the one before the end.
pub const DRILL: &str = "_drill";

/// What restic is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum ResticCommand {
    /// Version and where it was found.
    Version,
    /// Makes the repository. One that is there already and opens with the password is fine.
    Init,
    /// All snapshots with our tag.
    Snapshots {
        /// What a killed run left at work is waited for: it may replace a snapshot by one with other tags.
        settled: bool,
    },
    /// Makes a snapshot of one stream.
    Backup {
        /// File name in the snapshot.
        file: String,
        /// Tags.
        tags: Vec<String>,
        /// Host name in the snapshot: the cluster's.
        host: String,
    },
    /// Sends a file of a snapshot.
    Dump {
        /// Snapshot.
        snapshot: String,
        /// File.
        file: String,
    },
    /// Adds tags to a snapshot and removes others.
    Tag {
        /// Snapshot.
        snapshot: String,
        /// Added.
        add: Vec<String>,
        /// Removed.
        remove: Vec<String>,
    },
    /// Checks structure, and reads a share of the data again.
    Check {
        /// Percent of the data, 0 to 100; 0: structure only.
        percent: u32,
    },
    /// Forgets snapshots; data is removed by `Prune`.
    Forget {
        /// Which.
        snapshots: Vec<String>,
    },
    /// Removes data that no snapshot needs.
    Prune,
    /// Bytes of the repository.
    Size,
}

/// A message to an absent account, and its reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanaryMail {
    /// Domain of both accounts.
    pub domain: String,
    /// `address:port` (STARTTLS).
    pub address: String,
    /// Local part of the account that signs in.
    pub account: String,
    /// Its password.
    pub password: Secret,
    /// Local part of the account that the message goes to; empty: a waiting message is read instead.
    pub to: String,
    /// Body that is sent, or that must be found.
    pub body: String,
    /// PEM of the authority; empty: see [`crate::wire::CanaryRequest`].
    pub ca_certificate: String,
    /// PEM of the one certificate, likewise.
    pub pinned_certificate: String,
    /// Seconds for all of it.
    pub deadline_seconds: u64,
}

/// See [`BackupRequest::Drill`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillRequest {
    /// The IM core's program.
    pub program: String,
    /// Scratch folder with the restored database (`im.sqlite`, or that of a scratch server).
    pub folder: String,
    /// Where the restored data is.
    pub store: DrillStore,
    /// Domain.
    pub domain: String,
    /// PEM certificate that it shows.
    pub certificate: String,
    /// PEM key.
    pub key: Secret,
    /// User that it runs as; empty: whoever runs the agent.
    pub owner: String,
    /// The message that must be there.
    pub receiver: String,
    /// Password of that account.
    pub password: Secret,
    /// Body.
    pub body: String,
    /// Seconds for all of it.
    pub deadline_seconds: u64,
}

/// The store of an IM core that a drill starts, written as its configuration has it: whoever asks says where the data
/// is, and no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DrillStore {
    /// A file.
    Sqlite {
        /// Its path.
        path: String,
    },
    /// A database of a `MariaDB`.
    Mariadb(DrillServer),
    /// A database of a `PostgreSQL`.
    Postgresql(DrillServer),
}

/// A database server, by socket or by host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillServer {
    /// Socket (`PostgreSQL`: its folder), when the server is on the same host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// Address otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// PEM file of the authority that the server's certificate is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: String,
    /// User.
    pub user: String,
    /// File with the password.
    pub password_file: String,
    /// Connections at once.
    pub connections: u32,
}

/// An answer about backups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum BackupReply {
    /// Raw bytes follow.
    Chunk {
        /// How many.
        size: u64,
        /// Bytes of the source that have been read so far; more than were sent when they are compressed.
        #[serde(default)]
        read: u64,
    },
    /// The stream may begin.
    Ready,
    /// One frame was taken.
    Taken,
    /// So much of a stream that stays on this host has passed. With 0 before any stream too: a copy is being made of what
    /// will be sent.
    Passed {
        /// Bytes so far: of the source, or of the file on the way back.
        bytes: u64,
    },
    /// See [`BackupRequest::Measure`].
    Measured {
        /// Whether there is anything.
        present: bool,
        /// Bytes on the disk, about.
        bytes: u64,
        /// Bytes that making or taking a copy needs on this host.
        needed: u64,
        /// Bytes that are free where it would lie.
        free: u64,
        /// Rows, about; 0 when that is not known.
        rows: u64,
    },
    /// See [`BackupRequest::Beside`].
    Beside {
        /// Something was received, and is not in place yet.
        received: bool,
        /// What was there before the last exchange is kept.
        kept: bool,
    },
    /// What was sent, received or summed.
    Sent {
        /// Bytes of the stream; 0 for sums.
        bytes: u64,
        /// Bytes that it holds when it is unpacked; 0 for sums.
        #[serde(default)]
        content: u64,
        /// By table, for databases.
        tables: Vec<TableSum>,
        /// Version of the engine; may be empty.
        version: String,
        /// Unix seconds of the consistent point; 0 when that does not apply.
        point_unix: i64,
        /// SHA-256 of the stream, hex, when it did not pass the engine; else empty.
        #[serde(default)]
        sha256: String,
    },
    /// What restic said: its JSON objects, bounded, secrets cannot be in them.
    Restic {
        /// Lines.
        said: Vec<serde_json::Value>,
    },
    /// The canary's message was sent or read.
    Read {
        /// Milliseconds.
        took_ms: u64,
    },
    /// The drill went well.
    Drilled {
        /// Milliseconds from the start of the IM core until it was ready.
        ready_ms: u64,
        /// Milliseconds until the message was read.
        read_ms: u64,
    },
}
