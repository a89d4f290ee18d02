//! The settings that a cluster may override: name, type, default, range and meaning, as one table.
//!
//! The table is what `settings:` and `--set settings.…` are checked against, what `config get` and the reference
//! in `docs/reference/settings.md` are made from, and where templates get their defaults.

use super::error::quoted;
use super::read::Reader;
use super::suggest::nearest;
use super::tree::{Node, Value};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Type and range of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingType {
    /// `true` or `false`.
    Boolean {
        /// Without an override.
        default: bool,
    },
    /// A whole number.
    Integer {
        /// Without an override.
        default: i64,
        /// Smallest.
        low: i64,
        /// Largest.
        high: i64,
        /// Unit for people; may be empty.
        unit: &'static str,
    },
    /// One of some words.
    Choice {
        /// Without an override.
        default: &'static str,
        /// What it may be.
        choices: &'static [&'static str],
    },
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Dotted name.
    pub name: &'static str,
    /// Type and range.
    pub kind: SettingType,
    /// What it does, one or two sentences.
    pub meaning: &'static str,
}

impl Setting {
    /// The default as JSON.
    pub fn default_value(&self) -> Json {
        match self.kind {
            SettingType::Boolean { default } => Json::from(default),
            SettingType::Integer { default, .. } => Json::from(default),
            SettingType::Choice { default, .. } => Json::from(default),
        }
    }

    /// Type, as in the reference.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            SettingType::Boolean { .. } => "boolean",
            SettingType::Integer { .. } => "integer",
            SettingType::Choice { .. } => "choice",
        }
    }

    /// What it may be, as in the reference.
    pub fn range(&self) -> String {
        match self.kind {
            SettingType::Boolean { .. } => "true, false".to_owned(),
            SettingType::Integer { low, high, unit: "", .. } => format!("{low} to {high}"),
            SettingType::Integer { low, high, unit, .. } => format!("{low} to {high} {unit}"),
            SettingType::Choice { choices, .. } => choices.join(", "),
        }
    }
}

const fn integer(
    name: &'static str,
    default: i64,
    range: (i64, i64),
    unit: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting { name, kind: SettingType::Integer { default, low: range.0, high: range.1, unit }, meaning }
}

const fn boolean(name: &'static str, default: bool, meaning: &'static str) -> Setting {
    Setting { name, kind: SettingType::Boolean { default }, meaning }
}

/// All settings, by name.
pub const SETTINGS: &[Setting] = &[
    boolean(
        "im.registration.in_band",
        false,
        "Anybody who reaches the server may make an account for himself (XEP-0077). Off: accounts are made by an \
         administrator.",
    ),
    integer(
        "im.archive.expire_days",
        0,
        (0, 36_500),
        "days",
        "Messages older than this are removed from the archive; 0: they are kept for ever.",
    ),
    integer(
        "im.limits.stanza_bytes",
        262_144,
        (10_000, 16_000_000),
        "bytes",
        "Largest stanza that a client may send. RFC 6120 asks for at least 10,000.",
    ),
    integer(
        "im.limits.connections",
        200_000,
        (1, 10_000_000),
        "connections",
        "Connections that one IM host accepts.",
    ),
    integer(
        "im.limits.connections_per_address",
        20_000,
        (1, 10_000_000),
        "connections",
        "Connections that one IM host accepts from one address; a whole office may share one.",
    ),
    integer(
        "im.limits.sign_in_attempts",
        5,
        (1, 100),
        "attempts",
        "Failed attempts to sign in after which a connection is closed.",
    ),
    integer(
        "im.limits.sign_in_failures_per_minute",
        20,
        (1, 1_000_000),
        "attempts",
        "Failed attempts to sign in to one account from one address, after which more are refused for a while.",
    ),
    integer(
        "im.limits.sessions_per_account",
        50,
        (1, 10_000),
        "sessions",
        "Devices of one account that may be connected at a time.",
    ),
    integer(
        "im.limits.resume_seconds",
        300,
        (0, 86_400),
        "seconds",
        "How long a session that lost its connection can be taken up again; 0: not at all.",
    ),
    integer("im.limits.roster_items", 5_000, (1, 100_000), "contacts", "Contacts that one account may have."),
    Setting {
        name: "im.log.level",
        kind: SettingType::Choice { default: "info", choices: &["error", "warn", "info", "debug"] },
        meaning: "How much the IM core writes into its log.",
    },
    integer(
        "redis.maxmemory_mb",
        0,
        (0, 1_048_576),
        "MiB",
        "Memory that Redis may take for data; 0: from the measured memory of its host.",
    ),
    integer(
        "mariadb.buffer_pool_mb",
        0,
        (0, 16_777_216),
        "MiB",
        "InnoDB buffer pool; 0: from the measured memory of its host.",
    ),
    integer(
        "mariadb.max_connections",
        0,
        (0, 100_000),
        "connections",
        "Connections that MariaDB accepts; 0: from `capacity` and the number of IM hosts.",
    ),
    integer(
        "postgresql.shared_buffers_mb",
        0,
        (0, 16_777_216),
        "MiB",
        "Shared buffers of PostgreSQL; 0: from the measured memory of its host.",
    ),
    integer(
        "postgresql.max_connections",
        0,
        (0, 100_000),
        "connections",
        "Connections that PostgreSQL accepts; 0: from `capacity` and the number of IM hosts.",
    ),
];

