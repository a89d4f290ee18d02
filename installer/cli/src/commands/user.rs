//! `user add|list|passwd|disable|enable|remove|import`: IM accounts. Passwords come by standard input or from the
//! terminal without echo, never by a flag.

use super::{Call, Outcome};
use crate::arguments::UserCommand;
use crate::cluster::{self, Needs, Session};
use crate::failure::Failure;
use crate::messages::values;
use crate::passwords;
use crate::printer::table::{Align, render};
use maxim_engine::actions::user::{self, NewUser};
use maxim_model::Secret;
use serde_json::json;
use std::path::Path;

/// Runs one of them.
pub(super) fn run(call: &Call<'_>, command: UserCommand) -> Outcome {
    let messages = call.printer.messages();
    match command {
        UserCommand::List => list(call),
        UserCommand::Add { address, name, password_stdin } => {
            check_address(&address)?;
            let session = session(call)?;
            let password = passwords::new_password(password_stdin, messages)?;
            let user = user::add(&session.context, &NewUser { address, password, name, groups: Vec::new() })?;
            say(call, "user-added", &user.address, json!({ "changes": 1, "user": user }));
            Ok(0)
        }
        UserCommand::Passwd { address, password_stdin } => {
            check_address(&address)?;
            let session = session(call)?;
            let password = passwords::new_password(password_stdin, messages)?;
            user::passwd(&session.context, &address, &password)?;
            say(call, "user-passwd", &address, json!({ "changes": 1 }));
            Ok(0)
        }
        UserCommand::Disable { address } => {
            check_address(&address)?;
            user::set_enabled(&session(call)?.context, &address, false)?;
            say(call, "user-disabled", &address, json!({ "changes": 1 }));
            Ok(0)
        }
        UserCommand::Enable { address } => {
            check_address(&address)?;
            user::set_enabled(&session(call)?.context, &address, true)?;
            say(call, "user-enabled", &address, json!({ "changes": 1 }));
            Ok(0)
        }
        UserCommand::Remove { address } => {
            check_address(&address)?;
            let session = session(call)?;
            let question = messages.with("ask-remove-user", values!["address" => address.as_str()]);
            if !session.person.confirm(&question) {
                if session.person.nobody_was_there() {
                    return Err(Failure::usage(
                        messages.text("nobody-to-ask"),
                        messages.text("nobody-to-ask-hint"),
                    ));
                }
                return Err(Failure::failed(messages.text("declined"), ""));
            }
            user::remove(&session.context, &address)?;
            say(call, "user-removed", &address, json!({ "changes": 1 }));
            Ok(0)
        }
        UserCommand::Import { list } => import(call, &list),
    }
}

fn session(call: &Call<'_>) -> Result<Session, Failure> {
    let target = cluster::existing(call.global, call.printer)?;
    cluster::session(call.global, target, Needs::Nothing, call.printer)
}

fn say(call: &Call<'_>, key: &str, address: &str, fields: serde_json::Value) {
    let messages = call.printer.messages();
    let text = match key {
        "user-added" => messages.with("user-added", values!["address" => address]),
        "user-passwd" => messages.with("user-passwd", values!["address" => address]),
        "user-disabled" => messages.with("user-disabled", values!["address" => address]),
        "user-enabled" => messages.with("user-enabled", values!["address" => address]),
        _ => messages.with("user-removed", values!["address" => address]),
    };
    call.printer.human(&format!("{text}\n"));
    call.printer.result(0, fields);
}

/// What can be seen without the server: it knows the rest.
fn check_address(address: &str) -> Result<(), Failure> {
    let local = address.split('@').next().unwrap_or_default();
    if local.is_empty() || address.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Failure::usage(
            format!("`{}` is not the address of an account", address.escape_debug()),
            "as `ann@im.acme.example`, or `ann` alone",
        ));
    }
    Ok(())
}

fn list(call: &Call<'_>) -> Outcome {
    let session = session(call)?;
    let users = user::list(&session.context)?;
    let (messages, style) = (call.printer.messages(), call.printer.style());
    let mut rows = vec![vec![
        messages.text("column-address"),
        messages.text("column-name"),
        messages.text("column-state"),
        messages.text("column-created"),
    ]];
    for user in &users {
        let state = if user.enabled {
            style.green(&messages.text("user-state-enabled"))
        } else {
            style.yellow(&messages.text("user-state-disabled"))
        };
        rows.push(vec![user.address.clone(), user.name.clone(), state, minute(&user.created_at)]);
    }
    let text = if users.is_empty() {
        format!("{}\n", messages.text("user-none"))
    } else {
        render(&rows, &[Align::Left; 4], style)
    };
    call.printer.human(&text);
    call.printer.result(0, json!({ "changes": 0, "users": users }));
    Ok(0)
}

/// `2026-11-21 03:40 UTC` of an RFC 3339 time; seconds matter to nobody here.
fn minute(time: &str) -> String {
    match time.get(..16) {
        Some(minute) if time.ends_with('Z') => format!("{} UTC", minute.replace('T', " ")),
        _ => time.to_owned(),
    }
}

