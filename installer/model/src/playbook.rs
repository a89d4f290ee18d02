//! Playbooks: what is done to a host, per component, as data (`playbooks/*.yaml`).
//!
//! A playbook task is a YAML mapping with `id`, optional `stage`, `when`, `for_each`, `restarts`, `reloads`,
//! `deadline` (seconds), and exactly one key that names a kind of [`crate::task::TaskKind`]. Every string in it is a
//! tera template rendered on the control side, strict about undefined variables; `template: FILE` in a `file` or
//! `unit` body becomes `content` with that file of `templates/` rendered. The result must deserialise into the kind
//! with no unknown field.

use crate::names::{Profile, Role, Stage};
use serde::{Deserialize, Serialize};

/// One playbook file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Playbook {
    /// Component, or `host` for what every host gets.
    pub component: String,
    /// Roles whose hosts run it; empty: every host.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// Profiles it is for.
    pub profiles: Vec<Profile>,
    /// What is done at install, in order.
    pub install: Vec<PlaybookTask>,
    /// What is done at uninstall, in order (data and users only with `when: purge`).
    #[serde(default)]
    pub uninstall: Vec<PlaybookTask>,
}

/// One entry of a playbook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaybookTask {
    /// Unique within the playbook.
    pub id: String,
    /// Default: `prepare`.
    #[serde(default = "prepare")]
    pub stage: Stage,
    /// A tera expression; the task is left out unless it is true.
    #[serde(default)]
    pub when: String,
    /// A tera expression yielding an array; the task is made once for each with `item` set, its id gets `-INDEX`.
    #[serde(default)]
    pub for_each: String,
    /// Services restarted when it changed something.
    #[serde(default)]
    pub restarts: Vec<String>,
    /// Services reloaded when it changed something.
    #[serde(default)]
    pub reloads: Vec<String>,
    /// Seconds; default 60.
    #[serde(default = "sixty")]
    pub deadline: u64,
    /// The one key that names the kind, with its body.
    #[serde(flatten)]
    pub body: serde_yaml::Mapping,
}

const fn prepare() -> Stage {
    Stage::Prepare
}

const fn sixty() -> u64 {
    60
}
