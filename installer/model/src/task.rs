//! A task: one wanted state of one thing on one host, with everything needed to check and to apply it.
//!
//! Tasks are made on the control side from playbooks and templates, travel to the agent, and are idempotent there:
//! `check` says what would change, `apply` makes it so and says whether anything changed.

use crate::names::Stage;
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Unique on its host, as `mariadb/config`.
    pub id: String,
    /// Component it belongs to, or `host` for what belongs to none.
    pub component: String,
    /// When it runs.
    pub stage: Stage,
    /// Services that are restarted (if they run) before their own `Unit` task when this task changed something.
    pub restarts: Vec<String>,
    /// Services that are told to reload instead.
    pub reloads: Vec<String>,
    /// Seconds the whole task may take.
    pub deadline_seconds: u64,
    /// What it is.
    #[serde(flatten)]
    pub kind: TaskKind,
}

/// The kinds of tasks. Modes are octal texts as `"0640"`; owner and group are names; paths are absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// A system user and its group of the same name, with `nologin` as shell.
    User(UserTask),
    /// A folder.
    Directory(DirectoryTask),
    /// A file with its whole content.
    File(FileTask),
    /// One line of ours in a file that belongs to others too.
    Line(LineTask),
    /// A component image unpacked under the images folder; content comes from the bundle.
    Image(ImageTask),
    /// A program file; content comes from the bundle or the checkout.
    Binary(BinaryTask),
    /// A folder unpacked from an archive member of the bundle (web chat).
    Archive(ImageTask),
    /// A service: its definition, whether it is enabled, and that it runs.
    Unit(UnitTask),
    /// Kernel settings as a drop-in, applied at once where the kernel lets us.
    Sysctl(SysctlTask),
    /// Resource limits as a drop-in in `/etc/security/limits.d`.
    Limits(LimitsTask),
    /// A certificate with its key, issued on the control side.
    Certificate(CertificateTask),
    /// An account in the database with its rights on one schema.
    SqlAccount(SqlAccountTask),
    /// A database (schema) with its character set.
    SqlSchema(SqlSchemaTask),
    /// A command with a guard.
    Command(CommandTask),
    /// A wait for something to become ready, with a deadline.
    Wait(WaitTask),
    /// Something that must not be there: a file, an empty or whole folder, a user, a unit (uninstall).
    Absent(AbsentTask),
}

/// See [`TaskKind::User`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserTask {
    /// Name of user and group.
    pub name: String,
    /// Home folder (not created).
    pub home: String,
    /// File of ours that remembers what we made; empty: nothing is remembered, and nothing is removed.
    #[serde(default)]
    pub made: String,
}

/// See [`TaskKind::Line`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineTask {
    /// Absolute path. Made with mode 0600, its folder with 0700, when it is not there.
    pub path: String,
    /// The line, without its end. It ends in the marker.
    pub line: String,
    /// The last word of the line, by which it is known.
    pub marker: String,
    /// File of ours that remembers what we made.
    #[serde(default)]
    pub made: String,
}

/// See [`TaskKind::Directory`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryTask {
    /// Absolute path; missing parents are made with mode 0755 and owned by root.
    pub path: String,
    /// Owner; empty: whoever runs the agent.
    #[serde(default)]
    pub owner: String,
    /// Group; empty: the owner's.
    #[serde(default)]
    pub group: String,
    /// Octal mode.
    pub mode: String,
}

/// See [`TaskKind::File`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileTask {
    /// Absolute path.
    pub path: String,
    /// Whole content, UTF-8.
    pub content: Secret,
    /// True: the content is never shown in a diff.
    #[serde(default)]
    pub sensitive: bool,
    /// Owner; empty: whoever runs the agent.
    #[serde(default)]
    pub owner: String,
    /// Group; empty: the owner's.
    #[serde(default)]
    pub group: String,
    /// Octal mode.
    pub mode: String,
    /// True: written only when absent (first-run data that a person may edit).
    #[serde(default)]
    pub only_if_absent: bool,
}

