//! Log files with rotation: `NAME.log`, then `NAME.log.1` the newest of the old ones.
//!
//! The supervisor itself reads what services print and writes it here, so that a file can be rotated without the
//! service's help. A line is never split between files unless it is longer than a file may be.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A log that rotates itself.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    bytes: u64,
    files: u32,
    file: Option<File>,
    size: u64,
}

impl LogFile {
    /// Appends to what is there. `bytes` is the size at which it is rotated, `files` how many are kept.
    pub fn open(path: &Path, bytes: u64, files: u32) -> Self {
        Self { path: path.to_path_buf(), bytes, files: files.max(1), file: None, size: 0 }
    }

    /// Appends; a full disk loses the text, never the service.
    pub fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        if self.size > 0 && self.size + text.len() as u64 > self.bytes {
            self.rotate()?;
            return self.append(text);
        }
        if let Some(file) = &mut self.file {
            file.write_all(text)?;
            self.size += text.len() as u64;
        }
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        if number == 0 {
            self.path.clone()
        } else {
            PathBuf::from(format!("{}.{number}", self.path.display()))
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        self.size = 0;
        if self.files == 1 {
            return fs::remove_file(&self.path);
        }
        for number in (0..self.files - 1).rev() {
            let from = self.numbered(number);
            if from.exists() {
                fs::rename(from, self.numbered(number + 1))?;
            }
        }
        Ok(())
    }

    /// Copies everything from a pipe until its end, whole lines at a time.
    pub fn drain(&mut self, mut pipe: impl Read) {
        let mut buffer = vec![0_u8; 16 << 10];
        let mut kept = 0;
        loop {
            match pipe.read(&mut buffer[kept..]) {
                Ok(0) => break,
                Ok(count) => {
                    let end = kept + count;
                    let line_end = buffer[..end].iter().rposition(|&byte| byte == b'\n').map(|at| at + 1);
                    // A buffer full of one line is written as it is.
                    let cut = line_end.unwrap_or(if end == buffer.len() { end } else { 0 });
                    let _ = self.append(&buffer[..cut]);
                    buffer.copy_within(cut..end, 0);
                    kept = end - cut;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if kept > 0 {
            // There is room: a full buffer was written above.
            buffer[kept] = b'\n';
            let _ = self.append(&buffer[..=kept]);
        }
    }

    /// A line of the supervisor's own, with the time.
    pub fn note(&mut self, text: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let _ = self
            .append(format!("{}.{:03} supervisor: {text}\n", now.as_secs(), now.subsec_millis()).as_bytes());
    }
}

/// The last lines of a log, the rotated file before it included; at most 1 MiB is looked at.
pub fn tail(path: &Path, lines: usize) -> Vec<String> {
    let mut text = String::new();
    for file in [PathBuf::from(format!("{}.1", path.display())), path.to_path_buf()] {
        text.push_str(&last_bytes(&file, 512 << 10).unwrap_or_default());
    }
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
}

fn last_bytes(path: &Path, bound: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let start = size.saturating_sub(bound);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(bound).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if start == 0 {
        return Ok(text);
    }
    // The first line is most likely cut.
    Ok(text.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{LogFile, tail};

    #[test]
    fn rotates_between_lines_and_keeps_so_many() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let mut log = LogFile::open(&path, 100, 3);
        for number in 0..40 {
            log.append(format!("line number {number}\n").as_bytes()).unwrap();
        }
        let mut names: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["x.log", "x.log.1", "x.log.2"]);
        for name in names {
            let content = std::fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(content.len() <= 100 && content.starts_with("line number ") && content.ends_with('\n'));
        }
        assert_eq!(tail(&path, 2), ["line number 38", "line number 39"]);
    }

    #[test]
    fn a_pipe_is_copied_whole_even_without_a_last_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let text = format!("one\n{}\nlast", "x".repeat(100_000));
        LogFile::open(&path, 1 << 20, 2).drain(text.as_bytes());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{text}\n"));
    }

    #[test]
    fn a_restart_appends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        for text in ["a\n", "b\n"] {
            LogFile::open(&path, 1 << 20, 2).append(text.as_bytes()).unwrap();
        }
        assert_eq!(tail(&path, 10), ["a", "b"]);
    }
}
