//! The compatibility matrix of a bundle: what the tree says it can follow, and the schemas of its migrations.
//!
//! Read from `iso/compatibility.yaml` and from the two lines at the top of each migration; the three databases must
//! agree on number and class of every one.

use crate::error::BuildError;
use maxim_model::upgrade::{Compatibility, SchemaRange};
use serde::Deserialize;
use std::fs;
use std::path::Path;

const MATRIX: &str = "iso/compatibility.yaml";
const MIGRATIONS: &str = "im-core/store/migrations";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Matrix {
    upgrades_from: Vec<String>,
}

/// Reads the matrix of a checkout.
pub(crate) fn read(checkout: &Path) -> Result<Compatibility, BuildError> {
    let path = checkout.join(MATRIX);
    let text = fs::read_to_string(&path).map_err(BuildError::file("cannot read", &path))?;
    let matrix: Matrix = serde_yaml::from_str(&text)
        .map_err(|error| BuildError::Bundle { problem: format!("{MATRIX}: {error}") })?;
    let mut found: Option<(String, Vec<bool>)> = None;
    for engine in ["sqlite", "mariadb", "postgresql"] {
        let classes = expanding(&checkout.join(MIGRATIONS).join(engine))?;
        match &found {
            Some((other, before)) if *before != classes => {
                return Err(BuildError::Bundle {
                    problem: format!("the migrations of {engine} and {other} differ in number or class"),
                });
            }
            Some(_) => {}
            None => found = Some((engine.to_owned(), classes)),
        }
    }
    let (_, classes) = found.unwrap_or_default();
    Ok(Compatibility { upgrades_from: matrix.upgrades_from, schema: range(&classes) })
}

/// Of each migration of an engine in order: whether it expands.
fn expanding(folder: &Path) -> Result<Vec<bool>, BuildError> {
    let failed = || BuildError::file("cannot read", folder);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed())? {
        files.push(entry.map_err(failed())?.path());
    }
    files.sort();
    files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).map_err(BuildError::file("cannot read", file))?;
            let class = text.lines().take(2).find_map(|line| line.strip_prefix("-- class: "));
            match class {
                Some("expand") => Ok(true),
                Some("migrate" | "contract") => Ok(false),
                _ => Err(BuildError::Bundle { problem: format!("{}: no class", file.display()) }),
            }
        })
        .collect()
}

/// From the classes of all migrations in order.
fn range(expands: &[bool]) -> SchemaRange {
    let last =
        |wanted: bool, list: &[bool]| list.iter().rposition(|one| *one == wanted).map_or(0, |at| at + 1);
    let expanded = last(true, expands);
    // What waits for the end of an upgrade must be done before a later migration expands.
    let oldest = last(false, &expands[..expanded]).max(1);
    SchemaRange { oldest: oldest as u32, expanded: expanded as u32, finalized: expands.len() as u32 }
}

#[cfg(test)]
mod tests {
    use super::{range, read};
    use maxim_model::upgrade::SchemaRange;
    use std::path::Path;

    #[test]
    fn the_range_follows_from_the_classes() {
        let numbers = |expands: &[bool]| {
            let SchemaRange { oldest, expanded, finalized } = range(expands);
            (oldest, expanded, finalized)
        };
        assert_eq!(numbers(&[true]), (1, 1, 1));
        assert_eq!(numbers(&[true, true, false, false]), (1, 2, 4));
        assert_eq!(numbers(&[true, true, false, false, true]), (4, 5, 5));
        assert_eq!(numbers(&[true, true, false, false, true, false]), (4, 5, 6));
    }

    #[test]
    fn the_databases_of_this_tree_agree() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let matrix = read(checkout).unwrap();
        assert!(matrix.schema.oldest >= 1 && matrix.schema.expanded <= matrix.schema.finalized, "{matrix:?}");
    }
}
