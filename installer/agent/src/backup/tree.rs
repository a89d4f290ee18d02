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

/// Bytes of all files below a folder.
pub fn size(folder: &Path) -> u64 {
    let mut total = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(found) if found.is_dir() => total += size(&entry.path()),
            Ok(found) if found.is_file() => total += found.len(),
            _ => {}
        }
    }
    total
}

/// Sends a folder.
pub fn send(channel: &mut dyn Channel, path: &str) -> Result<Reply> {
    let folder = absolute(path)?;
    let point = stream::now_unix();
    let outgoing = Outgoing { channel, buffer: Vec::with_capacity(FRAME), total: 0 };
    let mut archive = tar::Builder::new(outgoing);
    archive.mode(tar::HeaderMode::Deterministic);
    add(&mut archive, &folder, Path::new(""))?;
    let mut outgoing = archive.into_inner().map_err(Failure::file("read", &folder))?;
    outgoing.flush().map_err(Failure::file("read", &folder))?;
    Ok(stream::sent(outgoing.total, outgoing.total, Vec::new(), String::new(), point))
}

fn add(archive: &mut tar::Builder<Outgoing<'_>>, folder: &Path, name: &Path) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .map_err(Failure::file("read", folder))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    for path in entries {
        let Some(last) = path.file_name() else { continue };
        let inner = name.join(last);
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.is_dir() {
            archive.append_dir(&inner, &path).map_err(Failure::file("read", &path))?;
            add(archive, &path, &inner)?;
        } else if found.is_file() {
            // A file that goes while the archive is made was removed by its owner: then it belongs to no message.
            let Ok(mut file) =
                fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(&path)
            else {
                continue;
            };
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
    for entry in fs::read_dir(path).map_err(Failure::file("read", path))?.flatten() {
        let found = entry.metadata().map_err(Failure::file("read", entry.path()))?;
        if found.is_dir() {
            own(&entry.path(), owner)?;
        } else {
            Ownership::resolve(owner, owner, "0600")?.set(&entry.path())?;
        }
    }
    Ok(())
}

/// Puts it in place; what was there is kept beside it.
pub fn commit(path: &str) -> Result<()> {
    let folder = absolute(path)?;
    let (new, old) = (beside(&folder, ".restoring"), beside(&folder, ".before-restore"));
    if !new.exists() {
        return if folder.exists() { Ok(()) } else { Err(Failure::Invalid("nothing was received".into())) };
    }
    if folder.exists() {
        remove_any(&old);
        fs::rename(&folder, &old).map_err(Failure::file("keep", &folder))?;
    }
    fs::rename(&new, &folder).map_err(Failure::file("rename into place", &folder))?;
    sync_folder(parent(&folder))
}

/// Removes what was received and what was kept.
pub fn discard(path: &str) -> Result<()> {
    let folder = absolute(path)?;
    remove_any(&beside(&folder, ".restoring"));
    remove_any(&beside(&folder, ".before-restore"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{append, commit, discard, exactly, receive, send};
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
        commit(to.to_str().unwrap()).unwrap();
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
        commit(to.to_str().unwrap()).unwrap();
        discard(to.to_str().unwrap()).unwrap();
        assert!(!old.exists() && to.join("block").exists());
        // The same content is the same bytes.
        let mut again = Kept { bytes: Vec::new(), at: 0, frame: 1 };
        send(&mut again, to.to_str().unwrap()).unwrap();
        assert!(again.bytes == kept.bytes);
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
        let bytes = archive.into_inner().unwrap();
        let mut found = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut content = Vec::new();
            let mut entry = entry.unwrap();
            entry.read_to_end(&mut content).unwrap();
            found.push((entry.path().unwrap().display().to_string(), content));
        }
        assert_eq!(found, [("grows".to_owned(), vec![1; 600]), ("next".to_owned(), b"whole".to_vec())]);
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
