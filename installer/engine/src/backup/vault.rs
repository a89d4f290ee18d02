//! The repository: restic on the host that keeps it, through an agent there; sets out of its snapshots.
//!
//! That host is the console's, else the first that runs the IM core. restic that is not there is brought along from
//! the bundle at hand.

use super::relay::{Ended, Intake, ask, pull};
use super::tasks;
use crate::context::Context;
use crate::error::EngineError;
use crate::files;
use crate::phases::connect;
use crate::remote::{Agent, Connected, Mode};
use crate::run::Run;
use crate::secrets::Secrets;
use crate::state;
use maxim_model::Secret;
use maxim_model::backup::manifest::{
    MANIFEST_FILE, MANIFEST_PART, PART_TAG, PROVEN_TAG, SET_FORMAT, SET_TAG, TAG, VERIFIED_TAG,
};
use maxim_model::backup::retention::SetInfo;
use maxim_model::backup::wire::{BackupReply, BackupRequest, ResticCommand};
use maxim_model::backup::{Repository, RepositoryAccess, SetKind, SetManifest};
use maxim_model::names::Role;
use maxim_model::topology::{Host, Topology};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use time::OffsetDateTime;

/// Name of restic's password among the secrets.
pub(crate) const PASSWORD: &str = "backup_repository_password";
/// Files of the state folder with what a recovery kit carried.
pub(super) const KEPT_KEY: &str = "repository-key";
pub(super) const KEPT_KNOWN_HOSTS: &str = "repository-known-hosts";
pub(super) const KEPT_CREDENTIALS: &str = "repository-credentials";
/// Tag of a manifest that says when its point was; unix seconds follow.
const POINT_TAG: &str = "point-";
/// Tag of a manifest that says why it was made.
const KIND_TAG: &str = "kind-";
/// Tag of a manifest that says how many bytes its parts have.
const BYTES_TAG: &str = "bytes-";
/// Seconds by which clocks of hosts may differ.
const CLOCKS: i64 = 300;
/// A manifest is some kilobytes.
const MANIFEST_LIMIT: usize = 16 << 20;

/// A set as the repository has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredSet {
    /// What retention looks at.
    #[serde(flatten)]
    pub info: SetInfo,
    /// Snapshot of its manifest; empty: the set is not complete, so it does not exist.
    pub manifest: String,
    /// Further snapshots of it: a `restic tag` that is killed leaves the one from before beside the new one.
    #[serde(skip)]
    pub doubles: Vec<String>,
    /// Snapshots of its parts by name.
    pub parts: BTreeMap<String, String>,
    /// Bytes of its parts.
    pub bytes: u64,
}

impl StoredSet {
    /// Whether its manifest is there.
    pub const fn is_complete(&self) -> bool {
        !self.manifest.is_empty()
    }
}

/// An opened repository.
pub(crate) struct Vault {
    connected: Box<dyn Connected>,
    agent: Agent,
    access: RepositoryAccess,
}

/// The host that keeps the repository.
pub(crate) fn host(topology: &Topology) -> Option<&Host> {
    topology.with_role(Role::Console).next().or_else(|| topology.with_role(Role::Im).next())
}

/// The repository of a topology; an error that says how to set one.
pub(crate) fn repository(context: &Context) -> Result<Repository, EngineError> {
    let wrong = |cause: String| EngineError::usage("backup", cause);
    Repository::from_topology(&context.topology.backup.repository).map_err(wrong)?.ok_or_else(|| {
        wrong("no repository is set, so there is nowhere to keep backups".into()).hint(
            "say where: `maxim.ctl config set backup.repository '{type: local, path: /var/backups/maxim}'`; best on \
             another disk or another machine (types sftp and s3)",
        )
    })
}

/// Files on the control host that the repository needs.
pub(crate) fn access(
    context: &Context,
    repository: Repository,
    password: Secret,
) -> Result<RepositoryAccess, EngineError> {
    let (mut ssh_key, mut known_hosts, mut credentials) =
        (Secret::default(), String::new(), Secret::default());
    match &repository {
        Repository::Local { .. } => {}
        Repository::Sftp { key, known_hosts_file, .. } => {
            ssh_key = Secret::new(read(context, key, KEPT_KEY)?);
            known_hosts = read(context, known_hosts_file, KEPT_KNOWN_HOSTS)?;
        }
        Repository::S3 { credentials_file, .. } => {
            credentials = Secret::new(read(context, credentials_file, KEPT_CREDENTIALS)?);
        }
    }
    let paths = &context.topology.paths;
    Ok(RepositoryAccess {
        repository,
        password,
        ssh_key,
        known_hosts,
        credentials,
        work: format!("{}/backup", paths.data),
        run: format!("{}/backup", paths.run),
        images: format!("{}/images", paths.software),
    })
}

