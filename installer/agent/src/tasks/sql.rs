//! Database schemas and accounts, through the client program of the component's own image.
//!
//! The client runs by `chroot` into the root of the running service, over its unix socket, as the administrator that
//! the server knows by the peer's user; SQL goes to its standard input. No password of an administrator exists.
//! Account passwords are turned into the server's verifier here, so that not even the server's own log could hold one:
//! `mysql_native_password` for `MariaDB`, SCRAM-SHA-256 (RFC 5803) for `PostgreSQL`. What the server holds is compared
//! first; an account that is right is not touched. TLS for `PostgreSQL` accounts is a matter of `pg_hba.conf`.

use super::{Context, Outcome};
use crate::deadline::Deadline;
use crate::error::{Failure, Result};
use crate::files::read_text;
use crate::process::{Invocation, Output};
use crate::scram;
use crate::services::keeper;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maxim_model::Secret;
use maxim_model::task::{Change, ServiceManager, SqlAccess, SqlAccountTask, SqlEngine, SqlSchemaTask};
use ring::digest;
use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Iterations of a new SCRAM verifier; the server's own default.
const ITERATIONS: u32 = 4096;

/// A running server.
struct Server<'a> {
    access: &'a SqlAccess,
    pid: u32,
    deadline: Deadline,
}

/// Refuses names that a server would fold, cut or misread; so quoting below is a second line of defence.
fn check_identifier(name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if fine {
        return Ok(());
    }
    Err(Failure::Invalid(format!(
        "`{}` is not a name for a database or account (a-z, 0-9, _)",
        name.escape_debug()
    )))
}

fn check_host(host: &str) -> Result<()> {
    let fine = !host.is_empty()
        && host.len() <= 255
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'%' | b'.' | b':' | b'/' | b'-' | b'_'));
    if fine {
        Ok(())
    } else {
        Err(Failure::Invalid(format!("`{}` is not a host of an account", host.escape_debug())))
    }
}

/// A literal; only called with texts that were checked or made here.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn server(access: &SqlAccess, deadline: Deadline) -> Result<Option<Server<'_>>> {
    let keeper = keeper(&ServiceManager::Systemd);
    let state = keeper.states(std::slice::from_ref(&access.service))?.pop().unwrap_or_default();
    if !state.is_active() || state.fact.pid == 0 {
        return Ok(None);
    }
    Ok(Some(Server { access, pid: state.fact.pid, deadline }))
}

fn not_running(access: &SqlAccess) -> Failure {
    Failure::Service {
        service: access.service.clone(),
        what: "does not run, so its accounts cannot be looked at".into(),
        log: String::new(),
    }
}

