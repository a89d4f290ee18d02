//! Backups on a host: streams out of databases and folders and into them, and restic where the repository is.
//!
//! [`answer`] takes the requests of `maxim_model::backup::wire`. Streams go through in memory of one frame, dumps in that
//! of some megabytes (see `pump`). Nothing is put in the place of what serves by the request that receives it: that is a
//! request of its own, of one step.

mod aside;
mod at_work;
mod child;
mod cut;
mod drill;
mod feed;
mod loading;
mod memo;
mod near;
mod opening;
mod own;
mod pack;
mod program;
mod pump;
mod queue;
mod restic;
mod server;
mod sqlite;
mod storing;
mod stream;
mod sums;
mod tree;

pub use feed::feed;

use crate::canary;
use crate::error::{Failure, Result};
use crate::files::{Ownership, absolute};
use crate::link::raw::Channel;
use crate::scope::Scope;
use maxim_model::backup::wire::{BackupReply, BackupRequest, Source};
use maxim_model::task::SqlEngine;
use maxim_model::wire::Reply;
use own::{Known, Noting};
use server::Database;
use std::path::Path;

/// Answers one request; the final `Done` or `Error` is the caller's.
pub fn answer(request: BackupRequest, scope: &Scope, channel: &mut dyn Channel) -> Result<()> {
    match request {
        BackupRequest::Restic { access, command } => restic::answer(channel, &access, &command),
        BackupRequest::Canary(mail) => {
            let took_ms = canary::mail(&mail)?;
            channel.reply(&Reply::Backup(BackupReply::Read { took_ms }))
        }
        BackupRequest::Drill(request) => {
            owned(scope, &request.folder)?;
            let reply = drill::drill(&request)?;
            channel.reply(&reply)
        }
        BackupRequest::Measure { source } => {
            let reply = measure(scope, &source)?;
            channel.reply(&reply)
        }
        BackupRequest::Send { source } => {
            child::go_behind();
            let reply = send_noted(scope, &source, channel)?;
            channel.reply(&reply)
        }
        BackupRequest::Store { source, access, file, tags, host } => {
            child::go_behind();
            let names = storing::Names { file: &file, tags: &tags, host: &host };
            near::store(channel, &access, &names, |outlet| send(scope, &source, outlet))
        }
        BackupRequest::Load { source, access, snapshot, file, bytes, sha256 } => {
            let wanted = near::Wanted { snapshot, file, bytes, sha256 };
            let reply = near::load(channel, &access, wanted, |inlet| receive(scope, &source, inlet))?;
            channel.reply(&reply)
        }
        BackupRequest::Sum { source } => {
            let reply = match &source {
                Source::Sqlite { path, scratch, .. } => {
                    owned(scope, path)?;
                    owned(scope, scratch)?;
                    sqlite::sum(channel, path, scratch)?
                }
                source => database(source)?.sum()?,
            };
            channel.reply(&reply)
        }
        BackupRequest::Receive { source, only_own } => {
            let reply = if only_own {
                let own = Known::read(notes(scope, &source)?);
                database(&source)?.receive(channel, Some(own))?
            } else {
                receive(scope, &source, channel)?
            };
            channel.reply(&reply)
        }
        BackupRequest::Commit { source, keep } => match &source {
            Source::Sqlite { path, .. } => {
                owned(scope, path)?;
                sqlite::commit(path, keep)
            }
            Source::Tree { path, .. } => {
                owned(scope, path)?;
                tree::commit(path, keep)
            }
            source => database(source)?.commit(keep),
        },
        BackupRequest::Beside { source } => {
            let reply = beside(scope, &source)?;
            channel.reply(&reply)
        }
        BackupRequest::Prepare { source } => database(&source)?.prepare(),
        BackupRequest::Discard { source, before } => match &source {
            Source::Sqlite { path, .. } => {
                owned(scope, path)?;
                sqlite::discard(path, before)
            }
            Source::Tree { path, .. } => {
                owned(scope, path)?;
                tree::discard(path, before)
            }
            source => database(source)?.discard(before),
        },
    }
}

