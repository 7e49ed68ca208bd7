//! What is read, what is refused, and that the refusal says where and what instead.

use super::*;
use crate::config::{CacheMode, Coherence};

fn error(text: &str) -> String {
    SidecarConfig::from_yaml(text).unwrap_err().to_string()
}

#[test]
fn yaml_and_json_say_the_same() {
    let yaml = "
tier: default/demo
keyspace: {prefix: 'app:'}
upstream:
  host: redis
local:
  memory: 8Mi
  coherence: TtlOnly
rules:
- name: ghosts
  match: analytics:ghosts:{guildId}:{since}
  ttl: 5m
- name: rest
  match: '*'
  cache: RemoteOnly
";
    let config = SidecarConfig::from_yaml(yaml).unwrap();
    assert_eq!(config.rules[1].cache, CacheMode::RemoteOnly);
    assert_eq!(config.local.coherence, Coherence::TtlOnly);
    assert_eq!(config.upstream.as_ref().unwrap().port, 6379);
    let json = serde_json::to_string_pretty(&config).unwrap();
    assert_eq!(SidecarConfig::from_yaml(&json).unwrap(), config);
    let again = serde_yaml::to_string(&config).unwrap();
    assert_eq!(SidecarConfig::from_yaml(&again).unwrap(), config);
    assert_eq!(
        SidecarConfig::from_yaml("{}").unwrap(),
        SidecarConfig::default()
    );
}

#[test]
fn an_unknown_field_names_its_place_and_the_nearest_known_field() {
    assert_eq!(
        error("ruels: []"),
        "unknown field `ruels` in the top level; did you mean `rules`?"
    );
    assert_eq!(
        error("rules: [{name: a, match: a}, {name: b, match: b, tll: 5m}]"),
        "unknown field `tll` in rules[1]; did you mean `ttl`?"
    );
    assert_eq!(
        error("local: {max_staleness: 1s}"),
        "unknown field `max_staleness` in local; did you mean `maxStaleness`?"
    );
    assert_eq!(
        error("upstream: {host: r, tls: {ca: /x}}"),
        "unknown field `ca` in upstream.tls; known there: `caFile`, `certFile`, `keyFile`, `serverName`"
    );
    assert_eq!(
        error("keyspace: {qqqqqqqqqq: 1}"),
        "unknown field `qqqqqqqqqq` in keyspace; known there: `database`, `prefix`"
    );
}

#[test]
fn all_unknown_fields_are_named_at_once() {
    let text = error("{ruels: [], local: {memroy: 1Mi}}");
    assert!(
        text.contains("`rules`") && text.contains("`memory`"),
        "{text}"
    );
}

#[test]
fn a_wrong_type_names_path_value_and_what_is_expected() {
    for (text, says) in [
        (
            "sidecar: {threads: many}",
            ["sidecar.threads", "many", "u8"],
        ),
        ("sidecar: {threads: 300}", ["sidecar.threads", "300", "u8"]),
        ("rules: [{ttl: 5}]", ["rules[0].ttl: ", "\"5\"", "30s"]),
        ("rules: [{ttl: 5 min}]", ["rules[0].ttl", "5 min", "\"5m\""]),
        (
            "rules: [{cache: Redis}]",
            ["rules[0].cache", "Redis", "RemoteOnly"],
        ),
        ("local: {memory: lots}", ["local.memory", "lots", "64Ki"]),
        ("rules: {}", ["rules", "map", "sequence"]),
        ("upstream: {port: 1}", ["upstream", "missing", "host"]),
    ] {
        let error = error(text);
        for part in says {
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(error.contains("line 1"), "{error}");
    }
}

#[test]
fn text_that_is_no_configuration_is_refused_with_a_sentence() {
    for text in [
        "",
        "~",
        "# rules: []\n---\n",
        "[]",
        "a: b: c",
        "{",
        "\u{0}",
        "- &",
        "tier: [",
        "%",
        "---\n---\n",
    ] {
        assert!(!error(text).is_empty(), "{text:?}");
    }
    assert!(error("rules: [\n{name: a},\n}").contains("line 3"));
    assert!(error("rules:\n- [").contains("rules[0]"));
}

#[test]
fn a_file_of_more_than_4_mib_is_refused_before_it_is_parsed() {
    let text = format!("#{}", "x".repeat(MAX_CONFIG_LEN));
    assert!(error(&text).contains("at most 4194304"));
}

#[test]
fn deep_nesting_is_refused_before_the_yaml_library_sees_it() {
    for open in ["[", "{", "{a: ["] {
        let text = error(&format!("rules: {}", open.repeat(100_000)));
        assert!(text.contains("more than 32 levels"), "{text}");
    }
    // Braces that close again are no levels, and block style is bounded by the library.
    let many = "- {name: a, match: 'a:{b}'}\n".repeat(1000);
    assert!(SidecarConfig::from_yaml(&format!("rules:\n{many}")).is_ok());
    assert!(!error(&format!("ruels: {}", "- ".repeat(10_000))).is_empty());
}

#[test]
fn alias_bombs_do_not_unfold() {
    // Nine levels of nine references each would be 387 million items.
    let mut bomb = "ruels:\n- &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..9 {
        let refs = vec![format!("*a{}", level - 1); 9].join(",");
        bomb.extend(["- &a", &level.to_string(), " [", &refs, "]\n"]);
    }
    assert!(error(&bomb).contains("line 2: YAML anchors"), "{bomb}");
    // A long text, repeated: quadratic, and below the limit of the YAML library.
    let long = format!(
        "tier: &t {}\nrules:\n{}",
        "x".repeat(1 << 20),
        "- name: *t\n".repeat(100_000)
    );
    assert!(error(&long).contains("line 1: YAML anchors"));
    for text in [
        "{\"tier\":&t x}",
        "[&t x]",
        "&t\ntier: x",
        "tier: !!str &t x",
    ] {
        assert!(error(text).contains("anchors"), "{text}");
    }
    let plain = SidecarConfig::from_yaml("tier: R&D & more").unwrap();
    assert_eq!(plain.tier, "R&D & more");
}
