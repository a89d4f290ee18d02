//! A YAML document as a tree in which every key and value knows its place.
//!
//! Given: the text. Steps: control characters and size are refused before anything is parsed; the events of the
//! YAML parser are pulled one by one (no recursion, so that a thousand open brackets cannot exhaust the stack) and
//! built into [`Node`]s. Anchors, aliases and tags are refused: a topology needs none, and aliases are how a small
//! file becomes a huge one. Duplicate keys and a second document are refused with both places.
//!
//! It deliberately knows nothing of topologies.

use super::error::{Place, TopologyError};
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::TScalarStyle;

/// Bytes a topology may have.
const MAXIMUM_BYTES: usize = 1 << 20;
/// Levels of nesting a topology may have; a valid one has five.
const MAXIMUM_DEPTH: usize = 32;

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// What it is.
    pub value: Value,
    /// Where it stands.
    pub place: Place,
}

/// A YAML value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A scalar; `plain` when it was written without quotes.
    Scalar {
        /// The text.
        text: String,
        /// Written without quotes.
        plain: bool,
    },
    /// A sequence.
    Sequence(Vec<Node>),
    /// A mapping in the order of the text.
    Mapping {
        /// Its entries.
        entries: Vec<Entry>,
        /// Written with braces.
        flow: bool,
    },
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// The value.
    pub node: Node,
}

impl Node {
    /// Nothing: an absent value, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping { .. } => "a mapping",
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Mapping { entries, .. } => entries
                .iter()
                .find(|entry| entry.key == key)
                .map(|entry| &entry.node)
                .filter(|node| !node.is_null()),
            _ => None,
        }
    }
}

/// A collection that is still open.
enum Open {
    Sequence { place: Place, items: Vec<Node> },
    Mapping { place: Place, flow: bool, entries: Vec<Entry>, key: Option<(String, Place)> },
}

/// Builds the tree of a text.
pub(super) fn build(file: &str, text: &str) -> Result<Node, Vec<TopologyError>> {
    refuse_unreadable(file, text)?;
    let index = Lines::new(text);
    let mut parser = Parser::new_from_str(text);
    let mut open: Vec<Open> = Vec::new();
    let mut errors = Vec::new();
    let mut root: Option<Node> = None;
    let mut documents = 0;
    loop {
        let (event, mark) = match parser.next_token() {
            Ok(next) => next,
            Err(error) => {
                let mark = error.marker();
                let place = index.place(mark.line(), mark.col(), 1);
                errors.push(if error.info().contains("recursion limit") {
                    too_deep(file, place)
                } else {
                    TopologyError::new(file, place, format!("not valid YAML: {}", error.info()))
                        .hint("check quotes, brackets and the indentation of this line and the one above it")
                });
                return Err(errors);
            }
        };
        let length = match &event {
            Event::Scalar(text, style, ..) => index.scalar_length(mark.line(), mark.col(), text, *style),
            _ => 1,
        };
        let place = index.place(mark.line(), mark.col(), length);
        if let Some(error) = refuse_feature(file, &event, place) {
            errors.push(error);
            return Err(errors);
        }
        let finished = match event {
            Event::StreamEnd => break,
            Event::DocumentStart => {
                documents += 1;
                if documents > 1 {
                    errors.push(
                        TopologyError::new(file, place, "a second document begins here")
                            .hint("one file describes one cluster: remove everything from this `---` on"),
                    );
                    return Err(errors);
                }
                None
            }
            Event::SequenceStart(..) => {
                open.push(Open::Sequence { place, items: Vec::new() });
                None
            }
            Event::MappingStart(..) => {
                let flow = index.character(mark.line(), mark.col()) == Some('{');
                open.push(Open::Mapping { place, flow, entries: Vec::new(), key: None });
                None
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(|collection| match collection {
                Open::Sequence { place, items } => Node { value: Value::Sequence(items), place },
                Open::Mapping { place, flow, entries, .. } => {
                    Node { value: Value::Mapping { entries, flow }, place }
                }
            }),
            Event::Scalar(text, style, ..) => {
                Some(Node { value: Value::Scalar { text, plain: style == TScalarStyle::Plain }, place })
            }
            _ => None,
        };
        if open.len() > MAXIMUM_DEPTH {
            errors.push(too_deep(file, place));
            return Err(errors);
        }
        if let Some(node) = finished {
            attach(file, node, &mut open, &mut root, &mut errors);
        }
    }
    match root {
        _ if !errors.is_empty() => Err(errors),
        Some(node) if !node.is_null() => Ok(node),
        _ => Err(vec![
            TopologyError::new(file, index.place(1, 0, 1), "the topology is empty")
                .hint("begin with `api_version: maxim/v1`, `name:`, `domain:` and `hosts:`"),
        ]),
    }
}

fn too_deep(file: &str, place: Place) -> TopologyError {
    TopologyError::new(file, place, format!("nested more than {MAXIMUM_DEPTH} levels deep"))
        .hint("a topology needs at most five levels; look for brackets that are not closed")
}

/// Puts a finished node where it belongs.
fn attach(
    file: &str,
    node: Node,
    open: &mut [Open],
    root: &mut Option<Node>,
    errors: &mut Vec<TopologyError>,
) {
    match open.last_mut() {
        None => *root = Some(node),
        Some(Open::Sequence { items, .. }) => items.push(node),
        Some(Open::Mapping { place, flow, entries, key }) => match key.take() {
            None => match node.value {
                Value::Scalar { text, .. } => {
                    // The parser's mark of a mapping without braces is its first colon.
                    if !*flow && entries.is_empty() {
                        *place = Place { length: 1, ..node.place };
                    }
                    *key = Some((text, node.place));
                }
                _ => {
                    errors.push(
                        TopologyError::new(file, node.place, "a key must be a word, not a list or a mapping")
                            .hint("put the braces or brackets after the colon"),
                    );
                    *key = Some((String::new(), node.place));
                }
            },
            Some((key, place)) => {
                if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                    errors.push(
                        TopologyError::new(
                            file,
                            place,
                            format!("the key `{key}` stands twice in this mapping"),
                        )
                        .hint(format!("the first one is on line {}; keep one of them", first.place.line)),
                    );
                } else {
                    entries.push(Entry { key, place, node });
                }
            }
        },
    }
}

