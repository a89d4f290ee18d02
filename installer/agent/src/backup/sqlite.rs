//! `SQLite` files: a copy by the backup API while others write, sums by table, and the exchange of the file.
//!
//! The copy is made within one read transaction, so it shows one moment however long it takes, and the writer is
//! never held up (write-ahead log). It lies in a private scratch folder; its size is checked before.

use super::stream::{self, Audible};
use super::sums::Sum;
use crate::error::{Failure, Result};
use crate::files::{Ownership, absolute, parent, remove_any, sync_folder};
use crate::link::raw::Channel;
use maxim_model::backup::TableSum;
use maxim_model::wire::Reply;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pages copied at a time.
const PAGES: i32 = 2048;
/// Rows read at a time.
const ROWS: u64 = 1024;
/// What a copy may need beyond the size of the file.
const MARGIN: u64 = 16 << 20;
/// What lies beside a database that is open: its log, and the index of that.
const LOGS: [&str; 2] = ["-wal", "-shm"];

fn wrong(path: &Path) -> impl Fn(rusqlite::Error) -> Failure {
    let path = path.to_path_buf();
    move |error| match error {
        rusqlite::Error::SqliteFailure(code, _) if code.code == rusqlite::ErrorCode::DiskFull => {
            Failure::file("write", &path)(std::io::Error::from(std::io::ErrorKind::StorageFull))
        }
        other => Failure::talk(path.display().to_string(), other),
    }
}

/// Beside what is replaced.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Where a received file lies until it is put in place.
fn received(path: &Path) -> PathBuf {
    beside(path, ".restoring")
}

/// Where the replaced file lies until it is discarded.
fn replaced(path: &Path) -> PathBuf {
    beside(path, ".before-restore")
}

/// Bytes of a database with its log; 0 when there is none.
pub fn size(path: &Path) -> u64 {
    let bytes = |file: &Path| fs::metadata(file).map(|found| found.len());
    // A log alone is no database.
    bytes(path).map_or(0, |size| size + bytes(&beside(path, "-wal")).unwrap_or(0))
}

/// What a copy needs, for a database of so many bytes.
pub const fn needed(bytes: u64) -> u64 {
    bytes + bytes / 20 + MARGIN
}

/// A copy, removed when it is dropped.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        for ending in ["", "-wal", "-shm", "-journal"] {
            remove_any(&beside(&self.0, ending));
        }
    }
}

