//! One conformance suite over every back end, plus what only one of them can get wrong.
//!
//! Each case runs against SQLite in a temporary file, MariaDB, and PostgreSQL; the servers are private ones that
//! the suite starts from the programs on this machine, on Unix sockets, without data of anybody. A missing
//! program fails the suite; `MAXIM_TEST_STORES=sqlite,mariadb` restricts it to the named ones.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod conformance;
mod live;
mod servers;
mod silence;
mod tls;
