//! `backup create`: one set, made while the IM core serves.
//!
//! Steps: the control host's lock; connect to all hosts, their locks; the repository (made, with its key and the
//! recovery kit, when it is new); a canary message that waits in the database; each part from its host into the
//! repository; the manifest; the canary is removed; the record. What fails before the manifest leaves no set.

use super::parts::{added_bytes, store_parts};
use super::relay::ask;
use super::restore::marker::refuse_while_rebuilding;
use super::vault::{PASSWORD, Vault, access, repository};
use super::{hand_over, kit, tasks};
use crate::actions::status::require_installed;
use crate::authority::Authority;
use crate::context::Context;
use crate::error::EngineError;
use crate::events::{Timing, millis};
use crate::phases::connect;
use crate::phases::verify::{admin, connect_address, with_port};
use crate::render::context::read_pem;
use crate::run::{Run, Session};
use crate::secrets::Secrets;
use crate::state;
use im_admin_api::{CanaryCreated, Empty, SweepCanaries, paths};
use maxim_model::Secret;
use maxim_model::backup::manifest::{CanaryMark, SET_FORMAT};
use maxim_model::backup::record::Done;
use maxim_model::backup::wire::{BackupRequest, CanaryMail};
use maxim_model::backup::{Part, Repository, SetKind, SetManifest};
use maxim_model::names::Role;
use maxim_model::topology::Tls;
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// Sign-in, a message, and its storing.
const CANARY_SECONDS: u64 = 20;
/// Canaries of runs that were killed are older than this.
const STALE_SECONDS: u64 = 3600;

/// What was made.
#[derive(Debug, Clone, Serialize)]
pub struct CreateOutcome {
    /// The manifest.
    pub manifest: SetManifest,
    /// Bytes that the repository grew by.
    pub added: u64,
    /// Milliseconds.
    pub duration_ms: u64,
    /// Page and file of the recovery kit, when they were made now.
    pub kit: Option<(PathBuf, PathBuf)>,
    /// Phase by phase.
    #[serde(skip)]
    pub timings: Vec<Timing>,
}

/// Makes a set.
pub fn create(context: &Context, kind: SetKind) -> Result<CreateOutcome, EngineError> {
    require_installed(context, "backup create")?;
    // A set of the empty database would be the newest.
    crate::replace::refuse_in_the_middle(&context.state, "backup create")?;
    refuse_while_rebuilding(&context.state, "backup create")?;
    let repository = repository(context)?;
    let _control = context.state.lock(&state::owner("backup create"))?;
    let run = Run::begin(context, "backup-create", true)?;
    let mut secrets = Secrets::load(&context.state.file("secrets.json"))?;
    let password = secrets.get_or_make(PASSWORD);
    // Kept before the repository exists: a key that is lost opens nothing.
    secrets.save()?;
    let mut sessions = connect::connect(&run)?;
    let made = (|| {
        if let Some(error) = connect::errors(&mut sessions) {
            return Err(error);
        }
        connect::lock_hosts(&run, &mut sessions, "backup create")?;
        state::copy::publish(&run, &mut sessions)?;
        let mut vault = Vault::with(&run, access(context, repository, password)?)?;
        let id = vault.init()?;
        // On the host that was handed the cluster's state the kit has no place: its page opens everything.
        let handed = context.state.file(hand_over::PACKED).is_file();
        let kit = if handed { None } else { kit::ensure(context, vault.access(), &id)? };
        let access = vault.access();
        if kit.is_some() && matches!(access.repository, Repository::Sftp { .. }) && access.ssh_key.is_empty()
        {
            run.emitter.warn(
                &vault.host(),
                "backup/kit",
                "the recovery kit holds no key that opens the repository's host: the one in use is this host's own",
                "name one with `maxim.ctl config set backup.repository` (`key`), so that the kit carries it",
            );
        }
        let mut outcome = create_in(&run, &mut sessions, &mut vault, kind)?;
        outcome.kit = kit;
        Ok(outcome)
    })();
    connect::release(&mut sessions);
    made
}

/// Makes a set in an opened repository, with hosts that are locked. Used for safety sets too.
pub(super) fn create_in(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    vault: &mut Vault,
    kind: SetKind,
) -> Result<CreateOutcome, EngineError> {
    let begun = Instant::now();
    let made = make(run, sessions, vault, kind);
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let ended = match &made {
        // A safety set is kept for days only: a scheduled set that is owed is owed all the same.
        Ok(_) if kind == SetKind::Safety => Ok(None),
        Ok((manifest, added)) => Ok(Some(Done {
            set: manifest.set.clone(),
            at_unix: now,
            duration_ms: millis(begun),
            bytes: manifest.bytes(),
            added: *added,
        })),
        Err(error) => Err(format!("the backup failed: {}", error.cause)),
    };
    tasks::note(run, vault.agent(), |record| record.backed_up(ended, now));
    let (manifest, added) = made?;
    Ok(CreateOutcome {
        manifest,
        added,
        duration_ms: millis(begun),
        kit: None,
        timings: run.emitter.timings(),
    })
}

