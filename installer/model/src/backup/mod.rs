//! Backups as data: where sets are kept ([`repository`]), what a set is ([`manifest`]), when they are made
//! ([`schedule`]), which of them stay ([`retention`]), what rebuilds a cluster from nothing ([`kit`]), what was done
//! last ([`record`]), and what engine and agents say to each other about it ([`wire`]).
//!
//! A set is several snapshots of restic under one tag, its manifest written last: a set without a manifest does not
//! exist. Nothing here reads a clock, a file or the network.

pub mod kit;
pub mod manifest;
pub mod record;
pub mod repository;
pub mod retention;
pub mod schedule;
pub mod wire;

pub use kit::RecoveryKit;
pub use manifest::{Part, PartKind, SetKind, SetManifest, TableSum};
pub use record::BackupRecord;
pub use repository::{Repository, RepositoryAccess};
