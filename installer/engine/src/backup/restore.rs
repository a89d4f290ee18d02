//! `backup restore`: a set back onto its cluster.
//!
//! Steps: the set and its manifest; what would be overwritten, and the person's word for it; room; each part into a
//! place beside what serves, compared with the manifest by hash, rows and hash of each table; only then the services
//! stop, a safety set is made, the parts are put in place, each in one step; the services start; a message goes
//! through. What was there is kept until that message has arrived.
//!
//! A marker in the state folder says how far it went ([`marker`]): a run that was killed before the exchange begins anew
//! (nothing was overwritten), one that was killed in it goes on with what hosts still have ([`exchange`]), one that was
//! killed after it tidies up. A half-restored database is never in the place of one that a service would open.

mod exchange;
pub(super) mod marker;
mod serving;

pub(crate) use marker::{forget_restore, is_exchanging};

use super::receive::receive;
use super::relay::ask;
use super::sources::{Origin, database, origins};
use super::vault::{Vault, pick};
use crate::actions::status::require_installed;
use crate::context::Context;
use crate::error::EngineError;
use crate::events::{Timing, millis};
use crate::phases::connect;
use crate::run::{Run, Session};
use crate::state;
use exchange::{Exchange, Standing, discard, discard_received};
use marker::{Marker, Step};
use maxim_model::backup::wire::{BackupReply, BackupRequest};
use maxim_model::backup::{Part, PartKind, SetManifest};
use maxim_model::names::Role;
use maxim_model::wire::ServiceAction;
use serde::{Deserialize, Serialize};
use serving::Then;
use std::time::{Duration, Instant};

const EXCHANGE: Duration = Duration::from_mins(10);

/// What is restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Only {
    /// Database, files, and the console's data.
    #[default]
    All,
    /// The IM core's database.
    Database,
    /// Uploaded files.
    Files,
}

impl Only {
    /// Whether a part is of it.
    fn covers(self, kind: PartKind) -> bool {
        match self {
            Self::All => kind != PartKind::State,
            Self::Database => kind.is_database(),
            Self::Files => kind == PartKind::Files,
        }
    }
}

/// How to restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// The set; none: the newest.
    pub set: Option<String>,
    /// What of it.
    pub only: Only,
    /// What is there may be overwritten.
    pub overwrite: bool,
    /// Say what would be overwritten, change nothing.
    pub dry_run: bool,
    /// What is there is of no worth (it was installed a moment ago): no safety set.
    pub fresh: bool,
    /// What is there cannot be read, and goes without a safety set of it.
    pub without_safety_set: bool,
}

/// Something that a restore replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overwrite {
    /// Host.
    pub host: String,
    /// Part, as `database`.
    pub part: String,
    /// Bytes of it now.
    pub bytes: u64,
    /// Rows of it now, about; 0 when that is not known.
    pub rows: u64,
}

/// What a restore would do.
#[derive(Debug, Clone, Serialize)]
pub struct RestorePreview {
    /// The set.
    pub set: String,
    /// Its point, RFC 3339.
    pub point: String,
    /// Cluster that it was made of.
    pub cluster: String,
    /// What is there and would be replaced.
    pub overwrites: Vec<Overwrite>,
    /// Parts that would be put in place.
    pub parts: Vec<String>,
}

/// What a restore did.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreOutcome {
    /// What it was to do.
    pub preview: RestorePreview,
    /// False: a dry run, or the person said no.
    pub applied: bool,
    /// The set that was made of what was there before.
    pub safety_set: String,
    /// Tables and rows that were compared with the manifest.
    pub tables: usize,
    /// Rows of them.
    pub rows: u64,
    /// Milliseconds from the beginning to the message that went through.
    pub duration_ms: u64,
    /// Milliseconds of them in which the IM core did not serve.
    pub stopped_ms: u64,
    /// Phase by phase.
    #[serde(skip)]
    pub timings: Vec<Timing>,
}

struct Work<'r, 'a> {
    run: &'r Run<'a>,
    vault: Vault,
    manifest: SetManifest,
    targets: Vec<(Part, Origin)>,
}

impl Work<'_, '_> {
    fn is_target(&self, part: &str) -> bool {
        self.targets.iter().any(|(target, _)| target.name == part)
    }
}

/// Restores a set onto the hosts of the cluster.
pub fn restore(context: &Context, options: &RestoreOptions) -> Result<RestoreOutcome, EngineError> {
    restore_then(context, options, Then::Serve)
}

/// The same before an install, which starts and proves everything: nobody is served before whoever calls this has noted
/// that the data is there.
pub(crate) fn restore_before_install(
    context: &Context,
    options: &RestoreOptions,
) -> Result<RestoreOutcome, EngineError> {
    restore_then(context, options, Then::Install)
}

