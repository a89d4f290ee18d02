//! What an agent answers that was started for backups by a schedule (`agent --backup-only`).
//!
//! Its folders come from the line in `authorized_keys`, never from who asks. Databases and uploads can be read, and hidden
//! accounts for a canary made and removed. Nothing is put in the place of what serves. A dump is SQL that the server's
//! administrator executes, and for `psql` commands of the shell, so who may load any is root: for a drill, one that this
//! host has made itself is loaded into the drill's own database, and nothing else.

use crate::error::Result;
use crate::scope::Scope;
use maxim_model::backup::wire::{BackupRequest, DRILL, NOTES, Source};
use maxim_model::names::Role;
use maxim_model::wire::Request;

/// The IM core's database on a server.
const DATABASE: &str = "maxim";
/// Accounts that are hidden from everybody: made before a set, removed after it.
const ADMINISTRATION: [&str; 2] = ["/v1/canary/create", "/v1/canary/sweep"];

/// Folders of the deployment.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    data: String,
    run: String,
}

impl Folders {
    pub fn new(data: &str, run: &str) -> Self {
        Self { data: data.into(), run: run.into() }
    }

    /// The scope that goes with them; what the engine says about it is passed over.
    pub fn scope(&self) -> Result<Scope> {
        Scope::new(std::slice::from_ref(&self.data), "/run/maxim-lock.json")
    }

    /// Whether a request is one of those that backups need.
    pub fn allow(&self, request: &Request) -> bool {
        match request {
            Request::Hello
            | Request::Scope { .. }
            | Request::Units { .. }
            | Request::Lock { .. }
            | Request::LockOwner
            | Request::Unlock => true,
            Request::Http { socket, path, .. } => {
                *socket == format!("{}/im/admin.sock", self.run) && ADMINISTRATION.contains(&path.as_str())
            }
            Request::Backup(request) => self.allow_backup(request),
            _ => false,
        }
    }

    fn allow_backup(&self, request: &BackupRequest) -> bool {
        match request {
            BackupRequest::Measure { source } => {
                self.is_read(source) || self.is_database(source, &format!("{DATABASE}{DRILL}"))
            }
            BackupRequest::Send { source } => self.is_read(source),
            BackupRequest::Sum { source } => self.is_database(source, DATABASE),
            BackupRequest::Receive { source, only_own: true }
            | BackupRequest::Prepare { source }
            | BackupRequest::Discard { source, .. } => {
                self.is_database(source, &format!("{DATABASE}{DRILL}"))
            }
            BackupRequest::Canary(_) => true,
            // The repository is on another host, and so is the IM core of the drill.
            BackupRequest::Receive { only_own: false, .. }
            | BackupRequest::Drill(_)
            | BackupRequest::Commit { .. }
            | BackupRequest::Beside { .. }
            | BackupRequest::Restic { .. }
            | BackupRequest::Store { .. }
            | BackupRequest::Load { .. } => false,
        }
    }

    /// What a set is made of.
    fn is_read(&self, source: &Source) -> bool {
        self.is_database(source, DATABASE)
            || matches!(source, Source::Tree { path, .. } if *path == format!("{}/im/uploads", self.data))
    }

    /// A database of this name on a server of this deployment.
    fn is_database(&self, source: &Source, name: &str) -> bool {
        let notes = format!("{}/backup/{NOTES}", self.data);
        let wanted = match source {
            Source::Mariadb { .. } => Source::Mariadb {
                service: Role::Mariadb.service(),
                socket: format!("{}/mariadb/mariadb.sock", self.run),
                database: name.to_owned(),
                notes,
            },
            Source::Postgresql { .. } => Source::Postgresql {
                service: Role::Postgresql.service(),
                // To PostgreSQL's programs a list with commas is several servers, elsewhere too.
                socket: format!("{}/postgresql", self.run),
                database: name.to_owned(),
                notes,
            },
            Source::Sqlite { .. } | Source::Tree { .. } => return false,
        };
        *source == wanted
    }
}

#[cfg(test)]
mod tests {
    use super::Folders;
    use maxim_model::Secret;
    use maxim_model::backup::wire::{BackupRequest, DrillRequest, DrillStore, Source};
    use maxim_model::names::Stage;
    use maxim_model::task::{AbsentTask, Task, TaskKind};
    use maxim_model::wire::Request;

