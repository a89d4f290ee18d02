//! What restic runs as its `--stdin-from-command`: it hands on what the agent gives it through a socket, and ends well
//! only when the agent said that the stream is whole. When the agent dies or breaks the stream off, it fails, and
//! restic makes no snapshot of half a stream.
//!
//! Pieces are a length (four bytes, big endian) and the bytes; length zero is the end.

use crate::error::{Failure, Result};
use std::io::{self, Read, Write};
use std::path::Path;

/// Copies from the socket to standard output until the stream is whole.
pub fn feed(socket: &Path) -> Result<()> {
    let mut input = crate::unix::connect(socket)?;
    copy(&mut input, &mut io::stdout().lock())
}

fn copy(input: &mut impl Read, output: &mut impl Write) -> Result<()> {
    let broken = |error: io::Error| Failure::Wire(format!("the stream was broken off: {error}"));
    let mut buffer = Vec::new();
    loop {
        let mut length = [0; 4];
        input.read_exact(&mut length).map_err(broken)?;
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 {
            return output.flush().map_err(broken);
        }
        if length > 16 << 20 {
            return Err(Failure::Wire("a piece is too large".into()));
        }
        buffer.resize(length, 0);
        input.read_exact(&mut buffer).map_err(broken)?;
        output.write_all(&buffer).map_err(broken)?;
    }
}

/// Writes a piece.
pub fn piece(output: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    output.write_all(&(bytes.len() as u32).to_be_bytes())?;
    output.write_all(bytes)
}

/// Says that the stream is whole.
pub fn whole(output: &mut impl Write) -> io::Result<()> {
    output.write_all(&[0; 4])?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::{copy, piece, whole};

    #[test]
    fn only_a_whole_stream_ends_well() {
        let mut stream = Vec::new();
        piece(&mut stream, b"abc").unwrap();
        piece(&mut stream, b"de").unwrap();
        let mut cut = stream.clone();
        whole(&mut stream).unwrap();
        let mut output = Vec::new();
        copy(&mut stream.as_slice(), &mut output).unwrap();
        assert_eq!(output, b"abcde");
        assert!(copy(&mut cut.as_slice(), &mut Vec::new()).is_err(), "the end is missing");
        cut.truncate(5);
        assert!(copy(&mut cut.as_slice(), &mut Vec::new()).is_err(), "cut within a piece");
    }
}
