//! What is known of a repository since it was last opened: which one lies at this place, so that one that is gone is not
//! made anew without a word, and how it was left, so that a run need not open it only to see that it is there. That
//! costs a second, for restic derives its key each time.
//!
//! The note says whether whoever used the repository last has ended well, and else which agent began. Where another one
//! than this did, a lock of it may be left, which keeps every tool from checking the repository: it must be looked for
//! before the note may say that all is well.

use crate::error::{Failure, Result};
use crate::files::{Ownership, write_atomic};
use crate::lock::{flock_within, is_taken};
use maxim_model::backup::RepositoryAccess;
use ring::digest::{SHA256, digest};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// Its name in the folder where restic works. A repository may lie in that folder too, under a name of its owner's.
const NAME: &str = "opened";
const SETTLED: &str = "settled";
/// In place of an agent: whoever looks finds that it was another one.
const NOBODY: &str = "nobody";
/// Longest wait for others who write it: each brings a file of one line to the disk, which is at work for a backup.
const PATIENCE: Duration = Duration::from_mins(1);

/// What tells this agent from all others, on any boot.
fn this_agent() -> &'static str {
    static THIS: OnceLock<String> = OnceLock::new();
    THIS.get_or_init(|| format!("{:032x}", rand::random::<u128>()))
}

/// The note of one repository and key.
pub struct Memo {
    path: PathBuf,
    /// Hash of where it is and what opens it: another place or key is another repository.
    key: String,
    /// Who writes.
    agent: String,
}

impl Memo {
    /// In the folder where restic works.
    pub fn of(work: &Path, access: &RepositoryAccess) -> Self {
        let text = format!("{}\0{}", access.repository.location(), access.password.expose());
        let key = hex::encode(digest(&SHA256, text.as_bytes()));
        Self { path: work.join(NAME), key, agent: this_agent().to_owned() }
    }

    /// Where the note lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its identifier, and who uses it.
    fn read(&self) -> Option<(String, String)> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        let mut words = text.split_whitespace();
        let (key, id, state) = (words.next()?, words.next()?, words.next()?);
        (key == self.key).then(|| (id.to_owned(), state.to_owned()))
    }

    /// The identifier of the repository that was opened at this place with this key, however it was left.
    pub fn known(&self) -> Option<String> {
        self.read().map(|(id, _)| id)
    }

    /// The same, when whoever used it last has ended well.
    pub fn settled(&self) -> Option<String> {
        self.read().and_then(|(id, state)| (state == SETTLED).then_some(id))
    }

    /// Somebody begins to change it; whether it was settled.
    pub fn busy(&self) -> Result<bool> {
        let _alone = self.alone()?;
        match self.read() {
            Some((id, state)) if state == SETTLED => self.write(&id, &self.agent).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Whether this agent found it settled, or took locks away, before anybody began: then no lock is left when all have
    /// ended well.
    pub fn is_ours(&self) -> bool {
        self.read().is_some_and(|(_, state)| state == self.agent)
    }

    /// All who changed it have ended well, and no lock is left.
    pub fn settle(&self) -> Result<()> {
        let _alone = self.alone()?;
        match self.read() {
            Some((id, state)) if state != SETTLED => self.write(&id, SETTLED),
            _ => Ok(()),
        }
    }

    /// It was opened, locks were taken away, and somebody begins to change it. `all`: nobody else was at work, so none is
    /// left.
    pub fn opened(&self, id: &str, all: bool) -> Result<()> {
        let _alone = self.alone()?;
        self.write(id, if all { &self.agent } else { NOBODY })
    }

    /// Parts of a set are stored at the same time, each by an agent of its own: one of them at a time reads and writes the
    /// note, which takes a moment.
    fn alone(&self) -> Result<File> {
        let path = self.path.with_extension("lock");
        if let Some(folder) = path.parent() {
            crate::backup::private(folder)?;
        }
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Failure::file("open", &path))?;
        flock_within(&path, PATIENCE, || Ok(is_taken(&path, lock.try_lock())?.then_some(())))?;
        Ok(lock)
    }

    fn write(&self, id: &str, state: &str) -> Result<()> {
        let text = format!("{} {id} {state}\n", self.key);
        write_atomic(&self.path, text.as_bytes(), Ownership::mode(0o600)).map(drop)
    }
}

