//! Writing the file: manifest first decided, then everything in its order, whole or not at all.

use crate::ARCHITECTURE;
use crate::error::BuildError;
use crate::sign::SigningKey;
use maxim_model::bundle::header::{BLOCK, Header, SIZE_LIMIT, header, padding, path_problem};
use maxim_model::bundle::trusted_comment;
use maxim_model::manifest::{
    MANIFEST_FORMAT, MEMBER_CTL, MEMBER_MANIFEST, MEMBER_SIGNATURE, Manifest, Member, MemberKind,
};
use maxim_model::names::Role;
use maxim_model::upgrade::Compatibility;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where the content of a member comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file of this machine.
    File(PathBuf),
    /// In memory.
    Bytes(Vec<u8>),
}

/// A member to be written.
#[derive(Debug, Clone)]
pub struct Part {
    /// As in the manifest.
    pub member: Member,
    /// Content.
    pub source: Source,
}

impl Part {
    /// A part made of a file, which is read once for its hash.
    pub fn of_file(
        path: &str,
        kind: MemberKind,
        name: &str,
        version: &str,
        roles: &[Role],
        file: &Path,
    ) -> Result<Self, BuildError> {
        let failed = || BuildError::file("cannot read", file);
        let mut input = File::open(file).map_err(failed())?;
        let mut digest = Sha256::new();
        let mut size = 0;
        let mut chunk = vec![0; 256 << 10];
        loop {
            let got = input.read(&mut chunk).map_err(failed())?;
            if got == 0 {
                break;
            }
            digest.update(&chunk[..got]);
            size += got as u64;
        }
        let sha256 = hex::encode(digest.finalize());
        let member = member(path, kind, name, version, roles, sha256, size);
        Ok(Self { member, source: Source::File(file.to_owned()) })
    }

    /// A part made of bytes.
    pub fn of_bytes(
        path: &str,
        kind: MemberKind,
        name: &str,
        version: &str,
        roles: &[Role],
        bytes: Vec<u8>,
    ) -> Self {
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let member = member(path, kind, name, version, roles, sha256, bytes.len() as u64);
        Self { member, source: Source::Bytes(bytes) }
    }
}

fn member(
    path: &str,
    kind: MemberKind,
    name: &str,
    version: &str,
    roles: &[Role],
    sha256: String,
    size: u64,
) -> Member {
    Member {
        path: path.to_owned(),
        kind,
        name: name.to_owned(),
        version: version.to_owned(),
        sha256,
        size,
        unpacked_size: size,
        roles: roles.to_vec(),
    }
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// The manifest in it.
    pub manifest: Manifest,
    /// SHA-256 of the whole file, hex.
    pub sha256: String,
    /// Its bytes.
    pub size: u64,
}

/// Signs and writes a bundle. The first part must be `maxim.ctl`.
pub fn write(
    target: &Path,
    version: &str,
    lock_sha256: &str,
    compatibility: Option<Compatibility>,
    key: &SigningKey,
    parts: &[Part],
) -> Result<Written, BuildError> {
    let wrong = |problem: String| BuildError::Bundle { problem };
    if parts.first().map(|part| part.member.path.as_str()) != Some(MEMBER_CTL) {
        return Err(wrong(format!("its first member must be {MEMBER_CTL}")));
    }
    for part in parts {
        if let Some(problem) = path_problem(&part.member.path) {
            return Err(wrong(format!("{:?} is {problem}", part.member.path)));
        }
        if part.member.size > SIZE_LIMIT {
            return Err(wrong(format!("{} is larger than 8 GiB", part.member.path)));
        }
    }
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        version: version.to_owned(),
        architecture: ARCHITECTURE.to_owned(),
        lock_sha256: lock_sha256.to_owned(),
        public_key: key.public().to_base64(),
        compatibility,
        members: parts.iter().map(|part| part.member.clone()).collect(),
    };
    let mut text = serde_json::to_vec_pretty(&manifest).map_err(|error| wrong(error.to_string()))?;
    text.push(b'\n');
    let signature = key.sign(&text, &trusted_comment(version, ARCHITECTURE))?;

    let failed = || BuildError::file("cannot write", target);
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&folder).map_err(BuildError::file("cannot make the folder", &folder))?;
    let temporary = tempfile::NamedTempFile::new_in(&folder).map_err(failed())?;
    let mut output =
        Output { inner: BufWriter::with_capacity(1 << 20, temporary), digest: Sha256::new(), size: 0 };
    for (index, part) in parts.iter().enumerate() {
        output.part(part)?;
        if index == 0 {
            output
                .member(MEMBER_MANIFEST, 0o644, text.len() as u64, &mut text.as_slice())
                .map_err(failed())?;
            let bytes = signature.as_bytes();
            output.member(MEMBER_SIGNATURE, 0o644, bytes.len() as u64, &mut &*bytes).map_err(failed())?;
        }
    }
    output.write_all(&[0; 2 * BLOCK]).map_err(failed())?;
    let Output { inner, digest, size } = output;
    let temporary = inner.into_inner().map_err(|error| failed()(error.into_error()))?;
    let file = temporary.as_file();
    file.set_permissions(fs::Permissions::from_mode(0o644))
        .and_then(|()| file.sync_all())
        .map_err(failed())?;
    temporary.persist(target).map_err(|error| failed()(error.error))?;
    Ok(Written { manifest, sha256: hex::encode(digest.finalize()), size })
}

