//! Resource limits of a user's sessions as a drop-in. Services have theirs in their units; this one is for people
//! and tools that work as that user.

use super::Outcome;
use super::file::compare;
use super::user::check_name;
use crate::error::{Failure, Result};
use crate::files::{Ownership, write_atomic};
use maxim_model::task::{Change, LimitsTask};
use std::path::PathBuf;

/// Refuses a drop-in name that would leave its folder.
pub fn drop_in(folder: &str, name: &str) -> Result<PathBuf> {
    let fine = !name.is_empty()
        && name.len() < 100
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !fine {
        return Err(Failure::Invalid(format!("`{}` is not the name of a drop-in", name.escape_debug())));
    }
    Ok(PathBuf::from(format!("{folder}/{name}.conf")))
}

fn content(task: &LimitsTask) -> Result<String> {
    check_name(&task.user)?;
    Ok(format!("# Written by maxim.ctl.\n{0} soft nofile {1}\n{0} hard nofile {1}\n", task.user, task.nofile))
}

/// What would change.
pub fn check(task: &LimitsTask) -> Result<Change> {
    let path = drop_in("/etc/security/limits.d", &task.name)?;
    compare(&path, &content(task)?, false, false, Some(Ownership::mode(0o644)))
}

/// Makes it so.
pub fn apply(task: &LimitsTask, change: &Change) -> Result<Outcome> {
    let path = drop_in("/etc/security/limits.d", &task.name)?;
    write_atomic(&path, content(task)?.as_bytes(), Ownership::mode(0o644))?;
    Ok(Outcome::changed(change.summary()))
}

#[cfg(test)]
mod tests {
    use super::{content, drop_in};
    use maxim_model::task::LimitsTask;

    #[test]
    fn the_drop_in_names_the_user_and_stays_in_its_folder() {
        let task = LimitsTask { name: "90-maxim".into(), user: "maxim".into(), nofile: 65_536 };
        assert!(content(&task).unwrap().ends_with("maxim soft nofile 65536\nmaxim hard nofile 65536\n"));
        assert_eq!(drop_in("/x", "90-maxim").unwrap().to_str(), Some("/x/90-maxim.conf"));
        assert!(drop_in("/x", "../y").is_err() && drop_in("/x", ".y").is_err());
        assert!(content(&LimitsTask { user: "a\nb".into(), ..task }).is_err());
    }
}
