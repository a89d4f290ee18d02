//! A folder as a tar: regular files and folders in order of names, so that the same content gives the same bytes.

use super::stream;
use crate::error::{Failure, Result};
use crate::files::{Ownership, absolute, parent, remove_any, sync_folder};
use crate::link::raw::Channel;
use maxim_model::backup::wire::FRAME;
use maxim_model::wire::Reply;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Writes to the engine in whole frames.
struct Outgoing<'a> {
    channel: &'a mut dyn Channel,
    buffer: Vec<u8>,
    total: u64,
}

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(FRAME - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == FRAME {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.total += self.buffer.len() as u64;
            stream::chunk(self.channel, &self.buffer, self.total).map_err(io::Error::other)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// What lies in a folder, in order of names.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    paths.sort();
    Ok(paths)
}

/// Opens a file, not what a link leads to: where one stands now, the file went.
fn open(path: &Path) -> io::Result<File> {
    let opened = fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(path);
    opened.map_err(|error| match error.raw_os_error() {
        Some(nix::libc::ELOOP) => io::ErrorKind::NotFound.into(),
        _ => error,
    })
}

/// Nothing when it went since it was listed: its owner removed it, so it belongs to no message. What cannot be read for
/// another reason must not be left out of a set unseen.
fn unless_gone<T>(path: &Path, found: io::Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::file("read", path)(error)),
    }
}

/// Bytes of all files below a folder; 0 when there is none.
pub fn size(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for path in unless_gone(folder, entries(folder))?.unwrap_or_default() {
        match unless_gone(&path, fs::symlink_metadata(&path))? {
            Some(found) if found.is_dir() => total += size(&path)?,
            Some(found) if found.is_file() => total += found.len(),
            _ => {}
        }
    }
    Ok(total)
}

/// Sends a folder.
pub fn send(channel: &mut dyn Channel, path: &str) -> Result<Reply> {
    let folder = absolute(path)?;
    let point = stream::now_unix();
    let outgoing = Outgoing { channel, buffer: Vec::with_capacity(FRAME), total: 0 };
    let mut archive = tar::Builder::new(outgoing);
    archive.mode(tar::HeaderMode::Deterministic);
    let found = entries(&folder).map_err(Failure::file("read", &folder))?;
    add(&mut archive, found, Path::new(""))?;
    let mut outgoing = archive.into_inner().map_err(Failure::file("read", &folder))?;
    outgoing.flush().map_err(Failure::file("read", &folder))?;
    Ok(stream::sent(outgoing.total, outgoing.total, Vec::new(), String::new(), point))
}

/// Adds what a folder was found to hold.
fn add<W: Write>(archive: &mut tar::Builder<W>, listed: Vec<PathBuf>, name: &Path) -> Result<()> {
    for path in listed {
        let Some(last) = path.file_name() else { continue };
        let inner = name.join(last);
        let Some(found) = unless_gone(&path, fs::symlink_metadata(&path))? else { continue };
        if found.is_dir() {
            let Some(below) = unless_gone(&path, entries(&path))? else { continue };
            if unless_gone(&path, archive.append_dir(&inner, &path))?.is_some() {
                add(archive, below, &inner)?;
            }
        } else if found.is_file() {
            let Some(mut file) = unless_gone(&path, open(&path))? else { continue };
            append(archive, &inner, &mut file).map_err(Failure::file("read", &path))?;
        }
    }
    Ok(())
}

/// One file, with as many bytes as it had when it was opened: its size stands before its bytes, so what it grows by
/// meanwhile belongs to the next backup. One that shrinks cannot be sent.
fn append<W: Write>(archive: &mut tar::Builder<W>, name: &Path, file: &mut File) -> io::Result<()> {
    let found = file.metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata_in_mode(&found, tar::HeaderMode::Deterministic);
    exactly(archive, &mut header, name, found.len(), file)
}

fn exactly<W: Write>(
    archive: &mut tar::Builder<W>,
    header: &mut tar::Header,
    name: &Path,
    size: u64,
    content: &mut dyn Read,
) -> io::Result<()> {
    header.set_size(size);
    let mut content = content.take(size);
    archive.append_data(header, name, &mut content)?;
    if content.limit() == 0 {
        return Ok(());
    }
    Err(io::Error::other("the file became shorter while it was read; run the command again"))
}