/// A file that the topology names; on a control host that was rebuilt from a kit, what the kit carried.
fn read(context: &Context, path: &str, kept: &str) -> Result<String, EngineError> {
    if !Path::new(path).is_file()
        && let Some(text) = files::read_optional(&context.state.file(kept))?
    {
        return Ok(text);
    }
    if path.is_empty() {
        return Ok(String::new());
    }
    std::fs::read_to_string(path).map_err(|error| {
        EngineError::usage("backup", format!("{path}: {error}"))
            .hint("the file that `backup.repository` names must be readable for this user")
    })
}

impl Vault {
    /// Opens the repository of a cluster on the host that keeps it.
    pub fn open(run: &Run<'_>) -> Result<Self, EngineError> {
        let context = run.context;
        let secrets = Secrets::load(&context.state.file("secrets.json"))?;
        let password = secrets.get(PASSWORD).cloned().ok_or_else(|| {
            EngineError::failed("backup", "no backup was made of this cluster yet, so it has no repository")
                .hint("`maxim.ctl backup create` makes the repository, its key and the recovery kit")
        })?;
        let access = access(context, repository(context)?, password)?;
        Self::with(run, access)
    }

    /// Opens a repository with what is given.
    pub fn with(run: &Run<'_>, access: RepositoryAccess) -> Result<Self, EngineError> {
        let host = host(&run.context.topology)
            .ok_or_else(|| EngineError::usage("backup", "no host of this cluster can keep a repository"))?;
        let mut connected = run.connect(host)?;
        let mut agent = connected.agent(Mode::Change)?;
        run.scope(&mut agent)?;
        let mut vault = Self { connected, agent, access };
        vault.have_restic(run)?;
        Ok(vault)
    }

    /// Host that keeps it.
    pub fn host(&self) -> String {
        self.agent.host().to_owned()
    }

    /// Takes the lock of the host, for as long as this vault is open.
    pub fn lock(&mut self, run: &Run<'_>, action: &str) -> Result<(), EngineError> {
        connect::lock_agent(&mut self.agent, &run.context.topology.name, &state::owner(action))
    }

    /// The agent there, for what is not restic's.
    pub fn agent(&mut self) -> &mut Agent {
        &mut self.agent
    }

    /// What opens it.
    pub fn access(&self) -> &RepositoryAccess {
        &self.access
    }

    /// Brings restic along from the bundle when the host has none.
    fn have_restic(&mut self, run: &Run<'_>) -> Result<(), EngineError> {
        let Err(missing) = self.restic("backup", ResticCommand::Version, Duration::from_mins(1)) else {
            return Ok(());
        };
        let Some(artefact) = run.artefacts().ok().and_then(|all| all.get("restic")).cloned() else {
            return Err(missing);
        };
        let host = self.agent.host().to_owned();
        run.emitter.note(&host, "backup", "restic is brought along from the bundle");
        tasks::bring_image(run, &mut self.agent, &artefact)?;
        self.restic("backup", ResticCommand::Version, Duration::from_mins(1)).map(drop)
    }

    /// Runs a command of restic.
    pub fn restic(
        &mut self,
        step: &str,
        command: ResticCommand,
        patience: Duration,
    ) -> Result<Vec<Value>, EngineError> {
        let request = BackupRequest::Restic { access: Box::new(self.access.clone()), command };
        match ask(&mut self.agent, step, request, patience)? {
            Some(BackupReply::Restic { said }) => Ok(said),
            _ => Ok(Vec::new()),
        }
    }

    /// Makes the repository unless it is there; its identifier.
    pub fn init(&mut self) -> Result<String, EngineError> {
        let said = self.restic("backup", ResticCommand::Init, Duration::from_mins(5))?;
        Ok(said.iter().find_map(|value| value["id"].as_str()).unwrap_or_default().to_owned())
    }

    /// One more agent there.
    pub fn another(&mut self, run: &Run<'_>) -> Result<Agent, EngineError> {
        let mut agent = self.connected.agent(Mode::Change)?;
        run.scope(&mut agent)?;
        Ok(agent)
    }

