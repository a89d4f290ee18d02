//! Walking through a bundle: all of it in constant memory ([`verify`]), or its headers with contents on demand
//! ([`Index`]).

use super::header::{BLOCK, Header, padding, parse, path_problem};
use super::{BundleError, MANIFEST_LIMIT, PublicKey, SIGNATURE_LIMIT, Trust};
use crate::manifest::{
    MANIFEST_FORMAT, MEMBER_CTL, MEMBER_MANIFEST, MEMBER_SIGNATURE, Manifest, Member, MemberKind,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};

/// What a reader works with at a time.
const CHUNK: usize = 64 << 10;

/// How errors call what comes after the last member.
const END: &str = "its end";

/// Outcome of [`verify`].
#[derive(Debug, Clone)]
pub struct Verified {
    /// What the bundle holds.
    pub manifest: Manifest,
    /// Hex.
    pub manifest_sha256: String,
    /// The key that signed it.
    pub key: PublicKey,
    /// Bytes of the whole file.
    pub size: u64,
}

/// Reads a whole bundle once, from its first byte to its last, and checks all of it in constant memory.
/// `on_member` is called with the path after each member that was found good and with the bytes read so far.
///
/// # Errors
/// The first thing that is wrong, naming the member.
pub fn verify<R: Read>(
    input: R,
    trust: &Trust,
    on_member: &mut dyn FnMut(&str, u64),
) -> Result<Verified, BundleError> {
    let mut walk = Walk { input, position: 0 };
    let control = walk.header(MEMBER_CTL, None)?;
    let control_digest = walk.digest(MEMBER_CTL, control.size)?;
    let opening = walk.opening(trust)?;
    let mut members = opening.manifest.members.iter();
    if let Some(member) = members.next() {
        control_matches(&control, member)?;
        compare(member, &control_digest)?;
        on_member(&member.path, walk.position);
    }
    for member in members {
        walk.header(&member.path, Some(member))?;
        let found = walk.digest(&member.path, member.size)?;
        compare(member, &found)?;
        on_member(&member.path, walk.position);
    }
    walk.end()?;
    Ok(Verified {
        manifest: opening.manifest,
        manifest_sha256: opening.manifest_sha256,
        key: opening.key,
        size: walk.position,
    })
}

/// Where everything is in a bundle whose signature, order, headers and length are right. Contents are checked when
/// they are read.
#[derive(Debug, Clone)]
pub struct Index {
    manifest: Manifest,
    manifest_sha256: String,
    key: PublicKey,
    /// Where the content of each member begins; parallel to the manifest's members.
    offsets: Vec<u64>,
    size: u64,
}

impl Index {
    /// Reads manifest, signature and all headers of a bundle, and skips the contents.
    ///
    /// # Errors
    /// The first thing that is wrong, naming the member.
    pub fn read<R: Read + Seek>(mut input: R, trust: &Trust) -> Result<Self, BundleError> {
        let io = |source| BundleError::Io { member: MEMBER_CTL.to_owned(), source };
        let size = input.seek(SeekFrom::End(0)).map_err(io)?;
        input.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut walk = Walk { input, position: 0 };
        let control = walk.header(MEMBER_CTL, None)?;
        let mut offsets = vec![walk.position];
        walk.skip(MEMBER_CTL, control.size, size)?;
        let opening = walk.opening(trust)?;
        let mut members = opening.manifest.members.iter();
        if let Some(member) = members.next() {
            control_matches(&control, member)?;
        }
        for member in members {
            walk.header(&member.path, Some(member))?;
            offsets.push(walk.position);
            walk.skip(&member.path, member.size, size)?;
        }
        walk.end()?;
        Ok(Self {
            manifest: opening.manifest,
            manifest_sha256: opening.manifest_sha256,
            key: opening.key,
            offsets,
            size,
        })
    }

    /// What the bundle holds.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the manifest, hex: the identity of the bundle.
    pub fn manifest_sha256(&self) -> &str {
        &self.manifest_sha256
    }

    /// The key that signed the bundle.
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Bytes of the whole file.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Refuses a bundle that is for other processors.
    pub fn require_architecture(&self, wanted: &str) -> Result<(), BundleError> {
        if self.manifest.architecture == wanted {
            return Ok(());
        }
        Err(BundleError::Architecture {
            found: self.manifest.architecture.clone(),
            wanted: wanted.to_owned(),
        })
    }

