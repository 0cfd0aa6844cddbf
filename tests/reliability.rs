//! docs/RELIABILITY.md names the test of every row; this keeps those names true.

// clippy.toml allows these inside test functions only; a test's helpers are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

/// The cells of each row of a table: number, fault, what happens, proof.
fn rows() -> Vec<Vec<String>> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/RELIABILITY.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// Whether a comment such as `// F19, F24` has a row's number, or one of its numbers: `F18-20`.
fn is_about(comment: &str, row: &str) -> bool {
    let (first, last) = row.split_once('-').unwrap_or((row, ""));
    let (letter, first) = first.split_at(1);
    let Ok(first) = first.parse::<u32>() else { return false };
    let numbers = first..=last.parse().unwrap_or(first);
    let words = comment.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter_map(|word| word.strip_prefix(letter)?.parse().ok()).any(|number| numbers.contains(&number))
}

#[test]
fn every_test_that_the_page_names_exists() {
    let mut named = 0;
    for row in rows() {
        let [number, _, _, proof] = row.as_slice() else { panic!("not four cells: {row:?}") };
        let tests: Vec<&str> = proof.split('`').filter(|word| word.contains(".rs::")).collect();
        assert!(!tests.is_empty() || proof.contains("not built") || proof.contains("no test"), "{number}: no proof");
        let mut points_back = false;
        for test in &tests {
            let (file, name) = test.split_once("::").unwrap();
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            let source = fs::read_to_string(path).unwrap_or_else(|error| panic!("{number}: {file}: {error}"));
            let lines: Vec<&str> = source.lines().map(str::trim).collect();
            let at = lines.windows(2).position(|pair| pair == ["#[test]", &format!("fn {name}() {{")]);
            let at = at.unwrap_or_else(|| panic!("{number}: there is no test {name} in {file}"));
            let comment = at.checked_sub(1).and_then(|above| lines.get(above)).filter(|line| line.starts_with("//"));
            points_back |= comment.is_some_and(|comment| is_about(comment, number));
            named += 1;
        }
        assert!(points_back || tests.is_empty() || number == "Builder", "{number}: no test is marked with it");
    }
    assert!(named > 100, "only {named} tests were found on the page");
}

#[test]
fn every_fault_has_one_row() {
    let ranges = [("F18", 3), ("F57", 2), ("M1", 3), ("M4", 2), ("M8", 3), ("M11", 3)];
    let mut expected: Vec<String> = Vec::new();
    for (letter, last) in [("F", 65), ("M", 20)] {
        let mut number = 1;
        while number <= last {
            let name = format!("{letter}{number}");
            let count = ranges.iter().find(|(first, _)| *first == name).map_or(1, |(_, count)| *count);
            expected.push(if count > 1 { format!("{name}-{}", number + count - 1) } else { name });
            number += count;
        }
    }
    expected.push("Builder".to_owned());
    let mut found: Vec<String> = rows().into_iter().filter_map(|row| row.into_iter().next()).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}
