//! The whole build in its order; see the crate's header for the steps.

use crate::bundle::{Part, write};
use crate::command::run;
use crate::debian::{Mirrors, PrivateApt};
use crate::error::BuildError;
use crate::image::{self, Definition, Image};
use crate::lock::{LOCK_PATH, Lock, LockedPackage};
use crate::portable::{self, PROGRAMS};
use crate::progress::Progress;
use crate::sign::SigningKey;
use crate::tree::Node;
use crate::tree::Tree;
use crate::{ARCHITECTURE, compatibility, sbom, web};
use maxim_model::manifest::{MEMBER_CTL, Manifest, MemberKind};
use maxim_model::names::Role;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Root of the checkout.
    pub checkout: PathBuf,
    /// The file to write.
    pub output: PathBuf,
    /// Cache folder, usually `~/.cache/maxim`.
    pub cache: PathBuf,
    /// Home folder, for the developer's key.
    pub home: PathBuf,
    /// Secret key file to sign with; none: the developer's, made when absent.
    pub key: Option<PathBuf>,
    /// Lock the package versions that are served today, instead of asking for the locked ones.
    pub relock: bool,
    /// Address of a Debian mirror; none: that of this machine's apt.
    pub mirror: Option<String>,
}

impl BuildOptions {
    /// The usual name of the file: `maxim-VERSION-ARCHITECTURE.bundle`.
    pub fn default_name() -> String {
        format!("maxim-{}-{ARCHITECTURE}.bundle", env!("CARGO_PKG_VERSION"))
    }
}

/// What was built.
#[derive(Debug, Clone)]
pub struct BuildReport {
    /// The file.
    pub path: PathBuf,
    /// Its SHA-256, hex.
    pub sha256: String,
    /// Its bytes.
    pub size: u64,
    /// What is in it.
    pub manifest: Manifest,
    /// Fingerprint of the key that signed it.
    pub fingerprint: String,
    /// The public half in a file's form, to be given to `--trust-key`.
    pub public_key: String,
    /// Changes of the lock file, when it was made anew.
    pub relocked: Vec<String>,
    /// How long each step took.
    pub timings: Vec<(String, Duration)>,
}

/// Builds a bundle.
pub fn build(options: &BuildOptions, progress: &dyn Progress) -> Result<BuildReport, BuildError> {
    let version = env!("CARGO_PKG_VERSION");
    let mut timings = Vec::new();
    let mut clock = Instant::now();
    let mut lap = |step: &str, clock: &mut Instant| {
        timings.push((step.to_owned(), clock.elapsed()));
        *clock = Instant::now();
    };
    fs::create_dir_all(&options.cache).map_err(BuildError::file("cannot make the folder", &options.cache))?;
    let key = match &options.key {
        Some(path) => SigningKey::load(path)?,
        None => SigningKey::developer(&options.home)?,
    };
    progress.step("tools");
    tools(&options.checkout)?;
    lap("tools", &mut clock);

    let matrix = compatibility::read(&options.checkout)?;
    let definitions = image::definitions()?;
    progress.step("lock");
    let (lock, relocked) = lock(options, &definitions, progress)?;
    lap("lock", &mut clock);

    progress.step("images");
    let images = images(options, &definitions, &lock, progress)?;
    lap("images", &mut clock);

    progress.step("programs");
    let programs = portable::compile(&options.checkout, &options.cache, progress)?;
    lap("programs", &mut clock);

    progress.step("web chat");
    let chat = web::make(&options.checkout, &options.cache)?;
    lap("web chat", &mut clock);

    progress.step("bundle");
    let document =
        |path: &str, bytes: Vec<u8>| Part::of_bytes(path, MemberKind::Document, path, version, &[], bytes);
    let mut parts = Vec::new();
    for ((_, name), file) in PROGRAMS.iter().zip(&programs.paths) {
        let (path, roles): (String, &[Role]) = match *name {
            "maxim-ctl" => (MEMBER_CTL.to_owned(), &[]),
            "maxim-im" => (format!("bin/{name}"), &[Role::Im]),
            _ => (format!("bin/{name}"), &[Role::Console]),
        };
        parts.push(Part::of_file(&path, MemberKind::Binary, name, version, roles, file)?);
    }
    let others = parts.split_off(1);
    parts.push(document("bundle.lock", lock.to_text().into_bytes()));
    parts.push(document("sbom.cdx.json", sbom::make(&options.checkout, version, &lock, &images, true)?));
    let licence = options.checkout.join("LICENSE");
    parts.push(document("LICENSE", fs::read(&licence).map_err(BuildError::file("cannot read", &licence))?));
    parts.extend(texts(&options.checkout, "playbooks", MemberKind::Playbook, version)?);
    parts.extend(texts(&options.checkout, "templates", MemberKind::Template, version)?);
    parts.extend(others);
    let mut archive =
        Part::of_file("web.tar.zst", MemberKind::Archive, "web", version, &[Role::Im], &chat.path)?;
    archive.member.unpacked_size = chat.packed.unpacked_size;
    parts.push(archive);
    for (name, image) in &images {
        let roles: Vec<Role> = Role::ALL.into_iter().filter(|role| role.name() == name).collect();
        let path = format!("images/{name}.tar.zst");
        let locked = lock.images.get(name).map_or("0", |locked| locked.version.as_str());
        let mut part = Part::of_file(&path, MemberKind::Image, name, locked, &roles, &image.path)?;
        if part.member.sha256 != image.packed.sha256 {
            let problem =
                format!("{} in the cache is damaged; remove it and build again", image.path.display());
            return Err(BuildError::Image { image: name.clone(), problem });
        }
        part.member.unpacked_size = image.packed.unpacked_size;
        parts.push(part);
    }
    let written = write(&options.output, version, &lock.digest(), Some(matrix), &key, &parts)?;
    lap("bundle", &mut clock);
    Ok(BuildReport {
        path: options.output.clone(),
        sha256: written.sha256,
        size: written.size,
        manifest: written.manifest,
        fingerprint: key.public().fingerprint(),
        public_key: key.public().to_file(),
        relocked,
        timings,
    })
}