    /// The content of a member, as a reader that fails instead of ending when the digest is not the signed one. What
    /// it gave before must not be used unless it was read to its end.
    ///
    /// # Errors
    /// When there is no such member or the place in the file cannot be reached.
    pub fn content<R: Read + Seek>(&self, mut input: R, path: &str) -> Result<Content<R>, BundleError> {
        let at = self.manifest.members.iter().position(|member| member.path == path);
        let Some((member, offset)) =
            at.and_then(|at| Some((self.manifest.members.get(at)?, self.offsets.get(at)?)))
        else {
            return Err(BundleError::malformed(path, "the manifest names no such member"));
        };
        input
            .seek(SeekFrom::Start(*offset))
            .map_err(|source| BundleError::Io { member: path.to_owned(), source })?;
        Ok(Content { input, member: member.clone(), left: member.size, digest: Some(Sha256::new()) })
    }

    /// A whole member in memory, checked; for playbooks, templates and documents.
    ///
    /// # Errors
    /// As [`Index::content`], and when the member is larger than `limit` bytes or damaged.
    pub fn bytes<R: Read + Seek>(&self, input: R, path: &str, limit: u64) -> Result<Vec<u8>, BundleError> {
        let mut content = self.content(input, path)?;
        let size = content.member.size;
        if size > limit {
            return Err(BundleError::malformed(
                path,
                format!("it has {size} bytes, at most {limit} are read"),
            ));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        content.read_to_end(&mut bytes).map_err(|error| unwrap_io(path, error))?;
        Ok(bytes)
    }
}

/// See [`Index::content`].
#[derive(Debug)]
pub struct Content<R> {
    input: R,
    member: Member,
    left: u64,
    digest: Option<Sha256>,
}

impl<R> Content<R> {
    /// The member that is read.
    pub const fn member(&self) -> &Member {
        &self.member
    }
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            if let Some(digest) = self.digest.take() {
                compare(&self.member, &hex::encode(digest.finalize()))
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            return Ok(0);
        }
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.input.read(&mut buffer[..want])?;
        if got == 0 {
            let error = BundleError::malformed(&self.member.path, format!("{} bytes are missing", self.left));
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error));
        }
        if let Some(digest) = &mut self.digest {
            digest.update(&buffer[..got]);
        }
        self.left -= got as u64;
        // The check comes with the last bytes, so that a caller who reads exactly `size` bytes gets it as well.
        if self.left == 0
            && let Some(digest) = self.digest.take()
        {
            compare(&self.member, &hex::encode(digest.finalize()))
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        Ok(got)
    }
}

/// Brings our own error back out of the one of `Read`.
fn unwrap_io(member: &str, error: io::Error) -> BundleError {
    match error.downcast::<BundleError>() {
        Ok(inner) => inner,
        Err(source) => BundleError::Io { member: member.to_owned(), source },
    }
}

/// What the first three members say.
struct Opening {
    manifest: Manifest,
    manifest_sha256: String,
    key: PublicKey,
}

/// A position in the input that only moves forward.
struct Walk<R> {
    input: R,
    position: u64,
}

impl<R: Read> Walk<R> {
    /// Reads the next header, which must be this member's.
    fn header(&mut self, path: &str, member: Option<&Member>) -> Result<Header, BundleError> {
        let mut block = [0_u8; BLOCK];
        self.fill(path, &mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            return Err(BundleError::malformed(path, "it is missing: the bundle ends before it"));
        }
        let found = parse(&block).map_err(|problem| BundleError::malformed(path, problem))?;
        if found.path != path {
            return Err(BundleError::malformed(path, format!("`{}` stands in its place", found.path)));
        }
        let mode = match member.map(|member| member.kind) {
            Some(MemberKind::Binary) => 0o755,
            None if path == MEMBER_CTL => 0o755,
            _ => 0o644,
        };
        if found.mode != mode {
            return Err(BundleError::malformed(
                path,
                format!("its mode is {:o} and not {mode:o}", found.mode),
            ));
        }
        if let Some(member) = member
            && member.size != found.size
        {
            return Err(size_differs(member, found.size));
        }
        Ok(found)
    }

    /// Manifest and signature, with the signature checked before anything in the manifest is believed.
    fn opening(&mut self, trust: &Trust) -> Result<Opening, BundleError> {
        let manifest_bytes = self.small(MEMBER_MANIFEST, MANIFEST_LIMIT)?;
        let signature = self.small(MEMBER_SIGNATURE, SIGNATURE_LIMIT)?;
        let parsed = serde_json::from_slice::<Manifest>(&manifest_bytes).map_err(|error| error.to_string());
        let key = trust.check(&manifest_bytes, &parsed, &signature)?;
        let manifest = parsed.map_err(|problem| BundleError::malformed(MEMBER_MANIFEST, problem))?;
        sound(&manifest)?;
        Ok(Opening { manifest, manifest_sha256: hex::encode(Sha256::digest(&manifest_bytes)), key })
    }

