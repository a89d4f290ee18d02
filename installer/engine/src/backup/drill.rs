//! `backup drill`: proof that a set can be restored, by restoring it.
//!
//! Steps: the newest set into a scratch place (embedded: a folder; standard: a database beside the one that serves,
//! on a host with room), compared with the manifest; an IM core of its own is started on it and hands out the message
//! that was sent before the point; times and what would be lost are recorded; the scratch is removed. What serves is
//! not touched.

use super::receive::receive;
use super::relay::ask;
use super::sources::{Origin, database, owner};
use super::vault::{Vault, pick};
use super::{repository_host, tasks};
use crate::actions::status::require_installed;
use crate::authority::Authority;
use crate::context::Context;
use crate::error::EngineError;
use crate::events::millis;
use crate::phases::connect;
use crate::remote::{Agent, Mode};
use crate::run::{Run, Session};
use crate::state::{self, Installed};
use maxim_model::backup::manifest::PROVEN_TAG;
use maxim_model::backup::record::Drilled;
use maxim_model::backup::wire::{
    BackupReply, BackupRequest, DRILL, DrillRequest, DrillServer, DrillStore, Source,
};
use maxim_model::backup::{PartKind, SetManifest};
use maxim_model::names::Role;
use maxim_model::task::{AbsentTask, TaskKind};
use maxim_model::topology::{Host, Topology};
use serde::Serialize;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// Starting an IM core and signing in.
const SECONDS: u64 = 90;

/// What was proven.
#[derive(Debug, Clone, Serialize)]
pub struct DrillOutcome {
    /// The set.
    pub set: String,
    /// Milliseconds from the first byte to the message that was read.
    pub recovery_ms: u64,
    /// Milliseconds of them until the database was restored and compared.
    pub restore_ms: u64,
    /// Seconds between the point of the set and now: what would be lost.
    pub lost_seconds: i64,
    /// Tables compared.
    pub tables: usize,
    /// Rows compared.
    pub rows: u64,
}

/// Restores into scratch, starts, reads, cleans up.
pub fn drill(context: &Context, set: Option<&str>) -> Result<DrillOutcome, EngineError> {
    let installed = require_installed(context, "drill")?;
    let _control = context.state.lock(&state::owner("backup drill"))?;
    let run = Run::begin(context, "backup-drill", true)?;
    let mut sessions = connect::connect(&run)?;
    let drilled = (|| {
        if let Some(error) = connect::errors(&mut sessions) {
            return Err(error);
        }
        connect::lock_hosts(&run, &mut sessions, "backup drill")?;
        let mut vault = Vault::open(&run)?;
        let drilled = (|| {
            let sets = vault.sets(true)?;
            let stored = pick(&sets, set)?.clone();
            let manifest = vault.manifest(&run, &stored)?;
            let outcome = drill_on(&run, &mut sessions, &mut vault, &manifest, &installed)?;
            Ok::<_, EngineError>((stored, outcome))
        })();
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let ended = match &drilled {
            Ok((_, outcome)) => Ok(Drilled {
                set: outcome.set.clone(),
                at_unix: now,
                recovery_ms: outcome.recovery_ms,
                lost_seconds: outcome.lost_seconds,
                rows: outcome.rows,
            }),
            Err(error) => Err(format!("the drill failed: {}", error.cause)),
        };
        tasks::note(&run, vault.agent(), |record| record.drilled(ended, now));
        let (stored, outcome) = drilled?;
        vault.mark(&stored, PROVEN_TAG, now)?;
        Ok(outcome)
    })();
    connect::release(&mut sessions);
    drilled
}

