//! One token at a time out of a byte slice.
//!
//! [`scan`] looks at the bytes from an offset and says what stands there: a tag, a piece of text, a CDATA
//! section, or that more bytes are needed. Attribute names and values are left where they are, as ranges.
//! It checks what can be checked without context: names, quoting, references, forbidden characters, doubled
//! attributes. Nesting and namespaces are checked by [`super::frame`], UTF-8 once per stanza.
//!
//! Tables indexed by byte keep the inner loops short: this is the part that sees every byte of every client.

use super::escape::reference;
use super::{Limits, Span, XmlError};

/// One attribute: the ranges of its name and of its raw value, without quotes.
#[derive(Debug, Clone, Copy)]
pub struct Attr {
    /// Name with prefix.
    pub name: Span,
    /// Value, references not yet replaced.
    pub value: Span,
}

/// What stands at an offset. `end` is one past its last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// `<name …>`, or `<name …/>` when `empty`.
    Open {
        /// Range of the name with prefix.
        name: Span,
        /// True for `<name/>`.
        empty: bool,
        /// One past the `>`.
        end: usize,
    },
    /// `</name>`.
    Close {
        /// Range of the name with prefix.
        name: Span,
        /// One past the `>`.
        end: usize,
    },
    /// Some character data; more may follow.
    Text {
        /// One past the last byte looked at.
        end: usize,
    },
    /// `<![CDATA[`.
    CdataStart {
        /// One past it.
        end: usize,
    },
}

const NAME_START: u8 = 1;
const NAME: u8 = 2;
const SPACE: u8 = 4;
/// Bytes that end the fast loop over text or an attribute value.
const STOP: u8 = 8;

static CLASS: [u8; 256] = {
    let mut table = [0_u8; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        if b.is_ascii_alphabetic() || b == b'_' || b >= 0x80 {
            table[i] |= NAME_START | NAME;
        }
        if b.is_ascii_digit() || b == b'-' || b == b'.' {
            table[i] |= NAME;
        }
        if matches!(b, b' ' | b'\t' | b'\n' | b'\r') {
            table[i] |= SPACE;
        } else if b < 0x20 {
            table[i] |= STOP;
        }
        // 0xEF begins U+FFFE and U+FFFF, which are no XML characters.
        if matches!(b, b'<' | b'&' | b'"' | b'\'' | b']' | 0xef) {
            table[i] |= STOP;
        }
        i += 1;
    }
    table
};

fn class(b: u8) -> u8 {
    CLASS[b as usize]
}

/// True for the white space that XML knows.
pub fn is_space(b: u8) -> bool {
    class(b) & SPACE != 0
}

/// Checks the characters beyond ASCII of a name (XML 1.0 productions 4 and 4a).
fn check_name(name: &[u8]) -> Result<(), XmlError> {
    const BAD: XmlError = XmlError::NotWellFormed("a name holds a forbidden character");
    if name.is_ascii() {
        return Ok(());
    }
    let text = std::str::from_utf8(name).map_err(|_| XmlError::Encoding)?;
    let start = |c: char| {
        matches!(c, '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}' | '\u{370}'..='\u{37d}'
            | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}' | '\u{2c00}'..='\u{2fef}'
            | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}' | '\u{10000}'..='\u{effff}')
    };
    let other = |c: char| matches!(c, '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}');
    let mut at_start = true;
    for c in text.chars() {
        if !c.is_ascii() && !start(c) && (at_start || !other(c)) {
            return Err(BAD);
        }
        at_start = c == ':';
    }
    Ok(())
}

/// Reads a qualified name from `at`; returns one past it, or `None` when the buffer ends within it.
fn scan_name(buffer: &[u8], at: usize) -> Result<Option<usize>, XmlError> {
    const BAD: XmlError = XmlError::NotWellFormed("a name is missing or begins with a forbidden character");
    let mut p = at;
    let mut colons = 0;
    loop {
        match buffer.get(p) {
            None => return Ok(None),
            Some(&b) if class(b) & NAME_START != 0 => p += 1,
            Some(_) => return Err(BAD),
        }
        while buffer.get(p).is_some_and(|&b| class(b) & NAME != 0) {
            p += 1;
        }
        if buffer.get(p) != Some(&b':') {
            break;
        }
        colons += 1;
        if colons > 1 {
            return Err(XmlError::NotWellFormed("a name holds two colons"));
        }
        p += 1;
    }
    if p == buffer.len() {
        return Ok(None);
    }
    check_name(&buffer[at..p])?;
    Ok(Some(p))
}

