//! Services kept by our supervisor, asked through its control socket; it is started when it is needed.

use super::{Action, Keeper, State};
use crate::deadline::Deadline;
use crate::error::{Failure, Result};
use crate::files::{Ownership, absolute, read_text, write_atomic};
use crate::procfs;
use crate::supervisor::client;
use crate::supervisor::control::Command;
use crate::supervisor::definition::{check_name, digest, enabled_mark, path};
use crate::supervisor::log::tail;
use maxim_model::facts::UnitFact;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Our own executable, also when its file was replaced meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The supervisor itself, as the name of a service.
const SUPERVISOR: &str = "supervisor";

/// The supervisor of one root.
#[derive(Debug)]
pub struct Supervised {
    root: PathBuf,
}

impl Supervised {
    /// For this root folder.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    fn ensure(&self) -> Result<()> {
        let root = self.root.to_string_lossy();
        absolute(&root)?;
        client::ensure(&self.root, Path::new(THIS_PROGRAM), &["supervise", "--root", &root])?;
        Ok(())
    }

    /// Makes this program the supervisor when another one is: that one ends its services in order, and this one starts
    /// them. The children of a process cannot be handed on, so they start anew. Nothing runs: nothing is done.
    fn bring_up(&self, deadline: &Deadline) -> Result<()> {
        let Some(answer) = client::status(&self.root)? else { return Ok(()) };
        // By what was run, not by its path: the file may have been replaced since.
        let program = |process: &str| {
            fs::metadata(format!("/proc/{process}/exe")).map(|found| (found.dev(), found.ino())).ok()
        };
        if program("self").is_some() && program("self") == program(&answer.pid.to_string()) {
            return Ok(());
        }
        let begun = procfs::start_time(answer.pid);
        client::ask(&self.root, &Command::Shutdown, deadline.left())?;
        // Its process, not its socket: it holds the lock of the root until it is gone.
        deadline.poll("the supervisor before to end", || {
            let there = begun.is_some() && procfs::start_time(answer.pid) == begun;
            if there { Err("it stops its services".to_owned()) } else { Ok(()) }
        })?;
        self.ensure()
    }
}

impl Keeper for Supervised {
    fn definition(&self, name: &str) -> PathBuf {
        path(&self.root, name)
    }

    fn states(&self, names: &[String]) -> Result<Vec<State>> {
        let answer = client::status(&self.root)?;
        let states = names.iter().map(|name| {
            let mut fact = UnitFact { name: name.clone(), ..UnitFact::default() };
            let definition = read_text(path(&self.root, name));
            let mut stale = false;
            let found =
                answer.as_ref().and_then(|answer| answer.services.iter().find(|status| status.name == *name));
            if let Some(status) = found {
                fact.active.clone_from(&status.active);
                fact.pid = status.pid;
                fact.since_seconds = status.since_seconds;
                fact.restarts = status.restarts;
                if status.pid != 0 {
                    fact.memory = procfs::resident(status.pid);
                    fact.artefact = procfs::artefact(status.pid);
                    stale = status.definition != digest_of(&self.root, name);
                }
            } else if !definition.is_empty() {
                "inactive".clone_into(&mut fact.active);
            }
            State { fact, enabled: enabled_mark(&self.root, name).exists(), stale }
        });
        Ok(states.collect())
    }

    fn publish(&self, enable: &[String], disable: &[String], _deadline: &Deadline) -> Result<()> {
        for name in enable {
            check_name(name)?;
            write_atomic(&enabled_mark(&self.root, name), b"", Ownership::mode(0o600))?;
        }
        for name in disable {
            check_name(name)?;
            remove_file(&enabled_mark(&self.root, name))?;
        }
        Ok(())
    }

    fn act(&self, action: Action, name: &str, deadline: &Deadline) -> Result<()> {
        check_name(name)?;
        if name == SUPERVISOR && action == Action::Restart {
            return self.bring_up(deadline);
        }
        let name = name.to_owned();
        let command = match action {
            Action::Start => Command::Start { name },
            Action::Restart => Command::Restart { name },
            Action::Stop => Command::Stop { name },
            Action::Reload => Command::Reload { name },
        };
        if matches!(action, Action::Start | Action::Restart) {
            self.ensure()?;
        } else if client::status(&self.root)?.is_none() {
            return Ok(());
        }
        client::ask(&self.root, &command, deadline.left()).map(drop)
    }

    fn log(&self, name: &str, lines: u32) -> Result<Vec<String>> {
        check_name(name)?;
        Ok(tail(&self.root.join("log").join(format!("{name}.log")), lines as usize))
    }

    fn remove(&self, name: &str, deadline: &Deadline) -> Result<bool> {
        check_name(name)?;
        self.act(Action::Stop, name, deadline)?;
        remove_file(&enabled_mark(&self.root, name))?;
        remove_file(&path(&self.root, name))
    }
}

fn digest_of(root: &Path, name: &str) -> String {
    fs::read_to_string(path(root, name)).map_or_else(|_| String::new(), |text| digest(&text))
}

fn remove_file(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::file("remove", path)(error)),
    }
}
