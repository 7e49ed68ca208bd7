//! The files of a configuration: read once per load, bounded, remembered for the watch.

use std::{
    collections::hash_map::DefaultHasher,
    fs::{self, File},
    hash::{Hash, Hasher},
    io::{self, Read as _},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    Secret,
    env::Env,
    error::{Problem, Problems},
};
use crate::args::Args;

/// No password and no certificate chain is longer.
const MAX_SECRET: usize = 64 << 10;
const MAX_PEM: usize = 1 << 20;
/// A file that changed this recently may change again without a new time stamp, or has changed
/// between being read and being looked at.
const UNSETTLED: Duration = Duration::from_secs(3);

/// Where a configuration came from, so that it can be read again.
#[derive(Clone)]
pub struct Source {
    pub(super) args: Args,
    pub(super) env: Env,
    paths: Vec<PathBuf>,
    first: Stamp,
}

/// Collects what is read during one load.
#[derive(Default)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
}

// === impl Files ===

impl Files {
    pub(super) fn text(
        &mut self,
        place: &str,
        path: &Path,
        max: usize,
        problems: &mut Problems,
    ) -> Option<String> {
        let bytes = self.bytes(place, path, max, problems)?;
        let text = String::from_utf8(bytes).ok();
        if text.is_none() {
            let shown = path.to_string_lossy();
            problems.setting(
                place,
                Some(&shown),
                "the file is not UTF-8 text",
                "write it as UTF-8",
            );
        }
        text
    }

    /// A secret: the final line break, which editors and `echo` add, does not belong to it.
    pub(super) fn secret(
        &mut self,
        place: &str,
        path: &Path,
        problems: &mut Problems,
    ) -> Option<Secret> {
        let text = self.text(place, path, MAX_SECRET, problems)?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            let shown = path.to_string_lossy();
            problems.setting(
                place,
                Some(&shown),
                "the file is empty",
                "write the value into it",
            );
            return None;
        }
        Some(Secret::new(text))
    }

    /// Certificates or a key.
    pub(super) fn pem(
        &mut self,
        place: &str,
        path: &Path,
        problems: &mut Problems,
    ) -> Option<Secret> {
        self.text(place, path, MAX_PEM, problems).map(Secret::new)
    }

    /// A file or folder that somebody else reads.
    pub(super) fn add(&mut self, path: &Path) {
        self.paths.push(path.to_owned());
    }

    fn bytes(
        &mut self,
        place: &str,
        path: &Path,
        max: usize,
        problems: &mut Problems,
    ) -> Option<Vec<u8>> {
        self.add(path);
        match read(path, max) {
            Ok(bytes) => Some(bytes),
            Err(source) => {
                let (place, path) = (place.to_owned(), path.to_owned());
                problems.push(Problem::Unreadable {
                    place,
                    path,
                    source,
                });
                None
            }
        }
    }
}

fn read(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(max as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(io::Error::other(format!("it is larger than {max} bytes")));
    }
    Ok(bytes)
}

// === impl Source ===

impl Source {
    pub(super) fn new(args: &Args, env: &Env, files: &Files) -> Self {
        let mut paths = files.paths.clone();
        paths.sort();
        paths.dedup();
        let first = stamp(&paths);
        Self {
            args: args.clone(),
            env: env.clone(),
            paths,
            first,
        }
    }

    pub(super) fn same_files(&self, other: &Self) -> bool {
        self.paths == other.paths
    }

    /// The stamp of the time when the files were read. One that changed between being read and
    /// being looked at is recent, so it is read again.
    pub(super) fn first_stamp(&self) -> Stamp {
        self.first
    }

    /// Whether there is anything to watch.
    pub fn has_files(&self) -> bool {
        !self.paths.is_empty()
    }

    /// What can be seen of the files without reading them. Another stamp means: read again.
    ///
    /// Paths are resolved anew each time, so the symlink swap of a `ConfigMap` volume, a file that
    /// was replaced by `rename`, and one in a bind mount are all seen; the file system's own
    /// notifications miss some of these.
    pub(super) fn stamp(&self) -> Stamp {
        stamp(&self.paths)
    }
}

fn stamp(paths: &[PathBuf]) -> Stamp {
    let mut hasher = DefaultHasher::new();
    let mut settled = true;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let recent = i64::try_from(now.saturating_sub(UNSETTLED).as_secs()).unwrap_or(i64::MAX);
    for path in paths {
        path.hash(&mut hasher);
        match fs::metadata(path) {
            Ok(metadata) => {
                settled &= metadata.mtime().max(metadata.ctime()) < recent;
                (metadata.dev(), metadata.ino(), metadata.len()).hash(&mut hasher);
                (metadata.mtime(), metadata.mtime_nsec()).hash(&mut hasher);
                (metadata.ctime(), metadata.ctime_nsec()).hash(&mut hasher);
            }
            Err(error) => error.kind().hash(&mut hasher),
        }
    }
    Stamp {
        hash: hasher.finish(),
        settled,
    }
}

/// See [`Source::stamp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    hash: u64,
    /// All time stamps are old enough to trust.
    settled: bool,
}

impl Stamp {
    /// Whether files that looked like `self` when they were read must be read again.
    pub(super) fn is_stale(self, now: Self) -> bool {
        self.hash != now.hash || !self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changed_just_now_is_read_again_even_if_it_looks_the_same() {
        let stamp = |hash, settled| Stamp { hash, settled };
        assert!(stamp(1, false).is_stale(stamp(1, true)));
        assert!(stamp(1, true).is_stale(stamp(2, true)));
        assert!(!stamp(1, true).is_stale(stamp(1, true)));
    }
}