/// Checks a reference at `at` (an `&`); returns one past its `;`, or `None` when more bytes are needed.
fn scan_reference(buffer: &[u8], at: usize) -> Result<Option<usize>, XmlError> {
    // The longest is &#x10FFFF; with leading zeros allowed a little.
    const LONGEST: usize = 16;
    let window = &buffer[at + 1..buffer.len().min(at + 1 + LONGEST)];
    match window.iter().position(|&b| b == b';') {
        Some(len) => {
            let known = std::str::from_utf8(&window[..len]).ok().and_then(reference).is_some();
            match known {
                true => Ok(Some(at + len + 2)),
                false if window.first() == Some(&b'#') => {
                    Err(XmlError::NotWellFormed("a character reference names no XML character"))
                }
                false => Err(XmlError::Restricted("an entity reference")),
            }
        }
        None if window.len() == LONGEST => Err(XmlError::NotWellFormed("'&' begins no reference")),
        None if window.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'#') => Ok(None),
        None => Err(XmlError::NotWellFormed("'&' begins no reference")),
    }
}

/// Judges a byte at which the fast loop stopped and which is no delimiter. `Ok(None)`: more bytes are needed.
fn scan_special(buffer: &[u8], at: usize) -> Result<Option<usize>, XmlError> {
    match buffer[at] {
        b'&' => scan_reference(buffer, at),
        0xef => match buffer.get(at + 1..at + 3) {
            None => Ok(None),
            Some([0xbf, 0xbe | 0xbf]) => Err(XmlError::NotWellFormed("a forbidden character")),
            Some(_) => Ok(Some(at + 3)),
        },
        b if b < 0x20 => Err(XmlError::NotWellFormed("a control character")),
        _ => Ok(Some(at + 1)),
    }
}

/// Looks at `buffer` from `at`. `attrs` receives the attributes of an [`Token::Open`].
///
/// Returns `None` when the buffer ends within a token: try again from the same offset with more bytes.
///
/// # Errors
/// When the bytes are not well-formed, are forbidden in XMPP or pass `limits`.
pub fn scan(
    buffer: &[u8],
    at: usize,
    limits: &Limits,
    attrs: &mut Vec<Attr>,
) -> Result<Option<Token>, XmlError> {
    match buffer.get(at) {
        None => Ok(None),
        Some(b'<') => match buffer.get(at + 1) {
            None => Ok(None),
            Some(b'/') => scan_close(buffer, at),
            Some(b'!') => scan_bang(buffer, at),
            Some(b'?') => Err(XmlError::Restricted("a processing instruction")),
            Some(_) => {
                let token = scan_open(buffer, at, limits, attrs)?;
                let length = token
                    .as_ref()
                    .map_or(buffer.len(), |t| if let Token::Open { end, .. } = t { *end } else { at })
                    - at;
                if length > limits.tag_bytes {
                    return Err(XmlError::TooLarge("a start tag is too long"));
                }
                Ok(token)
            }
        },
        Some(_) => scan_text(buffer, at),
    }
}

fn scan_bang(buffer: &[u8], at: usize) -> Result<Option<Token>, XmlError> {
    const CDATA: &[u8] = b"<![CDATA[";
    let rest = &buffer[at..];
    if rest.starts_with(CDATA) {
        return Ok(Some(Token::CdataStart { end: at + CDATA.len() }));
    }
    if CDATA.starts_with(rest) {
        return Ok(None);
    }
    Err(match rest.get(2) {
        Some(b'-') => XmlError::Restricted("a comment"),
        _ => XmlError::Restricted("a document type declaration"),
    })
}

/// Skips the inside of a CDATA section; returns one past what was looked at and whether it ended.
pub(crate) fn scan_cdata(buffer: &[u8], at: usize) -> Result<(usize, bool), XmlError> {
    let mut p = at;
    while p < buffer.len() {
        let b = buffer[p];
        if class(b) & STOP == 0 || matches!(b, b'<' | b'&' | b'"' | b'\'') {
            p += 1;
        } else if b == b']' {
            match buffer.get(p + 1..p + 3) {
                Some(b"]>") => return Ok((p + 3, true)),
                Some(_) => p += 1,
                None => return Ok((p, false)),
            }
        } else {
            match scan_special(buffer, p)? {
                Some(next) => p = next,
                None => return Ok((p, false)),
            }
        }
    }
    Ok((p, false))
}

