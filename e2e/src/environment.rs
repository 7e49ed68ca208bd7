//! Where downloads are kept, and how a test says that it cannot run here.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::PathBuf,
};

/// Folder for everything that is fetched: `$PANNIER_CACHE`, else `~/.cache/pannier`.
pub fn cache_folder() -> PathBuf {
    let folder = std::env::var_os("PANNIER_CACHE").map_or_else(
        || {
            let home = std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into());
            PathBuf::from(home).join(".cache/pannier")
        },
        PathBuf::from,
    );
    fs::create_dir_all(&folder)
        .unwrap_or_else(|error| unusable(&format!("cannot create {}: {error}", folder.display())));
    folder
}

/// Holds a lock in the cache folder, so that two test processes do not fetch the same thing.
pub fn lock(name: &str) -> File {
    let path = cache_folder().join(format!("{name}.lock"));
    let file = File::create(&path)
        .unwrap_or_else(|error| unusable(&format!("cannot create {}: {error}", path.display())));
    file.lock()
        .unwrap_or_else(|error| unusable(&format!("cannot lock {}: {error}", path.display())));
    file
}

/// What a test has that needs something this machine may not offer.
///
/// With `PANNIER_SKIP_LOG` set (as `make test` does) a missing tool is written there, and shown
/// when the tests have ended; without it the test fails. A test never passes in silence.
pub fn available<T, E: std::fmt::Display>(test: &str, found: Result<T, E>) -> Option<T> {
    let reason = match found {
        Ok(thing) => return Some(thing),
        Err(reason) => reason,
    };
    let Some(log) = std::env::var_os("PANNIER_SKIP_LOG") else {
        unusable(&format!("{test} cannot run here: {reason}"));
    };
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .unwrap_or_else(|error| unusable(&format!("cannot open the skip log: {error}")));
    // In one piece: other tests write at the same time.
    let line = format!("{test}: {reason}\n");
    file.write_all(line.as_bytes())
        .unwrap_or_else(|error| unusable(&format!("cannot write the skip log: {error}")));
    None
}

/// Ends the test: the machine lacks something the harness cannot do without.
#[expect(clippy::panic, reason = "this is how a test fails")]
pub fn unusable(message: &str) -> ! {
    panic!("{message}")
}
