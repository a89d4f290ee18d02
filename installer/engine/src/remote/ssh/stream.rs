//! The streams of a remote command: lines and bytes with deadlines, and what it said on standard error.
//!
//! Given an open channel and the line it runs on. Standard error is read along, bounded, so that the far end never
//! stands still for it. Nothing here knows what is run.

use super::SUDO_REFUSED;
use super::session::Line;
use crate::remote::Stream;
use ssh2::Channel;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// Standard input and output of a remote command.
pub(super) struct SshStream {
    pub(super) line: Line,
    pub(super) channel: Channel,
    pub(super) pushed_back: Vec<u8>,
    pub(super) errors: Vec<u8>,
    pub(super) input_closed: bool,
}

impl SshStream {
    /// The next line with its end; none at the end of the output.
    pub(super) fn line(&mut self, until: Instant) -> io::Result<Option<String>> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(end) = self.pushed_back.iter().position(|byte| *byte == b'\n') {
                let rest = self.pushed_back.split_off(end + 1);
                let line = std::mem::replace(&mut self.pushed_back, rest);
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.receive(&mut buffer, left.min(crate::remote::SLICE)) {
                Ok(0) => return Ok(None),
                Ok(count) => self.pushed_back.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    // Sudo would ask twice more, and take what we send next for a password.
                    if self.errors.windows(SUDO_REFUSED.len()).any(|words| words == SUDO_REFUSED.as_bytes()) {
                        return Err(io::ErrorKind::PermissionDenied.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads from the channel; waits at most `wait`.
    fn receive(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
        let until = Instant::now() + wait;
        loop {
            match self.channel.read(buffer) {
                Ok(0) if self.channel.eof() => return Ok(0),
                Ok(0) => {}
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            self.drain_errors();
            if self.line_cancelled() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.line.wait(left.min(crate::remote::SLICE));
        }
    }

    fn line_cancelled(&self) -> bool {
        // Cancelling must not stop the reading of what an agent still says while it ends: `close_input` was called.
        !self.input_closed && self.line.cancelled()
    }

    /// Standard error must be read, or its window fills and the far end stands still.
    fn drain_errors(&mut self) {
        let mut buffer = [0; 1024];
        while let Ok(count) = self.channel.stderr().read(&mut buffer) {
            if count == 0 {
                break;
            }
            self.errors.extend_from_slice(&buffer[..count]);
            let extra = self.errors.len().saturating_sub(4096);
            self.errors.drain(..extra);
        }
    }
}

impl Stream for SshStream {
    fn write_all(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.channel.write(bytes) {
                Ok(count) => {
                    bytes = &bytes[count..];
                    if count > 0 {
                        continue;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // What the far end said before it ended hides its end from libssh2 until it is read.
            self.drain_errors();
            if self.channel.eof() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.line.wait(left.min(crate::remote::SLICE));
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
        if !self.pushed_back.is_empty() {
            let count = self.pushed_back.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.pushed_back[..count]);
            self.pushed_back.drain(..count);
            return Ok(count);
        }
        match self.receive(buffer, wait) {
            // The caller looks at the cancel flag itself.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(io::ErrorKind::TimedOut.into()),
            other => other,
        }
    }

    fn close_input(&mut self) {
        if !self.input_closed {
            self.input_closed = true;
            let channel = &mut self.channel;
            // A far end that is gone has no input to close.
            let _ = self.line.drive_quietly(Instant::now() + Duration::from_secs(2), || channel.send_eof());
        }
    }

    fn diagnosis(&mut self) -> String {
        let until = Instant::now() + Duration::from_millis(300);
        while !self.channel.eof() && Instant::now() < until {
            self.drain_errors();
            let mut rest = [0; 1024];
            if !matches!(self.channel.read(&mut rest), Ok(count) if count > 0) {
                self.line.wait(Duration::from_millis(20));
            }
        }
        self.drain_errors();
        String::from_utf8_lossy(&self.errors).trim().to_owned()
    }
}
