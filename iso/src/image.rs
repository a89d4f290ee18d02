//! Composes component images: a small root file system out of locked packages, without running a line of theirs.
//!
//! Steps of [`compose`]: read each package's files by `dpkg-deb --fsys-tarfile` (its hash is checked first), put them
//! into one tree under the merged `/usr`, drop what `images.yaml` excludes, add what a service needs around it
//! (accounts, hosts, mount points, the place of the notify socket), prove that it is closed (each library that an ELF
//! file needs is in it) and for the right processor, and pack it. Images are kept in the cache under the hash of
//! everything that made them.

use crate::ARCHITECTURE;
use crate::command::{not_started, tail};
use crate::elf;
use crate::error::BuildError;
use crate::lock::{LockedImage, LockedPackage};
use crate::tree::{Node, Packed, Tree};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Raised when the same packages are to give another image.
const REVISION: u32 = 2;

const DEFINITIONS: &str = include_str!("../images.yaml");

/// What is common and what each image is made of (`images.yaml`).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Definitions {
    shared: Shared,
    images: BTreeMap<String, Definition>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shared {
    without: Vec<String>,
    exclude: Vec<String>,
}

/// One image as defined, with the shared lists added.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The package whose version is the image's.
    pub version_of: String,
    /// Asked for, with their dependencies.
    pub packages: Vec<String>,
    /// Dropped from the closure.
    pub without: Vec<String>,
    /// Dropped paths.
    pub exclude: Vec<String>,
    /// Files whose content is dropped.
    #[serde(default)]
    pub empty: Vec<String>,
    /// Symbolic links by path.
    pub links: BTreeMap<String, String>,
    /// Mount points.
    pub folders: Vec<String>,
}

impl Definition {
    /// Whether a package of the closure is left out.
    pub fn drops_package(&self, name: &str) -> bool {
        self.without.iter().any(|pattern| matches(pattern, name))
    }