/// A setting by name.
pub fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The value in force: the override, else the default. None for an unknown name.
pub fn effective(overrides: &BTreeMap<String, Json>, name: &str) -> Option<Json> {
    overrides.get(name).cloned().or_else(|| setting(name).map(Setting::default_value))
}

/// The reference page, as Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Settings\n\n\
         Made from the table in `installer/model/src/topology/settings.rs`; a test keeps both the same.\n\n\
         A setting is overridden in the topology under `settings:`, nested or by its dotted name, or by\n\
         `--set settings.NAME=VALUE`. `./maxim.ctl config get` shows what is in force.\n\n\
         | name | type | default | range | meaning |\n|---|---|---|---|---|\n",
    );
    for setting in SETTINGS {
        let default = match setting.default_value() {
            Json::String(text) => text,
            other => other.to_string(),
        };
        page.push_str(&format!(
            "| `{}` | {} | {default} | {} | {} |\n",
            setting.name,
            setting.type_name(),
            setting.range(),
            setting.meaning
        ));
    }
    page
}

/// Reads `settings:`, nested or dotted, against the table.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<String, Json> {
    let mut values = BTreeMap::new();
    walk(reader, node, "", &mut values);
    values
}

fn walk(reader: &mut Reader<'_>, node: &Node, prefix: &str, values: &mut BTreeMap<String, Json>) {
    let shown = if prefix.is_empty() { "settings".to_owned() } else { format!("settings.{prefix}") };
    let Some(entries) = reader.entries(node, &shown) else { return };
    for entry in entries {
        let name = if prefix.is_empty() { entry.key.clone() } else { format!("{prefix}.{}", entry.key) };
        let path = format!("settings.{name}");
        if let Some(setting) = setting(&name) {
            let value = match setting.kind {
                SettingType::Boolean { .. } => reader.boolean(&entry.node, &path).map(Json::from),
                SettingType::Integer { low, high, .. } => {
                    reader.integer(&entry.node, &path, low, high).map(Json::from)
                }
                SettingType::Choice { choices, .. } => {
                    let pairs: Vec<(&str, &str)> = choices.iter().map(|choice| (*choice, *choice)).collect();
                    reader.choice(&entry.node, &path, &pairs).map(Json::from)
                }
            };
            if let Some(value) = value
                && values.insert(name.clone(), value).is_some()
            {
                reader.error(entry.place, format!("the setting `{name}` is given twice"), "keep one of them");
            }
            continue;
        }
        let is_group = SETTINGS.iter().any(|setting| {
            setting.name.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('.'))
        });
        if is_group && matches!(entry.node.value, Value::Mapping { .. }) {
            walk(reader, &entry.node, &name, values);
        } else if super::error::is_secret_key(&entry.key) {
            reader.secret(entry.place, &path, false);
        } else if is_group {
            reader.error(
                entry.node.place,
                format!("`{path}` is a group of settings, and is {}", entry.node.kind()),
                "give the settings below it",
            );
        } else {
            let hint = match nearest(&name, SETTINGS.iter().map(|setting| setting.name)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`maxim.ctl config get` lists all settings".to_owned(),
            };
            reader.error(entry.place, format!("unknown setting {}", quoted(&name)), hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SETTINGS, reference};

    #[test]
    fn names_are_unique_and_no_prefix_of_another() {
        for one in SETTINGS {
            let others = SETTINGS.iter().filter(|other| other.name != one.name);
            assert_eq!(SETTINGS.iter().filter(|other| other.name == one.name).count(), 1, "{}", one.name);
            for other in others {
                assert!(
                    !other.name.starts_with(&format!("{}.", one.name)),
                    "{} holds {}",
                    one.name,
                    other.name
                );
            }
        }
    }

    /// `MAXIM_UPDATE_REFERENCE=1 cargo test -p maxim-model` writes the page anew.
    #[test]
    fn the_reference_page_says_the_same() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/settings.md");
        if std::env::var_os("MAXIM_UPDATE_REFERENCE").is_some() {
            std::fs::write(&path, reference()).expect("the page can be written");
        }
        let page = std::fs::read_to_string(&path).expect("docs/reference/settings.md exists");
        assert_eq!(page, reference(), "run the test with MAXIM_UPDATE_REFERENCE=1");
    }
}