fn make(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    vault: &mut Vault,
    kind: SetKind,
) -> Result<(SetManifest, u64), EngineError> {
    let context = run.context;
    let set = set_name();
    let installed = context.state.installed()?.unwrap_or_default();
    let canary = if kind == SetKind::Safety { None } else { leave_canary(run, sessions) };
    let mark = canary.as_ref().map(|(mark, _)| mark.clone());
    let made = run.emitter.phase("backup", || {
        let stored = store_parts(run, sessions, vault, &set, kind)?;
        let database = stored.iter().find(|(part, ended)| part.kind.is_database() && ended.point_unix > 0);
        let point_unix = database
            .map_or_else(|| OffsetDateTime::now_utc().unix_timestamp(), |(_, ended)| ended.point_unix);
        let added: u64 = stored.iter().map(|(_, ended)| added_bytes(ended)).sum();
        let parts: Vec<Part> = stored.into_iter().map(|(part, _)| part).collect();
        let point = OffsetDateTime::from_unix_timestamp(point_unix)
            .ok()
            .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
            .unwrap_or_default();
        let manifest = SetManifest {
            format: SET_FORMAT,
            set: set.clone(),
            cluster: context.topology.name.clone(),
            domain: context.topology.domain.clone(),
            profile: context.topology.profile.name().into(),
            kind,
            point,
            point_unix,
            // What made the data, which may be newer than the program that runs.
            version: installed.version.clone(),
            components: installed.versions.clone(),
            parts,
            canary: mark,
        };
        context.cancel.check("backup")?;
        let ended = vault.store_manifest(&manifest)?;
        Ok((manifest, added + added_bytes(&ended)))
    });
    if let Some((_, addresses)) = canary {
        sweep_canary(run, sessions, addresses);
    }
    made
}

/// An identifier that sorts by time.
fn set_name() -> String {
    let now = OffsetDateTime::now_utc();
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z-{:06x}",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second(),
        rand::random::<u32>() & 0x00ff_ffff
    )
}

/// Two hidden accounts, one of which has a message waiting when the point is taken. Without an IM core that answers
/// there is none: a backup is wanted then all the more.
fn leave_canary(run: &Run<'_>, sessions: &mut [Session<'_>]) -> Option<(CanaryMark, Vec<String>)> {
    let topology = &run.context.topology;
    let session = sessions.iter_mut().find(|session| session.host.roles.contains(&Role::Im))?;
    let address = with_port(&connect_address(topology, session.host), topology.ports.xmpp);
    let host = session.host.name.clone();
    let agent = session.writer.as_mut()?;
    let left = (|| {
        let authority = Authority::load(run.context.state.path(), &topology.name, OffsetDateTime::now_utc())?;
        let created: CanaryCreated = admin(agent, topology, "backup/canary", paths::CANARY_CREATE, &Empty {})
            .map_err(|error| error.into_engine("backup/canary", &host))?;
        let addresses: Vec<String> = created.accounts.iter().map(|account| account.address.clone()).collect();
        let [sender, receiver] = &created.accounts;
        let local = |address: &str| address.split('@').next().unwrap_or_default().to_owned();
        let mark = CanaryMark {
            receiver: local(&receiver.address),
            password: Secret::new(receiver.password.expose()),
            body: format!("backup {:032x}", rand::random::<u128>()),
        };
        let (ca_certificate, pinned_certificate) = match &topology.tls {
            Tls::PrivateCa => (authority.certificate().to_owned(), String::new()),
            Tls::Files { cert, .. } => (String::new(), read_pem(cert)?),
        };
        let mail = CanaryMail {
            domain: topology.domain.clone(),
            address,
            account: local(&sender.address),
            password: Secret::new(sender.password.expose()),
            to: mark.receiver.clone(),
            body: mark.body.clone(),
            ca_certificate,
            pinned_certificate,
            deadline_seconds: CANARY_SECONDS,
        };
        let sent = ask(
            agent,
            "backup/canary",
            BackupRequest::Canary(mail),
            Duration::from_secs(CANARY_SECONDS + 10),
        );
        Ok::<_, EngineError>((mark, addresses, sent))
    })();
    match left {
        Ok((mark, addresses, Ok(_))) => Some((mark, addresses)),
        Ok((_, addresses, Err(error))) => {
            without_canary(run, &host, error);
            sweep_canary(run, sessions, addresses);
            None
        }
        Err(error) => {
            without_canary(run, &host, error);
            None
        }
    }
}

fn without_canary(run: &Run<'_>, host: &str, error: EngineError) {
    run.emitter.warn(
        host,
        "backup/canary",
        format!("no message could be left for a drill to find: {}", error.cause),
        "the set is made all the same; a drill of it is refused, for there is nothing to read",
    );
}

fn sweep_canary(run: &Run<'_>, sessions: &mut [Session<'_>], addresses: Vec<String>) {
    let topology = &run.context.topology;
    let Some(session) = sessions.iter_mut().find(|session| session.host.roles.contains(&Role::Im)) else {
        return;
    };
    let Some(agent) = session.writer.as_mut() else { return };
    let sweep = SweepCanaries { older_than_seconds: STALE_SECONDS, addresses };
    let swept: Result<im_admin_api::CanarySwept, _> =
        admin(agent, topology, "backup/canary", paths::CANARY_SWEEP, &sweep);
    if swept.is_err() {
        run.emitter.warn(
            &session.host.name,
            "backup/canary",
            "the canary accounts were not removed",
            "the IM core removes them by itself",
        );
    }
}