fn scan_text(buffer: &[u8], at: usize) -> Result<Option<Token>, XmlError> {
    let mut p = at;
    while p < buffer.len() {
        let b = buffer[p];
        if class(b) & STOP == 0 {
            p += 1;
            continue;
        }
        let next = match b {
            b'<' => break,
            b'"' | b'\'' => Some(p + 1),
            b']' => match (buffer.get(p + 1), buffer.get(p + 2)) {
                (Some(b']'), Some(b'>')) => return Err(XmlError::NotWellFormed("']]>' in text")),
                (None, _) | (Some(b']'), None) => None,
                _ => Some(p + 1),
            },
            _ => scan_special(buffer, p)?,
        };
        match next {
            Some(next) => p = next,
            None => break,
        }
    }
    Ok((p > at).then_some(Token::Text { end: p }))
}

fn scan_close(buffer: &[u8], at: usize) -> Result<Option<Token>, XmlError> {
    let start = at + 2;
    let Some(mut p) = scan_name(buffer, start)? else { return Ok(None) };
    let name = Span::new(start, p);
    while buffer.get(p).is_some_and(|&b| is_space(b)) {
        p += 1;
    }
    match buffer.get(p) {
        None => Ok(None),
        Some(b'>') => Ok(Some(Token::Close { name, end: p + 1 })),
        Some(_) => Err(XmlError::NotWellFormed("an end tag holds more than a name")),
    }
}

fn scan_open(
    buffer: &[u8],
    at: usize,
    limits: &Limits,
    attrs: &mut Vec<Attr>,
) -> Result<Option<Token>, XmlError> {
    attrs.clear();
    let start = at + 1;
    let Some(mut p) = scan_name(buffer, start)? else { return Ok(None) };
    let name = Span::new(start, p);
    loop {
        let before = p;
        while buffer.get(p).is_some_and(|&b| is_space(b)) {
            p += 1;
        }
        match buffer.get(p) {
            None => return Ok(None),
            Some(b'>') => return Ok(Some(Token::Open { name, empty: false, end: p + 1 })),
            Some(b'/') => {
                return match buffer.get(p + 1) {
                    None => Ok(None),
                    Some(b'>') => Ok(Some(Token::Open { name, empty: true, end: p + 2 })),
                    Some(_) => Err(XmlError::NotWellFormed("'/' within a tag")),
                };
            }
            Some(_) if before == p => return Err(XmlError::NotWellFormed("no space before an attribute")),
            Some(_) => {}
        }
        let Some((attr, next)) = scan_attribute(buffer, p)? else { return Ok(None) };
        let this = attr.name.of(buffer);
        if attrs.iter().any(|a| a.name.of(buffer) == this) {
            return Err(XmlError::NotWellFormed("an attribute stands twice"));
        }
        if attrs.len() == limits.attributes {
            return Err(XmlError::TooLarge("an element has too many attributes"));
        }
        attrs.push(attr);
        p = next;
    }
}

/// One attribute from `at`, and the offset past its closing quote.
fn scan_attribute(buffer: &[u8], at: usize) -> Result<Option<(Attr, usize)>, XmlError> {
    let Some(mut p) = scan_name(buffer, at)? else { return Ok(None) };
    let name = Span::new(at, p);
    let skip = |p: &mut usize| {
        while buffer.get(*p).is_some_and(|&b| is_space(b)) {
            *p += 1;
        }
    };
    skip(&mut p);
    match buffer.get(p) {
        None => return Ok(None),
        Some(b'=') => p += 1,
        Some(_) => return Err(XmlError::NotWellFormed("an attribute has no value")),
    }
    skip(&mut p);
    let quote = match buffer.get(p) {
        None => return Ok(None),
        Some(&q @ (b'"' | b'\'')) => q,
        Some(_) => return Err(XmlError::NotWellFormed("an attribute value is not quoted")),
    };
    let value = p + 1;
    p = value;
    loop {
        let Some(&b) = buffer.get(p) else { return Ok(None) };
        if class(b) & STOP == 0 {
            p += 1;
        } else if b == quote {
            return Ok(Some((Attr { name, value: Span::new(value, p) }, p + 1)));
        } else if b == b'<' {
            return Err(XmlError::NotWellFormed("'<' in an attribute value"));
        } else {
            match scan_special(buffer, p)? {
                Some(next) => p = next,
                None => return Ok(None),
            }
        }
    }
}
