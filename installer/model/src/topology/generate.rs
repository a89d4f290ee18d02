//! The text of a topology where nobody wrote one: for this machine, and for a list of addresses.
//!
//! Both give text that goes through the same reading and checking as a file.

use super::error::{Place, TopologyError, TopologyErrors};
use super::values;
use crate::names::{Profile, Role};
use std::fmt::Write as _;

/// Domain of a cluster made by `--nodelist` without `--set domain=`: reserved for private use.
pub const NODELIST_DOMAIN: &str = "maxim.internal";

/// The text for this machine. `host` is its name, `address` the one under which clients reach it, `domain` what
/// accounts end in.
pub fn local(profile: Profile, name: &str, host: &str, address: &str, domain: &str) -> String {
    let host = values::host_name(host).unwrap_or_else(|_| "localhost".to_owned());
    format!(
        "api_version: maxim/v1\n\
         profile: {profile}\n\
         name: {name}\n\
         domain: {domain}\n\
         hosts:\n  - {{name: {host}, address: {address}, connection: local, roles: [im, console]}}\n"
    )
}

/// The text for hosts given by their addresses: one host gets everything; with two the stores share the second;
/// from three on the last two are database and cache, and the others run the IM core, the first with the console.
pub fn nodelist(addresses: &[String]) -> Result<String, TopologyErrors> {
    let mut errors = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        let at = format!("--nodelist {address}");
        if let Err(wrong) = values::address(address) {
            errors.push(TopologyError::new(&at, Place::default(), wrong.message).hint(wrong.hint));
        }
        if addresses[..index].iter().any(|other| other.eq_ignore_ascii_case(address)) {
            errors.push(
                TopologyError::new(&at, Place::default(), format!("the address `{address}` stands twice"))
                    .hint("name every host once"),
            );
        }
    }
    if !errors.is_empty() {
        return Err(TopologyErrors::new(errors, ""));
    }
    let mut text = format!("api_version: maxim/v1\nname: maxim\ndomain: {NODELIST_DOMAIN}\nhosts:\n");
    let count = addresses.len();
    for (index, address) in addresses.iter().enumerate() {
        let (name, roles) = match (count, index) {
            (1, _) => ("app1".to_owned(), vec![Role::Im, Role::Console, Role::Mariadb, Role::Redis]),
            (_, 0) => ("app1".to_owned(), vec![Role::Im, Role::Console]),
            (2, _) => ("db1".to_owned(), vec![Role::Mariadb, Role::Redis]),
            (_, index) if index == count - 1 => ("cache1".to_owned(), vec![Role::Redis]),
            (_, index) if index == count - 2 => ("db1".to_owned(), vec![Role::Mariadb]),
            (_, index) => (format!("app{}", index + 1), vec![Role::Im]),
        };
        let roles: Vec<&str> = roles.into_iter().map(Role::name).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  - {{name: {name}, address: \"{address}\", roles: [{}]}}", roles.join(", "));
    }
    Ok(text)
}
