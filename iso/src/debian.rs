//! Debian's archive: what a set of packages needs, and fetching exactly what is locked.
//!
//! Works with a private apt in the cache folder: its own lists, an empty status (nothing counts as installed), and
//! only the archive's signed indexes of the wanted release; the machine's own apt is not touched, and no root is
//! needed. Servers are those that the machine's apt uses for Debian, or the ones that the caller names. Packages are
//! fetched with their SHA-256 and kept in the cache under it. Nothing is ever unpacked or run here.

use crate::command::run;
use crate::error::BuildError;
use crate::image::Definition;
use crate::lock::{Archive, LOCK_FORMAT, Lock, LockedImage, LockedPackage};
use crate::progress::Progress;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian release that images are made of.
pub const SUITE: &str = "trixie";
/// Debian's name of the processor.
pub const DEBIAN_ARCHITECTURE: &str = "amd64";
/// Keys that must have signed the indexes.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Packages fetched at a time: enough to hide the latency of a mirror.
const PARALLEL: usize = 6;

/// Where the two archives are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrors {
    /// Of the release and its updates, without a slash at the end.
    pub main: String,
    /// Of security updates.
    pub security: String,
}

impl Mirrors {
    /// Those that this machine's apt uses.
    ///
    /// # Errors
    /// When it uses none, on a machine that is not Debian.
    pub fn of_this_machine() -> Result<Self, BuildError> {
        let step = "finding the Debian archive";
        let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
        let listed = run(Command::new("apt-get").args(["indextargets", "--format", format]), step)?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let find = |label: &str| {
            listed.lines().find_map(|line| {
                let mut parts = line.split('|');
                (parts.next() == Some("Debian") && parts.next() == Some(label))
                    .then(|| parts.next().unwrap_or_default().trim_end_matches('/').to_owned())
            })
        };
        let main = find("Debian").ok_or_else(|| BuildError::Program {
            program: "apt-get indextargets".into(),
            step: step.into(),
            status: "no answer".into(),
            output: "this machine's apt has no Debian archive; name one by --mirror".into(),
        })?;
        let security = find("Debian-Security").unwrap_or_else(|| format!("{main}-security"));
        Ok(Self { main, security })
    }

    fn base(&self, archive: Archive) -> &str {
        match archive {
            Archive::Main => &self.main,
            Archive::Security => &self.security,
        }
    }
}

/// A private apt in a folder of the cache.
#[derive(Debug)]
pub struct PrivateApt {
    configuration: PathBuf,
    mirrors: Mirrors,
    debs: PathBuf,
}

