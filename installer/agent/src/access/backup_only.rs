//! What an agent answers that was started for backups by a schedule (`agent --backup-only`).
//!
//! Its folders come from the line in `authorized_keys`, never from who asks. Databases and uploads can be read, and hidden
//! accounts for a canary made and removed. Nothing is loaded into a server: a dump is SQL that its administrator
//! executes, and for `psql` commands of the shell, so who may load one is root. A drill of a database on another host is
//! therefore run from a control host.

use crate::error::Result;
use crate::scope::Scope;
use maxim_model::backup::wire::{BackupRequest, Source};
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
            BackupRequest::Measure { source } | BackupRequest::Send { source } => {
                is_database(source)
                    || matches!(source, Source::Tree { path, .. } if *path == format!("{}/im/uploads", self.data))
            }
            BackupRequest::Sum { source } => is_database(source),
            BackupRequest::Canary(_) => true,
            // The repository is on another host, and nothing is written to a server.
            BackupRequest::Receive { .. }
            | BackupRequest::Prepare { .. }
            | BackupRequest::Discard { .. }
            | BackupRequest::Drill(_)
            | BackupRequest::Commit { .. }
            | BackupRequest::Restic { .. }
            | BackupRequest::Store { .. }
            | BackupRequest::Load { .. } => false,
        }
    }
}

/// The IM core's own database on a server of this deployment.
fn is_database(source: &Source) -> bool {
    match source {
        Source::Mariadb { service, database, socket } => {
            *service == Role::Mariadb.service() && database == DATABASE && socket.starts_with('/')
        }
        // A socket that is no path would be another host's name.
        Source::Postgresql { service, database, socket } => {
            *service == Role::Postgresql.service() && database == DATABASE && socket.starts_with('/')
        }
        Source::Sqlite { .. } | Source::Tree { .. } => false,
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
        let elsewhere = Source::Postgresql {
            service: "maxim-postgresql".into(),
            socket: "db.example".into(),
            database: "maxim".into(),
        };
        for request in [
            Request::LockOwner,
            admin("/v1/canary/create"),
            backup(BackupRequest::Send { source: database("maxim") }),
            backup(BackupRequest::Send { source: tree("/var/lib/maxim/im/uploads") }),
            backup(BackupRequest::Sum { source: database("maxim") }),
        ] {
            assert!(folders.allow(&request), "{request:?}");
        }
        for request in [
            Request::Promote,
            Request::RemoveSelf,
            Request::ReadFile { path: "/etc/shadow".into() },
            admin("/v1/users/add"),
            backup(BackupRequest::Commit { source: database("maxim") }),
            backup(BackupRequest::Receive { source: database("maxim") }),
            backup(BackupRequest::Prepare { source: database("maxim") }),
            backup(BackupRequest::Discard { source: database("maxim") }),
            backup(BackupRequest::Send { source: elsewhere }),
            backup(BackupRequest::Receive { source: tree("/var/lib/maxim/im/uploads") }),
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
