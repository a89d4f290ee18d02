//! Database schemas and accounts, through the client program of the component's own image.
//!
//! The client runs by `chroot` into the root of the running service, over its unix socket, as the system's root, whom
//! the server's configuration takes for its administrator; SQL goes to its standard input. No password of an
//! administrator exists.
//! Account passwords are turned into the server's verifier here, so that not even the server's own log could hold one:
//! `mysql_native_password` for `MariaDB`, SCRAM-SHA-256 (RFC 5803) for `PostgreSQL`. What the server holds is compared
//! first; an account that is right is not touched. TLS for `PostgreSQL` accounts is a matter of `pg_hba.conf`.

pub(crate) mod server;
mod verifier;

use super::{Context, Outcome};
use crate::error::{Failure, Result};
use maxim_model::task::{Change, SqlAccess, SqlAccountTask, SqlEngine, SqlSchemaTask};
use server::{Server, literal, server};

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

fn not_running(access: &SqlAccess) -> Failure {
    Failure::Service {
        service: access.service.clone(),
        what: "does not run, so its accounts cannot be looked at".into(),
        log: String::new(),
    }
}

/// A server that runs and does not answer is no reason to refuse a plan: the run may bring what it lacks.
fn unknown(failure: Failure) -> Result<Change> {
    match failure {
        Failure::Command { .. } => {
            Ok(Change::Later { summary: format!("could not be looked at: {failure}") })
        }
        other => Err(other),
    }
}

/// What would change.
pub fn check_schema(context: &Context<'_>, task: &SqlSchemaTask) -> Result<Change> {
    check_identifier(&task.name)?;
    Ok(match server(&task.access, context.deadline)? {
        None => Change::Later {
            summary: format!("the database {}, when {} runs", task.name, task.access.service),
        },
        Some(server) => match server.has_schema(&task.name) {
            Ok(true) => Change::None,
            Ok(false) => {
                Change::Create { summary: format!("create the database {}", task.name), diff: String::new() }
            }
            Err(failure) => unknown(failure)?,
        },
    })
}

/// Makes it so.
pub fn apply_schema(context: &Context<'_>, task: &SqlSchemaTask) -> Result<Outcome> {
    check_identifier(&task.name)?;
    let server = server(&task.access, context.deadline)?.ok_or_else(|| not_running(&task.access))?;
    if server.has_schema(&task.name)? {
        return Ok(Outcome::unchanged("already so"));
    }
    server.create_schema(&task.name)?;
    Ok(Outcome::changed(format!("created the database {}", task.name)))
}

/// How an account differs from what is wanted: nothing, in some points, or it is not there.
enum Found {
    Right,
    Wrong(Vec<&'static str>),
    Missing,
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
        if field(0) != "mysql_native_password"
            || field(1) != verifier::native_password(task.password.expose())
        {
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
        if !verifier::verifies(field(0), task.password.expose()) {
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
    let found = match server.account(task) {
        Ok(found) => found,
        Err(failure) => return unknown(failure),
    };
    Ok(match found {
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
    // Rights are given on it; whichever task comes first makes it.
    if !server.has_schema(&task.schema)? {
        server.create_schema(&task.schema)?;
    }
    let sql = match task.access.engine {
        SqlEngine::Mariadb => {
            let account = format!("{}@{}", literal(&task.name), literal(&task.host));
            let password = literal(&verifier::native_password(task.password.expose()));
            let require = if task.require_tls { "SSL" } else { "NONE" };
            format!(
                "CREATE USER IF NOT EXISTS {account} IDENTIFIED BY PASSWORD {password} REQUIRE {require};\n\
                 ALTER USER {account} IDENTIFIED BY PASSWORD {password} REQUIRE {require} ACCOUNT UNLOCK;\n\
                 GRANT ALL PRIVILEGES ON `{}`.* TO {account};\n",
                grant_pattern(&task.schema)
            )
        }
        SqlEngine::Postgresql => {
            let verifier = literal(&verifier::new_scram(task.password.expose()));
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
    use super::{check_host, check_identifier, grant_pattern};

    #[test]
    fn names_are_checked() {
        for wrong in ["", "Im", "a-b", "a`b", "a\"b", "1a", &"x".repeat(64)] {
            assert!(check_identifier(wrong).is_err(), "{wrong}");
        }
        check_identifier("im_core").unwrap();
        check_host("10.77.0.%").unwrap();
        assert!(check_host("a'b").is_err() && check_host("").is_err());
        assert_eq!(grant_pattern("im_core"), "im\\_core");
    }
}