impl PrivateApt {
    /// Makes or reuses it.
    pub fn new(cache: &Path, mirrors: Mirrors) -> Result<Self, BuildError> {
        let root = cache.join("apt");
        for folder in ["lists/partial", "cache/archives/partial", "etc/parts", "state"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(BuildError::file("cannot make the folder", &path))?;
        }
        let debs = cache.join("debs");
        fs::create_dir_all(&debs).map_err(BuildError::file("cannot make the folder", &debs))?;
        let source = |base: &str, suite: &str| format!("deb [signed-by={KEYRING}] {base} {suite} main\n");
        let sources = source(&mirrors.main, SUITE)
            + &source(&mirrors.main, &format!("{SUITE}-updates"))
            + &source(&mirrors.security, &format!("{SUITE}-security"));
        let place = root.display();
        let configuration = format!(
            "Dir \"{place}\";\nDir::State \"{place}/state\";\nDir::State::lists \"{place}/lists\";\n\
             Dir::State::status \"{place}/status\";\nDir::Cache \"{place}/cache\";\nDir::Etc \"{place}/etc\";\n\
             Dir::Etc::sourcelist \"{place}/sources.list\";\nDir::Etc::sourceparts \"parts\";\n\
             Dir::Etc::parts \"parts\";\nDir::Etc::main \"none\";\nDir::Etc::preferencesparts \"parts\";\n\
             Dir::Etc::trustedparts \"parts\";\nAPT::Architecture \"{DEBIAN_ARCHITECTURE}\";\n\
             APT::Architectures {{\"{DEBIAN_ARCHITECTURE}\";}};\nAPT::Install-Recommends \"false\";\n\
             APT::Sandbox::User \"\";\nAcquire::Languages \"none\";\nAcquire::Retries \"3\";\n\
             Acquire::ForceHash \"SHA256\";\nDPkg::Lock::Timeout \"120\";\n"
        );
        let path = root.join("apt.conf");
        for (file, text) in
            [("sources.list", sources.as_str()), ("status", ""), ("apt.conf", configuration.as_str())]
        {
            let target = root.join(file);
            fs::write(&target, text).map_err(BuildError::file("cannot write", &target))?;
        }
        Ok(Self { configuration: path, mirrors, debs })
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration).env("LC_ALL", "C");
        command
    }

    /// Resolves all images against today's archive.
    pub fn resolve(
        &self,
        definitions: &BTreeMap<String, Definition>,
        progress: &dyn Progress,
    ) -> Result<Lock, BuildError> {
        progress.detail("lock", "reading the indexes of the Debian archive");
        run(self.apt("apt-get").args(["-q", "update"]), "reading the indexes of the Debian archive")?;
        let mut images = BTreeMap::new();
        for (name, definition) in definitions {
            progress.detail("lock", name);
            images.insert(name.clone(), self.resolve_image(name, definition)?);
        }
        Ok(Lock {
            format: LOCK_FORMAT,
            suite: SUITE.to_owned(),
            architecture: DEBIAN_ARCHITECTURE.to_owned(),
            images,
        })
    }

    fn resolve_image(&self, image: &str, definition: &Definition) -> Result<LockedImage, BuildError> {
        let wrong = |problem: String| BuildError::Image { image: image.to_owned(), problem };
        let step = format!("resolving the packages of image {image}");
        let mut command = self.apt("apt-get");
        command
            .args(["install", "--print-uris", "-qq", "-y", "--no-install-recommends"])
            .args(&definition.packages);
        let output = String::from_utf8_lossy(&run(&mut command, &step)?).into_owned();
        let mut packages = Vec::new();
        for line in output.lines().filter(|line| line.starts_with('\'')) {
            let package = self
                .parse_uri(line)
                .ok_or_else(|| wrong(format!("apt printed a line unlike any known: {line}")))?;
            if !definition.drops_package(&package.name) {
                packages.push(package);
            }
        }
        packages.sort_by(|one, other| one.name.cmp(&other.name));
        let main = packages
            .iter()
            .find(|package| package.name == definition.version_of)
            .ok_or_else(|| wrong(format!("package {} is not in it", definition.version_of)))?;
        Ok(LockedImage { version: upstream(&main.version), packages })
    }

    /// A line of `--print-uris`: `'URL' FILE SIZE SHA256:HASH`. The file name holds the whole version, percent-coded.
    fn parse_uri(&self, line: &str) -> Option<LockedPackage> {
        let mut words = line.split_whitespace();
        let url = percent_decode(words.next()?.trim_matches('\''))?;
        let file = percent_decode(words.next()?.strip_suffix(".deb")?)?;
        let size = words.next()?.parse().ok()?;
        let sha256 = words.next()?.strip_prefix("SHA256:")?.to_owned();
        let mut parts = file.split('_');
        let (name, version, architecture) = (parts.next()?, parts.next()?, parts.next()?);
        // The main archive's address can be a prefix of the other's: the longer one is asked first.
        let (archive, path) = [Archive::Security, Archive::Main].into_iter().find_map(|archive| {
            let path = url.strip_prefix(self.mirrors.base(archive))?.strip_prefix('/')?;
            Some((archive, path.to_owned()))
        })?;
        Some(LockedPackage {
            name: name.into(),
            version: version.into(),
            architecture: architecture.into(),
            archive,
            path,
            size,
            sha256,
        })
    }

    /// Fetches what is not in the cache yet, and gives the file of each package by its hash.
    ///
    /// # Errors
    /// [`BuildError::NotServed`] with all packages that the archive no longer has.
    pub fn fetch(
        &self,
        packages: &[&LockedPackage],
        progress: &dyn Progress,
    ) -> Result<BTreeMap<String, PathBuf>, BuildError> {
        let mut files = BTreeMap::new();
        let mut missing = Vec::new();
        let mut seen = BTreeSet::new();
        for package in packages {
            let path = self.debs.join(format!("{}.deb", package.sha256));
            if seen.insert(&package.sha256) && !file_has_size(&path, package.size) {
                missing.push(*package);
            }
            files.insert(package.sha256.clone(), path);
        }
        let share = missing.len().div_ceil(PARALLEL).max(1);
        let results: Vec<(String, Result<bool, BuildError>)> = std::thread::scope(|scope| {
            let workers: Vec<_> = missing
                .chunks(share)
                .map(|chunk| {
                    scope.spawn(move || {
                        let one =
                            |package: &&LockedPackage| (package.label(), self.fetch_one(package, progress));
                        chunk.iter().map(one).collect::<Vec<_>>()
                    })
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
        });
        if results.len() != missing.len() {
            return Err(BuildError::Interrupted { step: "fetching packages".into() });
        }
        let mut gone = Vec::new();
        for (label, result) in results {
            if !result? {
                gone.push(label);
            }
        }
        if gone.is_empty() { Ok(files) } else { Err(BuildError::NotServed { packages: gone }) }
    }

    /// False when the archive does not have it any more.
    fn fetch_one(&self, package: &LockedPackage, progress: &dyn Progress) -> Result<bool, BuildError> {
        let step = format!("fetching {}", package.label());
        if progress.cancelled() {
            return Err(BuildError::Interrupted { step });
        }
        progress.detail("packages", &package.label());
        let url = format!("{}/{}", self.mirrors.base(package.archive), percent_encode(&package.path));
        let target = self.debs.join(format!("{}.deb", package.sha256));
        let partial = self.debs.join(format!("{}.{}.part", package.sha256, std::process::id()));
        let mut command = self.apt("/usr/lib/apt/apt-helper");
        command.arg("download-file").arg(&url).arg(&partial);
        match run(&mut command, &step) {
            Ok(_) => {}
            Err(BuildError::Program { output, .. }) if output.contains("404") => return Ok(false),
            Err(error) => return Err(error),
        }
        let bytes = fs::read(&partial).map_err(BuildError::file("cannot read", &partial))?;
        let found = hex::encode(Sha256::digest(&bytes));
        if found != package.sha256 {
            fs::remove_file(&partial).map_err(BuildError::file("cannot remove", &partial))?;
            return Err(BuildError::Digest {
                package: package.label(),
                wanted: package.sha256.clone(),
                found,
            });
        }
        fs::rename(&partial, &target).map_err(BuildError::file("cannot write", &target))?;
        Ok(true)
    }
}

fn file_has_size(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.len() == size)
}

