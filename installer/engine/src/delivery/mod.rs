//! Where the bytes come from: a bundle, or the build folder of a checkout.
//!
//! Both are seen by the rest of the engine as a list of [`Artefact`]s with a way to open the content of each, and as
//! texts of playbooks and templates. Contents of a bundle are checked against the signed manifest while they stream;
//! an image is opened only when a host asks for it.

mod bundle;

pub use bundle::{OpenBundle, Trust};

use crate::error::EngineError;
use crate::fleet;
use crate::playbooks::Library;
use maxim_model::manifest::{MEMBER_CTL, MemberKind};
use maxim_model::names::Profile;
use maxim_model::topology::Topology;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where an action gets programs, images, playbooks and templates.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// Nowhere: enough for actions that install nothing (`status`, `logs`, `stop`, `uninstall` …).
    None,
    /// The build folder of a checkout (embedded profile).
    Checkout {
        /// Folder with `maxim-im` and `maxim-console`.
        bin_dir: PathBuf,
        /// Folder with the web chat; none: no web chat.
        web_root: Option<PathBuf>,
    },
    /// An opened and trusted bundle.
    Bundle(OpenBundle),
}

/// One thing that can be put on a host, as templates see it (`artefacts.NAME`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Artefact {
    /// Component or program name: `mariadb`, `maxim-im`, `web`.
    pub name: String,
    /// Version of the thing.
    pub version: String,
    /// `NAME-VERSION-first 12 digits of the hash`.
    pub artefact: String,
    /// Path on the host: image folder, program file, or folder of the web chat.
    pub path: String,
    /// SHA-256 of the content, hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Bytes when unpacked.
    pub unpacked_size: u64,
    /// True: it lies at `path` already and is never sent.
    pub in_place: bool,
    /// Where the content is read from here.
    #[serde(skip)]
    source: Source,
}

/// All artefacts by name.
pub type Artefacts = BTreeMap<String, Artefact>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// A file on this machine.
    File(PathBuf),
    /// A member of the bundle.
    Member(String),
    /// It is never sent.
    Nowhere,
}

/// Content on its way to a host.
pub struct Content {
    /// Bytes that `reader` will give.
    pub size: u64,
    /// The bytes; an error when they do not have the promised digest.
    pub reader: Box<dyn Read + Send>,
}

impl Delivery {
    /// Playbooks and templates.
    pub fn library(&self) -> Result<Library, EngineError> {
        match self {
            Self::None | Self::Checkout { .. } => Library::embedded(),
            Self::Bundle(bundle) => bundle.library(),
        }
    }

    /// Digest of the bundle's manifest; empty without a bundle.
    pub fn manifest_sha256(&self) -> &str {
        match self {
            Self::Bundle(bundle) => bundle.manifest_sha256(),
            _ => "",
        }
    }

    /// Everything that can be put on the hosts of a topology. `program` is the running `maxim-ctl`.
    pub fn artefacts(&self, topology: &Topology, program: &Path) -> Result<Artefacts, EngineError> {
        let software = &topology.paths.software;
        let mut all = Artefacts::new();
        match self {
            Self::None => {}
            Self::Checkout { bin_dir, web_root } => {
                let programs = [
                    ("maxim-ctl", program.to_owned()),
                    ("maxim-im", bin_dir.join("maxim-im")),
                    ("maxim-console", bin_dir.join("maxim-console")),
                ];
                let hashed = fleet::for_each(programs, 3, |(name, path)| {
                    path.is_file().then(|| program_file(name, &path, software))
                });
                for artefact in hashed.into_iter().flatten() {
                    let artefact = artefact?;
                    all.insert(artefact.name.clone(), artefact);
                }
                if let Some(web) = web_root.as_ref().filter(|web| web.join("index.html").is_file()) {
                    all.insert("web".into(), web_folder(web));
                }
            }
            Self::Bundle(bundle) => {
                for member in &bundle.manifest().members {
                    let artefact = member.artefact();
                    let name = if member.path == MEMBER_CTL { "maxim-ctl" } else { member.name.as_str() };
                    let path = match member.kind {
                        MemberKind::Image => format!("{software}/images/{artefact}"),
                        MemberKind::Archive => format!("{software}/web/{artefact}"),
                        MemberKind::Binary => format!("{software}/bin/{artefact}/{name}"),
                        MemberKind::Playbook | MemberKind::Template | MemberKind::Document => continue,
                    };
                    all.insert(
                        name.to_owned(),
                        Artefact {
                            name: name.to_owned(),
                            version: member.version.clone(),
                            artefact,
                            path,
                            sha256: member.sha256.clone(),
                            size: member.size,
                            unpacked_size: member.unpacked_size,
                            in_place: false,
                            source: Source::Member(member.path.clone()),
                        },
                    );
                }
            }
        }
        Ok(all)
    }

    /// Opens the content with a digest.
    pub fn content(&self, artefacts: &Artefacts, sha256: &str) -> Result<Content, EngineError> {
        let missing = || {
            EngineError::refused("content", format!("nothing here has the digest {sha256}"))
                .hint("run the command again; a file of the checkout was changed meanwhile")
        };
        let artefact = artefacts.values().find(|artefact| artefact.sha256 == sha256).ok_or_else(missing)?;
        match (&artefact.source, self) {
            (Source::File(path), _) => {
                let file = File::open(path).map_err(|error| {
                    EngineError::failed("content", format!("{}: {error}", path.display()))
                })?;
                Ok(Content { size: artefact.size, reader: Box::new(file) })
            }
            (Source::Member(member), Self::Bundle(bundle)) => bundle.content(member, artefact.size),
            _ => Err(missing()),
        }
    }
}

