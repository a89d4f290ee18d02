//! Kernel settings: a drop-in for the next boot, and the live values at once where the kernel lets us (in a container
//! `/proc/sys` is read-only; then the drop-in alone is what we can do, and it is said).
//!
//! The drop-in remembers the live values from before as comments, so that removing it can put them back.

use super::Outcome;
use super::limits::drop_in;
use crate::difference::unified;
use crate::error::{Failure, Result};
use crate::files::{Ownership, read_text, write_atomic};
use maxim_model::task::{Change, SysctlTask};
use nix::unistd::{AccessFlags, access};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const FOLDER: &str = "/etc/sysctl.d";
/// Marks a line that remembers an earlier value.
const BEFORE: &str = "# before: ";

/// The file of a setting below `/proc/sys`.
fn live_path(name: &str) -> Result<PathBuf> {
    let fine = !name.is_empty()
        && name.split('.').all(|part| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        });
    if !fine {
        return Err(Failure::Invalid(format!("`{}` is not a kernel setting", name.escape_debug())));
    }
    Ok(Path::new("/proc/sys").join(name.replace('.', "/")))
}

/// A live value with single blanks; empty when the kernel has no such setting.
pub fn live(name: &str) -> String {
    live_path(name).map_or_else(|_| String::new(), |path| single_blanks(&read_text(path)))
}

fn single_blanks(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn writable(path: &Path) -> bool {
    access(path, AccessFlags::W_OK).is_ok()
}

fn wanted(task: &SysctlTask) -> Result<String> {
    let mut text = String::from("# Written by maxim.ctl.\n");
    for (name, value) in &task.settings {
        live_path(name)?;
        if value.contains('\n') {
            return Err(Failure::Invalid(format!("the value of {name} holds a line break")));
        }
        text.push_str(&format!("{name} = {value}\n"));
    }
    Ok(text)
}

/// Splits a drop-in into settings and remembered values.
fn split(text: &str) -> (String, BTreeMap<String, String>) {
    let mut settings = String::new();
    let mut before = BTreeMap::new();
    for line in text.lines() {
        match line.strip_prefix(BEFORE).and_then(|rest| rest.split_once(" = ")) {
            Some((name, value)) => {
                before.insert(name.to_owned(), value.to_owned());
            }
            None => {
                settings.push_str(line);
                settings.push('\n');
            }
        }
    }
    (settings, before)
}

/// What would change.
pub fn check(task: &SysctlTask) -> Result<Change> {
    let path = drop_in(FOLDER, &task.name)?;
    let wanted = wanted(task)?;
    let exists = path.exists();
    let (found, _) = split(&fs::read_to_string(&path).unwrap_or_default());
    let names: Vec<String> = task
        .settings
        .iter()
        .filter(|(name, value)| {
            live_path(name).is_ok_and(|path| writable(&path)) && live(name) != single_blanks(value)
        })
        .map(|(name, value)| format!("{name} {} → {value}", live(name)))
        .collect();
    if found == wanted && exists {
        if names.is_empty() {
            return Ok(Change::None);
        }
        return Ok(Change::Update { summary: format!("set {}", names.join(", ")), diff: String::new() });
    }
    let diff = unified(&path.display().to_string(), &found, &wanted);
    let summary = format!("kernel settings in {}", path.display());
    Ok(if exists { Change::Update { summary, diff } } else { Change::Create { summary, diff } })
}

/// Makes it so.
pub fn apply(task: &SysctlTask) -> Result<Outcome> {
    let path = drop_in(FOLDER, &task.name)?;
    let (_, mut before) = split(&fs::read_to_string(&path).unwrap_or_default());
    before.retain(|name, _| task.settings.contains_key(name));
    for name in task.settings.keys() {
        let now = live(name);
        if !now.is_empty() && live_path(name).is_ok_and(|path| writable(&path)) {
            before.entry(name.clone()).or_insert(now);
        }
    }
    let mut text = wanted(task)?;
    for (name, value) in &before {
        text.push_str(&format!("{BEFORE}{name} = {value}\n"));
    }
    write_atomic(&path, text.as_bytes(), Ownership::mode(0o644))?;
    let mut left = Vec::new();
    for (name, value) in &task.settings {
        let live_path = live_path(name)?;
        if single_blanks(value) != live(name)
            && (!writable(&live_path) || fs::write(&live_path, value).is_err())
        {
            left.push(name.as_str());
        }
    }
    let detail = if left.is_empty() {
        format!("set {} kernel settings", task.settings.len())
    } else {
        format!("wrote {}; the kernel here does not let us set {} now", path.display(), left.join(", "))
    };
    Ok(Outcome::changed(detail))
}

/// Puts back what a drop-in remembers; called before it is removed.
pub fn restore(path: &Path) {
    let (_, before) = split(&fs::read_to_string(path).unwrap_or_default());
    for (name, value) in before {
        if let Ok(live_path) = live_path(&name) {
            // Best effort: the next boot does it in any case.
            let _ = fs::write(live_path, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{live, live_path, split, wanted};
    use maxim_model::task::SysctlTask;
    use std::collections::BTreeMap;

    #[test]
    fn settings_are_told_from_memories() {
        let task = SysctlTask {
            name: "90-maxim".into(),
            settings: BTreeMap::from([("net.core.somaxconn".into(), "65535".into())]),
        };
        let text = wanted(&task).unwrap();
        let (settings, before) = split(&format!("{text}# before: net.core.somaxconn = 4096\n"));
        assert_eq!(settings, text);
        assert_eq!(before["net.core.somaxconn"], "4096");
    }

    #[test]
    fn names_cannot_leave_proc_sys() {
        for wrong in ["", "a..b", "../x", "a/b", "kernel.core pattern"] {
            assert!(live_path(wrong).is_err(), "{wrong}");
        }
        assert!(!live("kernel.ostype").is_empty());
    }
}