/// The version without epoch, Debian revision and repacking marks: `1:11.8.6-0+deb13u1` is `11.8.6`.
pub fn upstream(version: &str) -> String {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let version = version.rsplit_once('-').map_or(version, |(rest, _)| rest);
    version.split(['+', '~']).next().unwrap_or(version).to_owned()
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn percent_encode(path: &str) -> String {
    let one = |byte: u8| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-') {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02x}")
        }
    };
    path.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_lose_what_debian_adds() {
        for (debian, plain) in [
            ("1:11.8.6-0+deb13u1", "11.8.6"),
            ("17.12-0+deb13u1", "17.12"),
            ("5:8.0.2-3+deb13u3", "8.0.2"),
            ("1.3.dfsg+really1.3.1-1+b1", "1.3.dfsg"),
            ("2026f", "2026f"),
        ] {
            assert_eq!(upstream(debian), plain);
        }
    }

    #[test]
    fn a_printed_line_becomes_a_locked_package() {
        let mirrors = Mirrors { main: "http://m/debian".into(), security: "http://m/debian-security".into() };
        let apt = PrivateApt { configuration: PathBuf::new(), mirrors, debs: PathBuf::new() };
        let hash = "a".repeat(64);
        let line = format!(
            "'http://m/debian-security/pool/updates/main/r/redis/redis-tools_8.0.2-3%2bdeb13u3_amd64.deb' \
             redis-tools_5%3a8.0.2-3+deb13u3_amd64.deb 1247524 SHA256:{hash}"
        );
        let package = apt.parse_uri(&line).unwrap();
        assert_eq!(package.label(), "redis-tools 5:8.0.2-3+deb13u3");
        assert_eq!(package.archive, Archive::Security);
        assert_eq!(package.path, "pool/updates/main/r/redis/redis-tools_8.0.2-3+deb13u3_amd64.deb");
        assert_eq!((package.size, package.sha256), (1_247_524, hash));
        assert!(percent_encode(&package.path).ends_with("redis-tools_8.0.2-3%2bdeb13u3_amd64.deb"));
        assert!(apt.parse_uri("'http://elsewhere/x_1_all.deb' x_1_all.deb 1 SHA256:00").is_none());
    }
}