/// See [`TaskKind::Image`] and [`TaskKind::Archive`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageTask {
    /// Component name.
    pub name: String,
    /// Folder to be made, versioned, as `/opt/maxim/images/mariadb-11.8.6-0f3a1b2c3d4e`.
    pub path: String,
    /// SHA-256 of the archive (`.tar.zst`), hex.
    pub sha256: String,
    /// Size of the archive, bytes.
    pub size: u64,
    /// Size when unpacked, bytes.
    pub unpacked_size: u64,
}

/// See [`TaskKind::Binary`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BinaryTask {
    /// Program name.
    pub name: String,
    /// Path of the file, versioned, as `/opt/maxim/bin/0.1.0-0f3a1b2c3d4e/maxim-im`.
    pub path: String,
    /// SHA-256 of the file itself, hex.
    pub sha256: String,
    /// Size of the file, bytes.
    pub size: u64,
    /// True: the file lies at `path` by other means (a checkout) and is only verified.
    #[serde(default)]
    pub in_place: bool,
}

/// See [`TaskKind::Unit`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitTask {
    /// Name without suffix for a service (`maxim-im`), with suffix otherwise (`maxim.target`).
    pub name: String,
    /// Who keeps it.
    pub manager: ServiceManager,
    /// The unit file (systemd) or the service definition in YAML (supervisor).
    pub content: String,
    /// Started at boot.
    pub enabled: bool,
    /// Runs now. False for units that others pull in.
    pub running: bool,
}

/// Who keeps services running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ServiceManager {
    /// systemd of the host.
    Systemd,
    /// Our supervisor of the embedded profile.
    Supervisor {
        /// Root folder of the deployment; its control socket lies there.
        root: String,
    },
}

/// See [`TaskKind::Sysctl`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SysctlTask {
    /// Name of the drop-in: `/etc/sysctl.d/NAME.conf`.
    pub name: String,
    /// Dotted names and values.
    pub settings: BTreeMap<String, String>,
}

/// See [`TaskKind::Limits`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsTask {
    /// Name of the drop-in: `/etc/security/limits.d/NAME.conf`.
    pub name: String,
    /// User they hold for.
    pub user: String,
    /// Open files, hard and soft.
    pub nofile: u64,
}

/// See [`TaskKind::Certificate`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateTask {
    /// Where the chain goes (PEM).
    pub certificate_path: String,
    /// Where the key goes (PEM).
    pub key_path: String,
    /// The chain.
    pub certificate: String,
    /// The key.
    pub key: Secret,
    /// Owner of the key.
    #[serde(default)]
    pub owner: String,
    /// Group of the key.
    #[serde(default)]
    pub group: String,
    /// Octal mode of the key.
    pub key_mode: String,
}

/// Database engines that we administer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SqlEngine {
    /// `MariaDB`.
    Mariadb,
    /// `PostgreSQL`.
    Postgresql,
}

/// How the agent reaches a database as its administrator: the client of the component's own image, run by
/// `chroot` in the root of the running service, over its unix socket, SQL on standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlAccess {
    /// Engine.
    pub engine: SqlEngine,
    /// Service whose root file system holds client and socket.
    pub service: String,
    /// Socket (`MariaDB`: file; `PostgreSQL`: folder) as seen inside the service's root.
    pub socket: String,
    /// Administrator's database user.
    pub administrator: String,
}

/// See [`TaskKind::SqlAccount`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlAccountTask {
    /// The database.
    pub access: SqlAccess,
    /// Account name.
    pub name: String,
    /// `MariaDB` host part, `%` or an address; ignored by `PostgreSQL`.
    pub host: String,
    /// Its password.
    pub password: Secret,
    /// Schema on which it has all rights.
    pub schema: String,
    /// True: refuse it without TLS (database on another host).
    pub require_tls: bool,
}

/// See [`TaskKind::SqlSchema`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlSchemaTask {
    /// The database.
    pub access: SqlAccess,
    /// Schema (`PostgreSQL`: database) name.
    pub name: String,
}

