//! What every action is given: the topology, where things come from, where the cluster's state lies, who listens.

use crate::delivery::Delivery;
use crate::error::EngineError;
use crate::events::EventSink;
use crate::state::StateDir;
use crate::upgrade::UpgradePlan;
use maxim_model::Secret;
use maxim_model::plan::Plan;
use maxim_model::topology::{AccessSecrets, Topology};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Everything an action works on. Cheap to build; nothing is opened or connected by having one.
#[derive(Clone)]
pub struct Context {
    /// The cluster as wanted.
    pub topology: Topology,
    /// Its text, kept with the state and in saved plans.
    pub topology_text: String,
    /// Where binaries, images, playbooks and templates come from.
    pub delivery: Delivery,
    /// State of the cluster on this control host.
    pub state: StateDir,
    /// Passwords that were given for reaching hosts.
    pub access: AccessSecrets,
    /// Hosts worked on at the same time, at least 1.
    pub concurrency: usize,
    /// Identifiers of preflight checks that may not block.
    pub force: Vec<String>,
    /// A newer state of the cluster is taken over also where it has other addresses, files or another authority.
    pub accept_state: bool,
    /// Who is told what happens.
    pub events: Arc<dyn EventSink>,
    /// Questions to a person.
    pub ask: Arc<dyn Ask>,
    /// Set when the run shall end (Ctrl-C).
    pub cancel: CancelFlag,
    /// The `maxim-ctl` program: started as the local agent, sent to other hosts.
    pub program: PathBuf,
    /// Unix socket of an agent that listens on this machine (the console's host): used for local hosts instead of a
    /// child process. None everywhere else.
    pub agent_socket: Option<PathBuf>,
}

/// A flag that ends a run at the next safe point. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct CancelFlag(Arc<Cancel>);

#[derive(Debug, Default)]
struct Cancel {
    set: AtomicBool,
    /// How many guards hold it back.
    held: AtomicUsize,
}

/// While one of these lives, nobody sees that the run shall end: a service is down, and what follows brings it up
/// again. What was asked for meanwhile is seen as soon as the last one is gone.
#[derive(Debug)]
#[must_use = "the flag is held back for as long as this lives"]
pub struct CancelHeld(CancelFlag);

impl Drop for CancelHeld {
    fn drop(&mut self) {
        self.0.0.held.fetch_sub(1, Ordering::SeqCst);
    }
}

impl CancelFlag {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets it; safe to call from a signal-handling thread.
    pub fn cancel(&self) {
        self.0.set.store(true, Ordering::SeqCst);
    }

    /// Whether it is set, and nobody holds it back.
    pub fn is_cancelled(&self) -> bool {
        self.0.set.load(Ordering::SeqCst) && self.0.held.load(Ordering::SeqCst) == 0
    }

    /// Holds it back until the guard is dropped. Every wait meanwhile must have a deadline of its own.
    pub fn hold(&self) -> CancelHeld {
        self.0.held.fetch_add(1, Ordering::SeqCst);
        CancelHeld(self.clone())
    }

    /// An `interrupted` error once it is set.
    pub fn check(&self, step: &str) -> Result<(), EngineError> {
        if self.is_cancelled() { Err(EngineError::interrupted(step)) } else { Ok(()) }
    }
}

/// Questions that only a person can answer. Calls come from several threads; an implementation asks one at a time.
pub trait Ask: Send + Sync {
    /// Shall this plan be applied?
    fn approve(&self, plan: &Plan) -> bool;

    /// The sudo password for a host; none: there is nobody to ask.
    fn sudo_password(&self, host: &str) -> Option<Secret> {
        let _ = host;
        None
    }

    /// Is the bundle's key with this fingerprint the right one? `--yes` never answers this.
    fn trust_bundle_key(&self, fingerprint: &str) -> bool {
        let _ = fingerprint;
        false
    }

    /// Shall this upgrade be done?
    fn approve_upgrade(&self, plan: &UpgradePlan) -> bool {
        self.approve(&plan.plan)
    }

    /// Shall what is there be replaced by a set?
    fn approve_restore(&self, preview: &crate::backup::RestorePreview) -> bool {
        let _ = preview;
        false
    }

    /// Shall this host be replaced?
    fn approve_replace(&self, preview: &crate::replace::ReplacePreview) -> bool {
        self.approve(&preview.plan)
    }

    /// Shall everything of this cluster be removed? `purge`: its data too.
    fn approve_uninstall(&self, plan: &Plan, purge: bool) -> bool {
        let _ = purge;
        self.approve(plan)
    }
}

/// Says yes to plans (`--yes`); trusts no key.
#[derive(Debug, Clone, Copy, Default)]
pub struct AssumeYes;

impl Ask for AssumeYes {
    fn approve(&self, _plan: &Plan) -> bool {
        true
    }

    fn approve_restore(&self, _preview: &crate::backup::RestorePreview) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::CancelFlag;

    #[test]
    fn a_flag_that_is_held_back_is_seen_when_the_last_guard_is_gone() {
        let flag = CancelFlag::new();
        let (outer, inner) = (flag.hold(), flag.clone().hold());
        flag.cancel();
        drop(outer);
        assert!(!flag.is_cancelled() && flag.check("x").is_ok(), "one still holds it");
        drop(inner);
        assert!(flag.is_cancelled() && flag.check("x").is_err());
        let again = flag.hold();
        assert!(!flag.is_cancelled(), "also once it is set");
        drop(again);
        assert!(flag.is_cancelled());
    }
}
