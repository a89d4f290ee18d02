//! Rows and hashes by table, while a dump goes by: line by line, in memory bounded by the longest row.
//!
//! Both dump programs write a row on a line of its own and escape line breaks within values, so no SQL has to be
//! parsed: `mariadb-dump` writes `INSERT INTO … VALUES` and then one tuple on each line, `pg_dump` writes `COPY … FROM
//! stdin;`, one row on each line, and `\.`. The hash of a table is the sum of the SHA-256 of its rows modulo 2^256,
//! so that the order of rows is of no matter.

use maxim_model::backup::TableSum;
use memchr::memchr;
use ring::digest::{SHA256, digest};

/// One row of about a thousand is an edge (see [`Line::Row`]).
const EDGE: u16 = 0x3ff;

/// Sum of one table.
#[derive(Debug, Clone)]
pub struct Sum {
    table: String,
    rows: u64,
    /// Least significant limb first.
    limbs: [u64; 4],
}

impl Sum {
    /// Of a table without rows.
    pub fn new(table: impl Into<String>) -> Self {
        Self { table: table.into(), rows: 0, limbs: [0; 4] }
    }

    /// Adds a row; its digest.
    pub fn add(&mut self, row: &[u8]) -> [u8; 32] {
        let mut value = [0; 32];
        value.copy_from_slice(digest(&SHA256, row).as_ref());
        self.add_digest(&value);
        value
    }

    /// Adds a row by its digest.
    pub fn add_digest(&mut self, digest: &[u8; 32]) {
        self.rows += 1;
        let mut carry = 0_u128;
        for (limb, bytes) in self.limbs.iter_mut().zip(digest.rchunks(8)) {
            let part = bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
            let sum = u128::from(*limb) + u128::from(part) + carry;
            *limb = sum as u64;
            carry = sum >> 64;
        }
    }

    /// As it travels.
    pub fn finish(&self) -> TableSum {
        let bytes: Vec<u8> = self.limbs.iter().rev().flat_map(|limb| limb.to_be_bytes()).collect();
        let hash = hex::encode(bytes);
        TableSum { table: self.table.clone(), rows: self.rows, hash }
    }
}

/// Which program's dump it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `mariadb-dump`.
    Mariadb,
    /// `pg_dump`, plain.
    Postgresql,
}

/// What a line of a dump is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// A row, with what joins it to the next one. A dump may be cut after an edge: the digest says which row is one, so
    /// that it is the same row in every dump.
    Row {
        /// Whether it is an edge.
        edge: bool,
    },
    /// Rows of a table follow, each on a line.
    Insert,
    /// Anything else.
    Other,
}

/// Cuts bytes that go by into lines.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// The next bytes; each line that they complete goes to `take`, without its end.
    pub fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) {
        while let Some(end) = memchr(b'\n', bytes) {
            if self.begun.is_empty() {
                take(&bytes[..end]);
            } else {
                self.begun.extend_from_slice(&bytes[..end]);
                take(&self.begun);
                self.begun.clear();
            }
            bytes = &bytes[end + 1..];
        }
        self.begun.extend_from_slice(bytes);
    }

    /// What came after the last end of a line.
    pub fn rest(&self) -> &[u8] {
        &self.begun
    }
}

/// Reads a dump that goes by.
#[derive(Debug)]
pub struct Scanner {
    dialect: Dialect,
    tables: Vec<Sum>,
    /// The table whose rows come now.
    current: Option<usize>,
    /// Whether the last line of the dump was there.
    complete: bool,
}

impl Scanner {
    /// For one dump.
    pub const fn new(dialect: Dialect) -> Self {
        Self { dialect, tables: Vec::new(), current: None, complete: false }
    }

    /// The next line.
    pub fn line(&mut self, line: &[u8]) -> Line {
        match self.dialect {
            Dialect::Mariadb => self.mariadb(line),
            Dialect::Postgresql => self.postgresql(line),
        }
    }

    /// Whether the program wrote its dump to the end.
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// The sums, by table in order of names.
    pub fn finish(&self) -> Vec<TableSum> {
        let mut sums: Vec<TableSum> = self.tables.iter().map(Sum::finish).collect();
        sums.sort_by(|a, b| a.table.cmp(&b.table));
        sums
    }

    fn table(&mut self, name: &[u8]) -> usize {
        let name = String::from_utf8_lossy(name).into_owned();
        if let Some(place) = self.tables.iter().position(|sum| sum.table == name) {
            return place;
        }
        self.tables.push(Sum::new(name));
        self.tables.len() - 1
    }

