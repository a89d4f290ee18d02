//! What is known of a repository since it was last opened, so that a run need not open it only to see that it is there:
//! that costs a second, for restic derives its key each time.
//!
//! The note says whether whoever used the repository last has ended well. Else a lock of theirs may be left, which keeps
//! every tool from checking the repository, and the next run looks.

use crate::error::Result;
use crate::files::{Ownership, write_atomic};
use maxim_model::backup::RepositoryAccess;
use ring::digest::{SHA256, digest};
use std::path::{Path, PathBuf};

const SETTLED: &str = "settled";
const BUSY: &str = "busy";

/// The note of one repository and key.
pub struct Memo {
    path: PathBuf,
    /// Hash of where it is and what opens it: another place or key is another repository.
    key: String,
}

impl Memo {
    /// In the folder where restic works.
    pub fn of(work: &Path, access: &RepositoryAccess) -> Self {
        let text = format!("{}\0{}", access.repository.location(), access.password.expose());
        Self { path: work.join("repository"), key: hex::encode(digest(&SHA256, text.as_bytes())) }
    }

    /// Its identifier, and whether nobody has left it in the middle.
    fn read(&self) -> Option<(String, bool)> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        let mut words = text.split_whitespace();
        let (key, id, state) = (words.next()?, words.next()?, words.next()?);
        (key == self.key).then(|| (id.to_owned(), state == SETTLED))
    }

    /// Its identifier, when whoever used it last has ended well.
    pub fn settled(&self) -> Option<String> {
        self.read().and_then(|(id, settled)| settled.then_some(id))
    }

    /// Somebody begins to change it; whether it was settled.
    pub fn busy(&self) -> Result<bool> {
        match self.read() {
            Some((id, true)) => self.write(&id, BUSY).map(|()| true),
            _ => Ok(false),
        }
    }

    /// They have ended well.
    pub fn settle(&self) -> Result<()> {
        match self.read() {
            Some((id, false)) => self.write(&id, SETTLED),
            _ => Ok(()),
        }
    }

    /// It was opened, and somebody begins to change it.
    pub fn opened(&self, id: &str) -> Result<()> {
        self.write(id, BUSY)
    }

    fn write(&self, id: &str, state: &str) -> Result<()> {
        let text = format!("{} {id} {state}\n", self.key);
        write_atomic(&self.path, text.as_bytes(), Ownership::mode(0o600)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::Memo;
    use maxim_model::Secret;
    use maxim_model::backup::{Repository, RepositoryAccess};

    #[test]
    fn only_who_ended_well_leaves_a_repository_that_need_not_be_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let memo = |path: &str, password: &str| {
            let access = RepositoryAccess {
                repository: Repository::Local { path: path.into() },
                password: Secret::new(password),
                ssh_key: Secret::default(),
                known_hosts: String::new(),
                credentials: Secret::default(),
                work: String::new(),
                run: String::new(),
                images: String::new(),
            };
            Memo::of(folder.path(), &access)
        };
        let one = memo("/a", "key");
        assert_eq!(one.settled(), None);
        one.settle().unwrap();
        assert_eq!(one.settled(), None, "it was never opened");
        one.opened("12ab").unwrap();
        assert_eq!(one.settled(), None, "whoever opened it may have been killed");
        one.settle().unwrap();
        assert_eq!(one.settled().as_deref(), Some("12ab"));
        assert_eq!(memo("/b", "key").settled(), None, "another place");
        assert_eq!(memo("/a", "other").settled(), None, "another key");
        assert!(one.busy().unwrap());
        assert!(!one.busy().unwrap());
        assert_eq!(one.settled(), None);
    }
}
