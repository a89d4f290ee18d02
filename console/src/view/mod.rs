//! What pages are made of: the frame around every page, icons, numbers and times for people, and assets.
//!
//! A page is an askama template in `templates/` with a struct beside its route; every struct has a [`ui::Ui`], which
//! knows language, navigation, form token and assets. Nothing here decides; it only words what `status::judge` and
//! the routes found.

pub mod assets;
pub mod format;
pub mod icons;
pub mod state;
pub mod ui;
