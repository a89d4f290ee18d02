//! The console as a browser meets it: a real server on a port of the system's choice, TLS, cookies, forms.
//!
//! Only two things are not real: the clock, so that expiry and lock-out need no waiting, and the measurement of the
//! cluster, which is scripted; everything between socket and database is what runs in production.

#[path = "console/support.rs"]
mod support;

#[path = "console/figures.rs"]
mod figures;
#[path = "console/headers.rs"]
mod headers;
#[path = "console/languages.rs"]
mod languages;
#[path = "console/sign_in.rs"]
mod sign_in;
