//! The state of a cluster out of a repository and its recovery kit, for a control host that is gone.
//!
//! Steps: the kit is opened with the password of its page; the set's part `state` is read and compared; it goes into an
//! empty state folder, the topology last; a marker there says that the data is still to come. Then the hosts are looked
//! at: data that is there is overwritten only by who has said so. An install with that state and a restore follow; both
//! are the caller's.

use super::relay::ask;
use super::restore::marker::{Marker, Step};
use super::restore::{NEWER, Only, Overwrite, in_words, is_newer};
use super::sources::origins;
use super::vault::{Vault, pick};
use super::{kit, state_part};
use crate::context::Context;
use crate::error::EngineError;
use crate::files;
use crate::phases::connect;
use crate::run::Run;
use crate::secrets::Secrets;
use crate::state::StateDir;
use maxim_model::Secret;
use maxim_model::backup::wire::{BackupReply, BackupRequest, Source};
use maxim_model::backup::{PartKind, RecoveryKit, RepositoryAccess, SetManifest};
use std::time::Duration;

/// Name of the part that is the IM core's database.
const DATABASE_PART: &str = "database";
/// Looking at what is there.
const LOOK: Duration = Duration::from_mins(2);

/// How to recover the state of a cluster whose control host is gone.
#[derive(Debug, Clone)]
pub struct RecoverOptions {
    /// The kit's file.
    pub kit: RecoveryKit,
    /// The password on its page.
    pub password: Secret,
    /// The set; none: the newest.
    pub set: Option<String>,
}

/// Brings a cluster's state out of its repository into an empty state folder. `context` is of this machine, where
/// restic runs; the cluster's own topology is what is recovered.
pub fn recover_state(
    context: &Context,
    options: &RecoverOptions,
    state: &StateDir,
) -> Result<SetManifest, EngineError> {
    if state.topology()?.is_some() {
        return Err(there(state));
    }
    let secrets = kit::open(&options.kit, &options.password)?;
    let run = Run::begin(context, "backup-recover", false)?;
    let paths = &context.topology.paths;
    let access = RepositoryAccess {
        repository: options.kit.repository.clone(),
        password: options.password.clone(),
        ssh_key: secrets.ssh_key.clone(),
        known_hosts: secrets.known_hosts.clone(),
        credentials: secrets.credentials.clone(),
        work: format!("{}/backup", paths.data),
        run: format!("{}/backup", paths.run),
        images: format!("{}/images", paths.software),
    };
    let mut vault = Vault::with(&run, access)?;
    let sets = vault.sets(true)?;
    let manifest = vault.manifest(&run, pick(&sets, options.set.as_deref())?)?;
    // Before anything is written: what is installed next is this program's version.
    let ours = env!("CARGO_PKG_VERSION");
    if is_newer(&manifest, ours) {
        return Err(EngineError::refused(
            "restore",
            format!(
                "set {} was made by version {}, and this `maxim.ctl` is of version {ours}",
                manifest.set, manifest.version
            ),
        )
        .hint(NEWER));
    }
    let part = manifest
        .part(PartKind::State)
        .ok_or_else(|| EngineError::refused("restore", format!("set {} holds no state", manifest.set)))?;
    let mut content = Vec::new();
    let ended = vault.fetch(&run, "restore/state", &part.snapshot, &part.file, |piece| {
        content.extend_from_slice(piece);
        Ok(())
    })?;
    if ended.sha256 != part.sha256 {
        return Err(EngineError::refused("restore", format!("the state in set {} is damaged", manifest.set))
            .hint("name an older set"));
    }
    state.create()?;
    for (name, content) in [
        (super::vault::KEPT_KEY, secrets.ssh_key.expose()),
        (super::vault::KEPT_KNOWN_HOSTS, secrets.known_hosts.as_str()),
        (super::vault::KEPT_CREDENTIALS, secrets.credentials.expose()),
    ] {
        if !content.is_empty() {
            files::write_whole(&state.file(name), content.as_bytes(), 0o600)?;
        }
    }
    // Before the topology, with which the cluster is there.
    Marker { rebuilding: true, ..Marker::new(&manifest.set, Step::Waiting, Only::All) }.write(state)?;
    state_part::unpack(&content, state)?;
    let mut kept = Secrets::load(&state.file("secrets.json"))?;
    kept.set(super::vault::PASSWORD, options.password.clone());
    kept.save()?;
    Ok(manifest)
}

