//! Carries bytes between a channel of a jump host and a local stream, until either side ends.

use super::session::Line;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ssh2::{BlockDirections, Channel};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

const BUFFER: usize = 128 * 1024;

/// Bytes on their way in one direction.
struct Pending {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
    ended: bool,
}

impl Pending {
    fn new() -> Self {
        Self { bytes: vec![0; BUFFER], from: 0, to: 0, ended: false }
    }

    /// Reads into an empty buffer, writes what is there. True when something moved.
    fn carry(&mut self, input: &mut impl Read, output: &mut impl Write) -> io::Result<bool> {
        let mut moved = false;
        if self.from == self.to && !self.ended {
            match input.read(&mut self.bytes) {
                Ok(0) => self.ended = true,
                Ok(count) => (self.from, self.to) = (0, count),
                Err(error) if waits(&error) => {}
                Err(error) => return Err(error),
            }
            moved |= self.from < self.to || self.ended;
        }
        while self.from < self.to {
            match output.write(&self.bytes[self.from..self.to]) {
                Ok(count) => {
                    self.from += count;
                    moved |= count > 0;
                }
                Err(error) if waits(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Runs until both sides have said everything, or one is broken; then both are closed.
pub(super) fn relay(line: &Line, mut channel: Channel, mut stream: UnixStream) {
    let (mut out, mut back) = (Pending::new(), Pending::new());
    loop {
        let outward = out.carry(&mut stream, &mut channel);
        let mut stream_out = &stream;
        let homeward = back.carry(&mut channel, &mut stream_out);
        let (Ok(outward), Ok(homeward)) = (outward, homeward) else { return };
        // Libssh2 says 0 both for the end and for nothing: only the former is one.
        if back.ended && !channel.eof() {
            back.ended = false;
        }
        if out.ended || (back.ended && back.from == back.to) {
            return;
        }
        if outward || (homeward && back.to > 0) {
            continue;
        }
        let session_wants = match line.session().block_directions() {
            BlockDirections::Outbound | BlockDirections::Both => PollFlags::POLLIN | PollFlags::POLLOUT,
            BlockDirections::Inbound | BlockDirections::None => PollFlags::POLLIN,
        };
        let mut stream_wants = PollFlags::empty();
        if out.from == out.to {
            stream_wants |= PollFlags::POLLIN;
        }
        if back.from < back.to {
            stream_wants |= PollFlags::POLLOUT;
        }
        let mut waited =
            [PollFd::new(line.socket(), session_wants), PollFd::new(stream.as_fd(), stream_wants)];
        if poll(&mut waited, PollTimeout::from(1000_u16)).is_err() {
            return;
        }
    }
}