/// Makes a consistent copy in the scratch folder; the moment it shows.
fn copy(path: &Path, scratch: &Path, goes_on: &mut dyn FnMut() -> Result<()>) -> Result<(Copy, i64)> {
    let bytes = size(path);
    if bytes == 0 {
        return Err(Failure::refused(
            format!("there is no database {}", path.display()),
            "is the deployment installed? `maxim.ctl status` tells",
        ));
    }
    super::private(scratch)?;
    // Left over from a run that was killed: runs take turns by the deployment's lock.
    for entry in fs::read_dir(scratch).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("copy-") {
            remove_any(&entry.path());
        }
    }
    let (free, needed) = (stream::free(scratch), needed(bytes));
    if free < needed {
        return Err(Failure::refused(
            format!(
                "{} has {free} bytes free, and the copy of the database needs {needed}",
                scratch.display()
            ),
            "free space there and run the command again; nothing was written",
        ));
    }
    let place = scratch.join(format!("copy-{:08x}.sqlite", rand::random::<u32>()));
    let failed = wrong(path);
    let source = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(&failed)?;
    source.busy_timeout(Duration::from_secs(10)).map_err(&failed)?;
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_master;").map_err(&failed)?;
    let point = stream::now_unix();
    let copy = Copy(place.clone());
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&place)
        .map_err(Failure::file("create", &place))?;
    let failed_copy = wrong(&place);
    let mut target = Connection::open(&place).map_err(&failed_copy)?;
    // A copy that is cut off is removed: it need not survive anything.
    target.execute_batch("PRAGMA synchronous = OFF;").map_err(&failed_copy)?;
    {
        let backup = Backup::new(&source, &mut target).map_err(&failed_copy)?;
        loop {
            goes_on()?;
            match backup.step(PAGES).map_err(&failed_copy)? {
                StepResult::Done => break,
                StepResult::More => {}
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
    source.execute_batch("COMMIT;").map_err(&failed)?;
    // One file, without a log beside it.
    target.pragma_update(None, "journal_mode", "DELETE").map_err(&failed_copy)?;
    Ok((copy, point))
}

/// Sums of all tables of a file that nobody writes.
fn sums(path: &Path, goes_on: &mut dyn FnMut() -> Result<()>) -> Result<Vec<TableSum>> {
    let failed = wrong(path);
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(&failed)?;
    let mut names = database
        .prepare(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
        )
        .map_err(&failed)?;
    let names: Vec<String> =
        names.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(&failed)?;
    let mut all = Vec::new();
    for name in names {
        let mut sum = Sum::new(&name);
        let quoted = name.replace('"', "\"\"");
        let mut statement = database.prepare(&format!("SELECT * FROM \"{quoted}\"")).map_err(&failed)?;
        let columns = statement.column_count();
        let mut rows = statement.query([]).map_err(&failed)?;
        let mut read = 0_u64;
        while let Some(row) = rows.next().map_err(&failed)? {
            if read.is_multiple_of(ROWS) {
                goes_on()?;
            }
            read += 1;
            let mut digest = Sha256::new();
            for column in 0..columns {
                let (kind, bytes): (u8, std::borrow::Cow<'_, [u8]>) =
                    match row.get_ref(column).map_err(&failed)? {
                        ValueRef::Null => (0, [].as_slice().into()),
                        ValueRef::Integer(value) => (1, value.to_be_bytes().to_vec().into()),
                        ValueRef::Real(value) => (2, value.to_bits().to_be_bytes().to_vec().into()),
                        ValueRef::Text(text) => (3, text.into()),
                        ValueRef::Blob(bytes) => (4, bytes.into()),
                    };
                digest.update([kind]);
                digest.update((bytes.len() as u64).to_be_bytes());
                digest.update(&bytes);
            }
            sum.add_digest(&digest.finalize().into());
        }
        all.push(sum.finish());
    }
    Ok(all)
}

fn version() -> String {
    rusqlite::version().to_owned()
}

/// A consistent copy and what is in it. Of a large database that takes longer than the engine waits for a stream in
/// silence, so it hears of it.
fn read(channel: &mut dyn Channel, path: &str, scratch: &str) -> Result<(Copy, Vec<TableSum>, i64)> {
    read_by(&mut Audible::new(channel), path, scratch)
}

fn read_by(audible: &mut Audible<'_>, path: &str, scratch: &str) -> Result<(Copy, Vec<TableSum>, i64)> {
    let (path, scratch) = (absolute(path)?, absolute(scratch)?);
    let (copy, point) = copy(&path, &scratch, &mut || audible.goes_on())?;
    let tables = sums(&copy.0, &mut || audible.goes_on())?;
    Ok((copy, tables, point))
}

/// Sends a consistent copy.
pub fn send(channel: &mut dyn Channel, path: &str, scratch: &str) -> Result<Reply> {
    let (copy, tables, point) = read(channel, path, scratch)?;
    let mut file = File::open(&copy.0).map_err(Failure::file("read", &copy.0))?;
    let bytes = stream::send(channel, &mut file, "the copy of the database")?;
    Ok(stream::sent(bytes, bytes, tables, version(), point))
}

/// Sums of the database at one moment.
pub fn sum(channel: &mut dyn Channel, path: &str, scratch: &str) -> Result<Reply> {
    let (_copy, tables, point) = read(channel, path, scratch)?;
    Ok(stream::sent(0, 0, tables, version(), point))
}

/// Takes a file beside the database, sees that it is sound, and says what is in it.
pub fn receive(channel: &mut dyn Channel, path: &str, owner: &str) -> Result<Reply> {
    let path = absolute(path)?;
    let place = received(&path);
    crate::files::make_parents(&path)?;
    for ending in ["", "-wal", "-shm", "-journal"] {
        remove_any(&beside(&place, ending));
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&place)
        .map_err(Failure::file("create", &place))?;
    let taken =
        stream::receive(channel, |bytes| file.write_all(bytes).map_err(Failure::file("write", &place)));
    let outcome = taken.and_then(|bytes| {
        file.sync_all().map_err(Failure::file("sync", &place))?;
        sound(&place)?;
        if !owner.is_empty() {
            Ownership::resolve(owner, owner, "0600")?.set(&place)?;
        }
        // Whoever waits for the end of a stream waits for hours.
        Ok((bytes, sums(&place, &mut || Ok(()))?))
    });
    match outcome {
        Ok((bytes, tables)) => Ok(stream::sent(bytes, bytes, tables, version(), 0)),
        Err(failure) => {
            remove_any(&place);
            Err(failure)
        }
    }
}

fn sound(path: &Path) -> Result<()> {
    let failed = wrong(path);
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(&failed)?;
    let said: String = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(&failed)?;
    if said == "ok" {
        return Ok(());
    }
    Err(Failure::Content {
        what: format!("the restored file is damaged: {said}"),
        hint: "verify the repository with `maxim.ctl backup verify` and restore an older set".into(),
    })
}

/// Whether something was received and is not in place yet, and whether what was there before is kept.
pub fn beside_it(path: &str) -> Result<(bool, bool)> {
    let path = absolute(path)?;
    Ok((received(&path).exists(), replaced(&path).exists()))
}

/// Puts the received file in the place of the database, which nobody may use now. The old file is kept beside it, or
/// what was kept before that when `keep` says so.
pub fn commit(path: &str, keep: bool) -> Result<()> {
    let path = absolute(path)?;
    let (new, old) = (received(&path), replaced(&path));
    if !new.exists() {
        // A run that was killed after this step goes on here.
        if path.exists() && old.exists() {
            return Ok(());
        }
        return Err(Failure::refused(
            format!("there is no restored file beside {}", path.display()),
            "run the restore again",
        ));
    }
    if !(keep && old.exists()) {
        set_aside(&path, &old)?;
    }
    // The log of another file would be played into this one.
    for ending in LOGS {
        remove_any(&beside(&path, ending));
    }
    fs::rename(&new, &path).map_err(Failure::file("rename into place", &path))?;
    sync_folder(parent(&path))
}

/// Keeps a database beside its place. A log that cannot be brought into its file goes with it, under the name where who
/// opens the file looks for it. Done again after a kill, it keeps what was kept.
fn set_aside(path: &Path, old: &Path) -> Result<()> {
    let (log, kept_log) = (beside(path, LOGS[0]), beside(old, LOGS[0]));
    if !path.exists() {
        // Of what is gone an empty file is kept: it says, if this is killed after the next step, that it was done.
        fs::write(old, []).map_err(Failure::file("write", old))?;
    } else if !is_same_file(path, old) {
        for ending in ["", "-wal", "-shm", "-journal"] {
            remove_any(&beside(old, ending));
        }
        fs::hard_link(path, old).map_err(Failure::file("keep", path))?;
    }
    if log.exists() {
        // By a name of its own first: SQLite removes a log that it takes for another file's.
        if !is_same_file(&log, &kept_log) {
            remove_any(&kept_log);
            fs::hard_link(&log, &kept_log).map_err(Failure::file("keep", &log))?;
        }
        if path.exists() && fold(path)? {
            remove_any(&kept_log);
        }
    }
    Ok(())
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::symlink_metadata(one), fs::symlink_metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Brings what stands in the log into the file, so that the file alone is all of it; false: that cannot be done.
fn fold(path: &Path) -> Result<bool> {
    let failed = wrong(path);
    let Ok(database) = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE) else {
        return Ok(false);
    };
    database.busy_timeout(Duration::from_secs(5)).map_err(&failed)?;
    let folded: rusqlite::Result<(i64, i64)> =
        database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok((row.get(0)?, row.get(1)?)));
    match folded {
        // Less than 0: SQLite has not looked at the log, as when the file is empty.
        Ok((0, pages)) => Ok(pages >= 0),
        Err(_) => Ok(false),
        Ok(_) => Err(Failure::refused(
            format!("{} is in use", path.display()),
            "stop the service that has it open; nothing was changed",
        )),
    }
}

/// Removes what was received; `before`: and what was kept.
pub fn discard(path: &str, before: bool) -> Result<()> {
    let path = absolute(path)?;
    for place in [Some(received(&path)), before.then(|| replaced(&path))].into_iter().flatten() {
        for ending in ["", "-wal", "-shm", "-journal"] {
            remove_any(&beside(&place, ending));
        }
    }
    Ok(())
}

/// Makes the accounts of canaries young in a scratch copy: an IM core removes old ones when it starts.
pub fn rejuvenate(path: &Path, now_millis: i64) -> Result<()> {
    let failed = wrong(path);
    let database = Connection::open(path).map_err(&failed)?;
    database
        .execute("UPDATE account SET created_at = ?1 WHERE kind = 'canary'", [now_millis])
        .map(drop)
        .map_err(&failed)
}

#[cfg(test)]
mod tests;