fn send(scope: &Scope, source: &Source, channel: &mut dyn Channel) -> Result<Reply> {
    match source {
        Source::Sqlite { path, scratch, .. } => {
            owned(scope, path)?;
            owned(scope, scratch)?;
            sqlite::send(channel, path, scratch)
        }
        Source::Tree { path, .. } => {
            owned(scope, path)?;
            tree::send(channel, path)
        }
        source => database(source)?.send(channel),
    }
}

/// The same towards another host. What this one has dumped is noted: it may be asked to load that again. Beside the
/// repository it takes what it loads from there itself.
fn send_noted(scope: &Scope, source: &Source, channel: &mut dyn Channel) -> Result<Reply> {
    if matches!(source, Source::Sqlite { .. } | Source::Tree { .. }) {
        return send(scope, source, channel);
    }
    let notes = notes(scope, source)?;
    let mut noting = Noting::new(channel);
    let reply = send(scope, source, &mut noting)?;
    // A dump that could not be noted is a dump: no drill by the schedule takes it, and that one says so.
    let _ = noting.keep(notes);
    Ok(reply)
}

fn receive(scope: &Scope, source: &Source, channel: &mut dyn Channel) -> Result<Reply> {
    match source {
        Source::Sqlite { path, owner, .. } => {
            owned(scope, path)?;
            sqlite::receive(channel, path, owner)
        }
        Source::Tree { path, owner } => {
            owned(scope, path)?;
            tree::receive(channel, path, owner)
        }
        source => database(source)?.receive(channel, None),
    }
}

fn database(source: &Source) -> Result<Database> {
    match source {
        Source::Mariadb { service, socket, database, .. } => {
            Database::new(SqlEngine::Mariadb, service, socket, database)
        }
        Source::Postgresql { service, socket, database, .. } => {
            Database::new(SqlEngine::Postgresql, service, socket, database)
        }
        _ => Err(no_server()),
    }
}

fn no_server() -> Failure {
    Failure::Invalid("this is no database of a server".into())
}

/// The folder where what is dumped of a server is noted.
fn notes<'a>(scope: &Scope, source: &'a Source) -> Result<&'a Path> {
    match source {
        Source::Mariadb { notes, .. } | Source::Postgresql { notes, .. } => {
            owned(scope, notes)?;
            Ok(Path::new(notes))
        }
        _ => Err(no_server()),
    }
}

fn measure(scope: &Scope, source: &Source) -> Result<Reply> {
    let measured = |present, bytes, needed, folder: &Path| {
        let free = stream::free(folder);
        Reply::Backup(BackupReply::Measured { present, bytes, needed, free, rows: 0 })
    };
    match source {
        Source::Sqlite { path, scratch, .. } => {
            owned(scope, path)?;
            let bytes = sqlite::size(Path::new(path));
            Ok(measured(bytes > 0, bytes, sqlite::needed(bytes), Path::new(scratch)))
        }
        Source::Tree { path, .. } => {
            owned(scope, path)?;
            let folder = Path::new(path);
            // One that cannot be looked at is not an absent one.
            let present = folder.try_exists().map_err(Failure::file("read", folder))?;
            let bytes = tree::size(folder)?;
            Ok(measured(present, bytes, bytes, folder))
        }
        source => database(source)?.measure(),
    }
}

/// What lies beside a target.
fn beside(scope: &Scope, source: &Source) -> Result<Reply> {
    let (received, kept) = match source {
        Source::Sqlite { path, .. } => {
            owned(scope, path)?;
            sqlite::beside_it(path)?
        }
        Source::Tree { path, .. } => {
            owned(scope, path)?;
            tree::beside_it(path)?
        }
        source => database(source)?.beside_it()?,
    };
    Ok(Reply::Backup(BackupReply::Beside { received, kept }))
}

/// Refuses what does not lie in a folder of ours.
fn owned(scope: &Scope, path: &str) -> Result<()> {
    let found = absolute(path)?;
    if scope.owns(&found) {
        return Ok(());
    }
    Err(Failure::refused(
        format!("{path} does not lie in a folder of this deployment"),
        "this is an error in the engine, please report it; nothing was changed",
    ))
}

/// Makes a folder that only we can read.
fn private(folder: &Path) -> Result<()> {
    crate::files::make_parents(folder)?;
    match std::fs::create_dir(folder) {
        Ok(()) => Ownership::mode(0o700).set(folder),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Failure::file("create the folder", folder)(error)),
    }
}