/// Has the checkout install what building a bundle needs; a moment when all is there.
fn tools(checkout: &Path) -> Result<(), BuildError> {
    let script = checkout.join("tests/setup");
    run(
        Command::new(&script).args(["portable", "bundle"]).current_dir(checkout),
        "installing what building a bundle needs",
    )?;
    Ok(())
}

/// Reads the lock file, or makes it anew, and sees that it is about the images as they are defined.
fn lock(
    options: &BuildOptions,
    definitions: &BTreeMap<String, Definition>,
    progress: &dyn Progress,
) -> Result<(Lock, Vec<String>), BuildError> {
    let path = options.checkout.join(LOCK_PATH);
    let before = match fs::read_to_string(&path) {
        Ok(text) => Some(Lock::parse(&path, &text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(BuildError::file("cannot read", &path)(error)),
    };
    if options.relock {
        let lock = PrivateApt::new(&options.cache, mirrors(options)?)?.resolve(definitions, progress)?;
        let changes = match before {
            Some(Ok(before)) => before.differences(&lock),
            _ => vec![format!("{LOCK_PATH} is new")],
        };
        replace(&path, lock.to_text().as_bytes())?;
        return Ok((lock, changes));
    }
    let wrong = |problem: String| BuildError::Lock { path: path.clone(), problem };
    let lock = before.ok_or_else(|| wrong("it is not there".to_owned()))??;
    for (name, definition) in definitions {
        let locked =
            lock.images.get(name).ok_or_else(|| wrong(format!("it does not know the image {name}")))?;
        for wanted in &definition.packages {
            let known = |package: &LockedPackage| package.name == *wanted;
            if !definition.drops_package(wanted) && !locked.packages.iter().any(known) {
                return Err(wrong(format!("it does not have the package {wanted} of the image {name}")));
            }
        }
    }
    Ok((lock, Vec::new()))
}

fn mirrors(options: &BuildOptions) -> Result<Mirrors, BuildError> {
    match &options.mirror {
        Some(address) => {
            let main = address.trim_end_matches('/').to_owned();
            Ok(Mirrors { security: format!("{main}-security"), main })
        }
        None => Mirrors::of_this_machine(),
    }
}

/// Images from the cache, and those that are not there composed.
fn images(
    options: &BuildOptions,
    definitions: &BTreeMap<String, Definition>,
    lock: &Lock,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, Image>, BuildError> {
    let mut images = BTreeMap::new();
    let mut missing = Vec::new();
    for (name, definition) in definitions {
        let Some(locked) = lock.images.get(name) else { continue };
        let key = image::cache_key(name, definition, locked);
        match image::cached(&options.cache, &key) {
            Some(image) => {
                images.insert(name.clone(), image);
            }
            None => missing.push((name, definition, locked, key)),
        }
    }
    if missing.is_empty() {
        return Ok(images);
    }
    let packages: Vec<&LockedPackage> =
        missing.iter().flat_map(|(_, _, locked, _)| &locked.packages).collect();
    let debs = PrivateApt::new(&options.cache, mirrors(options)?)?.fetch(&packages, progress)?;
    for (name, definition, locked, key) in missing {
        if progress.cancelled() {
            return Err(BuildError::Interrupted { step: format!("composing image {name}") });
        }
        progress.detail("images", name);
        let image = image::compose(&options.cache, &key, name, definition, locked, &debs)?;
        images.insert(name.clone(), image);
    }
    Ok(images)
}

/// The files of a folder of the checkout as members of the same path.
fn texts(checkout: &Path, folder: &str, kind: MemberKind, version: &str) -> Result<Vec<Part>, BuildError> {
    let tree = Tree::read(&checkout.join(folder))?;
    let mut parts = Vec::new();
    for (path, node) in tree.nodes() {
        if let Node::File(_, content) = node {
            let name = path.replace('/', "-");
            let full = format!("{folder}/{path}");
            parts.push(Part::of_bytes(&full, kind, &name, version, &[], content.to_vec()));
        }
    }
    Ok(parts)
}

/// Writes a file whole or not at all.
fn replace(path: &Path, content: &[u8]) -> Result<(), BuildError> {
    let failed = || BuildError::file("cannot write", path);
    let folder = path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
    let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(failed())?;
    temporary.write_all(content).and_then(|()| temporary.as_file().sync_all()).map_err(failed())?;
    use std::os::unix::fs::PermissionsExt;
    temporary.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed())?;
    temporary.persist(path).map_err(|error| failed()(error.error))?;
    Ok(())
}