#[cfg(test)]
pub mod tests {
    use super::Memo;
    use maxim_model::Secret;
    use maxim_model::backup::{Repository, RepositoryAccess};
    use std::path::Path;

    /// The note of another agent than this one, or of the same when it has the same name.
    pub fn memo(folder: &Path, place: &str, password: &str, agent: &str) -> Memo {
        let access = RepositoryAccess {
            repository: Repository::Local { path: place.into() },
            password: Secret::new(password),
            ssh_key: Secret::default(),
            known_hosts: String::new(),
            credentials: Secret::default(),
            work: String::new(),
            run: String::new(),
            images: String::new(),
        };
        Memo { agent: agent.into(), ..Memo::of(folder, &access) }
    }

    #[test]
    fn only_who_ended_well_leaves_a_repository_that_need_not_be_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let memo = |place: &str, password: &str| memo(folder.path(), place, password, "one");
        let one = memo("/a", "key");
        assert_eq!((one.settled(), one.known()), (None, None));
        one.settle().unwrap();
        assert_eq!(one.settled(), None, "it was never opened");
        assert!(!one.busy().unwrap());
        assert_eq!(one.known(), None, "what was never opened is not known");
        one.opened("12ab", true).unwrap();
        assert_eq!(one.settled(), None, "whoever opened it may have been killed");
        assert_eq!(one.known().as_deref(), Some("12ab"));
        one.settle().unwrap();
        assert_eq!(one.settled().as_deref(), Some("12ab"));
        for other in [memo("/b", "key"), memo("/a", "other")] {
            assert_eq!((other.settled(), other.known()), (None, None), "another place or key");
        }
        assert!(one.busy().unwrap());
        assert!(!one.busy().unwrap());
        assert_eq!(one.settled(), None);
        assert_eq!(one.known().as_deref(), Some("12ab"));
    }

    #[test]
    fn agents_that_store_parts_at_the_same_time_write_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        memo(folder.path(), "/a", "key", "one").opened("12ab", true).unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let folder = folder.path();
                scope.spawn(move || {
                    let mine = memo(folder, "/a", "key", &format!("agent-{number}"));
                    for _ in 0..20 {
                        mine.settle().unwrap();
                        mine.busy().unwrap();
                    }
                });
            }
        });
        assert_eq!(memo(folder.path(), "/a", "key", "one").known().as_deref(), Some("12ab"));
    }

    #[test]
    fn a_run_that_was_killed_is_not_taken_for_this_one() {
        let folder = tempfile::tempdir().unwrap();
        let agent = |name: &str| memo(folder.path(), "/a", "key", name);
        // A run opens it, and is killed while it stores.
        agent("killed").opened("12ab", true).unwrap();
        // A safety set stores without opening it first: it does not know whether a lock is left.
        let safety = agent("safety");
        assert!(!safety.busy().unwrap());
        assert!(!safety.is_ours());
        // It takes locks away, and then it knows.
        safety.settle().unwrap();
        assert_eq!(safety.settled().as_deref(), Some("12ab"));
        // The next one finds it settled, whichever of its agents begins; who did not begin does not know.
        assert!(safety.busy().unwrap());
        assert!(safety.is_ours());
        assert!(!agent("beside").busy().unwrap());
        assert!(!agent("beside").is_ours());
        assert!(safety.is_ours());
        // Somebody of a killed run is still at work: its lock may be left after all.
        safety.opened("12ab", false).unwrap();
        assert!(!safety.is_ours() && safety.settled().is_none());
    }

    #[test]
    fn a_repository_in_the_same_folder_is_not_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("repository")).unwrap();
        let place = folder.path().join("repository").display().to_string();
        let one = memo(folder.path(), &place, "key", "one");
        one.opened("12ab", true).unwrap();
        one.settle().unwrap();
        assert_eq!(one.settled().as_deref(), Some("12ab"));
    }
}
