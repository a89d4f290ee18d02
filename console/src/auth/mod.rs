//! Who may come in: passwords, lock-out, session tokens, form tokens, the first administrator.
//!
//! Everything here is logic over values that are passed in; the tables are in `store/`, the pages in `routes/`.

pub mod form;
pub mod lockout;
pub mod password;
pub mod setup;
pub mod token;