    fn drops_path(&self, path: &str) -> bool {
        // The licences of what is shipped are shipped with it.
        if path.starts_with("usr/share/doc") {
            let licence =
                path.ends_with("/copyright") || path.matches('/').count() < 4 && !path.contains('.');
            return !licence;
        }
        self.exclude.iter().any(|pattern| {
            matches(pattern, path)
                || path.strip_prefix(pattern.as_str()).is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

/// All images.
///
/// # Errors
/// When `images.yaml` is wrong, which a test rules out.
pub fn definitions() -> Result<BTreeMap<String, Definition>, BuildError> {
    let parsed: Definitions = serde_yaml::from_str(DEFINITIONS)
        .map_err(|error| BuildError::Bundle { problem: format!("iso/images.yaml: {error}") })?;
    let mut images = parsed.images;
    for definition in images.values_mut() {
        definition.without.extend(parsed.shared.without.iter().cloned());
        definition.exclude.extend(parsed.shared.exclude.iter().cloned());
    }
    Ok(images)
}

/// A pattern with any number of `*`.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut open = false;
    for part in parts {
        open = true;
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty() || open && pattern.ends_with('*')
}

/// An image in the cache.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its archive.
    pub path: PathBuf,
    /// Hash and sizes.
    pub packed: Packed,
    /// Licence texts' short names by package, for the SBOM.
    pub licences: BTreeMap<String, Vec<String>>,
}

/// What is written beside an image in the cache.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    sha256: String,
    size: u64,
    unpacked_size: u64,
    licences: BTreeMap<String, Vec<String>>,
}

/// The name of an image in the cache: a hash of all that made it.
pub fn cache_key(name: &str, definition: &Definition, locked: &LockedImage) -> String {
    let all = serde_json::json!([REVISION, env!("CARGO_PKG_VERSION"), name, definition, locked]);
    hex::encode(Sha256::digest(all.to_string()))
}

/// An image that was composed before.
pub fn cached(cache: &Path, key: &str) -> Option<Image> {
    let path = cache.join("images").join(format!("{key}.tar.zst"));
    let record: Record = serde_json::from_slice(&fs::read(path.with_extension("json")).ok()?).ok()?;
    if fs::metadata(&path).ok()?.len() != record.size {
        return None;
    }
    let packed = Packed { sha256: record.sha256, size: record.size, unpacked_size: record.unpacked_size };
    Some(Image { path, packed, licences: record.licences })
}

/// Composes an image and puts it into the cache. `debs` has the file of each package by its hash.
pub fn compose(
    cache: &Path,
    key: &str,
    name: &str,
    definition: &Definition,
    locked: &LockedImage,
    debs: &BTreeMap<String, PathBuf>,
) -> Result<Image, BuildError> {
    let wrong = |problem: String| BuildError::Image { image: name.to_owned(), problem };
    let mut tree = Tree::default();
    for (link, goal) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")]
    {
        tree.put(link, Node::Link(goal.to_owned()));
    }
    let mut licences = BTreeMap::new();
    for package in &locked.packages {
        let deb =
            debs.get(&package.sha256).ok_or_else(|| wrong(format!("{} was not fetched", package.label())))?;
        check_digest(package, deb)?;
        let mut copyright = None;
        unpack(deb, package, &mut |path, node| {
            if path == format!("usr/share/doc/{}/copyright", package.name)
                && let Node::File(_, content) = &node
            {
                copyright = Some(Arc::clone(content));
            }
            if !definition.drops_path(path) {
                tree.put(path, node);
            }
        })
        .map_err(|error| match error {
            Unpack::Build(error) => error,
            Unpack::Content(problem) => wrong(format!("{}: {problem}", package.label())),
        })?;
        let names = copyright.map(|text| licence_names(&String::from_utf8_lossy(&text))).unwrap_or_default();
        licences.insert(package.name.clone(), names);
    }
    for path in &definition.empty {
        if !tree.nodes().contains_key(path) {
            return Err(wrong(format!("{path}, which is to be emptied, is not in it")));
        }
        tree.put(path, Node::File(0o644, Arc::default()));
    }
    prune_links(&mut tree);
    furnish(&mut tree, definition);
    prune_empty(&mut tree, definition);
    check(&tree).map_err(wrong)?;
    let folder = cache.join("images");
    fs::create_dir_all(&folder).map_err(BuildError::file("cannot make the folder", &folder))?;
    let path = folder.join(format!("{key}.tar.zst"));
    let packed = tree.pack(&path)?;
    let record = Record {
        sha256: packed.sha256.clone(),
        size: packed.size,
        unpacked_size: packed.unpacked_size,
        licences: licences.clone(),
    };
    let text = serde_json::to_vec_pretty(&record).map_err(|error| wrong(error.to_string()))?;
    let beside = path.with_extension("json");
    fs::write(&beside, text).map_err(BuildError::file("cannot write", &beside))?;
    Ok(Image { path, packed, licences })
}

fn check_digest(package: &LockedPackage, deb: &Path) -> Result<(), BuildError> {
    let bytes = fs::read(deb).map_err(BuildError::file("cannot read", deb))?;
    let found = hex::encode(Sha256::digest(&bytes));
    if found == package.sha256 {
        return Ok(());
    }
    Err(BuildError::Digest { package: package.label(), wanted: package.sha256.clone(), found })
}

enum Unpack {
    Build(BuildError),
    Content(String),
}

/// Gives each entry of a package's files, with its path under the merged `/usr`.
fn unpack(deb: &Path, package: &LockedPackage, put: &mut dyn FnMut(&str, Node)) -> Result<(), Unpack> {
    let step = format!("unpacking {}", package.label());
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Unpack::Build(not_started("dpkg-deb", &step, &error)))?;
    let outcome = child.stdout.take().map_or(Ok(()), |stdout| entries(stdout, put));
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).map_err(|error| Unpack::Content(error.to_string()))?;
    }
    let status = child.wait().map_err(|error| Unpack::Content(error.to_string()))?;
    outcome.map_err(Unpack::Content)?;
    if status.success() {
        return Ok(());
    }
    Err(Unpack::Build(BuildError::Program {
        program: "dpkg-deb".to_owned(),
        step,
        status: status.to_string(),
        output: tail(&said),
    }))
}

fn entries(input: impl Read, put: &mut dyn FnMut(&str, Node)) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut files: BTreeMap<String, (u32, Arc<Vec<u8>>)> = BTreeMap::new();
    let mut archive = tar::Archive::new(input);
    for entry in archive.entries().map_err(text)? {
        let mut entry = entry.map_err(text)?;
        let path = merged(&entry.path().map_err(text)?.to_string_lossy());
        if path.is_empty() {
            continue;
        }
        let mode = entry.header().mode().map_err(text)?;
        let link = entry.link_name().map_err(text)?.map(|goal| goal.to_string_lossy().into_owned());
        let node = match entry.header().entry_type() {
            tar::EntryType::Directory => Node::Folder(0o755),
            tar::EntryType::Regular => {
                let mut content = Vec::with_capacity(entry.size() as usize);
                entry.read_to_end(&mut content).map_err(text)?;
                let content = Arc::new(content);
                files.insert(path.clone(), (mode, Arc::clone(&content)));
                Node::File(mode, content)
            }
            tar::EntryType::Symlink => Node::Link(relative(&path, &link.unwrap_or_default())),
            tar::EntryType::Link => {
                let goal = merged(&link.unwrap_or_default());
                let (mode, content) = files
                    .get(&goal)
                    .cloned()
                    .ok_or_else(|| format!("{path} is a link to {goal}, which is not there"))?;
                Node::File(mode, content)
            }
            other => return Err(format!("{path} is of kind {other:?}, which an image may not hold")),
        };
        put(&path, node);
    }
    Ok(())
}

