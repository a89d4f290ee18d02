//! Numbered migrations, the same rules for every back end.
//!
//! A file `NNNN_name.sql` begins with two lines: `-- class: expand|migrate|contract` and `-- compatible-from: N`.
//! The first says whether it only adds (a program of the version before still works), fills what was added, or
//! takes away; the second is the oldest schema version whose program works on the result: up to there a rollback
//! is possible.
//!
//! A program that starts on a database in use applies what expands and nothing else, so that nodes of the version
//! before work on beside it and a rollback stays possible. The rest waits for [`finalizing`], which an operator asks
//! for when every node runs the new version: first every statement of a `migrate`, each repeated until it changes no
//! row (so it is written to take a bounded number of rows at a time), then the `contract`. A program therefore works
//! on both sides of the contraction that it carries. On an empty database all of them are applied at once.
//!
//! What is recorded of each in the table `schema_migration` is enough for an older program to know whether it
//! may run. Applying them is the back end's work, under a lock of its own.

use crate::StoreError;

/// Most rounds of one statement of a `migrate`: beyond, it changes the same rows again and again.
pub(crate) const ROUNDS: u32 = 1_000_000;

/// Whether a migration only adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Expand,
    Migrate,
    Contract,
}

impl Class {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Migrate => "migrate",
            Self::Contract => "contract",
        }
    }
}

/// A migration that this program carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Migration {
    pub number: u32,
    pub name: &'static str,
    pub class: Class,
    pub compatible_from: u32,
    pub sql: &'static str,
    /// Of the statements without comments and layout, so that a remark may be mended later.
    pub checksum: String,
}

/// A migration that the database says was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    pub number: u32,
    pub compatible_from: u32,
    pub checksum: String,
}

impl From<(i64, i64, String)> for Applied {
    /// From a row: number, compatible-from, checksum.
    fn from((number, compatible_from, checksum): (i64, i64, String)) -> Self {
        let small = |value| u32::try_from(value).unwrap_or(u32::MAX);
        Self { number: small(number), compatible_from: small(compatible_from), checksum }
    }
}

impl Migration {
    /// From a file's name and text.
    pub(crate) fn parse(file: &'static str, sql: &'static str) -> Result<Self, StoreError> {
        let wrong = |what: &str| StoreError::Configuration(format!("migration {file}: {what}"));
        let stem = file.strip_suffix(".sql").ok_or_else(|| wrong("the name does not end in .sql"))?;
        let (number, name) = stem.split_once('_').ok_or_else(|| wrong("the name is not NNNN_name.sql"))?;
        let number = number.parse().map_err(|_| wrong("the name does not begin with a number"))?;
        let head = |key: &str| {
            sql.lines()
                .take(2)
                .find_map(|line| line.strip_prefix("-- ")?.strip_prefix(key)?.strip_prefix(": "))
                .ok_or_else(|| wrong(&format!("no line `-- {key}: …` at the top")))
        };
        let class = match head("class")? {
            "expand" => Class::Expand,
            "migrate" => Class::Migrate,
            "contract" => Class::Contract,
            _ => return Err(wrong("the class is neither expand, migrate nor contract")),
        };
        let compatible_from =
            head("compatible-from")?.parse().map_err(|_| wrong("compatible-from is not a number"))?;
        if compatible_from > number || (class == Class::Contract && compatible_from != number) {
            return Err(wrong("compatible-from does not fit its class and number"));
        }
        Ok(Self { number, name, class, compatible_from, sql, checksum: checksum(sql) })
    }

    /// The statements one by one. A statement ends with `;` at the end of a line.
    pub(crate) fn statements(&self) -> Vec<String> {
        statements(self.sql)
    }
}

fn statements(sql: &str) -> Vec<String> {
    let bare: Vec<&str> = sql
        .lines()
        .map(|line| line.split_once("-- ").map_or(line, |(before, _)| before).trim())
        .filter(|line| !line.is_empty())
        .collect();
    bare.join(" ").split(';').map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
}