/// Counts and digests what goes into the file.
struct Output<W: Write> {
    inner: BufWriter<W>,
    digest: Sha256,
    size: u64,
}

impl<W: Write> Output<W> {
    fn part(&mut self, part: &Part) -> Result<(), BuildError> {
        let member = &part.member;
        let mode = if member.kind == MemberKind::Binary { 0o755 } else { 0o644 };
        let written = match &part.source {
            Source::Bytes(bytes) => self
                .member(&member.path, mode, member.size, &mut bytes.as_slice())
                .map_err(BuildError::file("cannot write", Path::new(&member.path)))?,
            Source::File(path) => {
                let mut file = File::open(path).map_err(BuildError::file("cannot read", path))?;
                self.member(&member.path, mode, member.size, &mut file)
                    .map_err(BuildError::file("cannot copy", path))?
            }
        };
        if written == member.sha256 {
            return Ok(());
        }
        Err(BuildError::Bundle { problem: format!("{} changed while it was being written", member.path) })
    }

    /// Header, content, padding; gives the digest of the content.
    fn member(&mut self, path: &str, mode: u32, size: u64, content: &mut dyn Read) -> io::Result<String> {
        self.write_all(&header(&Header { path: path.to_owned(), mode, size }))?;
        let mut digest = Sha256::new();
        let mut chunk = vec![0; 256 << 10];
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            let got = content.read(&mut chunk[..want])?;
            if got == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter meanwhile"));
            }
            digest.update(&chunk[..got]);
            self.write_all(&chunk[..got])?;
            left -= got as u64;
        }
        self.write_all(&[0; BLOCK][..padding(size) as usize])?;
        Ok(hex::encode(digest.finalize()))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)?;
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maxim_model::bundle::{Trust, verify};
    use std::process::Command;

    fn parts(folder: &Path) -> Vec<Part> {
        let file = folder.join("program");
        fs::write(&file, vec![1; 70_000]).unwrap();
        vec![
            Part::of_file("maxim.ctl", MemberKind::Binary, "maxim-ctl", "0.1.0", &[], &file).unwrap(),
            Part::of_bytes("LICENSE", MemberKind::Document, "LICENSE", "0.1.0", &[], b"text".to_vec()),
        ]
    }

    #[test]
    fn it_is_read_back_is_the_same_twice_and_plain_tar_opens_it() {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::developer(folder.path()).unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let written = write(&one, "0.1.0", "", None, &key, &parts(folder.path())).unwrap();
        write(&two, "0.1.0", "", None, &key, &parts(folder.path())).unwrap();
        let bytes = fs::read(&one).unwrap();
        assert_eq!(bytes, fs::read(&two).unwrap());
        assert_eq!(written.size, bytes.len() as u64);
        assert_eq!(written.sha256, hex::encode(Sha256::digest(&bytes)));
        let trust = Trust::Keys(vec![key.public().clone()]);
        let read = verify(bytes.as_slice(), &trust, &mut |_, _| {}).unwrap();
        assert_eq!(read.manifest, written.manifest);

        let output =
            Command::new("tar").args(["xf", "one", "maxim.ctl"]).current_dir(&folder).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(fs::read(folder.path().join("maxim.ctl")).unwrap(), vec![1; 70_000]);
    }

    #[test]
    fn what_would_break_the_format_is_refused_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::developer(folder.path()).unwrap();
        let target = folder.path().join("out/bundle");
        let mut bad = parts(folder.path());
        bad[1].member.path = "../LICENSE".into();
        assert!(write(&target, "0.1.0", "", None, &key, &bad).unwrap_err().to_string().contains(".."));
        let mut changed = parts(folder.path());
        fs::write(folder.path().join("program"), vec![2; 70_000]).unwrap();
        let error = write(&target, "0.1.0", "", None, &key, &changed).unwrap_err().to_string();
        assert!(error.contains("changed while"), "{error}");
        changed.swap(0, 1);
        assert!(
            write(&target, "0.1.0", "", None, &key, &changed)
                .unwrap_err()
                .to_string()
                .contains("first member")
        );
        assert_eq!(fs::read_dir(folder.path().join("out")).unwrap().count(), 0);
    }
}
