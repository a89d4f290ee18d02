//! Loading a dump into a database of a server, beside the one that serves.
//!
//! A dump is SQL, and what it makes can hold code that runs while it is loaded or changed (triggers, checks, functions):
//! whoever had the IM core's account may have put some there. A restore is a person's decision, and loads as the
//! administrator. A drill is not: it loads as an account that has rights on its copy alone (MariaDB), or those of the IM
//! core (PostgreSQL), by a client that runs as `nobody`.

use super::child::{self, Running};
use super::own::Known;
use super::pack::Unpacker;
use super::server::{Database, END, pattern};
use super::stream;
use super::sums::{Lines, Scanner};
use crate::error::{Failure, Result};
use crate::link::raw::Channel;
use crate::tasks::sql::server::{Server, literal, quoted};
use maxim_model::task::SqlEngine;
use maxim_model::wire::Reply;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The system's user with no rights, as every distribution has it.
const NOBODY: u32 = 65534;
/// The end of loading: indexes are made and everything is committed.
const LOADED: Duration = Duration::from_hours(2);
/// Statistics of a large database.
const ANALYSED: Duration = Duration::from_mins(30);

impl Database {
    /// The account that loads a drill's copy. MariaDB's socket tells it by the name of the system's user.
    fn loader(&self) -> &str {
        match self.access.engine {
            SqlEngine::Mariadb => "nobody",
            SqlEngine::Postgresql => &self.name,
        }
    }

    /// Makes that account, with rights on an empty database.
    fn make_loader(&self, server: &Server<'_>, database: &str) -> Result<()> {
        let (loader, account) = (self.loader(), self.account());
        let sql = match self.access.engine {
            SqlEngine::Mariadb => format!(
                "DROP USER IF EXISTS {loader}@localhost;\n\
                 CREATE USER {loader}@localhost IDENTIFIED VIA unix_socket;\n\
                 GRANT ALL PRIVILEGES ON `{}`.* TO {loader}@localhost;\n",
                pattern(database)
            ),
            SqlEngine::Postgresql => {
                let known = format!("SELECT 1 FROM pg_roles WHERE rolname = {};\n", literal(loader));
                let made = if server.run("postgres", known)?.is_empty() {
                    format!("CREATE ROLE \"{loader}\" LOGIN IN ROLE \"{account}\";\n")
                } else {
                    String::new()
                };
                // Whoever owns a database may make tables in it.
                format!("{made}ALTER DATABASE \"{database}\" OWNER TO \"{account}\";\n")
            }
        };
        server.run("postgres", sql).map(drop)
    }

    /// Removes it, once its database is gone.
    pub(super) fn drop_loader(&self, server: &Server<'_>) -> Result<()> {
        if !self.is_drill() {
            return Ok(());
        }
        let loader = self.loader();
        if self.access.engine == SqlEngine::Mariadb {
            return server.run("", format!("DROP USER IF EXISTS {loader}@localhost;\n")).map(drop);
        }
        let known = format!("SELECT 1 FROM pg_roles WHERE rolname = {};\n", literal(loader));
        if server.run("postgres", known)?.is_empty() {
            return Ok(());
        }
        // Rights that somebody gave it in the database that serves would keep it there.
        if server.has_schema(self.account())? {
            server.run(self.account(), format!("DROP OWNED BY \"{loader}\";\n"))?;
        }
        server.run("postgres", format!("DROP ROLE \"{loader}\";\n")).map(drop)
    }

    /// Changes something in a drill's copy.
    pub(super) fn change_as_loader(
        &self,
        server: &Server<'_>,
        name: &str,
        sql: &str,
        within: Duration,
    ) -> Result<()> {
        let mut client = self.load(server, name)?;
        let mut input = client.stdin()?;
        let written = input.write_all(sql.as_bytes());
        drop(input);
        client.check(within)?;
        written.map_err(|error| Failure::Invalid(format!("the database's client went away: {error}")))
    }

