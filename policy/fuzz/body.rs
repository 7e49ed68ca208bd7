//! What is tried with arbitrary bytes; the fuzz target and an ordinary test run the same.

use policy::{Policy, SidecarConfig, glob, key_part};

/// Reads the bytes as a configuration and uses what comes of it. Nothing may panic, and the
/// compiled matcher must agree with trying one rule after the other.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // Whatever the text is, it is a key, a glob and a key part as well.
    let _ = glob::glob_match(&data[..data.len().min(256)], &data[..data.len().min(1024)]);
    let part = key_part::escape(data);
    assert_eq!(key_part::unescape(&part).as_deref(), Ok(data));

    let config = match SidecarConfig::from_yaml(&text) {
        Ok(config) => config,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let policy = match Policy::compile(&config) {
        Ok(policy) => policy,
        Err(errors) => return assert!(!errors.to_string().is_empty()),
    };
    for report in policy.reports() {
        assert!(!report.to_string().is_empty());
    }
    let keys = text.split(['\n', '\'', '"', ' ', ',']).take(64);
    for key in keys.map(str::as_bytes).chain([data, b"", b":", b"a:b:c"]) {
        let found = policy.find_declared(key);
        let first = policy.rules().iter().find(|rule| rule.pattern.matches(key));
        assert_eq!(found, first.map(|rule| rule.id));
        if let Some(id) = found {
            assert!(policy.captures(id, key).is_some());
        }
    }
}
