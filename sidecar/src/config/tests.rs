//! Sources, precedence, refusals; files are real.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use clap::Parser as _;

use super::*;

/// A folder that is gone after the test.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "pannier-config-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn args(words: &[&str]) -> Args {
    Args::try_parse_from(["pannier-sidecar"].iter().chain(words)).unwrap()
}

pub(super) fn env(variables: &[(&str, &str)]) -> Env {
    Env::from_lookup(|wanted| {
        let found = variables.iter().find(|(name, _)| *name == wanted)?;
        Some(found.1.to_owned())
    })
}

fn loaded(words: &[&str], variables: &[(&str, &str)]) -> Loaded {
    match load(&args(words), &env(variables)) {
        Ok(loaded) => loaded,
        Err(error) => panic!("{error}"),
    }
}

fn refused(words: &[&str], variables: &[(&str, &str)]) -> String {
    match load(&args(words), &env(variables)) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}

/// `user:password@host:port/database tls?` as it came out.
fn server(loaded: &Loaded) -> String {
    let Active {
        config,
        credentials,
        ..
    } = &loaded.active;
    let Some(upstream) = &config.upstream else {
        return "none".to_owned();
    };
    format!(
        "{}:{}@{}:{}/{}{}",
        credentials.username.as_deref().unwrap_or_default(),
        credentials
            .password
            .as_ref()
            .map(Secret::expose)
            .unwrap_or_default(),
        upstream.host,
        upstream.port,
        config.keyspace.database,
        if upstream.tls.is_some() { " tls" } else { "" },
    )
}

#[test]
fn nothing_at_all_is_memory_only_without_rules() {
    let loaded = loaded(&[], &[]);
    assert_eq!(server(&loaded), "none");
    assert!(loaded.active.policy.rules().is_empty() && !loaded.source.has_files());
    assert_eq!(loaded.notes, Vec::<String>::new());
    let listen = loaded.listen;
    let redis: Vec<String> = listen.redis.iter().map(ToString::to_string).collect();
    assert_eq!(redis, ["127.0.0.1:6379", "[::1]:6379"]);
    assert_eq!(listen.http.to_string(), "127.0.0.1:6380");
    assert_eq!(listen.admin.to_string(), "[::]:9464");
    assert_eq!(listen.threads, 1);
}

#[test]
fn a_url_names_sentinels_which_have_a_password_of_their_own() {
    let variables = [
        ("REDIS_URL", "redis-sentinel://:p@a,b:5000#my.master"),
        ("REDIS_SENTINEL_PASSWORD", "q"),
    ];
    let loaded = loaded(&[], &variables);
    let upstream = loaded.active.config.upstream.as_ref().unwrap();
    let addresses: Vec<_> = upstream.addresses().collect();
    assert_eq!(addresses, [("a", 26_379), ("b", 5000)]);
    assert_eq!(upstream.sentinel.as_ref().unwrap().master_name, "my.master");
    let credentials = &loaded.active.credentials;
    let exposed =
        |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
    assert_eq!(exposed(&credentials.password).as_deref(), Some("p"));
    assert_eq!(
        exposed(&credentials.sentinel_password).as_deref(),
        Some("q")
    );
}