    /// The group of the server's socket, which whoever connects must have.
    fn group(&self, server: &Server<'_>) -> Result<u32> {
        let socket = Path::new(&self.access.socket);
        let folder = match self.access.engine {
            SqlEngine::Mariadb => socket.parent().unwrap_or(socket),
            SqlEngine::Postgresql => socket,
        };
        let folder = PathBuf::from(format!("{}{}", server.root(), folder.display()));
        Ok(std::fs::metadata(&folder).map_err(Failure::file("look at", &folder))?.gid())
    }

    /// Starts the client that reads a dump.
    fn load(&self, server: &Server<'_>, name: &str) -> Result<Running> {
        let socket = &self.access.socket;
        let mut arguments = Vec::new();
        let administrator = if self.is_drill() {
            let group = self.group(server)?;
            arguments.push(format!("--userspec={NOBODY}:{group}"));
            arguments.push(format!("--groups={group}"));
            self.loader()
        } else {
            &self.access.administrator
        };
        arguments.extend([server.root(), server.client()?]);
        match self.access.engine {
            SqlEngine::Mariadb => {
                let fixed = [
                    "--no-defaults",
                    "--protocol=socket",
                    "--binary-mode",
                    "--local-infile=0",
                    "--default-character-set=binary",
                    "--max-allowed-packet=64M",
                ];
                arguments.extend(fixed.map(str::to_owned));
                arguments.push(format!("--socket={socket}"));
                arguments.push(format!("--user={administrator}"));
                arguments.push(name.to_owned());
            }
            SqlEngine::Postgresql => {
                let fixed = [
                    "--no-psqlrc",
                    "--no-password",
                    "--quiet",
                    "--output=/dev/null",
                    "--set=ON_ERROR_STOP=1",
                    "--single-transaction",
                ];
                arguments.extend(fixed.map(str::to_owned));
                arguments.push(format!("--host={socket}"));
                arguments.push(format!("--port={}", server.port()));
                arguments.push(format!("--username={administrator}"));
                arguments.push(format!("--dbname={name}"));
            }
        }
        child::start(&format!("loading of {name}"), "chroot", &arguments, &[])
    }

    /// Loads a dump beside the database that serves, and says what is in it then. `own`: nothing but one of these.
    pub fn receive(&self, channel: &mut dyn Channel, own: Option<Known>) -> Result<Reply> {
        let name = self.received();
        let before = self.server()?;
        Self::drop_database(&before, &name)?;
        before.create_schema(&name)?;
        if self.is_drill() {
            self.make_loader(&before, &name)?;
        }
        // Loading may take hours: each statement after it is of a server of its own, with time of its own.
        let set = |sql: &str| self.server()?.run("", sql.to_owned()).map(drop);
        let outcome = without_statistics(self.access.engine, set, || self.loaded(channel, &name, own));
        match &outcome {
            // Nobody asks much of a copy that is removed in a moment.
            Ok(_) if self.is_drill() => {}
            // The server makes statistics by itself, only later: without them nothing is wrong with what was loaded.
            Ok(_) => drop(self.analyse(&name)),
            // Half a database is of no use; what remains of it is dropped by the next run too.
            Err(_) => drop(self.server().and_then(|server| Self::drop_database(&server, &name))),
        }
        outcome
    }

