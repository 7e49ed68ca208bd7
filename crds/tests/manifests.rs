//! Manifests in files: what is read, what is refused with which words, and what they compile to.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the report; clippy.toml covers only functions marked #[test]"
)]

use std::{fs, path::PathBuf};

use crds::{CompileError, LoadError, Manifests, compile, load_manifests, parse_manifests};
use policy::config::UpstreamMode;

const TIER: &str = "apiVersion: pannier.dev/v1alpha1
kind: CacheTier
metadata: {name: t, namespace: shop, generation: 7}
";
const EXTERNAL: &str = "spec: {redis: {topology: External, external: {urlSecretRef: {name: r}}}}\n";

fn parse(text: &str) -> Result<Manifests, String> {
    parse_manifests("tier.yaml", text).map_err(|error| error.to_string())
}

fn tier(spec: &str) -> Manifests {
    parse(&format!("{TIER}{spec}")).unwrap()
}

fn secret(entries: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: r, namespace: shop}}\n{entries}\n"
    )
}

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("pannier-crds-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        for (file, text) in files {
            fs::write(path.join(file), text).unwrap();
        }
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

// === loading ===

#[test]
fn a_folder_is_read_in_order_and_other_files_are_left_alone() {
    let tier = format!("{TIER}spec: {{redis: {{topology: None}}}}\n");
    let folder = Folder::new(
        "order",
        &[
            ("b.yaml", &tier),
            (
                "a.yml",
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
            ),
            ("notes.txt", "not: [yaml"),
            (".hidden.yaml", "not: [yaml"),
        ],
    );
    let found = load_manifests(&folder.0).unwrap();
    assert_eq!(found.tiers.len(), 1);
    assert_eq!(found.tiers[0].place.document, 1);
    assert_eq!(found.notes.len(), 1);
    assert!(
        found.notes[0].contains("a.yml, document 1: ConfigMap is not used"),
        "{:?}",
        found.notes
    );
}

#[test]
fn a_path_that_cannot_be_read_and_a_folder_without_yaml_are_named() {
    let folder = Folder::new("empty", &[("notes.txt", "")]);
    let error = load_manifests(&folder.0).unwrap_err().to_string();
    assert!(
        error.contains("pannier-crds-") && error.contains(".yaml, .yml or .json"),
        "{error}"
    );
    let missing = folder.0.join("missing.yaml");
    let error = load_manifests(&missing).unwrap_err();
    assert!(matches!(error, LoadError::Read { .. }));
    assert!(
        error.to_string().contains("missing.yaml: No such file"),
        "{error}"
    );
}

#[test]
fn all_problems_of_all_documents_are_reported_with_file_document_field_and_remedy() {
    let text = format!(
        "{TIER}spec: {{redis: {{topology: None}}, rules: [{{name: a, match: a, ttl: 5}}], ttll: {{}}}}
---
---
{TIER}spec: {{redis: {{topology: None}}, warm: [{{name: w, keys: [k]}}]}}
---
apiVersion: pannier.dev/v1alpha1
kind: CacheTeer
---
apiVersion: pannier.dev/v1
kind: CacheTier
---
hello: world
"
    );
    let error = parse(&text).unwrap_err();
    let lines: Vec<&str> = error.lines().collect();
    for (line, parts) in lines.iter().zip([
        "tier.yaml, document 1: spec.rules[0].ttl: must be a text, not 5",
        "tier.yaml, document 1: spec.ttll: unknown field; did you mean ttl?",
        "tier.yaml, document 3: spec.warm: warm is not available yet",
        "tier.yaml, document 4: kind: \"CacheTeer\": unknown kind; did you mean CacheTier?",
        "tier.yaml, document 5: apiVersion: \"pannier.dev/v1\" is not known; write pannier.dev/v1alpha1",
        "tier.yaml, document 6: is not a Kubernetes resource",
    ]) {
        assert!(line.starts_with(parts), "{line}\nexpected {parts}");
    }
    assert_eq!(lines.len(), 6, "{error}");
}

