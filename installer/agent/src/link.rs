//! The agent's end of the talk with the engine: requests in, replies out, and content bytes between.
//!
//! Lines are bounded; buffers that held a request are wiped, because requests carry passwords. Content that a task
//! leaves unread is drained, so that the next line is found where it begins.

pub mod raw;

use crate::error::{Failure, Result};
use maxim_model::wire::{ContentHeader, Reply, Request};
use sha2::{Digest, Sha256};
use std::io::{self, BufRead, BufReader, Read, Write};
use zeroize::Zeroize;

/// Bytes of a request at most. A whole host's tasks with their files are far below.
const LINE_BOUND: u64 = 32 << 20;

/// Bytes of the line that precedes content.
const HEADER_BOUND: u64 = 64 << 10;

/// Where a task gets the content that it lacks.
pub trait ContentSource {
    /// Asks for the content with this digest and size.
    fn open(&mut self, id: &str, sha256: &str, size: u64) -> Result<Content<'_>>;
}

/// Both directions.
pub struct Link<R, W> {
    input: BufReader<R>,
    output: W,
    /// Whether the engine has gone, where that can be seen without reading.
    gone: Option<fn() -> bool>,
}

impl<R: Read, W: Write> Link<R, W> {
    /// Over the agent's standard input and output.
    pub fn new(input: R, output: W) -> Self {
        Self { input: BufReader::with_capacity(256 << 10, input), output, gone: None }
    }

    /// With a way to see that the engine has gone.
    pub fn watching(mut self, gone: fn() -> bool) -> Self {
        self.gone = Some(gone);
        self
    }

    /// Whether the engine has gone. It sends nothing while it waits for an apply, so a stream that can be read then
    /// is one that has ended.
    pub fn gone(&self) -> bool {
        self.input.buffer().is_empty() && self.gone.is_some_and(|gone| gone())
    }

    /// The next request; `None` at the end of input. A line that is no request is an error that names why.
    pub fn request(&mut self) -> Result<Option<std::result::Result<Request, String>>> {
        let mut line = Vec::new();
        let count = (&mut self.input)
            .take(LINE_BOUND)
            .read_until(b'\n', &mut line)
            .map_err(|error| Failure::Wire(format!("cannot read: {error}")))?;
        if count == 0 {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            line.zeroize();
            return if count as u64 == LINE_BOUND {
                Err(Failure::Wire(format!("a request is longer than {LINE_BOUND} bytes")))
            } else {
                // The engine died within a line: as good as the end.
                Ok(None)
            };
        }
        let request = serde_json::from_slice(&line).map_err(|error| {
            // Only the kind of trouble and its place: serde's own text may quote values.
            format!("column {}: not a known request ({:?})", error.column(), error.classify())
        });
        line.zeroize();
        Ok(Some(request))
    }

    /// Sends one reply.
    pub fn reply(&mut self, reply: &Reply) -> Result<()> {
        let mut line = serde_json::to_vec(reply).map_err(|error| Failure::Wire(error.to_string()))?;
        line.push(b'\n');
        let sent = self.output.write_all(&line).and_then(|()| self.output.flush());
        line.zeroize();
        sent.map_err(|error| Failure::Wire(format!("cannot write: {error}")))
    }
}

impl<R: Read, W: Write> Link<R, W> {
    /// The line that precedes bytes of the engine's: how many, or why none.
    fn header(&mut self, of: &str) -> Result<ContentHeader> {
        let mut line = Vec::new();
        (&mut self.input)
            .take(HEADER_BOUND)
            .read_until(b'\n', &mut line)
            .map_err(|error| Failure::Wire(format!("cannot read: {error}")))?;
        if line.last() != Some(&b'\n') {
            return Err(Failure::Wire(format!("it ended where {of} was to come")));
        }
        serde_json::from_slice(&line).map_err(|error| Failure::Wire(format!("header of {of}: {error}")))
    }
}