    fn loaded(&self, channel: &mut dyn Channel, name: &str, mut own: Option<Known>) -> Result<Reply> {
        let server = self.server()?;
        let version = Self::version(&server);
        let mut load = self.load(&server, name)?;
        let mut input = load.stdin()?;
        let mut output = load.stdout()?;
        let drain = std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let (mut scanner, mut lines) = (Scanner::new(self.dialect()), Lines::default());
        let mut unpacker = Unpacker::new();
        let mut content = 0;
        let mut take = |piece: &[u8]| {
            lines.feed(piece, |line| {
                scanner.line(line);
            });
            content += piece.len() as u64;
            input
                .write_all(piece)
                .map_err(|error| Failure::Invalid(format!("the database's client went away: {error}")))
        };
        let taken = stream::receive(channel, |piece| match &mut own {
            Some(own) => own.feed(piece, &mut |block| unpacker.feed(block, &mut take)),
            None => unpacker.feed(piece, &mut take),
        })
        .and_then(|bytes| {
            if let Some(own) = &mut own {
                own.finish(&mut |block| unpacker.feed(block, &mut take))?;
            }
            unpacker.finish(&mut take).map(|()| bytes)
        });
        let taken = match taken {
            Ok(bytes) if !scanner.is_complete() => {
                load.kill();
                return Err(Failure::Content {
                    what: format!("the dump ends too early, after {bytes} bytes"),
                    hint: "verify the repository with `maxim.ctl backup verify` and restore an older set"
                        .into(),
                });
            }
            Ok(bytes) => bytes,
            Err(failure) => {
                // What the client said tells more than that it went away.
                if let Failure::Invalid(_) = failure {
                    drop(input);
                    load.check(END)?;
                }
                load.kill();
                return Err(failure);
            }
        };
        drop(input);
        load.check(LOADED)?;
        let _ = drain.join();
        Ok(stream::sent(taken, content, self.sums_of(&self.server()?, name)?, version, 0))
    }

    /// Statistics of what was loaded.
    fn analyse(&self, name: &str) -> Result<()> {
        let server = self.server_for(ANALYSED.as_secs())?;
        match self.access.engine {
            SqlEngine::Mariadb => {
                let tables = Self::tables(&server, name)?;
                let names: Vec<String> =
                    tables.iter().map(|table| format!("`{name}`.{}", quoted(table))).collect();
                if names.is_empty() {
                    return Ok(());
                }
                let sql = format!("ANALYZE TABLE {};\n", names.join(", "));
                server.run_within(ANALYSED, "", sql).map(drop)
            }
            SqlEngine::Postgresql => server.run_within(ANALYSED, name, "ANALYZE;\n".into()).map(drop),
        }
    }
}

/// `MariaDB` computes its statistics of a table again and again while rows are loaded into it, on one whole processor:
/// that waits until all are there. `set` runs a statement, on a connection of its own each time. A run that was killed
/// leaves it so until the next one, or until the server is restarted.
fn without_statistics<T>(
    engine: SqlEngine,
    set: impl Fn(&str) -> Result<()>,
    load: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if engine != SqlEngine::Mariadb {
        return load();
    }
    set("SET GLOBAL innodb_stats_auto_recalc = OFF;\n")?;
    let loaded = load();
    let again = set("SET GLOBAL innodb_stats_auto_recalc = DEFAULT;\n");
    loaded.and_then(|loaded| again.map(|()| loaded))
}

#[cfg(test)]
mod tests {
    use super::without_statistics;
    use crate::error::{Failure, Result};
    use maxim_model::task::SqlEngine;
    use std::cell::RefCell;

    /// What was said to the server, and when it was loaded into.
    fn said(engine: SqlEngine, load: impl FnOnce() -> Result<()>) -> (Vec<String>, Result<()>) {
        let all = RefCell::new(Vec::new());
        let outcome = without_statistics(
            engine,
            |sql| {
                all.borrow_mut().push(sql.trim().to_owned());
                Ok(())
            },
            || {
                all.borrow_mut().push("load".into());
                load()
            },
        );
        (all.into_inner(), outcome)
    }

    #[test]
    fn statistics_come_back_whatever_came_of_loading() {
        let around = [
            "SET GLOBAL innodb_stats_auto_recalc = OFF;",
            "load",
            "SET GLOBAL innodb_stats_auto_recalc = DEFAULT;",
        ];
        let (all, outcome) = said(SqlEngine::Mariadb, || Ok(()));
        assert_eq!((all.as_slice(), outcome.is_ok()), (around.map(str::to_owned).as_slice(), true));
        let (all, outcome) = said(SqlEngine::Mariadb, || Err(Failure::Invalid("the stream broke".into())));
        assert_eq!(all, around);
        assert!(outcome.unwrap_err().to_string().contains("the stream broke"));
        assert_eq!(said(SqlEngine::Postgresql, || Ok(())).0, ["load"]);
    }
}