fn drill_on(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    vault: &mut Vault,
    manifest: &SetManifest,
    installed: &Installed,
) -> Result<DrillOutcome, EngineError> {
    let begun = Instant::now();
    let topology = &run.context.topology;
    let part =
        manifest.database().ok_or_else(|| EngineError::refused("drill", "the set holds no database"))?;
    let mark = manifest.canary.as_ref().ok_or_else(|| {
        EngineError::refused(
            "drill",
            format!(
                "set {} holds no message that could be read: no IM core answered when it was made",
                manifest.set
            ),
        )
        .hint(
            "make a set while the IM core serves (`maxim.ctl backup create`); `maxim.ctl backup verify SET --deep` \
             compares one with its manifest",
        )
    })?;
    let mut origin = database(topology)?;
    if origin.kind != part.kind {
        return Err(EngineError::refused("drill", "the set is of another database engine"));
    }
    let folder = format!("{}/drill", topology.paths.data);
    // Names of its own: a restore that was killed may have left something under its own.
    match &mut origin.source {
        Source::Sqlite { path, .. } => *path = format!("{folder}/im.sqlite"),
        Source::Mariadb { database, .. } | Source::Postgresql { database, .. } => database.push_str(DRILL),
        Source::Tree { .. } => {}
    }
    let place = |sessions: &mut [Session<'_>], host: &str| {
        sessions
            .iter()
            .position(|session| session.host.name == host)
            .ok_or_else(|| EngineError::failed("drill", "the host is not connected").on(host))
    };
    let at = place(sessions, &origin.host)?;
    let im = im_host(topology)
        .ok_or_else(|| EngineError::usage("drill", "no host of this cluster runs the IM core"))?;
    let im = place(sessions, &im.name)?;
    // What a drill that was killed has left takes up the room that is asked for now.
    clean(run, sessions, at, im, &origin, &folder);
    let drilled = (|| {
        run.emitter.phase("restore", || room(&mut sessions[at], &origin, part.unpacked()))?;
        run.emitter.phase("restore", || receive(run, vault, &mut sessions[at], part, &origin))?;
        let restore_ms = millis(begun);
        if part.kind == PartKind::Sqlite {
            let commit = BackupRequest::Commit { source: origin.source.clone(), keep: false };
            ask(writer(&mut sessions[at])?, "drill", commit, Duration::from_mins(5))?;
        } else {
            let prepare = BackupRequest::Prepare { source: origin.source.clone() };
            ask(writer(&mut sessions[at])?, "drill", prepare, Duration::from_mins(5))?;
        }
        let request = DrillRequest {
            program: program(run, installed)?,
            folder: folder.clone(),
            store: store(topology, &origin, &sessions[im].host.name, &folder),
            domain: topology.domain.clone(),
            certificate: String::new(),
            key: maxim_model::Secret::default(),
            owner: owner(topology),
            receiver: mark.receiver.clone(),
            password: mark.password.clone(),
            body: mark.body.clone(),
            deadline_seconds: SECONDS,
        };
        run.emitter.phase("read", || start(run, &mut sessions[im], request))?;
        Ok::<_, EngineError>(restore_ms)
    })();
    clean(run, sessions, at, im, &origin, &folder);
    let restore_ms = drilled?;
    Ok(DrillOutcome {
        set: manifest.set.clone(),
        recovery_ms: millis(begun),
        restore_ms,
        lost_seconds: OffsetDateTime::now_utc().unix_timestamp() - manifest.point_unix,
        tables: part.tables.len(),
        rows: part.tables.iter().map(|table| table.rows).sum(),
    })
}

fn writer<'s>(session: &'s mut Session<'_>) -> Result<&'s mut Agent, EngineError> {
    let host = session.host.name.clone();
    session.writer.as_mut().ok_or_else(|| EngineError::failed("drill", "the host is not connected").on(host))
}

fn room(session: &mut Session<'_>, origin: &Origin, bytes: u64) -> Result<(), EngineError> {
    let measure = BackupRequest::Measure { source: origin.source.clone() };
    let measured = ask(writer(session)?, "drill", measure, Duration::from_mins(2))?;
    let needed = bytes + bytes / 2 + (64 << 20);
    match measured {
        Some(BackupReply::Measured { free, .. }) if free < needed => Err(EngineError::failed(
            "drill",
            format!("the scratch copy needs about {needed} bytes, and {free} are free"),
        )
        .on(&origin.host)
        .hint("free space there; nothing was changed")),
        _ => Ok(()),
    }
}

