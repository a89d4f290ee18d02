//! The state of a cluster out of a repository and its recovery kit, for a control host that is gone.
//!
//! Steps: the kit is opened with the password of its page; the set's part `state` is read and compared; it goes into an
//! empty state folder, the topology last. An install with that state and a restore follow; both are the caller's.

use super::vault::{Vault, pick};
use super::{kit, state_part};
use crate::context::Context;
use crate::error::EngineError;
use crate::files;
use crate::run::Run;
use crate::secrets::Secrets;
use crate::state::StateDir;
use maxim_model::Secret;
use maxim_model::backup::{PartKind, RecoveryKit, RepositoryAccess, SetManifest};

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
        return Err(EngineError::refused(
            "restore",
            format!("there is a cluster already in {}", state.path().display()),
        )
        .hint("restore onto it without --kit, or remove it first with `maxim.ctl uninstall --purge`"));
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
    let sets = vault.sets()?;
    let manifest = vault.manifest(&run, pick(&sets, options.set.as_deref())?)?;
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
    state_part::unpack(&content, state)?;
    let mut kept = Secrets::load(&state.file("secrets.json"))?;
    kept.set(super::vault::PASSWORD, options.password.clone());
    kept.save()?;
    Ok(manifest)
}