impl<R: Read, W: Write> ContentSource for Link<R, W> {
    fn open(&mut self, id: &str, sha256: &str, size: u64) -> Result<Content<'_>> {
        self.reply(&Reply::NeedContent { id: id.to_owned(), sha256: sha256.to_owned(), size })?;
        let header = self.header("content")?;
        match header {
            ContentHeader { size: Some(found), refused: None } => {
                let content =
                    Content { input: &mut self.input, left: found, hash: Sha256::new(), broken: None };
                if found == size {
                    Ok(content)
                } else {
                    drop(content);
                    Err(Failure::Content {
                        what: format!("content of {id}: {found} bytes were offered, {size} expected"),
                        hint:
                            "the bundle does not fit its manifest; verify it with `maxim.ctl bundle verify`"
                                .into(),
                    })
                }
            }
            ContentHeader { refused: Some(why), .. } => Err(Failure::Content {
                what: format!("content of {id} is not available: {why}"),
                hint: "name the bundle that holds it with --bundle".into(),
            }),
            ContentHeader { size: None, refused: None } => {
                Err(Failure::Wire("an empty content header".into()))
            }
        }
    }
}

/// Content as it arrives. Dropping it reads what is left.
pub struct Content<'a> {
    input: &'a mut dyn Read,
    left: u64,
    hash: Sha256,
    broken: Option<String>,
}

impl Content<'_> {
    /// Reads what is left and compares the digest of everything with the promised one.
    pub fn verify(mut self, what: &str, sha256: &str) -> Result<()> {
        io::copy(&mut self, &mut io::sink())
            .map_err(|error| Failure::Wire(format!("content of {what}: {error}")))?;
        if let Some(why) = self.broken.take() {
            return Err(Failure::Wire(format!("content of {what}: {why}")));
        }
        let found = hex::encode(std::mem::take(&mut self.hash).finalize());
        if found.eq_ignore_ascii_case(sha256) {
            return Ok(());
        }
        Err(Failure::Content {
            what: format!("content of {what} has SHA-256 {found}, expected {sha256}"),
            hint: "the bundle is damaged or was changed; get it again and verify it with `maxim.ctl bundle verify`".into(),
        })
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let bound = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.input.read(&mut buffer[..bound])?;
        if count == 0 {
            self.broken = Some(format!("it ended with {} bytes still to come", self.left));
            self.left = 0;
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the content ended too early"));
        }
        self.hash.update(&buffer[..count]);
        self.left -= count as u64;
        Ok(count)
    }
}

impl Drop for Content<'_> {
    fn drop(&mut self) {
        let _ = io::copy(&mut (&mut *self.input).take(self.left), &mut io::sink());
    }
}

#[cfg(test)]
mod tests {
    use super::{ContentSource, Link};
    use maxim_model::wire::Request;
    use sha2::{Digest, Sha256};
    use std::io::Read;

    #[test]
    fn unread_content_is_drained_before_the_next_request() {
        let input = b"{\"size\":5}\nabcde{\"op\":\"hello\"}\n";
        let mut output = Vec::new();
        let mut link = Link::new(&input[..], &mut output);
        let mut content = link.open("x", "", 5).unwrap();
        let mut two = [0; 2];
        content.read_exact(&mut two).unwrap();
        drop(content);
        assert_eq!(link.request().unwrap().unwrap().unwrap(), Request::Hello);
        assert!(link.request().unwrap().is_none());
    }

    #[test]
    fn digest_and_length_are_compared() {
        let good = hex::encode(Sha256::digest(b"abcde"));
        for (input, size, ok) in [
            ("{\"size\":5}\nabcde", 5, true),
            ("{\"size\":5}\nabcdX", 5, false),
            ("{\"size\":4}\nabcd", 5, false),
            ("{\"size\":5}\nabc", 5, false),
            ("{\"refused\":\"none\"}\n", 5, false),
        ] {
            let mut output = Vec::new();
            let mut link = Link::new(input.as_bytes(), &mut output);
            let outcome = link.open("x", &good, size).and_then(|content| content.verify("x", &good));
            assert_eq!(outcome.is_ok(), ok, "{input}");
        }
    }

    #[test]
    fn a_line_that_is_no_request_is_told_without_its_values() {
        let mut output = Vec::new();
        let mut link = Link::new(&b"{\"op\":\"planted-secret\"}\n"[..], &mut output);
        let why = link.request().unwrap().unwrap().unwrap_err();
        assert!(!why.contains("planted"), "{why}");
    }
}
