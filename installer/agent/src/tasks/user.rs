//! A system user with a group of the same name and no way to log in, made by the host's own tools. What we made is
//! remembered, so that what was there before is never removed; a person's account of that name is refused.

use super::{Context, Outcome};
use crate::error::{Failure, Result};
use crate::files::absolute;
use crate::made::Made;
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

/// Whether a person could sign in with it: not what we would run services as.
pub fn is_for_people(uid: u32, shell: &str) -> bool {
    let none = ["", "nologin", "false", "sync", "halt", "shutdown"];
    let shell = shell.rsplit('/').next().unwrap_or_default();
    uid == 0 || uid >= 1000 || !none.contains(&shell)
}

/// What would change.
pub fn check(task: &UserTask) -> Result<Change> {
    check_name(&task.name)?;
    absolute(&task.home)?;
    if let Ok(Some(user)) = User::from_name(&task.name)
        && is_for_people(user.uid.as_raw(), &user.shell.to_string_lossy())
    {
        return Err(Failure::refused(
            format!("the user {} of this host is not a system user without a shell", task.name),
            "rename or remove it: services of ours run under that name",
        ));
    }
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
    let made = Made::at(&task.made)?;
    if !has_group(&task.name) {
        made.making(
            "group",
            &task.name,
            || has_group(&task.name),
            || Invocation::new("groupadd", &["--system", &task.name])?.check(context.deadline.left()),
        )?;
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
        made.making(
            "user",
            &task.name,
            || has_user(&task.name),
            || Invocation::new("useradd", &arguments)?.check(context.deadline.left()),
        )?;
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
        let task =
            |name: &str| UserTask { name: name.into(), home: "/var/lib/maxim".into(), made: String::new() };
        assert_eq!(check(&task("daemon")).unwrap(), Change::None);
        assert!(check(&task("root")).unwrap_err().to_string().contains("not a system user"));
        assert!(matches!(check(&task("maxim-none-here")).unwrap(), Change::Create { .. }));
    }
}
