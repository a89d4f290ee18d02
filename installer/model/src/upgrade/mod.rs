//! Upgrades as data: versions and their order, what a bundle says it can follow, and how far an upgrade has come.
//!
//! Three parts, without I/O:
//!
//! 1. [`Version`]: `MAJOR.MINOR.PATCH`, in order.
//! 2. [`Compatibility`]: the matrix in a bundle's manifest, and [`judge`], which says why a bundle cannot follow what
//!    is installed.
//! 3. [`Record`]: where an upgrade stands, kept on the control host so that a killed run is completed by the next.

mod compatibility;
mod record;
mod version;

pub use compatibility::{Compatibility, Refusal, SchemaRange, judge};
pub use record::{Phase, RECORD_FORMAT, Record, Release, Turn, UpgradeStatus};
pub use version::Version;
