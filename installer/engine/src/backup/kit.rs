//! The recovery kit and the key: made when the repository is, exported again at any time.
//!
//! The file's secrets are sealed by AES-256-GCM under a key that PBKDF2 (HMAC-SHA-256, RFC 8018) derives from the
//! repository's password, which stands on the page only.

use super::vault::{PASSWORD, Vault, access, repository};
use crate::context::Context;
use crate::error::EngineError;
use crate::events::now_rfc3339;
use crate::files;
use crate::run::Run;
use crate::secrets::Secrets;
use maxim_model::Secret;
use maxim_model::backup::kit::{KIT_FORMAT, KitSecrets, page};
use maxim_model::backup::{RecoveryKit, RepositoryAccess};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{hmac, pbkdf2};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use zeroize::Zeroize;

/// The page's name in the state folder.
const PAGE: &str = "recovery-kit.txt";
/// The file's.
const FILE: &str = "recovery-kit.json";
/// What OWASP asks of PBKDF2 with SHA-256, though the password here is 230 bits of chance.
const ROUNDS: u32 = 600_000;

/// What stock restic needs, and where the kit lies.
#[derive(Debug, Clone)]
pub struct KeyExport {
    /// Where the repository is, as restic's `-r` has it.
    pub repository: String,
    /// restic's password.
    pub password: Secret,
    /// The page.
    pub page: PathBuf,
    /// The file.
    pub file: PathBuf,
}

/// Whether page and file are there and open this repository with what opens it now, as far as that is known without
/// opening it.
pub(super) fn is_made(context: &Context, access: &RepositoryAccess) -> Result<bool, EngineError> {
    Ok(made(context, access)?.is_some())
}

/// The kit that is there, unless it is of another place or of secrets that were exchanged since.
fn made(context: &Context, access: &RepositoryAccess) -> Result<Option<RecoveryKit>, EngineError> {
    if !context.state.file(PAGE).is_file() {
        return Ok(None);
    }
    let kit = files::read_optional(&context.state.file(FILE))?
        .and_then(|text| serde_json::from_str::<RecoveryKit>(&text).ok());
    let wanted = tag(&access.password, &serde_json::to_vec(&secrets(access)).unwrap_or_default());
    Ok(kit.filter(|kit| kit.repository == access.repository && kit.tag == wanted))
}

fn secrets(access: &RepositoryAccess) -> KitSecrets {
    KitSecrets {
        ssh_key: access.ssh_key.clone(),
        known_hosts: access.known_hosts.clone(),
        credentials: access.credentials.clone(),
    }
}

/// The password is 230 bits of chance: nobody finds it by trying.
fn tag(password: &Secret, secrets: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, password.expose().as_bytes());
    hex::encode(hmac::sign(&key, secrets))
}

/// Makes page and file when they are not there, belong to another place or key, or carry what was exchanged since.
pub(super) fn ensure(
    context: &Context,
    access: &RepositoryAccess,
    repository_id: &str,
) -> Result<Option<(PathBuf, PathBuf)>, EngineError> {
    let (page_path, file_path) = (context.state.file(PAGE), context.state.file(FILE));
    if made(context, access)?.is_some_and(|kit| kit.repository_id == repository_id) {
        return Ok(None);
    }
    let kit = seal(context, access, repository_id)?;
    let text =
        serde_json::to_string_pretty(&kit).map_err(|error| EngineError::failed("kit", error.to_string()))?;
    files::write_whole(&file_path, text.as_bytes(), 0o600)?;
    let mut text = page(&kit, &access.password, FILE);
    let written = files::write_whole(&page_path, text.as_bytes(), 0o600);
    text.zeroize();
    written?;
    Ok(Some((page_path, file_path)))
}

