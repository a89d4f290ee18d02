//! The file itself: a tar in zstd beside its place, redacted piece by piece, put there in one step when it is whole.

use super::redact::Redactor;
use super::{Entry, Missing};
use crate::error::EngineError;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Everything together, before compression: what is over it is not taken along and named as missing.
const TOTAL_LIMIT: u64 = 256 << 20;
const LEVEL: i32 = 6;

/// A support bundle that is being written. What was not finished leaves nothing behind.
pub(super) struct Archive {
    path: PathBuf,
    folder: String,
    redactor: Redactor,
    tar: tar::Builder<zstd::Encoder<'static, NamedTempFile>>,
    mtime: u64,
    total: u64,
    entries: Vec<Entry>,
    missing: Vec<Missing>,
}

impl Archive {
    /// Begins one for a path where nothing is yet. `folder`: what everything lies below inside.
    pub fn begin(path: &Path, folder: &str, redactor: Redactor) -> Result<Self, EngineError> {
        if path.symlink_metadata().is_ok() {
            return Err(there_already(path));
        }
        let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // 0600, as every temporary file.
        let draft = tempfile::Builder::new()
            .prefix(".maxim-support-")
            .tempfile_in(beside)
            .map_err(|error| failed(path, &error))?;
        let encoder = zstd::Encoder::new(draft, LEVEL).map_err(|error| failed(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            folder: folder.to_owned(),
            redactor,
            tar: tar::Builder::new(encoder),
            mtime: u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default(),
            total: 0,
            entries: Vec::new(),
            missing: Vec::new(),
        })
    }

    /// What must not be shown.
    pub const fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Adds a text, redacted.
    pub fn add(&mut self, path: &str, what: &str, text: &str) -> Result<(), EngineError> {
        let text = self.redactor.text(text);
        self.put(path, what, &text, false)
    }

    /// Adds the end of a text, whole lines of at most `limit` bytes, redacted.
    pub fn add_end(&mut self, path: &str, what: &str, text: &str, limit: usize) -> Result<(), EngineError> {
        // Redacted before it is cut: what a cut left of a secret would not be known any more.
        let text = self.redactor.text(text);
        let end = end_of(&text, limit);
        self.put(path, what, end, end.len() < text.len())
    }

    /// Adds what was redacted already. `shortened`: its beginning is not there.
    pub fn put(&mut self, path: &str, what: &str, text: &str, shortened: bool) -> Result<(), EngineError> {
        let bytes = text.len() as u64;
        if self.total + bytes > TOTAL_LIMIT {
            self.lack("", path, "the bundle would be larger than 256 MiB; ask for fewer lines");
            return Ok(());
        }
        self.total += bytes;
        self.append(path, text.as_bytes())?;
        self.entries.push(Entry { path: path.into(), what: what.into(), bytes, shortened });
        Ok(())
    }

    /// Notes what is not there.
    pub fn lack(&mut self, host: &str, what: &str, cause: &str) {
        let cause = self.redactor.text(cause);
        self.missing.push(Missing { host: host.into(), what: what.into(), cause });
    }

    /// Puts the index in the order of paths, whoever was first.
    pub fn sort(&mut self) {
        self.entries.sort_by(|one, other| one.path.cmp(&other.path));
        self.missing.sort_by(|one, other| (&one.host, &one.what).cmp(&(&other.host, &other.what)));
    }

    /// What is there.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What is not.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Writes the index and puts the file into its place; its bytes. What came there meanwhile is left alone.
    pub fn finish(mut self, index: &str) -> Result<u64, EngineError> {
        self.append("index.json", index.as_bytes())?;
        let path = self.path;
        let wrong = |error: std::io::Error| failed(&path, &error);
        let draft = self.tar.into_inner().and_then(zstd::Encoder::finish).map_err(wrong)?;
        draft.as_file().sync_all().map_err(wrong)?;
        let bytes = draft.as_file().metadata().map_err(wrong)?.len();
        match draft.persist_noclobber(&path) {
            Ok(_) => Ok(bytes),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(there_already(&path))
            }
            Err(error) => Err(wrong(error.error)),
        }
    }

    fn append(&mut self, path: &str, content: &[u8]) -> Result<(), EngineError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.mtime);
        let inside = format!("{}/{path}", self.folder);
        self.tar
            .append_data(&mut header, inside, content)
            .and_then(|()| self.tar.get_mut().flush())
            .map_err(|error| failed(&self.path, &error))
    }
}

/// The last whole lines of a text within a number of bytes.
pub(super) fn end_of(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut start = text.len() - limit;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let rest = &text[start..];
    rest.find('\n').map_or("", |line| &rest[line + 1..])
}

fn there_already(path: &Path) -> EngineError {
    EngineError::usage("support-bundle", format!("{}: something is there already", path.display()))
        .hint("name another file with -o; nothing is ever overwritten")
}

fn failed(path: &Path, error: &std::io::Error) -> EngineError {
    EngineError::failed("support-bundle", format!("{}: {error}", path.display()))
        .hint("name a file in a folder with room that this user may write to, with -o")
}

#[cfg(test)]
mod tests {
    use super::{Archive, end_of};
    use crate::support::redact::Redactor;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_end_is_whole_lines() {
        assert_eq!(end_of("one\ntwo\nthree\n", 100), "one\ntwo\nthree\n");
        assert_eq!(end_of("one\ntwo\nthree\n", 8), "three\n");
        assert_eq!(end_of("äöü\nß\n", 4), "ß\n");
        assert_eq!(end_of("one long line", 4), "");
    }

    #[test]
    fn it_is_whole_private_redacted_and_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("support.tar.zst");
        let begin = || Archive::begin(&path, "support", Redactor::new(["planted-9152".to_owned()]));
        let mut archive = begin().unwrap();
        archive.add("a/b.txt", "a text", "before planted-9152 after\n").unwrap();
        archive.lack("db1", "facts", "said planted-9152");
        assert_eq!(archive.missing()[0].cause, "said [redacted]");
        assert!(!path.exists(), "nothing is there before it is whole");
        archive.finish("{}\n").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let mut bytes = Vec::new();
        zstd::Decoder::new(std::fs::File::open(&path).unwrap()).unwrap().read_to_end(&mut bytes).unwrap();
        let mut found = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((entry.path().unwrap().display().to_string(), text));
        }
        assert_eq!(found[0], ("support/a/b.txt".to_owned(), "before [redacted] after\n".to_owned()));
        assert_eq!(found[1].0, "support/index.json");
        assert_eq!(begin().err().unwrap().exit_code(), 2);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }
}
