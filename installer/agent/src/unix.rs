//! Unix sockets at paths of any length. The kernel takes at most 107 bytes; a root folder may be deeper, and is then
//! reached through a descriptor of the folder that holds the socket.

use crate::error::{Failure, Result};
use crate::files::parent;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

const LONGEST: usize = 100;

/// A short name for the path, with the folder's handle that keeps the name valid.
fn short(path: &Path) -> std::io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().len() <= LONGEST {
        return Ok((path.to_path_buf(), None));
    }
    let folder = File::open(parent(path))?;
    let name = path.file_name().unwrap_or_default();
    let near = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    Ok((near, Some(folder)))
}

/// Connects.
pub fn connect(path: &Path) -> Result<UnixStream> {
    short(path)
        .and_then(|(near, _folder)| UnixStream::connect(near))
        .map_err(|error| Failure::talk(path.display().to_string(), format!("cannot connect: {error}")))
}

/// Listens; a socket file that nobody listens on any more must have been removed before.
pub fn listen(path: &Path) -> Result<UnixListener> {
    short(path).and_then(|(near, _folder)| UnixListener::bind(near)).map_err(Failure::file("listen on", path))
}

#[cfg(test)]
mod tests {
    #[test]
    fn long_paths_work() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("socket");
        let listener = super::listen(&path).unwrap();
        let _client = super::connect(&path).unwrap();
        assert!(listener.accept().is_ok());
        assert!(super::connect(&deep.join("none")).is_err());
    }
}
