//! Running SQL on a server of ours: its own client, in its own root, over its own socket.

use crate::deadline::Deadline;
use crate::error::{Failure, Result};
use crate::process::Invocation;
use crate::services::keeper;
use maxim_model::Secret;
use maxim_model::task::{ServiceManager, SqlAccess, SqlEngine};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// A statement that changes or reads little takes no longer.
const QUICK: Duration = Duration::from_secs(30);

/// A running server.
pub struct Server<'a> {
    /// How it is reached.
    pub access: &'a SqlAccess,
    pid: u32,
    deadline: Deadline,
}

/// A literal; only called with texts that were checked or made here.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A name of MariaDB, whatever it is.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The server, if its service runs.
pub fn server(access: &SqlAccess, deadline: Deadline) -> Result<Option<Server<'_>>> {
    let keeper = keeper(&ServiceManager::Systemd);
    let state = keeper.states(std::slice::from_ref(&access.service))?.pop().unwrap_or_default();
    if !state.is_active() || state.fact.pid == 0 {
        return Ok(None);
    }
    Ok(Some(Server { access, pid: state.fact.pid, deadline }))
}

/// What the client said, without the statement: that holds verifiers of passwords.
fn tidy(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| {
        !line.is_empty()
            && !line.starts_with("LINE ")
            && !line.starts_with('^')
            && !line.contains("STATEMENT:")
    });
    lines.map(|line| line.split(" near '").next().unwrap_or(line)).take(5).collect::<Vec<_>>().join("; ")
}