/// Path of the IM core's program on its hosts.
fn program(run: &Run<'_>, installed: &Installed) -> Result<String, EngineError> {
    let software = &run.context.topology.paths.software;
    installed
        .artefacts
        .get("im")
        .filter(|artefact| !artefact.is_empty())
        .map(|artefact| format!("{software}/bin/{artefact}/maxim-im"))
        .ok_or_else(|| EngineError::failed("drill", "which IM core is installed is not known"))
}

/// The host where an IM core is started on the copy: that of the repository when it has one, for whoever keeps the schedule
/// may start programs nowhere else.
fn im_host(topology: &Topology) -> Option<&Host> {
    let keeper = repository_host(topology).filter(|keeper| keeper.roles.contains(&Role::Im));
    keeper.or_else(|| topology.with_role(Role::Im).next())
}

/// Where the IM core of the drill, on the host `im`, finds what was restored.
fn store(topology: &Topology, origin: &Origin, im: &str, folder: &str) -> DrillStore {
    let local = im == origin.host;
    let configuration = &topology.paths.configuration;
    let server = |socket: &str, port: u16, database: &str| DrillServer {
        socket: local.then(|| socket.to_owned()),
        host: topology.host(&origin.host).filter(|_| !local).map(|host| host.address.clone()),
        ca_file: (!local).then(|| format!("{configuration}/im/ca.crt")),
        port,
        database: format!("{database}_restore"),
        user: "maxim".into(),
        password_file: format!("{configuration}/im/database-password"),
        connections: 4,
    };
    match &origin.source {
        Source::Mariadb { socket, database, .. } => {
            DrillStore::Mariadb(server(socket, topology.ports.mariadb, database))
        }
        Source::Postgresql { socket, database, .. } => {
            DrillStore::Postgresql(server(socket, topology.ports.postgresql, database))
        }
        _ => DrillStore::Sqlite { path: format!("{folder}/im.sqlite") },
    }
}

fn start(run: &Run<'_>, session: &mut Session<'_>, mut request: DrillRequest) -> Result<(), EngineError> {
    let topology = &run.context.topology;
    let mut authority = Authority::load(run.context.state.path(), &topology.name, OffsetDateTime::now_utc())?;
    let leaf = authority.leaf(&session.host.name, "drill", std::slice::from_ref(&topology.domain))?;
    request.certificate.clone_from(&leaf.certificate);
    request.key = leaf.key;
    let host = session.host.name.clone();
    let connected = session
        .connected
        .as_mut()
        .ok_or_else(|| EngineError::failed("drill", "the host is not connected").on(&host))?;
    let mut agent = connected.agent(Mode::Change)?;
    run.scope(&mut agent)?;
    let drilled = ask(&mut agent, "drill", BackupRequest::Drill(request), Duration::from_secs(SECONDS + 30))?;
    agent.finish(Duration::from_secs(5));
    match drilled {
        Some(BackupReply::Drilled { ready_ms, read_ms }) => {
            run.emitter.note(
                &host,
                "drill",
                format!("an IM core on the copy was ready after {ready_ms} ms; the message was read after {read_ms} ms"),
            );
            Ok(())
        }
        _ => Err(EngineError::failed("drill", "the agent did not say what came out").on(&host)),
    }
}

/// The scratch goes, whatever came out.
fn clean(run: &Run<'_>, sessions: &mut [Session<'_>], at: usize, im: usize, origin: &Origin, folder: &str) {
    // Whoever interrupts it wants nothing left behind either.
    let _held = run.context.cancel.hold();
    let discarded = writer(&mut sessions[at]).and_then(|agent| {
        let discard = BackupRequest::Discard { source: origin.source.clone(), before: true };
        ask(agent, "drill", discard, Duration::from_mins(10)).map(drop)
    });
    let removed = writer(&mut sessions[im]).and_then(|agent| {
        let absent = tasks::task("backup/drill", TaskKind::Absent(AbsentTask::Tree(folder.to_owned())));
        tasks::apply(run, agent, absent)
    });
    for error in [discarded.err(), removed.err()].into_iter().flatten() {
        run.emitter.warn(&error.host, "drill", error.cause, "the next drill removes what is left of it");
    }
}
