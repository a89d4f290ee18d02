//! "Did you mean …?": the known name nearest to what was written.

/// The candidate nearest to `word`, when it is near enough to be a typing mistake: at most a third of the longer
/// word's letters differ (swapped neighbours count once), or one begins with the other.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let known = candidate.to_lowercase().replace('-', "_");
            let distance = distance(&word, &known);
            let limit = word.chars().count().max(known.chars().count()).div_ceil(3).max(1);
            let prefix = word.len() >= 3 && (known.starts_with(&word) || word.starts_with(&known));
            (distance <= limit || prefix).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two words: insertion, deletion, replacement, and swapping of neighbours (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(64).collect();
    let right: Vec<char> = right.chars().take(64).collect();
    let mut table = vec![vec![0usize; right.len() + 1]; left.len() + 1];
    for (row, line) in table.iter_mut().enumerate() {
        line[0] = row;
    }
    for (column, cell) in table[0].iter_mut().enumerate() {
        *cell = column;
    }
    for row in 1..=left.len() {
        for column in 1..=right.len() {
            let cost = usize::from(left[row - 1] != right[column - 1]);
            let mut best = (table[row - 1][column] + 1).min(table[row][column - 1] + 1);
            best = best.min(table[row - 1][column - 1] + cost);
            if row > 1
                && column > 1
                && left[row - 1] == right[column - 2]
                && left[row - 2] == right[column - 1]
            {
                best = best.min(table[row - 2][column - 2] + 1);
            }
            table[row][column] = best;
        }
    }
    table[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn typing_mistakes_find_their_word() {
        let words = ["mariadb", "postgresql", "redis", "im", "console"];
        assert_eq!(nearest("maraidb", words), Some("mariadb"));
        assert_eq!(nearest("postgres", words), Some("postgresql"));
        assert_eq!(nearest("Redis", words), Some("redis"));
        assert_eq!(nearest("kafka", words), None);
    }
}
