//! Copies of files that are written to, and their exchange.

use super::{Audible, beside, commit, read_by, received};
use crate::error::{Failure, Result};
use crate::link::Link;
use maxim_model::backup::TableSum;
use rusqlite::Connection;
use std::fs;

fn sums(path: &std::path::Path) -> Result<Vec<TableSum>> {
    super::sums(path, &mut || Ok(()))
}

fn copy(path: &std::path::Path, scratch: &std::path::Path) -> Result<(super::Copy, i64)> {
    super::copy(path, scratch, &mut || Ok(()))
}

fn database(path: &std::path::Path, rows: i64) -> Connection {
    let database = Connection::open(path).unwrap();
    database
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, x BLOB);",
        )
        .unwrap();
    for id in 0..rows {
        database.execute("INSERT OR REPLACE INTO t VALUES (?1, zeroblob(?1))", [id]).unwrap();
    }
    database
}

#[test]
fn a_copy_shows_one_moment_while_others_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("im.sqlite");
    let writer = database(&path, 2000);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, path) = (&stop, &path);
        scope.spawn(move || {
            let mut id = 10_000;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                // Two rows in one transaction: a copy has both or none.
                writer
                    .execute_batch(&format!(
                        "BEGIN; INSERT INTO t VALUES ({id}, 'a'); INSERT INTO t VALUES ({}, 'b'); COMMIT;",
                        id + 1
                    ))
                    .unwrap();
                id += 2;
            }
        });
        for _ in 0..5 {
            let (copied, _) = copy(path, &folder.path().join("scratch")).unwrap();
            let found = sums(&copied.0).unwrap();
            assert!(found[0].rows >= 2000 && found[0].rows.is_multiple_of(2), "{found:?}");
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert_eq!(fs::read_dir(folder.path().join("scratch")).unwrap().count(), 0, "copies are removed");
}

#[test]
fn the_file_is_exchanged_in_one_step_and_again_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("im.sqlite");
    drop(database(&path, 3));
    let new = folder.path().join("new.sqlite");
    drop(database(&new, 9));
    let wanted = sums(&new).unwrap();
    fs::rename(&new, received(&path)).unwrap();
    commit(path.to_str().unwrap(), false).unwrap();
    assert_eq!(sums(&path).unwrap(), wanted);
    assert_eq!(sums(&beside(&path, ".before-restore")).unwrap()[0].rows, 3);
    commit(path.to_str().unwrap(), false).unwrap();
    super::discard(path.to_str().unwrap(), false).unwrap();
    assert!(beside(&path, ".before-restore").exists());
    super::discard(path.to_str().unwrap(), true).unwrap();
    assert!(commit(path.to_str().unwrap(), false).is_err(), "nothing was received");
}

/// Nothing is kept of a file that is gone; a log that stayed is another file's, and is not played into what was
/// restored.
#[test]
fn a_file_that_is_gone_is_put_back_as_it_was_in_the_set() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("im.sqlite");
    let lost = database(&path, 3);
    lost.pragma_update(None, "journal_mode", "wal").unwrap();
    lost.execute_batch("PRAGMA wal_autocheckpoint = 0; CREATE TABLE late (x); INSERT INTO late VALUES (1);")
        .unwrap();
    let log = fs::read(beside(&path, "-wal")).unwrap();
    drop(lost);
    fs::write(beside(&path, "-wal"), log).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(super::size(&path), 0, "a log alone is no database");
    let new = folder.path().join("new.sqlite");
    drop(database(&new, 9));
    let wanted = sums(&new).unwrap();
    fs::rename(&new, received(&path)).unwrap();
    for _ in 0..2 {
        commit(path.to_str().unwrap(), false).unwrap();
        assert_eq!(sums(&path).unwrap(), wanted);
    }
    super::discard(path.to_str().unwrap(), true).unwrap();
    assert!(!beside(&path, ".before-restore").exists());
}