#[test]
fn what_is_not_yaml_or_says_a_field_twice_is_refused_with_its_line() {
    let error = parse("apiVersion: [").unwrap_err();
    assert!(
        error.contains("document 1: is not YAML") && error.contains("line"),
        "{error}"
    );
    let error = parse(&format!(
        "{TIER}spec: {{redis: {{topology: None, topology: External}}}}"
    ))
    .unwrap_err();
    assert!(
        error.contains("duplicate entry with key \"topology\""),
        "{error}"
    );
    let error = parse(&format!("{TIER}spec: {{1: 2}}")).unwrap_err();
    assert!(
        error.contains("spec.1: unknown field") || error.contains("no text"),
        "{error}"
    );
}

#[test]
fn a_resource_without_name_and_a_number_beyond_its_type_are_refused() {
    let error = parse("apiVersion: pannier.dev/v1alpha1\nkind: CacheTier\nmetadata: {}\nspec: {redis: {topology: None}}").unwrap_err();
    assert!(error.contains("metadata.name: is missing"), "{error}");
    let error = parse(&format!(
        "{TIER}spec: {{redis: {{topology: None}}, local: {{memory: 99999999999999999999}}}}"
    ))
    .unwrap_err();
    assert!(error.contains("spec.local.memory"), "{error}");
    let error = parse(&format!(
        "{TIER}spec: {{redis: {{topology: None}}, ttl: {{default: 99999999999999999999s}}}}"
    ))
    .unwrap_err();
    assert!(error.contains("is too large"), "{error}");
}

#[test]
fn a_file_that_is_too_large_is_not_read_p9() {
    let folder = Folder::new("large", &[("big.yaml", &"# comment\n".repeat(400_000))]);
    let error = load_manifests(&folder.0).unwrap_err();
    assert!(matches!(error, LoadError::TooLarge { .. }), "{error}");
}

// === compiling ===

#[test]
fn memory_only_needs_no_upstream_b9() {
    let compiled = compile(&tier("spec: {redis: {topology: None}}"), None).unwrap();
    assert_eq!(compiled.config.upstream, None);
    assert_eq!(compiled.config.tier, "shop/t");
    assert_eq!(compiled.config.generation, 7);
    assert_eq!(compiled.credentials, None);
    let compiled = compile(&tier("spec: {redis: {topology: None}}"), Some("redis://h")).unwrap();
    assert!(
        compiled.notes[0].contains("REDIS_URL is set and not used"),
        "{:?}",
        compiled.notes
    );
}

#[test]
fn the_url_of_an_external_redis_comes_from_the_secret_and_its_password_stays_beside_p10() {
    let text = format!(
        "{TIER}{EXTERNAL}{}",
        secret("stringData: {url: 'rediss://app:hunter2@redis.example:7000/4'}")
    );
    let manifests = parse(&text).unwrap();
    let compiled = compile(&manifests, None).unwrap();
    let upstream = compiled.config.upstream.clone().unwrap();
    assert_eq!(
        (upstream.host.as_str(), upstream.port),
        ("redis.example", 7000)
    );
    assert!(upstream.tls.is_some());
    assert_eq!(compiled.config.keyspace.database, 4);
    let credentials = compiled.credentials.clone().unwrap();
    assert_eq!(credentials.username.as_deref(), Some("app"));
    assert_eq!(credentials.password.as_deref(), Some("hunter2"));
    let shown = format!(
        "{compiled:?} {manifests:?} {}",
        serde_yaml::to_string(&compiled.config).unwrap()
    );
    assert!(
        shown.contains("redis.example") && !shown.contains("hunter2"),
        "{shown}"
    );
}

#[test]
fn a_secret_in_base64_and_certificates_are_found() {
    // redis://:pw@h
    let text = format!(
        "{TIER}spec:
  redis:
    topology: External
    external: {{urlSecretRef: {{name: r, key: where}}}}
    tls: {{mode: Enabled, serverName: s, caSecretRef: {{name: r}}, clientCertificateSecretName: r}}
{}",
        secret(
            "data: {where: cmVkaXM6Ly86cHdAaA==}\nstringData: {ca.crt: CA, tls.crt: CERT, tls.key: KEY}"
        )
    );
    let compiled = compile(&parse(&text).unwrap(), None).unwrap();
    let credentials = compiled.credentials.unwrap();
    assert_eq!(credentials.password.as_deref(), Some("pw"));
    assert_eq!(credentials.ca_certificate.as_deref(), Some("CA"));
    assert_eq!(credentials.client_certificate.as_deref(), Some("CERT"));
    assert_eq!(credentials.client_key.as_deref(), Some("KEY"));
    let tls = compiled.config.upstream.unwrap().tls.unwrap();
    assert_eq!(tls.server_name.as_deref(), Some("s"));
}

