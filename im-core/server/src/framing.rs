//! How elements go onto the wire: one after the other on a TCP stream, one per message on a WebSocket.
//!
//! The WebSocket part is the data framing of RFC 6455 as a server needs it: text messages out, and in
//! [`WebSocketInput`] masked frames in, with fragments, pings and closing. No extensions are negotiated.

use im_proto::ns;

/// How a client's connection frames XML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// RFC 6120.
    Stream,
    /// RFC 7395.
    Messages,
}

/// Appends an element to `out`. On a WebSocket it becomes a message of its own, and namespaces that a stream
/// header would have declared are added.
pub fn frame(framing: Framing, out: &mut Vec<u8>, xml: &str) {
    if framing == Framing::Stream {
        out.extend_from_slice(xml.as_bytes());
        return;
    }
    let name_end = xml.find([' ', '>', '/']).unwrap_or(xml.len());
    let declaration = match &xml[..name_end] {
        "<message" | "<presence" | "<iq" => format!(" xmlns='{}'", ns::CLIENT),
        name if name.starts_with("<stream:") => format!(" xmlns:stream='{}'", ns::STREAM),
        _ => String::new(),
    };
    header(out, TEXT, xml.len() + declaration.len());
    out.extend_from_slice(&xml.as_bytes()[..name_end]);
    out.extend_from_slice(declaration.as_bytes());
    out.extend_from_slice(&xml.as_bytes()[name_end..]);
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

fn header(out: &mut Vec<u8>, opcode: u8, len: usize) {
    out.push(0x80 | opcode);
    match len {
        0..=125 => out.push(len as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// Appends a close frame with this status (RFC 6455 §7.4).
pub fn close_frame(out: &mut Vec<u8>, status: u16) {
    header(out, CLOSE, 2);
    out.extend_from_slice(&status.to_be_bytes());
}

/// Decodes what a WebSocket client sends.
#[derive(Debug, Default)]
pub struct WebSocketInput {
    head: Vec<u8>,
    /// Payload of the current frame that is still to come.
    remaining: u64,
    mask: [u8; 4],
    mask_at: usize,
    opcode: u8,
    control: Vec<u8>,
    in_message: bool,
    final_frame: bool,
    /// The peer closed, and nothing more is to be read.
    pub closed: bool,
}

impl WebSocketInput {
    /// Takes bytes from the socket. Text is appended to `text`, answers to pings and closing to `replies`.
    ///
    /// # Errors
    /// The status to close with when the peer breaks the protocol.
    pub fn feed(&mut self, mut bytes: &[u8], text: &mut Vec<u8>, replies: &mut Vec<u8>) -> Result<(), u16> {
        while !bytes.is_empty() && !self.closed {
            if self.remaining == 0 {
                if !self.read_head(&mut bytes)? {
                    return Ok(());
                }
                if self.remaining == 0 {
                    self.frame_ended(replies);
                }
                continue;
            }
            let take = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len());
            let target = if self.opcode >= 8 { &mut self.control } else { &mut *text };
            for &b in &bytes[..take] {
                target.push(b ^ self.mask[self.mask_at & 3]);
                self.mask_at += 1;
            }
            bytes = &bytes[take..];
            self.remaining -= take as u64;
            if self.remaining == 0 {
                self.frame_ended(replies);
            }
        }
        Ok(())
    }

    /// Collects a frame's head; true when it is whole.
    fn read_head(&mut self, bytes: &mut &[u8]) -> Result<bool, u16> {
        const PROTOCOL_ERROR: u16 = 1002;
        loop {
            let need = match self.head.get(1).map(|b| b & 0x7f) {
                None => 2,
                Some(126) => 8,
                Some(127) => 14,
                Some(_) => 6,
            };
            if self.head.len() >= need && self.head.len() > 2 {
                break;
            }
            let Some((&first, rest)) = bytes.split_first() else { return Ok(false) };
            self.head.push(first);
            *bytes = rest;
        }
        let (first, second) = (self.head[0], self.head[1]);
        self.opcode = first & 0x0f;
        let fin = first & 0x80 != 0;
        if first & 0x70 != 0 || second & 0x80 == 0 {
            return Err(PROTOCOL_ERROR);
        }
        let len = &self.head[2..self.head.len() - 4];
        self.remaining = match len.len() {
            0 => u64::from(second & 0x7f),
            _ => len.iter().fold(0, |acc, b| acc << 8 | u64::from(*b)),
        };
        self.mask.copy_from_slice(&self.head[self.head.len() - 4..]);
        self.mask_at = 0;
        self.head.clear();
        match self.opcode {
            TEXT if !self.in_message => self.in_message = true,
            CONTINUATION if self.in_message => {}
            CLOSE | PING | PONG if fin && self.remaining <= 125 => {}
            2 => return Err(1003),
            _ => return Err(PROTOCOL_ERROR),
        }
        self.final_frame = fin;
        Ok(true)
    }

    fn frame_ended(&mut self, replies: &mut Vec<u8>) {
        let control = std::mem::take(&mut self.control);
        match self.opcode {
            PING => {
                header(replies, PONG, control.len());
                replies.extend_from_slice(&control);
            }
            CLOSE => {
                self.closed = true;
                header(replies, CLOSE, control.len().min(2));
                replies.extend_from_slice(&control[..control.len().min(2)]);
            }
            PONG => {}
            _ => self.in_message = !self.final_frame,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first, 0x80 | payload.len() as u8, 1, 2, 3, 4];
        out.extend(payload.iter().enumerate().map(|(i, b)| b ^ [1, 2, 3, 4][i & 3]));
        out
    }

    #[test]
    fn reads_fragments_and_answers_pings_at_any_boundary() {
        let mut wire = masked(0x01, b"<mes");
        wire.extend(masked(0x89, b"hi"));
        wire.extend(masked(0x80, b"sage/>"));
        wire.extend(masked(0x88, &1000_u16.to_be_bytes()));
        for step in [1, 3, wire.len()] {
            let (mut input, mut text, mut replies) = (WebSocketInput::default(), Vec::new(), Vec::new());
            for chunk in wire.chunks(step) {
                input.feed(chunk, &mut text, &mut replies).unwrap();
            }
            assert_eq!(text, b"<message/>");
            assert_eq!(replies, [&[0x8a, 2][..], b"hi", &[0x88, 2, 3, 232]].concat());
            assert!(input.closed);
        }
    }

    #[test]
    fn refuses_what_the_protocol_forbids() {
        let mut unmasked = vec![0x81, 2];
        unmasked.extend_from_slice(b"xx    ");
        for wire in [unmasked, masked(0x82, b"x"), masked(0xc1, b"x"), masked(0x80, b"x"), masked(0x09, b"x")]
        {
            let mut input = WebSocketInput::default();
            assert!(input.feed(&wire, &mut Vec::new(), &mut Vec::new()).is_err(), "{wire:?}");
        }
    }

    #[test]
    fn declares_what_a_stream_header_would() {
        let mut out = Vec::new();
        frame(Framing::Messages, &mut out, "<iq id='1'/>");
        assert_eq!(&out[2..], b"<iq xmlns='jabber:client' id='1'/>");
        out.clear();
        frame(Framing::Messages, &mut out, "<stream:features/>");
        assert_eq!(&out[2..], b"<stream:features xmlns:stream='http://etherx.jabber.org/streams'/>");
        out.clear();
        frame(Framing::Messages, &mut out, &format!("<a>{}</a>", "x".repeat(200)));
        assert_eq!(out[..4], [0x81, 126, 0, 207]);
    }
}
