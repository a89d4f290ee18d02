//! Databases of a server of ours: dumped and loaded by the programs of its own image, in its own root, over its own
//! socket (see [`crate::tasks::sql`]).
//!
//! A dump is one transaction's view (`mariadb-dump --single-transaction`, `pg_dump`), so the server goes on. A dump
//! is loaded into a database of its own beside the one that serves (`NAME_restore`); putting it in place renames
//! tables or databases in one statement and keeps what was there as `NAME_before`.

use super::child::{self, Running};
use super::pump::{Pumped, pump};
use super::stream;
use super::sums::{Dialect, Lines, Scanner};
use crate::deadline::Deadline;
use crate::error::{Failure, Result};
use crate::link::raw::Channel;
use crate::tasks::sql::server::{Server, literal, quoted, server};
use maxim_model::backup::TableSum;
use maxim_model::backup::wire::{BackupReply, DRILL};
use maxim_model::task::{SqlAccess, SqlEngine};
use maxim_model::wire::Reply;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Seconds for all statements of one step; the engine waits ten minutes for what is put in place. What comes after a
/// stream has a server of its own, for the stream may take hours.
const STEP: u64 = 540;
/// A statement that removes or moves a whole database: files of gigabytes go, and whoever reads is waited for. The engine
/// waits five minutes for a stream to begin, before which this may be done.
const CHANGE: Duration = Duration::from_mins(4);
/// A program that has closed its output ends at once.
pub(super) const END: Duration = Duration::from_mins(1);

/// A name as rights have it, where `_` stands for any letter.
pub(super) fn pattern(name: &str) -> String {
    name.replace('_', "\\_")
}

/// A database of a server.
pub struct Database {
    pub(super) access: SqlAccess,
    pub(super) name: String,
}

