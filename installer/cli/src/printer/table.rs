//! A table for a terminal: head, columns as wide as needed, two spaces between.

use super::style::{Style, width};

/// Where a column's text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// Renders rows; the first is the head.
pub(crate) fn render(rows: &[Vec<String>], align: &[Align], style: Style) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - width(cell));
            let shown = if number == 0 { style.dim(cell) } else { cell.clone() };
            let right = align.get(column) == Some(&Align::Right);
            if column > 0 {
                line.push_str("  ");
            }
            line.push_str(&if right { format!("{padding}{shown}") } else { format!("{shown}{padding}") });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Align, render};
    use crate::printer::style::Style;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["HOST", "TIME"], vec!["节点", "1 s"], vec!["app1", "12 ms"]]
            .map(|row| row.into_iter().map(str::to_owned).collect::<Vec<_>>());
        let text = render(&rows, &[Align::Left, Align::Right], Style::new(false));
        assert_eq!(text, "HOST   TIME\n节点    1 s\napp1  12 ms\n");
    }
}
