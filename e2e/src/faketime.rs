//! Wall clocks that step while a process runs: Debian's libfaketime, unpacked like the servers and
//! preloaded into one process. Monotonic clocks go on as they are.
//!
//! `PANNIER_FAKETIME` may name a folder with `libfaketimeMT.so.1` instead.

use std::{fs, path::PathBuf, sync::OnceLock};

use crate::{
    debian::{FetchError, step, unpack},
    environment::{cache_folder, lock, unusable},
    process::Folder,
};

const LIBRARY: &str = "libfaketimeMT.so.1";
const VARIABLE: &str = "PANNIER_FAKETIME";

/// The wall clock of one process.
pub struct WallClock {
    folder: Folder,
}

/// The library; fetched first if it is not there yet.
pub fn library() -> Result<PathBuf, FetchError> {
    if let Some(folder) = std::env::var_os(VARIABLE) {
        return Ok(PathBuf::from(folder).join(LIBRARY));
    }
    let folder = cache_folder().join("servers/libfaketime");
    if !folder.is_dir() {
        let _lock = lock("libfaketime");
        if !folder.is_dir() {
            eprintln!("fetching libfaketime from Debian bookworm (30 kB and package lists)");
            let work = folder.with_extension("partial");
            let _ = fs::remove_dir_all(&work);
            unpack("bookworm", &["libfaketime"], &work, VARIABLE)?;
            step("move the folder into place", || fs::rename(&work, &folder))?;
        }
    }
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    Ok(folder
        .join("root/usr/lib")
        .join(triple)
        .join("faketime")
        .join(LIBRARY))
}

impl Default for WallClock {
    fn default() -> Self {
        let clock = Self {
            folder: Folder::new("clock"),
        };
        clock.step(0);
        clock
    }
}

impl WallClock {
    /// From now on it shows the time that many seconds from now.
    pub fn step(&self, seconds: i64) {
        let partial = self.folder.write("partial", &format!("{seconds:+}"));
        fs::rename(partial, self.folder.path().join("offset")).expect("the folder is ours");
    }

    /// What makes a program follow it.
    pub fn environment(&self) -> Vec<(String, String)> {
        static LIBRARY: OnceLock<String> = OnceLock::new();
        let library = LIBRARY.get_or_init(|| {
            let found = library().unwrap_or_else(|error| unusable(&error.to_string()));
            found.display().to_string()
        });
        let offset = self.folder.path().join("offset").display().to_string();
        [
            // libfaketime asks for memory before it knows the real clock, and jemalloc for the
            // time before it gives any: Redis gets the C library's memory here.
            ("LD_PRELOAD", format!("{library} libc.so.6")),
            ("FAKETIME_TIMESTAMP_FILE", offset),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}
