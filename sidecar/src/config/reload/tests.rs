//! Files change, one look at them follows; no time passes in here.

use std::fs;

use super::{
    super::tests::{Folder, args, env},
    *,
};

const ONE: &str = "rules: [{name: one, match: 'a:{id}', ttl: 5m}]\n";

fn watcher(folder: &Folder, text: &str) -> (Watcher, String) {
    let file = folder.write("c.yaml", text);
    let Ok(loaded) = load(&args(&["--config", &file]), &env(&[])) else {
        panic!("refused")
    };
    let shared = Shared::new(loaded.active, 1);
    (Watcher::new(shared, loaded.source), file)
}

fn rule(watcher: &Watcher) -> String {
    watcher.shared.active().policy.rules()[0].name.to_string()
}

#[test]
fn a_changed_file_takes_effect_and_an_unchanged_one_does_nothing() {
    let folder = Folder::new();
    let (mut watcher, file) = watcher(&folder, ONE);
    let version = watcher.shared.version();
    watcher.poll();
    assert_eq!(watcher.shared.version(), version);
    fs::write(&file, ONE.replace("one", "two")).unwrap();
    watcher.poll();
    assert_eq!(rule(&watcher), "two");
    assert_eq!(watcher.shared.version(), version + 1);
    // Same size, same file, perhaps the same time stamp.
    fs::write(&file, ONE.replace("one", "six")).unwrap();
    watcher.poll();
    assert_eq!(rule(&watcher), "six");
    assert_eq!(watcher.shared.reload.lock().applied, 2);
}

#[test]
fn a_bad_file_keeps_the_old_rules_and_says_so_once() {
    let folder = Folder::new();
    let (mut watcher, file) = watcher(&folder, ONE);
    fs::write(&file, "rules: [{name: one, mach: x}]").unwrap();
    for _ in 0..12 {
        watcher.poll();
    }
    assert_eq!(rule(&watcher), "one");
    let reload = watcher.shared.reload.lock().clone();
    assert_eq!((reload.refused, reload.applied), (1, 0));
    assert!(reload.error.unwrap().contains("`mach`"));
    fs::write(&file, ONE.replace("one", "two")).unwrap();
    watcher.poll();
    assert_eq!(rule(&watcher), "two");
    assert_eq!(watcher.shared.reload.lock().error, None);
}

#[test]
fn the_symlink_swap_of_a_config_map_volume_is_seen() {
    let folder = Folder::new();
    for (version, name) in [("v1", "one"), ("v2", "two")] {
        fs::create_dir(folder.path().join(version)).unwrap();
        fs::write(
            folder.path().join(version).join("c.yaml"),
            ONE.replace("one", name),
        )
        .unwrap();
    }
    let data = folder.path().join("..data");
    std::os::unix::fs::symlink("v1", &data).unwrap();
    let file = folder.path().join("c.yaml");
    std::os::unix::fs::symlink("..data/c.yaml", &file).unwrap();
    let file = file.to_str().unwrap();
    let Ok(loaded) = load(&args(&["--config", file]), &env(&[])) else {
        panic!("refused")
    };
    let mut watcher = Watcher::new(Shared::new(loaded.active, 1), loaded.source);
    let next = folder.path().join("..data_tmp");
    std::os::unix::fs::symlink("v2", &next).unwrap();
    fs::rename(&next, &data).unwrap();
    watcher.poll();
    assert_eq!(rule(&watcher), "two");
}

#[test]
fn a_new_password_is_a_reload_as_well() {
    let folder = Folder::new();
    let password = folder.write("password", "old");
    let (mut watcher, _) = watcher(
        &folder,
        &format!("upstream: {{host: h, passwordFile: {password}}}"),
    );
    fs::write(&password, "new\n").unwrap();
    watcher.poll();
    let known = watcher.shared.active().credentials.password.clone();
    assert_eq!(known.unwrap().expose(), "new");
    // A file that another one names may come later than the one that names it.
    fs::remove_file(&password).unwrap();
    watcher.poll();
    assert!(watcher.shared.reload.lock().error.is_some());
    folder.write("password", "newer");
    watcher.poll();
    let known = watcher.shared.active().credentials.password.clone();
    assert_eq!(known.unwrap().expose(), "newer");
    assert_eq!(watcher.shared.reload.lock().error, None);
}

#[test]
fn what_needs_a_restart_keeps_its_value_and_is_named() {
    let folder = Folder::new();
    let (mut watcher, file) = watcher(&folder, ONE);
    let text = format!(
        "{}keyspace: {{prefix: 'p:'}}\nlocal: {{memory: 32Mi}}\nsidecar: {{threads: 3}}\nupstream: {{host: h}}\n",
        ONE.replace("one", "two")
    );
    fs::write(&file, text).unwrap();
    watcher.poll();
    let active = watcher.shared.active();
    assert_eq!(rule(&watcher), "two");
    assert!(active.prefix.is_none() && active.config.upstream.is_none());
    assert_eq!(active.config.sidecar.threads, 1);
    let named = [
        "sidecar.threads",
        "upstream",
        "keyspace.prefix",
        "local.memory",
    ];
    assert_eq!(watcher.shared.reload.lock().needs_restart, named);
    fs::write(&file, ONE.replace("one", "two")).unwrap();
    watcher.poll();
    assert!(watcher.shared.reload.lock().needs_restart.is_empty());
}

#[test]
fn a_tier_in_a_folder_that_comes_later_is_seen() {
    let folder = Folder::new();
    let tier = "apiVersion: pannier.dev/v1alpha1\nkind: CacheTier\nmetadata: {name: t}\nspec:\n  redis: {topology: None}\n  rules: [{name: one, match: 'a:{id}'}]\n";
    folder.write("a.yaml", tier);
    let path = folder.path().to_str().unwrap().to_owned();
    let Ok(loaded) = load(&args(&["--manifests", &path]), &env(&[])) else {
        panic!("refused")
    };
    let mut watcher = Watcher::new(Shared::new(loaded.active, 1), loaded.source);
    folder.write("b.yaml", &tier.replace("name: t", "name: u"));
    watcher.poll();
    assert!(
        watcher
            .shared
            .reload
            .lock()
            .error
            .as_ref()
            .unwrap()
            .contains("2 CacheTiers")
    );
    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    watcher.poll();
    assert_eq!(watcher.shared.active().config.tier, "default/u");
}