/// A program of the checkout: hashed now, copied below the root when it is not there yet, so that a later build does
/// not swap a program under a running service.
fn program_file(name: &str, path: &Path, software: &str) -> Result<Artefact, EngineError> {
    let failed = |error: io::Error| EngineError::failed("content", format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        digest.update(&buffer[..count]);
        size += count as u64;
    }
    let sha256 = hex::encode(digest.finalize());
    let version = env!("CARGO_PKG_VERSION");
    let artefact = format!("{name}-{version}-{}", &sha256[..12]);
    Ok(Artefact {
        name: name.into(),
        version: version.into(),
        path: format!("{software}/bin/{artefact}/{name}"),
        artefact,
        sha256,
        size,
        unpacked_size: size,
        in_place: false,
        source: Source::File(path.to_owned()),
    })
}

fn web_folder(path: &Path) -> Artefact {
    Artefact {
        name: "web".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        artefact: String::new(),
        path: path.display().to_string(),
        sha256: String::new(),
        size: 0,
        unpacked_size: 0,
        in_place: true,
        source: Source::Nowhere,
    }
}

/// Whether this delivery can install a profile at all; an error that says what is missing.
pub(crate) fn require(
    delivery: &Delivery,
    topology: &Topology,
    artefacts: &Artefacts,
) -> Result<(), EngineError> {
    if matches!(delivery, Delivery::None) {
        return Err(EngineError::usage("delivery", "there is nothing to install from")
            .hint("name a bundle with --bundle, or run ./maxim.ctl in a checkout"));
    }
    if topology.profile == Profile::Standard && !matches!(delivery, Delivery::Bundle(_)) {
        return Err(EngineError::usage("delivery", "the standard profile is installed from a bundle")
            .hint("build one with `maxim.ctl bundle build` and name it with --bundle"));
    }
    for host in &topology.hosts {
        for role in &host.roles {
            let needed = match role {
                maxim_model::names::Role::Im => "maxim-im",
                maxim_model::names::Role::Console => "maxim-console",
                other => other.name(),
            };
            if !artefacts.contains_key(needed) {
                return Err(EngineError::usage(
                    "delivery",
                    format!("`{needed}` is needed on {} and is not in what is installed from", host.name),
                )
                .hint(match delivery {
                    Delivery::Checkout { bin_dir, .. } => {
                        format!("build it: it is expected in {}", bin_dir.display())
                    }
                    _ => "take a bundle that has it".into(),
                }));
            }
        }
    }
    Ok(())
}

/// Artefacts as a bundle would give them, for the tests of templates.
#[cfg(test)]
pub(crate) fn sample_artefacts(software: &str) -> Artefacts {
    let one = |name: &str, version: &str, path: &str| {
        let artefact = format!("{name}-{version}-0f3a1b2c3d4e");
        (
            name.to_owned(),
            Artefact {
                name: name.into(),
                version: version.into(),
                path: path.replace('@', &artefact).replace("ROOT", software),
                artefact,
                sha256: "0f3a1b2c3d4e".to_owned() + &"0".repeat(52),
                size: 40 << 20,
                unpacked_size: 150 << 20,
                in_place: false,
                source: Source::Nowhere,
            },
        )
    };
    [
        one("mariadb", "11.8.6", "ROOT/images/@"),
        one("postgresql", "17.12", "ROOT/images/@"),
        one("redis", "8.0.2", "ROOT/images/@"),
        one("maxim-im", "0.1.0", "ROOT/bin/@/maxim-im"),
        one("maxim-console", "0.1.0", "ROOT/bin/@/maxim-console"),
        one("maxim-ctl", "0.1.0", "ROOT/bin/@/maxim-ctl"),
        one("web", "0.1.0", "ROOT/web/@"),
    ]
    .into()
}

#[cfg(test)]
mod tests {
    use super::{Delivery, require};
    use crate::sample;
    use std::io::Read;

    #[test]
    fn programs_of_a_checkout_have_a_versioned_place_below_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("maxim-ctl");
        for name in ["maxim-ctl", "maxim-im"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let topology = sample::embedded(&folder.path().join("root"));
        let delivery = Delivery::Checkout { bin_dir: folder.path().to_owned(), web_root: None };
        let artefacts = delivery.artefacts(&topology, &program).unwrap();
        let im = &artefacts["maxim-im"];
        assert!(im.path.starts_with(&format!("{}/root/bin/maxim-im-", folder.path().display())), "{im:?}");
        let mut text = String::new();
        delivery.content(&artefacts, &im.sha256).unwrap().reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "maxim-im");
        assert!(delivery.content(&artefacts, "00").is_err());
        let error = require(&delivery, &topology, &artefacts).unwrap_err();
        assert!(error.cause.contains("maxim-console"), "{error}");
    }

    #[test]
    fn the_standard_profile_wants_a_bundle() {
        let delivery = Delivery::Checkout { bin_dir: "/nonexistent".into(), web_root: None };
        let error =
            require(&delivery, &sample::three_hosts(), &std::collections::BTreeMap::new()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.hint.contains("--bundle"));
    }
}