/// `address,password,name,groups` (groups separated by `;`). The whole file is read and checked before the first
/// account is made.
fn import(call: &Call<'_>, path: &Path) -> Outcome {
    let users = read_csv(path)?;
    let session = session(call)?;
    let messages = call.printer.messages();
    if call.global.dry_run {
        call.printer
            .human(&format!("{}\n", messages.with("import-dry-run", values!["count" => users.len()])));
        call.printer.result(0, json!({ "changes": 0 }));
        return Ok(0);
    }
    let results = user::import(&session.context, &users)?;
    let created = results.iter().filter(|result| result.created).count();
    let refused: Vec<_> = results.iter().filter(|result| !result.error.is_empty()).collect();
    let mut text = String::new();
    for result in &refused {
        // The head is line 1 of the file.
        let line = result.row + 2;
        text.push_str(&format!("{}:{line}: {}: {}\n", path.display(), result.address, result.error));
    }
    let there = results.len() - created - refused.len();
    text.push_str(&format!(
        "{}\n",
        messages
            .with("import-sum", values!["created" => created, "there" => there, "refused" => refused.len()])
    ));
    call.printer.human(&text);
    let code = u8::from(!refused.is_empty());
    call.printer.result(code, json!({ "changes": created, "results": results }));
    Ok(code)
}

fn read_csv(path: &Path) -> Result<Vec<NewUser>, Failure> {
    const COLUMNS: [&str; 4] = ["address", "password", "name", "groups"];
    let bytes = std::fs::read(path).map_err(|error| Failure { code: 2, ..Failure::file(path, &error) })?;
    let mut reader =
        csv::ReaderBuilder::new().flexible(false).trim(csv::Trim::Headers).from_reader(bytes.as_slice());
    let wrong = |message: String| {
        Failure::usage(
            format!("{}: {message}", path.display()),
            "the first line names the columns: address,password,name,groups (the last two may be left out)",
        )
    };
    let header = reader.headers().map_err(|error| wrong(error.to_string()))?.clone();
    for name in &header {
        if !COLUMNS.contains(&name) {
            return Err(wrong(format!("line 1: unknown column `{}`", name.escape_debug())));
        }
    }
    let column = |name: &str| header.iter().position(|column| column == name);
    let (Some(address), Some(password)) = (column("address"), column("password")) else {
        return Err(wrong("line 1: the columns `address` and `password` are needed".to_owned()));
    };
    let (name, groups) = (column("name"), column("groups"));
    let mut users = Vec::new();
    for record in reader.records() {
        // The parser's own message may quote the record, and with it a password.
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            wrong(format!("line {line}: not the same number of columns as the first line, or not UTF-8"))
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        let field =
            |at: Option<usize>| at.and_then(|at| record.get(at)).unwrap_or_default().trim().to_owned();
        let user = NewUser {
            address: field(Some(address)),
            password: Secret::new(record.get(password).unwrap_or_default()),
            name: field(name),
            groups: field(groups)
                .split(';')
                .map(str::trim)
                .filter(|group| !group.is_empty())
                .map(str::to_owned)
                .collect(),
        };
        check_address(&user.address).map_err(|_| {
            wrong(format!("line {line}: `{}` is not an address", user.address.escape_debug()))
        })?;
        if user.password.is_empty() {
            return Err(wrong(format!("line {line}: `{}` has no password", user.address)));
        }
        if users.iter().any(|other: &NewUser| other.address.eq_ignore_ascii_case(&user.address)) {
            return Err(wrong(format!("line {line}: `{}` stands twice", user.address)));
        }
        users.push(user);
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::read_csv;
    use std::io::Write;

    fn read(text: &str) -> Result<Vec<super::NewUser>, String> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        read_csv(file.path()).map_err(|failure| failure.problems[0].message.clone())
    }

    #[test]
    fn a_list_is_read_with_quotes_and_groups() {
        let users =
            read("address,password,name,groups\nann,\"a,\"\"b\",Ann Lee,staff; ops\nbob@x.example,p,,\n")
                .expect("good");
        assert_eq!(users[0].password.expose(), "a,\"b");
        assert_eq!(users[0].groups, ["staff", "ops"]);
        assert_eq!(users[1].address, "bob@x.example");
    }

    #[test]
    fn mistakes_name_the_line_and_no_password() {
        for (text, part) in [
            ("user,password\n", "unknown column"),
            ("address\nann\n", "needed"),
            ("address,password\nann,planted-3,more\n", "line 2"),
            ("address,password\nann,planted-3\nann,planted-4\n", "line 3"),
            ("address,password\nann,\n", "no password"),
            ("address,password\n,planted-3\n", "not an address"),
        ] {
            let error = read(text).expect_err("a mistake");
            assert!(error.contains(part) && !error.contains("planted"), "{error}");
        }
    }
}
