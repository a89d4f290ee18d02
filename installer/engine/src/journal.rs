//! The journal: every event of a run as one JSON line, `journal/RUN.jsonl` in the cluster's state.
//!
//! A hint for people and for `doctor`, never the basis of a decision: that is what is measured. Lines are appended as
//! they come; a killed run leaves a shorter file. The newest 50 files are kept.

use crate::error::EngineError;
use crate::events::EventSink;
use crate::files;
use crate::state::StateDir;
use maxim_model::event::{Event, EventKind};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};

const KEPT: usize = 50;

/// Appends events to the file of one run.
pub struct Journal {
    file: Mutex<File>,
}

impl Journal {
    /// Opens the journal of a run, and removes the oldest ones.
    pub fn open(state: &StateDir, run: &str) -> Result<Self, EngineError> {
        let folder = state.file("journal");
        files::private_folder(&folder)?;
        let mut old: Vec<_> = std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
            .collect();
        old.sort();
        for path in old.iter().rev().skip(KEPT - 1) {
            // A journal that cannot be removed takes a little space and nothing else.
            let _ = std::fs::remove_file(path);
        }
        let path = folder.join(format!("{run}.jsonl"));
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| EngineError::failed("journal", format!("{}: {error}", path.display())))?;
        Ok(Self { file: Mutex::new(file) })
    }
}

impl EventSink for Journal {
    fn emit(&self, event: &Event) {
        // Progress is for eyes; it would make the file long and say nothing afterwards.
        if matches!(event.kind, EventKind::Progress { .. }) {
            return;
        }
        if let Ok(mut line) = serde_json::to_vec(event) {
            line.push(b'\n');
            // A full disk must not stop a run that works on other hosts.
            let _ = self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
        }
    }
}

/// A name for a run that sorts by time: `20261121T024946Z-install-3f2a`.
pub(crate) fn run_name(action: &str) -> String {
    let now = time::OffsetDateTime::now_utc();
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}.{:03}Z-{action}-{:04x}",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second(),
        now.millisecond(),
        rand::random::<u16>()
    )
}

#[cfg(test)]
mod tests {
    use super::{Journal, KEPT, run_name};
    use crate::events::{Emitter, EventSink};
    use crate::state::StateDir;
    use maxim_model::event::Event;
    use std::sync::Arc;

    #[test]
    fn events_are_lines_and_old_runs_go() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path());
        std::fs::create_dir(folder.path().join("journal")).unwrap();
        for number in 0..60 {
            std::fs::write(folder.path().join(format!("journal/2020{number:02}.jsonl")), "").unwrap();
        }
        let run = run_name("install");
        let journal: Arc<dyn EventSink> = Arc::new(Journal::open(&state, &run).unwrap());
        Emitter::new(vec![journal]).note("app1", "lock", "taken");
        let text = std::fs::read_to_string(folder.path().join(format!("journal/{run}.jsonl"))).unwrap();
        let event: Event = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(event.kind.host(), Some("app1"));
        assert_eq!(std::fs::read_dir(folder.path().join("journal")).unwrap().count(), KEPT);
    }
}