/// What a thread of its own reads: frames through a pipe.
pub fn receive(channel: &mut dyn Channel, path: &str, owner: &str) -> Result<Reply> {
    let folder = absolute(path)?;
    let place = beside(&folder, ".restoring");
    crate::files::make_parents(&folder)?;
    remove_any(&place);
    fs::create_dir(&place).map_err(Failure::file("create the folder", &place))?;
    let (reader, mut writer) = io::pipe().map_err(Failure::file("make a pipe for", &place))?;
    let target = place.clone();
    let unpacking =
        std::thread::spawn(move || unpack(File::from(std::os::fd::OwnedFd::from(reader)), &target));
    let taken = stream::receive(channel, |bytes| {
        writer.write_all(bytes).map_err(Failure::file("unpack into", &place))
    });
    drop(writer);
    let unpacked = unpacking.join().unwrap_or_else(|_| Err(Failure::Invalid("unpacking ended early".into())));
    let outcome = match (taken, unpacked) {
        (_, Err(failure)) | (Err(failure), Ok(())) => Err(failure),
        (Ok(bytes), Ok(())) => Ok(bytes),
    };
    match outcome {
        Ok(bytes) => {
            if !owner.is_empty() {
                own(&place, owner)?;
            }
            // What is put in place is to survive a loss of power as it was compared.
            let failed = Failure::file("bring to the disk", &place);
            File::open(&place).and_then(|folder| Ok(nix::unistd::syncfs(folder)?)).map_err(failed)?;
            Ok(stream::sent(bytes, bytes, Vec::new(), String::new(), 0))
        }
        Err(failure) => {
            remove_any(&place);
            Err(failure)
        }
    }
}

fn unpack(input: File, place: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(input);
    archive.set_preserve_permissions(true);
    archive.set_overwrite(false);
    // `unpack` refuses names that lead out of the folder.
    archive.unpack(place).map_err(Failure::file("unpack into", place))
}

fn own(path: &Path, owner: &str) -> Result<()> {
    Ownership::resolve(owner, owner, "0700")?.set(path)?;
    for path in entries(path).map_err(Failure::file("read", path))? {
        let found = fs::symlink_metadata(&path).map_err(Failure::file("read", &path))?;
        if found.is_dir() {
            own(&path, owner)?;
        } else {
            Ownership::resolve(owner, owner, "0600")?.set(&path)?;
        }
    }
    Ok(())
}

/// Whether something was received and is not in place yet, and whether what was there before is kept.
pub fn beside_it(path: &str) -> Result<(bool, bool)> {
    let folder = absolute(path)?;
    Ok((beside(&folder, ".restoring").exists(), beside(&folder, ".before-restore").exists()))
}

/// Puts it in place; what was there is kept beside it, or what was kept before that when `keep` says so.
pub fn commit(path: &str, keep: bool) -> Result<()> {
    let folder = absolute(path)?;
    let (new, old) = (beside(&folder, ".restoring"), beside(&folder, ".before-restore"));
    if !new.exists() {
        // A run that was killed after this step goes on here.
        if old.exists() {
            return Ok(());
        }
        return Err(Failure::refused(
            format!("there is no restored folder beside {}", folder.display()),
            "run the restore again",
        ));
    }
    if !folder.exists() {
        // Of what is not there an empty folder is kept: it says, if this is killed after the next step, that it was done.
        if !old.exists() {
            fs::create_dir(&old).map_err(Failure::file("create the folder", &old))?;
        }
    } else if old.exists() && (keep || entries(&folder).is_ok_and(|found| found.is_empty())) {
        // Empty: somebody made it between the two steps below, the first of which has kept what was there.
        remove_any(&folder);
    } else {
        remove_any(&old);
        fs::rename(&folder, &old).map_err(Failure::file("keep", &folder))?;
    }
    if let Err(error) = fs::rename(&new, &folder) {
        // Whoever is served again is served from what was there.
        let _ = fs::rename(&old, &folder);
        return Err(Failure::file("rename into place", &folder)(error));
    }
    sync_folder(parent(&folder))
}