    fn database(name: &str) -> Source {
        Source::Mariadb {
            service: "maxim-mariadb".into(),
            socket: "/run/maxim/mariadb/mariadb.sock".into(),
            database: name.into(),
            notes: "/var/lib/maxim/backup/dumps".into(),
        }
    }

    fn tree(path: &str) -> Source {
        Source::Tree { path: path.into(), owner: "maxim".into() }
    }

    fn drill(program: &str, folder: &str, owner: &str) -> Request {
        Request::Backup(BackupRequest::Drill(DrillRequest {
            program: program.into(),
            folder: folder.into(),
            store: DrillStore::Sqlite { path: String::new() },
            domain: "a".into(),
            certificate: String::new(),
            key: Secret::default(),
            owner: owner.into(),
            receiver: String::new(),
            password: Secret::default(),
            body: String::new(),
            deadline_seconds: 1,
        }))
    }

    fn absent(folder: &str) -> Request {
        Request::Apply {
            tasks: vec![Task {
                id: "x".into(),
                component: "backup".into(),
                stage: Stage::Prepare,
                restarts: Vec::new(),
                reloads: Vec::new(),
                deadline_seconds: 1,
                kind: TaskKind::Absent(AbsentTask::Tree(folder.into())),
            }],
        }
    }

    #[test]
    fn what_backups_need_is_answered_and_nothing_else() {
        let folders = Folders::new("/var/lib/maxim", "/run/maxim");
        let admin = |path: &str| Request::Http {
            socket: "/run/maxim/im/admin.sock".into(),
            method: "POST".into(),
            path: path.into(),
            body: Secret::default(),
        };
        let backup = Request::Backup;
        let postgresql = |socket: &str| Source::Postgresql {
            service: "maxim-postgresql".into(),
            socket: socket.into(),
            database: "maxim".into(),
            notes: "/var/lib/maxim/backup/dumps".into(),
        };
        let mut other_socket = database("maxim");
        if let Source::Mariadb { socket, .. } = &mut other_socket {
            *socket = "/var/lib/maxim/im/uploads/mine.sock".into();
        }
        let mut noted_elsewhere = database("maxim_drill");
        if let Source::Mariadb { notes, .. } = &mut noted_elsewhere {
            *notes = "/var/lib/maxim/im/uploads".into();
        }
        let load = |source: Source, only_own: bool| backup(BackupRequest::Receive { source, only_own });
        for request in [
            Request::LockOwner,
            admin("/v1/canary/create"),
            backup(BackupRequest::Send { source: database("maxim") }),
            backup(BackupRequest::Send { source: tree("/var/lib/maxim/im/uploads") }),
            backup(BackupRequest::Sum { source: database("maxim") }),
            backup(BackupRequest::Send { source: postgresql("/run/maxim/postgresql") }),
            backup(BackupRequest::Measure { source: database("maxim_drill") }),
            load(database("maxim_drill"), true),
            backup(BackupRequest::Prepare { source: database("maxim_drill") }),
            backup(BackupRequest::Discard { source: database("maxim_drill"), before: true }),
        ] {
            assert!(folders.allow(&request), "{request:?}");
        }
        for request in [
            Request::Promote,
            Request::RemoveSelf,
            Request::ReadFile { path: "/etc/shadow".into() },
            admin("/v1/users/add"),
            backup(BackupRequest::Commit { source: database("maxim"), keep: false }),
            backup(BackupRequest::Commit { source: database("maxim_drill"), keep: false }),
            backup(BackupRequest::Send { source: database("maxim_drill") }),
            load(database("maxim"), true),
            load(database("maxim_drill"), false),
            load(noted_elsewhere, true),
            backup(BackupRequest::Prepare { source: database("maxim") }),
            backup(BackupRequest::Discard { source: database("maxim"), before: true }),
            backup(BackupRequest::Send { source: postgresql("db.example") }),
            backup(BackupRequest::Send { source: postgresql("/run/maxim/postgresql,192.0.2.7") }),
            backup(BackupRequest::Send { source: other_socket }),
            load(tree("/var/lib/maxim/im/uploads"), true),
            backup(BackupRequest::Send { source: tree("/etc") }),
            backup(BackupRequest::Send { source: tree("/var/lib/maxim/im/uploads/../../console") }),
            backup(BackupRequest::Send { source: database("mysql") }),
            drill("/opt/maxim/bin/maxim-im-1-ab/maxim-im", "/var/lib/maxim/drill", "maxim"),
            absent("/var/lib/maxim/drill"),
        ] {
            assert!(!folders.allow(&request), "{request:?}");
        }
    }
}