/// FNV-1a: it tells an edited file from the original, it guards against nobody.
fn checksum(sql: &str) -> String {
    let hash = statements(sql).join(";").bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Parses the files of a back end and checks that they are numbered 1, 2, 3….
pub(crate) fn parse_all(files: &[(&'static str, &'static str)]) -> Result<Vec<Migration>, StoreError> {
    let migrations: Vec<_> =
        files.iter().map(|(file, sql)| Migration::parse(file, sql)).collect::<Result<_, _>>()?;
    if migrations.iter().zip(1..).any(|(migration, number)| migration.number != number) {
        return Err(StoreError::Configuration("migrations are not numbered 1, 2, 3…".into()));
    }
    Ok(migrations)
}

/// Which of `known` a starting program has to apply, or why it must not touch the database.
pub(crate) fn outstanding<'a>(
    backend: &'static str,
    known: &'a [Migration],
    applied: &[Applied],
) -> Result<Vec<&'a Migration>, StoreError> {
    let newest_known = known.len() as u32;
    for done in applied {
        match known.get(done.number as usize - 1) {
            Some(migration) if migration.checksum != done.checksum => {
                return Err(StoreError::MigrationChanged { backend, number: done.number });
            }
            Some(_) => {}
            None if done.compatible_from > newest_known => {
                let found = applied.iter().map(|done| done.number).max().unwrap_or(done.number);
                return Err(StoreError::SchemaTooNew { backend, found, known: newest_known });
            }
            None => tracing::warn!(
                backend,
                migration = done.number,
                "the schema is newer than this program, which can still work with it"
            ),
        }
    }
    if applied.is_empty() {
        return Ok(known.iter().collect());
    }
    let mut due = Vec::new();
    let mut waiting = None;
    for migration in missing(known, applied) {
        match (migration.class, waiting) {
            // It may rest on what the one before it has done.
            (Class::Expand, Some(number)) => return Err(StoreError::NotFinalized { backend, number }),
            (Class::Expand, None) => due.push(migration),
            (Class::Migrate | Class::Contract, _) => waiting = waiting.or(Some(migration.number)),
        }
    }
    if let Some(number) = waiting {
        tracing::info!(backend, migration = number, "waits until the upgrade is finalized");
    }
    Ok(due)
}

/// Which of `known` wait for the upgrade to be finalized, in order.
pub(crate) fn finalizing<'a>(
    backend: &'static str,
    known: &'a [Migration],
    applied: &[Applied],
) -> Result<Vec<&'a Migration>, StoreError> {
    if !outstanding(backend, known, applied)?.is_empty() {
        return Err(StoreError::Configuration(
            "the schema was not made by this program yet; start it".into(),
        ));
    }
    Ok(missing(known, applied).collect())
}

fn missing<'a>(known: &'a [Migration], applied: &[Applied]) -> impl Iterator<Item = &'a Migration> {
    known.iter().filter(|migration| applied.iter().all(|done| done.number != migration.number))
}

