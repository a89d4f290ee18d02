//! What a set is made of: which host has what, by topology. The database first, so that every file that a message
//! names is in the part that comes after it.

use crate::error::EngineError;
use crate::render::context::CONSOLE_USER;
use maxim_model::backup::PartKind;
use maxim_model::backup::wire::{NOTES, Source};
use maxim_model::names::{Profile, Role};
use maxim_model::topology::{Database, Topology};

/// Name of the IM core's database on a server.
const DATABASE: &str = "maxim";

/// One part and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub name: &'static str,
    pub kind: PartKind,
    /// File name in its snapshot.
    pub file: &'static str,
    pub host: String,
    pub source: Source,
}

/// The IM core's database.
pub(crate) fn database(topology: &Topology) -> Result<Origin, EngineError> {
    let on = |role: Role| topology.with_role(role).next().map(|host| host.name.clone()).unwrap_or_default();
    let run = &topology.paths.run;
    Ok(match &topology.database {
        Database::Sqlite => Origin {
            name: "database",
            kind: PartKind::Sqlite,
            file: "im.sqlite",
            host: on(Role::Im),
            source: Source::Sqlite {
                path: format!("{}/im/im.sqlite", topology.paths.data),
                scratch: format!("{}/backup/scratch", topology.paths.data),
                owner: owner(topology),
            },
        },
        Database::Mariadb => Origin {
            name: "database",
            kind: PartKind::Mariadb,
            file: "mariadb.sql.zst",
            host: on(Role::Mariadb),
            source: Source::Mariadb {
                service: Role::Mariadb.service(),
                socket: format!("{run}/mariadb/mariadb.sock"),
                database: DATABASE.into(),
                notes: notes(topology),
            },
        },
        Database::Postgresql => Origin {
            name: "database",
            kind: PartKind::Postgresql,
            file: "postgresql.sql.zst",
            host: on(Role::Postgresql),
            source: Source::Postgresql {
                service: Role::Postgresql.service(),
                socket: format!("{run}/postgresql"),
                database: DATABASE.into(),
                notes: notes(topology),
            },
        },
        Database::External { .. } => {
            return Err(EngineError::usage(
                "backup",
                "the database of this cluster is run by somebody else, and is backed up there",
            )
            .hint(
                "ask whoever runs it; the cluster's state is in the folder that `maxim.ctl doctor` shows",
            ));
        }
    })
}

/// Where the host of a database notes what it has dumped.
fn notes(topology: &Topology) -> String {
    format!("{}/backup/{NOTES}", topology.paths.data)
}

/// All parts that come from hosts.
pub(crate) fn origins(topology: &Topology) -> Result<Vec<Origin>, EngineError> {
    let mut all = vec![database(topology)?];
    // Files lie on one node; several share them through the database or object storage.
    if let Some(host) = topology.with_role(Role::Im).next() {
        all.push(Origin {
            name: "files",
            kind: PartKind::Files,
            file: "files.tar",
            host: host.name.clone(),
            source: Source::Tree {
                path: format!("{}/im/uploads", topology.paths.data),
                owner: owner(topology),
            },
        });
    }
    if let Some(host) = topology.with_role(Role::Console).next() {
        all.push(Origin {
            name: "console",
            kind: PartKind::ConsoleSqlite,
            file: "console.sqlite",
            host: host.name.clone(),
            source: Source::Sqlite {
                path: format!("{}/console/console.sqlite", topology.paths.data),
                scratch: format!("{}/backup/scratch-console", topology.paths.data),
                // The console has a user of its own.
                owner: if topology.profile == Profile::Embedded {
                    String::new()
                } else {
                    CONSOLE_USER.into()
                },
            },
        });
    }
    Ok(all)
}

/// Names of the parts that come from a host.
pub(crate) fn parts_on(topology: &Topology, host: &str) -> Vec<&'static str> {
    let all = origins(topology).unwrap_or_default();
    all.into_iter().filter(|origin| origin.host == host).map(|origin| origin.name).collect()
}

/// Who owns data of services on a host.
pub(crate) fn owner(topology: &Topology) -> String {
    if topology.profile == Profile::Embedded { String::new() } else { "maxim".into() }
}

#[cfg(test)]
mod tests {
    use super::{Origin, database};
    use crate::sample;
    use maxim_model::backup::PartKind;

    #[test]
    fn each_engine_has_its_own_way() {
        let Origin { kind, host, .. } = database(&sample::three_hosts()).unwrap();
        assert_eq!((kind, host.as_str()), (PartKind::Mariadb, "db1"));
        let embedded = database(&sample::embedded(std::path::Path::new("/x"))).unwrap();
        assert_eq!(embedded.kind, PartKind::Sqlite);
    }
}