/// `./lib/x` is `usr/lib/x`: since Debian 12 the top folders are links into `/usr`.
fn merged(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_matches('/');
    let first = path.split('/').next().unwrap_or_default();
    if path == "." {
        return String::new();
    }
    if matches!(first, "bin" | "sbin" | "lib" | "lib64") {
        if path == first { String::new() } else { format!("usr/{path}") }
    } else {
        path.to_owned()
    }
}

/// The target of a link as seen from its place: an absolute one would lead out of the image when it is looked at
/// from outside.
fn relative(path: &str, goal: &str) -> String {
    if !goal.starts_with('/') {
        return goal.to_owned();
    }
    format!("{}{}", "../".repeat(path.matches('/').count()), merged(goal))
}

/// Links to what was excluded.
fn prune_links(tree: &mut Tree) {
    loop {
        let dangling: BTreeSet<String> = tree
            .nodes()
            .iter()
            .filter_map(|(path, node)| match node {
                Node::Link(goal) => {
                    let base = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                    (!tree.nodes().contains_key(&resolve(base, goal))).then(|| path.clone())
                }
                _ => None,
            })
            .collect();
        if dangling.is_empty() {
            return;
        }
        tree.retain(|path| !dangling.contains(path));
    }
}

/// What a service needs around its program.
fn furnish(tree: &mut Tree, definition: &Definition) {
    let text = |content: &str| Node::File(0o644, Arc::new(content.as_bytes().to_vec()));
    for folder in ["proc", "sys", "dev", "run/systemd", "tmp", "var/tmp", "var/lib/maxim", "etc/maxim"] {
        tree.put(folder, Node::Folder(0o755));
    }
    for folder in &definition.folders {
        tree.put(folder, Node::Folder(0o755));
    }
    // The host's own files are bound over these two, so that names are the host's.
    tree.put(
        "etc/passwd",
        text("root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"),
    );
    tree.put("etc/group", text("root:x:0:\nnogroup:x:65534:\n"));
    tree.put("etc/hosts", text("127.0.0.1 localhost\n::1 localhost\n"));
    tree.put("etc/nsswitch.conf", text("passwd: files\ngroup: files\nhosts: files dns\n"));
    tree.put("etc/resolv.conf", text(""));
    tree.put("etc/machine-id", text(""));
    // systemd 247 does not bring the notify socket into a new root: the unit binds it here.
    tree.put("run/systemd/notify", text(""));
    for (link, goal) in &definition.links {
        tree.put(link, Node::Link(goal.clone()));
    }
}

/// Folders that are empty since their files were excluded.
fn prune_empty(tree: &mut Tree, definition: &Definition) {
    let needed: BTreeSet<String> = tree
        .nodes()
        .iter()
        .filter(|(path, node)| !matches!(node, Node::Folder(_)) || is_mount_point(path, definition))
        .flat_map(|(path, _)| {
            let mut all = vec![path.clone()];
            all.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
            all
        })
        .collect();
    tree.retain(|path| needed.contains(path));
}

fn is_mount_point(path: &str, definition: &Definition) -> bool {
    matches!(path, "proc" | "sys" | "dev" | "run" | "tmp" | "var/tmp" | "var/lib/maxim" | "etc/maxim")
        || definition.folders.iter().any(|folder| folder == path)
}

