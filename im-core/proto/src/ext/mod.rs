//! One file per protocol extension: reading its requests, writing its answers. No state, no decisions.

pub mod delay;
pub mod disco;
pub mod forms;
pub mod mam;
pub mod rsm;
