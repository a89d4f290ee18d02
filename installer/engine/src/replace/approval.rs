//! What a person is shown before a host is replaced; and that the parts of what was approved are not asked about again.

use super::record::Data;
use super::{ReplaceOutcome, Replacement};
use crate::backup;
use crate::context::Ask;
use maxim_model::Secret;
use maxim_model::names::Role;
use maxim_model::plan::Plan;
use std::sync::Arc;

/// What a replacement will do, for the person who approves it.
#[derive(Debug, Clone)]
pub struct ReplacePreview {
    /// Name of the dead host.
    pub old: String,
    /// Where it was.
    pub old_address: String,
    /// Roles that go to the new host.
    pub roles: Vec<Role>,
    /// Name of the new host; may be the same.
    pub new: String,
    /// Where it is.
    pub new_address: String,
    /// The set that data comes from; empty: none.
    pub set: String,
    /// Its point, RFC 3339: everything since is lost.
    pub point: String,
    /// Parts of it that are put in place.
    pub restored: Vec<String>,
    /// Parts that the dead host had, and that are not restored: lost.
    pub lost: Vec<String>,
    /// What the dead host knew and that will hold no longer.
    pub withdrawn: Vec<String>,
    /// Task by task.
    pub plan: Plan,
}

impl Replacement<'_> {
    /// What is asked about. `point`: that of the set.
    pub(super) fn preview(&self, outcome: &ReplaceOutcome, data: &Data, point: &str) -> ReplacePreview {
        let new = self.wanted.topology.host(&self.options.name);
        ReplacePreview {
            old: self.old.name.clone(),
            old_address: self.old.address.clone(),
            roles: outcome.roles.clone(),
            new: self.options.name.clone(),
            new_address: new.map(|host| host.address.clone()).unwrap_or_default(),
            set: data.set.clone(),
            point: point.to_owned(),
            restored: data.parts.clone(),
            lost: self.parts.iter().filter(|part| !data.has(part)).map(|part| (*part).to_owned()).collect(),
            withdrawn: outcome.withdrawn.clone(),
            plan: outcome.plan.clone(),
        }
    }
}

/// The replacement was approved as a whole; its parts are not asked about again.
pub(super) struct Approved(pub Arc<dyn Ask>);

impl Ask for Approved {
    fn approve(&self, _plan: &Plan) -> bool {
        true
    }

    fn sudo_password(&self, host: &str) -> Option<Secret> {
        self.0.sudo_password(host)
    }

    fn trust_bundle_key(&self, fingerprint: &str) -> bool {
        self.0.trust_bundle_key(fingerprint)
    }

    fn approve_restore(&self, _preview: &backup::RestorePreview) -> bool {
        true
    }

    fn approve_replace(&self, _preview: &ReplacePreview) -> bool {
        true
    }
}
