//! From a text and `--set` flags to a [`Topology`] and the text that is kept with the cluster.

use super::error::{Place, TopologyError, TopologyErrors, is_secret_key, quoted};
use super::read::{Reader, set_label};
use super::suggest::nearest;
use super::tree::{self, Entry, Node, Value};
use super::{Topology, edit, resolve};
use std::path::Path;

/// What a topology is made from.
pub struct Source<'a> {
    /// Name of the file for errors, as given by the user; `--nodelist` and such when there is none.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
    /// `KEY=VALUE` of each `--set`, in order.
    pub sets: &'a [String],
    /// Environment for `${NAME}` and `~`.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Folder of the file: relative paths count from it.
    pub base: &'a Path,
    /// Where an embedded deployment lives (`--root`).
    pub root: &'a str,
}

/// A topology with its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The topology.
    pub topology: Topology,
    /// The text that says the same without flags and environment: overrides are written into it, `${NAME}` is
    /// expanded, paths on this machine are absolute.
    pub text: String,
}

/// Reads a topology; gives all mistakes at once.
pub fn load(source: &Source<'_>) -> Result<Loaded, TopologyErrors> {
    let fail = |errors: Vec<TopologyError>| TopologyErrors::new(errors, source.text);
    let mut root = tree::build(source.file, source.text).map_err(fail)?;
    let mut errors = Vec::new();
    for (index, set) in source.sets.iter().enumerate() {
        if let Err((message, hint)) = apply_set(&mut root, set, index + 1) {
            errors.push(TopologyError::new(&set_label(set), Place::default(), message).hint(hint));
        }
    }
    let mut reader = Reader {
        file: source.file,
        environment: source.environment,
        base: source.base,
        sets: source.sets,
        errors,
        rewrites: Vec::new(),
    };
    let topology = resolve::topology(&mut reader, &root, source.root);
    let Reader { errors, rewrites, .. } = reader;
    match topology {
        Some(topology) if errors.is_empty() => {
            let text = if rewrites.is_empty() && source.sets.is_empty() {
                source.text.to_owned()
            } else {
                write_back(source, &topology, &root, &rewrites)
            };
            Ok(Loaded { topology, text })
        }
        _ => Err(fail(errors)),
    }
}

/// Reads the text that is kept with a cluster ([`Loaded::text`]): nothing in it depends on flags or environment.
pub fn load_stored(text: &str, root: &str) -> Result<Topology, TopologyErrors> {
    let source =
        Source { file: "topology.yaml", text, sets: &[], environment: &|_| None, base: Path::new("/"), root };
    load(&source).map(|loaded| loaded.topology)
}

/// The text with overrides and expansions in it. Comments and order are kept where the edit is simple; where the
/// edited text would not mean the same, the whole is written anew from the tree.
fn write_back(
    source: &Source<'_>,
    topology: &Topology,
    root: &Node,
    rewrites: &[super::read::Rewrite],
) -> String {
    let edited = edit::rewrite(source.text, rewrites).and_then(|text| {
        source.sets.iter().enumerate().try_fold(text, |text, (index, set)| {
            let (key, value) = set.split_once('=')?;
            // One scalar stands in a flag, so that its expansion replaces the whole value.
            let expanded = rewrites.iter().find(|rewrite| rewrite.place.flag == index + 1);
            edit::set_value(&text, key, expanded.map_or(value, |rewrite| rewrite.value.as_str()))
        })
    });
    let means_the_same = |text: &String| {
        let again = Source {
            text,
            sets: &[],
            environment: &|name| (name == "HOME").then(|| (source.environment)("HOME")).flatten(),
            ..*source
        };
        tree::build(again.file, text).ok().is_some_and(|root| {
            let mut reader = Reader {
                file: again.file,
                environment: again.environment,
                base: again.base,
                sets: &[],
                errors: Vec::new(),
                rewrites: Vec::new(),
            };
            let other = resolve::topology(&mut reader, &root, again.root);
            reader.errors.is_empty() && other.as_ref() == Some(topology)
        })
    };
    edited.filter(means_the_same).unwrap_or_else(|| edit::emit(root, rewrites))
}