/// What cannot be read any more is kept as it is, with its log, also when the exchange is begun twice; and it stays
/// kept while another set takes the place of the one that did not help.
#[test]
fn what_is_damaged_is_kept_with_its_log_until_a_set_has_helped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("im.sqlite");
    let (old, named) = (beside(&path, ".before-restore"), path.to_str().unwrap());
    let read = |path: &std::path::Path| fs::read_to_string(path).unwrap();
    let receive = |rows| {
        let new = folder.path().join("new.sqlite");
        drop(database(&new, rows));
        fs::rename(&new, received(&path)).unwrap();
    };
    fs::write(&old, "of an earlier restore").unwrap();
    fs::write(beside(&old, "-wal"), "its log").unwrap();
    fs::write(&path, "noise").unwrap();
    fs::write(beside(&path, "-wal"), "what was acknowledged last").unwrap();
    assert_eq!(super::beside_it(named).unwrap(), (false, true));
    receive(9);
    assert_eq!(super::beside_it(named).unwrap(), (true, true));
    // Killed before the received file went into place.
    super::set_aside(&path, &old).unwrap();
    commit(named, false).unwrap();
    assert_eq!(super::beside_it(named).unwrap(), (false, true));
    let kept = || (read(&old), read(&beside(&old, "-wal")));
    assert_eq!(kept(), ("noise".into(), "what was acknowledged last".into()));
    assert_eq!(sums(&path).unwrap()[0].rows, 9);
    receive(5);
    commit(named, true).unwrap();
    assert_eq!(sums(&path).unwrap()[0].rows, 5);
    assert_eq!(kept(), ("noise".into(), "what was acknowledged last".into()));
    // Another restore, once one has helped.
    receive(7);
    commit(named, false).unwrap();
    assert!(!beside(&old, "-wal").exists(), "the log of another file");
    assert_eq!(sums(&old).unwrap()[0].rows, 5);
}

#[test]
fn rows_that_differ_in_type_only_differ() {
    let folder = tempfile::tempdir().unwrap();
    let one = |name: &str, value: &str| {
        let path = folder.path().join(name);
        Connection::open(&path)
            .unwrap()
            .execute_batch(&format!("CREATE TABLE t (x); INSERT INTO t VALUES ({value});"))
            .unwrap();
        sums(&path).unwrap()[0].hash.clone()
    };
    let hashes = [one("a", "1"), one("b", "'1'"), one("c", "x'31'"), one("d", "NULL"), one("e", "''")];
    for (place, hash) in hashes.iter().enumerate() {
        assert_eq!(hashes.iter().position(|other| other == hash), Some(place));
    }
}

#[test]
fn whoever_waits_hears_that_a_copy_is_made_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("im.sqlite");
    drop(database(&path, 5000));
    let scratch = folder.path().join("scratch");
    let (path, scratch) = (path.to_str().unwrap(), scratch.to_str().unwrap());
    let mut output = Vec::new();
    let mut link = Link::new(&b""[..], &mut output);
    let (copy, tables, _) = read_by(&mut Audible::always(&mut link), path, scratch).unwrap();
    assert_eq!(tables[0].rows, 5000);
    drop((copy, link));
    let said = String::from_utf8(output).unwrap();
    // Twice at least while it is copied, and five times while five thousand rows are read.
    assert!(said.lines().count() >= 7, "{said}");
    assert!(said.lines().all(|line| line.contains("passed")), "{said}");
    // In a run that takes no time nothing is said.
    let mut output = Vec::new();
    drop(super::read(&mut Link::new(&b""[..], &mut output), path, scratch).unwrap());
    assert!(output.is_empty());
}

#[test]
fn a_copy_that_nobody_waits_for_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (path, scratch) = (folder.path().join("im.sqlite"), folder.path().join("scratch"));
    drop(database(&path, 6000));
    let mut calls = 0;
    let mut gone = || {
        calls += 1;
        if calls > 1 { Err(Failure::Wire("the engine has gone".into())) } else { Ok(()) }
    };
    assert!(super::copy(&path, &scratch, &mut gone).is_err());
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "nothing of it is left");
}