    /// A whole member of bounded size with its padding.
    fn small(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, BundleError> {
        let size = self.header(path, None)?.size;
        if size > limit {
            return Err(BundleError::malformed(
                path,
                format!("it has {size} bytes, at most {limit} are allowed"),
            ));
        }
        let mut bytes = vec![0; size as usize];
        self.fill(path, &mut bytes)?;
        self.padding(path, size)?;
        Ok(bytes)
    }

    /// The digest of a content, hex; its padding is read as well.
    fn digest(&mut self, path: &str, size: u64) -> Result<String, BundleError> {
        let mut digest = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            self.fill(path, &mut chunk[..want])?;
            digest.update(&chunk[..want]);
            left -= want as u64;
        }
        self.padding(path, size)?;
        Ok(hex::encode(digest.finalize()))
    }

    fn padding(&mut self, path: &str, size: u64) -> Result<(), BundleError> {
        let mut rest = [0_u8; BLOCK];
        let rest = &mut rest[..padding(size) as usize];
        self.fill(path, rest)?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(BundleError::malformed(path, "there are bytes between it and the next member"));
        }
        Ok(())
    }

    /// Two zero blocks, and nothing more.
    fn end(&mut self) -> Result<(), BundleError> {
        let mut blocks = [0_u8; 2 * BLOCK];
        self.fill(END, &mut blocks)?;
        if blocks.iter().any(|byte| *byte != 0) {
            let first: [u8; BLOCK] = std::array::from_fn(|at| blocks[at]);
            return Err(match parse(&first) {
                Ok(extra) => BundleError::malformed(&extra.path, "the manifest does not name it"),
                Err(_) => {
                    BundleError::malformed(END, "something stands where the closing zero blocks should be")
                }
            });
        }
        let mut one = [0_u8; 1];
        let more = self.input.read(&mut one).map_err(|source| io_at(END, source))?;
        if more != 0 {
            return Err(BundleError::malformed(END, "there is data after it"));
        }
        Ok(())
    }

    fn fill(&mut self, path: &str, buffer: &mut [u8]) -> Result<(), BundleError> {
        match self.input.read_exact(buffer) {
            Ok(()) => {
                self.position += buffer.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(BundleError::malformed(path, "the file is cut off there"))
            }
            Err(source) => Err(io_at(path, source)),
        }
    }
}

impl<R: Read + Seek> Walk<R> {
    /// Passes over a content, whose padding is read.
    fn skip(&mut self, path: &str, content: u64, size: u64) -> Result<(), BundleError> {
        let end = self.position.saturating_add(content);
        if end > size {
            return Err(BundleError::malformed(path, "the file is cut off there"));
        }
        self.position = self.input.seek(SeekFrom::Start(end)).map_err(|source| io_at(path, source))?;
        self.padding(path, content)
    }
}

fn io_at(member: &str, source: io::Error) -> BundleError {
    BundleError::Io { member: member.to_owned(), source }
}

fn size_differs(member: &Member, found: u64) -> BundleError {
    BundleError::malformed(&member.path, format!("it has {found} bytes, the manifest says {}", member.size))
}

fn control_matches(found: &Header, member: &Member) -> Result<(), BundleError> {
    if found.size == member.size { Ok(()) } else { Err(size_differs(member, found.size)) }
}

fn compare(member: &Member, found: &str) -> Result<(), BundleError> {
    if member.sha256 == found {
        return Ok(());
    }
    Err(BundleError::Digest {
        member: member.path.clone(),
        wanted: member.sha256.clone(),
        found: found.to_owned(),
    })
}

/// Rules of a manifest that its type does not hold.
fn sound(manifest: &Manifest) -> Result<(), BundleError> {
    let wrong = |problem: String| BundleError::malformed(MEMBER_MANIFEST, problem);
    if manifest.format != MANIFEST_FORMAT {
        return Err(wrong(format!(
            "its format is {}, and this version of Maxim reads format {MANIFEST_FORMAT}",
            manifest.format
        )));
    }
    if manifest.members.first().map(|member| member.path.as_str()) != Some(MEMBER_CTL) {
        return Err(wrong(format!("its first member is not {MEMBER_CTL}")));
    }
    let mut paths = BTreeSet::from([MEMBER_MANIFEST, MEMBER_SIGNATURE]);
    for member in &manifest.members {
        if let Some(problem) = path_problem(&member.path) {
            return Err(BundleError::malformed(&member.path.escape_debug().to_string(), problem));
        }
        if !paths.insert(&member.path) {
            return Err(BundleError::malformed(&member.path, "the manifest names it twice"));
        }
        // Name and version become folder names on hosts.
        for text in [&member.name, &member.version] {
            if text.contains('/') || path_problem(text).is_some() {
                return Err(BundleError::malformed(
                    &member.path,
                    "its name or version has forbidden characters",
                ));
            }
        }
        if member.sha256.len() != 64
            || !member.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(BundleError::malformed(&member.path, "its SHA-256 is not 64 hexadecimal digits"));
        }
    }
    Ok(())
}
