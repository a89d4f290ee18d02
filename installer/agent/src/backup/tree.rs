//! A folder as a tar: regular files and folders in order of names, so that the same content gives the same bytes.

use super::stream;
use crate::error::{Failure, Result};
use crate::files::{Ownership, absolute, parent, remove_any, sync_folder};
use crate::link::raw::Channel;
use maxim_model::backup::wire::FRAME;
use maxim_model::wire::Reply;
use std::fs::{self, File};
use std::io::{self, Write};
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
            archive.append_file(&inner, &mut file).map_err(Failure::file("read", &path))?;
        }
    }
    Ok(())
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
