//! The actions: one module each, the same for the command line and the console.

pub mod apply_plan;
pub mod ca_export;
pub mod check;
pub mod config_diff;
pub mod console;
pub mod doctor;
pub mod install;
pub mod logs;
pub mod plan;
pub mod service;
pub mod status;
pub mod uninstall;
pub mod unlock;
pub mod user;

pub use apply_plan::apply_plan;
pub use ca_export::ca_export;
pub use check::check;
pub use config_diff::config_diff;
pub use doctor::doctor;
pub use install::install;
pub use logs::logs;
pub use plan::plan;
pub use service::service;
pub use status::status;
pub use uninstall::uninstall;
pub use unlock::unlock;
