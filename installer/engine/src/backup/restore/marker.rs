//! How far a restore went, in the state folder: what a run that was killed leaves to the next. It is there too from when
//! the state of a cluster was recovered by its kit until its data is, so that nobody makes a set of the empty cluster
//! meanwhile.

use super::exchange::Beside;
use super::{Only, RestoreOptions};
use crate::error::EngineError;
use crate::files;
use crate::run::Run;
use crate::state::StateDir;
use serde::{Deserialize, Serialize};

const FILE: &str = "restore.json";

/// What was done last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::backup) enum Step {
    /// Nothing of the data yet.
    Waiting,
    /// Parts may lie beside what serves.
    Receiving,
    /// Parts may be in its place.
    Exchanging,
    /// All parts are in their place; no message went through yet.
    Exchanged,
    /// A message went through; what was there before may not be removed yet.
    Done,
}

/// A restore that is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::backup) struct Marker {
    /// The set.
    pub set: String,
    /// How far it went.
    pub step: Step,
    /// What of the set.
    pub only: Only,
    /// The set that was made of what was there; empty: none.
    pub safety_set: String,
    /// The cluster is rebuilt from repository and kit.
    pub rebuilding: bool,
    /// While it is rebuilt: whether there was no database before. None: nobody has looked yet.
    pub fresh: Option<bool>,
    /// While it is rebuilt: parts beside the database that hosts which live still have, and that stay as they are.
    pub kept: Vec<String>,
    /// No safety set was to be made: what was there before is not removed.
    #[serde(default)]
    pub keeps_before: bool,
    /// Parts that a restore before this one has set aside without a safety set: they stay until a message has gone
    /// through, whatever set is put in place.
    #[serde(default)]
    pub set_aside: Vec<String>,
}

impl Marker {
    /// At the begin of a restore, or of a rebuilding.
    pub fn new(set: &str, step: Step, only: Only) -> Self {
        Self {
            set: set.into(),
            step,
            only,
            safety_set: String::new(),
            rebuilding: false,
            fresh: None,
            kept: Vec::new(),
            keeps_before: false,
            set_aside: Vec::new(),
        }
    }

    /// The begin of a restore where `self` is what the one before has left, with what lies beside all parts, its targets or
    /// not.
    pub(super) fn followed_by(
        &self,
        set: &str,
        only: Only,
        without_safety_set: bool,
        beside: &[Beside],
    ) -> Self {
        let has_set_aside = |one: &Beside| {
            self.keeps_before && self.is_exchanging() && self.only.covers(one.kind) && !one.received
        };
        let mut set_aside = self.set_aside.clone();
        for one in beside {
            let is_known = set_aside.contains(&one.part);
            if !one.kept {
                // Somebody has moved it away.
                set_aside.retain(|part| *part != one.part);
            } else if !is_known && has_set_aside(one) {
                set_aside.push(one.part.clone());
            }
        }
        Self {
            rebuilding: self.rebuilding,
            fresh: self.fresh,
            kept: self.kept.clone(),
            keeps_before: without_safety_set,
            set_aside,
            ..Self::new(set, Step::Receiving, only)
        }
    }

    /// Whether it stands between the begin of the exchange and the message that proves it.
    pub fn is_exchanging(&self) -> bool {
        matches!(self.step, Step::Exchanging | Step::Exchanged)
    }

    /// Whether something stays beside what serves.
    pub fn leaves_before(&self) -> bool {
        self.keeps_before || !self.set_aside.is_empty()
    }