/// The set that a cluster is being rebuilt from, when a run before has recovered its state and its data is still to come;
/// none: there is no state yet. A state that is there and not being rebuilt is refused, and so is a wrong password.
pub fn rebuilding(state: &StateDir, options: &RecoverOptions) -> Result<Option<String>, EngineError> {
    kit::open(&options.kit, &options.password)?;
    if state.topology()?.is_none() {
        return Ok(None);
    }
    let marker = Marker::read(state)?.filter(|marker| marker.rebuilding).ok_or_else(|| there(state))?;
    if options.set.as_ref().is_some_and(|set| *set != marker.set && set != "latest") {
        return Err(EngineError::refused(
            "restore",
            format!("the cluster in {} is being rebuilt from set {}", state.path().display(), marker.set),
        )
        .hint("complete that without naming a set; another one can be restored onto it afterwards"));
    }
    Ok(Some(marker.set))
}

fn there(state: &StateDir) -> EngineError {
    EngineError::refused("restore", format!("there is a cluster already in {}", state.path().display()))
        .hint("restore onto it without --kit, or remove it first with `maxim.ctl uninstall --purge`")
}

/// Looks, before the install, whether there is no database yet (its host is new), and notes it for a run that goes on after
/// that. One that is there is refused unless `overwrite`; other parts that hosts have still stay as they are.
/// `context` is of the cluster.
pub fn are_fresh(context: &Context, overwrite: bool) -> Result<bool, EngineError> {
    let mut marker = Marker::read(&context.state)?.ok_or_else(|| there(&context.state))?;
    if let Some(fresh) = marker.fresh {
        return Ok(fresh);
    }
    let (fresh, kept) = judge(&found(context)?, overwrite)?;
    (marker.fresh, marker.kept) = (Some(fresh), kept);
    marker.write(&context.state)?;
    Ok(fresh)
}

/// Whether there is no database, and what stays as it is then: no safety set is made of what comes onto a new database, so
/// what other hosts have is not touched, whatever was said.
fn judge(found: &[Overwrite], overwrite: bool) -> Result<(bool, Vec<String>), EngineError> {
    let fresh = found.iter().all(|one| one.part != DATABASE_PART);
    if !fresh && !overwrite {
        return Err(EngineError::refused(
            "restore",
            format!("the hosts of this cluster hold data: {}", in_words(found)),
        )
        .hint("say so with --overwrite; a safety set of what is there is made first"));
    }
    let kept = found.iter().filter(|_| fresh).map(|one| one.part.clone()).collect();
    Ok((fresh, kept))
}

fn found(context: &Context) -> Result<Vec<Overwrite>, EngineError> {
    let run = Run::begin(context, "backup-recover", false)?;
    let mut sessions = connect::connect(&run)?;
    let found = (|| {
        if let Some(error) = connect::errors(&mut sessions) {
            return Err(error);
        }
        let mut found = Vec::new();
        for origin in origins(&context.topology)? {
            let Some(agent) = sessions
                .iter_mut()
                .find(|session| session.host.name == origin.host)
                .and_then(|session| session.reader.as_mut())
            else {
                return Err(EngineError::failed("restore", "the host is not connected").on(&origin.host));
            };
            // A server that does not run is not there yet, or was stopped: then its files are.
            let folder = match &origin.source {
                Source::Mariadb { .. } => Some("mariadb"),
                Source::Postgresql { .. } => Some("postgresql"),
                _ => None,
            };
            let source = match folder {
                Some(folder) => Source::Tree {
                    path: format!("{}/{folder}", context.topology.paths.data),
                    owner: String::new(),
                },
                None => origin.source.clone(),
            };
            if let Some(BackupReply::Measured { present: true, bytes, rows, .. }) =
                ask(agent, "restore", BackupRequest::Measure { source }, LOOK)?
                && bytes > 0
            {
                let part = origin.name.to_owned();
                found.push(Overwrite { host: origin.host.clone(), part, bytes, rows });
            }
        }
        Ok(found)
    })();
    connect::release(&mut sessions);
    found
}

#[cfg(test)]
mod tests {
    use super::{DATABASE_PART, Overwrite, judge};

    #[test]
    fn what_no_safety_set_is_made_of_stays_as_it_is() {
        let found = |parts: &[&str]| -> Vec<Overwrite> {
            let one = |part: &&str| Overwrite { host: "a".into(), part: (*part).into(), bytes: 1, rows: 0 };
            parts.iter().map(one).collect()
        };
        for overwrite in [false, true] {
            assert_eq!(judge(&found(&["files"]), overwrite).unwrap(), (true, vec!["files".to_owned()]));
            assert_eq!(judge(&[], overwrite).unwrap(), (true, Vec::new()));
        }
        let whole = found(&[DATABASE_PART, "files"]);
        assert_eq!(judge(&whole, false).unwrap_err().exit_code(), 5);
        assert_eq!(judge(&whole, true).unwrap(), (false, Vec::new()), "a safety set is made of all of it");
    }
}
