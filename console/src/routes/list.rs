//! Sorting and filtering of tables by the address of the page, so that both work without scripts and can be linked.

use super::page::encode;
use super::visitor::Visitor;
use crate::status::judge;
use maxim_model::status::Health;
use serde::Deserialize;
use std::cmp::Ordering;

/// What the query of a table page says. Unknown values mean the default.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ListQuery {
    /// Text that a row must contain.
    pub q: String,
    /// `notwell`: only rows that are not well.
    pub show: String,
    /// Column to sort by.
    pub sort: String,
    /// `down`: reversed.
    pub order: String,
}

/// A column of a sortable table.
pub struct Column {
    /// Name for people.
    pub name: String,
    /// Address that sorts by it.
    pub link: String,
    /// `ascending`, `descending` or `none`, for `aria-sort`.
    pub sorted: &'static str,
    /// Numbers are set right.
    pub numeric: bool,
}

impl ListQuery {
    /// Whether only rows that are not well are wanted.
    pub fn only_not_well(&self) -> bool {
        self.show == "notwell"
    }

    /// Whether rows are left out.
    pub fn filters(&self) -> bool {
        !self.q.is_empty() || self.only_not_well()
    }

    /// Whether a row with this state and these texts is wanted.
    pub fn wants(&self, state: Health, texts: &[&str]) -> bool {
        let needle = self.q.trim().to_lowercase();
        let found = needle.is_empty() || texts.iter().any(|text| text.to_lowercase().contains(&needle));
        found && !(self.only_not_well() && state == Health::Well)
    }

    /// The columns of a table at `path`: each a key, the key of its name's message, whether it is numeric.
    pub fn columns(&self, visitor: &Visitor, path: &str, columns: &[(&str, &str, bool)]) -> Vec<Column> {
        columns
            .iter()
            .map(|&(key, message, numeric)| {
                let current = self.sort == key || (self.sort.is_empty() && key == columns[0].0);
                let down = self.order == "down";
                let order = if current && !down { "&order=down" } else { "" };
                let show = if self.only_not_well() { "&show=notwell" } else { "" };
                let filter =
                    if self.q.is_empty() { String::new() } else { format!("&q={}", encode(&self.q)) };
                Column {
                    name: visitor.language.say(message, &[]),
                    link: format!("{path}?sort={key}{order}{show}{filter}"),
                    sorted: match (current, down) {
                        (false, _) => "none",
                        (true, false) => "ascending",
                        (true, true) => "descending",
                    },
                    numeric,
                }
            })
            .collect()
    }

    /// Sorts rows by a comparison of the chosen column, and turns them round when asked to.
    pub fn sort<T>(&self, rows: &mut [T], compare: impl Fn(&str, &T, &T) -> Ordering) {
        rows.sort_by(|a, b| {
            let order = compare(&self.sort, a, b);
            if self.order == "down" { order.reverse() } else { order }
        });
    }
}

/// Order of states: the worst first, because that is what one looks for.
pub fn worst_first(one: Health, other: Health) -> Ordering {
    judge::rank(other).cmp(&judge::rank(one))
}

#[cfg(test)]
mod tests {
    use super::{ListQuery, worst_first};
    use maxim_model::status::Health;

    #[test]
    fn filters_by_text_and_state() {
        let query = ListQuery { q: " DB ".into(), show: "notwell".into(), ..ListQuery::default() };
        assert!(query.filters());
        assert!(query.wants(Health::Unknown, &["db1", "x"]));
        assert!(!query.wants(Health::Well, &["db1"]));
        assert!(!query.wants(Health::Broken, &["app1"]));
        assert!(!ListQuery::default().filters());
    }

    #[test]
    fn sorts_the_worst_first_and_back() {
        let mut rows = [Health::Well, Health::Broken, Health::Attention];
        ListQuery::default().sort(&mut rows, |_, a, b| worst_first(*a, *b));
        assert_eq!(rows, [Health::Broken, Health::Attention, Health::Well]);
        let down = ListQuery { order: "down".into(), ..ListQuery::default() };
        down.sort(&mut rows, |_, a, b| worst_first(*a, *b));
        assert_eq!(rows, [Health::Well, Health::Attention, Health::Broken]);
    }
}
