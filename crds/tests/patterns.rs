//! The API server knows key patterns by a regular expression, the sidecar by a parser: both must
//! accept the same texts, or a tier that was accepted would not run.

use crds::schema;
use policy::{Pattern, pattern::PatternProblem};
use regex_lite::Regex;

#[test]
fn the_schema_accepts_exactly_the_patterns_that_the_sidecar_understands() {
    let schema = schema::open_api(&schema::cache_tier());
    let rule = &schema["properties"]["spec"]["properties"]["rules"]["items"];
    let text = rule["properties"]["match"]["pattern"].as_str().unwrap();
    let by_schema = Regex::new(text).unwrap();
    let alphabet = ['a', '1', ':', '{', '}', '*', '\\', '?', '\u{7}'];
    let mut texts = vec![String::new()];
    let mut accepted = 0;
    for _ in 0..5 {
        texts = texts
            .iter()
            .flat_map(|text| alphabet.iter().map(move |letter| format!("{text}{letter}")))
            .collect();
        for text in &texts {
            let parsed = Pattern::parse(text);
            // A regular expression cannot see that a name is there twice.
            let twice = matches!(&parsed, Err(error) if matches!(error.problem, PatternProblem::DuplicateCapture(_)));
            if !twice {
                assert_eq!(
                    by_schema.is_match(text),
                    parsed.is_ok(),
                    "{text:?}: {parsed:?}"
                );
            }
            accepted += usize::from(parsed.is_ok());
        }
    }
    assert!(accepted > 1000, "{accepted}");
}
