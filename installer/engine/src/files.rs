//! Writing on the control host: whole files to a temporary name, synced, renamed; private folders.

use crate::error::EngineError;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes a folder with its parents, 0700 each that is new.
pub(crate) fn private_folder(path: &Path) -> Result<(), EngineError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| wrong(path, &error))
}

/// Replaces a file in one step. The folder must exist.
pub(crate) fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<(), EngineError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = folder.join(format!(".{name}.{:016x}", rand::random::<u64>()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // The mode given at creation is narrowed by the umask, never widened: state it.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // The write failed already; a leftover temporary file is harmless and named after the one it was for.
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(|error| wrong(path, &error))
}

/// Reads a text that may be absent.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>, EngineError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(path, &error)),
    }
}

fn wrong(path: &Path, error: &std::io::Error) -> EngineError {
    let hint = match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "run as the user who owns the folder, or give another with --root"
        }
        std::io::ErrorKind::StorageFull => "free space on this file system and run again",
        _ => "",
    };
    EngineError::failed("state", format!("{}: {error}", path.display())).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::{private_folder, read_optional, write_whole};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        private_folder(&inner).unwrap();
        let path = inner.join("secrets.json");
        write_whole(&path, b"one", 0o600).unwrap();
        write_whole(&path, b"two", 0o600).unwrap();
        assert_eq!(read_optional(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(inner.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 1, "no temporary file is left");
        assert_eq!(read_optional(&inner.join("absent")).unwrap(), None);
    }
}