/// Removes what was received; `before`: and what was kept.
pub fn discard(path: &str, before: bool) -> Result<()> {
    let folder = absolute(path)?;
    remove_any(&beside(&folder, ".restoring"));
    if before {
        remove_any(&beside(&folder, ".before-restore"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        add, append, commit, discard, entries, exactly, open, own, receive, send, size, unless_gone,
    };
    use crate::error::Result;
    use crate::link::raw::{Channel, Frame};
    use maxim_model::wire::Reply;
    use std::fs;
    use std::io::{Read, Write as _};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    /// Keeps what is sent, and gives it back in frames of so many bytes.
    struct Kept {
        bytes: Vec<u8>,
        at: usize,
        frame: usize,
    }

    impl Channel for Kept {
        fn reply(&mut self, _: &Reply) -> Result<()> {
            Ok(())
        }

        fn raw(&mut self, bytes: &[u8]) -> Result<()> {
            self.bytes.extend_from_slice(bytes);
            Ok(())
        }

        fn frame(&mut self, buffer: &mut Vec<u8>) -> Result<Frame> {
            let end = (self.at + self.frame).min(self.bytes.len());
            buffer.clear();
            buffer.extend_from_slice(&self.bytes[self.at..end]);
            self.at = end;
            Ok(if buffer.is_empty() { Frame::End } else { Frame::Bytes })
        }

        fn is_gone(&self) -> bool {
            false
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_tree_comes_out_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
        let files: [(&str, Vec<u8>, u32); 5] = [
            ("empty", Vec::new(), 0o600),
            ("a/b/program", b"#!/bin/sh\n".to_vec(), 0o755),
            ("a/\u{56fe}\u{7247} \u{fc}.png", vec![7; 1_300_000], 0o644),
            (&long, b"a name that no header holds".to_vec(), 0o644),
            ("block", vec![1; 512], 0o644),
        ];
        fs::create_dir_all(from.join("nothing/in/it")).unwrap();
        for (name, content, mode) in &files {
            let path = from.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", from.join("link")).unwrap();
        let mut kept = Kept { bytes: Vec::new(), at: 0, frame: 700_001 };
        send(&mut kept, from.to_str().unwrap()).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(to.join("before"), "x").unwrap();
        receive(&mut kept, to.to_str().unwrap(), "").unwrap();
        assert!(to.join("before").exists(), "what serves is not touched");
        commit(to.to_str().unwrap(), false).unwrap();
        for (name, content, _) in &files {
            assert!(fs::read(to.join(name)).unwrap() == *content, "{name}");
        }
        assert!(to.join("nothing/in/it").is_dir());
        assert_ne!(mode(&to.join("a/b/program")) & 0o100, 0, "a program can be run");
        assert_eq!(mode(&to.join("empty")) & 0o100, 0);
        assert!(!to.join("before").exists() && to.join("link").symlink_metadata().is_err());
        let old = folder.path().join("to.before-restore");
        assert!(old.join("before").exists(), "what was there is kept");
        // Once more, as after a kill; then nothing is left beside it.
        commit(to.to_str().unwrap(), false).unwrap();
        discard(to.to_str().unwrap(), true).unwrap();
        assert!(!old.exists() && to.join("block").exists());
        // The same content is the same bytes.
        let mut again = Kept { bytes: Vec::new(), at: 0, frame: 1 };
        send(&mut again, to.to_str().unwrap()).unwrap();
        assert!(again.bytes == kept.bytes);
    }

    #[test]
    fn what_was_kept_outlives_a_kill_and_another_set() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("uploads");
        let beside = |ending: &str| place.path().join(format!("uploads{ending}"));
        let (new, old, named) = (beside(".restoring"), beside(".before-restore"), folder.to_str().unwrap());
        let put = |folder: &Path, name: &str| {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(name), name).unwrap();
        };
        put(&folder, "first");
        assert!(commit(named, false).is_err(), "nothing was received, though there is a folder");
        put(&new, "second");
        // Killed between its two steps; somebody has made the folder again.
        fs::rename(&folder, &old).unwrap();
        fs::create_dir(&folder).unwrap();
        assert_eq!(super::beside_it(named).unwrap(), (true, true));
        commit(named, false).unwrap();
        assert!(folder.join("second").exists() && old.join("first").exists());
        put(&new, "third");
        commit(named, true).unwrap();
        assert!(folder.join("third").exists() && old.join("first").exists());
        put(&new, "fourth");
        commit(named, false).unwrap();
        assert!(folder.join("fourth").exists() && old.join("third").exists());
        // Where there was none, an empty one tells a second run that all is done.
        discard(named, true).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        put(&new, "fifth");
        for _ in 0..2 {
            commit(named, false).unwrap();
            assert!(folder.join("fifth").exists());
        }
    }

    /// Names and contents of an archive.
    fn listed(archive: tar::Builder<Vec<u8>>) -> Vec<(String, Vec<u8>)> {
        let bytes = archive.into_inner().unwrap();
        let mut found = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut content = Vec::new();
            let mut entry = entry.unwrap();
            entry.read_to_end(&mut content).unwrap();
            found.push((entry.path().unwrap().display().to_string(), content));
        }
        found
    }

    #[test]
    fn what_went_since_it_was_listed_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        for name in ["file", "folder", "link", "stays"] {
            if name == "folder" {
                fs::create_dir(place(name)).unwrap();
            } else {
                fs::write(place(name), name).unwrap();
            }
        }
        let found = entries(folder.path()).unwrap();
        assert_eq!(found.len(), 4);
        fs::remove_file(place("file")).unwrap();
        fs::remove_dir(place("folder")).unwrap();
        // A link that took the place of a file between two looks at it.
        fs::remove_file(place("link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", place("link")).unwrap();
        assert!(unless_gone(&place("link"), open(&place("link"))).unwrap().is_none());
        assert!(unless_gone(&place("folder"), entries(&place("folder"))).unwrap().is_none());
        let mut archive = tar::Builder::new(Vec::new());
        add(&mut archive, found, Path::new("")).unwrap();
        assert_eq!(listed(archive), [("stays".to_owned(), b"stays".to_vec())]);
        assert_eq!(size(&place("folder")).unwrap(), 0);
        assert_eq!(size(folder.path()).unwrap(), 5);
    }

    #[test]
    fn what_cannot_be_read_is_not_left_out() {
        for errno in [nix::libc::EIO, nix::libc::EACCES, nix::libc::EMFILE, nix::libc::ELOOP] {
            let wrong = std::io::Error::from_raw_os_error(errno);
            let said = unless_gone::<()>(Path::new("/set/file"), Err(wrong)).unwrap_err().to_string();
            assert!(said.starts_with("cannot read /set/file: "), "{said}");
        }
        // Deeper than a path can be, which stops root, too: made in two halves, the one moved into the other.
        let folder = tempfile::tempdir().unwrap();
        let half = vec!["d".repeat(250); 9].join("/");
        let (from, other) = (folder.path().join("from"), folder.path().join("other"));
        fs::create_dir_all(from.join(&half)).unwrap();
        fs::create_dir_all(other.join(&half)).unwrap();
        fs::write(other.join(&half).join("file"), "x").unwrap();
        fs::rename(&other, from.join(&half).join("other")).unwrap();
        let mut kept = Kept { bytes: Vec::new(), at: 0, frame: 1 };
        let owner = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
        for said in [
            send(&mut kept, from.to_str().unwrap()).unwrap_err(),
            size(&from).unwrap_err(),
            own(&from, &owner).unwrap_err(),
        ] {
            assert!(said.to_string().contains("other/ddd"), "{said}");
        }
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_has_the_bytes_that_it_had() {
        let folder = tempfile::tempdir().unwrap();
        let (path, next) = (folder.path().join("grows"), folder.path().join("next"));
        fs::write(&path, vec![1; 600]).unwrap();
        fs::write(&next, "whole").unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        // Somebody appends while its first bytes are read.
        let mut more = fs::OpenOptions::new().append(true).open(&path).unwrap();
        let mut growing =
            Growing { file: fs::File::open(&path).unwrap(), grow: || more.write_all(&[2; 5000]).unwrap() };
        exactly(&mut archive, &mut header, Path::new("grows"), 600, &mut growing).unwrap();
        append(&mut archive, Path::new("next"), &mut fs::File::open(&next).unwrap()).unwrap();
        assert_eq!(
            listed(archive),
            [("grows".to_owned(), vec![1; 600]), ("next".to_owned(), b"whole".to_vec())]
        );
    }

    struct Growing<F: FnMut()> {
        file: fs::File,
        grow: F,
    }

    impl<F: FnMut()> Read for Growing<F> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            (self.grow)();
            self.file.read(buffer)
        }
    }

    #[test]
    fn a_file_that_shrinks_while_it_is_read_makes_no_archive() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        let short = exactly(&mut archive, &mut header, Path::new("short"), 600, &mut [1; 500].as_slice());
        assert!(short.unwrap_err().to_string().contains("shorter"));
    }
}