    fn mariadb(&mut self, line: &[u8]) -> Line {
        if line.first() == Some(&b'(')
            && let Some(place) = self.current
        {
            if line.last() == Some(&b';') {
                self.current = None;
            }
            return row(self.tables[place].add(row_of(line)));
        } else if let Some(rest) = line.strip_prefix(b"INSERT INTO `") {
            self.current = quoted(rest).map(|name| self.table(name));
            if line.ends_with(b" VALUES") {
                return Line::Insert;
            }
        } else if let Some(rest) = line.strip_prefix(b"CREATE TABLE `") {
            if let Some(name) = quoted(rest) {
                self.table(name);
            }
        } else if line.starts_with(b"-- Dump completed") {
            self.complete = true;
        }
        Line::Other
    }

    fn postgresql(&mut self, line: &[u8]) -> Line {
        if let Some(place) = self.current {
            if line != b"\\." {
                return row(self.tables[place].add(line));
            }
            self.current = None;
        } else if let Some(rest) = line.strip_prefix(b"COPY ")
            && line.ends_with(b" FROM stdin;")
        {
            let name = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
            let name = name.strip_prefix(b"public.").unwrap_or(name);
            self.current = Some(self.table(name));
            return Line::Insert;
        } else if line == b"-- PostgreSQL database dump complete" {
            self.complete = true;
        }
        Line::Other
    }
}

fn row(digest: [u8; 32]) -> Line {
    Line::Row { edge: u16::from_be_bytes([digest[0], digest[1]]) & EDGE == 0 }
}

/// A tuple without its comma or semicolon, which are of the list and not of the row.
pub fn row_of(line: &[u8]) -> &[u8] {
    line.strip_suffix(b",").or_else(|| line.strip_suffix(b";")).unwrap_or(line)
}

/// The name before the closing backquote. Names of ours hold none.
fn quoted(rest: &[u8]) -> Option<&[u8]> {
    rest.iter().position(|byte| *byte == b'`').map(|end| &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::{Dialect, Lines, Scanner, Sum};

    const MARIADB: &str = "CREATE TABLE `a` (\n  `x` int\n);\nINSERT INTO `a` VALUES\n(1,'(\\n);'),\n(2,'y');\n\
                           CREATE TABLE `b` (\nx\n);\n-- Dump completed\n";
    const POSTGRESQL: &str = "CREATE TABLE public.a (\n    x bigint\n);\nCOPY public.a (x, y) FROM stdin;\n1\t(\\n\n2\ty\n\\.\n\
                              COPY public.b (x) FROM stdin;\n\\.\n-- PostgreSQL database dump complete\n";

    fn scan(dialect: Dialect, text: &str, piece: usize) -> (Vec<(String, u64, String)>, bool) {
        let (mut scanner, mut lines) = (Scanner::new(dialect), Lines::default());
        for bytes in text.as_bytes().chunks(piece) {
            lines.feed(bytes, |line| {
                scanner.line(line);
            });
        }
        let sums = scanner.finish().into_iter().map(|sum| (sum.table, sum.rows, sum.hash)).collect();
        (sums, scanner.is_complete())
    }

    #[test]
    fn rows_are_counted_whatever_the_pieces() {
        for (dialect, text) in [(Dialect::Mariadb, MARIADB), (Dialect::Postgresql, POSTGRESQL)] {
            let (whole, complete) = scan(dialect, text, text.len());
            assert!(complete);
            assert_eq!(
                whole.iter().map(|(name, rows, _)| (name.as_str(), *rows)).collect::<Vec<_>>(),
                [("a", 2), ("b", 0)]
            );
            assert_eq!(whole[1].2, "0".repeat(64));
            for piece in [1, 3, 7] {
                assert_eq!(scan(dialect, text, piece).0, whole);
            }
            assert!(!scan(dialect, &text[..text.len() - 20], 5).1, "a dump that was cut off is not complete");
        }
    }

    #[test]
    fn order_is_of_no_matter_and_content_is() {
        let sum = |rows: &[&str]| {
            let mut sum = Sum::new("t");
            for row in rows {
                sum.add(row.as_bytes());
            }
            sum.finish()
        };
        assert_eq!(sum(&["a", "b", "c"]), sum(&["c", "a", "b"]));
        assert_ne!(sum(&["a", "b"]).hash, sum(&["a", "c"]).hash);
        let mut carried = Sum::new("t");
        carried.add_digest(&[0xff; 32]);
        let mut one = [0; 32];
        one[31] = 1;
        carried.add_digest(&one);
        assert_eq!(carried.finish().hash, "0".repeat(64));
    }
}