#[test]
fn redis_comes_from_a_url_or_from_host_and_port_s1_9() {
    for (variables, expected) in [
        (&[("REDIS_URL", "redis://u:p@h:7000/3")][..], "u:p@h:7000/3"),
        (&[("REDIS_URL", "rediss://h")], ":@h:6379/0 tls"),
        (&[("REDIS_HOST", "h")], ":@h:6379/0"),
        (
            &[
                ("REDIS_HOST", "h"),
                ("REDIS_PORT", "7000"),
                ("REDIS_PASSWORD", "p"),
            ],
            ":p@h:7000/0",
        ),
        (
            &[
                ("REDIS_HOST", "h"),
                ("REDIS_USERNAME", "u"),
                ("REDIS_PASSWORD", "p"),
            ],
            "u:p@h:6379/0",
        ),
        (
            &[
                ("REDIS_HOST", "h"),
                ("REDIS_DB", "5"),
                ("REDIS_TLS", "true"),
            ],
            ":@h:6379/5 tls",
        ),
        // One that is meant for the sidecar wins over the app's.
        (
            &[
                ("PANNIER_REDIS_URL", "redis://a"),
                ("REDIS_URL", "redis://b"),
            ],
            ":@a:6379/0",
        ),
        // What the URL leaves open is filled, what it says stays (S2.16).
        (
            &[
                ("REDIS_URL", "redis://h"),
                ("REDIS_PASSWORD", "p"),
                ("REDIS_DB", "2"),
            ],
            ":p@h:6379/2",
        ),
        (
            &[
                ("REDIS_URL", "redis://:x@h/1"),
                ("REDIS_PASSWORD", "p"),
                ("REDIS_DB", "2"),
            ],
            ":x@h:6379/1",
        ),
        (
            &[("REDIS_URL", "redis-sentinel://:p@h,i:1/2#m")],
            ":p@h:26379/2",
        ),
        (&[("REDIS_URL", "rediss-cluster://h,i")], ":@h:6379/0 tls"),
        // Kubernetes' own variable for a Service called redis.
        (
            &[("REDIS_HOST", "h"), ("REDIS_PORT", "tcp://10.0.0.1:6379")],
            ":@h:6379/0",
        ),
        (&[("REDIS_PORT", "tcp://10.0.0.1:6379")], "none"),
        (&[("REDIS_URL", "")], "none"),
    ] {
        assert_eq!(server(&loaded(&[], variables)), expected, "{variables:?}");
    }
    let flag = loaded(&["--redis-url=redis://f/4"], &[("REDIS_URL", "redis://e")]);
    assert_eq!(server(&flag), ":@f:6379/4");
}