#[test]
fn sentinels_and_clusters_are_named_by_the_tier_or_by_the_url() {
    let sentinel = "spec: {redis: {topology: External, external: {urlSecretRef: {name: r}, mode: Sentinel, sentinelMasterName: m, sentinelPasswordSecretRef: {name: r}}}}\n";
    let text = format!(
        "{TIER}{sentinel}{}",
        secret("stringData: {url: 'redis://:pw@a,b:7/2', password: hunter2}")
    );
    let compiled = compile(&parse(&text).unwrap(), None).unwrap();
    let upstream = compiled.config.upstream.clone().unwrap();
    let addresses: Vec<_> = upstream.addresses().collect();
    assert_eq!(addresses, [("a", 26_379), ("b", 7)]);
    assert_eq!(upstream.mode, UpstreamMode::Sentinel);
    assert_eq!(upstream.sentinel.as_ref().unwrap().master_name, "m");
    let credentials = compiled.credentials.clone().unwrap();
    assert_eq!(credentials.sentinel_password.as_deref(), Some("hunter2"));
    assert_eq!(credentials.password.as_deref(), Some("pw"));
    assert!(!format!("{compiled:?}").contains("hunter2"));

    let compiled = compile(&tier(EXTERNAL), Some("redis-cluster://a,b")).unwrap();
    assert_eq!(
        compiled.config.upstream.unwrap().mode,
        UpstreamMode::Cluster
    );
    let error = compile(&tier(EXTERNAL), Some("redis://:hunter2@a,b")).unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with("REDIS_URL: the URL of Redis names several hosts")
            && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn redis_url_takes_the_place_of_the_secret() {
    let compiled = compile(&tier(EXTERNAL), Some("redis://other:1234")).unwrap();
    let upstream = compiled.config.upstream.unwrap();
    assert_eq!((upstream.host.as_str(), upstream.port), ("other", 1234));
    assert_eq!(upstream.tls, None);
    assert_eq!(compiled.credentials, None);
}

#[test]
fn what_an_external_redis_lacks_is_named_with_the_remedy() {
    let error = |text: &str, url: Option<&str>| {
        let manifests = parse(&format!("{TIER}{text}")).unwrap();
        compile(&manifests, url).unwrap_err().to_string()
    };
    let message = error(EXTERNAL, None);
    assert!(
        message.contains("urlSecretRef: Secret \"r\" is not among the manifests")
            && message.contains("or set REDIS_URL"),
        "{message}"
    );
    let message = error(
        &format!("{EXTERNAL}{}", secret("stringData: {uri: x}")),
        None,
    );
    assert!(
        message.contains("has no key \"url\"; it has: uri"),
        "{message}"
    );
    let message = error(
        &format!("{EXTERNAL}{}", secret("stringData: {url: 'hunter2'}")),
        None,
    );
    assert!(
        message.contains("Secret r: the URL of Redis must begin with")
            && !message.contains("hunter2"),
        "{message}"
    );
    let message = error(EXTERNAL, Some("redis://"));
    assert_eq!(
        message,
        "REDIS_URL: the URL of Redis names no host; write redis://host:6379"
    );
    let spec = EXTERNAL.replace("spec: {", "spec: {keyspace: {database: 2}, ");
    let message = error(&spec, Some("redis://h/3"));
    assert!(
        message.contains("keyspace.database is 2 and the URL of Redis names database 3"),
        "{message}"
    );
    let spec = EXTERNAL.replace("External, ", "External, tls: {mode: Disabled}, ");
    let message = error(&spec, Some("rediss://h"));
    assert!(message.contains("redis.tls.mode is Disabled"), "{message}");
}

#[test]
fn a_secret_of_another_namespace_is_not_used() {
    let other =
        secret("stringData: {url: redis://h}").replace("namespace: shop", "namespace: other");
    let manifests = parse(&format!("{TIER}{EXTERNAL}{other}")).unwrap();
    assert!(matches!(
        compile(&manifests, None),
        Err(CompileError::NoSecret { .. })
    ));
}

#[test]
fn a_secret_value_that_is_no_text_is_refused_without_showing_it_p10() {
    let error = parse(&secret("data: {url: 'hunter2!'}")).unwrap_err();
    assert!(
        error.contains("data.url: must be a text in base64") && !error.contains("hunter2"),
        "{error}"
    );
    let error = parse(&secret("stringData: {url: 31337}")).unwrap_err();
    assert!(
        error.contains("stringData.url: must be a text") && !error.contains("31337"),
        "{error}"
    );
}

#[test]
fn servers_that_only_an_operator_runs_are_refused_by_the_local_run_with_what_works() {
    for topology in ["Standalone", "Replicated", "Cluster"] {
        let error = compile(
            &tier(&format!("spec: {{redis: {{topology: {topology}}}}}")),
            None,
        )
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("tier.yaml, document 1: spec.redis.topology")
                && error.contains(topology)
                && error.contains("use topology None for memory only, or External"),
            "{error}"
        );
    }
}