fn restore_then(
    context: &Context,
    options: &RestoreOptions,
    then: Then,
) -> Result<RestoreOutcome, EngineError> {
    require_installed(context, "restore")?;
    if !options.fresh {
        crate::replace::refuse_in_the_middle(&context.state, "restore")?;
    }
    let _control =
        if options.dry_run { None } else { Some(context.state.lock(&state::owner("backup restore"))?) };
    let run = Run::begin(context, "backup-restore", !options.dry_run)?;
    let mut sessions = connect::connect(&run)?;
    let done = (|| {
        if let Some(error) = connect::errors(&mut sessions) {
            return Err(error);
        }
        if !options.dry_run {
            connect::lock_hosts(&run, &mut sessions, "backup restore")?;
        }
        restore_on(&run, &mut sessions, options, then)
    })();
    connect::release(&mut sessions);
    done
}

fn restore_on(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    options: &RestoreOptions,
    then: Then,
) -> Result<RestoreOutcome, EngineError> {
    let context = run.context;
    let begun = Instant::now();
    let mut vault = Vault::open(run)?;
    let left = Marker::read(&context.state)?;
    let (wanted, only) = marker::asked_for(run, options, left.as_ref())?;
    let sets = vault.sets(!options.dry_run)?;
    let manifest = vault.manifest(run, pick(&sets, wanted.as_deref())?)?;
    fits(context, &manifest)?;
    let kept = left.as_ref().map(|marker| marker.kept.as_slice()).unwrap_or_default();
    let targets = targets(run, &manifest, only, kept)?;
    let mut work = Work { run, vault, manifest, targets };
    let at = left.as_ref().map(|marker| marker.step);
    let same = left.as_ref().is_some_and(|marker| marker.set == work.manifest.set);
    let begun_before = left.as_ref().is_some_and(Marker::is_exchanging);
    let beside = match &left {
        Some(left) if begun_before || left.leaves_before() => exchange::beside(&work, sessions)?,
        _ => Vec::new(),
    };
    let standing = match at {
        Some(Step::Done) if same => Standing::InPlace,
        _ if begun_before && same => exchange::standing(&work, &beside),
        _ => Standing::Anew,
    };
    if standing == Standing::Anew && !options.dry_run {
        // What a run that was killed has received takes up the room that is asked for now.
        discard_received(run, sessions)?;
    }
    let preview = preview(&mut work, sessions, standing == Standing::Anew)?;
    let mut outcome = RestoreOutcome {
        preview,
        applied: false,
        safety_set: left
            .as_ref()
            .filter(|_| same)
            .map(|marker| marker.safety_set.clone())
            .unwrap_or_default(),
        tables: 0,
        rows: 0,
        duration_ms: 0,
        stopped_ms: 0,
        timings: Vec::new(),
    };
    if options.dry_run {
        return Ok(outcome);
    }
    let mut marker = left.clone().unwrap_or_else(|| Marker::new(&work.manifest.set, Step::Waiting, only));
    if at == Some(Step::Done) && same {
        run.emitter.note(
            "",
            "restore",
            "it was complete but for what was kept of before; nothing else is done now, and the next restore begins anew",
        );
        tidy_up(&work, sessions, &marker);
        outcome.applied = true;
        outcome.timings = run.emitter.timings();
        return Ok(outcome);
    }
    if standing.is_untouched() {
        refuse_to_overwrite(options, &outcome.preview)?;
        if !options.fresh && !context.ask.approve_restore(&outcome.preview) {
            return Ok(outcome);
        }
    }
    if standing == Standing::Anew {
        marker = marker.followed_by(&work.manifest.set, only, options.without_safety_set, &beside);
        refuse_to_lose(&work, &marker)?;
    }
    marker.keeps_before |= options.without_safety_set;
    // Nothing of worth was there when a restore onto a new host began; since then people may have been served.
    let fresh = options.fresh && !(standing == Standing::Anew && begun_before);
    let safety = standing != Standing::InPlace
        && !fresh
        && !marker.keeps_before
        && !outcome.preview.overwrites.is_empty();
    if safety {
        // A run that was killed may have left a lock, which keeps the set from being made.
        work.vault.init()?;
    }
    let mut stopped = None;
    if standing == Standing::Anew {
        marker.write(&context.state)?;
        if options.fresh && only != Only::Files {
            // What was installed a moment ago has no accounts: it is not to refuse people while their data is on its way.
            stopped = Some(Instant::now());
            serving::act(run, sessions, &roles(&work), ServiceAction::Stop)?;
        }
        let received = run.emitter.phase("restore", || receive_all(&mut work, sessions, &mut outcome));
        if let Err(error) = received.and_then(|()| context.cancel.check("restore")) {
            discard(&work, sessions, false);
            marker.given_up(&context.state)?;
            return Err(error);
        }
    }
    let mut exchange = Exchange { work: &mut work, options, then, standing };
    let since = *stopped.get_or_insert_with(Instant::now);
    exchange.run(sessions, &mut marker, safety)?;
    outcome.safety_set.clone_from(&marker.safety_set);
    marker.went(&context.state, Step::Exchanged)?;
    serving::end(run, sessions, &roles(&work), then).map_err(|error| marker.with_the_way_back(error))?;
    outcome.stopped_ms = millis(since);
    // Before what was kept is removed: without it a run that goes on with the exchange would find neither.
    marker.went(&context.state, Step::Done)?;
    tidy_up(&work, sessions, &marker);
    outcome.applied = true;
    outcome.duration_ms = millis(begun);
    outcome.timings = run.emitter.timings();
    Ok(outcome)
}