    /// A file of a snapshot, by an agent of its own.
    pub fn fetch(
        &mut self,
        run: &Run<'_>,
        step: &str,
        snapshot: &str,
        file: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), EngineError>,
    ) -> Result<Ended, EngineError> {
        let agent = self.another(run)?;
        let command = ResticCommand::Dump { snapshot: snapshot.into(), file: file.into() };
        let request = BackupRequest::Restic { access: Box::new(self.access.clone()), command };
        pull(agent, step, request, |piece, _| take(piece))
    }

    /// All sets, newest first, those without a manifest too. `settled`: for a run that goes on from there, which waits
    /// for what a killed one left at work.
    pub fn sets(&mut self, settled: bool) -> Result<Vec<StoredSet>, EngineError> {
        let said = self.restic("backup", ResticCommand::Snapshots { settled }, Duration::from_mins(5))?;
        let snapshots: Vec<Value> =
            said.into_iter().flat_map(|value| value.as_array().cloned().unwrap_or_default()).collect();
        Ok(sets_of(&snapshots))
    }

    /// The manifest of a set.
    pub fn manifest(&mut self, run: &Run<'_>, set: &StoredSet) -> Result<SetManifest, EngineError> {
        let mut text = Vec::new();
        self.fetch(run, "backup", &set.manifest, MANIFEST_FILE, |piece| {
            text.extend_from_slice(piece);
            if text.len() > MANIFEST_LIMIT {
                return Err(EngineError::failed("backup", "the manifest is larger than any that we write"));
            }
            Ok(())
        })?;
        let broken = |cause: String| {
            EngineError::refused(
                "backup",
                format!("the manifest of set {} cannot be used: {cause}", set.info.set),
            )
            .hint("verify the repository with `maxim.ctl backup verify`, and name another set")
        };
        let value: Value = serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
        match value["format"].as_u64() {
            Some(format) if format == u64::from(SET_FORMAT) => {
                serde_json::from_value(value).map_err(|error| broken(error.to_string()))
            }
            Some(format) if format > u64::from(SET_FORMAT) => Err(EngineError::refused(
                "backup",
                format!("set {} has format {format}: it was made by a newer version", set.info.set),
            )
            .hint("restore it with the version that made it, or a newer one")),
            _ => Err(broken("it names no format".into())),
        }
    }

    /// Stores the manifest, which makes the set exist.
    pub fn store_manifest(&mut self, manifest: &SetManifest) -> Result<Ended, EngineError> {
        let text = serde_json::to_vec_pretty(manifest)
            .map_err(|error| EngineError::failed("backup", error.to_string()))?;
        let mut tags = tags(&manifest.set, MANIFEST_PART);
        tags.push(format!("{KIND_TAG}{}", manifest.kind.name()));
        tags.push(format!("{POINT_TAG}{}", manifest.point_unix));
        tags.push(format!("{BYTES_TAG}{}", manifest.bytes()));
        let mut intake =
            store(&mut self.agent, &self.access, "backup/manifest", MANIFEST_FILE, tags, &manifest.cluster)?;
        intake.put(&text)?;
        intake.finish()
    }

    /// Marks a set as verified or proven at a time, in place of an earlier mark of the kind.
    pub fn mark(&mut self, set: &StoredSet, tag: &str, at_unix: i64) -> Result<(), EngineError> {
        let before = if tag == VERIFIED_TAG { set.info.verified_unix } else { set.info.proven_unix };
        let remove = if before > 0 { vec![format!("{tag}{before}")] } else { Vec::new() };
        let command = ResticCommand::Tag {
            snapshot: set.manifest.clone(),
            add: vec![format!("{tag}{at_unix}")],
            remove,
        };
        self.restic("backup", command, Duration::from_mins(5)).map(drop)
    }
}

/// Begins a snapshot by an agent where the repository is.
pub(crate) fn store<'a>(
    agent: &'a mut Agent,
    access: &RepositoryAccess,
    step: &str,
    file: &str,
    tags: Vec<String>,
    host: &str,
) -> Result<Intake<'a>, EngineError> {
    let command = ResticCommand::Backup { file: file.into(), tags, host: host.into() };
    let request = BackupRequest::Restic { access: Box::new(access.clone()), command };
    Intake::begin(agent, step, request, Duration::from_mins(10))
}

/// The newest complete set, or the one that is named. One whose point lies ahead was made while the clock was wrong, and
/// nobody knows how new it is: it is taken when there is no other.
pub(crate) fn pick<'s>(sets: &'s [StoredSet], wanted: Option<&str>) -> Result<&'s StoredSet, EngineError> {
    let mut complete = sets.iter().filter(|set| set.is_complete());
    let soon = OffsetDateTime::now_utc().unix_timestamp() + CLOCKS;
    let found = match wanted {
        None | Some("latest") => {
            let regular = || sets.iter().filter(|set| set.is_complete() && set.info.kind != SetKind::Safety);
            regular().find(|set| set.info.point_unix <= soon).or_else(|| regular().next())
        }
        Some(name) => complete.find(|set| set.info.set == name),
    };
    found.ok_or_else(|| match wanted {
        Some(name) if name != "latest" => {
            EngineError::usage("backup", format!("there is no complete set `{name}` in the repository"))
                .hint("`maxim.ctl backup list` shows the sets")
        }
        _ => EngineError::failed("backup", "there is no complete set in the repository")
            .hint("`maxim.ctl backup create` makes one"),
    })
}

