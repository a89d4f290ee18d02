//! What every page with figures shares: the newest snapshot, how fresh it is, and rows made of it.

use super::App;
use super::visitor::Visitor;
use crate::i18n::Language;
use crate::status::judge::{self, Freshness};
use crate::status::watcher::Snapshot;
use crate::view::format::{self, Moment};
use crate::view::state::{self, Badge};
use crate::view::ui::{Section, Ui};
use maxim_model::status::{ClusterStatus, ComponentStatus, Health};

/// How fresh the figures of a page are, in words.
pub struct Fresh {
    /// Judged freshness.
    pub freshness: Freshness,
    /// Whether the figures are old: they are greyed.
    pub stale: bool,
    /// "4 s"; empty when nothing was measured.
    pub ago: String,
    /// When it was measured.
    pub measured: Option<Moment>,
    /// Why the newest attempt failed; empty when it did not.
    pub cause: String,
    /// What to do; may be empty.
    pub hint: String,
}

/// The figures of a page.
pub struct Live {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// How fresh it is.
    pub fresh: Fresh,
    /// Language of the page.
    pub language: Language,
}

impl Live {
    /// Looks at the cluster.
    pub fn look(app: &App, visitor: &Visitor) -> Self {
        let snapshot = app.watcher.look();
        let now = app.clock.now();
        let freshness = judge::freshness(&snapshot, now);
        let measured = snapshot.status.is_some();
        let (cause, hint) = snapshot
            .failure
            .as_ref()
            .map(|failure| (failure.error.cause.clone(), failure.error.hint.clone()))
            .unwrap_or_default();
        let fresh = Fresh {
            freshness,
            stale: freshness == Freshness::Stale,
            ago: if measured {
                format::duration(visitor.language, now - snapshot.measured_at)
            } else {
                String::new()
            },
            measured: measured.then(|| format::moment(snapshot.measured_at)),
            cause,
            hint,
        };
        Self { snapshot, fresh, language: visitor.language }
    }

    /// The frame of a page with these figures.
    pub fn ui(app: &App, visitor: &Visitor, section: Section) -> Ui {
        let mut ui = visitor.ui(app, section);
        ui.live = true;
        ui
    }

    /// The cluster as last measured.
    pub fn status(&self) -> Option<&ClusterStatus> {
        self.snapshot.status.as_deref()
    }

    /// A state that holds now: what is old is unknown.
    pub fn now(&self, health: Health) -> Health {
        if self.fresh.stale { Health::Unknown } else { health }
    }

    /// The badge of a state that holds now.
    pub fn badge(&self, health: Health) -> Badge {
        state::badge(self.language, self.now(health))
    }
}

/// A component as a row.
pub struct ComponentRow {
    /// State that holds now.
    pub state: Health,
    /// Its badge.
    pub badge: Badge,
    /// Name for people.
    pub name: String,
    /// Name in the topology.
    pub component: String,
    /// Host.
    pub host: String,
    /// Version that runs; empty when none.
    pub running: String,
    /// Version that should run.
    pub wanted: String,
    /// Whether another version runs than should.
    pub differs: bool,
    /// Memory, for people; empty when not running.
    pub memory: String,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Runs for so long, for people; empty when not running.
    pub since: String,
    /// Runs for so long, seconds.
    pub since_seconds: u64,
    /// Restarts on its own.
    pub restarts: u32,
    /// What the measurement said, when there is something to say.
    pub detail: String,
}

impl ComponentRow {
    /// The row of a component.
    pub fn of(live: &Live, component: &ComponentStatus) -> Self {
        let health = judge::component_state(component);
        let state = live.now(health);
        let detail = if live.fresh.stale {
            let word = state::badge(live.language, health).word;
            live.language.say("state-was", &[("state", word.into())])
        } else if health == Health::Well {
            String::new()
        } else {
            component.detail.clone()
        };
        let running = component.since_seconds > 0 || component.memory > 0;
        Self {
            state,
            badge: live.badge(health),
            name: state::component_name(live.language, &component.component),
            component: component.component.clone(),
            host: component.host.clone(),
            running: component.running.clone(),
            wanted: component.wanted.clone(),
            differs: judge::differs(component),
            memory: if component.memory > 0 { format::bytes(component.memory) } else { String::new() },
            memory_bytes: component.memory,
            since: if running {
                format::duration(live.language, i64::try_from(component.since_seconds).unwrap_or(i64::MAX))
            } else {
                String::new()
            },
            since_seconds: component.since_seconds,
            restarts: component.restarts,
            detail,
        }
    }
}
