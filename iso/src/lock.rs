//! The lock file: exactly which package, in which version and with which hash, each image is made of.
//!
//! JSON, sorted, so that a change of versions is a readable change of lines. It names no server: paths are those in
//! any mirror of the archive.

use crate::error::BuildError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Version of the format.
pub const LOCK_FORMAT: u32 = 1;
/// Place of the lock file in a checkout.
pub const LOCK_PATH: &str = "iso/bundle.lock";

/// The whole lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// [`LOCK_FORMAT`].
    pub format: u32,
    /// Debian release, as `trixie`.
    pub suite: String,
    /// Debian's name of the processor, as `amd64`.
    pub architecture: String,
    /// By image.
    pub images: BTreeMap<String, LockedImage>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedImage {
    /// Version of the component, without what Debian adds: `11.8.6`.
    pub version: String,
    /// Sorted by name.
    pub packages: Vec<LockedPackage>,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Name.
    pub name: String,
    /// Version as Debian writes it.
    pub version: String,
    /// `amd64` or `all`.
    pub architecture: String,
    /// Which archive it is in.
    pub archive: Archive,
    /// Path in that archive.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Hex.
    pub sha256: String,
}

/// The two archives of a Debian release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Archive {
    /// The release and its updates.
    Main,
    /// Security updates.
    Security,
}

impl LockedPackage {
    /// For messages.
    pub fn label(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}

impl Lock {
    /// Reads and checks a lock file's text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, BuildError> {
        let wrong = |problem: String| BuildError::Lock { path: path.to_owned(), problem };
        let lock: Self = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if lock.format != LOCK_FORMAT {
            return Err(wrong(format!("its format is {} and not {LOCK_FORMAT}", lock.format)));
        }
        for (image, locked) in &lock.images {
            for package in &locked.packages {
                let clean = !package.path.starts_with('/')
                    && !package.path.split('/').any(|part| part == ".." || part.is_empty());
                if !clean || package.sha256.len() != 64 {
                    return Err(wrong(format!("image {image}: bad path or hash of {}", package.label())));
                }
            }
        }
        Ok(lock)
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data has no cause to fail");
        text.push('\n');
        text
    }

    /// SHA-256 of the text, hex: what the manifest names.
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.to_text()))
    }

    /// What another lock has that this one has not, in lines for a person.
    pub fn differences(&self, newer: &Self) -> Vec<String> {
        let versions = |lock: &Self| -> BTreeMap<(String, String), String> {
            let of_image = |(image, locked): (&String, &LockedImage)| {
                let name = image.clone();
                let pair = move |package: &LockedPackage| {
                    ((name.clone(), package.name.clone()), package.version.clone())
                };
                locked.packages.iter().map(pair).collect::<Vec<_>>()
            };
            lock.images.iter().flat_map(of_image).collect()
        };
        let (old, new) = (versions(self), versions(newer));
        let mut lines = Vec::new();
        for (key, version) in &new {
            match old.get(key) {
                None => lines.push(format!("{}: + {} {version}", key.0, key.1)),
                Some(before) if before != version => {
                    lines.push(format!("{}: {} {before} -> {version}", key.0, key.1));
                }
                Some(_) => {}
            }
        }
        lines.extend(
            old.keys().filter(|key| !new.contains_key(*key)).map(|key| format!("{}: - {}", key.0, key.1)),
        );
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        let package = LockedPackage {
            name: "redis-tools".into(),
            version: "5:8.0.2-3".into(),
            architecture: "amd64".into(),
            archive: Archive::Main,
            path: "pool/main/r/redis/redis-tools_8.0.2-3_amd64.deb".into(),
            size: 1,
            sha256: "0".repeat(64),
        };
        let image = LockedImage { version: "8.0.2".into(), packages: vec![package] };
        Lock {
            format: LOCK_FORMAT,
            suite: "trixie".into(),
            architecture: "amd64".into(),
            images: BTreeMap::from([("redis".into(), image)]),
        }
    }

    #[test]
    fn reads_what_it_writes_and_refuses_what_is_wrong() {
        let path = Path::new("bundle.lock");
        assert_eq!(Lock::parse(path, &lock().to_text()).unwrap(), lock());
        let mut escaping = lock();
        escaping.images.get_mut("redis").unwrap().packages[0].path = "pool/../../x".into();
        assert!(Lock::parse(path, &escaping.to_text()).is_err());
        let mut later = lock();
        later.format = 9;
        assert!(Lock::parse(path, &later.to_text()).unwrap_err().to_string().contains("format is 9"));
        assert!(Lock::parse(path, "{").is_err());
    }

    #[test]
    fn differences_are_told_by_package() {
        let mut newer = lock();
        newer.images.get_mut("redis").unwrap().packages[0].version = "5:8.0.3-1".into();
        assert_eq!(lock().differences(&newer), ["redis: redis-tools 5:8.0.2-3 -> 5:8.0.3-1"]);
        newer.images.clear();
        assert_eq!(lock().differences(&newer), ["redis: - redis-tools"]);
        assert!(lock().differences(&lock()).is_empty());
    }
}