/// Puts a `KEY=VALUE` into the tree.
fn apply_set(root: &mut Node, set: &str, flag: usize) -> Result<(), (String, String)> {
    let Some((key, value)) = set.split_once('=') else {
        return Err(("`--set` needs KEY=VALUE".to_owned(), "as `--set ports.xmpp=15222`".to_owned()));
    };
    let place = Place { flag, ..Place::default() };
    let mut node = root;
    let segments: Vec<&str> = key.split('.').collect();
    if segments.iter().any(|segment| segment.is_empty()) {
        return Err((format!("{} is not a dotted path", quoted(key)), "as `ports.xmpp`".to_owned()));
    }
    if segments.iter().any(|segment| is_secret_key(segment)) {
        return Err((
            format!("a secret cannot be given by `--set` (`{key}`)"),
            "put it into a file of mode 0600 and name that file in a key ending in `_file`".to_owned(),
        ));
    }
    for (index, segment) in segments.iter().enumerate() {
        if node.is_null() {
            node.value = Value::Mapping { entries: Vec::new(), flow: false };
        }
        let walked = segments[..index].join(".");
        node = match &mut node.value {
            Value::Mapping { entries, .. } => {
                let at = entries.iter().position(|entry| entry.key == *segment).unwrap_or_else(|| {
                    let empty = Node { value: Value::Scalar { text: String::new(), plain: true }, place };
                    entries.push(Entry { key: (*segment).to_owned(), place, node: empty });
                    entries.len() - 1
                });
                &mut entries[at].node
            }
            Value::Sequence(items) => {
                let at = find_item(items, segment)
                    .map_err(|hint| (format!("`{walked}` has no entry {}", quoted(segment)), hint))?;
                &mut items[at]
            }
            Value::Scalar { .. } => {
                return Err((
                    format!("`{walked}` is a single value, and nothing lies below it"),
                    format!("as `--set {walked}=VALUE`"),
                ));
            }
        };
    }
    *node = parse_value(value, place)?;
    Ok(())
}

/// Position of a list's item by number or by its `name`.
pub(super) fn find_item(items: &[Node], segment: &str) -> Result<usize, String> {
    if let Some(at) = segment.parse::<usize>().ok().filter(|at| *at < items.len()) {
        return Ok(at);
    }
    let names: Vec<&str> = items
        .iter()
        .map(|item| match item.get("name").map(|node| &node.value) {
            Some(Value::Scalar { text, .. }) => text.as_str(),
            _ => "",
        })
        .collect();
    names.iter().position(|name| *name == segment).ok_or_else(|| {
        match nearest(segment, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("its entries are {}", names.join(", ")),
        }
    })
}

/// A value of a flag: a flow list or mapping when it begins as one, else one scalar.
fn parse_value(value: &str, place: Place) -> Result<Node, (String, String)> {
    if let Some(bad) = value.chars().find(|c| tree::is_unreadable(*c)) {
        return Err((
            format!("the invisible character U+{:04X} is not allowed", u32::from(bad)),
            "remove it".to_owned(),
        ));
    }
    if !value.starts_with(['[', '{']) {
        return Ok(Node { value: Value::Scalar { text: value.to_owned(), plain: true }, place });
    }
    let built = tree::build("--set", &format!("value: {value}")).map_err(|errors| {
        let message = errors.first().map_or_else(String::new, |error| error.message.clone());
        (message, "a list is written `[a, b]`, a mapping `{key: value}`".to_owned())
    })?;
    let mut node = built.get("value").cloned().unwrap_or(Node { value: Value::Sequence(Vec::new()), place });
    put_place(&mut node, place);
    Ok(node)
}

fn put_place(node: &mut Node, place: Place) {
    node.place = place;
    match &mut node.value {
        Value::Scalar { .. } => {}
        Value::Sequence(items) => items.iter_mut().for_each(|item| put_place(item, place)),
        Value::Mapping { entries, .. } => {
            for entry in entries {
                entry.place = place;
                put_place(&mut entry.node, place);
            }
        }
    }
}
