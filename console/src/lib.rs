//! The web console of Maxim: whoever is called at night sees in one sentence whether all is well.
//!
//! Given: a configuration file, a certificate, the state folder of the cluster. Steps: open the database, make sure
//! that somebody can sign in, measure the cluster in the background with the engine (the same library as the command
//! line), serve pages over HTTPS.
//!
//! The house: [`config`] reads the file; [`server`] listens and speaks TLS; [`routes`] has one module per area;
//! [`auth`] decides who comes in; [`status`] measures and judges; [`store`] is the database; [`view`] and [`i18n`]
//! word what is shown. Monitoring, backups, upgrades and chat users become areas of their own beside those that are
//! there.
//!
//! Deliberately not here: anything that changes a host. In this slice the console only reads.

pub mod auth;
pub mod clock;
pub mod config;
pub mod i18n;
pub mod routes;
pub mod server;
pub mod status;
pub mod store;
pub mod tls;
pub mod view;
