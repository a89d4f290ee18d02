//! What was made by us and could as well have been there before: users, and files and folders that others use too.
//! A list in a file of ours, one `kind name` per line; what does not stand in it is never removed.
//!
//! An entry is written before the thing is made, so that a killed run forgets nothing, and goes with it.

use crate::error::Result;
use crate::files::{Ownership, absolute, parent, read_bounded, sync_folder, write_atomic};
use std::fs;
use std::path::PathBuf;

const BOUND: u64 = 1 << 20;

/// The list.
pub struct Made {
    /// None: nothing is remembered, so nothing is ours.
    path: Option<PathBuf>,
}

impl Made {
    /// The list at a path; an empty one remembers nothing.
    pub fn at(path: &str) -> Result<Self> {
        Ok(Self { path: if path.is_empty() { None } else { Some(absolute(path)?) } })
    }

    fn entries(&self) -> Result<Vec<String>> {
        let Some(path) = &self.path else { return Ok(Vec::new()) };
        let text = read_bounded(path, BOUND)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
    }

    /// Whether we made it.
    pub fn holds(&self, kind: &str, name: &str) -> Result<bool> {
        Ok(self.entries()?.contains(&format!("{kind} {name}")))
    }

    /// It is about to be made.
    pub fn note(&self, kind: &str, name: &str) -> Result<()> {
        let mut entries = self.entries()?;
        let entry = format!("{kind} {name}");
        if entries.contains(&entry) {
            return Ok(());
        }
        entries.push(entry);
        self.write(&entries)
    }

    /// Makes it, remembered from before the first attempt. When that fails and it is not there, it is forgotten again: who
    /// makes it by hand then makes it for himself.
    pub fn making<T>(
        &self,
        kind: &str,
        name: &str,
        is_there: impl Fn() -> bool,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.note(kind, name)?;
        let made = make();
        if made.is_err() && !is_there() {
            // What went wrong is the error to tell; a mark too many is the smaller trouble.
            let _ = self.forget(kind, name);
        }
        made
    }

    /// What was noted of it, as `kind name=value`.
    pub fn value(&self, kind: &str, name: &str) -> Result<Option<String>> {
        let start = format!("{kind} {name}=");
        Ok(self.entries()?.iter().find_map(|entry| entry.strip_prefix(&start).map(str::to_owned)))
    }

    /// It is gone, or somebody else's now.
    pub fn forget(&self, kind: &str, name: &str) -> Result<()> {
        let mut entries = self.entries()?;
        let count = entries.len();
        entries.retain(|entry| *entry != format!("{kind} {name}"));
        if entries.len() == count { Ok(()) } else { self.write(&entries) }
    }

    fn write(&self, entries: &[String]) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if entries.is_empty() {
            // Already gone is as good.
            let _ = fs::remove_file(path);
            return sync_folder(parent(path));
        }
        write_atomic(path, (entries.join("\n") + "\n").as_bytes(), Ownership::mode(0o600))
    }
}

#[cfg(test)]
mod tests {
    use super::Made;

    #[test]
    fn what_was_made_is_remembered_until_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/made");
        let made = Made::at(&path.display().to_string()).unwrap();
        assert!(!made.holds("user", "maxim").unwrap());
        made.note("user", "maxim").unwrap();
        made.note("user", "maxim").unwrap();
        made.note("file", "/root/.ssh/authorized_keys").unwrap();
        assert!(made.holds("user", "maxim").unwrap() && !made.holds("group", "maxim").unwrap());
        made.forget("user", "maxim").unwrap();
        made.forget("group", "maxim").unwrap();
        assert!(!made.holds("user", "maxim").unwrap());
        made.note("kept-group", "maxim=990").unwrap();
        assert_eq!(made.value("kept-group", "maxim").unwrap().as_deref(), Some("990"));
        assert_eq!(made.value("kept-group", "max").unwrap(), None);
        made.forget("kept-group", "maxim=990").unwrap();
        made.forget("file", "/root/.ssh/authorized_keys").unwrap();
        assert!(!path.exists());
        let none = Made::at("").unwrap();
        none.note("user", "x").unwrap();
        assert!(!none.holds("user", "x").unwrap());
    }

    #[test]
    fn what_could_not_be_made_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let made = Made::at(&folder.path().join("made").display().to_string()).unwrap();
        let fails = || Err::<(), _>(crate::error::Failure::Invalid("no".into()));
        made.making("user", "maxim", || false, fails).unwrap_err();
        assert!(!made.holds("user", "maxim").unwrap());
        made.making("user", "maxim", || true, fails).unwrap_err();
        assert!(made.holds("user", "maxim").unwrap(), "half a failure: it is there");
        made.making("group", "maxim", || true, || Ok(())).unwrap();
        assert!(made.holds("group", "maxim").unwrap());
    }
}
