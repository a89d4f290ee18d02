//! Cuts a stream of XML into stanzas, as fast as a load generator needs it: it looks for brackets and quotes only,
//! and trusts the server to send what is well-formed. No I/O.

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The stream's opening tag.
    Opened,
    /// A stanza: these bytes of the buffer.
    Stanza { start: usize, end: usize },
    /// The stream's closing tag.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Text,
    TagStart,
    Tag { closing: bool, declaration: bool, quote: u8 },
}

/// Bytes that came, and how far they were looked at.
#[derive(Debug)]
pub(super) struct Splitter {
    buffer: Vec<u8>,
    at: usize,
    start: usize,
    depth: usize,
    place: Place,
}

impl Splitter {
    pub(super) fn new() -> Self {
        Self { buffer: Vec::new(), at: 0, start: 0, depth: 0, place: Place::Text }
    }

    /// Where to read into, what was consumed having been let go.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        let keep = if self.depth > 1 || self.place != Place::Text { self.start } else { self.at };
        if keep > 0 {
            self.buffer.drain(..keep);
            self.at -= keep;
            self.start = self.start.saturating_sub(keep);
        }
        &mut self.buffer
    }

    /// Gives back memory while nothing is expected.
    pub(super) fn shrink(&mut self) {
        self.buffer().shrink_to(0);
    }

    pub(super) fn slice(&self, start: usize, end: usize) -> &[u8] {
        &self.buffer[start..end]
    }

    /// The next thing in the buffer; nothing when more bytes are needed.
    pub(super) fn next(&mut self) -> Option<Found> {
        while let Some(byte) = self.buffer.get(self.at).copied() {
            self.at += 1;
            match &mut self.place {
                Place::Text => {
                    if byte == b'<' {
                        if self.depth <= 1 {
                            self.start = self.at - 1;
                        }
                        self.place = Place::TagStart;
                    } else if let Some(skip) = self.buffer[self.at..].iter().position(|byte| *byte == b'<') {
                        self.at += skip;
                    } else {
                        self.at = self.buffer.len();
                    }
                }
                Place::TagStart => {
                    let declaration = matches!(byte, b'?' | b'!');
                    self.place = Place::Tag { closing: byte == b'/', declaration, quote: 0 };
                }
                Place::Tag { quote, .. } if *quote != 0 => {
                    if byte == *quote {
                        *quote = 0;
                    }
                }
                Place::Tag { quote, .. } if matches!(byte, b'\'' | b'"') => *quote = byte,
                Place::Tag { closing, declaration, .. } if byte == b'>' => {
                    let (closing, declaration) = (*closing, *declaration);
                    self.place = Place::Text;
                    let empty = self.buffer[self.at - 2] == b'/';
                    if declaration {
                        continue;
                    }
                    if closing {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            return Some(Found::Closed);
                        }
                    } else if !empty {
                        self.depth += 1;
                        if self.depth == 1 {
                            return Some(Found::Opened);
                        }
                    }
                    if self.depth == 1 && (closing || empty) {
                        return Some(Found::Stanza { start: self.start, end: self.at });
                    }
                }
                Place::Tag { .. } => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        "<?xml version='1.0'?><stream:stream to='a>b'>\n<a/> <b x=\"/>\"><c><d/></c>t</b></stream:stream>";

    #[test]
    fn stanzas_come_whole_however_they_are_cut() {
        for size in 1..STREAM.len() {
            let mut splitter = Splitter::new();
            let mut found = Vec::new();
            for piece in STREAM.as_bytes().chunks(size) {
                splitter.buffer().extend_from_slice(piece);
                while let Some(next) = splitter.next() {
                    found.push(match next {
                        Found::Stanza { start, end } => {
                            String::from_utf8_lossy(splitter.slice(start, end)).into_owned()
                        }
                        other => format!("{other:?}"),
                    });
                }
            }
            assert_eq!(
                found,
                ["Opened", "<a/>", "<b x=\"/>\"><c><d/></c>t</b>", "Closed"],
                "pieces of {size}"
            );
        }
    }
}
