//! Honest archives come out as they were; hostile ones leave nothing outside of the folder.

use super::{stays, unpack};
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// Name, kind, link and content of a member.
type Member<'a> = (&'a str, EntryType, &'a str, &'a [u8]);

/// Builds an archive; names are written into the raw header, because the builder refuses hostile ones.
fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap());
    for (name, kind, link, content) in members {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(if *kind == EntryType::Directory { 0o750 } else { 0o4755 });
        header.set_uid(nix::unistd::geteuid().as_raw().into());
        header.set_gid(nix::unistd::getegid().as_raw().into());
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn run(bytes: &[u8], promised: u64) -> (tempfile::TempDir, crate::Result<()>) {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("scratch");
    fs::create_dir(&folder).unwrap();
    let outcome = unpack(&mut Cursor::new(bytes), &folder, Path::new("/opt/maxim/images/x"), promised);
    (outer, outcome)
}

#[test]
fn an_honest_archive_comes_out_whole() {
    let bytes = archive(&[
        ("./", EntryType::Directory, "", b""),
        ("usr/", EntryType::Directory, "", b""),
        ("usr/bin/tool", EntryType::Regular, "", b"tool"),
        ("bin", EntryType::Symlink, "usr/bin", b""),
        ("usr/lib/up", EntryType::Symlink, "../bin/tool", b""),
        ("usr/bin/alias", EntryType::Link, "usr/bin/tool", b""),
        ("dev/null", EntryType::Char, "", b""),
    ]);
    let (outer, outcome) = run(&bytes, 4);
    outcome.unwrap();
    let root = outer.path().join("scratch");
    assert_eq!(fs::read(root.join("bin/alias")).unwrap(), b"tool");
    assert_eq!(fs::read(root.join("usr/lib/up")).unwrap(), b"tool");
    let tool = fs::metadata(root.join("usr/bin/tool")).unwrap();
    assert_eq!((tool.permissions().mode() & 0o7777, tool.nlink()), (0o755, 2), "set-id bits are dropped");
    assert_eq!(fs::metadata(root.join("usr")).unwrap().permissions().mode() & 0o7777, 0o750);
    assert!(!root.join("dev/null").exists());
}

#[test]
fn hostile_members_are_refused() {
    let regular = EntryType::Regular;
    let large = vec![0; 3 << 20];
    let hostile: &[(&str, &[Member<'_>])] = &[
        ("leads out", &[("../escape", regular, "", b"x")]),
        ("leads out", &[("a/../../escape", regular, "", b"x")]),
        ("leads out", &[("/tmp/escape-of-maxim-test", regular, "", b"x")]),
        ("leads out", &[("link", EntryType::Symlink, "/etc/passwd", b"")]),
        ("leads out", &[("a/link", EntryType::Symlink, "../../escape", b"")]),
        ("leads out", &[("hard", EntryType::Link, "../escape", b"")]),
        ("names no earlier file", &[("hard", EntryType::Link, "etc/passwd", b"")]),
        ("not a folder", &[("d", EntryType::Symlink, "e", b""), ("d/file", regular, "", b"x")]),
        ("there twice", &[("f", regular, "", b"x"), ("f", regular, "", b"y")]),
        ("there twice", &[("f", EntryType::Symlink, "g", b""), ("f", regular, "", b"y")]),
        ("larger than its manifest", &[("f", regular, "", &large)]),
        ("unknown kind", &[("f", EntryType::new(b'Z'), "", b"")]),
    ];
    for (why, members) in hostile {
        let (outer, outcome) = run(&archive(members), 4);
        let failure = outcome.unwrap_err().to_string();
        assert!(failure.contains(why), "{why}: {failure}");
        assert!(failure.contains("/opt/maxim/images/x"), "{failure}");
        assert_eq!(
            fs::read_dir(outer.path()).unwrap().count(),
            1,
            "{why}: something is outside of the folder"
        );
    }
    assert!(!Path::new("/tmp/escape-of-maxim-test").exists());
}

#[test]
fn damaged_archives_are_refused() {
    let bytes = archive(&[("f", EntryType::Regular, "", &vec![7; 100_000])]);
    assert!(run(&bytes[..bytes.len() / 2], 100_000).1.is_err());
    let mut flipped = bytes;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    // A flipped bit may give other bytes or a broken frame; the digest catches the first, this the second.
    if let Err(failure) = run(&flipped, 100_000).1 {
        assert!(failure.hint().contains("bundle verify"));
    }
    assert!(run(b"not zstd at all", 4).1.is_err());
}

#[test]
fn links_stay_inside() {
    for (path, target, fine) in [
        ("a/b/l", "../../x", true),
        ("a/b/l", "../../../x", false),
        ("l", "x/y", true),
        ("l", "..", false),
        ("a/l", "x/../../..", false),
        ("a/b/l", "x/..", false),
        ("l", "", false),
        ("l", "/x", false),
        ("l", "./x", true),
    ] {
        assert_eq!(stays(Path::new(path), target), fine, "{path} -> {target}");
    }
}
