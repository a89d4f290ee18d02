//! Cuts a dump that goes by into frames that are the same in every dump of the same rows.
//!
//! The repository keeps what it has already only once, so two dumps must become the same bytes wherever their rows are
//! the same. Two things stand against it. A frame must not end after so many bytes, or one row that is new shifts all
//! that follow: it ends after a row whose digest says so. And `mariadb-dump` begins a new statement after so many
//! bytes: the rows are put into statements anew, each of one frame. Nothing else of a dump is changed, and whoever
//! loads it finds the same rows in the same order.

use super::sums::{Dialect, Line, Lines, Scanner, row_of};
use crate::error::Result;

/// A frame has this many bytes of dump at least, unless it is the last.
pub const LEAST: usize = 64 << 10;
/// A frame ends after the row that reaches this.
pub const MOST: usize = 4 << 20;

/// Makes frames of a dump.
pub struct Cutter {
    lines: Lines,
    scanner: Scanner,
    joiner: Joiner,
}

/// The frame that is not complete yet.
struct Joiner {
    dialect: Dialect,
    frame: Vec<u8>,
    /// The line that the statements of these rows begin with; none: what comes is written as it is.
    insert: Option<Vec<u8>>,
    /// A statement has begun and has rows.
    open: bool,
}

impl Cutter {
    /// For one dump.
    pub fn new(dialect: Dialect) -> Self {
        let joiner = Joiner { dialect, frame: Vec::with_capacity(LEAST * 8), insert: None, open: false };
        Self { lines: Lines::default(), scanner: Scanner::new(dialect), joiner }
    }

    /// The next bytes; frames that are complete go to `take`.
    pub fn feed(&mut self, bytes: &[u8], take: &mut dyn FnMut(Vec<u8>) -> Result<()>) -> Result<()> {
        let Self { lines, scanner, joiner } = self;
        let mut outcome = Ok(());
        lines.feed(bytes, |line| {
            if outcome.is_ok() && joiner.line(line, scanner.line(line)) {
                outcome = take(joiner.take());
            }
        });
        outcome
    }

    /// Nothing more comes: the last frame, and what was in all of them.
    pub fn finish(mut self, take: &mut dyn FnMut(Vec<u8>) -> Result<()>) -> Result<Scanner> {
        self.joiner.close();
        self.joiner.frame.extend_from_slice(self.lines.rest());
        if !self.joiner.frame.is_empty() {
            take(self.joiner.take())?;
        }
        Ok(self.scanner)
    }
}

impl Joiner {
    /// Adds a line; whether the frame is complete with it.
    fn line(&mut self, line: &[u8], kind: Line) -> bool {
        match (kind, self.dialect) {
            (Line::Insert, Dialect::Mariadb) => {
                if self.insert.as_deref() != Some(line) {
                    self.close();
                    self.insert = Some(line.to_owned());
                }
                false
            }
            (Line::Row { edge }, _) => {
                match &self.insert {
                    None => self.put(line),
                    Some(insert) => {
                        if self.open {
                            self.frame.extend_from_slice(b",\n");
                        } else {
                            self.frame.extend_from_slice(insert);
                            self.frame.push(b'\n');
                            self.open = true;
                        }
                        self.frame.extend_from_slice(row_of(line));
                    }
                }
                let complete = (edge && self.frame.len() >= LEAST) || self.frame.len() >= MOST;
                if complete {
                    self.close();
                }
                complete
            }
            _ => {
                self.close();
                self.insert = None;
                self.put(line);
                false
            }
        }
    }

    fn put(&mut self, line: &[u8]) {
        self.frame.extend_from_slice(line);
        self.frame.push(b'\n');
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            self.frame.extend_from_slice(b";\n");
        }
    }

    fn take(&mut self) -> Vec<u8> {
        let room = self.frame.len().min(MOST);
        std::mem::replace(&mut self.frame, Vec::with_capacity(room))
    }
}

#[cfg(test)]
pub mod tests {
    use super::{Cutter, LEAST};
    use crate::backup::sums::{Dialect, Scanner};
    use std::collections::BTreeSet;