/// User and group number of a name in the passwd text of an image or of the host.
fn numbers(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

impl Server<'_> {
    fn root(&self) -> String {
        format!("/proc/{}/root", self.pid)
    }

    /// As whom the client must run, so that the server takes it for its administrator: that user of the image, else
    /// of the host, else the user that the server itself runs as.
    fn identity(&self) -> Result<(u32, u32)> {
        let name = &self.access.administrator;
        if name == "root" {
            return Ok((0, 0));
        }
        let image = read_text(format!("{}/etc/passwd", self.root()));
        if let Some(found) = numbers(&image, name).or_else(|| numbers(&read_text("/etc/passwd"), name)) {
            return Ok(found);
        }
        let path = format!("/proc/{}", self.pid);
        let found = fs::metadata(&path).map_err(Failure::file("look at", &path))?;
        Ok((found.uid(), found.gid()))
    }

    /// The client's path inside of the image.
    fn client(&self) -> Result<String> {
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

    /// Runs SQL; rows as tab-separated lines without headings.
    fn run(&self, database: &str, sql: String) -> Result<Vec<Vec<String>>> {
        let client = self.client()?;
        let (user, group) = self.identity()?;
        let identity = format!("--userspec={user}:{group}");
        let root = self.root();
        let socket = &self.access.socket;
        let administrator = &self.access.administrator;
        let invocation = match self.access.engine {
            SqlEngine::Mariadb => {
                let (socket, name) = (format!("--socket={socket}"), format!("--user={administrator}"));
                Invocation::new(
                    "chroot",
                    &[
                        &identity,
                        &root,
                        &client,
                        "--no-defaults",
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
                let database = format!("--dbname={database}");
                Invocation::new(
                    "chroot",
                    &[
                        &identity,
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
                        &name,
                        &database,
                    ],
                )?
            }
        };
        let output: Output =
            invocation.stdin(Secret::new(sql)).run(self.deadline.left().min(Duration::from_secs(30)))?;
        if !output.status.success() {
            // The server quotes parts of a statement that it does not take; verifiers stand in ours.
            let said: String =
                output.tail().lines().map(|line| line.split("near '").next().unwrap_or(line)).collect();
            return Err(Failure::Command {
                program: format!("{client} (in the image of {})", self.access.service),
                outcome: crate::process::describe(output.status),
                tail: said.split("STATEMENT:").next().unwrap_or_default().trim().to_owned(),
            });
        }
        let rows = output.stdout.lines().filter(|line| !line.is_empty());
        Ok(rows.map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }

    fn has_schema(&self, name: &str) -> Result<bool> {
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

/// What would change.
pub fn check_schema(context: &Context<'_>, task: &SqlSchemaTask) -> Result<Change> {
    check_identifier(&task.name)?;
    Ok(match server(&task.access, context.deadline)? {
        None => Change::Later {
            summary: format!("the database {}, when {} runs", task.name, task.access.service),
        },
        Some(server) if server.has_schema(&task.name)? => Change::None,
        Some(_) => {
            Change::Create { summary: format!("create the database {}", task.name), diff: String::new() }
        }
    })
}

/// Makes it so.
pub fn apply_schema(context: &Context<'_>, task: &SqlSchemaTask) -> Result<Outcome> {
    check_identifier(&task.name)?;
    let server = server(&task.access, context.deadline)?.ok_or_else(|| not_running(&task.access))?;
    if server.has_schema(&task.name)? {
        return Ok(Outcome::unchanged("already so"));
    }
    let sql = match task.access.engine {
        SqlEngine::Mariadb => {
            format!(
                "CREATE DATABASE IF NOT EXISTS `{}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\n",
                task.name
            )
        }
        // Binary order: the same on every host, whatever its locales.
        SqlEngine::Postgresql => {
            format!(
                "CREATE DATABASE \"{}\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8';\n",
                task.name
            )
        }
    };
    server.run("postgres", sql)?;
    Ok(Outcome::changed(format!("created the database {}", task.name)))
}

/// How an account differs from what is wanted: nothing, in some points, or it is not there.
enum Found {
    Right,
    Wrong(Vec<&'static str>),
    Missing,
}

/// `mysql_native_password`: `*` and the double SHA-1 in upper-case hex.
fn native_password(password: &str) -> String {
    let once = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let twice = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, once.as_ref());
    format!("*{}", hex::encode_upper(twice.as_ref()))
}

/// A verifier as `PostgreSQL` stores it: `SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER`.
fn scram_verifier(password: &str, salt: &[u8], iterations: NonZeroU32) -> String {
    let salted = scram::salted(password, salt, iterations);
    let stored = STANDARD.encode(scram::stored_key(&*salted));
    let server = STANDARD.encode(scram::sign(&*salted, b"Server Key"));
    format!("SCRAM-SHA-256${iterations}:{}${stored}:{server}", STANDARD.encode(salt))
}

/// Whether a stored verifier belongs to a password.
fn verifies(verifier: &str, password: &str) -> bool {
    let parts = verifier.strip_prefix("SCRAM-SHA-256$").and_then(|rest| rest.split_once(':'));
    let Some((iterations, rest)) = parts else { return false };
    let Some((salt, _)) = rest.split_once('$') else { return false };
    let (Ok(iterations), Ok(salt)) = (iterations.parse::<u32>(), STANDARD.decode(salt)) else { return false };
    NonZeroU32::new(iterations)
        .filter(|count| count.get() <= 1_000_000)
        .is_some_and(|iterations| scram_verifier(password, &salt, iterations) == verifier)
}

/// In a grant the name of a database is a pattern.
fn grant_pattern(schema: &str) -> String {
    schema.replace('_', "\\_").replace('%', "\\%")
}

impl Server<'_> {
    fn account(&self, task: &SqlAccountTask) -> Result<Found> {
        match self.access.engine {
            SqlEngine::Mariadb => self.mariadb_account(task),
            SqlEngine::Postgresql => self.postgresql_account(task),
        }
    }

    fn mariadb_account(&self, task: &SqlAccountTask) -> Result<Found> {
        let sql = format!(
            "SELECT COALESCE(JSON_VALUE(Priv, '$.plugin'), ''), COALESCE(JSON_VALUE(Priv, '$.authentication_string'), ''), \
             COALESCE(JSON_VALUE(Priv, '$.ssl_type'), '0'), COALESCE(JSON_VALUE(Priv, '$.account_locked'), '0') \
             FROM mysql.global_priv WHERE User = {} AND Host = {};\n",
            literal(&task.name),
            literal(&task.host)
        );
        let rows = self.run("", sql)?;
        let Some(row) = rows.first() else { return Ok(Found::Missing) };
        let field = |index: usize| row.get(index).map_or("", String::as_str);
        let mut wrong = Vec::new();
        if field(0) != "mysql_native_password" || field(1) != native_password(task.password.expose()) {
            wrong.push("password");
        }
        if (field(2) != "0") != task.require_tls {
            wrong.push("TLS");
        }
        if !matches!(field(3), "0" | "false") {
            wrong.push("lock");
        }
        let grants =
            self.run("", format!("SHOW GRANTS FOR {}@{};\n", literal(&task.name), literal(&task.host)))?;
        let wanted = format!("GRANT ALL PRIVILEGES ON `{}`.* TO", grant_pattern(&task.schema));
        if !grants.iter().flatten().any(|grant| grant.starts_with(&wanted)) {
            wrong.push("rights");
        }
        Ok(if wrong.is_empty() { Found::Right } else { Found::Wrong(wrong) })
    }

    fn postgresql_account(&self, task: &SqlAccountTask) -> Result<Found> {
        let sql = format!(
            "SELECT COALESCE(rolpassword, ''), rolcanlogin, COALESCE((SELECT datdba = pg_authid.oid FROM pg_database \
             WHERE datname = {}), false) FROM pg_authid WHERE rolname = {};\n",
            literal(&task.schema),
            literal(&task.name)
        );
        let rows = self.run("postgres", sql)?;
        let Some(row) = rows.first() else { return Ok(Found::Missing) };
        let field = |index: usize| row.get(index).map_or("", String::as_str);
        let mut wrong = Vec::new();
        if !verifies(field(0), task.password.expose()) {
            wrong.push("password");
        }
        if field(1) != "t" {
            wrong.push("login");
        }
        if field(2) != "t" {
            wrong.push("rights");
        }
        Ok(if wrong.is_empty() { Found::Right } else { Found::Wrong(wrong) })
    }
}

fn check_names(task: &SqlAccountTask) -> Result<()> {
    check_identifier(&task.name)?;
    check_identifier(&task.schema)?;
    if task.access.engine == SqlEngine::Mariadb {
        check_host(&task.host)?;
    }
    Ok(())
}

/// What would change.
pub fn check_account(context: &Context<'_>, task: &SqlAccountTask) -> Result<Change> {
    check_names(task)?;
    let Some(server) = server(&task.access, context.deadline)? else {
        return Ok(Change::Later {
            summary: format!("the account {}, when {} runs", task.name, task.access.service),
        });
    };
    Ok(match server.account(task)? {
        Found::Right => Change::None,
        Found::Missing => {
            Change::Create { summary: format!("create the account {}", task.name), diff: String::new() }
        }
        Found::Wrong(what) => Change::Update {
            summary: format!("the account {}: {}", task.name, what.join(", ")),
            diff: String::new(),
        },
    })
}

/// Makes it so.
pub fn apply_account(context: &Context<'_>, task: &SqlAccountTask) -> Result<Outcome> {
    check_names(task)?;
    let server = server(&task.access, context.deadline)?.ok_or_else(|| not_running(&task.access))?;
    let found = server.account(task)?;
    if matches!(found, Found::Right) {
        return Ok(Outcome::unchanged("already so"));
    }
    let sql = match task.access.engine {
        SqlEngine::Mariadb => {
            let account = format!("{}@{}", literal(&task.name), literal(&task.host));
            let password = literal(&native_password(task.password.expose()));
            let require = if task.require_tls { "SSL" } else { "NONE" };
            format!(
                "CREATE USER IF NOT EXISTS {account} IDENTIFIED BY PASSWORD {password} REQUIRE {require};\n\
                 ALTER USER {account} IDENTIFIED BY PASSWORD {password} REQUIRE {require} ACCOUNT UNLOCK;\n\
                 GRANT ALL PRIVILEGES ON `{}`.* TO {account};\n",
                grant_pattern(&task.schema)
            )
        }
        SqlEngine::Postgresql => {
            let salt: [u8; 16] = rand::random();
            let iterations = NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN);
            let verifier = literal(&scram_verifier(task.password.expose(), &salt, iterations));
            let verb = if matches!(found, Found::Missing) { "CREATE" } else { "ALTER" };
            format!(
                "{verb} ROLE \"{0}\" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {verifier};\n\
                 ALTER DATABASE \"{1}\" OWNER TO \"{0}\";\nREVOKE ALL ON DATABASE \"{1}\" FROM PUBLIC;\n",
                task.name, task.schema
            )
        }
    };
    server.run("postgres", sql)?;
    // Success is what is measured, not what was attempted.
    match server.account(task)? {
        Found::Right => Ok(Outcome::changed(format!("set up the account {}", task.name))),
        _ => Err(Failure::Service {
            service: task.access.service.clone(),
            what: format!("the account {} is not as it should be after it was set up", task.name),
            log: String::new(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        check_host, check_identifier, grant_pattern, literal, native_password, numbers, scram_verifier,
        verifies,
    };
    use std::num::NonZeroU32;

    #[test]
    fn verifiers_are_those_of_the_servers() {
        // SELECT PASSWORD('mypass') as MySQL's manual shows it.
        assert_eq!(native_password("mypass"), "*6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4");
        let verifier = scram_verifier("pencil", &[1; 16], NonZeroU32::new(4096).unwrap());
        assert!(verifier.starts_with("SCRAM-SHA-256$4096:AQEBAQEBAQEBAQEBAQEBAQ==$"));
        assert!(verifies(&verifier, "pencil") && !verifies(&verifier, "pencils"));
        for broken in ["", "md5abc", "SCRAM-SHA-256$0:AA==$x:y", "SCRAM-SHA-256$x"] {
            assert!(!verifies(broken, "pencil"), "{broken}");
        }
    }

    #[test]
    fn names_are_checked_and_quoted() {
        for wrong in ["", "Im", "a-b", "a`b", "a\"b", "1a", &"x".repeat(64)] {
            assert!(check_identifier(wrong).is_err(), "{wrong}");
        }
        check_identifier("im_core").unwrap();
        check_host("10.77.0.%").unwrap();
        assert!(check_host("a'b").is_err() && check_host("").is_err());
        assert_eq!(literal("a'b\\c"), "'a''b\\\\c'");
        assert_eq!(grant_pattern("im_core"), "im\\_core");
    }

    #[test]
    fn user_numbers_come_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\npostgres:x:105:109::/var/lib/postgresql:/bin/sh\n";
        assert_eq!(numbers(passwd, "postgres"), Some((105, 109)));
        assert_eq!(numbers(passwd, "mysql"), None);
    }
}
