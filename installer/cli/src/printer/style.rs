//! Colours, and how durations, sizes and counts are written.

/// Whether a stream takes colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    colour: bool,
}

impl Style {
    /// With or without.
    pub const fn new(colour: bool) -> Self {
        Self { colour }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// Something failed.
    pub fn red(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// Something wants attention.
    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Something is well.
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// What can be typed or opened.
    pub fn cyan(self, text: &str) -> String {
        self.paint("36", text)
    }

    /// What matters.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What matters less.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }
}

/// `34 ms`, `1.2 s`, `3 min 5 s`.
pub(crate) fn duration(milliseconds: u64) -> String {
    match milliseconds {
        0..1_000 => format!("{milliseconds} ms"),
        1_000..60_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        _ => format!("{} min {} s", milliseconds / 60_000, milliseconds / 1000 % 60),
    }
}

/// `812 B`, `3.4 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `5 s`, `3 min`, `4 h`, `12 d`.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Columns that a text takes: wide characters count two, colour codes none.
pub(crate) fn width(text: &str) -> usize {
    let mut width = 0;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            for code in characters.by_ref() {
                if code.is_ascii_alphabetic() {
                    break;
                }
            }
            continue;
        }
        width += match u32::from(character) {
            0x1100..=0x115f
            | 0x2e80..=0xa4cf
            | 0xac00..=0xd7a3
            | 0xf900..=0xfaff
            | 0xfe30..=0xfe4f
            | 0xff00..=0xff60
            | 0xffe0..=0xffe6
            | 0x1f300..=0x1faff
            | 0x20000..=0x3fffd => 2,
            _ => 1,
        };
    }
    width
}

#[cfg(test)]
mod tests {
    use super::{age, duration, size, width};

    #[test]
    fn figures_have_units() {
        assert_eq!([duration(12), duration(1_234), duration(185_000)], ["12 ms", "1.2 s", "3 min 5 s"]);
        assert_eq!([size(812), size(3_565_158)], ["812 B", "3.4 MiB"]);
        assert_eq!([age(59), age(61), age(7_200), age(200_000)], ["59 s", "1 min", "2 h", "2 d"]);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(width("节点 a"), 6);
        assert_eq!(width("\u{1b}[1;31mx\u{1b}[0m"), 1);
    }
}