#[test]
fn one_tier_is_served_not_none_and_not_two() {
    assert_eq!(
        compile(&Manifests::default(), None).unwrap_err(),
        CompileError::NoTier
    );
    let one = format!("{TIER}spec: {{redis: {{topology: None}}}}\n");
    let two = parse(&format!("{one}---\n{}", one.replace("name: t", "name: u"))).unwrap();
    let error = compile(&two, None).unwrap_err().to_string();
    assert!(
        error.contains("2 CacheTiers")
            && error.contains("t (tier.yaml, document 1), u (tier.yaml, document 2)"),
        "{error}"
    );
}

#[test]
fn session_policies_are_announced_as_not_served_and_must_name_the_tier() {
    let with = |name: &str| {
        parse(&format!(
            "{TIER}spec: {{redis: {{topology: None}}}}
---
apiVersion: pannier.dev/v1alpha1
kind: SessionPolicy
metadata: {{name: s}}
spec: {{cacheTierRef: {{name: {name}}}}}
"
        ))
        .unwrap()
    };
    let notes = compile(&with("t"), None).unwrap().notes;
    assert!(
        notes[0].contains("SessionPolicy s is valid and not served yet"),
        "{notes:?}"
    );
    let error = compile(&with("other"), None).unwrap_err().to_string();
    assert!(
        error.contains(
            "document 2: spec.cacheTierRef.name: no CacheTier \"other\" is here; write \"t\""
        ),
        "{error}"
    );
}

#[test]
fn texts_lists_and_maps_beyond_their_limits_are_refused_p9() {
    let refused = |spec: &str, part: &str| {
        let error = parse(&format!("{TIER}spec: {spec}")).unwrap_err();
        assert!(error.contains(part), "{error}\nexpected {part}");
    };
    let prefix = "p".repeat(129);
    refused(
        &format!("{{redis: {{topology: None}}, keyspace: {{prefix: {prefix}}}}}"),
        "spec.keyspace.prefix: has 129 characters, at most 128 are allowed",
    );
    refused(
        "{redis: {topology: None}, keyspace: {prefix: ''}}",
        "spec.keyspace.prefix: has 0 characters, at least 1 are needed",
    );
    let rules: Vec<String> = (0..257)
        .map(|i| format!("{{name: r{i}, match: 'r{i}:*'}}"))
        .collect();
    refused(
        &format!(
            "{{redis: {{topology: None}}, rules: [{}]}}",
            rules.join(", ")
        ),
        "spec.rules: has 257 entries, at most 256 are allowed",
    );
    let settings: Vec<String> = (0..65).map(|i| format!("s{i}: v")).collect();
    refused(
        &format!(
            "{{redis: {{topology: Standalone, config: {{{}}}}}}}",
            settings.join(", ")
        ),
        "spec.redis.config: has 65 entries, at most 64 are allowed",
    );
    refused(
        "{redis: {topology: None}, warm: [{name: w, keys: []}]}",
        "spec.warm[0].keys: has 0 entries, at least 1 are needed",
    );
}
