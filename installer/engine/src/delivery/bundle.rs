//! A bundle that was opened and is trusted: its members as content, texts and the agent's program.
//!
//! Manifest and signature are read and checked when it is opened; each member when it is read.

use super::{Content, Library};
use crate::context::Ask;
use crate::error::{Class, EngineError};
use crate::files;
use crate::state::StateDir;
use maxim_model::bundle::{self, BundleError, Index, PublicKey};
use maxim_model::manifest::{MEMBER_CTL, Manifest, MemberKind};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest playbook or template that is read into memory.
const TEXT_LIMIT: u64 = 1 << 20;
/// Name of the file in a cluster's state that pins the bundle's key.
const PINNED_KEY: &str = "bundle.pub";

/// A bundle whose signature was checked against a trusted key. Clones share it.
#[derive(Debug, Clone)]
pub struct OpenBundle {
    path: PathBuf,
    file: Arc<File>,
    index: Arc<Index>,
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

impl OpenBundle {
    /// Opens a bundle: manifest and signature are read and checked against the pinned key, the given key, or a key
    /// whose fingerprint a person confirms. Members are checked when they are read. The key is pinned by
    /// [`OpenBundle::pin`] when something is applied, not before.
    pub fn open(path: &Path, state: &StateDir, trust: &Trust, ask: &dyn Ask) -> Result<Self, EngineError> {
        let file = File::open(path).map_err(|error| {
            EngineError::usage("bundle", format!("{}: {error}", path.display()))
                .hint("name the bundle file with --bundle")
        })?;
        let file = Arc::new(file);
        let read = |trust: &bundle::Trust| {
            Index::read(FileAt { file: Arc::clone(&file), position: 0 }, trust)
                .map_err(|error| refused(&error))
        };
        let known = known_keys(state, trust)?;
        let index = if known.is_empty() {
            let index = read(&bundle::Trust::Carried)?;
            let fingerprint = index.key().fingerprint();
            if !ask.trust_bundle_key(&fingerprint) {
                return Err(EngineError::refused(
                    "bundle",
                    format!("nobody has confirmed the key of this bundle, fingerprint {fingerprint}"),
                )
                .hint("compare the fingerprint with the publisher's and confirm it on a terminal, or name the key with --trust-key FILE"));
            }
            index
        } else {
            read(&bundle::Trust::Keys(known))?
        };
        index.require_architecture(std::env::consts::ARCH).map_err(|error| refused(&error))?;
        Ok(Self { path: path.to_owned(), file, index: Arc::new(index) })
    }

    /// Path of the bundle file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        self.index.manifest()
    }

    /// Reads the whole bundle once and checks every byte of it, on a thread of its own; an install goes on meanwhile
    /// and asks for the outcome before anything of it is unpacked.
    pub(crate) fn verify_beside(&self) -> std::thread::JoinHandle<Result<(), EngineError>> {
        let (reader, key) = (self.reader(), self.index.key().clone());
        std::thread::spawn(move || {
            let reader = io::BufReader::with_capacity(1 << 20, reader);
            bundle::verify(reader, &bundle::Trust::Keys(vec![key]), &mut |_, _| {})
                .map(|_| ())
                .map_err(|error| refused(&error))
        })
    }

    /// Pins the bundle's key in the state of the cluster.
    pub(crate) fn pin(&self, state: &StateDir) -> Result<(), EngineError> {
        let path = state.file(PINNED_KEY);
        if path.exists() {
            return Ok(());
        }
        state.create()?;
        files::write_whole(&path, self.index.key().to_file().as_bytes(), 0o644)
    }

    /// Digest of the manifest.
    pub(super) fn manifest_sha256(&self) -> &str {
        self.index.manifest_sha256()
    }

    /// Content of a member of this size.
    pub(super) fn content(&self, member: &str, size: u64) -> Result<Content, EngineError> {
        let reader = self.index.content(self.reader(), member).map_err(|error| refused(&error))?;
        Ok(Content { size, reader: Box::new(reader) })
    }

    /// The bytes of its `maxim.ctl`, for hosts.
    pub(crate) fn program(&self) -> Result<Box<dyn Read + Send>, EngineError> {
        self.content(MEMBER_CTL, 0).map(|content| content.reader)
    }

    fn reader(&self) -> FileAt {
        FileAt { file: Arc::clone(&self.file), position: 0 }
    }

    pub(super) fn library(&self) -> Result<Library, EngineError> {
        let mut playbooks = Vec::new();
        let mut templates = Vec::new();
        for member in &self.manifest().members {
            let (prefix, texts) = match member.kind {
                MemberKind::Playbook => ("playbooks/", &mut playbooks),
                MemberKind::Template => ("templates/", &mut templates),
                _ => continue,
            };
            let bytes =
                self.index.bytes(self.reader(), &member.path, TEXT_LIMIT).map_err(|error| refused(&error))?;
            let text = String::from_utf8(bytes)
                .map_err(|_| EngineError::refused("bundle", format!("{} is no text", member.path)))?;
            texts.push((member.path.trim_start_matches(prefix).to_owned(), text));
        }
        Library::from_texts(playbooks, templates)
    }
}

/// The pinned key alone when there is one; else those that were named.
fn known_keys(state: &StateDir, trust: &Trust) -> Result<Vec<PublicKey>, EngineError> {
    let pinned = state.file(PINNED_KEY);
    if let Some(text) = files::read_optional(&pinned)? {
        return Ok(vec![parse_key(&pinned, &text)?]);
    }
    let mut keys = Vec::new();
    for path in [&trust.key_file, &trust.developer_key].into_iter().flatten() {
        match files::read_optional(path)? {
            Some(text) => keys.push(parse_key(path, &text)?),
            None if Some(path) == trust.key_file.as_ref() => {
                return Err(EngineError::usage(
                    "bundle",
                    format!("--trust-key {}: no such file", path.display()),
                ));
            }
            None => {}
        }
    }
    Ok(keys)
}

fn parse_key(path: &Path, text: &str) -> Result<PublicKey, EngineError> {
    PublicKey::parse(text).map_err(|error| {
        EngineError::usage("bundle", format!("{}: {error}", path.display())).hint(error.hint())
    })
}

fn refused(error: &BundleError) -> EngineError {
    let mut cause = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        cause = format!("{cause}: {source}");
    }
    EngineError::new(Class::Refused, "bundle", cause).hint(error.hint())
}

/// Reads a shared file from a position of its own, so that several hosts are fed at once.
#[derive(Debug)]
struct FileAt {
    file: Arc<File>,
    position: u64,
}

impl Read for FileAt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for FileAt {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let wanted = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(step) => self.position.checked_add_signed(step),
            SeekFrom::End(step) => self.file.metadata()?.len().checked_add_signed(step),
        };
        self.position = wanted.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