#[test]
fn a_bad_address_of_redis_is_named_with_its_remedy() {
    for (variable, value, parts) in [
        ("REDIS_URL", "http://h", &["REDIS_URL", "redis://"][..]),
        (
            "REDIS_URL",
            "unix:///run/redis.sock",
            &["REDIS_URL", "UNIX socket", "TCP"],
        ),
        (
            "REDIS_URL",
            "redis://h:0",
            &["REDIS_URL", "from 1 to 65535"],
        ),
        ("REDIS_HOST", "redis://h", &["REDIS_HOST", "REDIS_URL"]),
    ] {
        let error = refused(&[], &[(variable, value)]);
        assert!(
            parts.iter().all(|part| error.contains(part)),
            "{value}: {error}"
        );
    }
    let error = refused(
        &[],
        &[("REDIS_HOST", "h"), ("REDIS_PORT", "x"), ("REDIS_DB", "-1")],
    );
    assert!(error.contains("REDIS_PORT is \"x\""), "{error}");
    let error = refused(&[], &[("REDIS_HOST", "h"), ("REDIS_TLS", "perhaps")]);
    assert!(
        error.contains("REDIS_TLS is \"perhaps\"") && error.contains("true or false"),
        "{error}"
    );
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated_p10() {
    for url in [
        "redis://:hunter2@h",
        "redis://u:hunter2@h",
        "redis://hunter2@h",
        "redis://:hunter2@h:x",
    ] {
        let error = refused(&["--redis-url", url], &[]);
        assert!(
            error.contains("--redis-url") && error.contains("PANNIER_REDIS_URL"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }
    for variables in [
        [("REDIS_URL", "redis://:hunter2@h:x")],
        [("PANNIER_REDIS_URL", "hunter2")],
        [("REDIS_HOST", "redis://:hunter2@h")],
    ] {
        let error = refused(&[], &variables);
        assert!(!error.contains("hunter2"), "{error}");
    }
    let shown = format!(
        "{:?}",
        loaded(&[], &[("REDIS_URL", "redis://:hunter2@h")])
            .active
            .credentials
    );
    assert!(
        shown.contains("redacted") && !shown.contains("hunter2"),
        "{shown}"
    );
}

#[test]
fn the_sidecar_is_not_its_own_redis() {
    for url in [
        "redis://localhost",
        "redis://127.0.0.1:6379",
        "redis://[::1]",
    ] {
        let error = refused(&[], &[("REDIS_URL", url)]);
        assert!(error.contains("the sidecar itself listens"), "{error}");
    }
    loaded(
        &["--listen=127.0.0.1:6390"],
        &[("REDIS_URL", "redis://localhost")],
    );
}

#[test]
fn all_problems_are_reported_together() {
    let folder = Folder::new();
    let text = "\
sidecar: {threads: 99, localPasswordFile: /nonexistent/local}
upstream: {host: h, passwordFile: /nonexistent/password, tls: {caFile: /nonexistent/ca}}
rules: [{name: A, match: 'a:{b}'}]
";
    let file = folder.write("c.yaml", text);
    let error = refused(
        &[
            "--config",
            &file,
            "--listen=0.0.0.0:6379",
            "--http=nowhere",
            "--threads=0",
        ],
        &[],
    );
    for part in [
        "--listen / PANNIER_LISTEN is \"0.0.0.0:6379\"",
        "nothing but the admin port leaves the pod",
        "--http / PANNIER_HTTP is \"nowhere\"",
        "--threads / PANNIER_THREADS is \"0\"",
        "sidecar.localPasswordFile names /nonexistent/local",
        "upstream.passwordFile names /nonexistent/password",
        "upstream.tls.caFile names /nonexistent/ca",
        "name is \"A\"",
    ] {
        assert!(error.contains(part), "{part:?} is missing in:\n{error}");
    }
}

#[test]
fn flags_win_over_the_file() {
    let folder = Folder::new();
    let text =
        "sidecar: {threads: 2, redisPort: 7001, httpPort: 7002, adminPort: 7003, unixSocket: /a}";
    let file = folder.write("c.yaml", text);
    let from_file = loaded(&["--config", &file], &[]).listen;
    assert_eq!((from_file.redis[0].port(), from_file.threads), (7001, 2));
    let flags = [
        "--listen=[::1]:7101",
        "--http=localhost:7102",
        "--admin=127.0.0.1:7103",
        "--threads=4",
        "--unix-socket=/b",
    ];
    let Loaded { listen, active, .. } =
        loaded(&[&["--config", file.as_str()][..], &flags].concat(), &[]);
    assert_eq!(listen.redis, ["[::1]:7101".parse().unwrap()]);
    assert_eq!(listen.http, "127.0.0.1:7102".parse().unwrap());
    assert_eq!(listen.admin, "127.0.0.1:7103".parse().unwrap());
    assert_eq!(listen.unix_socket.as_deref(), Some(Path::new("/b")));
    let none = loaded(&["--config", &file, "--unix-socket="], &[]);
    assert_eq!(none.listen.unix_socket, None);
    let sidecar = &active.config.sidecar;
    assert_eq!(
        (sidecar.threads, sidecar.redis_port, sidecar.admin_port),
        (4, 7101, 7103)
    );
}

#[test]
fn secrets_come_from_files_without_their_line_break() {
    let folder = Folder::new();
    let password = folder.write("password", " with space \n");
    let user = folder.write("user", "app\r\n");
    let local = folder.write("local", "local");
    let file = folder.write(
        "c.yaml",
        &format!(
            "upstream: {{host: h, usernameFile: {user}, passwordFile: {password}}}\nsidecar: {{localPasswordFile: {local}}}"
        ),
    );
    let loaded = loaded(&["--config", &file], &[("REDIS_PASSWORD", "not this")]);
    assert_eq!(server(&loaded), "app: with space @h:6379/0");
    assert_eq!(
        loaded.active.credentials.local_password,
        Some(Secret::new("local"))
    );
    fs::write(&password, "\n").unwrap();
    let error = refused(&["--config", &file], &[]);
    assert!(
        error.contains("upstream.passwordFile") && error.contains("empty"),
        "{error}"
    );
}

#[test]
fn the_environment_fills_only_what_a_file_leaves_open() {
    let folder = Folder::new();
    let file = folder.write("c.yaml", "upstream: {host: h}");
    let variables = [("REDIS_URL", "redis://:x@other"), ("REDIS_PASSWORD", "p")];
    let with_upstream = loaded(&["--config", &file], &variables);
    assert_eq!(server(&with_upstream), ":p@h:6379/0");
    assert!(
        with_upstream.notes[0].contains("REDIS_URL is not used"),
        "{:?}",
        with_upstream.notes
    );
    fs::write(&file, "tier: t").unwrap();
    assert_eq!(server(&loaded(&["--config", &file], &variables)), "none");
    let error = refused(
        &["--config", &file],
        &[("PANNIER_REDIS_URL", "redis://:x@h")],
    );
    assert!(
        error.contains("PANNIER_REDIS_URL") && error.contains("upstream.host"),
        "{error}"
    );
    let error = refused(&["--config", &file, "--manifests", &file], &[]);
    assert!(
        error.contains("--manifests") && error.contains("one of the two"),
        "{error}"
    );
}

const TIER: &str = "\
apiVersion: pannier.dev/v1alpha1
kind: CacheTier
metadata: {name: t}
spec:
  redis: {topology: None}
  rules: [{name: a, match: 'a:{id}', ttl: 5m}]
";

const EXTERNAL: &str = "\
apiVersion: pannier.dev/v1alpha1
kind: CacheTier
metadata: {name: t}
spec:
  redis: {topology: External, external: {urlSecretRef: {name: s}}}
";

#[test]
fn manifests_say_what_is_served_and_the_environment_fills_the_gap() {
    let folder = Folder::new();
    folder.write("tier.yaml", TIER);
    let path = folder.path().to_str().unwrap().to_owned();
    let words = ["--manifests", path.as_str()];
    let memory = loaded(&words, &[("REDIS_URL", "redis://h")]);
    assert_eq!(server(&memory), "none");
    assert_eq!(memory.active.config.tier, "default/t");
    assert_eq!(&*memory.active.policy.rules()[0].name, "a");

    folder.write("tier.yaml", EXTERNAL);
    assert!(refused(&words, &[]).contains("Secret \"s\""));
    assert_eq!(
        server(&loaded(&words, &[("REDIS_URL", "redis://:p@open/2")])),
        ":p@open:6379/2"
    );
    let parts = [("REDIS_HOST", "open"), ("REDIS_PASSWORD", "p")];
    assert_eq!(server(&loaded(&words, &parts)), ":p@open:6379/0");
    let secret =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {url: 'redis://secret'}\n";
    folder.write("secret.yaml", secret);
    let both = [("REDIS_URL", "redis://app"), ("REDIS_PASSWORD", "p")];
    assert_eq!(server(&loaded(&words, &both)), ":p@secret:6379/0");
    assert_eq!(
        server(&loaded(&words, &[("PANNIER_REDIS_URL", "redis://aimed")])),
        ":@aimed:6379/0"
    );
}

#[test]
fn check_says_what_is_worth_knowing_or_what_is_wrong() {
    let folder = Folder::new();
    let file = folder.write(
        "c.yaml",
        "rules: [{name: a, match: '{x}:{y}'}, {name: b, match: 'a:{y}'}]",
    );
    let (text, code) = verdict(&args(&["--config", &file]), &env(&[]));
    assert_eq!(code, 0);
    assert!(
        text.contains("note: rule `b` never applies") && text.contains("2 rules"),
        "{text}"
    );
    let (text, code) = verdict(&args(&["--config", "/nonexistent"]), &env(&[]));
    assert_eq!(code, 2);
    assert!(
        text.contains("--config / PANNIER_CONFIG names /nonexistent"),
        "{text}"
    );
}

#[test]
fn a_file_that_is_no_file_is_refused_without_waiting() {
    let error = refused(&["--config", "/dev/zero"], &[]);
    assert!(error.contains("not a regular file"), "{error}");
    let folder = Folder::new();
    let error = refused(&["--config", folder.path().to_str().unwrap()], &[]);
    assert!(error.contains("not a regular file"), "{error}");
}