    /// What is there; one that cannot be read is an error, for it may stand in the middle of an exchange.
    pub fn read(state: &StateDir) -> Result<Option<Self>, EngineError> {
        let path = state.file(FILE);
        let Some(text) = files::read_optional(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            EngineError::refused("restore", format!("{}: {error}", path.display()))
                .hint("it says how far a restore went; complete that with the program that began it")
        })
    }

    /// Writes it whole.
    pub fn write(&self, state: &StateDir) -> Result<(), EngineError> {
        let text =
            serde_json::to_string(self).map_err(|error| EngineError::failed("restore", error.to_string()))?;
        files::write_whole(&state.file(FILE), text.as_bytes(), 0o600)
    }

    /// Notes a step.
    pub fn went(&mut self, state: &StateDir, step: Step) -> Result<(), EngineError> {
        self.step = step;
        self.write(state)
    }

    /// An error of what comes after the exchange, with how to get back what was there before.
    pub fn with_the_way_back(&self, error: EngineError) -> EngineError {
        let error = if self.leaves_before() {
            error.and_hint("what was set aside stays beside what serves, also when another set is restored")
        } else {
            error
        };
        if self.safety_set.is_empty() {
            return error;
        }
        let back = format!(
            "`maxim.ctl backup restore {} --overwrite` puts back what was there before",
            self.safety_set
        );
        error.and_hint(&back)
    }

    /// The restore is over, or nothing of it is left.
    pub fn remove(state: &StateDir) -> Result<(), EngineError> {
        let path = state.file(FILE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(EngineError::failed("restore", format!("{}: {error}", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// Ends a restore that has put nothing in place: a rebuilding waits again, and so does whoever has data set aside.
    pub fn given_up(mut self, state: &StateDir) -> Result<(), EngineError> {
        if self.rebuilding || !self.set_aside.is_empty() {
            return self.went(state, Step::Waiting);
        }
        Self::remove(state)
    }
}

/// The set, and what of it, by what is asked for and what a run before has left.
pub(super) fn asked_for(
    run: &Run<'_>,
    options: &RestoreOptions,
    left: Option<&Marker>,
) -> Result<(Option<String>, Only), EngineError> {
    let asked = (options.set.clone(), options.only);
    let Some(left) = left else { return Ok(asked) };
    if left.step == Step::Waiting && !left.rebuilding {
        // Nothing of it goes on but what was set aside.
        return Ok(asked);
    }
    let other = options.set.as_ref().is_some_and(|set| *set != left.set);
    if left.step == Step::Exchanging && other {
        return Err(EngineError::refused(
            "restore",
            format!("the restore of set {} was interrupted while it put things in place", left.set),
        )
        .hint("run `maxim.ctl backup restore --overwrite` without naming a set to finish it first"));
    }
    // Files that follow a host to its new one are none of what was begun.
    let widened = left.is_exchanging() && !other && !(options.fresh && options.only == Only::Files);
    let only = if widened { left.only } else { options.only };
    if !other {
        run.emitter.note("", "restore", format!("going on with set {}, which was interrupted", left.set));
        if only != options.only {
            run.emitter.note("", "restore", "all that was begun is put in place, whatever `--only` says now");
        }
    }
    Ok((options.set.clone().or_else(|| Some(left.set.clone())), only))
}

/// Whether a restore has begun to put its set in place, and no message has gone through since.
pub(crate) fn is_exchanging(state: &StateDir) -> Result<bool, EngineError> {
    let left = Marker::read(state)?;
    Ok(left.is_some_and(|marker| marker.is_exchanging()))
}

/// Forgets a restore that was interrupted: the database that it was for is gone with its host.
pub(crate) fn forget_restore(state: &StateDir) -> Result<(), EngineError> {
    match Marker::read(state)? {
        // Whatever set comes now: the rebuilding is complete with it.
        Some(mut marker) if marker.rebuilding && marker.step != Step::Done => {
            marker.went(state, Step::Waiting)
        }
        Some(_) => Marker::remove(state),
        None => Ok(()),
    }
}

/// Refuses what would take the empty cluster for the real one while that is rebuilt.
pub(in crate::backup) fn refuse_while_rebuilding(state: &StateDir, step: &str) -> Result<(), EngineError> {
    match Marker::read(state)? {
        Some(marker) if marker.rebuilding && marker.step != Step::Done => Err(EngineError::refused(
            step,
            format!("this cluster is being rebuilt, and set {} is not restored yet", marker.set),
        )
        .hint("complete it with the same `maxim.ctl backup restore --kit` command")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Beside, FILE, Marker, Only, RestoreOptions, Step, asked_for, refuse_while_rebuilding};
    use crate::error::EngineError;
    use crate::run::Run;
    use crate::sample;
    use crate::state::StateDir;
    use maxim_model::backup::PartKind;

    /// Once everything is in its place, what does not come up is no reason to keep everything else from it.
    #[test]
    fn another_set_waits_for_an_exchange_and_for_nothing_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let context = sample::context(sample::single_host(), StateDir::at(folder.path()));
        let run = Run::begin(&context, "backup-restore", false).unwrap();
        let named = |set: &str| RestoreOptions { set: Some(set.into()), ..RestoreOptions::default() };
        let mut left = Marker::new("new", Step::Exchanging, Only::Database);
        left.safety_set = "before".into();
        assert_eq!(asked_for(&run, &named("before"), Some(&left)).unwrap_err().exit_code(), 5);
        left.step = Step::Exchanged;
        let (set, only) = asked_for(&run, &named("before"), Some(&left)).unwrap();
        assert_eq!((set.as_deref(), only), (Some("before"), Only::All));
        let (set, only) = asked_for(&run, &RestoreOptions::default(), Some(&left)).unwrap();
        assert_eq!((set.as_deref(), only), (Some("new"), Only::Database), "it goes on");
        let error = left.with_the_way_back(EngineError::failed("verify", "no").hint("look"));
        assert!(error.hint.contains("restore before --overwrite"), "{error:?}");
    }

    #[test]
    fn a_rebuilding_waits_until_its_data_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path());
        refuse_while_rebuilding(&state, "backup create").unwrap();
        let mut marker = Marker { rebuilding: true, ..Marker::new("s", Step::Waiting, Only::All) };
        marker.write(&state).unwrap();
        let refused = refuse_while_rebuilding(&state, "backup create").unwrap_err();
        assert!(refused.exit_code() == 5 && refused.hint.contains("--kit"), "{refused:?}");
        marker.went(&state, Step::Receiving).unwrap();
        marker.clone().given_up(&state).unwrap();
        assert_eq!(Marker::read(&state).unwrap().unwrap().step, Step::Waiting);
        marker.went(&state, Step::Done).unwrap();
        refuse_while_rebuilding(&state, "backup create").unwrap();
        // One that is none of a rebuilding leaves nothing.
        Marker::new("s", Step::Receiving, Only::Database).given_up(&state).unwrap();
        assert_eq!(Marker::read(&state).unwrap(), None);
    }

    /// The only copy of what was acknowledged last stays until a message has gone through, whatever is tried meanwhile.
    #[test]
    fn what_was_set_aside_is_not_forgotten_by_runs_that_fail() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path());
        let kept = |step| Marker { keeps_before: true, ..Marker::new("one", step, Only::All) };
        let database = ["database".to_owned()];
        let beside =
            |received, kept| [Beside { part: database[0].clone(), kind: PartKind::Sqlite, received, kept }];
        let follows =
            |marker: &Marker| marker.followed_by("two", Only::Database, false, &beside(false, true));
        for step in [Step::Receiving, Step::Done] {
            assert!(follows(&kept(step)).set_aside.is_empty(), "{step:?}");
        }
        let safe = Marker::new("one", Step::Exchanged, Only::All);
        assert!(follows(&safe).set_aside.is_empty(), "there is a safety set of it");
        let received = kept(Step::Exchanging).followed_by("two", Only::All, false, &beside(true, true));
        assert!(received.set_aside.is_empty(), "what lies there is older");
        let files = Marker { only: Only::Files, ..kept(Step::Exchanged) };
        assert!(follows(&files).set_aside.is_empty(), "none of what it has exchanged");
        // A part that is none of the next one's targets is not forgotten.
        let other =
            Beside { part: "console".into(), kind: PartKind::ConsoleSqlite, received: false, kept: true };
        let narrow = kept(Step::Exchanged).followed_by(
            "two",
            Only::Database,
            false,
            &[&beside(false, true)[..], &[other]].concat(),
        );
        assert_eq!(narrow.set_aside, ["database", "console"]);
        let next = follows(&kept(Step::Exchanging));
        assert_eq!((next.set.as_str(), next.step, next.only), ("two", Step::Receiving, Only::Database));
        assert!(next.set_aside == database && !next.keeps_before && next.leaves_before());
        assert_eq!(follows(&Marker { keeps_before: true, ..next.clone() }).set_aside, database, "once");
        let hint = next.with_the_way_back(EngineError::failed("verify", "no").hint("look.")).hint;
        assert!(hint.starts_with("look; what was set aside stays"), "{hint}");
        next.given_up(&state).unwrap();
        let waits = Marker::read(&state).unwrap().unwrap();
        assert!(waits.set_aside == database && waits.step == Step::Waiting);
        assert_eq!(waits.followed_by("three", Only::All, true, &[]).set_aside, database);
        let moved = waits.followed_by("three", Only::All, true, &beside(false, false));
        assert!(moved.set_aside.is_empty(), "moved away by hand");
        // It decides nothing about the next one.
        let context = sample::context(sample::single_host(), StateDir::at(folder.path()));
        let run = Run::begin(&context, "backup-restore", false).unwrap();
        assert_eq!(asked_for(&run, &RestoreOptions::default(), Some(&waits)).unwrap(), (None, Only::All));
        // Its host is dead, and so is what it had.
        super::forget_restore(&state).unwrap();
        assert_eq!(Marker::read(&state).unwrap(), None);
        Marker { rebuilding: true, ..kept(Step::Exchanging) }.write(&state).unwrap();
        super::forget_restore(&state).unwrap();
        assert_eq!(Marker::read(&state).unwrap().unwrap().step, Step::Waiting, "a rebuilding is completed");
    }

    #[test]
    fn one_that_cannot_be_read_is_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert_eq!(Marker::read(&StateDir::at(folder.path())).unwrap_err().exit_code(), 5);
    }
}
