//! The manifests that users start from work as they are.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the report; clippy.toml covers only functions marked #[test]"
)]

use std::{fs, path::PathBuf};

use crds::{Compiled, compile, load_manifests};
use policy::{
    Span,
    config::{CacheMode, Caching},
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn compiled(name: &str) -> Compiled {
    let manifests = load_manifests(&folder().join(name)).unwrap();
    let url = (!name.contains("external")).then_some("redis://localhost:6379");
    compile(&manifests, url).unwrap()
}

/// TTL of each rule, in the order of the rules.
fn ttls(compiled: &Compiled) -> Vec<(&str, u64)> {
    let secs = |span: Option<Span>| span.map_or(0, |span| span.0.as_secs());
    let rules = compiled.config.rules.iter();
    rules
        .map(|rule| (rule.name.as_str(), secs(rule.ttl)))
        .collect()
}

#[test]
fn every_example_compiles_and_its_rules_are_sound() {
    let mut seen = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let compiled = compiled(path.file_name().unwrap().to_str().unwrap());
            policy::compile::Policy::compile(&compiled.config).unwrap();
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
}

#[test]
fn analytics_has_the_six_patterns_with_their_ttls_and_needs_no_redis_s4_2() {
    let compiled = compiled("analytics.yaml");
    assert_eq!(compiled.config.upstream, None);
    let expected = [
        ("ghosts", 300),
        ("lurkers", 300),
        ("heatmap", 900),
        ("roles", 600),
        ("clients", 120),
        ("shifts", 300),
    ];
    assert_eq!(ttls(&compiled), expected);
    for rule in &compiled.config.rules {
        assert_eq!(
            rule.pattern,
            format!("analytics:{}:{{guildId}}:{{since}}", rule.name)
        );
        assert_eq!(rule.cache, CacheMode::Both);
    }
}

#[test]
fn the_study_tool_has_prefix_database_and_ttl_of_its_environment_s2_1_s2_12_s2_16() {
    for (environment, ttl, database) in [
        ("production", 3600, 0),
        ("development", 300, 0),
        ("test", 60, 15),
    ] {
        let compiled = compiled(&format!("study-tool-{environment}.yaml"));
        assert_eq!(
            compiled.config.keyspace.prefix,
            format!("studytool:{environment}:")
        );
        assert_eq!(compiled.config.keyspace.database, database);
        assert_eq!(compiled.config.ttl.default, Some(Span::from_secs(ttl)));
        assert_eq!(
            compiled.config.upstream.is_none(),
            environment == "development"
        );
        assert!(
            compiled
                .notes
                .iter()
                .any(|note| note.contains("not served yet"))
        );
    }
}

#[test]
fn chat_rooms_are_full_scaled_or_off_s3_1_s3_5() {
    let production = compiled("chat-rooms-production.yaml");
    assert_eq!(ttls(&production)[0], ("room-list", 300));
    assert_eq!(ttls(&production)[3], ("room", 3600));
    let development = compiled("chat-rooms-development.yaml");
    assert_eq!(ttls(&development)[0], ("room-list", 30));
    assert_eq!(ttls(&development)[3], ("room", 360));
    assert_eq!(production.config.caching, Caching::Enabled);
    assert_eq!(
        compiled("chat-rooms-test.yaml").config.caching,
        Caching::Disabled
    );
}

#[test]
fn the_external_example_takes_its_url_from_the_secret_beside_it_s1_9() {
    let compiled = compiled("external-redis.yaml");
    let upstream = compiled.config.upstream.unwrap();
    assert_eq!((upstream.host.as_str(), upstream.port), ("localhost", 6379));
    assert_eq!(compiled.credentials, None);
}
