//! The file system under a path that may not exist yet.

use crate::files::read_text;
use maxim_model::facts::Disk;
use nix::sys::statvfs::{FsFlags, statvfs};
use std::path::{Path, PathBuf};

/// Measures the nearest existing folder.
pub fn look(path: &str) -> Disk {
    let symlink = Path::new(path).is_symlink();
    let mut disk = Disk { path: path.to_owned(), symlink, ..Disk::default() };
    let Some(measured) = Path::new(path).ancestors().find(|ancestor| ancestor.is_dir()) else { return disk };
    disk.measured = measured.display().to_string();
    let real = measured.canonicalize().unwrap_or_else(|_| measured.to_path_buf());
    if let Some((mount, file_system)) = mount_of(&real, &read_text("/proc/self/mountinfo")) {
        disk.mount = mount.display().to_string();
        disk.file_system = file_system;
    }
    if let Ok(found) = statvfs(&real) {
        disk.total = found.blocks() * found.fragment_size();
        disk.available = found.blocks_available() * found.fragment_size();
        // Some file systems make inodes as they need them and count none.
        disk.inodes_available = if found.files() == 0 { u64::MAX } else { found.files_available() };
        disk.noexec = found.flags().contains(FsFlags::ST_NOEXEC);
        disk.read_only = found.flags().contains(FsFlags::ST_RDONLY);
    }
    disk
}

/// Mount point and type of the file system that holds a path: the longest mount point that begins it, the last of
/// equals (mounted over).
fn mount_of(path: &Path, mounts: &str) -> Option<(PathBuf, String)> {
    let mut best: Option<(PathBuf, String)> = None;
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mount) = left.split(' ').nth(4) else { continue };
        let mount = PathBuf::from(unescape(mount));
        let longer =
            best.as_ref().is_none_or(|(found, _)| found.as_os_str().len() <= mount.as_os_str().len());
        if path.starts_with(&mount) && longer {
            best = Some((mount, right.split(' ').next().unwrap_or_default().to_owned()));
        }
    }
    best
}

/// The kernel writes blanks and the like as octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::{look, mount_of};
    use std::path::Path;

    #[test]
    fn the_longest_mount_point_counts() {
        let mounts = "1 0 0:1 / / rw - overlay overlay rw\n2 1 8:1 / /var rw - ext4 /dev/sda1 rw\n\
                      3 2 8:2 / /var/li\\040b rw shared:1 - xfs /dev/sdb1 rw\n";
        let found = |path: &str| mount_of(Path::new(path), mounts).map(|(_, kind)| kind);
        assert_eq!(found("/var/lib/maxim").as_deref(), Some("ext4"));
        assert_eq!(found("/var/li b/x").as_deref(), Some("xfs"));
        assert_eq!(found("/varnish").as_deref(), Some("overlay"));
    }

    #[test]
    fn a_link_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("data");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(look(link.to_str().unwrap()).symlink);
        assert!(!look(folder.path().to_str().unwrap()).symlink);
    }
}