/// See [`TaskKind::Command`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandTask {
    /// Program and arguments; never a shell, never a secret.
    pub argv: Vec<String>,
    /// Standard input; may be secret.
    #[serde(default)]
    pub stdin: Secret,
    /// User to run as; empty: whoever runs the agent.
    #[serde(default)]
    pub user: String,
    /// Not needed when this path exists …
    #[serde(default)]
    pub creates: String,
    /// … or when this command succeeds.
    #[serde(default)]
    pub unless: Vec<String>,
}

/// See [`TaskKind::Wait`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitTask {
    /// What is waited for.
    pub until: WaitUntil,
}

/// What a wait can wait for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitUntil {
    /// A TCP connection to `address:port` is accepted.
    Port(String),
    /// A unix socket accepts a connection.
    Socket(String),
    /// An HTTP GET over plain TCP answers 200 (`http://127.0.0.1:9280/readyz`).
    Http(String),
}

/// See [`TaskKind::Absent`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbsentTask {
    /// A file.
    File(String),
    /// A folder with all in it; refused outside of our own paths.
    Tree(String),
    /// A folder, only if it is empty.
    EmptyDirectory(String),
    /// A user and its group, as far as we made them.
    User(AbsentUser),
    /// A line of ours in a file that belongs to others too.
    Line(AbsentLine),
    /// A systemd unit by full name: stopped, disabled, removed.
    Unit(String),
}

/// See [`AbsentTask::User`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbsentUser {
    /// Name of user and group.
    pub name: String,
    /// File of ours that remembers what we made.
    pub made: String,
}

/// See [`AbsentTask::Line`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbsentLine {
    /// Absolute path.
    pub path: String,
    /// The last word of the line.
    pub marker: String,
    /// File of ours that remembers what we made: the file and its folder are removed only when they stand there and
    /// hold nothing else.
    pub made: String,
}

impl TaskKind {
    /// The kind's name in plans and events.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Directory(_) => "directory",
            Self::File(_) => "file",
            Self::Line(_) => "line",
            Self::Image(_) => "image",
            Self::Binary(_) => "binary",
            Self::Archive(_) => "archive",
            Self::Unit(_) => "unit",
            Self::Sysctl(_) => "sysctl",
            Self::Limits(_) => "limits",
            Self::Certificate(_) => "certificate",
            Self::SqlAccount(_) => "sql_account",
            Self::SqlSchema(_) => "sql_schema",
            Self::Command(_) => "command",
            Self::Wait(_) => "wait",
            Self::Absent(_) => "absent",
        }
    }

    /// Digest and size of the content that must be sent when the task is to be applied.
    pub fn content(&self) -> Option<(&str, u64)> {
        match self {
            Self::Image(image) | Self::Archive(image) => Some((&image.sha256, image.size)),
            Self::Binary(binary) if !binary.in_place => Some((&binary.sha256, binary.size)),
            _ => None,
        }
    }
}

/// What `check` found for one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Change {
    /// Already so.
    None,
    /// Will be made.
    Create {
        /// One line.
        summary: String,
        /// Unified diff or listing; empty when it says nothing more.
        #[serde(default)]
        diff: String,
    },
    /// Will be altered.
    Update {
        /// One line.
        summary: String,
        /// Unified diff; secrets are replaced.
        #[serde(default)]
        diff: String,
    },
    /// Will be removed.
    Remove {
        /// One line.
        summary: String,
    },
    /// A service will be (re)started.
    Restart {
        /// Why.
        summary: String,
    },
    /// Can be told only when earlier tasks are done (an account in a database that does not run yet).
    Later {
        /// What will be looked at then.
        summary: String,
    },
}

impl Change {
    /// Whether this changes something for sure (a `Later` may or may not).
    pub const fn is_change(&self) -> bool {
        !matches!(self, Self::None | Self::Later { .. })
    }

    /// The line for people.
    pub fn summary(&self) -> &str {
        match self {
            Self::None => "",
            Self::Create { summary, .. }
            | Self::Update { summary, .. }
            | Self::Remove { summary }
            | Self::Restart { summary }
            | Self::Later { summary } => summary,
        }
    }
}