/// The key of the cluster's repository; the kit is made anew when it is missing, or carries what was exchanged since.
pub fn key_export(context: &Context) -> Result<KeyExport, EngineError> {
    let secrets = Secrets::load(&context.state.file("secrets.json"))?;
    let password = secrets.get(PASSWORD).cloned().ok_or_else(|| {
        EngineError::failed("key export", "no backup was made of this cluster yet, so it has no key")
            .hint("`maxim.ctl backup create` makes the repository, its key and the recovery kit")
    })?;
    let repository = repository(context)?;
    let (page, file) = (context.state.file(PAGE), context.state.file(FILE));
    let access = access(context, repository.clone(), password.clone());
    let made = match &access {
        Ok(access) => is_made(context, access)?,
        // A key file that cannot be read now is no reason to keep the password back.
        Err(_) => page.is_file() && file.is_file(),
    };
    if !made {
        let access = access?;
        let run = Run::begin(context, "key-export", false)?;
        let mut vault = Vault::with(&run, access)?;
        let id = vault.init()?;
        ensure(context, vault.access(), &id)?;
    }
    Ok(KeyExport { repository: repository.location(), password, page, file })
}

fn seal(context: &Context, access: &RepositoryAccess, id: &str) -> Result<RecoveryKit, EngineError> {
    let failed = || EngineError::failed("kit", "the recovery kit could not be sealed");
    let salt: [u8; 16] = rand::random();
    let nonce: [u8; NONCE_LEN] = rand::random();
    let mut sealed = serde_json::to_vec(&secrets(access)).map_err(|_| failed())?;
    let tag = tag(&access.password, &sealed);
    let key = derived(&access.password, &salt, ROUNDS).ok_or_else(failed)?;
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
        .map_err(|_| failed())?;
    Ok(RecoveryKit {
        format: KIT_FORMAT,
        cluster: context.topology.name.clone(),
        domain: context.topology.domain.clone(),
        profile: context.topology.profile.name().into(),
        repository: access.repository.clone(),
        repository_id: id.into(),
        made: now_rfc3339(),
        version: env!("CARGO_PKG_VERSION").into(),
        salt: hex::encode(salt),
        rounds: ROUNDS,
        sealed: hex::encode([nonce.as_slice(), &sealed].concat()),
        tag,
    })
}

fn derived(password: &Secret, salt: &[u8], rounds: u32) -> Option<LessSafeKey> {
    let mut bytes = [0; 32];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        NonZeroU32::new(rounds)?,
        salt,
        password.expose().as_bytes(),
        &mut bytes,
    );
    let key = UnboundKey::new(&AES_256_GCM, &bytes).ok().map(LessSafeKey::new);
    bytes.zeroize();
    key
}

/// Reads a kit's file.
pub fn read_kit(path: &Path) -> Result<RecoveryKit, EngineError> {
    let wrong = |cause: String| {
        EngineError::usage("kit", format!("{}: {cause}", path.display()))
            .hint("name the file `recovery-kit.json` that was made with the first backup")
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let kit: RecoveryKit = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if kit.format == KIT_FORMAT { Ok(kit) } else { Err(wrong(format!("its format is {}", kit.format))) }
}

/// Opens what the kit's file carries sealed.
pub(super) fn open(kit: &RecoveryKit, password: &Secret) -> Result<KitSecrets, EngineError> {
    let wrong = || {
        EngineError::refused("kit", "the password does not open this recovery kit")
            .hint("it stands on the page of the same kit, after `password:`; 40 letters and digits")
    };
    let salt = hex::decode(&kit.salt).map_err(|_| wrong())?;
    let mut sealed = hex::decode(&kit.sealed).map_err(|_| wrong())?;
    if sealed.len() < NONCE_LEN || kit.rounds > 10_000_000 {
        return Err(wrong());
    }
    let mut content = sealed.split_off(NONCE_LEN);
    let nonce = Nonce::try_assume_unique_for_key(&sealed).map_err(|_| wrong())?;
    let key = derived(password, &salt, kit.rounds).ok_or_else(wrong)?;
    let opened = key.open_in_place(nonce, Aad::empty(), &mut content).map_err(|_| wrong())?;
    let secrets = serde_json::from_slice(opened).map_err(|_| wrong());
    content.zeroize();
    secrets
}