/// Tags of a part's snapshot.
pub(crate) fn tags(set: &str, part: &str) -> Vec<String> {
    vec![TAG.into(), format!("{SET_TAG}{set}"), format!("{PART_TAG}{part}")]
}

/// restic's snapshots by set.
fn sets_of(snapshots: &[Value]) -> Vec<StoredSet> {
    let mut sets: BTreeMap<String, StoredSet> = BTreeMap::new();
    for snapshot in snapshots {
        let tags: Vec<&str> =
            snapshot["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let value = |prefix: &str| tags.iter().find_map(|tag| tag.strip_prefix(prefix));
        let number = |prefix: &str| value(prefix).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        let (Some(name), Some(part), Some(id)) = (value(SET_TAG), value(PART_TAG), snapshot["id"].as_str())
        else {
            continue;
        };
        let set = sets.entry(name.to_owned()).or_insert_with(|| StoredSet {
            info: SetInfo {
                set: name.to_owned(),
                point_unix: 0,
                kind: SetKind::Manual,
                verified_unix: 0,
                proven_unix: 0,
            },
            manifest: String::new(),
            doubles: Vec::new(),
            parts: BTreeMap::new(),
            bytes: 0,
        });
        if part == MANIFEST_PART {
            let marked = (number(VERIFIED_TAG), number(PROVEN_TAG));
            if !set.manifest.is_empty() {
                let newest = marked >= (set.info.verified_unix, set.info.proven_unix);
                let double = if newest { std::mem::take(&mut set.manifest) } else { id.to_owned() };
                set.doubles.push(double);
                if !newest {
                    continue;
                }
            }
            id.clone_into(&mut set.manifest);
            set.info.point_unix = number(POINT_TAG);
            set.info.kind = value(KIND_TAG).and_then(SetKind::from_name).unwrap_or(SetKind::Manual);
            (set.info.verified_unix, set.info.proven_unix) = marked;
            set.bytes = u64::try_from(number(BYTES_TAG)).unwrap_or(0);
        } else {
            set.parts.insert(part.to_owned(), id.to_owned());
        }
    }
    let mut sets: Vec<StoredSet> = sets.into_values().collect();
    sets.sort_by(|a, b| (b.info.point_unix, &b.info.set).cmp(&(a.info.point_unix, &a.info.set)));
    sets
}

#[cfg(test)]
mod tests {
    use super::{pick, sets_of};
    use maxim_model::backup::SetKind;
    use serde_json::json;

    #[test]
    fn a_set_without_a_manifest_does_not_exist() {
        let snapshot = |id: &str, tags: &[&str]| json!({"id": id, "tags": tags});
        let sets = sets_of(&[
            snapshot("aa", &["maxim", "set-1", "part-database"]),
            snapshot(
                "ab",
                &[
                    "maxim",
                    "set-1",
                    "part-manifest",
                    "kind-scheduled",
                    "point-100",
                    "bytes-7",
                    "verified-120",
                ],
            ),
            snapshot("ba", &["maxim", "set-2", "part-database"]),
            snapshot("ca", &["maxim", "set-3", "part-manifest", "kind-safety", "point-300"]),
            snapshot("ad", &["maxim", "set-1", "part-manifest", "kind-scheduled", "point-100", "bytes-7"]),
            snapshot("xx", &["other"]),
        ]);
        let first = sets.iter().find(|set| set.info.set == "1").unwrap();
        assert_eq!(
            (first.manifest.as_str(), &first.doubles[..]),
            ("ab", &["ad".to_owned()][..]),
            "a tag was killed"
        );
        assert_eq!(sets.len(), 3);
        let newest = pick(&sets, None).unwrap();
        assert_eq!((newest.info.set.as_str(), newest.bytes, newest.info.verified_unix), ("1", 7, 120));
        assert_eq!(newest.info.kind, SetKind::Scheduled);
        assert!(pick(&sets, Some("2")).is_err(), "not complete");
        let mut ahead = sets.clone();
        ahead.insert(0, ahead[2].clone());
        ahead[0].info.set = "ahead".into();
        ahead[0].info.point_unix = i64::MAX / 2;
        assert_eq!(
            pick(&ahead, None).unwrap().info.set,
            "1",
            "what was made under a wrong clock is not the newest"
        );
        assert_eq!(pick(&sets, Some("3")).unwrap().manifest, "ca", "a safety set when it is named");
    }
}
