//! Restarts that are owed to services: one small file per service, written before the change that causes it and
//! removed after the restart. A run that is killed in between leaves the file, and the next run does what is owed.

use crate::error::{Failure, Result};
use crate::files::{Ownership, parent, read_text, write_atomic};
use std::fs;
use std::path::{Path, PathBuf};

/// What a service is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// True: a restart; false: a reload is enough.
    pub restart: bool,
    /// The task that changed something.
    pub because: String,
}

/// The marks below one folder.
#[derive(Debug, Clone)]
pub struct Marks {
    folder: PathBuf,
}

impl Marks {
    /// Marks in this folder; it is made when the first mark is.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, service: &str) -> PathBuf {
        let plain: String = service
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_@.".contains(c) { c } else { '_' })
            .collect();
        self.folder.join(plain)
    }

    /// Whether anything is owed to anybody.
    pub fn any(&self) -> bool {
        fs::read_dir(&self.folder).is_ok_and(|mut marks| marks.next().is_some())
    }

    /// What a service is owed.
    pub fn owed(&self, service: &str) -> Option<Owed> {
        let text = read_text(self.path(service));
        let (what, because) = text.split_once(' ')?;
        Some(Owed { restart: what != "reload", because: because.to_owned() })
    }

    /// Notes that a service is owed a restart or reload. A reload does not weaken a restart. Returns whether the mark
    /// is new.
    pub fn owe(&self, service: &str, restart: bool, because: &str) -> Result<bool> {
        match self.owed(service) {
            Some(owed) if owed.restart || !restart => return Ok(false),
            _ => {}
        }
        let what = if restart { "restart" } else { "reload" };
        write_atomic(&self.path(service), format!("{what} {because}\n").as_bytes(), Ownership::mode(0o600))?;
        Ok(true)
    }

    /// The debt is paid.
    pub fn paid(&self, service: &str) -> Result<()> {
        remove(&self.path(service))?;
        // Only when it was the last one.
        let _ = fs::remove_dir(&self.folder);
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => crate::files::sync_folder(parent(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::file("remove", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::Marks;

    #[test]
    fn a_debt_stays_until_it_is_paid_and_a_restart_outweighs_a_reload() {
        let folder = tempfile::tempdir().unwrap();
        let marks = Marks::new(folder.path().join("maxim-restart"));
        assert_eq!(marks.owed("maxim-im"), None);
        assert!(marks.owe("maxim-im", false, "im/certificate").unwrap());
        assert!(marks.owe("maxim-im", true, "im/config").unwrap());
        assert!(!marks.owe("maxim-im", false, "im/other").unwrap());
        let owed = marks.owed("maxim-im").unwrap();
        assert_eq!((owed.restart, owed.because.as_str()), (true, "im/config"));
        marks.paid("maxim-im").unwrap();
        marks.paid("maxim-im").unwrap();
        assert!(marks.owed("maxim-im").is_none() && !folder.path().join("maxim-restart").exists());
    }
}