impl Database {
    /// By service, socket in its root, and name.
    pub fn new(engine: SqlEngine, service: &str, socket: &str, name: &str) -> Result<Self> {
        let plain = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        };
        if !plain(service) || !plain(name) || name.contains('-') {
            return Err(Failure::Invalid(format!(
                "`{}` of `{}` is no database of ours",
                name.escape_debug(),
                service.escape_debug()
            )));
        }
        let administrator = match engine {
            SqlEngine::Mariadb => "root",
            SqlEngine::Postgresql => "postgres",
        };
        Ok(Self {
            access: SqlAccess {
                engine,
                service: service.to_owned(),
                socket: socket.to_owned(),
                administrator: administrator.to_owned(),
            },
            name: name.to_owned(),
        })
    }

    /// The account whose database it is, named as that: a drill's copy belongs to the same.
    pub(super) fn account(&self) -> &str {
        self.name.strip_suffix(DRILL).unwrap_or(&self.name)
    }

    /// Whether this is a drill's copy.
    pub(super) fn is_drill(&self) -> bool {
        self.name.ends_with(DRILL)
    }

    pub(super) fn received(&self) -> String {
        format!("{}_restore", self.name)
    }

    fn replaced(&self) -> String {
        format!("{}_before", self.name)
    }

    /// What goes when something else is kept: for the moment between its leaving and its end.
    fn away(&self) -> String {
        format!("{}_away", self.name)
    }

    pub(super) fn dialect(&self) -> Dialect {
        match self.access.engine {
            SqlEngine::Mariadb => Dialect::Mariadb,
            SqlEngine::Postgresql => Dialect::Postgresql,
        }
    }

    /// The server that runs now, for the statements of one step.
    pub(super) fn server(&self) -> Result<Server<'_>> {
        self.server_for(STEP)
    }

    /// The same for statements that take so many seconds together.
    pub(super) fn server_for(&self, seconds: u64) -> Result<Server<'_>> {
        server(&self.access, Deadline::after(seconds))?.ok_or_else(|| Failure::Service {
            service: self.access.service.clone(),
            what: "does not run".into(),
            log: String::new(),
        })
    }

    fn value(server: &Server<'_>, database: &str, sql: &str) -> Result<String> {
        Ok(server
            .run(database, sql.to_owned())?
            .first()
            .and_then(|row| row.first())
            .cloned()
            .unwrap_or_default())
    }

    pub(super) fn version(server: &Server<'_>) -> String {
        let sql = match server.access.engine {
            SqlEngine::Mariadb => "SELECT VERSION();\n",
            SqlEngine::Postgresql => "SHOW server_version;\n",
        };
        Self::value(server, "postgres", sql).unwrap_or_default()
    }

    /// Size, rows and room.
    pub fn measure(&self) -> Result<Reply> {
        let server = self.server()?;
        let name = literal(&self.name);
        let (bytes, rows, folder) = match self.access.engine {
            SqlEngine::Mariadb => (
                format!("SELECT COALESCE(SUM(data_length + index_length), 0) FROM information_schema.tables WHERE table_schema = {name};\n"),
                format!("SELECT COALESCE(SUM(table_rows), 0) FROM information_schema.tables WHERE table_schema = {name};\n"),
                "SELECT @@datadir;\n",
            ),
            SqlEngine::Postgresql => (
                format!("SELECT COALESCE(MAX(pg_database_size(datname)), 0) FROM pg_database WHERE datname = {name};\n"),
                "SELECT COALESCE(SUM(GREATEST(reltuples, 0)), 0)::bigint FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace;\n".to_owned(),
                "SHOW data_directory;\n",
            ),
        };
        let number = |database: &str, sql: &str| -> Result<u64> {
            Ok(Self::value(&server, database, sql)?.parse::<f64>().unwrap_or(0.0).max(0.0) as u64)
        };
        let bytes = number("postgres", &bytes)?;
        let present = server.has_schema(&self.name)? && bytes > 0;
        // Rows are known about. One of a database that nobody can connect to any more can still be replaced.
        let rows = if present { number(&self.name, &rows).unwrap_or(0) } else { 0 };
        let folder = Self::value(&server, "postgres", folder)?;
        let free = stream::free(Path::new(&format!("{}{folder}", server.root())));
        let needed = bytes + bytes / 5 + (64 << 20);
        Ok(Reply::Backup(BackupReply::Measured { present, bytes, needed, free, rows }))
    }

    /// Starts the dump of a database of this server.
    fn dump(&self, server: &Server<'_>, name: &str) -> Result<Running> {
        let root = server.root();
        let socket = &self.access.socket;
        let administrator = &self.access.administrator;
        let mut arguments = vec![root.clone()];
        match self.access.engine {
            SqlEngine::Mariadb => {
                let program = ["/usr/bin/mariadb-dump", "/usr/bin/mysqldump"]
                    .into_iter()
                    .find(|path| Path::new(&format!("{root}{path}")).exists())
                    .ok_or_else(|| self.lacks("mariadb-dump"))?;
                arguments.push(program.into());
                let fixed = [
                    "--no-defaults",
                    "--protocol=socket",
                    "--single-transaction",
                    "--quick",
                    "--order-by-primary",
                    "--skip-dump-date",
                    "--default-character-set=binary",
                    "--max-allowed-packet=64M",
                    "--routines",
                ];
                arguments.extend(fixed.map(str::to_owned));
                arguments.push(format!("--socket={socket}"));
                arguments.push(format!("--user={administrator}"));
                arguments.push(name.to_owned());
            }
            SqlEngine::Postgresql => {
                let client = server.client()?;
                let program = client.strip_suffix("psql").map(|folder| format!("{folder}pg_dump"));
                arguments.push(program.ok_or_else(|| self.lacks("pg_dump"))?);
                arguments.extend(["--no-password", "--format=plain"].map(str::to_owned));
                arguments.push(format!("--host={socket}"));
                arguments.push(format!("--port={}", server.port()));
                arguments.push(format!("--username={administrator}"));
                arguments.push(format!("--dbname={name}"));
            }
        }
        // Stanzas are text for the most part: half the bytes that hexadecimal digits take. Any server reads both
        // (PostgreSQL documentation, "bytea Escape Format"). MariaDB's programs do not look at it.
        let environment = [("PGOPTIONS", "-c bytea_output=escape")];
        child::start_behind(&format!("dump of {name}"), "chroot", &arguments, &environment, Stdio::null())
    }

    fn lacks(&self, program: &str) -> Failure {
        Failure::refused(
            format!("the image of {} holds no {program}", self.access.service),
            "install a bundle of this version",
        )
    }

    fn cut_off(&self, name: &str) -> Failure {
        Failure::Content {
            what: format!("the dump of {name} was cut off"),
            hint: format!(
                "see `maxim.ctl logs {}`, remove the cause and run the command again",
                self.access.service
            ),
        }
    }

    /// Sends a dump.
    pub fn send(&self, channel: &mut dyn Channel) -> Result<Reply> {
        let server = self.server()?;
        let version = Self::version(&server);
        let point = stream::now_unix();
        let mut dump = self.dump(&server, &self.name)?;
        let Pumped { scanner, content, bytes } = pump(&mut dump, self.dialect(), channel)?;
        dump.check(END)?;
        if !scanner.is_complete() {
            return Err(self.cut_off(&self.name));
        }
        Ok(stream::sent(bytes, content, scanner.finish(), version, point))
    }

    pub(super) fn sums_of(&self, server: &Server<'_>, name: &str) -> Result<Vec<TableSum>> {
        let mut dump = self.dump(server, name)?;
        let mut output = dump.stdout()?;
        let (mut scanner, mut lines) = (Scanner::new(self.dialect()), Lines::default());
        stream::read(&mut output, "the dump", |piece| {
            lines.feed(piece, |line| {
                scanner.line(line);
            });
            Ok(())
        })?;
        dump.check(END)?;
        if !scanner.is_complete() {
            return Err(self.cut_off(name));
        }
        Ok(scanner.finish())
    }

    /// Sums of what serves.
    pub fn sum(&self) -> Result<Reply> {
        let server = self.server()?;
        // Asked before: reading all of it takes as long as it takes.
        let version = Self::version(&server);
        let point = stream::now_unix();
        Ok(stream::sent(0, 0, self.sums_of(&server, &self.name)?, version, point))
    }

    pub(super) fn drop_database(server: &Server<'_>, name: &str) -> Result<()> {
        let sql = match server.access.engine {
            SqlEngine::Mariadb => format!("DROP DATABASE IF EXISTS `{name}`;\n"),
            SqlEngine::Postgresql => format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE);\n"),
        };
        server.run_within(CHANGE, "postgres", sql).map(drop)
    }

    pub(super) fn tables(server: &Server<'_>, name: &str) -> Result<Vec<String>> {
        let sql = format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_TYPE = 'BASE TABLE' ORDER BY TABLE_NAME;\n",
            literal(name)
        );
        Ok(server.run("postgres", sql)?.into_iter().filter_map(|row| row.into_iter().next()).collect())
    }

    /// Whether something was loaded and is not in place yet, and whether what was there before is kept.
    pub fn beside_it(&self) -> Result<(bool, bool)> {
        let server = self.server()?;
        let kept = server.has_schema(&self.replaced())?;
        let new = self.received();
        // MariaDB's tables go into place; what held them goes after that.
        let full = || {
            let renamed = kept && self.access.engine == SqlEngine::Mariadb;
            Ok::<_, Failure>(!renamed || !Self::tables(&server, &new)?.is_empty())
        };
        Ok((server.has_schema(&new)? && full()?, kept))
    }

    /// Puts what was loaded in place; what was there is kept, or what was kept before that when `keep` says so.
    pub fn commit(&self, keep: bool) -> Result<()> {
        let server = self.server()?;
        let (new, old, name) = (self.received(), self.replaced(), &self.name);
        let kept = server.has_schema(&old)?;
        let aside = if keep && kept { self.away() } else { old.clone() };
        let tidy = || {
            if aside != old {
                // Everything is in place. Whatever is discarded next takes it along.
                let _ = Self::drop_database(&server, &aside);
            }
            Ok(())
        };
        if !server.has_schema(&new)? {
            if kept {
                // A run that was killed after this step goes on here.
                return tidy();
            }
            return Err(Failure::refused(
                format!("there is no restored database {new}"),
                "run the restore again",
            ));
        }
        match self.access.engine {
            SqlEngine::Mariadb => {
                let incoming = Self::tables(&server, &new)?;
                if incoming.is_empty() && kept {
                    Self::drop_database(&server, &new)?;
                    return tidy();
                }
                Self::drop_database(&server, &aside)?;
                server.create_schema(&aside)?;
                server.create_schema(name)?;
                let outgoing = Self::tables(&server, name)?;
                let moves: Vec<String> = outgoing
                    .iter()
                    .map(|table| (quoted(table), name, &aside))
                    .chain(incoming.iter().map(|table| (quoted(table), &new, name)))
                    .map(|(table, from, to)| format!("`{from}`.{table} TO `{to}`.{table}"))
                    .collect();
                if !moves.is_empty() {
                    server.run_within(CHANGE, "", format!("RENAME TABLE {};\n", moves.join(", ")))?;
                }
                Self::drop_database(&server, &new)?;
                tidy()
            }
            SqlEngine::Postgresql => {
                let owner = Self::value(
                    &server,
                    "postgres",
                    &format!(
                        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = {};\n",
                        literal(name)
                    ),
                )?;
                Self::drop_database(&server, &aside)?;
                let there = server.has_schema(name)?;
                if !there && aside == old {
                    // Of what is gone an empty one is kept: it says, if this is killed after the next step, that it was
                    // done.
                    server.create_schema(&old)?;
                }
                let mut sql = format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({}, {}) AND pid <> pg_backend_pid();\nBEGIN;\n",
                    literal(name),
                    literal(&new)
                );
                if there {
                    sql.push_str(&format!("ALTER DATABASE \"{name}\" RENAME TO \"{aside}\";\n"));
                }
                sql.push_str(&format!("ALTER DATABASE \"{new}\" RENAME TO \"{name}\";\n"));
                // Of what is gone nobody knows whose it was: the IM core makes tables in its own.
                let owner = if owner.is_empty() { self.account() } else { &owner };
                sql.push_str(&format!("ALTER DATABASE \"{name}\" OWNER TO \"{owner}\";\n"));
                sql.push_str("COMMIT;\n");
                server.run_within(CHANGE, "postgres", sql)?;
                tidy()
            }
        }
    }

    /// Lets the account of the IM core use what was loaded, and makes canaries young: an IM core removes old ones when
    /// it starts.
    pub fn prepare(&self) -> Result<()> {
        let server = self.server()?;
        let received = self.received();
        if self.access.engine == SqlEngine::Mariadb {
            for host in self.hosts(&server)? {
                server.run(
                    "",
                    format!(
                        "GRANT ALL PRIVILEGES ON `{}`.* TO {}@{};\n",
                        pattern(&received),
                        literal(self.account()),
                        literal(&host)
                    ),
                )?;
            }
        }
        if self.access.engine == SqlEngine::Postgresql {
            // Whoever owns a database may make tables in it.
            let owner = format!("ALTER DATABASE \"{received}\" OWNER TO \"{}\";\n", self.account());
            server.run("postgres", owner)?;
        }
        let now = stream::now_unix() * 1000;
        let table = match self.access.engine {
            SqlEngine::Mariadb => format!("`{received}`.account"),
            SqlEngine::Postgresql => "account".to_owned(),
        };
        // It reads all accounts. Triggers that somebody put there run with the rights of who changes something.
        let younger = format!("UPDATE {table} SET created_at = {now} WHERE kind = 'canary';\n");
        self.change_as_loader(&server, &received, &younger, CHANGE)
    }

    /// Hosts that the IM core's account may come from.
    fn hosts(&self, server: &Server<'_>) -> Result<Vec<String>> {
        let sql = format!("SELECT Host FROM mysql.global_priv WHERE User = {};\n", literal(self.account()));
        Ok(server.run("", sql)?.into_iter().filter_map(|row| row.into_iter().next()).collect())
    }

    /// Rights on a database stay when it is dropped.
    fn forget_rights(&self, server: &Server<'_>) -> Result<()> {
        if self.access.engine == SqlEngine::Mariadb {
            let received = self.received();
            for host in self.hosts(server)? {
                let (name, host) = (literal(self.account()), literal(&host));
                let granted = format!(
                    "SELECT 1 FROM mysql.db WHERE User = {name} AND Host = {host} AND Db = {};\n",
                    literal(&pattern(&received))
                );
                if !server.run("", granted)?.is_empty() {
                    server.run(
                        "",
                        format!("REVOKE ALL PRIVILEGES ON `{}`.* FROM {name}@{host};\n", pattern(&received)),
                    )?;
                }
            }
        }
        Ok(())
    }

    /// Removes what was loaded; `before`: and what was kept.
    pub fn discard(&self, before: bool) -> Result<()> {
        let server = self.server()?;
        self.forget_rights(&server)?;
        Self::drop_database(&server, &self.received())?;
        Self::drop_database(&server, &self.away())?;
        if before {
            Self::drop_database(&server, &self.replaced())?;
        }
        self.drop_loader(&server)
    }
}