/// Right processor, and no library missing.
fn check(tree: &Tree) -> Result<(), String> {
    let names: BTreeSet<&str> = tree
        .nodes()
        .keys()
        .map(|path| path.rsplit_once('/').map_or(path.as_str(), |(_, name)| name))
        .collect();
    let mut problems = Vec::new();
    let mut programs = 0;
    for (path, node) in tree.nodes() {
        match node {
            Node::File(_, content) if elf::is_elf(content) => {
                let found = elf::parse(content).map_err(|problem| format!("{path}: {problem}"))?;
                programs += 1;
                if found.machine != ARCHITECTURE {
                    problems.push(format!("{path} is for {} and not for {ARCHITECTURE}", found.machine));
                }
                for library in found.needed.iter().filter(|library| !names.contains(library.as_str())) {
                    problems.push(format!("{path} needs {library}, which is not in the image"));
                }
            }
            Node::Link(goal) => {
                let base = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                if goal.starts_with('/') || !tree.nodes().contains_key(&resolve(base, goal)) {
                    problems.push(format!("{path} is a link to {goal}, which is not in the image"));
                }
            }
            _ => {}
        }
    }
    if programs == 0 {
        problems.push("it holds no program".to_owned());
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

fn resolve(base: &str, goal: &str) -> String {
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in goal.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts.join("/")
}

/// Names of licences in a Debian copyright file: the `License:` lines of the machine-readable form, else the common
/// licences that the text refers to.
pub fn licence_names(text: &str) -> Vec<String> {
    let mut names = BTreeSet::new();
    if text.lines().take(5).any(|line| line.starts_with("Format:")) {
        for name in text.lines().filter_map(|line| line.strip_prefix("License:")) {
            let name = name.trim();
            if !name.is_empty() {
                names.insert(name.to_owned());
            }
        }
    }
    if names.is_empty() {
        for part in text.split("/usr/share/common-licenses/").skip(1) {
            let end =
                part.find(|letter: char| !letter.is_ascii_alphanumeric() && !matches!(letter, '.' | '-'));
            let name = part[..end.unwrap_or(part.len())].trim_end_matches(['.', '-']);
            if !name.is_empty() {
                names.insert(name.to_owned());
            }
        }
    }
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_sound() {
        let images = definitions().unwrap();
        assert_eq!(images.keys().collect::<Vec<_>>(), ["mariadb", "postgresql", "redis", "restic"]);
        for (name, definition) in &images {
            assert!(definition.packages.contains(&definition.version_of), "{name}");
            assert!(!definition.drops_package(&definition.version_of), "{name}");
        }
        assert!(images["postgresql"].drops_package("libperl5.40"));
        assert!(!images["postgresql"].drops_package("libicu76"));
    }

    #[test]
    fn patterns_and_exclusions() {
        assert!(matches("libpam*", "libpam0g") && !matches("libpam*", "libp"));
        assert!(matches("*perl*", "libio-pty-perl") && matches("*perl*", "perl-base"));
        assert!(matches("dash", "dash") && !matches("dash", "dash2") && !matches("dash", "das"));
        let redis = &definitions().unwrap()["redis"];
        assert!(redis.drops_path("usr/share/man/man1/x.1.gz") && redis.drops_path("etc/redis/redis.conf"));
        assert!(!redis.drops_path("usr/share/mandril"));
        assert!(redis.drops_path("usr/share/doc/libc6/NEWS.gz"));
        assert!(!redis.drops_path("usr/share/doc/libc6/copyright"));
    }

    #[test]
    fn paths_go_under_the_merged_usr() {
        assert_eq!(merged("./lib/x86_64-linux-gnu/libc.so.6"), "usr/lib/x86_64-linux-gnu/libc.so.6");
        assert_eq!(merged("./usr/bin/a"), "usr/bin/a");
        assert_eq!(merged("./"), "");
        assert_eq!(merged("./lib/"), "");
        assert_eq!(merged("./library/x"), "library/x");
    }

    #[test]
    fn a_missing_library_and_a_wrong_processor_are_found() {
        let mut tree = Tree::default();
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        tree.put("usr/bin/program", Node::File(0o755, Arc::new(program.clone())));
        assert!(check(&tree).unwrap_err().contains("needs libc.so.6, which is not in the image"));
        let mut foreign = program;
        foreign[18] = 183;
        tree.put("usr/bin/program", Node::File(0o755, Arc::new(foreign)));
        assert!(check(&tree).unwrap_err().contains("is for aarch64"));
        tree.put("usr/bin/psql", Node::Link("../lib/psql".into()));
        assert!(check(&tree).unwrap_err().contains("usr/bin/psql is a link to ../lib/psql"));
        assert!(check(&Tree::default()).unwrap_err().contains("no program"));
    }

    #[test]
    fn absolute_links_become_relative_and_dangling_ones_go() {
        assert_eq!(relative("usr/lib/y", "/lib/x"), "../../usr/lib/x");
        assert_eq!(relative("usr/lib/y", "x"), "x");
        let mut tree = Tree::default();
        tree.put("usr/lib/x", Node::File(0o644, Arc::default()));
        tree.put("usr/lib/y", Node::Link(relative("usr/lib/y", "/lib/x")));
        tree.put("usr/lib/gone", Node::Link("excluded".into()));
        tree.put("usr/lib/to-gone", Node::Link("gone".into()));
        prune_links(&mut tree);
        let left: Vec<_> = tree.nodes().keys().map(String::as_str).collect();
        assert_eq!(left, ["usr", "usr/lib", "usr/lib/x", "usr/lib/y"]);
    }

    #[test]
    fn licences_are_found_in_both_forms() {
        let machine =
            "Format: https://x\nFiles: *\nLicense: GPL-2+\n text\n\nFiles: a\nLicense: BSD-3-clause\n";
        assert_eq!(licence_names(machine), ["BSD-3-clause", "GPL-2+"]);
        let free = "see `/usr/share/common-licenses/LGPL-2.1'. And /usr/share/common-licenses/GPL-3.";
        assert_eq!(licence_names(free), ["GPL-3", "LGPL-2.1"]);
        assert!(licence_names("nothing").is_empty());
    }
}