/// What is there is overwritten only by who has said so.
fn refuse_to_overwrite(options: &RestoreOptions, preview: &RestorePreview) -> Result<(), EngineError> {
    if preview.overwrites.is_empty() || options.overwrite {
        return Ok(());
    }
    let hint = if options.without_safety_set {
        "say so with --overwrite; no safety set of what is there is made"
    } else {
        "say so with --overwrite; a safety set of what is there is made first"
    };
    Err(EngineError::refused("restore", format!("this would overwrite {}", in_words(&preview.overwrites)))
        .hint(hint))
}

/// What is in place since something was set aside is in no set, and there is one place beside it.
fn refuse_to_lose(work: &Work<'_, '_>, marker: &Marker) -> Result<(), EngineError> {
    let both = work.targets.iter().find(|(part, _)| marker.set_aside.contains(&part.name));
    match both {
        Some((part, origin)) if marker.keeps_before => Err(EngineError::refused(
            "restore",
            format!("a restore before has set aside part `{}`, which would be lost now", part.name),
        )
        .on(&origin.host)
        .hint(
            "run it without `--without-safety-set`; or move what was set aside away first (`….before-restore`, or the \
             database `maxim_before`)",
        )),
        _ => Ok(()),
    }
}

/// What is there, in words.
pub(super) fn in_words(overwrites: &[Overwrite]) -> String {
    let what: Vec<String> = overwrites
        .iter()
        .map(|one| {
            let rows = if one.rows > 0 { format!(", about {} rows", one.rows) } else { String::new() };
            format!("{} on {} ({} bytes{rows})", one.part, one.host, one.bytes)
        })
        .collect();
    what.join(", ")
}

/// The end of a restore that is proven.
fn tidy_up(work: &Work<'_, '_>, sessions: &mut [Session<'_>], marker: &Marker) {
    if marker.leaves_before() {
        work.run.emitter.note(
            "",
            "restore",
            "what was set aside stays beside what serves until the next restore",
        );
    } else {
        discard(work, sessions, true);
    }
    let state = &work.run.context.state;
    // When it stays, the next restore finds that there is nothing left to do.
    let _ = Marker::remove(state);
    if marker.rebuilding {
        let installed = state.installed().ok().flatten().unwrap_or_default();
        super::hand_over(work.run, sessions, &installed);
    }
}

/// Whether a newer version has made a set than the one that is to read it.
pub(super) fn is_newer(manifest: &SetManifest, version: &str) -> bool {
    match (semver::Version::parse(&manifest.version), semver::Version::parse(version)) {
        (Ok(theirs), Ok(ours)) => theirs > ours,
        _ => manifest.version != version,
    }
}

/// What to do about one.
pub(super) const NEWER: &str =
    "restore with that version or a newer one; an older one does not know what it would write";

/// Whether a set can be put onto this cluster.
pub(super) fn fits(context: &Context, manifest: &SetManifest) -> Result<(), EngineError> {
    let refuse = |cause: String, hint: &str| Err(EngineError::refused("restore", cause).hint(hint));
    let topology = &context.topology;
    let installed = context.state.installed()?.unwrap_or_default();
    let ours = installed.version;
    if is_newer(manifest, &ours) {
        return refuse(
            format!("set {} was made by version {}, and {ours} is installed", manifest.set, manifest.version),
            NEWER,
        );
    }
    if manifest.domain != topology.domain {
        return refuse(
            format!(
                "set {} is of the domain {}, and this cluster's is {}",
                manifest.set, manifest.domain, topology.domain
            ),
            "accounts end in their domain; install with the domain of the set",
        );
    }
    let (wanted, found) = (database(topology)?.kind, manifest.database().map(|part| part.kind));
    if found.is_some_and(|found| found != wanted) {
        return refuse(
            format!("set {} holds a database of another engine than this cluster runs", manifest.set),
            "install with the engine of the set; changing the engine is no restore",
        );
    }
    Ok(())
}

/// Parts of the set and where they belong; `kept` are left as they are.
fn targets(
    run: &Run<'_>,
    manifest: &SetManifest,
    only: Only,
    kept: &[String],
) -> Result<Vec<(Part, Origin)>, EngineError> {
    let origins = origins(&run.context.topology)?;
    for origin in origins.iter().filter(|origin| kept.iter().any(|name| name == origin.name)) {
        run.emitter.note(
            &origin.host,
            "restore",
            format!("{} is there still, and stays as it is", origin.name),
        );
    }
    let targets: Vec<(Part, Origin)> = manifest
        .parts
        .iter()
        .filter(|part| only.covers(part.kind) && !kept.contains(&part.name))
        .filter_map(|part| {
            let origin = origins.iter().find(|origin| origin.kind == part.kind)?;
            Some((part.clone(), origin.clone()))
        })
        .collect();
    if targets.is_empty() {
        return Err(EngineError::usage(
            "restore",
            format!("set {} holds nothing of what was asked for", manifest.set),
        )
        .hint("`maxim.ctl backup list` shows the sets; without --only everything is restored"));
    }
    Ok(targets)
}

fn session<'s, 'a>(sessions: &'s mut [Session<'a>], host: &str) -> Result<&'s mut Session<'a>, EngineError> {
    sessions
        .iter_mut()
        .find(|session| session.host.name == host)
        .ok_or_else(|| EngineError::failed("restore", "the host is not connected").on(host))
}