impl Server<'_> {
    /// The root that the service runs in, as seen from outside.
    pub fn root(&self) -> String {
        format!("/proc/{}/root", self.pid)
    }

    /// The port in the name of a `PostgreSQL` socket, which its client must be told.
    pub fn port(&self) -> String {
        let folder = format!("{}{}", self.root(), self.access.socket);
        let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let ports = names.filter_map(|name| Some(name.to_str()?.strip_prefix(".s.PGSQL.")?.to_owned()));
        ports
            .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
            .min()
            .unwrap_or_else(|| "5432".to_owned())
    }

    /// The client's path inside of the image.
    pub fn client(&self) -> Result<String> {
        let root = self.root();
        let there = |path: &str| Path::new(&format!("{root}{path}")).exists();
        let found = match self.access.engine {
            SqlEngine::Mariadb => {
                ["/usr/bin/mariadb", "/usr/bin/mysql"].into_iter().find(|path| there(path)).map(str::to_owned)
            }
            SqlEngine::Postgresql => {
                // The distribution keeps each version's programs in a folder of its own.
                let folder = format!("{root}/usr/lib/postgresql");
                let mut versions: Vec<String> = fs::read_dir(folder)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .collect();
                versions.sort_by_key(|version| version.parse::<u32>().unwrap_or(0));
                versions
                    .iter()
                    .rev()
                    .map(|version| format!("/usr/lib/postgresql/{version}/bin/psql"))
                    .chain(["/usr/bin/psql".to_owned()])
                    .find(|path| there(path))
            }
        };
        found.ok_or_else(|| Failure::Service {
            service: self.access.service.clone(),
            what: "its image holds no database client".into(),
            log: String::new(),
        })
    }

    /// How long a statement may take that needs no more than `at_most`: what is left of the deadline bounds it too.
    fn patience(&self, at_most: Duration) -> Duration {
        self.deadline.left().min(at_most)
    }

    /// Runs SQL that is done in half a minute; rows as tab-separated lines without headings.
    pub fn run(&self, database: &str, sql: String) -> Result<Vec<Vec<String>>> {
        self.run_within(QUICK, database, sql)
    }

    /// The same for what may take as long as `at_most`, when the deadline leaves so much.
    pub fn run_within(&self, at_most: Duration, database: &str, sql: String) -> Result<Vec<Vec<String>>> {
        let client = self.client()?;
        let root = self.root();
        let socket = &self.access.socket;
        let administrator = &self.access.administrator;
        let invocation = match self.access.engine {
            SqlEngine::Mariadb => {
                let (socket, name) = (format!("--socket={socket}"), format!("--user={administrator}"));
                Invocation::new(
                    "chroot",
                    &[
                        &root,
                        &client,
                        "--no-defaults",
                        // The client has commands of the shell: none in what it is sent.
                        "--binary-mode",
                        "--batch",
                        "--raw",
                        "--skip-column-names",
                        "--protocol=socket",
                        &socket,
                        &name,
                    ],
                )?
            }
            SqlEngine::Postgresql => {
                let (socket, name) = (format!("--host={socket}"), format!("--username={administrator}"));
                let (port, database) = (format!("--port={}", self.port()), format!("--dbname={database}"));
                Invocation::new(
                    "chroot",
                    &[
                        &root,
                        &client,
                        "--no-psqlrc",
                        "--no-password",
                        "--quiet",
                        "--tuples-only",
                        "--no-align",
                        "--field-separator=\t",
                        "--set=ON_ERROR_STOP=1",
                        &socket,
                        &port,
                        &name,
                        &database,
                    ],
                )?
            }
        };
        // What somebody made in the database under the name of what the system has is not taken for it
        // (PostgreSQL documentation, "Writing SECURITY DEFINER Functions Safely").
        let sql = match self.access.engine {
            SqlEngine::Mariadb => sql,
            SqlEngine::Postgresql => format!("SET search_path = pg_catalog, pg_temp;\n{sql}"),
        };
        let output = invocation.stdin(Secret::new(sql)).run(self.patience(at_most))?;
        if !output.status.success() {
            return Err(Failure::Command {
                program: format!("{client} (in the image of {})", self.access.service),
                outcome: crate::process::describe(output.status),
                tail: tidy(&output.stderr),
            });
        }
        let rows = output.stdout.lines().filter(|line| !line.is_empty());
        Ok(rows.map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }

    /// Makes a schema, with the same binary order of texts on every host.
    pub fn create_schema(&self, name: &str) -> Result<()> {
        let sql = match self.access.engine {
            SqlEngine::Mariadb => {
                format!("CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\n")
            }
            SqlEngine::Postgresql => format!(
                "CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8';\n"
            ),
        };
        self.run("postgres", sql).map(drop)
    }

    /// Whether a schema is there.
    pub fn has_schema(&self, name: &str) -> Result<bool> {
        let sql = match self.access.engine {
            SqlEngine::Mariadb => {
                format!("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {};\n", literal(name))
            }
            SqlEngine::Postgresql => {
                format!("SELECT 1 FROM pg_database WHERE datname = {};\n", literal(name))
            }
        };
        Ok(!self.run("postgres", sql)?.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::{QUICK, Server, literal, tidy};
    use crate::deadline::Deadline;
    use maxim_model::task::{SqlAccess, SqlEngine};
    use std::time::Duration;

    #[test]
    fn a_statement_has_what_it_needs_as_far_as_the_deadline_goes() {
        let access = SqlAccess {
            engine: SqlEngine::Mariadb,
            service: "s".into(),
            socket: "/s".into(),
            administrator: "root".into(),
        };
        let server = |seconds| Server { access: &access, pid: 1, deadline: Deadline::after(seconds) };
        let minutes = Duration::from_mins(4);
        assert_eq!((server(540).patience(QUICK), server(540).patience(minutes)), (QUICK, minutes));
        assert!(server(1).patience(minutes) <= Duration::from_secs(1), "the deadline bounds it");
    }

    #[test]
    fn statements_are_not_repeated() {
        let said = "ERROR:  syntax error at or near \"x\"\nLINE 1: CREATE ROLE x PASSWORD 'SCRAM-planted'\n        ^\n";
        assert_eq!(tidy(said), "ERROR:  syntax error at or near \"x\"");
        let said =
            "ERROR 1064 (42000) at line 1: You have an error in your SQL syntax near 'planted' at line 1\n";
        assert!(!tidy(said).contains("planted") && tidy(said).contains("1064"));
        assert_eq!(literal("a'b\\c"), "'a''b\\\\c'");
    }
}