/// Anchors, aliases and tags.
fn refuse_feature(file: &str, event: &Event, place: Place) -> Option<TopologyError> {
    let (anchor, tag) = match event {
        Event::Alias(_) => (1, false),
        Event::Scalar(_, _, anchor, tag)
        | Event::SequenceStart(anchor, tag)
        | Event::MappingStart(anchor, tag) => (*anchor, tag.is_some()),
        _ => (0, false),
    };
    if anchor > 0 {
        return Some(
            TopologyError::new(file, place, "anchors and aliases (`&name`, `*name`) are not allowed here")
                .hint("write the value out; a text that begins with `&` or `*` needs quotes"),
        );
    }
    tag.then(|| {
        TopologyError::new(file, place, "YAML tags (`!…`) are not allowed here")
            .hint("remove the tag; a text that begins with `!` needs quotes")
    })
}

/// Size and characters that no topology needs and that could hide something from a reader.
fn refuse_unreadable(file: &str, text: &str) -> Result<(), Vec<TopologyError>> {
    let nowhere = Place::default();
    if text.len() > MAXIMUM_BYTES {
        return Err(vec![
            TopologyError::new(file, nowhere, format!("{} bytes are too many for a topology", text.len()))
                .hint("at most 1 MiB; is this the right file?"),
        ]);
    }
    for (number, line) in text.split('\n').enumerate() {
        for (column, character) in line.trim_end_matches('\r').chars().enumerate() {
            let first = number == 0 && column == 0;
            if is_unreadable(character) && !(first && character == '\u{feff}') {
                let place = Place { line: number + 1, column: column + 1, length: 1, flag: 0 };
                return Err(vec![
                    TopologyError::new(
                        file,
                        place,
                        format!("the invisible character U+{:04X} is not allowed", u32::from(character)),
                    )
                    .hint("remove it; control characters and marks that change the reading direction are refused"),
                ]);
            }
        }
    }
    Ok(())
}

/// Control characters, and marks that make a text look different from what it says.
pub(super) fn is_unreadable(character: char) -> bool {
    (character.is_control() && character != '\t')
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Lines of the text as characters, to tell the length of what is underlined.
struct Lines {
    lines: Vec<Vec<char>>,
}

impl Lines {
    fn new(text: &str) -> Self {
        Self { lines: text.lines().map(|line| line.chars().collect()).collect() }
    }

    /// `line` from 1, `column` from 0 as the parser counts; the end of the text becomes the end of its last line.
    fn place(&self, line: usize, column: usize, length: usize) -> Place {
        let last = self.lines.len().max(1);
        if line > last {
            let end = self.lines.last().map_or(0, Vec::len);
            return Place { line: last, column: end + 1, length: 1, flag: 0 };
        }
        Place { line, column: column + 1, length, flag: 0 }
    }

    fn character(&self, line: usize, column: usize) -> Option<char> {
        self.lines.get(line.checked_sub(1)?)?.get(column).copied()
    }

    /// Characters that a scalar takes on its first line.
    fn scalar_length(&self, line: usize, column: usize, text: &str, style: TScalarStyle) -> usize {
        let Some(rest) =
            line.checked_sub(1).and_then(|line| self.lines.get(line)).and_then(|line| line.get(column..))
        else {
            return 1;
        };
        let length = match style {
            TScalarStyle::Plain => text.chars().count().min(rest.len()),
            TScalarStyle::SingleQuoted => quoted_length(rest, '\''),
            TScalarStyle::DoubleQuoted => quoted_length(rest, '"'),
            TScalarStyle::Literal | TScalarStyle::Folded => 1,
        };
        length.max(1)
    }
}

/// Length of a quoted scalar with its quotes; to the end of the line when it does not end there.
fn quoted_length(rest: &[char], quote: char) -> usize {
    let mut position = 1;
    while let Some(&character) = rest.get(position) {
        if character == '\\' && quote == '"' {
            position += 2;
        } else if character == quote {
            if quote == '\'' && rest.get(position + 1) == Some(&quote) {
                position += 2;
            } else {
                return position + 1;
            }
        } else {
            position += 1;
        }
    }
    rest.len()
}