/// One request to the agent that holds a host's lock.
fn request(
    work: &Work<'_, '_>,
    sessions: &mut [Session<'_>],
    host: &str,
    request: BackupRequest,
) -> Result<Option<BackupReply>, EngineError> {
    work.run.context.cancel.check("restore")?;
    let session = session(sessions, host)?;
    // A dry run has no agent that may change things.
    let agent = match session.writer.as_mut() {
        Some(agent) => agent,
        None => session
            .reader
            .as_mut()
            .ok_or_else(|| EngineError::failed("restore", "the host is not connected").on(host))?,
    };
    ask(agent, "restore", request, EXCHANGE)
}

/// `room`: asks for it too. When a restore goes on with the exchange, what it brings is there already.
fn preview(
    work: &mut Work<'_, '_>,
    sessions: &mut [Session<'_>],
    room: bool,
) -> Result<RestorePreview, EngineError> {
    let mut overwrites = Vec::new();
    for (part, origin) in &work.targets {
        let measured =
            request(work, sessions, &origin.host, BackupRequest::Measure { source: origin.source.clone() })?;
        let Some(BackupReply::Measured { present, bytes, free, rows, .. }) = measured else { continue };
        // Beside what is there, with indexes and the engine's own log.
        let content = part.unpacked();
        let needed = content + content / 2 + (64 << 20);
        if room && free < needed {
            return Err(EngineError::failed(
                "restore",
                format!(
                    "part `{}` needs about {needed} bytes beside what is there, and {free} are free",
                    part.name
                ),
            )
            .on(&origin.host)
            .hint("free space there and run the command again; nothing was changed"));
        }
        if present {
            overwrites.push(Overwrite { host: origin.host.clone(), part: part.name.clone(), bytes, rows });
        }
    }
    Ok(RestorePreview {
        set: work.manifest.set.clone(),
        point: work.manifest.point.clone(),
        cluster: work.manifest.cluster.clone(),
        overwrites,
        parts: work.targets.iter().map(|(part, _)| part.name.clone()).collect(),
    })
}

fn receive_all(
    work: &mut Work<'_, '_>,
    sessions: &mut [Session<'_>],
    outcome: &mut RestoreOutcome,
) -> Result<(), EngineError> {
    for (part, origin) in work.targets.clone() {
        let session = session(sessions, &origin.host)?;
        receive(work.run, &mut work.vault, session, &part, &origin)?;
        outcome.tables += part.tables.len();
        outcome.rows += part.tables.iter().map(|table| table.rows).sum::<u64>();
    }
    Ok(())
}

/// Whose services have what is restored open.
fn roles(work: &Work<'_, '_>) -> Vec<Role> {
    let console = work.targets.iter().any(|(part, _)| part.kind == PartKind::ConsoleSqlite);
    [Role::Im].into_iter().chain(console.then_some(Role::Console)).collect()
}