/// A statement of a `migrate` that never ends.
pub(crate) fn endless(migration: &Migration) -> StoreError {
    StoreError::Configuration(format!(
        "migration {:04}_{}: a statement still changes rows after {ROUNDS} rounds",
        migration.number, migration.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Migration> {
        parse_all(&[
            ("0001_a.sql", "-- class: expand\n-- compatible-from: 1\nCREATE TABLE a (x INT); -- why\n"),
            ("0002_b.sql", "-- class: contract\n-- compatible-from: 2\nDROP TABLE a;\nDROP TABLE b;"),
        ])
        .unwrap()
    }

    fn applied(known: &[Migration]) -> Vec<Applied> {
        known
            .iter()
            .map(|m| Applied {
                number: m.number,
                compatible_from: m.compatible_from,
                checksum: m.checksum.clone(),
            })
            .collect()
    }

    #[test]
    fn statements_lose_comments() {
        assert_eq!(known()[0].statements(), ["CREATE TABLE a (x INT)"]);
        assert_eq!(known()[1].statements(), ["DROP TABLE a", "DROP TABLE b"]);
    }

    #[test]
    fn only_what_is_missing_is_outstanding() {
        let known = known();
        assert_eq!(outstanding("t", &known, &[]).unwrap().len(), 2);
        assert!(outstanding("t", &known, &applied(&known[..1])).unwrap().is_empty());
        assert_eq!(finalizing("t", &known, &applied(&known[..1])).unwrap()[0].number, 2);
        assert!(outstanding("t", &known, &applied(&known)).unwrap().is_empty());
    }

    #[test]
    fn an_older_program_runs_only_where_it_can() {
        let all = known();
        let mut newer = applied(&all);
        let refused = outstanding("t", &all[..1], &newer).unwrap_err();
        assert!(matches!(refused, StoreError::SchemaTooNew { found: 2, known: 1, .. }), "{refused}");
        newer[1].compatible_from = 1;
        assert!(outstanding("t", &all[..1], &newer).unwrap().is_empty());
    }

    #[test]
    fn what_takes_away_waits_until_the_upgrade_is_finalized() {
        let all = parse_all(&[
            ("0001_a.sql", "-- class: expand\n-- compatible-from: 1\nCREATE TABLE a (x INT);"),
            ("0002_b.sql", "-- class: expand\n-- compatible-from: 1\nCREATE TABLE b (x INT);"),
            ("0003_c.sql", "-- class: migrate\n-- compatible-from: 1\nINSERT INTO b SELECT x FROM a;"),
            ("0004_d.sql", "-- class: contract\n-- compatible-from: 4\nDROP TABLE a;"),
            ("0005_e.sql", "-- class: expand\n-- compatible-from: 4\nCREATE TABLE e (x INT);"),
        ])
        .unwrap();
        let numbers = |list: Vec<&Migration>| list.iter().map(|one| one.number).collect::<Vec<_>>();
        let first = applied(&all[..1]);
        assert_eq!(numbers(outstanding("t", &all[..4], &[]).unwrap()), [1, 2, 3, 4], "an empty database");
        assert_eq!(numbers(outstanding("t", &all[..4], &first).unwrap()), [2]);
        let refused = finalizing("t", &all[..4], &first).unwrap_err();
        assert!(matches!(refused, StoreError::Configuration(_)), "what expands comes first: {refused}");
        let expanded = applied(&all[..2]);
        assert_eq!(numbers(finalizing("t", &all[..4], &expanded).unwrap()), [3, 4]);
        assert_eq!(
            numbers(outstanding("t", &all[..1], &expanded).unwrap()),
            [0_u32; 0],
            "the version before"
        );
        let refused = outstanding("t", &all, &expanded).unwrap_err();
        assert!(matches!(refused, StoreError::NotFinalized { number: 3, .. }), "{refused}");
        assert_eq!(numbers(outstanding("t", &all, &applied(&all[..4])).unwrap()), [5]);
    }

    #[test]
    fn a_changed_migration_is_noticed() {
        let known = known();
        let mut other = applied(&known);
        other[0].checksum.clear();
        assert!(matches!(
            outstanding("t", &known, &other),
            Err(StoreError::MigrationChanged { number: 1, .. })
        ));
    }

    #[test]
    fn wrong_headers_are_refused() {
        for (file, sql) in [
            ("1.sql", ""),
            ("x_y.sql", "-- class: expand\n-- compatible-from: 1\n"),
            ("0001_a.sql", "CREATE TABLE a (x INT);"),
            ("0001_a.sql", "-- class: other\n-- compatible-from: 1\n"),
            ("0001_a.sql", "-- class: expand\n-- compatible-from: 2\n"),
            ("0002_a.sql", "-- class: contract\n-- compatible-from: 1\n"),
        ] {
            assert!(Migration::parse(file, sql).is_err(), "{file} {sql}");
        }
    }
}
