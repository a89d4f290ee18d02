//! What is known about the cluster: measured by the engine, kept in memory with its time, judged for people.
//!
//! - [`source`]: one measurement, the same action as `maxim.ctl status`
//! - [`watcher`]: measures again and again, in the background, with a deadline
//! - [`judge`]: turns a snapshot into states; what is old or missing is unknown, and unknown is not well

pub mod judge;
pub mod source;
pub mod watcher;
