//! The page and the tests name the same rows.

use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../docs/failure-modes.md");
const TESTS: [&str; 4] = [
    include_str!("away.rs"),
    include_str!("refusing.rs"),
    include_str!("several.rs"),
    include_str!("values.rs"),
];

#[test]
fn every_row_of_the_page_has_a_test_and_every_test_a_row() {
    let row = |line: &'static str| {
        let id = line.strip_prefix("| F")?.split(' ').next()?;
        Some(format!("f{id}"))
    };
    let rows: Vec<String> = PAGE.lines().filter_map(row).collect();
    let unique: BTreeSet<&String> = rows.iter().collect();
    assert_eq!(unique.len(), rows.len(), "an id is given twice: {rows:?}");
    let test = |line: &'static str| {
        let id = line.strip_prefix("fn f")?.split('_').next()?;
        id.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| format!("f{id}"))
    };
    let tests: BTreeSet<String> = TESTS
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(test)
        .collect();
    let rows: BTreeSet<String> = rows.into_iter().collect();
    assert!(rows.len() > 20, "{rows:?}");
    let without_test: Vec<_> = rows.difference(&tests).collect();
    let without_row: Vec<_> = tests.difference(&rows).collect();
    assert!(
        without_test.is_empty() && without_row.is_empty(),
        "rows without a test: {without_test:?}, tests without a row: {without_row:?}"
    );
}
