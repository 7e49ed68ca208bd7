//! Configurations that contradict themselves, the final values of rules, and reports (S3.5, S4.2).

use std::{collections::HashSet, time::Duration};

use proptest::prelude::*;

use super::*;

fn compile(yaml: &str) -> Result<Policy, PolicyErrors> {
    Policy::compile(&SidecarConfig::from_yaml(yaml).unwrap())
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn reports(yaml: &str) -> Vec<String> {
    let policy = compile(yaml).unwrap();
    policy.reports().iter().map(ToString::to_string).collect()
}

/// One problem per line: the configuration, then what the only sentence must contain.
const REFUSED: [(&str, &str); 53] = [
    (
        "keyspace: {prefix: 'a*:'}",
        "keyspace.prefix is \"a*:\": `*` is a wildcard",
    ),
    (
        "keyspace: {prefix: \"a\\n\"}",
        "control character or white space",
    ),
    (
        "keyspace: {prefix: 'a b'}",
        "control character or white space",
    ),
    (
        "keyspace: {database: 20000}",
        "keyspace.database is 20000: out of range; give a value from 0",
    ),
    ("upstream: {host: ''}", "upstream.host is \"\": not a host"),
    ("upstream: {host: 'redis://r'}", "without scheme"),
    ("upstream: {host: r, port: 0}", "upstream.port is 0"),
    (
        "upstream: {host: r, usernameFile: /u}",
        "give upstream.passwordFile",
    ),
    (
        "upstream: {host: r, passwordFile: ''}",
        "remove upstream.passwordFile",
    ),
    (
        "upstream: {host: r, tls: {certFile: /c}}",
        "give upstream.tls.keyFile",
    ),
    (
        "upstream: {host: r, tls: {keyFile: /c}}",
        "give upstream.tls.certFile",
    ),
    (
        "local: {memory: 512Ki}",
        "local.memory is 512Ki: out of range; give a value from 1Mi to 1Ti",
    ),
    ("local: {memory: 2Ti}", "local.memory is 2Ti"),
    ("local: {maxStaleness: 0s}", "local.maxStaleness is 0s"),
    (
        "local: {maxStaleness: 61m}",
        "local.maxStaleness is 1h1m: out of range; give a value from 1ms to 1h",
    ),
    (
        "ttl: {default: 0s}",
        "ttl.default is 0s: keys would expire at once",
    ),
    ("ttl: {max: 4000d}", "ttl.max is 4000d: longer than 3650d"),
    (
        "ttl: {jitterPercent: 51}",
        "ttl.jitterPercent is 51: out of range; give a value from 0 to 50",
    ),
    (
        "resilience: {connectTimeout: 0s}",
        "resilience.connectTimeout",
    ),
    (
        "resilience: {commandTimeout: 2h}",
        "resilience.commandTimeout",
    ),
    ("resilience: {maxRetries: 21}", "resilience.maxRetries"),
    (
        "resilience: {backoffBase: 6s}",
        "longer than resilience.backoffMax, 5s",
    ),
    (
        "sidecar: {threads: 0}",
        "sidecar.threads is 0: out of range; give a value from 1 to 64",
    ),
    ("sidecar: {threads: 65}", "sidecar.threads is 65"),
    (
        "sidecar: {httpPort: 6379}",
        "sidecar.redisPort has that port as well",
    ),
    ("sidecar: {unixSocket: run/x}", "absolute path"),
    ("sidecar: {maxClients: 0}", "sidecar.maxClients"),
    ("sidecar: {maxBulkSize: 1}", "sidecar.maxBulkSize"),
    ("sidecar: {outputLimit: 1}", "sidecar.outputLimit"),
    (
        "sidecar: {allowCommands: [SYNC]}",
        "SHUTDOWN, REPLICAOF, FAILOVER, DEBUG",
    ),
    (
        "rules: [{match: a}]",
        "rules[0].name is \"\": the name is a metric label",
    ),
    ("rules: [{name: A_b, match: a}]", "rules[0].name is \"A_b\""),
    (
        "rules: [{name: a, match: a}, {name: a, match: b}]",
        "rule `a` (rules[1]): name is \"a\": rules[0] has that name",
    ),
    (
        "rules: [{name: a}]",
        "rule `a` (rules[0]): match: pattern ``, character 1",
    ),
    (
        "rules: [{name: a, match: 'b:{'}]",
        "character 3: `{` opens a capture",
    ),
    (
        "rules: [{name: a, match: a, ttl: 0s}]",
        "rule `a` (rules[0]): ttl is 0s: keys would",
    ),
    (
        "rules: [{name: a, match: a, cache: Bypass, ttl: 5m}]",
        "ttl is 5m: `cache: Bypass` passes",
    ),
    (
        "rules: [{name: a, match: a, cache: Deny, negativeTtl: 5m}]",
        "remove negativeTtl, or change cache",
    ),
    (
        "rules: [{name: a, match: a, cache: Bypass, onWriteError: Log}]",
        "onWriteError is Log",
    ),
    (
        "rules: [{name: a, match: a, cache: RemoteOnly, localTtl: 5m}]",
        "keeps nothing locally",
    ),
    (
        "rules: [{name: a, match: a, cache: RemoteOnly, maxValueSize: 1Ki}]",
        "maxValueSize is 1Ki",
    ),
    (
        "rules: [{name: a, match: a, cache: LocalOnly, negativeTtl: 1m}]",
        "no Redis to ask",
    ),
    (
        "rules: [{name: a, match: a, cache: LocalOnly, ttl: 5m, localTtl: 6m}]",
        "ttl says 5m; remove localTtl",
    ),
    (
        "rules: [{name: a, match: a, maxValueSize: '0'}]",
        "use `cache: RemoteOnly`",
    ),
    (
        "upstream: {host: s, mode: Sentinel}",
        "upstream.mode is Sentinel: the Sentinels must be told which primary is meant; give upstream.sentinel.masterName",
    ),
    (
        "upstream: {host: s, mode: Sentinel, sentinel: {masterName: 'my master'}}",
        "upstream.sentinel.masterName is \"my master\"",
    ),
    (
        "upstream: {host: s, mode: Sentinel, sentinel: {masterName: m, usernameFile: /u}}",
        "give upstream.sentinel.passwordFile",
    ),
    (
        "upstream: {host: s, sentinel: {masterName: m}}",
        "upstream.mode is Standalone: upstream.sentinel is given as well",
    ),
    (
        "upstream: {host: s, seeds: ['t:1']}",
        "upstream.seeds is t:1: there is one server",
    ),
    (
        "upstream: {host: s, mode: Cluster, seeds: ['t:1', 'u:0']}",
        "upstream.seeds is \"u:0\": not host:port",
    ),
    (
        "upstream: {host: s, mode: Cluster, seeds: ['redis://t:1']}",
        "not host:port",
    ),
    (
        "upstream: {host: s, replicaReads: Preferred}",
        "upstream.replicaReads is Preferred: replicas are only known in a cluster",
    ),
    (
        "{upstream: {host: s, mode: Cluster}, keyspace: {database: 3}}",
        "keyspace.database is 3: a cluster has database 0 only",
    ),
];

#[test]
fn servers_are_found_through_sentinels_and_through_nodes_of_a_cluster() {
    let yaml = "upstream: {host: a, mode: Sentinel, seeds: ['b:1', '[::1]:2'], sentinel: {masterName: my.master-1_x}}";
    compile(yaml).unwrap();
    let config = SidecarConfig::from_yaml(yaml).unwrap();
    let addresses: Vec<_> = config.upstream.as_ref().unwrap().addresses().collect();
    assert_eq!(addresses, [("a", 6379), ("b", 1), ("::1", 2)]);
    compile("upstream: {host: a, mode: Cluster, seeds: ['b:1'], replicaReads: Preferred}").unwrap();
}

#[test]
fn each_contradiction_is_one_sentence_with_field_value_and_remedy() {
    for (yaml, says) in REFUSED {
        let errors = compile(yaml).unwrap_err();
        let text = errors.to_string();
        assert_eq!(errors.as_slice().len(), 1, "{yaml}: {text}");
        assert!(text.contains(says), "{yaml}: {text}");
    }
    let path = format!("sidecar: {{unixSocket: /{}}}", "x".repeat(107));
    assert!(
        compile(&path)
            .unwrap_err()
            .to_string()
            .contains("107 bytes")
    );
    let prefix = format!("keyspace: {{prefix: '{}'}}", "x".repeat(129));
    let text = compile(&prefix).unwrap_err().to_string();
    assert!(
        text.contains("longer than 128 bytes") && text.contains('…'),
        "{text}"
    );
}

#[test]
fn all_problems_are_reported_together() {
    let all = compile(
        "{ttl: {jitterPercent: 99}, sidecar: {threads: 0}, rules: [{name: '', match: 'a:'}, {name: b, match: b, cache: Deny, ttl: 0s}]}",
    );
    let errors = all.unwrap_err();
    assert_eq!(errors.as_slice().len(), 6, "{errors}");
    assert_eq!(errors.to_string().lines().count(), 6);
}

#[test]
fn many_problems_are_counted_and_not_all_shown() {
    let config = SidecarConfig {
        rules: vec![Rule::default(); 1001],
        ..Default::default()
    };
    let errors = Policy::compile(&config).unwrap_err();
    let text = errors.to_string();
    assert!(
        text.ends_with("more problems") && text.lines().count() == 51,
        "{text}"
    );
    let last = errors.as_slice().last().unwrap().to_string();
    assert!(last.contains("1001 rules, at most 1000"), "{last}");
}

#[test]
fn the_defaults_and_an_ordinary_configuration_are_accepted() {
    let policy = Policy::compile(&SidecarConfig::default()).unwrap();
    assert_eq!(policy.find(b"any"), None);
    assert!(policy.reports().is_empty());
}

#[test]
fn a_rule_has_its_own_ttl_else_the_default_and_never_more_than_the_cap() {
    let policy = compile(
        "
ttl: {default: 10m, max: 1h, jitterPercent: 5}
rules:
- {name: own, match: own, ttl: 5m, localTtl: 2h, negativeTtl: 3s, maxValueSize: 4Ki}
- {name: default, match: default}
- {name: long, match: long, ttl: 2d, onWriteError: Log}
- {name: remote, match: remote, cache: RemoteOnly}
- {name: bypass, match: bypass, cache: Bypass}",
    )
    .unwrap();
    let [own, default, long, remote, bypass] = policy.rules() else {
        panic!("five rules")
    };
    assert_eq!(
        (own.ttl, own.local_ttl),
        (Some(secs(300)), Some(secs(3600)))
    );
    assert_eq!(
        (own.negative_ttl, own.max_value_size),
        (Some(secs(3)), Some(4096))
    );
    assert_eq!((default.ttl, default.local_ttl), (Some(secs(600)), None));
    assert_eq!(
        (long.ttl, long.ttl_max),
        (Some(secs(3600)), Some(secs(3600)))
    );
    assert_eq!(long.on_write_error, OnWriteError::Log);
    assert_eq!((remote.ttl, remote.local_ttl), (Some(secs(600)), None));
    assert_eq!((bypass.ttl, bypass.ttl_max), (None, None));
    assert_eq!(own.jitter_percent, 5);
    assert_eq!(
        policy.find(b"long").map(|id| policy.rule(id).id),
        Some(RuleId(2))
    );
    let capped = "rule `long`: its TTL of 2d is cut to ttl.max, 1h";
    assert_eq!(policy.reports()[0].to_string(), capped);
}

#[test]
fn a_cap_alone_is_the_ttl_of_writes_that_carry_none() {
    let policy = compile("{ttl: {max: 1h}, rules: [{name: a, match: a}]}").unwrap();
    assert_eq!(policy.rules()[0].ttl, Some(secs(3600)));
    let policy = compile("rules: [{name: a, match: a}]").unwrap();
    assert_eq!(policy.rules()[0].ttl, None);
}

#[test]
fn without_tracking_nothing_that_redis_may_change_lives_longer_than_max_staleness() {
    let policy = compile(
        "
local: {coherence: TtlOnly, maxStaleness: 2s}
rules:
- {name: both, match: both, localTtl: 1m, negativeTtl: 1m}
- {name: short, match: short, localTtl: 500ms}
- {name: plain, match: plain}
- {name: local, match: local, cache: LocalOnly, ttl: 1m}
- {name: remote, match: remote, cache: RemoteOnly}",
    )
    .unwrap();
    let of = |index: usize| policy.rules()[index].local_ttl;
    assert_eq!(
        (of(0), policy.rules()[0].negative_ttl),
        (Some(secs(2)), Some(secs(2)))
    );
    assert_eq!(of(1), Some(Duration::from_millis(500)));
    assert_eq!((of(2), of(3), of(4)), (Some(secs(2)), None, None));
}

#[test]
fn disabled_caching_applies_no_rule_but_still_explains() {
    let policy = compile("{caching: Disabled, rules: [{name: a, match: '*'}]}").unwrap();
    assert_eq!(policy.find(b"x"), None);
    assert_eq!(policy.find_declared(b"x"), Some(RuleId(0)));
    assert_eq!(policy.caching(), Caching::Disabled);
}

#[test]
fn captures_of_a_matched_key_are_found_by_rule() {
    let policy = compile("rules: [{name: g, match: 'a:{guild}:{since}'}]").unwrap();
    let found: Vec<_> = policy.captures(RuleId(0), b"a:1:2").unwrap().collect();
    assert_eq!(found, [("guild", &b"1"[..]), ("since", b"2")]);
    assert!(policy.captures(RuleId(0), b"b:1:2").is_none());
    assert!(policy.captures(RuleId(9), b"a:1:2").is_none());
}

#[test]
fn shadowed_and_overlapping_rules_are_reported_with_both_names() {
    assert_eq!(
        reports("rules: [{name: all, match: 'user:*'}, {name: one, match: 'user:{id}:name'}]"),
        [
            "rule `one` never applies: rule `all` comes first and matches all of its keys; move `one` before `all` or remove it"
        ]
    );
    assert_eq!(
        reports("rules: [{name: x, match: 'a:{b}'}, {name: y, match: '{a}:b'}]"),
        ["rules `x` and `y` both match some keys, such as `a:b`; `x` wins because it comes first"]
    );
    let refined = "{rules: [{name: one, match: 'user:me'}, {name: all, match: 'user:*'}]}";
    assert_eq!(
        reports(refined),
        [
            "rule `all` matches all keys of rule `one`, such as `user:me`; `one` wins because it comes first, `all` gets the rest"
        ]
    );
    assert!(!compile(refined).unwrap().reports()[0].is_warning());
    assert!(
        reports(
            "rules: [{name: a, match: 'a:{x}'}, {name: b, match: 'a:{x}:*'}, {name: c, match: 'b'}]"
        )
        .is_empty()
    );
}

#[test]
fn reports_are_bounded_and_the_rest_is_counted() {
    let mut config = SidecarConfig::default();
    for index in 0..60 {
        config.rules.push(Rule {
            name: format!("r{index}"),
            pattern: if index < 30 {
                format!("a{index}:{{x}}")
            } else {
                format!("{{x}}:b{index}")
            },
            ..Default::default()
        });
    }
    let policy = Policy::compile(&config).unwrap();
    assert_eq!(policy.reports().len(), 101);
    assert_eq!(policy.reports()[100], Report::More(800));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A shadowed rule never wins; a rule that is not shadowed wins its own witness.
    #[test]
    fn exactly_the_rules_that_can_never_win_are_reported_as_shadowed(
        texts in prop::collection::vec("(([ab]|\\{[xy]\\}|):){0,2}([ab]|\\{z\\}|\\*)", 1..8),
        keys in prop::collection::vec("(([ab]|):){0,3}[abc]?", 1..80),
    ) {
        let mut config = SidecarConfig::default();
        for (index, pattern) in texts.into_iter().enumerate() {
            if Pattern::parse(&pattern).is_ok() {
                config.rules.push(Rule { name: format!("r{index}"), pattern, ..Default::default() });
            }
        }
        let policy = Policy::compile(&config).unwrap();
        let shadowed: HashSet<&str> = policy.reports().iter().filter_map(|report| match report {
            Report::Shadowed { rule, .. } => Some(&**rule),
            _ => None,
        }).collect();
        for key in &keys {
            if let Some(id) = policy.find(key.as_bytes()) {
                prop_assert!(!shadowed.contains(&*policy.rule(id).name), "{:?} {}", config.rules, key);
            }
        }
        for rule in policy.rules().iter().filter(|rule| !shadowed.contains(&*rule.name)) {
            let witness = rule.pattern.witness(&"x".repeat(50));
            prop_assert_eq!(policy.find(&witness), Some(rule.id));
        }
        for report in policy.reports() {
            if let Report::Overlapping { first, second, key } | Report::Refined { first, second, key } = report {
                for name in [first, second] {
                    let rule = policy.rules().iter().find(|rule| rule.name == *name).unwrap();
                    prop_assert!(rule.pattern.matches(key.as_bytes()));
                }
            }
        }
    }
}
