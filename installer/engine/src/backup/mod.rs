//! Backups: sets of snapshots, their verification, retention, restore and drill (`docs/decisions/0010-backups.md`).
//!
//! The same library actions for the command line, the scheduler and the console. Data flows from the agent of the
//! host that has it, through here, to restic at the agent of the host that keeps the repository; each end and this
//! relay hold a few frames. Nothing here touches a file of a host.

mod create;
mod drill;
mod due;
mod hand_over;
mod kit;
mod parts;
mod receive;
mod recover;
mod relay;
mod restore;
mod sets;
mod sources;
mod state_part;
mod tasks;
mod vault;

pub use create::{CreateOutcome, create};
pub use drill::{DrillOutcome, drill};
pub use due::{Due, DueJob, Job, due};
pub(crate) use due::{calendars, drills_by_itself};
pub(crate) use hand_over::{PACKED as HANDED_OVER, authorized_line, ensure_key, hand_over, home, marker};
pub use kit::{KeyExport, key_export, read_kit};
pub use recover::{RecoverOptions, are_fresh, rebuilding, recover_state};
pub use restore::{Only, Overwrite, RestoreOptions, RestoreOutcome, RestorePreview, restore};
pub(crate) use restore::{forget_restore, is_exchanging, restore_before_install};
pub use sets::{PruneOutcome, VerifyOptions, VerifyOutcome, list, prune, record, verify};
pub(crate) use sets::{last, usable};
pub(crate) use sources::parts_on;
pub use vault::StoredSet;
pub(crate) use vault::host as repository_host;
pub(crate) use vault::repository as repository_of;
