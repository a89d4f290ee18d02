//! Where the bytes come from: a bundle, or the build folder of a checkout.
//!
//! Both are seen by the rest of the engine as a list of [`Artefact`]s with a way to open the content of each, and as
//! texts of playbooks and templates.

use crate::context::Ask;
use crate::error::EngineError;
use crate::state::StateDir;
use maxim_model::manifest::Manifest;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// A bundle whose signature was checked against a trusted key. Clones share it.
#[derive(Debug, Clone)]
pub struct OpenBundle {
    path: PathBuf,
    manifest: Arc<Manifest>,
}

/// Which key a bundle may be signed with. The key pinned in the cluster's state always counts first: a bundle of
/// another key is refused whatever stands here.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// `--trust-key FILE`: a minisign public key.
    pub key_file: Option<PathBuf>,
    /// Public key of the developer of this checkout; none outside of a checkout.
    pub developer_key: Option<PathBuf>,
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
}

/// All artefacts by name.
pub type Artefacts = BTreeMap<String, Artefact>;

impl OpenBundle {
    /// Opens a bundle: manifest and signature are read and checked against the pinned key, the given key, or a key
    /// whose fingerprint a person confirms. Members are checked when they are read.
    pub fn open(path: &Path, state: &StateDir, trust: &Trust, ask: &dyn Ask) -> Result<Self, EngineError> {
        let _ = (state, trust, ask);
        Err(EngineError::refused("bundle", format!("{} cannot be opened yet", path.display())))
    }

    /// Path of the bundle file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// Content on its way to a host.
pub struct Content {
    /// Bytes that `reader` will give.
    pub size: u64,
    /// The bytes; an error when they do not have the promised digest.
    pub reader: Box<dyn Read + Send>,
}
