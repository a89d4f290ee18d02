//! A service of the embedded profile as a YAML file: `ROOT/etc/services/NAME.yaml`.

use crate::error::{Failure, Result};
use crate::files::{absolute, read_bounded};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Program (absolute path) and arguments.
    pub argv: Vec<String>,
    /// Variables; nothing else is inherited but `PATH`, `HOME` and `LANG`.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Where it runs; default: the root folder.
    #[serde(default)]
    pub working_directory: Option<String>,
    /// Services that are started before and stopped after it.
    #[serde(default)]
    pub after: Vec<String>,
    /// How to see that it answers; without it, a living process counts as ready.
    #[serde(default)]
    pub ready: Option<Ready>,
    /// Seconds until it must be ready.
    #[serde(default = "twenty")]
    pub start_deadline_seconds: u64,
    /// Seconds from SIGTERM to SIGKILL.
    #[serde(default = "ten")]
    pub stop_deadline_seconds: u64,
    /// Bytes of a log file before it is rotated.
    #[serde(default = "ten_mebibytes")]
    pub log_bytes: u64,
    /// Log files kept, the current one included.
    #[serde(default = "five")]
    pub log_files: u32,
}

/// Exactly one of them is set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// `http://address:port/path` answers 200.
    #[serde(default)]
    pub http: Option<String>,
    /// `address:port` accepts a connection.
    #[serde(default)]
    pub port: Option<String>,
    /// A unix socket accepts a connection.
    #[serde(default)]
    pub socket: Option<String>,
}

const fn twenty() -> u64 {
    20
}
const fn ten() -> u64 {
    10
}
const fn ten_mebibytes() -> u64 {
    10 << 20
}
const fn five() -> u32 {
    5
}

impl Definition {
    /// Reads the text of a definition and checks its meaning.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let wrong = |what: String| Failure::Invalid(format!("definition of the service {name}: {what}"));
        let definition: Self = serde_yaml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let Some(program) = definition.argv.first() else { return Err(wrong("argv is empty".into())) };
        absolute(program).map_err(|_| wrong(format!("the program `{program}` is not an absolute path")))?;
        if definition.argv.iter().any(|argument| argument.contains('\0')) {
            return Err(wrong("an argument holds a NUL".into()));
        }
        if let Some(directory) = &definition.working_directory {
            absolute(directory)?;
        }
        if let Some(ready) = &definition.ready {
            let given = [&ready.http, &ready.port, &ready.socket].into_iter().flatten().count();
            if given != 1 {
                return Err(wrong("`ready` must have exactly one of http, port, socket".into()));
            }
        }
        if definition.log_bytes < 4096 || definition.log_files == 0 {
            return Err(wrong("log_bytes must be 4096 or more and log_files 1 or more".into()));
        }
        for other in &definition.after {
            check_name(other)?;
        }
        Ok(definition)
    }

    /// Reads a service's definition below a root; with the digest of its text.
    pub fn read(root: &Path, name: &str) -> Result<(Self, String)> {
        check_name(name)?;
        let path = path(root, name);
        let Some(bytes) = read_bounded(&path, 1 << 20)? else {
            return Err(Failure::refused(
                format!("there is no service {name} ({} does not exist)", path.display()),
                "see the services with `maxim.ctl status`",
            ));
        };
        let text = String::from_utf8_lossy(&bytes);
        Ok((Self::parse(name, &text)?, digest(&text)))
    }
}

/// The digest by which a running service's definition is compared with the wanted one.
pub fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// Where a definition lies.
pub fn path(root: &Path, name: &str) -> PathBuf {
    root.join("etc/services").join(format!("{name}.yaml"))
}

/// The mark that a service is started with the supervisor.
pub fn enabled_mark(root: &Path, name: &str) -> PathBuf {
    root.join("etc/services/enabled").join(name)
}

/// Refuses a name that could not be a file name of ours.
pub fn check_name(name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'@' | b'.'))
        && !name.starts_with(['.', '-']);
    if fine {
        Ok(())
    } else {
        Err(Failure::Invalid(format!("`{}` is not a service name", name.escape_debug())))
    }
}

/// Names of all services that have a definition.
pub fn names(root: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(root.join("etc/services")) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".yaml")?.to_owned()))
        .filter(|name| check_name(name).is_ok())
        .collect();
    names.sort();
    names
}

/// Orders services so that each comes after those that it names; a cycle is broken at the name that sorts last,
/// because a wrong order is better than services that never start.
pub fn in_order(services: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut left: BTreeSet<&String> = services.keys().collect();
    while !left.is_empty() {
        let next = left
            .iter()
            .find(|name| services[**name].iter().all(|other| !left.contains(other) || other == **name))
            .or_else(|| left.iter().next())
            .map(|name| (*name).clone());
        let Some(next) = next else { break };
        left.remove(&next);
        order.push(next);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::{Definition, check_name, in_order};
    use std::collections::BTreeMap;

    #[test]
    fn a_definition_is_read_and_wrong_ones_are_refused() {
        let good = "argv: [/bin/sleep, '1']\nready: {port: '127.0.0.1:1'}\nafter: [a]\n";
        let definition = Definition::parse("x", good).unwrap();
        assert_eq!((definition.stop_deadline_seconds, definition.log_files), (10, 5));
        for wrong in [
            "argv: []",
            "argv: [sleep]",
            "argv: [/bin/sleep]\nunknown: 1",
            "argv: [/bin/sleep]\nready: {}",
            "argv: [/bin/sleep]\nready: {port: a, socket: b}",
            "argv: [/bin/sleep]\nlog_files: 0",
            "argv: [/bin/sleep]\nafter: ['../x']",
            "- 1",
        ] {
            assert!(Definition::parse("x", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_and_order() {
        for wrong in ["", "../a", ".a", "-a", "a/b", "a b"] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
        let services = |list: &[(&str, &[&str])]| -> BTreeMap<String, Vec<String>> {
            list.iter().map(|(n, a)| ((*n).to_owned(), a.iter().map(|a| (*a).to_owned()).collect())).collect()
        };
        assert_eq!(in_order(&services(&[("a", &["c"]), ("b", &[]), ("c", &["missing"])])), ["b", "c", "a"]);
        assert_eq!(in_order(&services(&[("a", &["b"]), ("b", &["a"])])), ["a", "b"]);
    }
}
