//! Putting the agent's program on a host: sent once, under the SHA-256 of its content, in a folder that only root can
//! read. Nothing is left of a transfer that did not end well.

use super::sudo::Sudo;
use super::{IDLE, START, SshHost, Stream as _, quote};
use crate::error::{Class, EngineError};
use crate::remote::ssh::stream::SshStream;
use std::io::{self, Read};
use std::time::Instant;

const PIECE: usize = 512 * 1024;
const STORED: &str = "MAXIM-AGENT-STORED";

/// Why sending stopped.
enum Stopped {
    /// What was to be sent is not what it should be.
    Source(io::Error),
    /// The way to the host.
    Way(io::Error),
    Cancelled,
}

impl SshHost {
    /// Puts the program on the host.
    pub(super) fn send_program(&mut self) -> Result<(), EngineError> {
        let source = self.programs().iter().find_map(|program| Some((self.digest(program), program.open()?)));
        let Some((digest, reader)) = source else {
            return Err(EngineError::failed("connect", "there is no program to send").on(&self.host));
        };
        let (digest, size) = digest?;
        let mut reader = reader.map_err(|error| error.on(&self.host))?;
        let software = quote(&self.means.software);
        let script = format!(
            "set -e; umask 022; mkdir -p {software}; umask 077; d={software}/agent; mkdir -p \"$d\"; chmod 0700 \"$d\"; \
             t=\"$d/.{digest}.$$\"; trap 'rm -f \"$t\"; rmdir \"$d\" {software} 2>/dev/null || :' EXIT; cat >\"$t\"; \
             [ \"$(wc -c <\"$t\")\" -eq {size} ] || {{ echo 'it did not arrive whole' >&2; exit 1; }}; \
             chmod 0700 \"$t\"; sync \"$t\" 2>/dev/null || sync; mv -f \"$t\" \"$d/{digest}\"; trap - EXIT; \
             for f in \"$d\"/* \"$d\"/.*; do [ -f \"$f\" ] && [ \"$f\" != \"$d/{digest}\" ] && rm -f \"$f\"; done; echo {STORED}"
        );
        let sudo =
            self.sudo.clone().ok_or_else(|| EngineError::failed("connect", "no way to root is known"))?;
        let mut stream = self.run(&script, &sudo)?;
        let sent = self.send_bytes(&mut stream, reader.as_mut());
        if matches!(sent, Err(Stopped::Cancelled)) || self.means.cancel.is_cancelled() {
            return Err(EngineError::interrupted("connect").on(&self.host));
        }
        let until = Instant::now() + START;
        while let Ok(Some(line)) = stream.line(until) {
            if line.trim_end() == STORED && sent.is_ok() {
                self.sent += size;
                return Ok(());
            }
        }
        let said = stream.diagnosis();
        let why = match sent {
            Err(Stopped::Source(error)) => {
                return Err(EngineError::new(Class::Refused, "bundle", error.to_string())
                    .on(&self.host)
                    .hint("the bundle is damaged or was changed: get it again, and check it with `maxim.ctl bundle verify`"));
            }
            Err(Stopped::Way(error)) if said.is_empty() => error.to_string(),
            _ => said,
        };
        let hint = if why.contains("No space left") {
            format!("free space on the file system of {}", self.means.software)
        } else if why.contains("Permission denied") || why.contains("not permitted") {
            "connect as root, or set `ssh: {sudo: true}` for this host".to_owned()
        } else {
            format!("{} must be a folder that can be written to", self.means.software)
        };
        Err(self.failed(
            "access.agent",
            format!("the agent's copy could not be put on the host: {why}"),
            &hint,
        ))
    }

    /// Removes a copy that was just sent and cannot be run, as well as it goes.
    pub(super) fn remove_program(&self) {
        let digests: Vec<String> = self
            .programs()
            .iter()
            .filter_map(|program| self.digest(program).ok())
            .map(|(digest, _)| digest)
            .collect();
        let (software, sudo) = (quote(&self.means.software), self.sudo.clone().unwrap_or(Sudo::No));
        let script = format!(
            "d={software}/agent; for s in {}; do rm -f \"$d/$s\"; done; rmdir \"$d\" {software} 2>/dev/null; echo {STORED}",
            digests.join(" ")
        );
        if let Ok(mut stream) = self.run(&script, &sudo) {
            let until = Instant::now() + START;
            while let Ok(Some(line)) = stream.line(until) {
                if line.trim_end() == STORED {
                    break;
                }
            }
        }
    }

    /// The last piece is sent when the reader has said that it is at its end, which is when it knows that all of it
    /// was right: what is wrong never arrives whole.
    fn send_bytes(&self, stream: &mut SshStream, reader: &mut dyn Read) -> Result<(), Stopped> {
        let mut piece = vec![0; PIECE];
        let mut next = vec![0; PIECE];
        let mut filled = read_whole(reader, &mut piece).map_err(Stopped::Source);
        while let Ok(count) = filled {
            if count == 0 {
                break;
            }
            if self.means.cancel.is_cancelled() {
                stream.close_input();
                return Err(Stopped::Cancelled);
            }
            filled = read_whole(reader, &mut next).map_err(Stopped::Source);
            if filled.is_err() {
                break;
            }
            stream.write_all(&piece[..count], Instant::now() + IDLE).map_err(Stopped::Way)?;
            std::mem::swap(&mut piece, &mut next);
        }
        stream.close_input();
        filled.map(|_| ())
    }
}

/// Fills the buffer as far as there is something to read.
fn read_whole(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
