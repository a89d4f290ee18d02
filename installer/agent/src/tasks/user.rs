//! A system user with a group of the same name and no way to log in, made by the host's own tools.

use super::{Context, Outcome};
use crate::error::{Failure, Result};
use crate::files::absolute;
use crate::process::{Invocation, find};
use maxim_model::task::{Change, UserTask};
use nix::unistd::{Group, User};

/// Refuses what the host's tools would take as an option or not take at all.
pub fn check_name(name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name.len() <= 31
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if fine { Ok(()) } else { Err(Failure::Invalid(format!("`{}` is not a user name", name.escape_debug()))) }
}

fn has_user(name: &str) -> bool {
    matches!(User::from_name(name), Ok(Some(_)))
}

fn has_group(name: &str) -> bool {
    matches!(Group::from_name(name), Ok(Some(_)))
}

/// What would change.
pub fn check(task: &UserTask) -> Result<Change> {
    check_name(&task.name)?;
    absolute(&task.home)?;
    Ok(match (has_user(&task.name), has_group(&task.name)) {
        (true, true) => Change::None,
        (false, true) => {
            Change::Create { summary: format!("create the system user {}", task.name), diff: String::new() }
        }
        (true, false) => {
            Change::Create { summary: format!("create the group {}", task.name), diff: String::new() }
        }
        (false, false) => Change::Create {
            summary: format!("create the system user {} and its group", task.name),
            diff: String::new(),
        },
    })
}

/// Makes it so.
pub fn apply(context: &Context<'_>, task: &UserTask) -> Result<Outcome> {
    check_name(&task.name)?;
    if !has_group(&task.name) {
        Invocation::new("groupadd", &["--system", &task.name])?.check(context.deadline.left())?;
    }
    if !has_user(&task.name) {
        let shell = ["/usr/sbin/nologin", "/sbin/nologin"].into_iter().find(|path| find(path).is_some());
        let arguments = [
            "--system",
            "--gid",
            &task.name,
            "--home-dir",
            &task.home,
            "--no-create-home",
            "--shell",
            shell.unwrap_or("/bin/false"),
            "--comment",
            "Maxim",
            &task.name,
        ];
        Invocation::new("useradd", &arguments)?.check(context.deadline.left())?;
    }
    Ok(Outcome::changed(format!("created the system user {}", task.name)))
}

#[cfg(test)]
mod tests {
    use super::{check, check_name};
    use maxim_model::task::{Change, UserTask};

    #[test]
    fn names_and_presence() {
        for wrong in ["", "-r", "Root", "a b", "a:b", &"x".repeat(40)] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
        let task = |name: &str| UserTask { name: name.into(), home: "/var/lib/maxim".into() };
        assert_eq!(check(&task("root")).unwrap(), Change::None);
        assert!(matches!(check(&task("maxim-none-here")).unwrap(), Change::Create { .. }));
    }
}