    /// As `mariadb-dump` writes it, with a new statement after `statement` bytes.
    pub fn dump(rows: impl IntoIterator<Item = u32>, statement: usize) -> Vec<u8> {
        let mut text = "CREATE TABLE `m` (\nx\n);\n".to_owned();
        let mut begun = 0;
        for row in rows {
            if begun > 0 && text.len() - begun < statement {
                text.push_str(",\n");
            } else {
                if begun > 0 {
                    text.push_str(";\n");
                }
                begun = text.len();
                text.push_str("INSERT INTO `m` VALUES\n");
            }
            text.push_str(&format!("({row},'a message of somebody to somebody, number {row}')"));
        }
        (text + ";\nUNLOCK TABLES;\n-- Dump completed\n").into_bytes()
    }

    /// The frames of a dump, and what was in them.
    pub fn cut(dialect: Dialect, bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, Scanner) {
        let mut cutter = Cutter::new(dialect);
        let mut frames = Vec::new();
        let mut take = |frame| {
            frames.push(frame);
            Ok(())
        };
        for bytes in bytes.chunks(piece) {
            cutter.feed(bytes, &mut take).unwrap();
        }
        let scanner = cutter.finish(&mut take).unwrap();
        (frames, scanner)
    }

    #[test]
    fn the_rows_stay_what_they_are_in_statements_that_are_whole() {
        let joined =
            |text: Vec<u8>| String::from_utf8(text).unwrap().replace(";\nINSERT INTO `m` VALUES\n", ",\n");
        let one = joined(dump(0..30_000, usize::MAX));
        for statement in [1, 300, 100_000, usize::MAX] {
            let (frames, scanner) = cut(Dialect::Mariadb, &dump(0..30_000, statement), 4096);
            assert!(scanner.is_complete());
            assert_eq!(scanner.finish()[0].rows, 30_000);
            assert!(frames.len() > 10);
            for frame in &frames[..frames.len() - 1] {
                assert!(frame.ends_with(b";\n"));
            }
            for frame in &frames[1..] {
                assert!(frame.starts_with(b"INSERT INTO `m` VALUES\n("));
            }
            // Joined again at the cuts, it is the dump of one statement.
            assert!(joined(frames.concat()) == one);
        }
    }

    #[test]
    fn what_is_no_row_passes_as_it_is() {
        let table = |name: &str| format!("INSERT INTO `{name}` VALUES\n(1,'a'),\n(2,'b');\n");
        let mariadb = format!("{}{}/*!40000 x */;\n-- Dump completed\n", table("a"), table("b"));
        let postgresql =
            "COPY public.a (x) FROM stdin;\n1\n2\n\\.\n\n-- PostgreSQL database dump complete\n\n";
        let cases = [
            (Dialect::Mariadb, mariadb.as_str()),
            (Dialect::Postgresql, postgresql),
            (Dialect::Mariadb, "INSERT INTO `a` VALUES (1),(2);\n"),
            (Dialect::Mariadb, "INSERT INTO `a` (`x`, `y`) VALUES\n(1,2),\n(3,4);\n"),
            (Dialect::Mariadb, "INSERT INTO `a` VALUES (1),\n(2);\nINSERT INTO `b` VALUES\n(1);\n"),
            (Dialect::Mariadb, "INSERT INTO `a` VALUES\n(1,'cut o"),
            (Dialect::Mariadb, ""),
        ];
        for (dialect, text) in cases {
            let (frames, _) = cut(dialect, text.as_bytes(), 5);
            // A statement that was cut off has no rows, so nothing of it is written but what is there.
            let expected = text.strip_prefix("INSERT INTO `a` VALUES\n(1,'cut").map_or(text, |_| "(1,'cut o");
            assert_eq!(String::from_utf8(frames.concat()).unwrap(), expected);
        }
    }

    /// A row that is new in the middle changes the frame that it is in, and hardly more, though every statement of the dump
    /// after it begins elsewhere.
    #[test]
    fn the_same_rows_become_the_same_frames() {
        let frames = |rows: &mut dyn Iterator<Item = u32>| -> BTreeSet<Vec<u8>> {
            cut(Dialect::Mariadb, &dump(rows, 100_000), 500_000).0.into_iter().collect()
        };
        let before = frames(&mut (0..400_000).filter(|row| *row != 1000));
        let after = frames(&mut (0..400_000));
        let new = after.difference(&before).count();
        assert!(after.len() > 100 && (1..=4).contains(&new), "{new} of {} are new", after.len());
        let bytes: usize = after.iter().map(Vec::len).sum();
        assert!(bytes / after.len() > LEAST, "frames are not too small");
    }
}
