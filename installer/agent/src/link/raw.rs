//! Raw bytes beside the lines: streams of backups in both directions (see `maxim_model::backup::wire`).

use super::Link;
use crate::error::{Failure, Result};
use maxim_model::backup::wire::FRAME;
use maxim_model::wire::{ContentHeader, Reply};
use std::io::{Read, Write};

/// What came from the engine.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// Bytes are in the buffer.
    Bytes,
    /// The stream is whole.
    End,
    /// The engine breaks it off, and why.
    Broken(String),
}

/// Both directions, for code that need not know what is behind them.
pub trait Channel {
    /// Sends one reply.
    fn reply(&mut self, reply: &Reply) -> Result<()>;
    /// Sends raw bytes; the line that announces them was sent before.
    fn raw(&mut self, bytes: &[u8]) -> Result<()>;
    /// The next frame; its bytes replace what is in the buffer.
    fn frame(&mut self, buffer: &mut Vec<u8>) -> Result<Frame>;
    /// Whether the engine has gone.
    fn is_gone(&self) -> bool;
}

impl<R: Read, W: Write> Channel for Link<R, W> {
    fn reply(&mut self, reply: &Reply) -> Result<()> {
        Self::reply(self, reply)
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.output
            .write_all(bytes)
            .and_then(|()| self.output.flush())
            .map_err(|error| Failure::Wire(format!("cannot write: {error}")))
    }

    fn frame(&mut self, buffer: &mut Vec<u8>) -> Result<Frame> {
        let header = self.header("a frame")?;
        match header {
            ContentHeader { refused: Some(why), .. } => Ok(Frame::Broken(why)),
            ContentHeader { size: Some(0), .. } => Ok(Frame::End),
            ContentHeader { size: Some(size), .. } if size <= FRAME as u64 => {
                buffer.resize(usize::try_from(size).unwrap_or(FRAME), 0);
                self.input
                    .read_exact(buffer)
                    .map_err(|error| Failure::Wire(format!("it ended within a frame: {error}")))?;
                Ok(Frame::Bytes)
            }
            _ => Err(Failure::Wire("a frame without a size, or one that is too large".into())),
        }
    }

    fn is_gone(&self) -> bool {
        self.gone()
    }
}

#[cfg(test)]
mod tests {
    use super::{Channel, Frame};
    use crate::link::Link;

    #[test]
    fn frames_end_or_are_broken_off_and_are_bounded() {
        let mut output = Vec::new();
        let mut buffer = Vec::new();
        let input = b"{\"size\":3}\nabc{\"size\":0}\n{\"refused\":\"why\"}\n{\"size\":99999999}\n";
        let mut link = Link::new(&input[..], &mut output);
        assert_eq!(link.frame(&mut buffer).unwrap(), Frame::Bytes);
        assert_eq!(buffer, b"abc");
        assert_eq!(link.frame(&mut buffer).unwrap(), Frame::End);
        assert_eq!(link.frame(&mut buffer).unwrap(), Frame::Broken("why".into()));
        assert!(link.frame(&mut buffer).is_err());
        assert!(link.frame(&mut buffer).is_err(), "the end of input is no end of a stream");
    }
}
