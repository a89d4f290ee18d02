//! `backup:` — schedules, repository, retention.

use super::Backup;
use super::read::Reader;
use super::tree::Node;
use super::values;
use serde_json::{Map, Value as Json};

/// Sets kept when nothing is said: a week of days, a month of weeks, half a year of months.
const RETENTION: (u32, u32, u32) = (7, 4, 6);

/// Kinds of repositories with the keys that each may have and must have.
const REPOSITORIES: [(&str, &[&str], &[&str]); 3] = [
    ("local", &["type", "path"], &["path"]),
    ("sftp", &["type", "host", "port", "user", "path", "key", "known_hosts_file"], &["host", "path"]),
    ("s3", &["type", "endpoint", "bucket", "prefix", "region", "credentials_file"], &["endpoint", "bucket"]),
];

/// Keys of the mapping.
const KEYS: [&str; 6] = ["schedule", "time_zone", "verify", "drill", "repository", "retention"];

/// Reads the mapping; absent: no schedule, no repository.
pub(super) fn read(reader: &mut Reader<'_>, node: Option<&Node>) -> Backup {
    let mut backup = Backup {
        schedule: String::new(),
        time_zone: String::new(),
        verify: String::new(),
        drill: String::new(),
        repository: Json::Null,
        retention: RETENTION,
    };
    let Some(node) = node else { return backup };
    if reader.mapping(node, "backup", &KEYS).is_none() {
        return backup;
    }
    if let Some(schedule) = node.get("schedule") {
        backup.schedule = reader.checked(schedule, "backup.schedule", values::schedule).unwrap_or_default();
    }
    for (key, place) in [("verify", &mut backup.verify), ("drill", &mut backup.drill)] {
        if let Some(node) = node.get(key) {
            *place = reader.checked(node, &format!("backup.{key}"), values::schedule).unwrap_or_default();
        }
    }
    if let Some(zone) = node.get("time_zone") {
        backup.time_zone = reader.checked(zone, "backup.time_zone", values::time_zone).unwrap_or_default();
    }
    if let Some(repository) = node.get("repository") {
        backup.repository = read_repository(reader, repository);
    } else if let Some(schedule) = node.get("schedule") {
        reader.error(
            schedule.place,
            "`backup` has a schedule and no repository",
            "say where backups go: `repository: {type: local, path: /var/backups/maxim}`",
        );
    }
    if let Some(retention) = node.get("retention")
        && reader.mapping(retention, "backup.retention", &["daily", "weekly", "monthly"]).is_some()
    {
        let mut counts = [0u32; 3];
        for (key, count) in ["daily", "weekly", "monthly"].iter().zip(&mut counts) {
            let value = retention
                .get(key)
                .and_then(|node| reader.integer(node, &format!("backup.retention.{key}"), 0, 3650));
            *count = value.and_then(|value| u32::try_from(value).ok()).unwrap_or(0);
        }
        if counts == [0, 0, 0] {
            reader.error(retention.place, "`backup.retention` keeps nothing", "keep at least one daily set");
        }
        backup.retention = (counts[0], counts[1], counts[2]);
    }
    backup
}

fn read_repository(reader: &mut Reader<'_>, node: &Node) -> Json {
    let Some(kind) = node.get("type") else {
        if reader.mapping(node, "backup.repository", &["type", "path"]).is_some() {
            reader.error(node.place, "`backup.repository` has no `type`", "local, sftp or s3");
        }
        return Json::Null;
    };
    let choices: Vec<(&str, usize)> =
        REPOSITORIES.iter().enumerate().map(|(at, kind)| (kind.0, at)).collect();
    let Some(at) = reader.choice(kind, "backup.repository.type", &choices) else { return Json::Null };
    let (name, known, required) = REPOSITORIES[at];
    let mut values_map = Map::new();
    values_map.insert("type".to_owned(), Json::from(name));
    let Some(entries) = reader.mapping(node, "backup.repository", known) else { return Json::Null };
    for key in required {
        if node.get(key).is_none() {
            reader.error(
                node.place,
                format!("a repository of type `{name}` needs `{key}`"),
                format!("known: {}", known.join(", ")),
            );
        }
    }
    for entry in entries.iter().filter(|entry| entry.key != "type" && known.contains(&entry.key.as_str())) {
        let path = format!("backup.repository.{}", entry.key);
        let value = match entry.key.as_str() {
            "port" => super::hosts::port(reader, &entry.node, &path).map(Json::from),
            "path" => reader.checked(&entry.node, &path, values::absolute).map(Json::from),
            "key" | "known_hosts_file" | "credentials_file" => {
                reader.control_file(&entry.node, &path).map(Json::from)
            }
            "host" => reader.checked(&entry.node, &path, values::address).map(Json::from),
            "user" => reader.checked(&entry.node, &path, values::user).map(Json::from),
            _ => reader.text(&entry.node, &path).map(Json::from),
        };
        if let Some(value) = value {
            values_map.insert(entry.key.clone(), value);
        }
    }
    Json::Object(values_map)
}
